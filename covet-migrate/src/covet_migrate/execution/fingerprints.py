"""What a schema looks like, in a few bytes: by that it is found out whether a statement happened that was under way
when its process, or its server, died.

A statement of DDL happens as a whole or not at all (InnoDB since MySQL 8.0 and MariaDB 10.6; PostgreSQL; SQLite). So
where the schema is what it was before, it has not happened; otherwise it has. What changes nothing that can be seen may
be done twice.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from hashlib import blake2b

from covet_orm.dialects import dialect_of
from covet_orm.drivers.protocol import Connection
from covet_orm.exceptions import DatabaseError

__all__ = ["fingerprint", "invalid_indexes"]

COUNTER = re.compile(r" AUTO_INCREMENT=\d+")
"""What SHOW CREATE TABLE tells of the rows, and not of the schema; on its last line."""
NOT_THERE = ("1146", "1049")

MYSQL = """
SELECT CONCAT_WS(':', 't', table_name, table_type) FROM information_schema.tables WHERE table_schema = DATABASE()
    AND table_name NOT LIKE 'covet\\_migrations%%'
UNION ALL SELECT
        CONCAT_WS(':', 'g', trigger_name, event_object_table, action_timing, event_manipulation, action_statement)
    FROM information_schema.triggers WHERE trigger_schema = DATABASE()
UNION ALL SELECT CONCAT_WS(':', 'r', routine_type, routine_name, routine_definition)
    FROM information_schema.routines WHERE routine_schema = DATABASE()
ORDER BY 1
"""
POSTGRESQL = """
SELECT concat_ws(':', 'r', c.oid, c.relname, c.relkind, c.reloptions::text, c.relpersistence, c.reltablespace,
        obj_description(c.oid), c.relrowsecurity,
        CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_index i ON i.indexrelid = c.oid
    WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND coalesce(i.indisvalid, true)
        AND c.relname NOT LIKE 'covet\\_migrations%'
UNION ALL SELECT concat_ws(':', 'a', a.attrelid, a.attnum, a.attname, a.attnotnull, a.attidentity, a.attgenerated,
        format_type(a.atttypid, a.atttypmod), a.attstattarget, a.attstorage, pg_get_expr(d.adbin, d.adrelid),
        col_description(a.attrelid, a.attnum))
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND a.attnum > 0
        AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relname NOT LIKE 'covet\\_migrations%'
UNION ALL SELECT concat_ws(':', 'c', conrelid, conname, convalidated, condeferrable, pg_get_constraintdef(oid))
    FROM pg_constraint WHERE conrelid <> 0
UNION ALL SELECT
        concat_ws(':', 'i', indexrelid, indisunique, indisclustered, indisreplident, pg_get_indexdef(indexrelid))
    FROM pg_index WHERE indisvalid AND indrelid >= 16384
UNION ALL SELECT concat_ws(':', 'e', enumtypid, enumsortorder, enumlabel) FROM pg_enum
UNION ALL SELECT concat_ws(':', 'x', extname, extversion) FROM pg_extension
UNION ALL SELECT concat_ws(':', 'p', p.oid, p.proname, p.prosrc) FROM pg_proc p WHERE p.oid >= 16384
UNION ALL SELECT concat_ws(':', 'g', oid, pg_get_triggerdef(oid)) FROM pg_trigger WHERE NOT tgisinternal
ORDER BY 1
"""
SQLITE = """
SELECT type || ':' || name || ':' || coalesce(sql, '') FROM sqlite_schema
    WHERE tbl_name NOT LIKE 'covet_migrations%' ORDER BY 1
"""
INVALID = """
SELECT n.nspname, c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT i.indisvalid ORDER BY 1, 2
"""


async def fingerprint(connection: Connection, kind: str, tables: Collection[str] | None) -> str:
    """What a schema looks like.

    Args:
        connection: at rest.
        kind: of the database.
        tables: the tables that a statement is about, whether they are there or not; None where that is not known, so
            that everything is looked at.

    Raises:
        DatabaseError: the server does not say.
    """
    if kind == "postgresql":
        parts = [str(row[0]) for row in await connection.fetch(POSTGRESQL)]
    elif kind == "sqlite":
        parts = [str(row[0]) for row in await connection.fetch(SQLITE)]
    else:
        parts = []
        if tables is None:
            parts = [str(row[0]) for row in await connection.fetch(MYSQL)]
            tables = [part.split(":")[1] for part in parts if part.startswith("t:")]
        parts += [await _mysql_table(connection, kind, table) for table in sorted(tables)]
    digest = blake2b(digest_size=24)
    for part in parts:
        digest.update(f"{len(part)}:{part}".encode("utf-8", "backslashreplace"))
    return digest.hexdigest()


async def _mysql_table(connection: Connection, kind: str, table: str) -> str:
    # By the dialect of the driver, which formats what it is given.
    quoted = dialect_of(kind).identifier_preparer.quote_identifier(table)
    try:
        rows = await connection.fetch(f"SHOW CREATE TABLE {quoted}")
    except DatabaseError as error:
        if error.code not in NOT_THERE:
            raise
        return f"{table} is not there"
    head, newline, last = str(rows[0][1]).rpartition("\n")
    return f"{table}: {head}{newline}{COUNTER.sub('', last)}"


async def invalid_indexes(connection: Connection) -> list[tuple[str, str]]:
    """The schemas and names of indexes that CREATE or DROP INDEX CONCURRENTLY did not bring to an end (PostgreSQL)."""
    return [(str(row[0]), str(row[1])) for row in await connection.fetch(INVALID)]
