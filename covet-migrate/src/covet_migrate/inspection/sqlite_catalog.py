"""What there is in an SQLite database.

SQLAlchemy's Inspector leaves out indexes of expressions, with a warning, and finds checks by patterns that do not see
all of them. So the pragmas are asked, and the text that SQLite keeps is taken apart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from covet_migrate.inspection.descriptions import (
    Check,
    Column,
    ForeignKey,
    Index,
    IndexPart,
    PrimaryKey,
    Schema,
    Table,
    Trigger,
    Unique,
    View,
)
from covet_migrate.inspection.sqlite_sql import CreatedTable, created_table, index_condition, index_parts, one_form
from covet_orm.drivers.protocol import Connection

__all__ = ["read_sqlite"]

OBJECTS = """
    SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name"""
COLUMNS = """
    SELECT t.name, c.name, c.type, c."notnull", c.dflt_value, c.pk, c.hidden
    FROM sqlite_schema t, pragma_table_xinfo(t.name) c WHERE t.type = 'table' ORDER BY t.name, c.cid"""
INDEXES = """
    SELECT t.name, i.name, i."unique", i.origin, x.name, x."desc", x.coll
    FROM sqlite_schema t, pragma_index_list(t.name) i, pragma_index_xinfo(i.name) x
    WHERE t.type = 'table' AND x.key ORDER BY t.name, i.name, x.seqno"""
VIRTUAL, STORED = 2, 3


async def read_sqlite(connection: Connection) -> Schema:
    """The schema of the file that a connection has open."""
    objects = await connection.fetch(OBJECTS)
    columns: dict[str, list[Any]] = defaultdict(list)
    for table, *column in await connection.fetch(COLUMNS):
        columns[table].append(column)
    indexes: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for table, name, *part in await connection.fetch(INDEXES):
        indexes[table][name].append(part)
    texts = {name: sql for kind, name, _, sql in objects if kind == "index"}
    triggers: dict[str, list[Trigger]] = defaultdict(list)
    for kind, name, table, sql in objects:
        if kind == "trigger":
            triggers[table].append(Trigger(name=name, definition=one_form(sql)))
    tables = {
        name: _table(name, created_table(sql), columns[name], indexes[name], texts, triggers[name])
        for kind, name, _, sql in objects
        if kind == "table" and columns[name]
    }
    views = tuple(View(name=name, definition=one_form(sql)) for kind, name, _, sql in objects if kind == "view")
    return Schema(kind="sqlite", tables={name: _referring(one, tables) for name, one in tables.items()}, views=views)


def _table(
    name: str,
    created: CreatedTable,
    columns: Iterable[Any],
    indexes: dict[str, list[Any]],
    texts: dict[str, str],
    triggers: list[Trigger],
) -> Table:
    columns = list(columns)
    key = tuple(column for column, *_, pk, _ in sorted(columns, key=lambda one: one[-2]) if pk)
    declared = [(told, tuple(part.lower() for part in parts)) for told, parts in created.uniques]
    uniques: list[Unique] = []
    others: list[Index] = []
    collations = {one.name.lower(): one.collation or "BINARY" for one in created.columns.values()}
    for index, parts in indexes.items():
        unique, origin = parts[0][0], parts[0][1]
        if origin == "c":
            others.append(_index(index, bool(unique), parts, texts[index], collations))
        elif origin == "u":
            of = tuple(part[2] for part in parts)
            found = next((one for one in declared if one[1] == tuple(part.lower() for part in of)), None)
            if found is not None:
                declared.remove(found)
            uniques.append(Unique(name=None if found is None else found[0], columns=of))
    # SQLite makes no index where the primary key, or another constraint, has one of the same columns.
    names = {column[0].lower(): column[0] for column in columns}
    uniques += [Unique(name=told, columns=tuple(names.get(part, part) for part in parts)) for told, parts in declared]
    return Table(
        name=name,
        columns=tuple(_column(created, key, *one) for one in columns),
        primary_key=PrimaryKey(name=created.primary_key, columns=key) if key else None,
        uniques=tuple(sorted(uniques, key=lambda one: (one.name or "", one.columns))),
        indexes=tuple(others),
        checks=tuple(
            Check(name=told, condition=condition)
            for told, condition in sorted(created.checks, key=lambda one: (one[0] or "", one[1]))
        ),
        foreign_keys=tuple(
            ForeignKey(
                name=one.name, columns=one.columns, table=one.table, referred=one.referred, on_delete=one.on_delete,
                on_update=one.on_update, deferrable=one.deferrable,  # type: ignore[arg-type]
            )
            for one in sorted(created.references, key=lambda one: (one.name or "", one.columns))
        ),
        triggers=tuple(triggers),
    )  # fmt: skip


def _column(
    created: CreatedTable, key: tuple[str, ...], name: str, kind: str, notnull: int, default: Any, pk: int, hidden: int
) -> Column:
    told = created.columns.get(name.lower())
    kind = kind.upper().removesuffix(" GENERATED ALWAYS") if hidden in (VIRTUAL, STORED) else kind.upper()
    counting = None
    if len(key) == 1 and pk and kind == "INTEGER":
        counting = "autoincrement" if told is not None and told.counts else "rowid"
    return Column(
        name=name,
        type=kind,
        null=not notnull and not pk,
        default=None if default is None else one_form(str(default)),
        generated=told.generated if told is not None and hidden in (VIRTUAL, STORED) else None,
        stored=hidden == STORED,
        counting=counting,
        collation=told.collation if told is not None and told.collation != "BINARY" else None,
    )


def _index(name: str, unique: bool, parts: list[Any], sql: str, collations: dict[str, str]) -> Index:
    made: list[IndexPart] = []
    for (_, _, column, descends, collation), text in zip(parts, index_parts(sql), strict=True):
        usual = collations.get(str(column).lower(), "BINARY")
        made.append(
            IndexPart(
                column=column,
                expression=None if column is not None else text,
                descending=bool(descends),
                collation=collation if collation != usual else None,
            )
        )
    return Index(name=name, parts=tuple(made), unique=unique, condition=index_condition(sql))


def _referring(table: Table, tables: dict[str, Table]) -> Table:
    """The table with the columns named that its foreign keys lead to, where they named none: those of the key."""
    from dataclasses import replace

    if all(one.referred for one in table.foreign_keys):
        return table
    keys = {name.lower(): one.primary_key.columns for name, one in tables.items() if one.primary_key is not None}
    found = [
        one if one.referred else replace(one, referred=keys.get(one.table.lower(), ())) for one in table.foreign_keys
    ]
    return replace(table, foreign_keys=tuple(found))
