"""A query of a builder, as a statement of SQLAlchemy Core."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import LABEL_STYLE_NONE, ColumnElement, FromClause, Select
from sqlalchemy.sql.elements import quoted_name
from sqlalchemy.sql.selectable import CTE, CompoundSelect, GenerativeSelect

from covet_orm.exceptions import NotSupported, QueryError
from covet_orm.identifiers import check_path
from covet_orm.querybuilder.expressions import Aliased, Expression
from covet_orm.querybuilder.parts import CommonTable, Join, Lock, Parts, Source
from covet_orm.querybuilder.scopes import Scope
from covet_orm.querybuilder.values import parameter

if TYPE_CHECKING:
    from covet_orm.querybuilder.builders import QueryBuilder

__all__ = ["build_columns", "build_query", "build_tables"]

MYSQL = ("mysql", "mariadb")

OPERATIONS: dict[str, Any] = {
    "union": sqlalchemy.union,
    "union all": sqlalchemy.union_all,
    "intersect": sqlalchemy.intersect,
    "intersect all": sqlalchemy.intersect_all,
    "except": sqlalchemy.except_,
    "except all": sqlalchemy.except_all,
}


def build_query(parts: Parts, scope: Scope) -> GenerativeSelect:
    """A SELECT, or a set operation of several.

    Raises:
        QueryError: the parts do not go together.
        NotSupported: the database does not have one of them.
        InvalidIdentifier: a name is none.
    """
    statement = _compound(parts, scope) if parts.operation else _select(parts, scope)
    if parts.order_by:
        statement = statement.order_by(*(part for one in parts.order_by for part in one.build(scope)))
    if parts.limit is not None:
        statement = statement.limit(parameter(parts.limit, scope.kind))
    if parts.offset is not None:
        statement = statement.offset(parameter(parts.offset, scope.kind))
    made: GenerativeSelect = build_tables(statement, parts, scope)
    return made


def build_tables(statement: Any, parts: Parts, scope: Scope) -> Any:
    """The statement with its common table expressions, in the order that they were given in."""
    made = [_common_table(table, scope) for table in parts.tables]
    return statement.add_cte(*made, nest_here=scope.outer is not None) if made else statement


def build_columns(columns: tuple[Expression | Aliased, ...], scope: Scope) -> list[ColumnElement[Any]]:
    """What is selected or returned; those with an alias under it."""
    return [
        one.expression.build(scope).label(scope.alias(one.alias)) if isinstance(one, Aliased) else one.build(scope)
        for one in columns
    ]


def _select(parts: Parts, scope: Scope) -> Select[Any]:
    # The tables first: they are what names can refer to.
    tables: dict[str, FromClause] = {}
    source = _joined(parts, scope, tables)
    columns = build_columns(parts.columns, scope) or [sqlalchemy.literal_column("*")]
    statement = sqlalchemy.select(*columns).set_label_style(LABEL_STYLE_NONE)
    if source is not None:
        statement = statement.select_from(source)
    if parts.distinct_on:
        if scope.kind != "postgresql":
            raise NotSupported(f"{scope.kind} has no DISTINCT ON; number the rows by fn('row_number').over(…) instead")
        statement = statement.ext(_distinct_on(parts, scope))
    elif parts.distinct:
        statement = statement.distinct()
    if parts.where:
        statement = statement.where(parts.where.build(scope))
    if parts.group_by:
        statement = statement.group_by(*(one.build(scope) for one in parts.group_by))
    if parts.having:
        statement = statement.having(parts.having.build(scope))
    return _locked(statement, parts.lock, scope, tables) if parts.lock else statement


def _distinct_on(parts: Parts, scope: Scope) -> Any:
    from sqlalchemy.dialects.postgresql import distinct_on

    return distinct_on(*(one.build(scope) for one in parts.distinct_on))


def _joined(parts: Parts, scope: Scope, tables: dict[str, FromClause]) -> FromClause | None:
    if parts.source is None:
        if parts.joins:
            raise QueryError("a join to nothing: QueryBuilder() was made without a table")
        return None
    built = _source(parts.source, scope, tables)
    for join in parts.joins:
        built = _join(built, join, scope, tables)
    return built


def _source(source: Source, scope: Scope, tables: dict[str, FromClause], lateral: bool = False) -> FromClause:
    """A table or a query to select from; it can be referred to from now on."""
    built: FromClause
    if isinstance(source.table, str):
        path = check_path(source.table, scope.kind, "table", most=2)
        schema = quoted_name(path[0], True) if len(path) == 2 else None
        built = sqlalchemy.table(quoted_name(path[-1], True), schema=schema)
        if source.alias is not None:
            built = built.alias(scope.alias(source.alias))
            path = (source.alias,)
    else:
        if source.alias is None:
            raise QueryError("a query to select from needs an alias: QueryBuilder(query, alias='…')")
        alias = scope.alias(source.alias)
        # Of the tables beside it, only a lateral one sees those before it; the others see what is around the query.
        query = source.table.statement(scope if lateral else (scope.outer or Scope(scope.kind)))
        if not isinstance(query, GenerativeSelect):
            raise QueryError("an insert, update or delete is no table to select from; name it by with_() first")
        built = query.lateral(alias) if lateral else query.subquery(alias)
        path = (source.alias,)
    if path in scope.seen:
        raise QueryError(f"the query has two tables that go by {path[-1]!r:.60}; give one of them an alias")
    scope.add(path)
    tables[path[-1]] = built
    return built


def _join(left: FromClause, join: Join, scope: Scope, tables: dict[str, FromClause]) -> FromClause:
    kind = scope.kind
    if join.lateral and kind in ("mariadb", "sqlite"):
        raise NotSupported(f"{kind} has no LATERAL; PostgreSQL and MySQL have, and window functions often do the same")
    if join.kind == "full" and kind in MYSQL:
        raise NotSupported(f"{kind} has no FULL JOIN; take the union of a left and a right join")
    right = _source(join.source, scope, tables, join.lateral)
    on = sqlalchemy.true() if join.on is None else join.on.build(scope)
    if join.kind == "right":
        return right.join(left, on, isouter=True)
    return left.join(right, on, isouter=join.kind == "left", full=join.kind == "full")


def _locked(statement: Select[Any], lock: Lock, scope: Scope, tables: dict[str, FromClause]) -> Select[Any]:
    if scope.kind == "sqlite":
        raise NotSupported("SQLite locks no rows; a transaction that writes holds the whole file")
    if lock.of and scope.kind == "mariadb":
        raise NotSupported("MariaDB locks the rows of all the tables of a query; leave out `of`")
    for name in lock.of:
        if name not in tables:
            raise QueryError(
                f"for_update(of={name!r:.60}): the query has no such table; there are: {', '.join(tables)}"
            )
    return statement.with_for_update(
        read=lock.share,
        nowait=lock.nowait,
        skip_locked=lock.skip_locked,
        of=[tables[name] for name in lock.of] or None,
    )


def _compound(parts: Parts, scope: Scope) -> CompoundSelect[Any]:
    operation = parts.operation or "union"
    if scope.kind == "sqlite" and operation in ("intersect all", "except all"):
        raise NotSupported(f"SQLite has no {operation.upper()}")
    if parts.lock:
        raise QueryError("the rows of a set operation cannot be locked")
    made: CompoundSelect[Any] = OPERATIONS[operation](
        *(_arm(arm, scope, number) for number, arm in enumerate(parts.arms, 1))
    )
    return made


def _arm(query: QueryBuilder, scope: Scope, number: int) -> Select[Any]:
    """One side of a set operation. What has a limit or an operation of its own goes into a subquery: databases disagree
    on which operation binds closer, and SQLite takes no parentheses."""
    inner = scope.outer or Scope(scope.kind)
    statement = query.statement(inner)
    if isinstance(statement, Select) and not query.parts.tables:
        if query.parts.limit is None and query.parts.offset is None:
            return statement.order_by(None)
    elif not isinstance(statement, GenerativeSelect):
        raise QueryError("an insert, update or delete is no side of a set operation")
    named = statement.subquery(quoted_name(f"arm_{number}", True))
    return sqlalchemy.select(sqlalchemy.literal_column("*")).select_from(named)


def _common_table(table: CommonTable, scope: Scope) -> CTE:
    name = scope.alias(table.name, "common table expression")
    outer = Scope(scope.kind, scope.outer)
    statement = table.query.statement(outer)
    if not isinstance(statement, GenerativeSelect):
        if scope.kind != "postgresql":
            raise NotSupported(f"{scope.kind} cannot insert, update or delete in a WITH; PostgreSQL can")
        if not table.query.parts.returning:
            raise QueryError(f"the statement {table.name!r:.60} of a WITH returns nothing; add returning(…)")
        returned: CTE = statement.cte(name)
        return returned
    if table.step is not None:
        _require_names(table)
        step = table.step.statement(outer)
        both = OPERATIONS["union" if table.distinct else "union all"](statement, step)
        made: CTE = both.cte(name, recursive=True)
    else:
        made = statement.cte(name)
    if table.materialized is not None:
        if scope.kind in MYSQL:
            raise NotSupported(f"{scope.kind} decides by itself whether a WITH is materialized")
        made = made.prefix_with("MATERIALIZED" if table.materialized else "NOT MATERIALIZED")
    return made


def _require_names(table: CommonTable) -> None:
    """The columns of a recursive table are those of its first query, and SQL wants their names beforehand."""
    seed = table.query.parts
    if table.query.parts.operation or (table.step is not None and table.step.parts.operation):
        raise QueryError(
            f"the queries of the recursive table {table.name!r:.60} are plain ones, without set operations"
        )
    for column in seed.columns or (None,):
        if column is None or not (isinstance(column, Aliased) or column.output_name()):
            raise QueryError(f"the first query of the recursive table {table.name!r:.60} names each of its columns")
