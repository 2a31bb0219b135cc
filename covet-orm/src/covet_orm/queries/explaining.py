"""`explain`: how a database runs a query."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from covet.settings_schema import nearest
from covet_orm.exceptions import NotSupported, QueryError

if TYPE_CHECKING:
    from covet_orm.queries.querysets import QuerySet

__all__ = ["explain"]

FORMATS = {
    "postgresql": ("text", "json", "xml", "yaml"),
    "mysql": ("text", "json", "tree"),
    "mariadb": ("text", "json"),
    "sqlite": ("text",),
}
OPTIONS = ("buffers", "costs", "generic_plan", "memory", "settings", "summary", "timing", "verbose", "wal")
"""Those of PostgreSQL that are on or off (its documentation, "EXPLAIN")."""


async def explain(query: QuerySet[Any], *, analyze: bool, form: str, options: Mapping[str, Any]) -> str:
    """What the database says of a query. What `QuerySet.explain` does."""
    database = query.database
    await database.open()
    plan, parameters = query.prepared(database)
    async with database.connection(reads=True) as connection:
        rows = await connection.query(_begin(database.kind, analyze, form, options) + plan.sql, parameters)
    if database.kind == "sqlite":
        return _tree([(row[0], row[1], row[3]) for row in rows.rows])
    if len(rows.columns) == 1:
        return "\n".join(str(row[0]) for row in rows.rows)
    return "\n".join(
        " ".join(f"{name}={value}" for name, value in zip(rows.columns, row, strict=True) if value is not None)
        for row in rows.rows
    )


def _begin(kind: str, analyze: bool, form: str, options: Mapping[str, Any]) -> str:
    """What stands before the statement: words of ours alone."""
    if form not in FORMATS[kind]:
        raise NotSupported(f"explain(format={form!r:.60}): {kind} has {', '.join(FORMATS[kind])}")
    for name, value in options.items():
        if kind != "postgresql":
            raise NotSupported(f"explain({name:.60}=...): {kind} has no such options; PostgreSQL has")
        if name not in OPTIONS:
            raise QueryError(f"explain() has no option {name!r:.60}{nearest(name, OPTIONS)}")
        if value is not True and value is not False:
            raise QueryError(f"explain({name}={value!r:.60}): it is True or False")
    if kind == "postgresql":
        words = [f"FORMAT {form.upper()}", *(["ANALYZE"] if analyze else [])]
        words += [f"{name.upper()} {'ON' if value else 'OFF'}" for name, value in options.items()]
        return f"EXPLAIN ({', '.join(words)}) "
    if kind == "sqlite":
        if analyze:
            raise NotSupported("explain(analyze=True): SQLite tells its plan, and not what it took")
        return "EXPLAIN QUERY PLAN "
    chosen = "" if form == "text" else f" FORMAT={form.upper()}"
    if not analyze:
        return f"EXPLAIN{chosen} "
    return f"ANALYZE{chosen} " if kind == "mariadb" else f"EXPLAIN ANALYZE{chosen} "


def _tree(rows: list[tuple[int, int, str]]) -> str:
    """The plan of SQLite: each step behind what it is a part of."""
    depths = {0: -1}
    lines: list[str] = []
    for number, parent, told in rows:
        depths[number] = depths.get(parent, -1) + 1
        lines.append("  " * depths[number] + told)
    return "\n".join(lines)
