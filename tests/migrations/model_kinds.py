"""Kinds of fields for random models: how each is declared, what rows have in it, and what it can become."""

from __future__ import annotations

import enum
import ipaddress
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from tests.migrations.model_classes import Colour, Level
from tests.migrations.model_states import WORDS

import covet_orm as orm
from covet_orm import F, Field, RawSQL
from covet_orm.expressions.functions import Now

__all__ = ["FAMILIES", "KINDS", "RELATIONS", "Kind", "family_of", "field_of", "kinds_for", "value_of"]

POSTGRESQL = ("postgresql",)
EVERYWHERE = ("postgresql", "mariadb", "sqlite")


class Colours(enum.Enum):
    """`Colour` with one more."""

    RED = "red"
    GREEN = "green"
    BLUE = "blue"


@dataclass(frozen=True)
class Kind:
    """A kind of field.

    Attributes:
        family: those of one family can be made of each other.
        make: makes the field, of its options.
        value: what a row has in it, by its number from 1.
        rich: what a row has where the field is of this family in both sets, and no key.
        indexed: whether an index may be of it.
        distinct: whether rows have different values.
        defaults: what may be its `db_default`.
        databases: those that have it.
    """

    family: str
    make: Callable[..., Field[Any]]
    value: Callable[[int], Any]
    rich: Callable[[int], Any] | None = None
    indexed: bool = True
    distinct: bool = True
    defaults: Sequence[Any] = ()
    databases: Sequence[str] = EVERYWHERE


def _whole(make: Any, least: int = 0) -> Kind:
    return Kind("whole", make, int, defaults=[least, 1, 5, RawSQL("1 + 1")])


def _text(make: Any, *, indexed: bool = True, digits: bool = True) -> Kind:
    defaults = [*WORDS, "3"] if digits else []
    return Kind("text", make, str, rich=lambda row: f"{row} {WORDS[row + 5]}"[:20], indexed=indexed, defaults=defaults)


def _of(declares: Any, *args: Any, **fixed: Any) -> Callable[..., Field[Any]]:
    def make(**options: Any) -> Field[Any]:
        made: Field[Any] = declares(*args, **fixed, **options)
        return made

    return make


def _day(row: int) -> date:
    return date(2024, 2, row)


def _at(row: int) -> datetime:
    return datetime(2024, 2, row, tzinfo=UTC)


KINDS: Mapping[str, Kind] = {
    "number": _whole(orm.IntegerField),
    "small": _whole(orm.SmallIntegerField),
    "big": _whole(orm.BigIntegerField),
    "positive": _whole(orm.PositiveIntegerField),
    "small positive": _whole(orm.PositiveSmallIntegerField),
    "decimal": Kind("decimal", _of(orm.DecimalField, max_digits=8, decimal_places=2), Decimal),
    "precise": Kind("decimal", _of(orm.DecimalField, max_digits=14, decimal_places=4), Decimal, defaults=[Decimal(2)]),
    "char": _text(_of(orm.CharField, max_length=20)),
    "longer": _text(_of(orm.CharField, max_length=90)),
    "longest": _text(_of(orm.CharField, max_length=300), digits=False),
    "email": Kind("email", orm.EmailField, lambda row: f"a{row}@example.org"),
    "text": _text(orm.TextField, indexed=False),
    "boolean": Kind("few", orm.BooleanField, lambda row: row % 2 == 1, distinct=False, defaults=[True, False]),
    "colour": Kind("colour", _of(orm.EnumField, Colour), lambda row: [*Colour][row % 2], distinct=False),
    "colours": Kind("colour", _of(orm.EnumField, Colours), lambda row: [*Colours][row % 2], distinct=False),
    "level": Kind("level", _of(orm.EnumField, Level), lambda row: [*Level][row % 2], distinct=False),
    "float": Kind("float", orm.FloatField, float, rich=lambda row: row / 4, defaults=[0.0, 1.5, 1e30]),
    "date": Kind("date", orm.DateField, _day),
    "datetime": Kind("date", orm.DateTimeField, _at, defaults=[Now()]),
    "naive": Kind("date", _of(orm.DateTimeField, timezone=False), lambda row: _at(row).replace(tzinfo=None)),
    "time": Kind("time", orm.TimeField, lambda row: time(row, 59, 1, 250000)),
    "duration": Kind("duration", orm.DurationField, lambda row: timedelta(days=row, microseconds=row)),
    "uuid": Kind("uuid", orm.UUIDField, lambda row: uuid.UUID(int=row)),
    "json": Kind("json", orm.JSONField, lambda row: {"it's": [row, None, "ü\\"]}, indexed=False),
    "binary": Kind("binary", orm.BinaryField, lambda row: bytes((row, 0, 255)), indexed=False),
    "short binary": Kind(
        "binary", _of(orm.BinaryField, max_length=20), lambda row: bytes((row, 0, 255)), indexed=False
    ),
    "address": Kind("address", orm.IPAddressField, lambda row: ipaddress.ip_address(f"10.0.0.{row}")),
    "array": Kind(
        "array", _of(orm.ArrayField, orm.IntegerField[int]()), lambda row: [row, 2], indexed=False, databases=POSTGRESQL
    ),
    "big array": Kind(
        "array", _of(orm.ArrayField, orm.BigIntegerField[int]()), lambda row: [row, 2], indexed=False,
        databases=POSTGRESQL,
    ),
    "span": Kind(
        "span", orm.IntegerRangeField, lambda row: orm.Range(row * 10, row * 10 + 5), indexed=True, databases=POSTGRESQL
    ),
    "auto": Kind("whole", orm.AutoField, int),
    "small auto": Kind("whole", orm.SmallAutoField, int),
    "big auto": Kind("whole", orm.BigAutoField, int),
}  # fmt: skip
COUNTING = ("auto", "small auto", "big auto")
RELATIONS = ("foreign", "one", "many", "through")
FAMILIES: Mapping[str, Sequence[str]] = {
    **{one.family: [kind for kind, other in KINDS.items() if other.family == one.family] for one in KINDS.values()},
    "whole": ["number", "small", "big", "positive", "small positive", "decimal", "precise", "char", "text", "boolean"],
    "decimal": ["decimal", "precise", "number", "big", "char"],
    "email": ["email", "longest", "text"],
    "text": ["char", "longer", "longest", "text", "number", "decimal"],
    "few": ["boolean", "number", "small"],
}
"""By family, the kinds that one of it can become, with values that both can have."""


def family_of(kind: str) -> str:
    """The family of a kind."""
    return KINDS[kind].family if kind in KINDS else kind


def kinds_for(database: str) -> list[str]:
    """The kinds of fields with values that a database has."""
    return [kind for kind, one in KINDS.items() if database in one.databases and kind not in COUNTING]


def value_of(kind: str, row: int, *, rich: bool = False) -> Any:
    """What a row has in a field."""
    known = KINDS[kind]
    return known.rich(row) if rich and known.rich is not None else known.value(row)


def field_of(kind: str, given: Mapping[str, Any]) -> Field[Any]:
    """A field of a kind.

    Args:
        kind: one of `KINDS` or `RELATIONS`, `stored`, or `virtual`.
        given: its options, and what a relation or a generated field is of. `default` is the value of row 5.
    """
    options = dict(given)
    if kind in ("stored", "virtual"):
        computed = F(options.pop("of")) * options.pop("times") + 1
        output = orm.BigIntegerField[int]() if options.pop("output") == "big" else orm.IntegerField[int]()
        return orm.GeneratedField(computed, output, **({} if kind == "stored" else {"stored": False}), **options)
    if kind in RELATIONS:
        declares: Any = {"foreign": orm.ForeignKey, "one": orm.OneToOneField}.get(kind, orm.ManyToManyField)
        made: Field[Any] = declares(options.pop("to"), related_name="+", **options)
        return made
    if "default" in options:
        options["default"] = {"json": dict, "array": list, "big array": list}.get(kind) or value_of(kind, 5)
    return KINDS[kind].make(**options)
