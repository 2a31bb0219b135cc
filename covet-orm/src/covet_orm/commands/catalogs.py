"""What the catalogues of the databases tell of tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from covet_orm.exceptions import DatabaseError

if TYPE_CHECKING:
    from covet_orm.databases import Database

__all__ = ["Column", "Named", "Table", "columns_of", "indexes_of", "keys_of", "tables_of"]


class Table(NamedTuple):
    """A table: its name, how many rows it has about, its bytes with its indexes; None where that is not known."""

    table: str
    rows: int | None
    bytes: int | None


class Column(NamedTuple):
    """A column."""

    name: str
    type: str
    null: bool
    default: str | None


class Named(NamedTuple):
    """A key or an index: its name, and what it is in the words of SQL."""

    name: str
    definition: str


TABLES = {
    "postgresql": """
        SELECT relname, CASE WHEN reltuples < 0 THEN NULL ELSE reltuples::bigint END, pg_total_relation_size(oid)
        FROM pg_catalog.pg_class
        WHERE relkind IN ('r', 'p') AND relnamespace = ANY (
            SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = ANY (current_schemas(false)))
        ORDER BY relname""",
    "mysql": """
        SELECT table_name, table_rows, data_length + index_length
        FROM information_schema.tables
        WHERE table_schema = database() AND table_type = 'BASE TABLE' ORDER BY table_name""",
}
COLUMNS = {
    "postgresql": """
        SELECT attname, format_type(atttypid, atttypmod), NOT attnotnull, pg_get_expr(adbin, adrelid)
        FROM pg_catalog.pg_attribute LEFT JOIN pg_catalog.pg_attrdef ON adrelid = attrelid AND adnum = attnum
        WHERE attrelid = quote_ident($1)::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum""",
    "mysql": """
        SELECT column_name, column_type, is_nullable = 'YES', column_default FROM information_schema.columns
        WHERE table_schema = database() AND table_name = %s ORDER BY ordinal_position""",
    "sqlite": 'SELECT name, type, NOT "notnull" AND NOT pk, dflt_value FROM pragma_table_xinfo(?) ORDER BY cid',
}
KEYS = {
    "postgresql": """
        SELECT conname, pg_get_constraintdef(oid) FROM pg_catalog.pg_constraint
        WHERE conrelid = quote_ident($1)::regclass AND contype <> 'n' ORDER BY contype DESC, conname""",
    "mysql": """
        SELECT u.constraint_name,
            max(CASE WHEN u.referenced_table_name IS NOT NULL THEN 'FOREIGN KEY'
                WHEN u.constraint_name = 'PRIMARY' THEN 'PRIMARY KEY' ELSE 'UNIQUE' END),
            group_concat(u.column_name ORDER BY u.ordinal_position SEPARATOR ', '),
            max(u.referenced_table_name),
            group_concat(u.referenced_column_name ORDER BY u.ordinal_position SEPARATOR ', '),
            max(r.delete_rule)
        FROM information_schema.key_column_usage u LEFT JOIN information_schema.referential_constraints r
            ON r.constraint_schema = u.constraint_schema AND r.constraint_name = u.constraint_name
            AND r.table_name = u.table_name
        WHERE u.table_schema = database() AND u.table_name = %s
        GROUP BY u.constraint_name ORDER BY u.constraint_name""",
    "sqlite": """
        SELECT id, group_concat("from", ', '), "table", group_concat("to", ', '), max(on_delete)
        FROM pragma_foreign_key_list(?) GROUP BY id, "table" ORDER BY id""",
}
INDEXES = {
    "postgresql": """
        SELECT relname, pg_get_indexdef(indexrelid) FROM pg_catalog.pg_index
        JOIN pg_catalog.pg_class ON pg_class.oid = indexrelid
        WHERE indrelid = quote_ident($1)::regclass ORDER BY relname""",
    "mysql": """
        SELECT index_name, concat(CASE WHEN max(non_unique) = 0 THEN 'UNIQUE ' ELSE '' END, max(index_type), ' (',
            group_concat(column_name ORDER BY seq_in_index SEPARATOR ', '), ')')
        FROM information_schema.statistics
        WHERE table_schema = database() AND table_name = %s GROUP BY index_name ORDER BY index_name""",
    "sqlite": "SELECT name, coalesce(sql, 'made for a constraint') FROM sqlite_schema WHERE type = 'index' "
    "AND tbl_name = ? ORDER BY name",
}


async def tables_of(database: Database) -> list[Table]:
    """The tables of an open database, by name."""
    if database.kind == "sqlite":
        return await _sqlite_tables(database)
    rows = (await database.query(TABLES[_kind(database)])).rows
    return [Table(str(name), _int(count), _int(size)) for name, count, size in rows]


async def columns_of(database: Database, table: str) -> list[Column]:
    """The columns of a table that is there, in their order."""
    rows = (await database.query(COLUMNS[_kind(database)], (table,))).rows
    return [
        Column(str(name), str(kind), bool(null), None if default is None else str(default))
        for name, kind, null, default in rows
    ]


async def keys_of(database: Database, table: str) -> list[Named]:
    """The keys of a table: primary, unique and foreign ones."""
    rows = (await database.query(KEYS[_kind(database)], (table,))).rows
    if database.kind == "postgresql":
        return [Named(str(name), str(definition)) for name, definition in rows]
    if database.kind == "sqlite":
        asked = await database.query("SELECT name FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk", (table,))
        primary = ", ".join(str(row[0]) for row in asked.rows)
        found = [Named("primary", f"PRIMARY KEY ({primary})")] if primary else []
        return found + [
            Named(f"foreign {number}", _foreign(columns, other, others, rule))
            for number, columns, other, others, rule in rows
        ]
    return [
        Named(str(name), _foreign(columns, other, others, rule) if other else f"{what} ({columns})")
        for name, what, columns, other, others, rule in rows
    ]


async def indexes_of(database: Database, table: str) -> list[Named]:
    """The indexes of a table."""
    rows = (await database.query(INDEXES[_kind(database)], (table,))).rows
    return [Named(str(name), str(definition)) for name, definition in rows]


async def _sqlite_tables(database: Database) -> list[Table]:
    from covet_orm.dialects import dialect_of

    asked = await database.query(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name"
    )
    sizes: dict[str, int] = {}
    try:
        told = await database.query(
            "SELECT tbl_name, sum(pgsize) FROM dbstat JOIN sqlite_schema USING (name) GROUP BY tbl_name"
        )
        sizes = {str(name): int(size) for name, size in told.rows}
    except DatabaseError as error:
        # This build of SQLite has no such table (https://sqlite.org/dbstat.html).
        if "dbstat" not in str(error):
            raise
    quote = dialect_of("sqlite").identifier_preparer.quote_identifier
    return [
        Table(str(name), await database.fetch_value(f"SELECT count(*) FROM {quote(str(name))}"), sizes.get(str(name)))
        for (name,) in asked.rows
    ]


def _kind(database: Database) -> str:
    return "mysql" if database.kind == "mariadb" else database.kind


def _int(value: Any) -> int | None:
    return None if value is None else int(value)


def _foreign(columns: Any, table: Any, others: Any, rule: Any) -> str:
    ending = f" ON DELETE {rule}" if rule and rule not in ("NO ACTION", "RESTRICT") else ""
    return f"FOREIGN KEY ({columns}) REFERENCES {table}" + (f" ({others})" if others else "") + ending
