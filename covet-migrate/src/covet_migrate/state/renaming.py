"""Parts of declarations, replaced: in expressions, indexes and constraints, however deep they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from covet_orm.expressions.base import Expression, Ordering
from covet_orm.expressions.conditions import Q
from covet_orm.expressions.references import ColumnReference, F
from covet_orm.fields.base import Field
from covet_orm.indexes import Definition

__all__ = ["renamed_fields", "renamed_in", "rewritten"]

T = TypeVar("T")

Change = Callable[[Any], Any]


def rewritten(value: Any, change: Change) -> Any:
    """A value with other parts in it; the value itself where none changed.

    Args:
        value: an expression, an index, a constraint, or a tuple, list or mapping of such.
        change: gives what takes the place of a part: of a reference, a field, a name in a `Q`. Other parts it gives
            back as they are.
    """
    if isinstance(value, (ColumnReference, F, Field)):
        return change(value)
    if isinstance(value, Ordering):
        expression = rewritten(value.expression, change)
        if expression is value.expression:
            return value
        return Ordering(expression, descending=value.descending, nulls=value.nulls)
    if isinstance(value, (Expression, Definition)):
        return _made_anew(value, change)
    if isinstance(value, (list, tuple)):
        parts = [rewritten(part, change) for part in value]
        if all(one is other for one, other in zip(parts, value, strict=True)):
            return value
        # Of a named tuple the plain one would do as well, and nothing declares one.
        return parts if isinstance(value, list) else tuple(parts)
    if isinstance(value, Mapping):
        found = {key: rewritten(part, change) for key, part in value.items()}
        return value if all(found[key] is part for key, part in value.items()) else found
    return value


def _made_anew(value: Any, change: Change) -> Any:
    if isinstance(value, Expression) and not isinstance(value, Q) and not tuple(value.parts()):
        return value
    args, options = value.declared
    new_args, new_options = rewritten(tuple(args), change), rewritten(dict(options), change)
    if isinstance(value, Q):
        new_options = {str(change(_Lookup(name))): part for name, part in new_options.items()}
    if all(one is other for one, other in zip(new_args, args, strict=True)) and (
        list(new_options) == list(options) and all(new_options[name] is part for name, part in options.items())
    ):
        return value
    return type(value)(*new_args, **new_options)


class _Lookup(str):
    """The name of a lookup in a `Q`: `age__gt`."""

    __slots__ = ()


def renamed_fields(value: T, names: Mapping[str, str]) -> T:
    """An index, a constraint, an expression or a generated field in which fields have other names.

    Args:
        value: what names fields.
        names: the new names of those that have one, by the old ones.
    """

    def change(part: Any) -> Any:
        if isinstance(part, F):
            name = _renamed(part.name, names)
            return part if name == part.name else F(name)
        if isinstance(part, _Lookup):
            return _renamed(str(part), names)
        return part

    found: Any = value
    if isinstance(value, Field):
        if not value.generated:
            return value
        args, options = value.declared
        changed = (rewritten(tuple(args), change), rewritten(dict(options), change))
        if all(one is other for one, other in zip(changed[0], args, strict=True)) and all(
            changed[1][name] is part for name, part in options.items()
        ):
            return value
        found = type(value)(*changed[0], **changed[1])
    elif isinstance(value, Definition):
        found = _with_names(rewritten(value, change), names)
    elif isinstance(value, Expression):
        found = rewritten(value, change)
    return found  # type: ignore[no-any-return]


def renamed_in(value: Any, names: Mapping[str, str]) -> Any:
    """An option of a model in which fields have other names: `unique_together`, `indexes`, `constraints`."""
    if not isinstance(value, (list, tuple)):
        return value
    found: list[Any] = []
    for part in value:
        if isinstance(part, (list, tuple)):
            found.append(tuple(names.get(name, name) for name in part))
        else:
            found.append(renamed_fields(part, names))
    return tuple(found)


def _with_names(definition: Definition, names: Mapping[str, str]) -> Definition:
    """A definition whose fields by name have other names."""
    args, options = definition.declared
    new_args = tuple(_named(part, names) for part in args)
    new_options = dict(options)
    for option in ("expressions", "include"):
        if option in options:
            new_options[option] = _named(tuple(options[option]), names)
    if isinstance(options.get("opclasses"), Mapping):
        new_options["opclasses"] = {names.get(name, name): one for name, one in options["opclasses"].items()}
    if not _differ(args, new_args) and not _differ(tuple(options.values()), tuple(new_options.values())):
        return definition
    return type(definition)(*new_args, **new_options)


def _differ(one: Any, other: Any) -> bool:
    """Whether a text in one is another one in the other."""
    if isinstance(one, (list, tuple)):
        return any(map(_differ, one, other))
    if isinstance(one, Mapping):
        return list(one) != list(other)
    return isinstance(one, str) and one != other


def _named(part: Any, names: Mapping[str, str]) -> Any:
    if isinstance(part, str):
        descends = "-" if part.startswith("-") else ""
        return descends + names.get(part.removeprefix("-"), part.removeprefix("-"))
    if isinstance(part, (list, tuple)):
        # Of an exclusion constraint: fields with their operators, which are no names.
        return type(part)(_named(one, names) for one in part)
    return part


def _renamed(name: str, names: Mapping[str, str]) -> str:
    first, separator, rest = name.partition("__")
    return f"{names.get(first, first)}{separator}{rest}"
