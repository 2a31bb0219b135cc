"""References: names in a query, by text (`F("author__name")`) or by the model's own attribute (`Book.title`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from covet_orm.expressions.base import Add, Expression
from covet_orm.expressions.conditions import Condition

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

    from covet_orm.fields.base import Field
    from covet_orm.queries.scope import Scope

__all__ = ["ColumnReference", "F", "OuterRef"]

T = TypeVar("T")


class F(Expression[Any]):
    """A field, an annotation, or a field across relations, by name: `F("author__age")`."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def shape(self, key: Add, values: Add) -> None:
        key(("F", self.name))

    def build(self, scope: Scope) -> ColumnElement[Any]:
        return scope.resolve(self.name)[0]

    def output(self, scope: Scope) -> Field[Any]:
        return scope.field(self.name)

    def __repr__(self) -> str:
        return f"F({self.name!r})"


class ColumnReference(Expression[T]):
    """A field by its model's attribute: what `User.age` is. Its type is that of the field's values.

    Attributes:
        field: the field.
    """

    __slots__ = ("field",)

    def __init__(self, field: Field[Any]) -> None:
        self.field = field

    def shape(self, key: Add, values: Add) -> None:
        key(self.field)

    def build(self, scope: Scope) -> ColumnElement[Any]:
        return scope.resolve_field(self.field)

    def output(self, scope: Scope) -> Field[Any]:
        return self.field

    def contains(self, value: Any) -> Condition:
        """Whether it contains a text; whether JSON contains a value, an array its elements."""
        return self._compare("contains", value)

    def startswith(self, text: str) -> Condition:
        """Whether it begins with a text."""
        return self._compare("startswith", text)

    def endswith(self, text: str) -> Condition:
        """Whether it ends with a text."""
        return self._compare("endswith", text)

    def _compare(self, lookup: str, value: Any) -> Condition:
        from covet_orm.expressions.conditions import Comparison
        from covet_orm.queries.lookup_names import lookup_of

        return Comparison(self, lookup_of(self.field, lookup), value)

    def __repr__(self) -> str:
        return f"{self.field.model.__name__}.{self.field.name}"


class OuterRef(Expression[Any]):
    """Inside of a subquery, a name of the query around it; `OuterRef(OuterRef("pk"))` of the one around that.

    Raises:
        QueryError: when it is compiled: there is no query around.
    """

    __slots__ = ("name",)

    def __init__(self, name: str | OuterRef) -> None:
        self.name = name

    def shape(self, key: Add, values: Add) -> None:
        if isinstance(self.name, OuterRef):
            key("OuterRef of")
            self.name.shape(key, values)
        else:
            key(("OuterRef", self.name))

    def build(self, scope: Scope) -> ColumnElement[Any]:
        around = scope.surrounding(self)
        return self.name.build(around) if isinstance(self.name, OuterRef) else around.resolve(self.name)[0]

    def output(self, scope: Scope) -> Field[Any]:
        around = scope.surrounding(self)
        return self.name.output(around) if isinstance(self.name, OuterRef) else around.field(self.name)

    def __repr__(self) -> str:
        return f"OuterRef({self.name!r})"
