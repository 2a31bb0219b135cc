"""Parts of dates and times: `created__year=2026`, `created__date__gte=...`, `opens__hour__lt=9`.

Points in time are taken apart in UTC. What concerns a whole year is a range of the column itself, which an index
serves.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import ColumnElement, func
from sqlalchemy.dialects.mysql import DATETIME, TIME

from covet_orm.exceptions import NotSupported, QueryError
from covet_orm.expressions.base import Add, Expression
from covet_orm.fields.base import Convert, Field
from covet_orm.fields.inference import DATE, INTEGER, family, plain_field
from covet_orm.fields.inference import TIME as TIME_OF_DAY
from covet_orm.queries.lookups import Lookup, Transform

if TYPE_CHECKING:
    from covet_orm.queries.scope import Scope

__all__ = [
    "OF_DATES",
    "OF_DATETIMES",
    "OF_TIMES",
    "PARTS",
    "TRUNCATIONS",
    "date_of",
    "extract",
    "in_time_zone",
    "time_of",
    "truncate",
    "truncation",
]

PARTS = (
    "year",
    "iso_year",
    "quarter",
    "month",
    "week",
    "day",
    "week_day",
    "iso_week_day",
    "hour",
    "minute",
    "second",
)
"""What there is of a point in time. Weeks are those of ISO 8601; `week_day` counts from 1, a Sunday, `iso_week_day`
from 1, a Monday; a second has no fraction."""

TRUNCATIONS = ("year", "quarter", "month", "week", "day", "hour", "minute", "second")
"""What a point in time can be cut down to."""

INSTANT = dt.timedelta(microseconds=1)

POSTGRESQL = {"iso_year": "isoyear", "week_day": "dow", "iso_week_day": "isodow"}
STRFTIME = {"year": "%Y", "month": "%m", "day": "%d", "hour": "%H", "minute": "%M", "second": "%S"}
FORMATS = {
    "year": "%Y-01-01 00:00:00",
    "month": "%Y-%m-01 00:00:00",
    "day": "%Y-%m-%d 00:00:00",
    "hour": "%Y-%m-%d %H:00:00",
    "minute": "%Y-%m-%d %H:%i:00",
    "second": "%Y-%m-%d %H:%i:%s",
}


def extract(scope: Scope, part: str, column: ColumnElement[Any]) -> ColumnElement[Any]:
    """A part of a point in time, as a whole number."""
    if scope.kind == "postgresql":
        found = func.floor(sqlalchemy.extract(POSTGRESQL.get(part, part), column))
        number = sqlalchemy.cast(found, sqlalchemy.Integer())
        return number + sqlalchemy.literal_column("1") if part == "week_day" else number
    if scope.kind == "sqlite":
        if part in STRFTIME:
            return sqlalchemy.cast(func.strftime(_word(STRFTIME[part]), column), sqlalchemy.Integer())
        return func.covet_part(_word(part), column, type_=sqlalchemy.Integer())
    if part == "iso_year":
        return func.yearweek(column, sqlalchemy.literal_column("3"), type_=sqlalchemy.Integer()).op("DIV")(
            sqlalchemy.literal_column("100")
        )
    if part == "week":
        return func.week(column, sqlalchemy.literal_column("3"), type_=sqlalchemy.Integer())
    if part == "week_day":
        return func.dayofweek(column, type_=sqlalchemy.Integer())
    if part == "iso_week_day":
        return func.weekday(column, type_=sqlalchemy.Integer()) + sqlalchemy.literal_column("1")
    return sqlalchemy.extract(part, column)


def truncate(scope: Scope, part: str, column: ColumnElement[Any], field: Field[Any]) -> ColumnElement[Any]:
    """A point in time, cut down to its year, month, ...: of the same type."""
    kind = family(field)
    column_type = field.column_type()
    if scope.kind == "postgresql":
        cut = func.date_trunc(sqlalchemy.literal_column(f"'{part}'"), column)
        return (
            sqlalchemy.cast(cut, column_type) if kind in ("date", "time") else sqlalchemy.type_coerce(cut, column_type)
        )
    if scope.kind == "sqlite":
        return func.covet_trunc(_word(part), column, type_=column_type)
    whole: ColumnElement[Any]
    if kind == "time":
        whole = func.time_format(column, _word(FORMATS[part].rpartition(" ")[2]))
        return sqlalchemy.cast(whole, TIME(fsp=6))
    if part == "week":
        days = func.weekday(column)
        whole = func.timestampadd(sqlalchemy.literal_column("DAY"), -days, func.date(column))
    elif part == "quarter":
        months = (func.quarter(column) - sqlalchemy.literal_column("1")) * sqlalchemy.literal_column("3")
        whole = func.timestampadd(
            sqlalchemy.literal_column("MONTH"), months, func.makedate(func.year(column), sqlalchemy.literal_column("1"))
        )
    else:
        whole = func.date_format(column, _word(FORMATS[part]))
    return sqlalchemy.cast(whole, sqlalchemy.Date() if kind == "date" else DATETIME(fsp=6))


def date_of(scope: Scope, column: ColumnElement[Any], field: Field[Any]) -> ColumnElement[Any]:
    """The day of a point in time."""
    if scope.kind == "sqlite":
        return func.substr(
            column, sqlalchemy.literal_column("1"), sqlalchemy.literal_column("10"), type_=sqlalchemy.Text()
        )
    return sqlalchemy.cast(column, sqlalchemy.Date())


def time_of(scope: Scope, column: ColumnElement[Any], field: Field[Any]) -> ColumnElement[Any]:
    """The time of the day of a point in time."""
    if scope.kind == "sqlite":
        return func.substr(
            column, sqlalchemy.literal_column("12"), sqlalchemy.literal_column("15"), type_=sqlalchemy.Text()
        )
    return sqlalchemy.cast(column, sqlalchemy.Time() if scope.kind == "postgresql" else TIME(fsp=6))


class Part(Transform):
    """A part of a point in time, as a whole number."""

    def __init__(self, part: str) -> None:
        lookups = {lookup.name: lookup for lookup in YEARS} if part == "year" else None
        super().__init__(
            part, lambda scope, column, field: extract(scope, part, column), lambda field: INTEGER, lookups=lookups
        )


class Bound(Field[Any]):
    """The parameter of a whole year: the first or the last point in time of it, as another field has it."""

    def __init__(self, of: Field[Any], *, last: bool) -> None:
        super().__init__()
        self.of = of
        self.last = last

    def column_type(self) -> sqlalchemy.types.TypeEngine[Any]:
        return self.of.column_type()

    def binder(self, kind: str) -> Convert:
        bind = self.of.binder(kind)
        of, last = plain_field(self.of), self.last
        is_date = family(of) == "date"
        aware = getattr(of, "timezone", True)

        def bound(value: Any) -> Any:
            if isinstance(value, bool) or not isinstance(value, int) or not dt.MINYEAR <= value <= dt.MAXYEAR:
                raise ValueError(f"{value!r} is no year from {dt.MINYEAR} to {dt.MAXYEAR}")
            day = dt.date(value, 12, 31) if last else dt.date(value, 1, 1)
            if is_date:
                return bind(day)
            moment = dt.datetime.combine(day, dt.time.max if last else dt.time.min, tzinfo=dt.UTC if aware else None)
            # The first and the last moment of all are none that a field takes.
            if value == dt.MINYEAR and not last:
                moment += INSTANT
            elif value == dt.MAXYEAR and last:
                moment -= INSTANT
            return bind(moment)

        return bound


class YearLookup(Lookup):
    """A comparison of the year of a column, as one of the column itself.

    Args:
        name: what keywords call it.
        first, last: the operators that compare the column with the first and with the last point in time of the year.
    """

    def __init__(self, name: str, first: str = "", last: str = "") -> None:
        super().__init__(name)
        self.bounds = [(operator, ends) for operator, ends in ((first, False), (last, True)) if operator]

    def shape(self, value: Any, key: Add, values: Add) -> None:
        if isinstance(value, Expression):
            key((self.name, "year of"))
            value.shape(key, values)
            return
        key((self.name, "year"))
        self.not_none(value)
        for _ in self.bounds:
            values(value)

    def build(self, scope: Scope, left: ColumnElement[Any], field: Field[Any], value: Any) -> ColumnElement[Any]:
        if isinstance(value, Expression):
            operator = {"exact": "=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}[self.name]
            return extract(scope, "year", left).op(operator, is_comparison=True)(value.build(scope))
        return sqlalchemy.and_(
            *(
                left.op(operator, is_comparison=True)(scope.parameter(Bound(field, last=last)))
                for operator, last in self.bounds
            )
        )


YEARS = (
    YearLookup("exact", ">=", "<="),
    YearLookup("gt", last=">"),
    YearLookup("gte", first=">="),
    YearLookup("lt", first="<"),
    YearLookup("lte", last="<="),
)


def _word(text: str) -> ColumnElement[Any]:
    """One of our own words, as a parameter of the statement itself."""
    return sqlalchemy.literal(text, sqlalchemy.Text())


def truncation(part: str, field: Field[Any]) -> str:
    """Check that a point in time, a day or a time of the day can be cut down to a part.

    Raises:
        QueryError: it cannot.
    """
    kind = family(field)
    allowed = {"datetime": TRUNCATIONS, "date": TRUNCATIONS[:5], "time": TRUNCATIONS[5:]}.get(kind)
    if allowed is None:
        raise QueryError(f"a {kind} cannot be cut down to a {part}; dates and times can")
    if part not in allowed:
        raise QueryError(f"a {kind} can be cut down to {', '.join(allowed)}, not to {part!r}")
    return part


DATE_PARTS = {part: Part(part) for part in PARTS[:8]}
TIME_PARTS = {part: Part(part) for part in PARTS[8:]}

OF_DATES: dict[str, Transform] = {**DATE_PARTS}
"""The transforms of days, by name."""
OF_TIMES: dict[str, Transform] = {**TIME_PARTS}
"""The transforms of times of the day, by name."""
OF_DATETIMES: dict[str, Transform] = {
    **DATE_PARTS,
    **TIME_PARTS,
    "date": Transform("date", date_of, lambda field: DATE),
    "time": Transform("time", time_of, lambda field: TIME_OF_DAY),
}
"""The transforms of points in time, by name."""


def in_time_zone(scope: Scope, column: ColumnElement[Any], zone: dt.tzinfo) -> ColumnElement[Any]:
    """A point in time as a clock of a time zone shows it, without the zone.

    Raises:
        NotSupported: the database knows no time zones by name.
        QueryError: it is a time zone of another kind.
    """
    if zone is dt.UTC:
        zone = dt.timezone(dt.timedelta(0))
    if isinstance(zone, dt.timezone):
        seconds = int(zone.utcoffset(None).total_seconds())
        if scope.kind == "postgresql":
            nothing: list[ColumnElement[Any]] = [sqlalchemy.literal_column("0")] * 6
            span = func.make_interval(*nothing, sqlalchemy.literal_column(str(seconds)))
            return func.timezone(span, column, type_=sqlalchemy.DateTime())
        sign = "-" if seconds < 0 else "+"
        name = f"{sign}{abs(seconds) // 3600:02}:{abs(seconds) // 60 % 60:02}"
        if scope.kind == "sqlite":
            return func.covet_local(column, _word(name), type_=sqlalchemy.Text())
        return func.convert_tz(column, _word("+00:00"), _word(name), type_=DATETIME(fsp=6))
    key = getattr(zone, "key", None)
    if not isinstance(key, str):
        raise QueryError(f"{zone!r} is neither a zoneinfo.ZoneInfo nor a datetime.timezone")
    if scope.kind == "postgresql":
        return func.timezone(_word(key), column, type_=sqlalchemy.DateTime())
    if scope.kind == "sqlite":
        return func.covet_local(column, _word(key), type_=sqlalchemy.Text())
    raise NotSupported(
        f"{scope.kind} knows {key!r} only where somebody has loaded its tables of time zones, and gives NULL "
        "elsewhere; "
        "use a datetime.timezone with a fixed offset, or convert in Python"
    )
