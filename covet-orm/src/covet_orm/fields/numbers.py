"""Fields of numbers: integers, floats, decimals, booleans, and keys that the database counts."""

from __future__ import annotations

import math
from decimal import Decimal, InvalidOperation
from typing import Any, ClassVar, Literal, TypeVar, Unpack, overload

import sqlalchemy

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
        super().__init__(null=null, **options)

    def column_type(self) -> sqlalchemy.types.TypeEngine[Any]:
        return sqlalchemy.Integer()

    def to_python(self, value: Any) -> T:
        whole = _whole(value)
        if not self.minimum <= whole <= self.maximum:
            raise ValueError(f"{whole} is out of range: it holds {self.minimum} to {self.maximum}")
        return whole  # type: ignore[return-value]

    def binder(self, kind: str) -> Convert:
        lowest, highest, slow = self.minimum, self.maximum, self.to_python

        def bind(value: Any) -> Any:
            return value if type(value) is int and lowest <= value <= highest else slow(value)

        return bind


class SmallIntegerField(IntegerField[T]):
    """A whole number of 16 bits, with its sign."""

    minimum = -(2**15)
    maximum = 2**15 - 1

    def column_type(self) -> sqlalchemy.types.TypeEngine[Any]:
        return sqlalchemy.SmallInteger()


class BigIntegerField(IntegerField[T]):
    """A whole number of 64 bits, with its sign."""

    minimum = -(2**63)
    maximum = 2**63 - 1

    def column_type(self) -> sqlalchemy.types.TypeEngine[Any]:
        return sqlalchemy.BigInteger()


class PositiveIntegerField(IntegerField[T]):
    """A whole number of 31 bits, not below zero."""

    minimum = 0


class PositiveSmallIntegerField(SmallIntegerField[T]):
    """A whole number of 15 bits, not below zero."""

    minimum = 0


class PositiveBigIntegerField(BigIntegerField[T]):
    """A whole number of 63 bits, not below zero."""

    minimum = 0


class AutoField(IntegerField[T]):
    """A primary key of 32 bits that the database counts."""

    @overload
    def __init__(self: AutoField[int], *, null: Literal[False] = False, **options: Unpack[FieldOptions]) -> None: ...
    @overload
    def __init__(self: AutoField[int | None], *, null: Literal[True], **options: Unpack[FieldOptions]) -> None: ...
    def __init__(self, *, null: bool = False, **options: Any) -> None:
        options.setdefault("primary_key", True)
        super().__init__(null=null, **options)

    @property
    def filled_by_database(self) -> bool:
        return True


class SmallAutoField(AutoField[T]):
    """A primary key of 16 bits that the database counts."""

    minimum = -(2**15)
    maximum = 2**15 - 1

    def column_type(self) -> sqlalchemy.types.TypeEngine[Any]:
        return sqlalchemy.SmallInteger()


class BigAutoField(AutoField[T]):
    """A primary key of 64 bits that the database counts: what a model has that declares no key."""

    minimum = -(2**63)
    maximum = 2**63 - 1

    def column_type(self) -> sqlalchemy.types.TypeEngine[Any]:
        # SQLite counts in a column of the type INTEGER alone, which holds 64 bits there.
        return sqlalchemy.BigInteger().with_variant(sqlalchemy.Integer(), "sqlite")


class FloatField(Field[T]):
    """A floating-point number of 64 bits (IEEE 754); NaN and the infinities where the database has them (PostgreSQL)."""

    kind = "float"

    @overload
    def __init__(self: FloatField[float], *, null: Literal[False] = False, **options: Unpack[FieldOptions]) -> None: ...
    @overload
    def __init__(self: FloatField[float | None], *, null: Literal[True], **options: Unpack[FieldOptions]) -> None: ...
    def __init__(self, *, null: bool = False, **options: Any) -> None:
        super().__init__(null=null, **options)

    def column_type(self) -> sqlalchemy.types.TypeEngine[Any]:
        return sqlalchemy.Double()

    def to_python(self, value: Any) -> T:
        if isinstance(value, bool) or not isinstance(value, (int, float, Decimal, str)):
            raise ValueError(f"{value!r} is no number")
        try:
            return float(value)  # type: ignore[return-value]
        except (ValueError, OverflowError):
            raise ValueError(f"{value!r} is no number that a float can hold") from None

    def binder(self, kind: str) -> Convert:
        slow, anything = self.to_python, kind == "postgresql"

        def bind(value: Any) -> Any:
            number = value if type(value) is float else slow(value)
            if not anything and not math.isfinite(number):  # type: ignore[arg-type]
                raise ValueError(f"{number!r} cannot be stored: only PostgreSQL keeps what is not finite")
            return number

        return bind


class DecimalField(Field[T]):
    """A decimal number, exact.

    SQLite has no decimals: it keeps 15 digits exactly, and a field with more is refused there.

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
        self._step = Decimal(1).scaleb(-decimal_places)
        self._limit = Decimal(10) ** (max_digits - decimal_places)
        super().__init__(null=null, **options)

    def column_type(self) -> sqlalchemy.types.TypeEngine[Any]:
        return sqlalchemy.Numeric(self.max_digits, self.decimal_places)

    def to_python(self, value: Any) -> T:
        if isinstance(value, float):
            value = repr(value)
        if isinstance(value, bool) or not isinstance(value, (int, Decimal, str)):
            raise ValueError(f"{value!r} is no decimal number")
        try:
            number = Decimal(value)
        except InvalidOperation:
            raise ValueError(f"{value!r} is no decimal number") from None
        if not number.is_finite():
            raise ValueError(f"{number} is no number that a decimal column holds")
        if abs(number) >= self._limit:
            raise ValueError(f"{number} has more than {self.max_digits - self.decimal_places} digits before the point")
        exponent = number.as_tuple().exponent
        if isinstance(exponent, int) and -exponent > self.decimal_places and number != number.quantize(self._step):
            raise ValueError(f"{number} has more than {self.decimal_places} digits behind the point")
        return number.quantize(self._step)  # type: ignore[return-value]

    def binder(self, kind: str) -> Convert:
        if kind != "sqlite":
            return self.to_python
        if self.max_digits > 15:
            digits = self.max_digits

            def refuse(value: Any) -> Any:
                raise ValueError(f"SQLite keeps 15 digits exactly, and this field has {digits}")

            return refuse
        exact = self.to_python

        def bind(value: Any) -> Any:
            return float(exact(value))  # type: ignore[arg-type]

        return bind

    def loader(self, kind: str) -> Convert | None:
        if kind != "sqlite":
            return None
        places = self.decimal_places

        def load(value: Any) -> Any:
            return Decimal(f"{value:.{places}f}")

        return load


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
        super().__init__(null=null, **options)

    def column_type(self) -> sqlalchemy.types.TypeEngine[Any]:
        return sqlalchemy.Boolean()

    def to_python(self, value: Any) -> T:
        if value is True or value is False:
            return value  # type: ignore[return-value]
        if type(value) is int and value in (0, 1):
            return bool(value)  # type: ignore[return-value]
        raise ValueError(f"{value!r} is neither true nor false")

    def loader(self, kind: str) -> Convert | None:
        return None if kind == "postgresql" else bool


def _whole(value: Any) -> int:
    """A whole number of what a caller gave."""
    if isinstance(value, bool):
        raise ValueError(f"{value!r} is no whole number")
    if isinstance(value, int):
        return int(value)
    if isinstance(value, (float, Decimal)) and value == value // 1:
        return int(value)
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            pass
    raise ValueError(f"{value!r} is no whole number")
