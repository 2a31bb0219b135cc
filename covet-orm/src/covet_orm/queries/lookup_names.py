"""Finding lookups and transforms by name: those that every field has, those of a kind of fields, those of others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import ColumnElement

from covet.settings_schema import nearest
from covet_orm.exceptions import FieldError
from covet_orm.fields.inference import Family, family, plain_field
from covet_orm.queries import (
    array_lookups,
    date_lookups,
    hstore_lookups,
    json_lookups,
    range_lookups,
    text_search,
)
from covet_orm.queries.lookups import LOOKUPS, TRANSFORMS, Lookup, Transform

if TYPE_CHECKING:
    from covet_orm.fields.base import Field
    from covet_orm.queries.scope import Scope

__all__ = [
    "Found",
    "find_lookup",
    "lookup_of",
    "refined",
    "register_lookup",
    "register_transform",
    "split_lookup",
    "transformed",
    "transformed_field",
]

FAMILY_LOOKUPS: dict[Family, dict[str, Lookup]] = {
    "array": array_lookups.LOOKUPS,
    "hstore": hstore_lookups.LOOKUPS,
    "json": json_lookups.LOOKUPS,
    "range": range_lookups.LOOKUPS,
    "text": text_search.LOOKUPS,
}
"""The lookups that fields of one kind have."""

FAMILY_TRANSFORMS: dict[Family, dict[str, Transform]] = {
    "array": array_lookups.TRANSFORMS,
    "date": date_lookups.OF_DATES,
    "datetime": date_lookups.OF_DATETIMES,
    "hstore": hstore_lookups.TRANSFORMS,
    "range": range_lookups.TRANSFORMS,
    "text": text_search.TRANSFORMS,
    "time": date_lookups.OF_TIMES,
}
"""The transforms that fields of one kind have."""

registered_lookups: dict[type[Any], dict[str, Lookup]] = {}
registered_transforms: dict[type[Any], dict[str, Transform]] = {}


class Found(NamedTuple):
    """What follows a field in a keyword.

    Attributes:
        names: the names of the transforms that are applied.
        lookup: the lookup.
        field: the field of what it compares.
    """

    names: tuple[str, ...]
    lookup: Lookup
    field: Field[Any]


def register_lookup(lookup: Lookup, *fields: type[Field[Any]]) -> Lookup:
    """Add a lookup, before the first query that uses its name.

    Args:
        lookup: the lookup.
        fields: the fields that have it, and those that derive from them; every field without any.
    """
    for field in fields:
        registered_lookups.setdefault(field, {})[lookup.name] = lookup
    if not fields:
        LOOKUPS[lookup.name] = lookup
    _lookup.cache_clear()
    return lookup


def register_transform(transform: Transform, *fields: type[Field[Any]]) -> Transform:
    """Add a transform, before the first query that uses its name.

    Args:
        transform: the transform.
        fields: the fields that have it, and those that derive from them; every field without any.
    """
    for field in fields:
        registered_transforms.setdefault(field, {})[transform.name] = transform
    if not fields:
        TRANSFORMS[transform.name] = transform
    return transform


def find_lookup(name: str) -> Lookup:
    """A lookup by name, of whatever field.

    Raises:
        FieldError: there is none.
    """
    found = LOOKUPS.get(name)
    if found is not None:
        return found
    known = {name: lookup for table in _all_lookups() for name, lookup in table.items()} | LOOKUPS
    try:
        return known[name]
    except KeyError:
        raise FieldError(_unknown(name, known)) from None


def lookup_of(field: Field[Any], name: str) -> Lookup:
    """The lookup of that name that a field has.

    Raises:
        FieldError: there is none.
    """
    found = _lookup(field, name)
    if found is None:
        raise FieldError(f"{field!r}: {_unknown(name, _lookups_of(field))}")
    return found


def refined(lookup: Lookup, field: Field[Any]) -> Lookup:
    """The lookup of the same name that a field has, of one that was found before the field was known."""
    if find_lookup(lookup.name) is not lookup:
        # Not what a name by itself stands for, such as the lookups of a year.
        return lookup
    return _lookup(field, lookup.name) or lookup


def split_lookup(field: Field[Any], rest: Sequence[str], keyword: str, more: Iterable[str] = ()) -> Found:
    """What follows a field in a keyword: transforms, and the lookup, `exact` when there is none.

    Args:
        field: the field.
        rest: the names behind it.
        keyword: all of it, for messages.
        more: what else could have stood there.

    Raises:
        FieldError: one of them is unknown.
    """
    before: Field[Any] = field
    last: Transform | None = None
    for position, name in enumerate(rest):
        if position == len(rest) - 1:
            absorbed = last.lookups.get(name) if last is not None else None
            if absorbed is not None:
                return Found(tuple(rest[: position - 1]), absorbed, before)
            lookup = _lookup(field, name)
            if lookup is not None:
                return Found(tuple(rest[:position]), lookup, field)
        transform = _transform(field, name)
        if transform is None:
            known = [*(more if position == 0 else ()), *_lookups_of(field), *_transforms_of(field)]
            raise FieldError(f"{keyword!r}: {_unknown(name, known)}")
        before, last, field = field, transform, transform.output(field)
    if last is not None and "exact" in last.lookups:
        return Found(tuple(rest[:-1]), last.lookups["exact"], before)
    return Found(tuple(rest), lookup_of(field, "exact"), field)


def transformed(
    scope: Scope, column: ColumnElement[Any], field: Field[Any], rest: Sequence[str], name: str
) -> tuple[ColumnElement[Any], Field[Any]]:
    """A column with the transforms that a path names behind it.

    Raises:
        FieldError: one of them is unknown.
    """
    for transform in _transforms(field, rest, name):
        column, field = transform.build(scope, column, field), transform.output(field)
    return column, field


def transformed_field(field: Field[Any], rest: Sequence[str], name: str) -> Field[Any]:
    """The field of a column with the transforms that a path names behind it.

    Raises:
        FieldError: one of them is unknown.
    """
    for transform in _transforms(field, rest, name):
        field = transform.output(field)
    return field


def _transforms(field: Field[Any], rest: Sequence[str], name: str) -> list[Transform]:
    found: list[Transform] = []
    for part in rest:
        transform = _transform(field, part)
        if transform is None:
            raise FieldError(f"{name!r}: {_unknown(part, _transforms_of(field), what='transform')}")
        field = transform.output(field)
        together = transform.after(found[-1]) if found else None
        if together is not None:
            found[-1] = together
        else:
            found.append(transform)
    return found


@lru_cache(maxsize=4096)
def _lookup(field: Field[Any], name: str) -> Lookup | None:
    own = field.lookup(name)
    if own is not None:
        return own
    for kind in type(plain_field(field)).__mro__:
        if kind in registered_lookups and name in registered_lookups[kind]:
            return registered_lookups[kind][name]
    return FAMILY_LOOKUPS.get(family(field), {}).get(name) or LOOKUPS.get(name)


def _transform(field: Field[Any], name: str) -> Transform | None:
    own = field.transform(name)
    if own is not None:
        return own
    for kind in type(plain_field(field)).__mro__:
        if kind in registered_transforms and name in registered_transforms[kind]:
            return registered_transforms[kind][name]
    kind_of_field = family(field)
    found = FAMILY_TRANSFORMS.get(kind_of_field, {}).get(name) or TRANSFORMS.get(name)
    if found is None and kind_of_field == "json":
        return json_lookups.Key((name,))
    if found is None and kind_of_field == "array":
        return array_lookups.element(name)
    if found is None and kind_of_field == "hstore":
        return hstore_lookups.text_at(name)
    return found


def _lookups_of(field: Field[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {**LOOKUPS, **FAMILY_LOOKUPS.get(family(field), {})}
    for kind in type(plain_field(field)).__mro__:
        found |= registered_lookups.get(kind, {})
    return found


def _transforms_of(field: Field[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {**TRANSFORMS, **FAMILY_TRANSFORMS.get(family(field), {})}
    for kind in type(plain_field(field)).__mro__:
        found |= registered_transforms.get(kind, {})
    return found


def _all_lookups() -> list[dict[str, Lookup]]:
    return [*FAMILY_LOOKUPS.values(), *registered_lookups.values()]


def _unknown(name: str, known: Any, what: str = "lookup") -> str:
    return f"there is no {what} {name!r}{nearest(name, known)}"
