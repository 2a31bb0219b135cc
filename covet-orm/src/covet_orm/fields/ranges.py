"""The fields of ranges, which PostgreSQL has."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, cast, overload

from covet_orm.deferred import postgresql, sqlalchemy
from covet_orm.exceptions import NotSupported
from covet_orm.fields.base import Convert, Field
from covet_orm.fields.dates import DateField, DateTimeField
from covet_orm.fields.numbers import BigIntegerField, DecimalField, IntegerField
from covet_orm.fields.options import FieldOptions
from covet_orm.fields.range_values import Range

__all__ = [
    "BigIntegerRangeField",
    "DateRangeField",
    "DateTimeRangeField",
    "DecimalRangeField",
    "IntegerRangeField",
    "RangeField",
    "range_text",
]

T = TypeVar("T")

ONLY_POSTGRESQL = (
    "only PostgreSQL has ranges; two fields, and a CheckConstraint of their order, keep one on every database"
)
MOST_DIGITS = 1000
"""Digits of an end of a range of decimals, before the point and behind it."""
EMPTY: Range[Any] = Range(isempty=True)


class RangeField(Field[T]):
    """The base of the fields of ranges (PostgreSQL). A value is a `Range`; a pair of ends is taken for one.

    An index of ranges has the method `gist`: `Index("during", method="gist")`.

    Attributes:
        base: the field of the ends.
        step: from one value to the next, where nothing lies between them; None where something does.
    """

    kind = "range"
    # A field that belongs to no model; typed as one, it would be taken for the descriptor of a column.
    base: Any
    step: Any = None

    def unsupported(self, kind: str) -> str:
        return ONLY_POSTGRESQL if kind != "postgresql" else ""

    def to_python(self, value: Any) -> T:
        return cast("T", self._exact(value, self.base.to_python))

    def binder(self, kind: str) -> Convert:
        if kind != "postgresql":
            raise NotSupported(f"{self!r}: {ONLY_POSTGRESQL}")
        from asyncpg import Range as DriverRange

        each, exact = self.base.binder(kind), self._exact

        def bind(value: Any) -> Any:
            bound = exact(value, each)
            return DriverRange(
                bound.lower,
                bound.upper,
                lower_inc=bound.lower_inc,
                upper_inc=bound.upper_inc,
                empty=bound.isempty,
            )

        return bind

    def loader(self, kind: str) -> Convert | None:
        def load(value: Any) -> Range[Any]:
            if value.isempty:
                return EMPTY
            bounds: Any = ("[" if value.lower_inc else "(") + ("]" if value.upper_inc else ")")
            return Range(value.lower, value.upper, bounds)

        return load

    def differs(self, before: Any, value: Any) -> bool:
        if isinstance(before, Range) and isinstance(value, (Range, tuple, list)):
            try:
                return self._exact(value, self.base.to_python) != before
            except ValueError:
                # The save that follows says what is wrong.
                return True
        return super().differs(before, value)

    def _exact(self, value: Any, each: Convert) -> Range[Any]:
        """A range of the field's values, in the form that PostgreSQL gives back."""
        if isinstance(value, (tuple, list)) and len(value) == 2:
            value = Range(*value)
        if not isinstance(value, Range):
            raise ValueError(f"{value!r} is no Range, and no pair of its ends")
        lower, upper, bounds = value.lower, value.upper, value.bounds
        lower = None if lower is None else each(lower)
        upper = None if upper is None else each(upper)
        found: Range[Any] = Range(lower, upper, bounds, isempty=value.isempty)
        if self.step is None or found.isempty or found.bounds == "[)":
            return found
        try:
            if lower is not None and not found.lower_inc:
                lower = each(lower + self.step)
            if upper is not None and found.upper_inc:
                upper = each(upper + self.step)
        except OverflowError:
            raise ValueError(f"{value} has no end that could be written") from None
        # `(1,2)` of whole numbers has nothing in it.
        return Range(lower, upper) if lower is None or upper is None or lower < upper else EMPTY


class IntegerRangeField(RangeField[T]):
    """A range of whole numbers of 32 bits (`int4range`)."""

    base = IntegerField[int]()
    step = 1

    if TYPE_CHECKING:

        @overload
        def __init__(
            self: IntegerRangeField[Range[int]], *, null: Literal[False] = False, **options: Unpack[FieldOptions]
        ) -> None: ...
        @overload
        def __init__(
            self: IntegerRangeField[Range[int] | None], *, null: Literal[True], **options: Unpack[FieldOptions]
        ) -> None: ...
        def __init__(self, *, null: bool = False, **options: Any) -> None: ...

    def column_type(self) -> sqlalchemy.types.TypeEngine[Any]:
        return postgresql.INT4RANGE()


class BigIntegerRangeField(RangeField[T]):
    """A range of whole numbers of 64 bits (`int8range`)."""

    base = BigIntegerField[int]()
    step = 1

    if TYPE_CHECKING:

        @overload
        def __init__(
            self: BigIntegerRangeField[Range[int]], *, null: Literal[False] = False, **options: Unpack[FieldOptions]
        ) -> None: ...
        @overload
        def __init__(
            self: BigIntegerRangeField[Range[int] | None], *, null: Literal[True], **options: Unpack[FieldOptions]
        ) -> None: ...
        def __init__(self, *, null: bool = False, **options: Any) -> None: ...

    def column_type(self) -> sqlalchemy.types.TypeEngine[Any]:
        return postgresql.INT8RANGE()


class _End(DecimalField[Decimal]):
    """A decimal number of as many digits as it has: `numrange` has no scale."""

    def __init__(self) -> None:
        # What is computed of it keeps as many digits behind the point as computed decimals do at most.
        super().__init__(max_digits=MOST_DIGITS, decimal_places=15)

    def column_type(self) -> sqlalchemy.types.TypeEngine[Any]:
        return sqlalchemy.Numeric()

    def _exact(self, value: Any) -> Decimal:
        if isinstance(value, float):
            value = repr(value)
        if isinstance(value, bool) or not isinstance(value, (int, Decimal, str)):
            raise ValueError(f"{value!r} is no decimal number")
        try:
            number = Decimal(value)
        except (ArithmeticError, ValueError):
            raise ValueError(f"{str(value)[:50]!r} is no decimal number") from None
        if not number.is_finite():
            raise ValueError(f"{number} is no end of a range; None is the end of one that has none")
        exponent = number.as_tuple().exponent
        if number.adjusted() >= MOST_DIGITS or (isinstance(exponent, int) and exponent < -MOST_DIGITS):
            raise ValueError(f"{number:.6g} has more than {MOST_DIGITS} digits before the point, or behind it")
        return number


class DecimalRangeField(RangeField[T]):
    """A range of decimal numbers of any number of digits (`numrange`)."""

    base = _End()

    if TYPE_CHECKING:

        @overload
        def __init__(
            self: DecimalRangeField[Range[Decimal]], *, null: Literal[False] = False, **options: Unpack[FieldOptions]
        ) -> None: ...
        @overload
        def __init__(
            self: DecimalRangeField[Range[Decimal] | None], *, null: Literal[True], **options: Unpack[FieldOptions]
        ) -> None: ...
        def __init__(self, *, null: bool = False, **options: Any) -> None: ...

    def column_type(self) -> sqlalchemy.types.TypeEngine[Any]:
        return postgresql.NUMRANGE()


class DateRangeField(RangeField[T]):
    """A range of days (`daterange`)."""

    base = DateField[dt.date]()
    step = dt.timedelta(days=1)

    if TYPE_CHECKING:

        @overload
        def __init__(
            self: DateRangeField[Range[dt.date]], *, null: Literal[False] = False, **options: Unpack[FieldOptions]
        ) -> None: ...
        @overload
        def __init__(
            self: DateRangeField[Range[dt.date] | None], *, null: Literal[True], **options: Unpack[FieldOptions]
        ) -> None: ...
        def __init__(self, *, null: bool = False, **options: Any) -> None: ...

    def column_type(self) -> sqlalchemy.types.TypeEngine[Any]:
        return postgresql.DATERANGE()


class DateTimeRangeField(RangeField[T]):
    """A range of points in time (`tstzrange`), aware as those of a `DateTimeField`.

    Args:
        timezone: False for points in time without a time zone (`tsrange`).
    """

    @overload
    def __init__(
        self: DateTimeRangeField[Range[dt.datetime]],
        *,
        timezone: bool = True,
        null: Literal[False] = False,
        **options: Unpack[FieldOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: DateTimeRangeField[Range[dt.datetime] | None],
        *,
        timezone: bool = True,
        null: Literal[True],
        **options: Unpack[FieldOptions],
    ) -> None: ...
    def __init__(self, *, timezone: bool = True, null: bool = False, **options: Any) -> None:
        self.timezone = timezone
        self.base = DateTimeField(timezone=timezone)
        Field.__init__(self, null=null, **options)

    def column_type(self) -> sqlalchemy.types.TypeEngine[Any]:
        return postgresql.TSTZRANGE() if self.timezone else postgresql.TSRANGE()


def range_text(value: Any) -> str:
    """The text of a range as PostgreSQL writes it, of one as its driver takes it: for the definition of a table."""
    if value.isempty:
        return "empty"
    lower, upper = ("" if end is None else f'"{end}"' for end in (value.lower, value.upper))
    return f"{'[' if value.lower_inc else '('}{lower},{upper}{']' if value.upper_inc else ')'}"
