"""Fields of numbers: integers, floats, decimals, booleans, and keys that the database counts."""

from __future__ import annotations

import math
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, Unpack, cast, overload

from covet_orm.deferred import sqlalchemy
from covet_orm.exceptions import ModelError
from covet_orm.fields.base import Convert, Field
from covet_orm.fields.options import FieldOptions

__all__ = [
    "AutoField",
    "BigAutoField",
    "BigIntegerField",
    "BooleanField",
    "DecimalField",
    "FloatField",
    "IntegerField",
    "PositiveBigIntegerField",
    "PositiveIntegerField",
    "PositiveSmallIntegerField",
    "SmallAutoField",
    "SmallIntegerField",
]

T = TypeVar("T")

MUCH = 2**80
SQLITE_DIGITS = 15
"""Decimal digits that a number of SQLite, which is a float, keeps whatever they are."""


class IntegerField(Field[T]):
    """A whole number of 32 bits, with its sign."""

    kind = "integer"
    minimum: ClassVar[int] = -(2**31)
    maximum: ClassVar[int] = 2**31 - 1

    @overload
    def __init__(self: IntegerField[int], *, null: Literal[False] = False, **options: Unpack[FieldOptions]) -> None: ...
    @overload
    def __init__(self: IntegerField[int | None], *, null: Literal[True], **options: Unpack[FieldOptions]) -> None: ...
    def __init__(self, *, null: bool = False, **options: Any) -> None:
        Field.__init__(self, null=null, **options)

    def column_type(self) -> sqlalchemy.types.TypeEngine[Any]:
        return sqlalchemy.Integer()

    def to_python(self, value: Any) -> T:
        whole = _whole(value)
        if not self.minimum <= whole <= self.maximum:
            told = whole if abs(whole) < 10**40 else f"a number of {whole.bit_length()} bits"
            raise ValueError(f"{told} is out of range: it holds {self.minimum} to {self.maximum}")
        return cast("T", whole)

    def check(self, column: sqlalchemy.ColumnElement[Any]) -> sqlalchemy.ColumnElement[bool] | None:
        return column >= sqlalchemy.literal_column("0") if self.minimum == 0 else None

    def binder(self, kind: str) -> Convert:
        lowest, highest, slow = self.minimum, self.maximum, self.to_python

        def bind(value: Any) -> Any:
            return value if type(value) is int and lowest <= value <= highest else slow(value)

        return bind


class SmallIntegerField(IntegerField[T]):
    """A whole number of 16 bits, with its sign."""

    minimum = -(2**15)
    maximum = 2**15 - 1

    if TYPE_CHECKING:

        @overload
        def __init__(
            self: SmallIntegerField[int], *, null: Literal[False] = False, **options: Unpack[FieldOptions]
        ) -> None: ...
        @overload
        def __init__(
            self: SmallIntegerField[int | None], *, null: Literal[True], **options: Unpack[FieldOptions]
        ) -> None: ...
        def __init__(self, *, null: bool = False, **options: Any) -> None: ...

    def column_type(self) -> sqlalchemy.types.TypeEngine[Any]:
        return sqlalchemy.SmallInteger()


class BigIntegerField(IntegerField[T]):
    """A whole number of 64 bits, with its sign."""

    minimum = -(2**63)
    maximum = 2**63 - 1

    if TYPE_CHECKING:

        @overload
        def __init__(
            self: BigIntegerField[int], *, null: Literal[False] = False, **options: Unpack[FieldOptions]
        ) -> None: ...
        @overload
        def __init__(
            self: BigIntegerField[int | None], *, null: Literal[True], **options: Unpack[FieldOptions]
        ) -> None: ...
        def __init__(self, *, null: bool = False, **options: Any) -> None: ...

    def column_type(self) -> sqlalchemy.types.TypeEngine[Any]:
        return sqlalchemy.BigInteger()


class PositiveIntegerField(IntegerField[T]):
    """A whole number of 31 bits, not below zero; the database checks it as well."""

    minimum = 0

    if TYPE_CHECKING:

        @overload
        def __init__(
            self: PositiveIntegerField[int], *, null: Literal[False] = False, **options: Unpack[FieldOptions]
        ) -> None: ...
        @overload
        def __init__(
            self: PositiveIntegerField[int | None], *, null: Literal[True], **options: Unpack[FieldOptions]
        ) -> None: ...
        def __init__(self, *, null: bool = False, **options: Any) -> None: ...


class PositiveSmallIntegerField(SmallIntegerField[T]):
    """A whole number of 15 bits, not below zero; the database checks it as well."""

    minimum = 0

    if TYPE_CHECKING:

        @overload
        def __init__(
            self: PositiveSmallIntegerField[int], *, null: Literal[False] = False, **options: Unpack[FieldOptions]
        ) -> None: ...
        @overload
        def __init__(
            self: PositiveSmallIntegerField[int | None], *, null: Literal[True], **options: Unpack[FieldOptions]
        ) -> None: ...
        def __init__(self, *, null: bool = False, **options: Any) -> None: ...


class PositiveBigIntegerField(BigIntegerField[T]):
    """A whole number of 63 bits, not below zero; the database checks it as well."""

    minimum = 0

    if TYPE_CHECKING:

        @overload
        def __init__(
            self: PositiveBigIntegerField[int], *, null: Literal[False] = False, **options: Unpack[FieldOptions]
        ) -> None: ...
        @overload
        def __init__(
            self: PositiveBigIntegerField[int | None], *, null: Literal[True], **options: Unpack[FieldOptions]
        ) -> None: ...
        def __init__(self, *, null: bool = False, **options: Any) -> None: ...


class AutoField(IntegerField[T]):
    """A primary key of 32 bits that the database counts."""

    @overload
    def __init__(self: AutoField[int], *, null: Literal[False] = False, **options: Unpack[FieldOptions]) -> None: ...
    @overload
    def __init__(self: AutoField[int | None], *, null: Literal[True], **options: Unpack[FieldOptions]) -> None: ...
    def __init__(self, *, null: bool = False, **options: Any) -> None:
        options.setdefault("primary_key", True)
        Field.__init__(self, null=null, **options)

    @property
    def filled_by_database(self) -> bool:
        return True

    def unsupported(self, kind: str) -> str:
        model = getattr(self, "model", None)
        if kind == "sqlite" and model is not None and self.primary_key and model._meta.has_composite_key:
            return (
                "SQLite counts no part of a key of several columns: let it be the key alone, with a UniqueConstraint "
                "of it and the others; or take a BigIntegerField, and give it values"
            )
        return ""


class SmallAutoField(AutoField[T]):
    """A primary key of 16 bits that the database counts."""

    minimum = -(2**15)
    maximum = 2**15 - 1

    if TYPE_CHECKING:

        @overload
        def __init__(
            self: SmallAutoField[int], *, null: Literal[False] = False, **options: Unpack[FieldOptions]
        ) -> None: ...
        @overload
        def __init__(
            self: SmallAutoField[int | None], *, null: Literal[True], **options: Unpack[FieldOptions]
        ) -> None: ...
        def __init__(self, *, null: bool = False, **options: Any) -> None: ...

    def column_type(self) -> sqlalchemy.types.TypeEngine[Any]:
        # As for BigAutoField: a column of another type would count nothing on SQLite.
        return sqlalchemy.SmallInteger().with_variant(sqlalchemy.Integer(), "sqlite")


class BigAutoField(AutoField[T]):
    """A primary key of 64 bits that the database counts: what a model has that declares no key."""

    minimum = -(2**63)
    maximum = 2**63 - 1

    if TYPE_CHECKING:

        @overload
        def __init__(
            self: BigAutoField[int], *, null: Literal[False] = False, **options: Unpack[FieldOptions]
        ) -> None: ...
        @overload
        def __init__(
            self: BigAutoField[int | None], *, null: Literal[True], **options: Unpack[FieldOptions]
        ) -> None: ...
        def __init__(self, *, null: bool = False, **options: Any) -> None: ...

    def column_type(self) -> sqlalchemy.types.TypeEngine[Any]:
        # SQLite counts in a column of the type INTEGER alone, which holds 64 bits there.
        return sqlalchemy.BigInteger().with_variant(sqlalchemy.Integer(), "sqlite")


class FloatField(Field[T]):
    """A floating-point number of 64 bits (IEEE 754). NaN and the infinities are refused: PostgreSQL alone has them."""

    kind = "float"

    @overload
    def __init__(self: FloatField[float], *, null: Literal[False] = False, **options: Unpack[FieldOptions]) -> None: ...
    @overload
    def __init__(self: FloatField[float | None], *, null: Literal[True], **options: Unpack[FieldOptions]) -> None: ...
    def __init__(self, *, null: bool = False, **options: Any) -> None:
        Field.__init__(self, null=null, **options)

    def column_type(self) -> sqlalchemy.types.TypeEngine[Any]:
        return sqlalchemy.Double()

    def to_python(self, value: Any) -> T:
        return cast("T", self._exact(value))

    def binder(self, kind: str) -> Convert:
        slow, finite = self._exact, math.isfinite
        return lambda value: value if type(value) is float and finite(value) else slow(value)

    def loader(self, kind: str) -> Convert | None:
        return None

    def _exact(self, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float, Decimal, str)):
            raise ValueError(f"{value!r} is no number")
        try:
            number = float(value)
        except (ValueError, OverflowError):
            raise ValueError(f"{str(value)[:50]!r} is no number that a float can hold") from None
        if not math.isfinite(number):
            raise ValueError(f"{number!r} is no number that every database can hold")
        return number


class DecimalField(Field[T]):
    """A decimal number, exact.

    SQLite has no decimals: it keeps 15 digits exactly, and a table with a field of more is refused there.

    Args:
        max_digits: digits in all.
        decimal_places: digits behind the point.
    """

    kind = "decimal"

    @overload
    def __init__(
        self: DecimalField[Decimal],
        *,
        max_digits: int,
        decimal_places: int,
        null: Literal[False] = False,
        **options: Unpack[FieldOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: DecimalField[Decimal | None],
        *,
        max_digits: int,
        decimal_places: int,
        null: Literal[True],
        **options: Unpack[FieldOptions],
    ) -> None: ...
    def __init__(self, *, max_digits: int, decimal_places: int, null: bool = False, **options: Any) -> None:
        if not 0 <= decimal_places <= max_digits or max_digits < 1:
            raise ModelError(
                f"a DecimalField with max_digits={max_digits} and decimal_places={decimal_places}: at least one digit "
                "in all, and none behind the point beyond them"
            )
        self.max_digits = max_digits
        self.decimal_places = decimal_places
        self._step = Decimal((0, (1,), -decimal_places))
        self._limit = Decimal((0, (1,), max_digits - decimal_places))
        # The context of the caller may round to fewer digits than the column has.
        self._context = Context(prec=max_digits + 1, Emin=MIN_EMIN, Emax=MAX_EMAX)
        Field.__init__(self, null=null, **options)

    def column_type(self) -> sqlalchemy.types.TypeEngine[Any]:
        return sqlalchemy.Numeric(self.max_digits, self.decimal_places)

    def unsupported(self, kind: str) -> str:
        if kind == "sqlite" and self.max_digits > SQLITE_DIGITS:
            return f"SQLite keeps {SQLITE_DIGITS} digits exactly, and the field has max_digits={self.max_digits}"
        return ""

    def to_python(self, value: Any) -> T:
        return cast("T", self._exact(value))

    def binder(self, kind: str) -> Convert:
        slow, step, before = self._exact, self._step, self.max_digits - self.decimal_places

        def exact(value: Any) -> Decimal:
            # As most are: with the places of the column, and not beyond it.
            fits = type(value) is Decimal and value.same_quantum(step) and value.adjusted() < before
            return value if fits else slow(value)

        if kind != "sqlite":
            return exact
        if self.max_digits <= SQLITE_DIGITS:
            return lambda value: float(exact(value))

        def bind(value: Any) -> float:
            number = exact(value)
            if len(number.normalize(self._context).as_tuple().digits) > SQLITE_DIGITS:
                raise ValueError(f"{number} has more than the {SQLITE_DIGITS} digits that SQLite keeps exactly")
            return float(number)

        return bind

    def loader(self, kind: str) -> Convert | None:
        if kind != "sqlite":
            return None
        text = f"%.{self.decimal_places}f"
        return lambda value: Decimal(text % value)

    def _exact(self, value: Any) -> Decimal:
        if isinstance(value, float):
            value = repr(value)
        if isinstance(value, bool) or not isinstance(value, (int, Decimal, str)):
            raise ValueError(f"{value!r} is no decimal number")
        try:
            number = Decimal(value)
        except (InvalidOperation, OverflowError):
            raise ValueError(f"{str(value)[:50]!r} is no decimal number") from None
        if not number.is_finite():
            raise ValueError(f"{number} is no number that a decimal column holds")
        if number.copy_abs() >= self._limit:
            raise ValueError(
                f"{number:.6g} has more than {self.max_digits - self.decimal_places} digits before the point"
            )
        rounded = number.quantize(self._step, context=self._context)
        if rounded != number:
            raise ValueError(f"{number:.6g} has more than {self.decimal_places} digits behind the point")
        return rounded


class BooleanField(Field[T]):
    """True or false."""

    kind = "boolean"

    @overload
    def __init__(
        self: BooleanField[bool], *, null: Literal[False] = False, **options: Unpack[FieldOptions]
    ) -> None: ...
    @overload
    def __init__(self: BooleanField[bool | None], *, null: Literal[True], **options: Unpack[FieldOptions]) -> None: ...
    def __init__(self, *, null: bool = False, **options: Any) -> None:
        Field.__init__(self, null=null, **options)

    def column_type(self) -> sqlalchemy.types.TypeEngine[Any]:
        return sqlalchemy.Boolean()

    def to_python(self, value: Any) -> T:
        if value is True or value is False:
            return cast("T", value)
        if type(value) is int and value in (0, 1):
            return cast("T", bool(value))
        raise ValueError(f"{value!r} is neither true nor false")

    def loader(self, kind: str) -> Convert | None:
        return None if kind == "postgresql" else bool


def _whole(value: Any) -> int:
    """A whole number of what a caller gave."""
    if isinstance(value, bool):
        raise ValueError(f"{value!r} is no whole number")
    if isinstance(value, int):
        return int(value)
    if isinstance(value, (float, Decimal)) and math.isfinite(value):
        # Far beyond every column; a decimal may have an exponent whose digits fill the memory.
        if not -MUCH < value < MUCH:
            raise ValueError(f"{value:.6g} is out of range")
        if value == int(value):
            return int(value)
    try:
        if isinstance(value, str):
            return int(value)
    except ValueError as error:
        raise ValueError(f"{str(value)[:50]!r} is no whole number") from error
    raise ValueError(f"{str(value)[:50]!r} is no whole number")
