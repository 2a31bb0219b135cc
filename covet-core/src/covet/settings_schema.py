"""Checking a settings table against a schema: every fault, in words, with the nearest known key."""

from __future__ import annotations

import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import UnionType
from typing import Any, TypeVar

import msgspec

__all__ = ["Fault", "FieldDoc", "build", "describe", "nearest"]

T = TypeVar("T")


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
    known = sorted(known)
    near = get_close_matches(name, known, 1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there are {', '.join(known)}" if known else ""


def build(schema: type[T], table: Any, prefix: str, secret: type) -> tuple[T, list[Fault]]:
    """An instance of `schema`, a msgspec Struct, from a table, with the faults of every key.

    A field with a fault keeps its default, or where it has none, the instance is made without it. Text from the
    environment (a subclass of str) is read as the field's type says.
    """
    fields = {field.name: field for field in msgspec.structs.fields(typing.cast("type[msgspec.Struct]", schema))}
    hints = typing.get_type_hints(schema, include_extras=True)
    faults: list[Fault] = []
    values: dict[str, Any] = {}
    if not isinstance(table, Mapping):
        faults.append(Fault(prefix, f"a table was expected, not {table!r}"))
        table = {}
    for name, value in table.items():
        if name not in fields:
            faults.append(Fault(f"{prefix}.{name}", f"there is no key {name!r} in [{prefix}]{nearest(name, fields)}"))
            continue
        try:
            values[name] = _convert(value, hints[name], secret)
        except msgspec.ValidationError as error:
            faults.append(Fault(f"{prefix}.{name}", _message(error, value, hints[name], secret)))
    missing = [name for name, field in fields.items() if field.required and name not in values]
    faults += [Fault(f"{prefix}.{name}", "is required") for name in missing if name not in table]
    try:
        return schema(**{**dict.fromkeys(missing), **values}), faults
    except (TypeError, ValueError) as error:  # a schema's own __post_init__
        faults.append(Fault(prefix, str(error)))
        return schema(**dict.fromkeys(name for name, field in fields.items() if field.required)), faults


def _convert(value: Any, type_: Any, secret: type) -> Any:
    def decode(wanted: type, given: Any) -> Any:
        if wanted is secret and isinstance(given, str):
            return secret(str(given))
        raise msgspec.ValidationError(f"Expected `{wanted.__name__}`, got `{type(given).__name__}`")

    from_environment = isinstance(value, str) and type(value) is not str
    if from_environment:
        value = str(value)
        if _is_list(type_):
            value = [item.strip() for item in value.split(",") if item.strip()]
    if isinstance(value, int) and not isinstance(value, bool) and float in _options(type_):
        value = float(value)
    return msgspec.convert(value, type_, strict=not from_environment, dec_hook=decode)


def _message(error: Exception, value: Any, type_: Any, secret: type) -> str:
    detail = str(error).partition(" - at `")[0]
    shown = "" if secret in _options(type_) else f" (it is {str(value)!r})" if isinstance(value, str) else f" (it is {value!r})"
    return detail[:1].lower() + detail[1:] + shown


def _options(type_: Any) -> tuple[Any, ...]:
    if typing.get_origin(type_) is typing.Annotated:
        type_ = typing.get_args(type_)[0]
        return _options(type_)
    if typing.get_origin(type_) in (typing.Union, UnionType):
        return tuple(option for part in typing.get_args(type_) for option in _options(part))
    return (type_,)


def _is_list(type_: Any) -> bool:
    return any(option is list or typing.get_origin(option) is list for option in _options(type_))


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
        docs.append(FieldDoc(field.name, _type_text(hints[field.name]), default, _description(hints[field.name])))
    return docs


def _type_text(type_: Any) -> str:
    names = []
    for option in _options(type_):
        if typing.get_origin(option) is typing.Literal:
            names.append(" or ".join(repr(value) for value in typing.get_args(option)))
        elif option is type(None):
            names.append("nothing")
        elif typing.get_origin(option) is list:
            names.append(f"list of {_type_text(typing.get_args(option)[0])}")
        else:
            names.append({"str": "text", "int": "integer", "float": "number", "bool": "true or false"}.get(
                getattr(option, "__name__", ""), getattr(option, "__name__", str(option)).lower()))  # fmt: skip
    return " or ".join(names)


def _description(type_: Any) -> str:
    if typing.get_origin(type_) is not typing.Annotated:
        return ""
    return " ".join(item.description for item in typing.get_args(type_)[1:] if getattr(item, "description", None))
