"""Common table expressions: queries with a name, that other parts of the statement read from.

boss = Employee.objects.filter(manager=None).annotate(depth=Value(0))
chart = CTE.recursive(
    boss, lambda above: Employee.objects.join(above, F("manager") == above.c.id).annotate(depth=above.c.depth + 1)
)
Employee.objects.join(chart, F("id") == chart.c.id).annotate(depth=chart.c.depth).order_by("depth")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import ColumnElement

from covet.settings_schema import nearest
from covet_orm.exceptions import FieldError, QueryError
from covet_orm.expressions.base import Add, Expression
from covet_orm.expressions.conditions import Combined
from covet_orm.identifiers import check_identifier
from covet_orm.queries.clauses import NONE
from covet_orm.queries.names import Names
from covet_orm.queries.one_database import key_of_database

if TYPE_CHECKING:
    from covet_orm.expressions.conditions import Condition
    from covet_orm.fields.base import Field
    from covet_orm.queries.querysets import QuerySet
    from covet_orm.queries.scope import Parameters, Scope

__all__ = ["CTE", "CTEColumn", "Joined", "join"]


class Columns:
    """The columns of a common table expression: `cte.c.name`."""

    __slots__ = ("_table",)

    def __init__(self, table: CTE) -> None:
        self._table = table

    def __getattr__(self, name: str) -> CTEColumn:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._table.column(name)

    def __getitem__(self, name: str) -> CTEColumn:
        return self._table.column(name)


class CTE:
    """A query with a name.

    Args:
        queryset: the query. Its columns are the fields of its model and its annotations, or what `values` gives.
        name: what the statement calls it; two in one statement need two names.
        materialized: True for a query that is run once and kept, False for one that is merged into its readers, None
            for what the database thinks best (PostgreSQL and SQLite; MySQL and MariaDB decide by themselves).

    Attributes:
        c: its columns, by attribute or by key.

    Raises:
        QueryError: it is no queryset.
        InvalidIdentifier: the name is none.
    """

    def __init__(self, queryset: Any, *, name: str = "cte", materialized: bool | None = None) -> None:
        from covet_orm.expressions.subqueries import queryset_of

        self.query: QuerySet[Any] = queryset_of(queryset)
        self.name = name
        self.materialized = materialized
        self.step: QuerySet[Any] | None = None
        self.all_rows = True
        self.c = Columns(self)
        self._busy = False

    @classmethod
    def recursive(cls, start: Any, step: Callable[[CTE], Any], *, name: str = "cte", all_rows: bool = True) -> CTE:
        """A query that reads from itself: the rows of `start`, then of `step`, again and again until it gives none.

        Args:
            start: the first rows.
            step: gives the query of the next rows, of the CTE itself, which holds the rows before. Its columns are
                those of `start`, in the same order.
            name: what the statement calls it.
            all_rows: whether rows that were there already count; where they go round in circles, they must not.

        Raises:
            QueryError: one of them is no queryset.
        """
        from covet_orm.expressions.subqueries import queryset_of

        made = cls(start, name=name)
        made.all_rows = all_rows
        made.step = queryset_of(step(made))
        return made

    def column(self, name: str) -> CTEColumn:
        """A column by name.

        Raises:
            FieldError: there is none.
        """
        columns = self.columns()
        if name not in columns:
            raise FieldError(f"the common table expression has no column {name!r}{nearest(name, list(columns))}")
        return CTEColumn(self, name)

    def columns(self) -> dict[str, str]:
        """The names of its columns, as a query calls them and as the statement does."""
        from covet_orm.queries.selects import output_names

        return output_names(self.query)

    def shape(self, key: Add, values: Add) -> None:
        """As of an expression."""
        if self._busy:
            key("itself")
            return
        key(("table", self.name, self.materialized, self.all_rows, self.step is not None))
        self._busy = True
        try:
            key_of_database(self.query, key)
            self.query.shape(key, values)
            if self.step is not None:
                key_of_database(self.step, key)
                self.step.shape(key, values)
        finally:
            self._busy = False

    def build(self, kind: str, parameters: Parameters) -> Any:
        """The common table expression, as SQLAlchemy has it; the same one in all of a statement."""
        if self._busy:
            return parameters.tables[self]
        from covet_orm.queries.selects import build_select

        check_identifier(self.name, kind, "common table expression")
        there = parameters.tables.get(self)
        if there is None and any(other.name == self.name for other in parameters.tables):
            raise QueryError(
                f"two common table expressions of the statement are called {self.name!r}; give one another name"
            )
        self._busy = True
        try:
            made: Any = build_select(self.query, kind, parameters=parameters)[0].cte(
                self.name, recursive=self.step is not None, nesting=True
            )
            if self.materialized is not None and kind in ("postgresql", "sqlite"):
                made = made.prefix_with("MATERIALIZED" if self.materialized else "NOT MATERIALIZED")
            if there is None:
                parameters.tables[self] = made
            if self.step is not None:
                step = build_select(self.step, kind, parameters=parameters)[0]
                made = made.union_all(step) if self.all_rows else made.union(step)
        finally:
            self._busy = False
        if there is not None:
            # It was built once more for its parameters, which stand among the values as often as it is joined.
            return there
        parameters.tables[self] = made
        return made

    def __repr__(self) -> str:
        return f"<CTE {self.name} of {self.query.model.__name__}>"


class Joined:
    """A common table expression that is joined to the rows of a query.

    Args:
        table: the common table expression.
        condition: which of its rows belong to which.
        outer: whether rows to which none belongs stay.
    """

    __slots__ = ("condition", "outer", "table")

    def __init__(self, table: CTE, condition: Condition, *, outer: bool) -> None:
        self.table = table
        self.condition = condition
        self.outer = outer

    def shape(self, key: Add, values: Add) -> None:
        """As of an expression."""
        key(("joined", self.outer))
        self.table.shape(key, values)
        self.condition.shape(key, values)

    def build(self, scope: Scope) -> None:
        """Join it."""
        made = self.table.build(scope.kind, scope.parameters)
        alias = made.alias()
        scope.tables[self.table] = alias
        scope.join_table(alias, self.condition.build(scope), there=not self.outer)


def join(query: QuerySet[Any], table: CTE, conditions: Sequence[Condition], *, outer: bool) -> QuerySet[Any]:
    """A query with a common table expression beside each row.

    Raises:
        QueryError: there is no condition, or it is joined already.
    """
    query._not_combined("join")
    query._not_sliced("join")
    if not isinstance(table, CTE):
        raise QueryError(f"join({table!r}): a CTE is needed; relations of models are joined by naming them")
    if not conditions:
        raise QueryError(f"join({table!r}) needs a condition, such as F('id') == cte.c.id")
    clauses = query._clauses or NONE
    if any(joined.table is table for joined in clauses.joined):
        raise QueryError(f"{table!r} is joined already")
    names = Names(query.options, query._annotations)
    resolved = [condition.resolved(names) for condition in conditions]
    condition = resolved[0] if len(resolved) == 1 else Combined("and", resolved)
    made = query._copy()
    made._clauses = clauses.but(joined=(*clauses.joined, Joined(table, condition, outer=outer)))
    return made


class CTEColumn(Expression[Any]):
    """A column of a common table expression that the query joined."""

    __slots__ = ("name", "table")

    def __init__(self, table: CTE, name: str) -> None:
        self.table = table
        self.name = name

    def shape(self, key: Add, values: Add) -> None:
        key(("column", self.table.name, self.name))

    def build(self, scope: Scope) -> ColumnElement[Any]:
        found = scope.joined_table(self.table)
        if found is None:
            raise QueryError(f"{self!r}: the query does not join it; write .join(cte, condition)")
        column: ColumnElement[Any] = found.c[self.table.columns()[self.name]]
        return sqlalchemy.type_coerce(column, column.type)

    def output(self, scope: Scope) -> Field[Any]:
        from covet_orm.queries.selects import output_field

        return output_field(self.table.query, self.name, scope.kind)

    def __repr__(self) -> str:
        return f"{self.table!r}.c.{self.name}"
