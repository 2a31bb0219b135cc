"""Fields of days, times of the day, points in time, and spans of it. A DateTimeField is aware, and in UTC, on every
database."""

from __future__ import annotations

import datetime as dt
from typing import Any, Literal, TypeVar, Unpack, cast, overload

from covet_orm.deferred import mysql, sqlalchemy
from covet_orm.fields.base import Convert, Field
from covet_orm.fields.options import FieldOptions

__all__ = ["DateField", "DateTimeField", "DurationField", "TimeField"]

T = TypeVar("T")

MICROSECOND = dt.timedelta(microseconds=1)
ENDS = (dt.datetime.min.replace(tzinfo=dt.UTC), dt.datetime.max.replace(tzinfo=dt.UTC))
LONGEST = 2**63 - 1
"""Microseconds of the longest span: what 64 bits hold, about 292,000 years."""


class DateTimeField(Field[T]):
    """A point in time, to the microsecond.

    Values are aware; what comes from the database is in UTC. A naive value is refused, for nobody knows what it means.

    Args:
        timezone: False for a column without a time zone (`timestamp`), as older tables have; its values are naive.
        auto_now_add: the time of the first save, unless a value is given.
        auto_now: the time of every save.
    """

    kind = "date and time"

    @overload
    def __init__(
        self: DateTimeField[dt.datetime],
        *,
        timezone: bool = True,
        auto_now: bool = False,
        auto_now_add: bool = False,
        null: Literal[False] = False,
        **options: Unpack[FieldOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: DateTimeField[dt.datetime | None],
        *,
        timezone: bool = True,
        auto_now: bool = False,
        auto_now_add: bool = False,
        null: Literal[True],
        **options: Unpack[FieldOptions],
    ) -> None: ...
    def __init__(
        self,
        *,
        timezone: bool = True,
        auto_now: bool = False,
        auto_now_add: bool = False,
        null: bool = False,
        **options: Any,
    ) -> None:
        self.timezone = timezone
        self.auto_now = auto_now
        self.auto_now_add = auto_now_add
        if auto_now or auto_now_add:
            options.setdefault("default", self.now)
        Field.__init__(self, null=null, **options)

    def now(self) -> dt.datetime:
        """The present time, as this field holds it."""
        now = dt.datetime.now(dt.UTC)
        return now if self.timezone else now.replace(tzinfo=None)

    def column_type(self) -> sqlalchemy.types.TypeEngine[Any]:
        return (
            sqlalchemy.DateTime(timezone=self.timezone)
            .with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
            .with_variant(sqlalchemy.Text(), "sqlite")
        )

    def to_python(self, value: Any) -> T:
        return cast("T", self._exact(value))

    def binder(self, kind: str) -> Convert:
        slow, zone = self._exact, dt.UTC if self.timezone else None

        def exact(value: Any) -> dt.datetime:
            # As most are: of the zone that the column has, and of no year whose ends are beyond it.
            fits = type(value) is dt.datetime and value.tzinfo is zone and 1 < value.year < 9999
            return value if fits else slow(value)

        if kind == "sqlite":
            if not self.timezone:
                return lambda value: exact(value).isoformat(" ", "microseconds")
            # A naive time is written in half the time of one with a zone.
            return lambda value: exact(value).replace(tzinfo=None).isoformat(" ", "microseconds") + "+00:00"
        if kind == "postgresql" or not self.timezone:
            return exact
        return lambda value: exact(value).replace(tzinfo=None)

    def loader(self, kind: str) -> Convert | None:
        if kind == "sqlite":
            return dt.datetime.fromisoformat
        if kind == "postgresql" or not self.timezone:
            return None
        utc = dt.UTC
        return lambda value: value.replace(tzinfo=utc)

    def _exact(self, value: Any) -> dt.datetime:
        if isinstance(value, str):
            try:
                value = dt.datetime.fromisoformat(value)
            except ValueError:
                raise ValueError(
                    f"{value!r} is no date and time as ISO 8601 writes it, of the years 1 to 9999"
                ) from None
        if not isinstance(value, dt.datetime):
            raise ValueError(f"{value!r} is no date and time")
        if not self.timezone:
            if value.tzinfo is not None:
                raise ValueError(f"{value!r} has a time zone, and the column has none")
            return value
        if value.utcoffset() is None:
            raise ValueError(f"{value!r} has no time zone; give one, such as datetime.UTC")
        try:
            moment = value.astimezone(dt.UTC)
        except OverflowError:
            raise ValueError(f"{value!r} is beyond the years 1 to 9999 in UTC") from None
        if moment in ENDS:
            raise ValueError(f"{value!r} is what PostgreSQL's driver takes for infinity; choose a moment beside it")
        return moment


class DateField(Field[T]):
    """A day of the years 1 to 9999.

    PostgreSQL's driver takes the first and the last of them for `-infinity` and `infinity`, which come back as those
    days.

    Args:
        auto_now_add: the day of the first save, in UTC, unless a value is given.
        auto_now: the day of every save, in UTC.
    """

    kind = "date"

    @overload
    def __init__(
        self: DateField[dt.date],
        *,
        auto_now: bool = False,
        auto_now_add: bool = False,
        null: Literal[False] = False,
        **options: Unpack[FieldOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: DateField[dt.date | None],
        *,
        auto_now: bool = False,
        auto_now_add: bool = False,
        null: Literal[True],
        **options: Unpack[FieldOptions],
    ) -> None: ...
    def __init__(
        self, *, auto_now: bool = False, auto_now_add: bool = False, null: bool = False, **options: Any
    ) -> None:
        self.auto_now = auto_now
        self.auto_now_add = auto_now_add
        if auto_now or auto_now_add:
            options.setdefault("default", self.now)
        Field.__init__(self, null=null, **options)

    def now(self) -> dt.date:
        """The present day, in UTC."""
        return dt.datetime.now(dt.UTC).date()

    def column_type(self) -> sqlalchemy.types.TypeEngine[Any]:
        return sqlalchemy.Date().with_variant(sqlalchemy.Text(), "sqlite")

    def to_python(self, value: Any) -> T:
        return cast("T", self._exact(value))

    def binder(self, kind: str) -> Convert:
        exact = self._exact
        return (lambda value: exact(value).isoformat()) if kind == "sqlite" else exact

    def loader(self, kind: str) -> Convert | None:
        return dt.date.fromisoformat if kind == "sqlite" else None

    def _exact(self, value: Any) -> dt.date:
        if isinstance(value, str):
            try:
                return dt.date.fromisoformat(value)
            except ValueError:
                raise ValueError(f"{value!r} is no date as ISO 8601 writes it, of the years 1 to 9999") from None
        # A datetime is a date by its class, but not a day by itself: which one depends on the time zone.
        if isinstance(value, dt.datetime) or not isinstance(value, dt.date):
            raise ValueError(f"{value!r} is no date")
        return value


class TimeField(Field[T]):
    """A time of the day, to the microsecond, without a time zone."""

    kind = "time"

    @overload
    def __init__(
        self: TimeField[dt.time], *, null: Literal[False] = False, **options: Unpack[FieldOptions]
    ) -> None: ...
    @overload
    def __init__(self: TimeField[dt.time | None], *, null: Literal[True], **options: Unpack[FieldOptions]) -> None: ...
    def __init__(self, *, null: bool = False, **options: Any) -> None:
        Field.__init__(self, null=null, **options)

    def column_type(self) -> sqlalchemy.types.TypeEngine[Any]:
        return (
            sqlalchemy.Time()
            .with_variant(mysql.TIME(fsp=6), "mysql", "mariadb")
            .with_variant(sqlalchemy.Text(), "sqlite")
        )

    def to_python(self, value: Any) -> T:
        return cast("T", self._exact(value))

    def binder(self, kind: str) -> Convert:
        exact = self._exact
        if kind == "sqlite":
            return lambda value: exact(value).isoformat("microseconds")
        if kind == "postgresql":
            return exact

        # For the server a TIME is a span, and so it is for its driver.
        def bind(value: Any) -> dt.timedelta:
            time = exact(value)
            return dt.timedelta(
                hours=time.hour, minutes=time.minute, seconds=time.second, microseconds=time.microsecond
            )

        return bind

    def loader(self, kind: str) -> Convert | None:
        if kind == "sqlite":
            return dt.time.fromisoformat
        if kind == "postgresql":
            return None
        return lambda value: (dt.datetime.min + value).time()

    def _exact(self, value: Any) -> dt.time:
        if isinstance(value, str):
            try:
                value = dt.time.fromisoformat(value)
            except ValueError:
                raise ValueError(f"{value!r} is no time of the day as ISO 8601 writes it") from None
        if not isinstance(value, dt.time):
            raise ValueError(f"{value!r} is no time of the day")
        if value.tzinfo is not None:
            raise ValueError(f"{value!r} has a time zone; a time of the day has none")
        return value.replace(fold=0)


class DurationField(Field[T]):
    """A span of time, to the microsecond: `interval` on PostgreSQL, whole microseconds in a `bigint` elsewhere.

    About 292,000 years are the longest, on every database.
    """

    kind = "duration"

    @overload
    def __init__(
        self: DurationField[dt.timedelta], *, null: Literal[False] = False, **options: Unpack[FieldOptions]
    ) -> None: ...
    @overload
    def __init__(
        self: DurationField[dt.timedelta | None], *, null: Literal[True], **options: Unpack[FieldOptions]
    ) -> None: ...
    def __init__(self, *, null: bool = False, **options: Any) -> None:
        Field.__init__(self, null=null, **options)

    def column_type(self) -> sqlalchemy.types.TypeEngine[Any]:
        return sqlalchemy.Interval(native=True).with_variant(sqlalchemy.BigInteger(), "mysql", "mariadb", "sqlite")

    def to_python(self, value: Any) -> T:
        return cast("T", self._exact(value))

    def binder(self, kind: str) -> Convert:
        exact = self._exact
        return exact if kind == "postgresql" else lambda value: exact(value) // MICROSECOND

    def loader(self, kind: str) -> Convert | None:
        return None if kind == "postgresql" else lambda value: dt.timedelta(microseconds=value)

    def _exact(self, value: Any) -> dt.timedelta:
        if not isinstance(value, dt.timedelta):
            raise ValueError(f"{value!r} is no span of time")
        if not -LONGEST <= value // MICROSECOND <= LONGEST:
            raise ValueError(f"{value} is longer than the {LONGEST // 86_400_000_000:,} days that a column holds")
        return value
