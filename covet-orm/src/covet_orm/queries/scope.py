"""The scope of one SELECT while it is compiled: its tables, its joins, its names and its parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import BindParameter, ColumnElement, FromClause, Select

from covet_orm.exceptions import FieldError, QueryError
from covet_orm.queries.differences import DIFFERENCES, Differences
from covet_orm.queries.names import annotation_in

if TYPE_CHECKING:
    from covet_orm.expressions.base import Expression
    from covet_orm.fields.base import Convert, Field
    from covet_orm.models.options import Options
    from covet_orm.models.relations import Relation

__all__ = ["DerivedScope", "Parameters", "RelatedScope", "Scope"]

Steps = tuple[str, ...]


class Parameters:
    """The parameters of a statement, in the order in which its parts ask for them."""

    def __init__(self) -> None:
        self.binders: list[Convert] = []
        self.fields: list[Field[Any] | None] = []
        # The common table expressions of the statement that were built.
        self.tables: dict[Any, Any] = {}

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
        parameters: those of the statement that this one is a part of, where it is no subquery.

    Attributes:
        grouped: whether the query groups its rows, so that an aggregate stands for those of a group.
        row_chain: the relations to many whose joined rows an aggregate that is being built counts: conditions across
            them are of those rows, not of the existence of one.
    """

    def __init__(
        self,
        options: Options,
        kind: str,
        *,
        outer: Scope | None = None,
        annotations: Mapping[str, Expression[Any]] | None = None,
        parameters: Parameters | None = None,
    ) -> None:
        self.options = options
        self.kind = kind
        self.outer = outer
        self.parameters: Parameters = parameters or (outer.parameters if outer is not None else Parameters())
        self.annotations = annotations if annotations is not None else {}
        self.grouped = False
        self.row_chain: tuple[Relation, ...] = ()
        self.holder: Any = options.model
        table = options.model.__table__
        self.root: FromClause = table.alias() if outer is not None else table
        self.joins: dict[Steps, FromClause] = {(): self.root}
        self.join_order: list[tuple[Steps, FromClause, ColumnElement[bool], bool]] = []
        self.tables: dict[Any, FromClause] = {}
        # The conditions of relations that have one, of the table that is joined.
        self.filtered: dict[str, Callable[[FromClause], ColumnElement[bool]]] = {}
        # The paths that may lead to nothing.
        self._optional: set[Steps] = set()
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
        annotation = annotation_in(self.annotations, name) if self.annotations else None
        if annotation is not None:
            found = self.built.get(annotation)
            if found is None:
                raise QueryError(f"the annotation {annotation!r} is used before it is there")
            column, field = found
            rest: Sequence[str] = name[len(annotation) + 2 :].split("__") if annotation != name else ()
        else:
            path = self.options.path(name)
            column, field, rest = self.column(path.relations, path.field), path.field, path.rest
        if rest:
            from covet_orm.queries.lookup_names import transformed

            return transformed(self, column, field, rest, name)
        return column, field

    def field(self, name: str) -> Field[Any]:
        """The field of what a name stands for; nothing is joined.

        Raises:
            FieldError: nothing has that name.
        """
        annotation = annotation_in(self.annotations, name) if self.annotations else None
        if annotation is not None:
            built = self.built.get(annotation)
            field = built[1] if built is not None else self.annotations[annotation].output(self)
            rest: Sequence[str] = name[len(annotation) + 2 :].split("__") if annotation != name else ()
        else:
            path = self.options.path(name)
            field, rest = path.field, path.rest
        if rest:
            from covet_orm.queries.lookup_names import transformed_field

            return transformed_field(field, rest, name)
        return field

    def resolve_field(self, field: Field[Any]) -> ColumnElement[Any]:
        """A field by itself: one of this model, which the model may have from its parent.

        Raises:
            FieldError: it is another model's.
        """
        own = self.options.by_name.get(field.name)
        if own is not field:
            raise FieldError(
                f"{field!r} is no field of {self.options.model.__name__}; across a relation, name it by its path, as "
                "in "
                f"F('relation__{field.name}')"
            )
        return self.column((), field)

    def column(self, relations: Sequence[Relation], field: Field[Any]) -> ColumnElement[Any]:
        """The column of a field at the end of relations, which are joined."""
        table = self.join(relations)
        steps = tuple(relation.name for relation in relations)
        holder = relations[-1].target if relations else self.holder
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
                there = before not in self._optional and _always_there(relation) and relation.name not in self.filtered
                self._add(steps if last else (*steps, "through"), target, source, hop.local, hop.remote, there=there)
                if last and len(steps) == 1 and relation.name in self.filtered:
                    *others, (_, _, condition, _) = self.join_order
                    condition = sqlalchemy.and_(condition, self.filtered[relation.name](target))
                    self.join_order = [*others, (steps, target, condition, False)]
                table, before, holder = target, (*steps, "through"), hop.target
        return self.joins[steps]

    def join_link(self, near: Field[Any], far: Field[Any]) -> FromClause:
        """The table of a many-to-many relation that leads here, by its two foreign keys; joined once.

        Args:
            near: the one that refers to where the relation comes from.
            far: the one that refers to this model.
        """
        steps: Steps = (f"^{near.name}^{far.name}",)
        if steps not in self.joins:
            remote: Field[Any] = far.remote  # type: ignore[attr-defined]
            source = self._own_table(self.root, (), self.holder, remote)
            self._add(steps, near.model.__table__.alias(), source, (remote,), (far,))
        return self.joins[steps]

    def covers(self, relations: tuple[Relation, ...]) -> bool:
        """Whether the rows of this scope are those at the end of relations to many, so that conditions are of them."""
        return self.row_chain[: len(relations)] == relations

    def join_table(self, table: FromClause, condition: ColumnElement[bool], *, there: bool) -> None:
        """Join a table that is none of a model: a common table expression."""
        steps: Steps = (f"^{len(self.join_order)}",)
        self.joins[steps] = table
        self.join_order.append((steps, table, condition, there))

    def joined_table(self, key: Any) -> FromClause | None:
        """The table of a common table expression that this query joined, or one around it; None where none did."""
        found: FromClause | None = self.tables.get(key)
        if found is None and self.outer is not None:
            return self.outer.joined_table(key)
        return found

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
        for _, table, condition, there in self.join_order:
            clause = clause.join(table, condition, isouter=not there)
        return clause

    def _own_table(self, table: FromClause, steps: Steps, holder: Any, field: Field[Any]) -> FromClause:
        """The table that has a field's column: that of a parent, joined, where the model inherits the field."""
        holder = holder._meta.concrete
        while field.model is not holder:
            link = holder._meta.parent_link
            if link is None:
                break
            steps = (*steps, f"^{link.name}")
            parent = link.target
            if steps not in self.joins:
                target = parent.__table__.alias()
                there = steps[:-1] not in self._optional
                self._add(steps, target, table, (link,), (link.remote,), there=there)
            table, holder = self.joins[steps], parent._meta.concrete
        return table

    def _add(
        self,
        steps: Steps,
        target: FromClause,
        source: FromClause,
        local: Sequence[Field[Any]],
        remote: Sequence[Field[Any]],
        *,
        there: bool = False,
    ) -> None:
        condition = sqlalchemy.and_(
            *(source.c[a.column] == target.c[b.column] for a, b in zip(local, remote, strict=True))
        )
        self.joins[steps] = target
        if not there:
            self._optional.add(steps)
        self.join_order.append((steps, target, condition, there))


class RelatedScope(Scope):
    """The scope of a subquery of the objects that relations lead to, the last of them to many.

    Names are those of the query around it. Those that begin with the relations are columns of the objects here; all
    others, annotations included, are of the row out there.

    Args:
        relations: from the model of the query on.
        outer: the scope around it.
    """

    def __init__(self, relations: tuple[Relation, ...], outer: Scope) -> None:
        super().__init__(outer.options, outer.kind, outer=outer)
        self.relations = relations
        self.annotations = outer.annotations
        self.built = outer.built
        self.filtered = outer.filtered
        self.row_chain = relations
        last = relations[-1]
        self.holder = last.target
        self.root = last.target.__table__.alias()
        self.joins = {(): self.root}
        self.through: list[FromClause] = []
        first = last.hops[0]
        near: FromClause | None = None
        self.links: list[ColumnElement[bool]] = []
        if len(last.hops) == 2:
            near = first.target.__table__.alias()
            self.through = [near]
            second = last.hops[1]
            self.links = [
                near.c[a.column] == super(RelatedScope, self).column((), b)
                for a, b in zip(second.local, second.remote, strict=True)
            ]
        if len(relations) == 1 and last.name in outer.filtered:
            self.links.append(outer.filtered[last.name](self.root))
        for here, there in zip(first.local, first.remote, strict=True):
            inner = super().column((), there) if near is None else near.c[there.column]
            self.links.append(outer.column(relations[:-1], here) == inner)

    def column(self, relations: Sequence[Relation], field: Field[Any]) -> ColumnElement[Any]:
        if tuple(relations[: len(self.relations)]) == self.relations:
            return super().column(relations[len(self.relations) :], field)
        assert self.outer is not None
        return self.outer.column(relations, field)

    def resolve_field(self, field: Field[Any]) -> ColumnElement[Any]:
        assert self.outer is not None
        return self.outer.resolve_field(field)

    def surrounding(self, what: object) -> Scope:
        assert self.outer is not None
        return self.outer.surrounding(what)

    def covers(self, relations: tuple[Relation, ...]) -> bool:
        assert self.outer is not None
        return super().covers(relations) or self.outer.covers(relations)

    def exists(self, condition: ColumnElement[Any] | None) -> ColumnElement[bool]:
        """Whether there is an object that a condition holds for."""
        return self._select(sqlalchemy.literal_column("1"), condition).exists()

    def scalar(self, element: ColumnElement[Any]) -> ColumnElement[Any]:
        """An aggregate of the objects, as the value of a subquery."""
        return self._select(element, None).scalar_subquery()

    def _select(self, element: ColumnElement[Any], condition: ColumnElement[Any] | None) -> Select[Any]:
        made = sqlalchemy.select(element).select_from(self.from_clause(), *self.through).where(*self.links)
        if condition is not None:
            made = made.where(condition)
        return made.correlate_except(*self.joins.values(), *self.through)


class DerivedScope(Scope):
    """The scope of a SELECT from another one: its names are the columns of that one.

    Args:
        options: the model's.
        inner: the scope of that one.
        table: that one, as a table.
        columns: what names stand for which of its columns.
    """

    def __init__(
        self, options: Options, inner: Scope, table: FromClause, columns: Mapping[str, tuple[str, Field[Any]]]
    ) -> None:
        super().__init__(options, inner.kind, parameters=inner.parameters)
        self.outer = inner.outer
        self.root = table
        self.joins = {(): table}
        self.columns = columns

    def resolve(self, name: str) -> tuple[ColumnElement[Any], Field[Any]]:
        found = annotation_in(self.columns, name)
        if found is None and name == "pk" and len(self.options.primary_key) == 1:
            found = name = self.options.primary_key[0].name
        if found is None or found not in self.columns:
            raise FieldError(f"{name!r} is none of what the query gives: {', '.join(self.columns)}")
        label, field = self.columns[found]
        column = self.root.c[label]
        if found == name:
            return column, field
        from covet_orm.queries.lookup_names import transformed

        return transformed(self, column, field, name[len(found) + 2 :].split("__"), name)

    def field(self, name: str) -> Field[Any]:
        return self.resolve(name)[1]

    def resolve_field(self, field: Field[Any]) -> ColumnElement[Any]:
        return self.resolve(field.name)[0]


def _always_there(relation: Relation) -> bool:
    """Whether every row has what a relation leads to, so that an inner join loses none."""
    field = relation.field
    return (
        not relation.many
        and not relation.nullable
        and relation.source is field.model
        and getattr(field, "db_constraint", False) is True
    )
