"""The scope of one SELECT while it is compiled: its tables, its joins, its names and its parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import BindParameter, ColumnElement, FromClause

from covet_orm.exceptions import FieldError, QueryError
from covet_orm.queries.differences import DIFFERENCES, Differences
from covet_orm.queries.comparisons import KeywordComparison, RelatedCondition, find_comparison

if TYPE_CHECKING:
    from covet_orm.expressions.base import Expression
    from covet_orm.expressions.conditions import Condition
    from covet_orm.fields.base import Convert, Field
    from covet_orm.models.options import Options
    from covet_orm.models.relations import Relation

__all__ = ["Parameters", "Scope"]

Steps = tuple[str, ...]


class Parameters:
    """The parameters of a statement, in the order in which its parts ask for them."""

    def __init__(self) -> None:
        self.binders: list[Convert] = []
        self.fields: list[Field[Any] | None] = []

    def spread(self, field: Field[Any], kind: str, size: int) -> list[BindParameter[Any]]:
        """Several parameters for one value, a list of at most `size`."""
        number = len(self.binders)
        bind = field.binder(kind)

        def bind_all(values: list[Any]) -> list[Any]:
            bound = [bind(value) for value in values]
            return bound + bound[-1:] * (size - len(bound))

        self.binders.append(bind_all)
        self.fields.append(field)
        column_type = field.column_type()
        return [sqlalchemy.bindparam(f"p{number}_{index}", type_=column_type) for index in range(size)]

    def add(self, field: Field[Any], kind: str, *, array: bool = False) -> BindParameter[Any]:
        """One more parameter, of the type of a field."""
        name = f"p{len(self.binders)}"
        bind = field.binder(kind)
        column_type: Any = field.column_type()
        if array:
            each = bind
            bind = lambda values: [None if value is None else each(value) for value in values]  # noqa: E731
            column_type = sqlalchemy.ARRAY(column_type)
        self.binders.append(bind)
        self.fields.append(field)
        return sqlalchemy.bindparam(name, type_=column_type, unique=False)


class Scope:
    """The scope of one SELECT.

    Args:
        options: the model that it begins with.
        kind: the database's.
        outer: the scope around that of a subquery.
        annotations: what names stand for expressions.
    """

    def __init__(
        self,
        options: Options,
        kind: str,
        *,
        outer: Scope | None = None,
        annotations: Mapping[str, Expression[Any]] | None = None,
    ) -> None:
        self.options = options
        self.kind = kind
        self.outer = outer
        self.parameters: Parameters = outer.parameters if outer is not None else Parameters()
        self.annotations = annotations if annotations is not None else {}
        table = options.model.__table__
        self.root: FromClause = table.alias() if outer is not None else table
        self.joins: dict[Steps, FromClause] = {(): self.root}
        self.join_order: list[tuple[Steps, FromClause, ColumnElement[bool]]] = []
        # Annotations that were built; within one statement an annotation has its parameters once.
        self.built: dict[str, tuple[ColumnElement[Any], Field[Any]]] = {}

    def parameter(self, field: Field[Any], *, array: bool = False) -> BindParameter[Any]:
        """The next parameter, converted as the values of a field are; with `array`, a list of them (PostgreSQL)."""
        return self.parameters.add(field, self.kind, array=array)

    def spread(self, field: Field[Any], size: int) -> list[BindParameter[Any]]:
        """`size` parameters for one list of values; where it is shorter, its last value is repeated."""
        return self.parameters.spread(field, self.kind, size)

    @property
    def dialect(self) -> Differences:
        """What databases write differently."""
        return DIFFERENCES[self.kind]

    def resolve(self, name: str) -> tuple[ColumnElement[Any], Field[Any]]:
        """What a name stands for: an annotation, or a field, whose relations are joined.

        Raises:
            FieldError: nothing has that name.
        """
        if name in self.annotations:
            found = self.built.get(name)
            if found is None:
                raise QueryError(f"the annotation {name!r} is used before it is there")
            return found
        path = self.options.path(name)
        column = self.column(path.relations, path.field)
        if path.rest:
            from covet_orm.queries.lookups import transformed

            return transformed(self, column, path.field, path.rest, name)
        return column, path.field

    def resolve_field(self, field: Field[Any]) -> ColumnElement[Any]:
        """A field by itself: one of this model, which the model may have from its parent.

        Raises:
            FieldError: it is another model's.
        """
        own = self.options.by_name.get(field.name)
        if own is not field:
            raise FieldError(
                f"{field!r} is no field of {self.options.model.__name__}; across a relation, name it by its path, as in "
                f"F('relation__{field.name}')"
            )
        return self.column((), field)

    def column(self, relations: Sequence[Relation], field: Field[Any]) -> ColumnElement[Any]:
        """The column of a field at the end of relations, which are joined."""
        table = self.join(relations)
        steps = tuple(relation.name for relation in relations)
        holder = relations[-1].target if relations else self.options.model
        return self._own_table(table, steps, holder, field).c[field.column]

    def join(self, relations: Sequence[Relation]) -> FromClause:
        """The table at the end of relations, joined once for each path."""
        steps: Steps = ()
        for relation in relations:
            before, steps = steps, (*steps, relation.name)
            if steps in self.joins:
                continue
            table, holder = self.joins[before], relation.source
            for number, hop in enumerate(relation.hops):
                source = self._own_table(table, before, holder, hop.local[0])
                last = number == len(relation.hops) - 1
                target = hop.target.__table__.alias()
                self._add(steps if last else (*steps, "through"), target, source, hop.local, hop.remote)
                table, before, holder = target, (*steps, "through"), hop.target
        return self.joins[steps]

    def comparisons(self, lookups: Mapping[str, Any]) -> list[Condition]:
        """Conditions of keywords. Those across one relation to many concern the same object there."""
        plain: list[Condition] = []
        grouped: dict[tuple[Relation, ...], list[Condition]] = {}
        for name, value in lookups.items():
            found = find_comparison(self.options, name)
            condition = KeywordComparison(found, value)
            if found.many:
                grouped.setdefault(found.many, []).append(condition)
            else:
                plain.append(condition)
        return [*plain, *(RelatedCondition(relations, conditions) for relations, conditions in grouped.items())]

    def surrounding(self, what: object) -> Scope:
        """The scope around this one.

        Raises:
            QueryError: this is no subquery.
        """
        if self.outer is None:
            raise QueryError(f"{what!r} stands in a query that is no subquery: there is no outer query to refer to")
        return self.outer

    def from_clause(self) -> FromClause:
        """The tables, with what was joined."""
        clause = self.root
        for _, table, condition in self.join_order:
            clause = clause.outerjoin(table, condition)
        return clause

    def _own_table(self, table: FromClause, steps: Steps, holder: Any, field: Field[Any]) -> FromClause:
        """The table that has a field's column: that of a parent, joined, where the model inherits the field."""
        while field.model is not holder and not holder._meta.proxy:
            link = holder._meta.parent_link
            if link is None:
                break
            steps = (*steps, f"^{link.name}")
            parent = link.target
            if steps not in self.joins:
                target = parent.__table__.alias()
                self._add(steps, target, table, (link,), (link.remote,))
            table, holder = self.joins[steps], parent
        return table

    def _add(
        self,
        steps: Steps,
        target: FromClause,
        source: FromClause,
        local: Sequence[Field[Any]],
        remote: Sequence[Field[Any]],
    ) -> None:
        condition = sqlalchemy.and_(
            *(source.c[a.column] == target.c[b.column] for a, b in zip(local, remote, strict=True))
        )
        self.joins[steps] = target
        self.join_order.append((steps, target, condition))
