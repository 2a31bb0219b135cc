"""An insert, update, delete or upsert of a builder, as a statement of SQLAlchemy Core."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy
from sqlalchemy import TableClause
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.sql.elements import quoted_name

from covet_orm.exceptions import NotSupported, QueryError
from covet_orm.identifiers import check_path
from covet_orm.querybuilder.expressions import untyped
from covet_orm.querybuilder.parts import Delete, Insert, InsertFrom, Parts, Update, Upsert
from covet_orm.querybuilder.scopes import Name, Scope
from covet_orm.querybuilder.selects import MYSQL, build_columns, build_tables

__all__ = ["build_change"]


def build_change(parts: Parts, scope: Scope) -> Any:
    """An INSERT, UPDATE or DELETE.

    Raises:
        QueryError: the parts do not go together.
        NotSupported: the database does not have one of them.
        InvalidIdentifier: a name is none.
    """
    verb = parts.verb
    _check(parts, scope)
    if isinstance(verb, Insert):
        statement: Any = _insert(parts, verb.rows, scope)
    elif isinstance(verb, InsertFrom):
        table = _table(parts, verb.columns, scope)
        query = verb.query.statement(Scope(scope.kind))
        statement = sqlalchemy.insert(table).from_select(list(verb.columns), query)
    elif isinstance(verb, Upsert):
        statement = _upsert(parts, verb, scope)
    elif isinstance(verb, Update):
        table = _table(parts, verb.values, scope)
        statement = sqlalchemy.update(table).values(_values(verb.values, scope))
    else:
        statement = sqlalchemy.delete(_table(parts, (), scope))
    if parts.where:
        statement = statement.where(parts.where.build(scope))
    if parts.returning:
        statement = statement.returning(*build_columns(parts.returning, scope))
    return build_tables(statement, parts, scope)


def _check(parts: Parts, scope: Scope) -> None:
    verb, kind = parts.verb, scope.kind
    name = type(verb).__name__.lower().replace("insertfrom", "insert")
    given = {
        "select": parts.columns, "distinct": parts.distinct or parts.distinct_on, "join": parts.joins,
        "group_by": parts.group_by, "having": parts.having, "order_by": parts.order_by,
        "limit": parts.limit is not None,
        "offset": parts.offset is not None, "for_update": parts.lock, "a set operation": parts.operation,
    }  # fmt: skip
    wrong = [what for what, there in given.items() if there]
    changes = isinstance(verb, (Update, Delete))
    if parts.where and not changes:
        wrong.append("where")
    if wrong:
        hint = "; choose the rows by where_in('id', query)" if changes else ""
        raise QueryError(f"{'an' if name[0] in 'aeiou' else 'a'} {name} takes no {' and no '.join(wrong)}{hint}")
    if isinstance(verb, (Update, Delete)) and not parts.where and not verb.everything:
        raise QueryError(f"{name} without where() changes every row; if it is meant to, say {name}(…, everything=True)")
    if parts.returning and (kind == "mysql" or (kind == "mariadb" and isinstance(verb, Update))):
        raise NotSupported(f"{kind} has no {name.upper()} ... RETURNING; select the rows in the same transaction")
    if parts.tables and kind == "mariadb" and changes:
        raise NotSupported(
            f"MariaDB has no WITH before {name.upper()}; put the query into where_in() or where_exists()"
        )


def _table(parts: Parts, columns: Iterable[str], scope: Scope) -> TableClause:
    if parts.source is None or not isinstance(parts.source.table, str):
        raise QueryError("rows are inserted, updated and deleted in a table, and the builder has none")
    if parts.source.alias is not None:
        raise QueryError("a table that is changed has no alias")
    path = check_path(parts.source.table, scope.kind, "table", most=2)
    scope.add(path)
    names = [scope.alias(column, "column") for column in columns]
    schema = quoted_name(path[0], True) if len(path) == 2 else None
    return sqlalchemy.table(quoted_name(path[-1], True), *map(sqlalchemy.column, names), schema=schema)


def _values(values: Mapping[str, Any], scope: Scope) -> dict[str, Any]:
    return {column: untyped(value).build(scope) for column, value in values.items()}


def _insert(parts: Parts, rows: tuple[Mapping[str, Any], ...], scope: Scope, others: Iterable[str] = ()) -> Any:
    table = _table(parts, dict.fromkeys([*rows[0], *others]), scope)
    statement = _dialect_insert(scope)(table)
    made = [_values(row, scope) for row in rows]
    return statement.values(made if len(made) > 1 else made[0])


def _dialect_insert(scope: Scope) -> Any:
    if scope.kind in MYSQL:
        return mysql.insert
    return postgresql.insert if scope.kind == "postgresql" else sqlite.insert


def _upsert(parts: Parts, verb: Upsert, scope: Scope) -> Any:
    statement = _insert(parts, verb.rows, scope, [*verb.update, *verb.conflict])
    target = [scope.alias(column, "column") for column in verb.conflict]
    # In an update, a column without a table could be that of the row that is there or of the new one; it is the former.
    path = check_path(str(parts.source.table), scope.kind, "table", most=2) if parts.source else ()
    inner = Scope(scope.kind, scope, home=path[-1:])
    update = _values(verb.update, inner)
    if scope.kind in MYSQL:
        if not update:
            # INSERT IGNORE would hide other errors as well: values that are cut, foreign keys that are not there.
            update = {target[0]: Name((target[0],))}
        return statement.on_duplicate_key_update(list(update.items()))
    elements: list[Any] = [sqlalchemy.column(name) for name in target]
    if not update:
        return statement.on_conflict_do_nothing(index_elements=elements)
    return statement.on_conflict_do_update(
        index_elements=elements, set_={quoted_name(c, True): v for c, v in update.items()}
    )
