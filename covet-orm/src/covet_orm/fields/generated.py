"""The field of a column that the database computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

from covet_orm.deferred import sqlalchemy
from covet_orm.exceptions import ModelError
from covet_orm.expressions.base import Expression
from covet_orm.fields.base import Convert, Field

if TYPE_CHECKING:
    from covet_orm.models.instances import Model

__all__ = ["GeneratedField"]

T = TypeVar("T")


class GeneratedField(Field[T]):
    """A value that the database computes of other columns of the row, whenever it is written.

        class Line(Model):
            price = IntegerField()
            count = IntegerField()
            total = GeneratedField(F("price") * F("count"), IntegerField())

    An object takes no value for it. It has one after it was read or inserted; after an update of other fields it has to
    be read again, `await line.refresh_from_db("total")`, and says so.

    Args:
        expression: what is computed, of columns of the same row.
        output: the field of its type.
        stored: whether it is kept in the row (PostgreSQL before version 18 has no others), or computed when it is read.
        db_index, unique, db_column, comment: as of every field.
    """

    def __init__(
        self,
        expression: Expression[Any],
        output: Field[T],
        *,
        stored: bool = True,
        unique: bool = False,
        db_index: bool = False,
        db_column: str | None = None,
        comment: str | None = None,
    ) -> None:
        if not isinstance(expression, Expression):
            raise ModelError(
                f"GeneratedField({expression!r}): an expression is needed, such as F('price') * F('count')"
            )
        if not isinstance(output, Field) or output.generated or not output.column_is_there:
            raise ModelError("GeneratedField(..., output) needs the field of its type, such as IntegerField()")
        self.expression = expression
        self.output = output
        self.stored = stored
        Field.__init__(self, null=True, unique=unique, db_index=db_index, db_column=db_column, comment=comment)

    @property
    def generated(self) -> bool:
        return True

    def contribute(self, model: type[Model], name: str) -> None:
        super().contribute(model, name)
        self.output.contribute(model, name)

    def clone(self) -> Field[T]:
        other = cast("GeneratedField[T]", super().clone())
        other.output = self.output.clone()
        return other

    def column_type(self) -> sqlalchemy.types.TypeEngine[Any]:
        return self.output.column_type()

    def to_python(self, value: Any) -> T:
        return self.output.to_python(value)

    def binder(self, kind: str) -> Convert:
        return self.output.binder(kind)

    def loader(self, kind: str) -> Convert | None:
        return self.output.loader(kind)

    def unsupported(self, kind: str) -> str:
        return self.output.unsupported(kind)

    def transform(self, name: str) -> Any:
        return self.output.transform(name)

    def lookup(self, name: str) -> Any:
        return self.output.lookup(name)

    def computed(self) -> sqlalchemy.Computed | None:
        from covet_orm.models.definitions import DefinedExpression

        return sqlalchemy.Computed(DefinedExpression(self.expression, self.model), persisted=self.stored)
