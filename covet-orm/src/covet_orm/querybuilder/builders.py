"""The query builder: SQL in the words of SQL, for a program that has no model of a table.

    sql, params = QueryBuilder("users").select("*").where("active", "=", True).build()

Every method gives a new builder, so that a beginning can be shared. Values are parameters, names are quoted or refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, Self

from covet.settings_schema import nearest
from covet_orm.dialects import KINDS, compile_statement
from covet_orm.exceptions import DataError, QueryError
from covet_orm.querybuilder.changes import build_change
from covet_orm.querybuilder.expressions import Aliased, Expression, excluded
from covet_orm.querybuilder.parts import Delete, Insert, InsertFrom, Parts, Source, Update, Upsert
from covet_orm.querybuilder.scopes import Scope
from covet_orm.querybuilder.selections import Selection, selected
from covet_orm.querybuilder.selects import build_query

__all__ = ["Built", "Executor", "QueryBuilder"]

# What asyncpg counts them in: signed 16 bits.
MOST_PARAMETERS = 32767


class Executor(Protocol):
    """What runs the statements of a builder; a `Database` does."""

    @property
    def kind(self) -> str:
        """`postgresql`, `mysql`, `mariadb` or `sqlite`."""
        ...

    async def fetch_all(self, sql: str, params: Sequence[Any], /) -> Sequence[Mapping[str, Any]]:
        """Run a statement; its rows by the names of the columns."""
        ...

    async def execute(self, sql: str, params: Sequence[Any], /) -> int:
        """Run a statement; how many rows it changed."""
        ...


class Built(NamedTuple):
    """A statement and its parameters, as a driver takes them."""

    sql: str
    params: tuple[Any, ...]


class QueryBuilder(Selection):
    """A statement in the making. Immutable: each method gives a new builder.

    Args:
        table: the name of a table (`users`, `sales.orders`), or a query to select from; none for a query without one.
        alias: the name that the table goes by; a query needs one.
        dialect: the database that `build` is for: `postgresql`, `mysql`, `mariadb` or `sqlite`. Without it that of the
            database that is running here, and `postgresql` where none is. A statement that is run is built for the
            database that runs it.

    Raises:
        QueryError: there is no such database.
    """

    __slots__ = ()

    def __init__(
        self, table: str | QueryBuilder | None = None, *, alias: str | None = None, dialect: str | None = None
    ) -> None:
        if dialect is not None and dialect not in KINDS:
            raise QueryError(f"{dialect!r:.60} is no database that covet-orm speaks to{nearest(str(dialect), KINDS)}")
        self._dialect = dialect
        self.parts = Parts(None if table is None else Source(table, alias))

    def __repr__(self) -> str:
        try:
            return f"<QueryBuilder {self.build().sql}>"
        except (QueryError, DataError) as error:
            return f"<QueryBuilder that cannot be built: {error}>"

    def insert(self, *rows: Mapping[str, Any]) -> Self:
        """Insert rows: values, or expressions, by column. A row without any has the defaults of all columns.

        Raises:
            QueryError: there is no row, or not all have the same columns.
        """
        return self._but(verb=Insert(_same_columns(rows)))

    def insert_from(self, columns: Sequence[str], query: QueryBuilder) -> Self:
        """Insert the rows of a query, whose columns go to these. Raises QueryError when no column is named."""
        if isinstance(columns, str) or not columns:
            raise QueryError("insert_from() takes the names of the columns, and a query")
        return self._but(verb=InsertFrom(tuple(columns), query))

    def upsert(
        self,
        *rows: Mapping[str, Any],
        conflict: Sequence[str],
        update: Sequence[str] | Mapping[str, Any] | None = None,
    ) -> Self:
        """Insert rows, or update those that are there.

        Args:
            rows: values, or expressions, by column.
            conflict: the columns of the unique key that says which are there. On MySQL and MariaDB any unique key does.
            update: the columns that are updated with the values of the new row, or expressions by column, in which
                `excluded("hits")` is the new value and `col("hits")` the old one. Without it all but those of the key;
                an empty list leaves the row as it is.

        Raises:
            QueryError: no row or key is given, or not all rows have the same columns.
        """
        checked = _same_columns(rows)
        if isinstance(conflict, str) or not conflict:
            raise QueryError("upsert() needs the columns of a unique key: conflict=['email']")
        if update is None:
            update = [column for column in checked[0] if column not in conflict]
        values = update if isinstance(update, Mapping) else {column: excluded(column) for column in update}
        return self._but(verb=Upsert(checked, tuple(conflict), dict(values)))

    def update(self, values: Mapping[str, Any], *, everything: bool = False) -> Self:
        """Update the rows that `where` chooses.

        Args:
            values: values, or expressions, by column: `{"hits": col("hits") + 1}`.
            everything: must be True where there is no `where`.

        Raises:
            QueryError: there is no value. (No `where`: when it is built.)
        """
        if not values:
            raise QueryError("an update of nothing: give values by column")
        return self._but(verb=Update(dict(values), everything))

    def delete(self, *, everything: bool = False) -> Self:
        """Delete the rows that `where` chooses; `everything` must be True where there is none."""
        return self._but(verb=Delete(everything))

    def returning(self, *columns: str | Expression | Aliased, **aliased: str | Expression) -> Self:
        """Get columns of the rows that were inserted, updated or deleted: all with `*`.

        MySQL has no such thing, and MariaDB not of an update.
        """
        return self._but(returning=(*self.parts.returning, *selected(columns, aliased)))

    def as_(self, alias: str) -> Aliased:
        """The query as a value, under a name, for `select`."""
        return Aliased(self.as_expression(), alias)

    def as_expression(self) -> Expression:
        """The query as a value, of one row and one column."""
        return Subquery(self)

    def statement(self, outer: Scope) -> Any:
        """The statement in SQLAlchemy's terms, as a part of another one whose tables it may name.

        Raises:
            QueryError: the parts do not go together.
            NotSupported: the database does not have one of them.
            InvalidIdentifier: a name is none.
        """
        return self._statement(Scope(outer.kind, outer))

    def _statement(self, scope: Scope) -> Any:
        if self.parts.verb is not None:
            return build_change(self.parts, scope)
        if self.parts.returning:
            raise QueryError("returning() goes with an insert, update or delete; a query has select()")
        return build_query(self.parts, scope)

    def build(self, dialect: str | None = None) -> Built:
        """The SQL and its parameters: `sql, params = query.build()`.

        Args:
            dialect: the database it is for; that of the builder by default.

        Raises:
            QueryError: the parts do not go together, or there is no such database.
            NotSupported: the database does not have one of them.
            InvalidIdentifier: a name is none.
            DataError: the database takes no such value.
        """
        kind = dialect or self._dialect or ambient_kind()
        if kind not in KINDS:
            raise QueryError(f"{kind!r:.60} is no database that covet-orm speaks to{nearest(kind, KINDS)}")
        try:
            statement = self._statement(Scope(kind))
        except RecursionError as error:
            raise QueryError("the query is nested too deeply") from error
        compiled = compile_statement(statement, kind)
        if kind == "postgresql" and len(compiled.names) > MOST_PARAMETERS:
            raise QueryError(
                f"the statement has {len(compiled.names):,} parameters, and asyncpg takes {MOST_PARAMETERS:,}; insert "
                "fewer rows at a time"
            )
        # The values were made for the driver already; those of SQLAlchemy's own (a limit of -1) are plain numbers.
        return Built(compiled.sql, tuple([compiled.defaults[name] for name in compiled.names]))

    def _built_for(self, db: Executor) -> Built:
        asked = self._dialect
        if asked is not None and asked != db.kind and {asked, db.kind} != {"mysql", "mariadb"}:
            raise QueryError(f"the builder is for {asked}, and the database is {db.kind}; leave out `dialect`")
        return self.build(db.kind)

    async def fetch_all(self, db: Executor | None = None) -> Sequence[Mapping[str, Any]]:
        """All the rows, by the names of their columns.

        Cancellation and errors are those of the database, besides what `build` raises.

        Args:
            db: the database; the one that is running here by default.

        Raises:
            NoDatabase: none is, or several.
        """
        asked = db if db is not None else ambient_database()
        sql, params = self._built_for(asked)
        return await asked.fetch_all(sql, params)

    async def fetch_one(self, db: Executor | None = None) -> Mapping[str, Any] | None:
        """The first row, or None. A query without a limit is given one of 1. Raises as `fetch_all` does."""
        one = self if self.parts.verb or self.parts.limit is not None else self.limit(1)
        rows = await one.fetch_all(db)
        return rows[0] if rows else None

    async def fetch_value(self, db: Executor | None = None) -> Any:
        """The first column of the first row; None when there is no row. Raises as `fetch_all` does."""
        row = await self.fetch_one(db)
        return None if row is None else next(iter(row.values()))

    async def execute(self, db: Executor | None = None) -> int:
        """Run an insert, update or delete; how many rows it changed. Raises as `fetch_all` does.

        Raises:
            QueryError: it is a query, or returns rows.
        """
        if self.parts.verb is None or self.parts.returning:
            raise QueryError(
                "execute() tells how many rows were changed; the rows of a query or of returning() are fetched"
            )
        asked = db if db is not None else ambient_database()
        sql, params = self._built_for(asked)
        return await asked.execute(sql, params)


class Subquery(Expression):
    """A query of one row and one column, as a value."""

    __slots__ = ("query",)

    def __init__(self, query: QueryBuilder) -> None:
        self.query = query

    def build(self, scope: Scope) -> Any:
        if self.query.parts.verb is not None:
            raise QueryError("an insert, update or delete is no value")
        return self.query.statement(scope).scalar_subquery()


def ambient_database() -> Executor:
    """The database that is running here. Raises NoDatabase."""
    from covet_orm.ambient import find_database

    return find_database()


def ambient_kind() -> str:
    """The database that is running here, for a builder that was told none; `postgresql` where none is, or several."""
    from covet_orm.ambient import NoDatabase, find_database

    try:
        return find_database().kind
    except NoDatabase:
        return "postgresql"


def _same_columns(rows: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise QueryError(f"{row!r:.60} is no row: give values by column, each row as an argument of its own")
        if row.keys() != rows[0].keys():
            odd = ", ".join(sorted(map(str, row.keys() ^ rows[0].keys())))
            raise QueryError(f"row {number} has not the columns of the first one: {odd}; all rows have the same")
    if not rows:
        raise QueryError("there is no row to insert")
    if len(rows) > 1 and not rows[0]:
        raise QueryError("one row without values can be inserted at a time")
    return tuple(dict(row) for row in rows)
