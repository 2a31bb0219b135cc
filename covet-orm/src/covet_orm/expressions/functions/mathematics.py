"""Functions of numbers."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy
from sqlalchemy import ColumnElement, func

from covet_orm.exceptions import QueryError
from covet_orm.expressions.functions.base import Func
from covet_orm.fields.inference import FLOAT, INTEGER, ComputedDecimal, arithmetic_field, family
from covet_orm.queries.arithmetic import as_double, calculate, rounded

if TYPE_CHECKING:
    from covet_orm.fields.base import Field
    from covet_orm.queries.scope import Scope

__all__ = [
    "ACos",
    "ASin",
    "ATan",
    "ATan2",
    "Abs",
    "Ceil",
    "Cos",
    "Cot",
    "Degrees",
    "Exp",
    "Floor",
    "Ln",
    "Log",
    "Mod",
    "Pi",
    "Power",
    "Radians",
    "Random",
    "Round",
    "Sign",
    "Sin",
    "Sqrt",
    "Tan",
]

T = TypeVar("T")


class FloatFunc(Func[float]):
    """A function of floats."""

    arity = (1, 1)
    output_field = FLOAT

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        return super().sql(scope, *(as_double(scope, argument) for argument in arguments))


class Abs(Func[T]):
    """A number without its sign."""

    function = "abs"
    arity = (1, 1)


class Sign(Func[int]):
    """-1, 0 or 1."""

    function = "sign"
    arity = (1, 1)
    output_field = INTEGER

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        signed = super().sql(scope, *arguments)
        return sqlalchemy.cast(signed, sqlalchemy.Integer()) if scope.kind == "postgresql" else signed


class Whole(Func[int]):
    """The base of what makes whole numbers."""

    arity = (1, 1)
    output_field = INTEGER

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        whole = super().sql(scope, *arguments)
        if scope.kind == "postgresql":
            return sqlalchemy.cast(whole, sqlalchemy.BigInteger())
        return sqlalchemy.cast(whole, sqlalchemy.Integer())


class Ceil(Whole):
    """The smallest whole number that is not less."""

    function = "ceil"


class Floor(Whole):
    """The largest whole number that is not more."""

    function = "floor"


class Round(Func[T]):
    """A number, rounded; a half away from zero, on every database.

    Args:
        expression: the number.
        precision: how many digits behind the point are left; below 0, how many before it become 0.
    """

    __slots__ = ("precision",)

    arity = (1, 1)

    def __init__(self, expression: Any, precision: int = 0) -> None:
        if isinstance(precision, bool) or not isinstance(precision, int) or not -30 <= precision <= 30:
            raise QueryError(f"Round(..., {precision!r}): a whole number of digits is needed")
        super().__init__(expression)
        self.precision = precision

    def options(self) -> Hashable:
        return self.precision

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        made = rounded(scope, arguments[0], self.arguments[0].output(scope), self.precision)
        if scope.kind == "postgresql":
            return sqlalchemy.cast(made, self.output(scope).column_type())
        return made

    def output(self, scope: Scope) -> Field[Any]:
        if self.field is not None:
            return self.field
        of = self.arguments[0].output(scope)
        return ComputedDecimal(max(self.precision, 0)) if family(of) == "decimal" else of


class Mod(Func[T]):
    """The remainder of a division, with the sign of the dividend."""

    arity = (2, 2)

    def build(self, scope: Scope) -> ColumnElement[Any]:
        left, right = self.arguments
        return calculate(scope, "%", left.build(scope), left.output(scope), right.build(scope), right.output(scope))

    def output(self, scope: Scope) -> Field[Any]:
        return self.field or arithmetic_field("%", *(argument.output(scope) for argument in self.arguments))


class Power(FloatFunc):
    """A number to the power of another one."""

    function = "power"
    arity = (2, 2)


class Sqrt(FloatFunc):
    """The square root."""

    function = "sqrt"


class Exp(FloatFunc):
    """e to the power of a number."""

    function = "exp"


class Ln(FloatFunc):
    """The natural logarithm."""

    function = "ln"


class Log(FloatFunc):
    """The logarithm of the second number to the base of the first."""

    arity = (2, 2)

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        base, number = (as_double(scope, argument) for argument in arguments)
        return func.ln(number).op("/", precedence=8)(func.ln(base))


class Sin(FloatFunc):
    """The sine of an angle in radians."""

    function = "sin"


class Cos(FloatFunc):
    """The cosine of an angle in radians."""

    function = "cos"


class Tan(FloatFunc):
    """The tangent of an angle in radians."""

    function = "tan"


class Cot(FloatFunc):
    """The cotangent of an angle in radians."""

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        return sqlalchemy.literal_column("1").op("/", precedence=8)(func.tan(as_double(scope, arguments[0])))


class ASin(FloatFunc):
    """The angle in radians whose sine a number is."""

    function = "asin"


class ACos(FloatFunc):
    """The angle in radians whose cosine a number is."""

    function = "acos"


class ATan(FloatFunc):
    """The angle in radians whose tangent a number is."""

    function = "atan"


class ATan2(FloatFunc):
    """The angle in radians of the point (x, y), given as y, x."""

    function = "atan2"
    arity = (2, 2)


class Degrees(FloatFunc):
    """Radians as degrees."""

    function = "degrees"


class Radians(FloatFunc):
    """Degrees as radians."""

    function = "radians"


class Pi(FloatFunc):
    """The number pi."""

    arity = (0, 0)

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        return as_double(scope, func.pi())


class Random(FloatFunc):
    """A random number from 0 up to 1, a new one for each row: `order_by(Random())`. Not for secrets."""

    arity = (0, 0)

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        if scope.kind == "sqlite":
            # It gives 64 bits with their sign, of which 53 fit into a float.
            bits = func.random().op("&", precedence=6)(sqlalchemy.literal_column("9007199254740991"))
            return bits.op("/", precedence=8)(sqlalchemy.literal_column("9007199254740992.0"))
        return func.rand() if scope.kind in ("mysql", "mariadb") else func.random()
