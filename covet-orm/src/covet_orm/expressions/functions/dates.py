"""Functions of dates and times. Without a time zone, points in time are taken in UTC."""

from __future__ import annotations

import datetime as dt
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, ClassVar

import sqlalchemy
from sqlalchemy import ColumnElement, func

from covet.settings_schema import nearest
from covet_orm.exceptions import QueryError
from covet_orm.expressions.functions.base import Func
from covet_orm.fields.inference import DATE, DATETIME, INTEGER, NAIVE, TIME, family
from covet_orm.queries.date_lookups import (
    PARTS,
    TRUNCATIONS,
    date_of,
    extract,
    in_time_zone,
    time_of,
    truncate,
    truncation,
)

if TYPE_CHECKING:
    from covet_orm.fields.base import Field
    from covet_orm.queries.scope import Scope

__all__ = [
    "Extract",
    "ExtractDay",
    "ExtractHour",
    "ExtractIsoWeekDay",
    "ExtractIsoYear",
    "ExtractMinute",
    "ExtractMonth",
    "ExtractQuarter",
    "ExtractSecond",
    "ExtractWeek",
    "ExtractWeekDay",
    "ExtractYear",
    "Now",
    "Trunc",
    "TruncDate",
    "TruncDay",
    "TruncHour",
    "TruncMinute",
    "TruncMonth",
    "TruncQuarter",
    "TruncSecond",
    "TruncTime",
    "TruncWeek",
    "TruncYear",
]


class Now(Func[dt.datetime]):
    """The present time by the clock of the database, at the beginning of the statement; SQLite's has milliseconds."""

    arity = (0, 0)
    output_field = DATETIME

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        if scope.kind == "postgresql":
            return func.statement_timestamp()
        if scope.kind == "sqlite":
            form, now = "%Y-%m-%d %H:%M:%f000+00:00", "now"
            return func.strftime(
                sqlalchemy.literal(form, sqlalchemy.Text()), sqlalchemy.literal(now, sqlalchemy.Text())
            )
        return func.utc_timestamp(sqlalchemy.literal_column("6"))


class OfTime(Func[Any]):
    """The base of what takes a point in time, perhaps as a time zone has it.

    Args:
        expression: the point in time, a day, or a time of the day.
        tzinfo: the time zone: a `zoneinfo.ZoneInfo`, which PostgreSQL and SQLite know, or a `datetime.timezone`.
    """

    __slots__ = ("tzinfo",)

    arity = (1, 1)

    def __init__(self, expression: Any, *, tzinfo: dt.tzinfo | None = None) -> None:
        super().__init__(expression)
        self.tzinfo = tzinfo

    def options(self) -> Hashable:
        return self.tzinfo

    def local(self, scope: Scope, column: ColumnElement[Any]) -> tuple[ColumnElement[Any], Field[Any]]:
        """The point in time as a clock of the time zone shows it, and its field."""
        field = self.arguments[0].output(scope)
        if self.tzinfo is None:
            return column, field
        if family(field) != "datetime" or not getattr(field, "timezone", True):
            raise QueryError(f"{self!r}: a {family(field)} without a time zone is none that another one could show")
        return in_time_zone(scope, column, self.tzinfo), NAIVE


class Extract(OfTime):
    """A part of a point in time, as a whole number: `Extract("created", "year")`.

    Args:
        expression: the point in time, a day, or a time of the day.
        part: `year`, `iso_year`, `quarter`, `month`, `week`, `day`, `week_day`, `iso_week_day`, `hour`, `minute`,
            `second`.
        tzinfo: the time zone.

    Raises:
        QueryError: there is no such part.
    """

    __slots__ = ("part",)

    output_field = INTEGER

    def __init__(self, expression: Any, part: str, *, tzinfo: dt.tzinfo | None = None) -> None:
        if part not in PARTS:
            raise QueryError(f"a point in time has no part {part!r}{nearest(str(part), PARTS)}")
        super().__init__(expression, tzinfo=tzinfo)
        self.part = part

    def options(self) -> Hashable:
        return self.part, self.tzinfo

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        return extract(scope, self.part, self.local(scope, arguments[0])[0])


class OnePart(Extract):
    """The base of those that are called after their part."""

    __slots__ = ()

    which: ClassVar[str]

    def __init__(self, expression: Any, *, tzinfo: dt.tzinfo | None = None) -> None:
        super().__init__(expression, self.which, tzinfo=tzinfo)


class ExtractYear(OnePart):
    """The year."""

    which = "year"


class ExtractIsoYear(OnePart):
    """The year that the week belongs to (ISO 8601)."""

    which = "iso_year"


class ExtractQuarter(OnePart):
    """The quarter, from 1."""

    which = "quarter"


class ExtractMonth(OnePart):
    """The month, from 1."""

    which = "month"


class ExtractWeek(OnePart):
    """The week (ISO 8601), from 1."""

    which = "week"


class ExtractDay(OnePart):
    """The day of the month."""

    which = "day"


class ExtractWeekDay(OnePart):
    """The day of the week, from 1, a Sunday."""

    which = "week_day"


class ExtractIsoWeekDay(OnePart):
    """The day of the week, from 1, a Monday (ISO 8601)."""

    which = "iso_week_day"


class ExtractHour(OnePart):
    """The hour."""

    which = "hour"


class ExtractMinute(OnePart):
    """The minute."""

    which = "minute"


class ExtractSecond(OnePart):
    """The second, without its fraction."""

    which = "second"


class Trunc(OfTime):
    """A point in time, a day or a time of the day, cut down: `Trunc("created", "month")`.

    Args:
        expression: the point in time, a day, or a time of the day.
        part: `year`, `quarter`, `month`, `week`, `day`, `hour`, `minute`, `second`.
        tzinfo: the time zone; the result is then what a clock there shows, without a zone.

    Raises:
        QueryError: there is no such part.
    """

    __slots__ = ("part",)

    def __init__(self, expression: Any, part: str, *, tzinfo: dt.tzinfo | None = None) -> None:
        if part not in TRUNCATIONS:
            raise QueryError(f"nothing is cut down to a {part!r}{nearest(str(part), TRUNCATIONS)}")
        super().__init__(expression, tzinfo=tzinfo)
        self.part = part

    def options(self) -> Hashable:
        return self.part, self.tzinfo

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        column, field = self.local(scope, arguments[0])
        return truncate(scope, truncation(self.part, field), column, field)

    def output(self, scope: Scope) -> Field[Any]:
        return self.arguments[0].output(scope) if self.tzinfo is None else NAIVE


class CutTo(Trunc):
    """The base of those that are called after their part."""

    __slots__ = ()

    which: ClassVar[str]

    def __init__(self, expression: Any, *, tzinfo: dt.tzinfo | None = None) -> None:
        super().__init__(expression, self.which, tzinfo=tzinfo)


class TruncYear(CutTo):
    """The beginning of the year."""

    which = "year"


class TruncQuarter(CutTo):
    """The beginning of the quarter."""

    which = "quarter"


class TruncMonth(CutTo):
    """The beginning of the month."""

    which = "month"


class TruncWeek(CutTo):
    """The beginning of the week, a Monday."""

    which = "week"


class TruncDay(CutTo):
    """The beginning of the day."""

    which = "day"


class TruncHour(CutTo):
    """The beginning of the hour."""

    which = "hour"


class TruncMinute(CutTo):
    """The beginning of the minute."""

    which = "minute"


class TruncSecond(CutTo):
    """The beginning of the second."""

    which = "second"


class TruncDate(OfTime):
    """The day of a point in time."""

    output_field = DATE

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        return date_of(scope, *self.local(scope, arguments[0]))


class TruncTime(OfTime):
    """The time of the day of a point in time."""

    output_field = TIME

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        return time_of(scope, *self.local(scope, arguments[0]))
