"""Conditional expressions: `Case(When(age__lt=18, then=Value("child")), default=Value("adult"))`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from covet_orm.deferred import sqlalchemy
from covet_orm.exceptions import QueryError
from covet_orm.expressions.base import Add, Expression, as_expression, field_key, is_null
from covet_orm.expressions.conditions import Condition, Q
from covet_orm.fields.base import Declared
from covet_orm.fields.inference import common_field

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

    from covet_orm.fields.base import Field
    from covet_orm.queries.scope import Scope

__all__ = ["Case", "When"]


class When(Expression[Any]):
    """A branch of a Case.

    Args:
        conditions: when it is taken.
        then: the value of the Case then: an expression or a plain value; a text is a text.
        lookups: further conditions, by keyword.

    Raises:
        QueryError: it has no condition.
    """

    __slots__ = ("condition", "then")

    def __init__(self, *conditions: Condition, then: Any, **lookups: Any) -> None:
        if not conditions and not lookups:
            raise QueryError("When(then=...) has no condition; what is left over is the default of the Case")
        self.condition: Condition = conditions[0] if len(conditions) == 1 and not lookups else Q(*conditions, **lookups)
        if not isinstance(self.condition, Condition):
            raise QueryError(f"When({self.condition!r}): a condition is needed")
        self.then = as_expression(then)

    @property
    def declared(self) -> Declared:
        return Declared((self.condition,), {"then": self.then})

    def parts(self) -> Iterable[Expression[Any]]:
        return (self.condition, self.then)

    def replaced(self, parts: Sequence[Expression[Any]]) -> Expression[Any]:
        condition = parts[0]
        assert isinstance(condition, Condition)
        return When(condition, then=parts[1])

    def shape(self, key: Add, values: Add) -> None:
        key("when")
        self.condition.shape(key, values)
        self.then.shape(key, values)

    def build(self, scope: Scope) -> ColumnElement[Any]:
        raise QueryError(f"{self!r} stands in a Case alone")

    def output(self, scope: Scope) -> Field[Any]:
        return self.then.output(scope)

    def __repr__(self) -> str:
        return f"When({self.condition!r}, then={self.then!r})"


class Case(Expression[Any]):
    """The value of the first branch whose condition holds.

    Args:
        branches: the branches.
        default: the value where none holds; NULL by default.
        output_field: the field of the result; known from the branches.

    Raises:
        QueryError: something else than a When was given.
    """

    __slots__ = ("branches", "default", "field")

    def __init__(self, *branches: When, default: Any = None, output_field: Field[Any] | None = None) -> None:
        for branch in branches:
            if not isinstance(branch, When):
                raise QueryError(f"Case({branch!r}): its branches are When(condition, then=...)")
        self.branches: tuple[When, ...] = branches
        self.default = as_expression(default)
        self.field = output_field

    def parts(self) -> Iterable[Expression[Any]]:
        return (*self.branches, self.default)

    def replaced(self, parts: Sequence[Expression[Any]]) -> Expression[Any]:
        branches = [part for part in parts[:-1] if isinstance(part, When)]
        return Case(*branches, default=parts[-1], output_field=self.field)

    def shape(self, key: Add, values: Add) -> None:
        key(("case", len(self.branches), None if self.field is None else field_key(self.field)))
        for branch in self.branches:
            branch.shape(key, values)
        self.default.shape(key, values)

    def build(self, scope: Scope) -> ColumnElement[Any]:
        branches = [(branch.condition.build(scope), branch.then.build(scope)) for branch in self.branches]
        default = self.default.build(scope)
        return sqlalchemy.case(*branches, else_=default) if branches else default

    def output(self, scope: Scope) -> Field[Any]:
        if self.field is not None:
            return self.field
        values = [*(branch.then for branch in self.branches), self.default]
        return common_field(value.output(scope) for value in values if not is_null(value))

    def __repr__(self) -> str:
        return f"Case({', '.join(map(repr, self.branches))}, default={self.default!r})"
