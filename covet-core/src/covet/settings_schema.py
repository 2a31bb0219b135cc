"""Checking a settings table against a schema: every fault, in words, with the nearest known key."""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import UnionType
from typing import Any, TypeVar

import msgspec

from covet.exceptions import SettingsError

__all__ = ["EnvironmentText", "Fault", "FieldDoc", "build", "describe", "nearest", "without_password"]

T = TypeVar("T")
MAX_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Fault:
    """A settings key and what is wrong with it."""

    key: str
    message: str


@dataclass(frozen=True, slots=True)
class FieldDoc:
    """A field of a schema: its name, type and default as text, and what it is for."""

    name: str
    type: str
    default: str
    description: str


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: what was probably meant, or what there is."""
    from difflib import get_close_matches

    known = sorted(known)
    near = get_close_matches(name, known, 1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there are {', '.join(known)}" if known else ""


class EnvironmentText(str):
    """Text from the environment: it may stand for a number, a truth value, a list with commas, or JSON."""

    __slots__ = ()


def build(schema: type[T], table: Any, prefix: str, secret: type) -> tuple[T | None, list[Fault]]:
    """An instance of `schema`, a msgspec Struct, from a table; or None, and what is wrong with it, key by key.

    Text from the environment (`EnvironmentText`) is read as the field's type says.

    Raises:
        SettingsError: the schema is no msgspec Struct.
    """
    if not (isinstance(schema, type) and issubclass(schema, msgspec.Struct)):
        raise SettingsError(f"settings are declared as a msgspec Struct, and this is {schema!r}")
    if not isinstance(table, Mapping):
        return None, [Fault(prefix, f"a table was expected, not a value of type {_kind(table)}")]
    hints = typing.get_type_hints(schema, include_extras=True)
    fields = {field.encode_name: field for field in msgspec.structs.fields(schema)}
    faults: list[Fault] = []
    values: dict[str, Any] = {}
    for name, value in table.items():
        key = f"{prefix}.{name}"
        if name not in fields:
            faults.append(Fault(key, f"there is no key {name!r} in [{prefix}]{nearest(name, fields)}"))
            continue
        hint = hints[fields[name].name]
        try:
            typed = _typed(value, hint, secret)
            unknown = list(_unknown(typed, hint, key))
            if not unknown:
                values[fields[name].name] = msgspec.convert(typed, hint, dec_hook=_decoder(secret))
            faults += unknown
        except (msgspec.ValidationError, RecursionError) as error:
            faults.append(_fault(key, error, value, hint, secret))
    faults += [
        Fault(f"{prefix}.{name}", f"is required: {_type_text(hints[field.name])}")
        for name, field in fields.items()
        if field.required and name not in table
    ]
    if faults:
        return None, faults
    try:
        return schema(**values), []
    except Exception as error:  # noqa: BLE001 -- whatever a schema's own __post_init__ raises is about the table
        told = str(error) if isinstance(error, TypeError | ValueError) else f"{type(error).__name__}: {error}"
        return None, [Fault(prefix, told)]


def _unknown(value: Any, type_: Any, key: str) -> Iterator[Fault]:
    """Keys of nested tables that their Struct does not have: msgspec itself ignores them."""
    options = _options(type_)
    if isinstance(value, Mapping):
        structs = [option for option in options if isinstance(option, type) and issubclass(option, msgspec.Struct)]
        known: dict[str, Any] = {}
        for struct in structs:
            hints = typing.get_type_hints(struct, include_extras=True)
            known.update({field.encode_name: hints[field.name] for field in msgspec.structs.fields(struct)})
        tags = {struct.__struct_config__.tag_field for struct in structs}
        items = next((typing.get_args(option)[1] for option in options if typing.get_origin(option) is dict), None)
        for name, inner in value.items():
            if name in known:
                yield from _unknown(inner, known[name], f"{key}.{name}")
            elif items is not None:
                yield from _unknown(inner, items, f"{key}.{name}")
            elif structs and name not in tags:
                yield Fault(f"{key}.{name}", f"there is no key {name!r} in [{key}]{nearest(name, known)}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _unknown(inner, _item_type(options), f"{key}[{index}]")


def _typed(value: Any, type_: Any, secret: type) -> Any:
    """A value with the texts of the environment in it read as the type says, as a TOML file would have them."""
    options = _options(type_)
    if isinstance(value, Mapping):
        structs = [option for option in options if isinstance(option, type) and issubclass(option, msgspec.Struct)]
        hints = {
            field.encode_name: typing.get_type_hints(struct, include_extras=True)[field.name]
            for struct in structs
            for field in msgspec.structs.fields(struct)
        }
        items = next((typing.get_args(option)[1] for option in options if typing.get_origin(option) is dict), Any)
        return {name: _typed(inner, hints.get(name, items), secret) for name, inner in value.items()}
    if not isinstance(value, EnvironmentText):
        return value
    text = str(value)
    if str in options or secret in options:
        return text
    if text[:1] in ("{", "["):
        try:
            return msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError) as error:
            raise msgspec.ValidationError(f"It begins like JSON and is none ({error})") from None
    if _is_list(type_):
        parts = [EnvironmentText(part.strip()) for part in text.split(",") if part.strip()]
        return [_typed(part, _item_type(options), secret) for part in parts]
    try:
        found = msgspec.convert(text, type_, strict=False, dec_hook=_decoder(secret))
    except msgspec.ValidationError:
        return text
    return found if found is None or isinstance(found, bool | int | float) else text


def _decoder(secret: type) -> Callable[[type, Any], Any]:
    def decode(wanted: type, given: Any) -> Any:
        if wanted is secret:
            if isinstance(given, str):
                return secret(str(given))
            # msgspec adds the place to a TypeError, not to an error of its own.
            raise TypeError(f"Expected a reference to a secret such as `env:NAME`, got `{_kind(given)}`")
        raise TypeError(f"Expected `{wanted.__name__}`, got `{_kind(given)}`")

    return decode


def _fault(key: str, error: Exception, value: Any, type_: Any, secret: type) -> Fault:
    if isinstance(error, RecursionError):
        return Fault(key, "it is nested too deeply")
    detail, _, path = str(error).partition(" - at `$")
    if any(_choices(option) for option in _options(type_)) and not path:
        detail = f"Expected {_type_text(type_)}"
    # The value of a secret is not told, nor what else stands in a table with one.
    shown = "" if _holds(type_, secret) else f" (it is {_short(value)})"
    return Fault(key + path.removesuffix("`"), detail[:1].lower() + detail[1:] + shown)


def without_password(text: str) -> str:
    """A text that may be or hold a URL, the password in it hidden."""
    text = re.sub(r"(://[^/?#@:\s]*):\S*@", r"\1:********@", text)
    return re.sub(r"(?i)([?&][a-z_]*(?:password|passwd|pwd|token|secret|key)=)[^&\s'\"]*", r"\1********", text)


def _short(value: Any) -> str:
    """A wrong value as it is told."""
    try:
        text = without_password(repr(str(value) if isinstance(value, str) else value))
    except ValueError:  # Python writes no integer of more than 4300 digits
        return "too large to be shown"
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _kind(value: Any) -> str:
    return "str" if isinstance(value, str) else type(value).__name__


def _holds(type_: Any, secret: type, seen: frozenset[Any] = frozenset()) -> bool:
    """Whether values of a type have secrets in them."""
    for option in _options(type_):
        if option is secret:
            return True
        inner: Iterable[Any] = typing.get_args(option)
        if isinstance(option, type) and issubclass(option, msgspec.Struct):
            if option in seen:
                continue
            seen |= {option}
            inner = typing.get_type_hints(option, include_extras=True).values()
        if any(_holds(part, secret, seen) for part in inner):
            return True
    return False


def _options(type_: Any) -> tuple[Any, ...]:
    if typing.get_origin(type_) is typing.Annotated:
        return _options(typing.get_args(type_)[0])
    if typing.get_origin(type_) in (typing.Union, UnionType):
        return tuple(option for part in typing.get_args(type_) for option in _options(part))
    return (type_,)


SEQUENCES = (list, tuple, set, frozenset, Sequence)


def _is_list(type_: Any) -> bool:
    return any(option in SEQUENCES or typing.get_origin(option) in SEQUENCES for option in _options(type_))


def _item_type(options: tuple[Any, ...]) -> Any:
    return next((typing.get_args(option)[0] for option in options if typing.get_origin(option) in SEQUENCES), Any)


def describe(schema: type) -> list[FieldDoc]:
    """The fields of a schema, for the reference and for `covet config show`."""
    hints = typing.get_type_hints(schema, include_extras=True)
    docs = []
    for field in msgspec.structs.fields(schema):
        if field.required:
            default = "required"
        elif field.default_factory is not msgspec.NODEFAULT:
            default = repr(field.default_factory())
        else:
            default = repr(field.default)
        hint = hints[field.name]
        docs.append(FieldDoc(field.encode_name, _type_text(hint), default, _description(hint)))
    return docs


def _type_text(type_: Any) -> str:
    names = []
    for option in _options(type_):
        if _choices(option):
            names.append(" or ".join(repr(value) for value in _choices(option)))
        elif option is type(None):
            names.append("nothing")
        elif typing.get_origin(option) is list:
            names.append(f"list of {_type_text(typing.get_args(option)[0])}")
        else:
            names.append({"str": "text", "int": "integer", "float": "number", "bool": "true or false"}.get(
                getattr(option, "__name__", ""), getattr(option, "__name__", str(option)).lower()))  # fmt: skip
    return " or ".join(names)


def _choices(option: Any) -> tuple[Any, ...]:
    """The values of a Literal or an enumeration."""
    if typing.get_origin(option) is typing.Literal:
        return typing.get_args(option)
    if isinstance(option, type) and issubclass(option, Enum):
        return tuple(member.value for member in option)
    return ()


def _description(type_: Any) -> str:
    if typing.get_origin(type_) is not typing.Annotated:
        return ""
    return " ".join(item.description for item in typing.get_args(type_)[1:] if getattr(item, "description", None))
