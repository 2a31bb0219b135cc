"""Decoding JSON bodies, and finding everything that is wrong with one.

msgspec stops at the first fault, which is right for speed and wrong for whoever fills in a form. So a body that does
not fit is looked at again: each member of an object and each element of a list is decoded by itself, with the type
that it should have.
"""

from __future__ import annotations

import builtins
import re
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import count, islice, repeat
from typing import Any, NamedTuple, TypeVar

import msgspec

from covet.exceptions import Fault, HTTPError, ValidationError

__all__ = ["decode_json", "fault_of", "json_decoder"]

T = TypeVar("T")

# Bounds of the answer, and of the search, whose cost is the size of the body times the depth.
MAX_FAULTS = 100
MAX_DEPTH = 16


def decode_json(data: bytes, decode: Callable[[bytes], T], type: Any) -> T:
    """Decode a JSON body.

    Args:
        data: the body.
        decode: what `json_decoder` gives for `type`.
        type: what the body should be; it tells where to look for further faults when the body does not fit.

    Raises:
        HTTPError: 400: it is not JSON (RFC 8259), with the byte at which the decoder stopped; or it is nested too
            deeply.
        ValidationError: it is JSON that does not fit `type`, with up to 100 faults.
    """
    try:
        return decode(data)
    except msgspec.ValidationError as error:
        unfit = error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(data, error) from None
    try:
        # What comes after the first fault need not even be JSON.
        data.decode()
        msgspec.json.decode(data, type=msgspec.Raw)
        faults = list(islice(_faults(data, type, "", MAX_DEPTH, unfit), MAX_FAULTS))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(data, error) from None
    raise ValidationError(faults) from None


def json_decoder(type: Any) -> Callable[[bytes], Any]:
    """The function that decodes JSON into `type`: msgspec's own, as a rule.

    msgspec leaves the defaults of a dataclass to the class: the instance lacks these attributes, and so does the JSON
    that is made of it. Where `type` has such dataclasses in it, they are completed.

    Raises:
        TypeError: msgspec has no way to decode `type`.
    """
    decode = msgspec.json.Decoder(type).decode
    defaults: dict[Any, dict[str, Any]] = {}
    _find_defaults(msgspec.inspect.type_info(type), defaults, set())
    if not defaults:
        return decode

    def decode_and_complete(data: bytes) -> Any:
        value = decode(data)
        _complete(value, defaults)
        return value

    return decode_and_complete


def _find_defaults(info: Any, defaults: dict[Any, dict[str, Any]], seen: set[int]) -> None:
    """Note the defaults of every dataclass within a type whose instances have a `__dict__`."""
    if not isinstance(info, msgspec.Struct) or id(info) in seen:
        return
    seen.add(id(info))
    if isinstance(info, msgspec.inspect.DataclassType) and getattr(info.cls, "__dictoffset__", None):
        found = {field.name: field.default for field in info.fields if field.default is not msgspec.NODEFAULT}
        if found:
            defaults[info.cls] = found
    for name in info.__struct_fields__:
        value = getattr(info, name)
        for inner in value if isinstance(value, tuple) else (value,):
            _find_defaults(inner, defaults, seen)


def _complete(value: Any, defaults: Mapping[Any, Mapping[str, Any]]) -> None:
    """Set the defaults that are missing in the dataclasses within a decoded value."""
    for name, default in defaults.get(type(value), {}).items():
        vars(value).setdefault(name, default)
    inner: Iterable[Any] = ()
    if isinstance(value, dict):
        inner = value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        inner = value
    elif isinstance(value, msgspec.Struct):
        inner = [getattr(value, name) for name in value.__struct_fields__]
    elif hasattr(value, "__dataclass_fields__") or hasattr(value, "__attrs_attrs__"):
        names = getattr(value, "__dataclass_fields__", None) or [each.name for each in value.__attrs_attrs__]
        inner = [getattr(value, name, None) for name in names]
    for each in inner:
        _complete(each, defaults)


def _malformed(data: bytes, error: Exception) -> HTTPError:
    if isinstance(error, UnicodeDecodeError):
        # msgspec counts within one string.
        try:
            data.decode()
        except UnicodeDecodeError as wrong:
            error = wrong
        return HTTPError(400, f"the body is not UTF-8, as JSON is: {error.reason} (byte {error.start})")
    if isinstance(error, RecursionError):
        return HTTPError(400, "the JSON of the body is nested too deeply")
    if not data.strip(b" \t\r\n"):
        return HTTPError(400, "the body is empty, and JSON is expected")
    message = str(error).removeprefix("JSON is malformed: ")
    if "(byte " not in message:
        message += f" (byte {len(data)})"
    return HTTPError(400, f"the body is not JSON: {message}")


def _faults(data: bytes, type: Any, pointer: str, depth: int, error: msgspec.ValidationError) -> Iterator[Fault]:
    """What is wrong with `data`, which does not decode to `type`: with its parts, or with itself."""
    own = fault_of("body", pointer, error)
    told = False
    for fault in _faults_inside(data, type, pointer, depth) if depth else ():
        told = told or f"{fault.pointer}/".startswith(f"{own.pointer}/")
        yield fault
    # What the decoder stopped at may be no member that is looked at, such as the one that tells classes apart.
    if not told:
        yield own


def _faults_inside(data: bytes, type: Any, pointer: str, depth: int) -> Iterator[Fault]:
    bare = _bare(type)
    parts: Iterable[tuple[str, msgspec.Raw, Any]] = ()
    opening = data.lstrip()[:1]
    if opening == b"{":
        members = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        shape = _shape(bare)
        if shape is None:
            value_type = _value_type(bare)
            parts = () if value_type is None else [(name, raw, value_type) for name, raw in members.items()]
        else:
            yield from _membership(members.keys(), shape, pointer)
            parts = [(name, members[name], field.type) for name, field in shape.fields.items() if name in members]
    elif opening == b"[":
        elements = msgspec.json.decode(data, type=list[msgspec.Raw])
        element_types = _element_types(bare, len(elements))
        parts = zip(map(str, count()), elements, element_types, strict=False)
    decoders: dict[int, Callable[[bytes], Any]] = {}
    for name, raw, part_type in parts:
        decode = decoders.get(id(part_type))
        if decode is None:
            decode = decoders[id(part_type)] = msgspec.json.Decoder(part_type).decode
        part = bytes(raw)
        try:
            decode(part)
        except msgspec.ValidationError as error:
            yield from _faults(part, part_type, f"{pointer}/{_escaped(name)}", depth - 1, error)


def _membership(names: Collection[str], shape: _Shape, pointer: str) -> Iterator[Fault]:
    for name, field in shape.fields.items():
        if field.required and name not in names:
            yield Fault("body", f"{pointer}/{_escaped(name)}", "is required")
    if shape.closed:
        for name in names:
            if name not in shape.fields and name != shape.tag:
                yield Fault("body", f"{pointer}/{_escaped(name)}", "is not known here")


class _Field(NamedTuple):
    type: Any
    required: bool


class _Shape(NamedTuple):
    """The members that an object should have."""

    fields: Mapping[str, _Field]
    closed: bool = False
    tag: str | None = None


def _shape(type: Any) -> _Shape | None:
    """The shape of a class with named fields: Struct, dataclass, TypedDict, attrs class; None for anything else."""
    hints: Mapping[str, Any]
    try:
        info = msgspec.inspect.type_info(type)
        if isinstance(info, msgspec.inspect.StructType):
            if info.array_like:
                return None
            hints = {field.name: field.type for field in msgspec.structs.fields(type)}
            closed, tag = info.forbid_unknown_fields, info.tag_field
        elif isinstance(info, msgspec.inspect.DataclassType | msgspec.inspect.TypedDictType):
            if typing.get_origin(type) is not None:
                return None
            hints = typing.get_type_hints(type, include_extras=True)
            closed, tag = False, None
        else:
            return None
    except (NameError, TypeError):
        # An annotation that cannot be looked up from here, or a class that msgspec sees only from inside.
        return None
    fields = {field.encode_name: _Field(_unwrapped(hints[field.name]), field.required) for field in info.fields}
    return _Shape(fields, closed, tag)


def _value_type(type: Any) -> Any:
    """The type of a mapping's values, or None for what is no mapping."""
    if type in (Any, dict):
        return Any
    origin, arguments = typing.get_origin(type), typing.get_args(type)
    if isinstance(origin, builtins.type) and issubclass(origin, Mapping) and len(arguments) == 2:
        return arguments[1]
    return None


def _element_types(type: Any, length: int) -> Iterable[Any]:
    """The types of an array's elements; empty for what is none."""
    if type in (Any, list):
        return repeat(Any, length)
    origin, arguments = typing.get_origin(type), typing.get_args(type)
    if not isinstance(origin, builtins.type) or not issubclass(origin, Collection) or issubclass(origin, Mapping):
        return ()
    if origin is tuple and arguments[-1:] != (...,):
        return arguments if len(arguments) == length else ()
    return repeat(arguments[0], length) if arguments else ()


def _bare(type: Any) -> Any:
    """The type without annotations, and without None beside it."""
    while typing.get_origin(type) is typing.Annotated:
        type = typing.get_args(type)[0]
    if typing.get_origin(type) in (typing.Union, types.UnionType):
        others = [argument for argument in typing.get_args(type) if argument is not builtins.type(None)]
        if len(others) == 1:
            return _bare(others[0])
    return type


def _unwrapped(hint: Any) -> Any:
    return typing.get_args(hint)[0] if typing.get_origin(hint) in (typing.Required, typing.NotRequired) else hint


# What msgspec appends: "- at `$.items[0].price`", or "- at `key` in `$.prices`".
_WHERE = re.compile(r" - at (?:`key` in )?`\$(?P<path>.*)`", re.DOTALL)
_STEP = re.compile(r"\.(?P<name>[^.\[]+)|\[(?P<index>[0-9]+)\]")
_MEMBER = re.compile(r"Object (?P<what>missing required|contains unknown) field `(?P<name>.*)`", re.DOTALL)


def fault_of(location: str, pointer: str, error: Exception) -> Fault:
    """The fault that an error of msgspec tells of, inside the value at `pointer`.

    Its path becomes a JSON Pointer; keys of mappings, which msgspec shows as `[...]`, end it.
    """
    message = str(error)
    where = _WHERE.search(message)
    if where is not None:
        message = message[: where.start()]
        for step in _STEP.finditer(where["path"].partition("[...]")[0]):
            pointer += "/" + _escaped(step["name"] or step["index"])
    member = _MEMBER.fullmatch(message)
    if member is None:
        return Fault(location, pointer, message)
    detail = "is required" if member["what"].startswith("missing") else "is not known here"
    return Fault(location, f"{pointer}/{_escaped(member['name'])}", detail)


def _escaped(name: str) -> str:
    # RFC 6901 section 3
    return name.replace("~", "~0").replace("/", "~1")
