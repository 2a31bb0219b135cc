"""What there is in a database of MySQL or MariaDB.

SQLAlchemy's Inspector takes `SHOW CREATE TABLE` apart, one table after the other, and does not tell which way an index
runs; the information schema tells all of it for all tables at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from covet_migrate.inspection.descriptions import (
    Check,
    Column,
    ForeignKey,
    Index,
    IndexPart,
    PrimaryKey,
    Schema,
    Sequence,
    Table,
    Trigger,
    Unique,
    View,
)
from covet_orm.drivers.protocol import Connection

__all__ = ["read_mysql"]

TABLES = """
    SELECT table_name, table_type, table_comment, table_collation FROM information_schema.tables
    WHERE table_schema = database() ORDER BY table_name"""
COLUMNS = """
    SELECT table_name, column_name, column_type, is_nullable, column_default, extra, generation_expression,
        collation_name, column_comment
    FROM information_schema.columns WHERE table_schema = database() ORDER BY table_name, ordinal_position"""
INDEXES = """
    SELECT table_name, index_name, non_unique, index_type, column_name, collation, sub_part
    FROM information_schema.statistics WHERE table_schema = database()
    ORDER BY table_name, index_name, seq_in_index"""
MYSQL_INDEXES = INDEXES.replace("sub_part\n", "sub_part, expression\n")
FOREIGN_KEYS = """
    SELECT u.table_name, u.constraint_name, u.column_name, u.referenced_table_name, u.referenced_column_name,
        r.delete_rule, r.update_rule
    FROM information_schema.key_column_usage u JOIN information_schema.referential_constraints r
        ON r.constraint_schema = u.constraint_schema AND r.constraint_name = u.constraint_name
        AND r.table_name = u.table_name
    WHERE u.table_schema = database() AND u.referenced_table_name IS NOT NULL
    ORDER BY u.table_name, u.constraint_name, u.ordinal_position"""
CHECKS = """
    SELECT table_name, constraint_name, check_clause FROM information_schema.check_constraints
    WHERE constraint_schema = database() ORDER BY table_name, constraint_name"""
MYSQL_CHECKS = """
    SELECT t.table_name, c.constraint_name, c.check_clause
    FROM information_schema.check_constraints c JOIN information_schema.table_constraints t
        ON t.constraint_schema = c.constraint_schema AND t.constraint_name = c.constraint_name
    WHERE c.constraint_schema = database() ORDER BY t.table_name, c.constraint_name"""
TRIGGERS = """
    SELECT event_object_table, trigger_name, concat(action_timing, ' ', event_manipulation, ' ', action_statement)
    FROM information_schema.triggers WHERE trigger_schema = database() ORDER BY trigger_name"""
VIEWS = """
    SELECT table_name, replace(view_definition, concat('`', database(), '`.'), '') FROM information_schema.views
    WHERE table_schema = database() ORDER BY table_name"""


async def read_mysql(connection: Connection, kind: str) -> Schema:
    """The schema of the database that a connection is in."""
    mysql = kind == "mysql"
    tables = await connection.fetch(TABLES)
    columns = _by_table(await connection.fetch(COLUMNS))
    indexes = _by_table(await connection.fetch(MYSQL_INDEXES if mysql else INDEXES))
    keys = _by_table(await connection.fetch(FOREIGN_KEYS))
    checks = _by_table(await connection.fetch(MYSQL_CHECKS if mysql else CHECKS))
    triggers = _by_table(await connection.fetch(TRIGGERS))
    made = {
        name: _table(name, comment, collation, columns[name], indexes[name], keys[name], checks[name], triggers[name])
        for name, kind_of, comment, collation in tables
        if kind_of == "BASE TABLE"
    }
    views = tuple(View(name=name, definition=definition) for name, definition in await connection.fetch(VIEWS))
    sequences = tuple(Sequence(name=name) for name, kind_of, *_ in tables if kind_of == "SEQUENCE")
    return Schema(kind=kind, tables=made, views=views, sequences=sequences)


def _by_table(rows: list[Any]) -> Mapping[str, list[Any]]:
    found: dict[str, list[Any]] = defaultdict(list)
    for table, *rest in rows:
        found[table].append(rest)
    return found


def _table(
    name: str, comment: str, collation: str | None, columns: Any, indexes: Any, keys: Any, checks: Any, triggers: Any
) -> Table:
    parts: dict[str, list[Any]] = defaultdict(list)
    for index, *part in indexes:
        parts[index].append(part)
    primary = parts.pop("PRIMARY", None)
    uniques: list[Unique] = []
    others: list[Index] = []
    foreign = _foreign_keys(keys)
    # InnoDB makes these by itself, and takes them away when there is another one that serves the foreign key.
    theirs = {(key.name, key.columns) for key in foreign}
    for index, found in parts.items():
        one = _index(index, found)
        if not one.unique and (one.name, one.columns) in theirs:
            continue
        if one.unique and one.method is None and all(_plain(part) for part in one.parts):
            uniques.append(Unique(name=index, columns=one.columns))
        else:
            others.append(one)
    return Table(
        name=name,
        columns=tuple(_column(collation, *one) for one in columns),
        primary_key=None if primary is None else PrimaryKey(name=None, columns=tuple(str(one[2]) for one in primary)),
        uniques=tuple(uniques),
        indexes=tuple(others),
        checks=tuple(Check(name=told, condition=clause) for told, clause in checks),
        foreign_keys=foreign,
        triggers=tuple(Trigger(name=told, definition=definition) for told, definition in triggers),
        comment=comment or None,
        collation=collation,
    )


def _plain(part: IndexPart) -> bool:
    return part.column is not None and not part.descending and part.length is None


def _index(name: str, parts: list[Any]) -> Index:
    non_unique, method = parts[0][0], str(parts[0][1])
    return Index(
        name=name,
        unique=not non_unique,
        method=None if method == "BTREE" else method.lower(),
        parts=tuple(
            IndexPart(
                column=column,
                expression=more[0] if more else None,
                descending=direction == "D",
                length=None if length is None or method != "BTREE" else int(length),
            )
            for _, _, column, direction, length, *more in parts
        ),
    )


def _column(
    usual: str | None, name: str, kind: str, null: str, default: Any, extra: str, generated: str | None,
    collation: str | None, comment: str,
) -> Column:  # fmt: skip
    counts = "auto_increment" in extra.lower()
    # MariaDB tells the default NULL of a column that has none.
    told = None if default in (None, "NULL") or counts or generated else str(default)
    return Column(
        name=name,
        type=kind,
        null=null == "YES",
        default=told,
        generated=generated or None,
        stored=bool(generated) and "VIRTUAL" not in extra.upper(),
        counting="auto_increment" if counts else None,
        collation=collation if collation != usual else None,
        comment=comment or None,
    )


def _foreign_keys(rows: list[Any]) -> tuple[ForeignKey, ...]:
    found: dict[str, list[Any]] = defaultdict(list)
    for name, *rest in rows:
        found[name].append(rest)
    return tuple(
        ForeignKey(
            name=name,
            columns=tuple(one[0] for one in parts),
            table=parts[0][1],
            referred=tuple(one[2] for one in parts),
            # InnoDB knows no difference between the two.
            on_delete=_action(parts[0][3]),
            on_update=_action(parts[0][4]),
        )
        for name, parts in found.items()
    )


def _action(told: str) -> str:
    return "NO ACTION" if told == "RESTRICT" else told
