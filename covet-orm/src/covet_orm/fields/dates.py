"""Fields of points in time. A DateTimeField is aware, and in UTC, on every database."""

from __future__ import annotations

import datetime as dt
from typing import Any, Literal, TypeVar, Unpack, overload

import sqlalchemy
from sqlalchemy.dialects.mysql import DATETIME

from covet_orm.fields.base import Convert, Field
from covet_orm.fields.options import FieldOptions

__all__ = ["DateTimeField"]

T = TypeVar("T")


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
        super().__init__(null=null, **options)

    def now(self) -> dt.datetime:
        """The present time, as this field holds it."""
        now = dt.datetime.now(dt.UTC)
        return now if self.timezone else now.replace(tzinfo=None)

    def column_type(self) -> sqlalchemy.types.TypeEngine[Any]:
        return (
            sqlalchemy.DateTime(timezone=self.timezone)
            .with_variant(DATETIME(fsp=6), "mysql", "mariadb")
            .with_variant(sqlalchemy.Text(), "sqlite")
        )

    def to_python(self, value: Any) -> T:
        if isinstance(value, str):
            try:
                value = dt.datetime.fromisoformat(value)
            except ValueError:
                raise ValueError(f"{value!r} is no date and time as ISO 8601 writes it") from None
        if not isinstance(value, dt.datetime):
            raise ValueError(f"{value!r} is no date and time")
        if self.timezone:
            if value.tzinfo is None:
                raise ValueError(f"{value!r} has no time zone; give one, such as datetime.UTC")
            return value.astimezone(dt.UTC)  # type: ignore[return-value]
        if value.tzinfo is not None:
            raise ValueError(f"{value!r} has a time zone, and the column has none")
        return value  # type: ignore[return-value]

    def binder(self, kind: str) -> Convert:
        exact: Convert = self.to_python
        if kind == "sqlite":
            return lambda value: exact(value).isoformat(" ", "microseconds")
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
