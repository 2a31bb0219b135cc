"""The field of what is no column: of a plain value, of a result of arithmetic, of several expressions at once."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from decimal import Context, Decimal
from enum import Enum
from functools import cache
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Literal
from uuid import UUID

from covet_orm.deferred import sqlalchemy
from covet_orm.exceptions import QueryError
from covet_orm.fields.arrays import ArrayField
from covet_orm.fields.base import Convert, Field
from covet_orm.fields.binary import BinaryField
from covet_orm.fields.dates import DateField, DateTimeField, DurationField, TimeField
from covet_orm.fields.hstores import HStoreField
from covet_orm.fields.json import JSONField
from covet_orm.fields.networks import IPAddressField
from covet_orm.fields.numbers import BigIntegerField, BooleanField, DecimalField, FloatField, IntegerField
from covet_orm.fields.ranges import RangeField
from covet_orm.fields.text import TextField
from covet_orm.fields.uuids import UUIDField

__all__ = [
    "BOOLEAN",
    "DATE",
    "DATETIME",
    "DURATION",
    "FLOAT",
    "INTEGER",
    "JSON",
    "NAIVE",
    "TEXT",
    "TIME",
    "ComputedDecimal",
    "ComputedDuration",
    "ComputedFloat",
    "ComputedInteger",
    "Family",
    "arithmetic_field",
    "common_field",
    "decimal_places",
    "family",
    "field_of",
    "plain_field",
]

Family = Literal[
    "array",
    "binary",
    "boolean",
    "date",
    "datetime",
    "decimal",
    "duration",
    "float",
    "hstore",
    "integer",
    "json",
    "other",
    "range",
    "text",
    "time",
    "uuid",
]
"""What the values of a field are to a database: which lookups it has and how it calculates."""

MOST_PLACES = 15
"""How many digits behind the point a computed decimal keeps at most."""

WIDE = Context(prec=100)
"""What rounds numbers of more digits than Python's own habit has."""

EXACT = 15
"""How many digits SQLite, which calculates with floats, keeps exactly."""


class ComputedInteger(BigIntegerField[int]):
    """A whole number that a database computed, which some give as a decimal."""

    def loader(self, kind: str) -> Convert | None:
        return None if kind == "sqlite" else int


class ComputedFloat(FloatField[float]):
    """A float that a database computed, which some give as a whole number where it is one."""

    def loader(self, kind: str) -> Convert | None:
        return None if kind == "postgresql" else float


class ComputedDuration(DurationField[dt.timedelta]):
    """A span of time that a database computed, whose microseconds some give as a decimal."""

    def loader(self, kind: str) -> Convert | None:
        return None if kind == "postgresql" else lambda value: dt.timedelta(microseconds=int(value))


class ComputedDecimal(DecimalField[Decimal]):
    """A decimal number that a database computed, rounded to the same number of digits by all of them.

    Args:
        places: digits behind the point.
    """

    def __init__(self, places: int) -> None:
        super().__init__(max_digits=38, decimal_places=places)

    def column_type(self) -> sqlalchemy.types.TypeEngine[Any]:
        # Without a scale, so that PostgreSQL leaves a parameter as it is.
        return sqlalchemy.Numeric().with_variant(sqlalchemy.Numeric(38, self.decimal_places), "mysql", "mariadb")

    def binder(self, kind: str) -> Convert:
        if kind != "sqlite":
            return _decimal

        def bind(value: Any) -> Any:
            number = _decimal(value)
            if len(number.as_tuple().digits) > EXACT:
                raise ValueError(f"{number} has more than the {EXACT} digits that SQLite keeps exactly")
            return float(number)

        return bind

    def loader(self, kind: str) -> Convert | None:
        places, step = self.decimal_places, Decimal(1).scaleb(-self.decimal_places)

        def load(value: Any) -> Any:
            if isinstance(value, float):
                return Decimal(f"{value:.{places}f}")
            return Decimal(value).quantize(step, context=WIDE)

        return load


BOOLEAN: Field[Any] = BooleanField[bool | None](null=True)
"""True, false or NULL."""
DATE: Field[Any] = DateField[dt.date]()
"""A day."""
DATETIME: Field[Any] = DateTimeField[dt.datetime]()
"""A point in time, aware."""
DURATION: Field[Any] = ComputedDuration()
"""A span of time."""
FLOAT: Field[Any] = ComputedFloat()
"""A float."""
INTEGER: Field[Any] = ComputedInteger()
"""A whole number."""
JSON: Field[Any] = JSONField()
"""A value of JSON."""
TEXT: Field[Any] = TextField[str]()
"""A text."""
TIME: Field[Any] = TimeField[dt.time]()
"""A time of the day."""
NAIVE: Field[Any] = DateTimeField[dt.datetime](timezone=False)
"""A point in time without a time zone."""

KNOWN: dict[type, Field[Any]] = {
    bool: BOOLEAN,
    int: BigIntegerField[int](),
    float: FLOAT,
    str: TEXT,
    dt.date: DATE,
    dt.time: TIME,
    dt.timedelta: DURATION,
    bytes: BinaryField[bytes](),
    UUID: UUIDField[UUID](),
    IPv4Address: IPAddressField[Any](),
    IPv6Address: IPAddressField[Any](),
    dict: JSON,
    list: JSON,
    type(None): TextField[str | None](null=True),
}


def field_of(value: object) -> Field[Any]:
    """The field whose values are of a value's type.

    Raises:
        QueryError: nothing is known of that type.
    """
    if isinstance(value, dt.datetime):
        return NAIVE if value.tzinfo is None else DATETIME
    if isinstance(value, Decimal):
        exponent = value.as_tuple().exponent
        return _computed_decimal(min(max(-exponent, 0), MOST_PLACES) if isinstance(exponent, int) else 0)
    if isinstance(value, Enum):
        return field_of(value.value)
    for kind in type(value).__mro__:
        if kind in KNOWN:
            return KNOWN[kind]
    raise QueryError(
        f"{value!r} is a {type(value).__name__}, of which no field is known: use Value(..., output_field=...)"
    )


def plain_field(field: Field[Any]) -> Field[Any]:
    """The field that says what the values are: what a foreign key refers to, the result of a generated column."""
    while True:
        if hasattr(field, "remote"):
            field = getattr(field, "remote")  # noqa: B009 - a foreign key, whose module imports this one
        elif field.generated and hasattr(field, "output"):
            field = getattr(field, "output")  # noqa: B009 - as above
        else:
            return field


def family(field: Field[Any]) -> Family:
    """What the values of a field are to a database. Fields of others are known by the type of their column."""
    field = plain_field(field)
    for known, name in FIELDS:
        if isinstance(field, known):
            return name
    column_type = field.column_type()
    for type_name, name in TYPES:
        if isinstance(column_type, getattr(sqlalchemy, type_name)):
            return name
    return "other"


FIELDS: tuple[tuple[type[Field[Any]], Family], ...] = (
    (JSONField, "json"),
    (HStoreField, "hstore"),
    (RangeField, "range"),
    (ArrayField, "array"),
    (DateTimeField, "datetime"),
    (DateField, "date"),
    (TimeField, "time"),
    (DurationField, "duration"),
    (UUIDField, "uuid"),
    (BinaryField, "binary"),
    (BooleanField, "boolean"),
    (IntegerField, "integer"),
    (FloatField, "float"),
    (DecimalField, "decimal"),
)

TYPES: tuple[tuple[str, Family], ...] = (
    ("JSON", "json"),
    ("ARRAY", "array"),
    ("String", "text"),
    ("Integer", "integer"),
    ("Float", "float"),
    ("Numeric", "decimal"),
    ("Boolean", "boolean"),
    ("DateTime", "datetime"),
    ("Date", "date"),
    ("Time", "time"),
    ("Interval", "duration"),
    ("LargeBinary", "binary"),
    ("Uuid", "uuid"),
)
"""Types of SQLAlchemy, by their names: the first that a column's type is one of counts."""


def decimal_places(field: Field[Any]) -> int:
    """How many digits behind the point the values of a field of numbers have."""
    field = plain_field(field)
    return field.decimal_places if isinstance(field, DecimalField) else 0


def arithmetic_field(operator: str, left: Field[Any], right: Field[Any]) -> Field[Any]:
    """The field of what two values are together.

    Raises:
        QueryError: databases do not calculate with values of these kinds.
    """
    kinds = family(left), family(right)
    if "float" in kinds and set(kinds) <= {"float", "integer", "decimal"}:
        return FLOAT
    if kinds == ("integer", "integer"):
        return FLOAT if operator == "/" else INTEGER
    if set(kinds) <= {"integer", "decimal"}:
        return _decimal_field(operator, left, right)
    found = SPANS.get((operator, *kinds))
    if found is None:
        raise QueryError(
            f"{kinds[0]} {operator} {kinds[1]} is nothing that databases calculate; Cast() makes one kind of the other"
        )
    if found == "datetime":
        if "date" in kinds:
            return NAIVE
        return plain_field(left if kinds[0] == "datetime" else right)
    return {"duration": DURATION, "date": DATE, "time": TIME, "text": TEXT}[found]


SPANS = {
    ("-", "datetime", "datetime"): "duration",
    ("-", "date", "date"): "duration",
    ("+", "datetime", "duration"): "datetime",
    ("+", "duration", "datetime"): "datetime",
    ("-", "datetime", "duration"): "datetime",
    ("+", "date", "duration"): "datetime",
    ("+", "duration", "date"): "datetime",
    ("-", "date", "duration"): "datetime",
    ("+", "duration", "duration"): "duration",
    ("-", "duration", "duration"): "duration",
    ("*", "duration", "integer"): "duration",
    ("*", "integer", "duration"): "duration",
}


def common_field(fields: Iterable[Field[Any]]) -> Field[Any]:
    """The field whose values are those of several: of the branches of a CASE, the arguments of COALESCE.

    Raises:
        QueryError: they have nothing in common.
    """
    found: Field[Any] | None = None
    for field in fields:
        if found is None:
            found = field
            continue
        one, other = family(found), family(field)
        if one == other:
            if one == "decimal" and decimal_places(field) > decimal_places(found):
                found = field
        elif {one, other} <= {"integer", "float", "decimal"}:
            found = FLOAT if "float" in (one, other) else _decimal_field("+", found, field)
        else:
            raise QueryError(
                f"values of the kinds {one} and {other} cannot stand for each other; Cast() makes one of the other, or "
                "give output_field=..."
            )
    return TEXT if found is None else found


def _decimal_field(operator: str, left: Field[Any], right: Field[Any]) -> Field[Any]:
    one, other = decimal_places(left), decimal_places(right)
    places = {"*": one + other, "/": max(one, other) + 6}.get(operator, max(one, other))
    return _computed_decimal(min(places, MOST_PLACES))


@cache
def _computed_decimal(places: int) -> Field[Any]:
    return ComputedDecimal(places)


def _decimal(value: Any) -> Decimal:
    if isinstance(value, float):
        value = repr(value)
    if isinstance(value, bool) or not isinstance(value, (int, Decimal, str)):
        raise ValueError(f"{value!r} is no decimal number")
    try:
        number = Decimal(value)
    except ArithmeticError:
        raise ValueError(f"{value!r} is no decimal number") from None
    if not number.is_finite():
        raise ValueError(f"{number} is no number that a database calculates with")
    return number
