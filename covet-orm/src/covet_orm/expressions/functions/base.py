"""What every function of SQL derives from."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from covet_orm.deferred import sqlalchemy
from covet_orm.exceptions import QueryError
from covet_orm.expressions.base import Add, Expression, field_key, is_null, named_expression
from covet_orm.fields.inference import common_field

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

    from covet_orm.fields.base import Field
    from covet_orm.queries.scope import Scope

__all__ = ["Func"]

T = TypeVar("T")


class Func(Expression[T]):
    """A function of SQL. One of your own derives from it:

        class Soundex(Func[str]):
            function = "soundex"
            arity = (1, 1)
            output_field = CharField(max_length=4)

    Where databases differ, override `sql`. What else than its arguments the SQL depends on goes into `options`.

    Args:
        arguments: expressions, names of fields, or values. A text is a name; `Value("text")` is a text.
        output_field: the field of the result; that of the class, or of the arguments, by default.

    Attributes:
        function: the name of the function in SQL.
        arity: the least and the most arguments that it takes; no most one with None.
        output_field: the field of the result; None for that of the arguments.

    Raises:
        QueryError: too few arguments, or too many.
    """

    __slots__ = ("arguments", "field")

    function: ClassVar[str] = ""
    arity: ClassVar[tuple[int, int | None]] = (0, None)
    output_field: ClassVar[Field[Any] | None] = None

    def __init__(self, *arguments: Any, output_field: Field[Any] | None = None) -> None:
        least, most = self.arity
        if len(arguments) < least or (most is not None and len(arguments) > most):
            wanted = f"{least}" if least == most else f"{least} or more" if most is None else f"{least} to {most}"
            raise QueryError(f"{type(self).__name__} takes {wanted} arguments, not {len(arguments)}")
        self.arguments: tuple[Expression[Any], ...] = tuple(named_expression(argument) for argument in arguments)
        self.field = output_field

    def options(self) -> Hashable:
        """What the SQL depends on besides the arguments."""
        return None

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        """The SQL of the function, of its arguments; `scope.kind` says for which database."""
        if not self.function:
            raise QueryError(
                f"{type(self).__name__} does not say which function it is: give `function`, or override sql()"
            )
        called: ColumnElement[Any] = getattr(sqlalchemy.func, self.function)(*arguments)
        return called

    def parts(self) -> Iterable[Expression[Any]]:
        return self.arguments

    def replaced(self, parts: Sequence[Expression[Any]]) -> Expression[Any]:
        made = self.copied()
        made.arguments = tuple(parts)
        return made

    def copied(self) -> Self:
        """The same once more, for `replaced` to change."""
        made = object.__new__(type(self))
        for kind in type(self).__mro__:
            for name in getattr(kind, "__slots__", ()):
                if hasattr(self, name):
                    setattr(made, name, getattr(self, name))
        if hasattr(self, "__dict__"):
            made.__dict__.update(self.__dict__)
        return made

    def shape(self, key: Add, values: Add) -> None:
        key((type(self), len(self.arguments), self.options(), None if self.field is None else field_key(self.field)))
        for argument in self.arguments:
            argument.shape(key, values)

    def build(self, scope: Scope) -> ColumnElement[Any]:
        built = [argument.build(scope) for argument in self.arguments]
        return sqlalchemy.type_coerce(self.sql(scope, *built), self.output(scope).column_type())

    def output(self, scope: Scope) -> Field[Any]:
        if self.field is not None:
            return self.field
        if self.output_field is not None:
            return self.output_field
        return common_field(argument.output(scope) for argument in self.arguments if not is_null(argument))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.arguments))})"
