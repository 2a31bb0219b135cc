"""What annotations and callables are: the questions that the analysis of a signature asks of them."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from types import NoneType, UnionType
from typing import Any, Literal

from covet.parameters import Depends, Source

__all__ = [
    "call_kind",
    "element_of",
    "has_fields",
    "is_constrained",
    "is_coroutine",
    "is_filled",
    "is_pydantic",
    "is_simple",
    "is_structured",
    "marker_of",
    "plain",
    "type_name",
    "unknown_type",
    "without_none",
]


def is_coroutine(function: Callable[..., Any]) -> bool:
    """Whether calling `function` gives a coroutine; sees through partials and objects with an async `__call__`."""
    target: Any = function
    while hasattr(target, "func"):
        target = target.func
    return inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(getattr(target, "__call__", None))  # noqa: B004


def is_simple(type_: Any) -> bool:
    """Whether a value of the type is written as one piece of text: a number, a date, an enumeration, ..."""
    import datetime
    import decimal
    import enum
    import uuid

    scalars = (str, int, float, bool, uuid.UUID, decimal.Decimal, datetime.date, datetime.time, datetime.timedelta)
    type_ = without_none(plain(type_))
    if isinstance(type_, typing.NewType):
        return is_simple(type_.__supertype__)
    if typing.get_origin(type_) is Literal:
        return True
    if typing.get_origin(type_) in (typing.Union, UnionType):
        return all(is_simple(option) for option in typing.get_args(type_))
    return inspect.isclass(type_) and issubclass(type_, (*scalars, enum.Enum))


def is_structured(type_: Any) -> bool:
    """Whether a value of the type is a JSON object or a list: what a request body holds."""
    origin = typing.get_origin(type_) or type_
    if origin in (typing.Union, UnionType):
        return all(is_structured(plain(option)) or is_simple(option) for option in typing.get_args(type_))
    if not inspect.isclass(origin):
        return False
    return issubclass(origin, (dict, list, tuple, set, frozenset)) or has_fields(origin)


def is_pydantic(type_: Any) -> bool:
    """Whether the type is a pydantic model; pydantic need not be installed."""
    return inspect.isclass(type_) and hasattr(type_, "model_validate_json") and hasattr(type_, "model_json_schema")


def without_none(type_: Any) -> Any:
    """`T` for `T | None`, else the type as it is."""
    if typing.get_origin(type_) in (typing.Union, UnionType):
        rest = [option for option in typing.get_args(type_) if option is not NoneType]
        if len(rest) == 1:
            return rest[0]
        if len(rest) < len(typing.get_args(type_)):
            return typing.Union[tuple(rest)]  # noqa: UP007 - built from values
    return type_


def has_fields(type_: Any) -> bool:
    """Whether instances of a class have named fields: a Struct, dataclass, attrs class, TypedDict or pydantic model."""
    import msgspec

    return (
        issubclass(type_, msgspec.Struct)
        or hasattr(type_, "__dataclass_fields__")
        or hasattr(type_, "__attrs_attrs__")
        or typing.is_typeddict(type_)
        or is_pydantic(type_)
    )


def marker_of(annotation: Any) -> tuple[Any, Any]:
    """The annotation without its marker, and the marker."""
    if typing.get_origin(annotation) is not typing.Annotated:
        return annotation, None
    base, *metadata = typing.get_args(annotation)
    markers = [item() if inspect.isclass(item) and issubclass(item, Source) else item for item in metadata]
    found = [item for item in markers if isinstance(item, Source | Depends)]
    others = [item for item in markers if not isinstance(item, Source | Depends)]
    if others:
        base = typing.Annotated[(base, *others)]
    return base, found[-1] if found else None


def plain(annotation: Any) -> Any:
    """`T` for `Annotated[T, ...]`, else the annotation as it is."""
    return typing.get_args(annotation)[0] if typing.get_origin(annotation) is typing.Annotated else annotation


def is_constrained(annotation: Any) -> bool:
    """Whether the annotation restricts the values of its type, beside describing them."""
    import msgspec

    if typing.get_origin(annotation) is not typing.Annotated:
        return False
    limits = ("gt", "ge", "lt", "le", "multiple_of", "pattern", "min_length", "max_length")
    metas = [item for item in typing.get_args(annotation)[1:] if isinstance(item, msgspec.Meta)]
    return any(getattr(meta, limit) is not None for meta in metas for limit in limits)


def element_of(type_: Any) -> Any:
    """`T` for `list[T]`, `set[T]`, `frozenset[T]` and `tuple[T, ...]`, else None."""
    if typing.get_origin(type_) in (list, set, frozenset, tuple):
        return plain(typing.get_args(type_)[0])
    return str if type_ in (list, set, frozenset, tuple) else None


def call_kind(
    provider: Callable[..., Any],
) -> Literal["function", "coroutine", "generator", "async generator", "class"]:
    """What calling a provider gives: a value, something to await, or a generator around the request."""
    if inspect.isclass(provider):
        return "class"
    target: Any = provider
    while hasattr(target, "func"):
        target = target.func
    for candidate in (target, getattr(target, "__call__", None)):  # noqa: B004
        if inspect.isasyncgenfunction(candidate):
            return "async generator"
        if inspect.isgeneratorfunction(candidate):
            return "generator"
    return "coroutine" if is_coroutine(provider) else "function"


def unknown_type(info: Any, seen: set[int]) -> Any:
    """The first class within a type that msgspec has no way to decode, or None."""
    import msgspec

    if isinstance(info, msgspec.inspect.CustomType):
        return info.cls
    if not isinstance(info, msgspec.Struct) or id(info) in seen:
        return None
    seen.add(id(info))
    for name in info.__struct_fields__:
        value = getattr(info, name)
        for inner in value if isinstance(value, tuple) else (value,):
            found = unknown_type(inner, seen)
            if found is not None:
                return found
    return None


def type_name(type_: Any) -> str:
    """A type as messages name it."""
    return type_.__name__ if inspect.isclass(type_) else str(type_).replace("typing.", "")


def is_filled(cell: Any) -> bool:
    """Whether a cell of a closure holds a value yet."""
    try:
        cell.cell_contents  # noqa: B018 - an empty cell raises
    except ValueError:
        return False
    return True
