"""What there is in a schema of a PostgreSQL database.

SQLAlchemy's Inspector tells most of it. The catalogue is asked for the rest: types in the server's words (the Inspector
warns of those that it does not know), exclusion constraints, what is deferrable or not valid, triggers, extensions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

import sqlalchemy

from covet_migrate.inspection.connections import run_inspector
from covet_migrate.inspection.descriptions import (
    Check,
    Column,
    Deferred,
    Enum,
    Exclusion,
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

__all__ = ["read_postgresql"]

COLUMNS = """
    SELECT c.relname, a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), NOT a.attnotnull,
        pg_catalog.pg_get_expr(d.adbin, d.adrelid), a.attgenerated::text, a.attidentity::text, o.collname,
        pg_catalog.col_description(c.oid, a.attnum),
        (SELECT pg_catalog.format_type(s.seqtypid, NULL)
            FROM pg_catalog.pg_depend p JOIN pg_catalog.pg_sequence s ON s.seqrelid = p.objid
            WHERE p.refobjid = c.oid AND p.refobjsubid = a.attnum
            AND p.classid = 'pg_catalog.pg_class'::regclass AND p.deptype = 'a'
            AND pg_catalog.pg_get_expr(d.adbin, d.adrelid) LIKE 'nextval(%' LIMIT 1)
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
    LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    LEFT JOIN pg_catalog.pg_collation o ON o.oid = a.attcollation AND a.attcollation <> t.typcollation
    WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') ORDER BY c.relname, a.attnum"""
CONSTRAINTS = """
    SELECT c.relname, k.conname, k.contype::text, k.condeferrable, k.condeferred, k.convalidated
    FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND k.contype <> 'n'"""
EXCLUSIONS = """
    SELECT c.relname, k.conname, a.amname,
        ARRAY (SELECT pg_catalog.pg_get_indexdef(k.conindid, g, true)
            FROM pg_catalog.generate_series(1, i.indnkeyatts) g ORDER BY g),
        ARRAY (SELECT i.indkey[g - 1] <> 0 FROM pg_catalog.generate_series(1, i.indnkeyatts) g ORDER BY g),
        ARRAY (SELECT o.oprname::text FROM pg_catalog.unnest(k.conexclop) WITH ORDINALITY u (op, n)
            JOIN pg_catalog.pg_operator o ON o.oid = u.op ORDER BY u.n),
        ARRAY (SELECT t.attname::text FROM pg_catalog.generate_series(1, i.indnkeyatts) g
            LEFT JOIN pg_catalog.pg_attribute t ON t.attrelid = c.oid AND t.attnum = i.indkey[g - 1] ORDER BY g),
        pg_catalog.pg_get_expr(i.indpred, i.indrelid)
    FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_index i ON i.indexrelid = k.conindid
    JOIN pg_catalog.pg_class x ON x.oid = k.conindid JOIN pg_catalog.pg_am a ON a.oid = x.relam
    WHERE n.nspname = $1 AND k.contype = 'x' ORDER BY k.conname"""
INVALID = """
    SELECT x.relname FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = x.relnamespace WHERE n.nspname = $1 AND NOT i.indisvalid"""
COLLATIONS = """
    SELECT x.relname, u.n::int, o.collname
    FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = x.relnamespace
    CROSS JOIN LATERAL pg_catalog.unnest(i.indcollation::oid[]) WITH ORDINALITY u (code, n)
    JOIN pg_catalog.pg_attribute t ON t.attrelid = i.indrelid AND t.attnum = i.indkey[u.n - 1]
    JOIN pg_catalog.pg_collation o ON o.oid = u.code
    WHERE n.nspname = $1 AND u.code <> t.attcollation"""
"""Those of the columns of indexes, where they are not those of the columns themselves."""
TRIGGERS = """
    SELECT c.relname, t.tgname, pg_catalog.pg_get_triggerdef(t.oid, true)
    FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND NOT t.tgisinternal ORDER BY t.tgname"""
SEQUENCES = """
    SELECT c.relname, s.seqstart, s.seqincrement
    FROM pg_catalog.pg_sequence s JOIN pg_catalog.pg_class c ON c.oid = s.seqrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
        WHERE d.objid = c.oid AND d.classid = 'pg_catalog.pg_class'::regclass AND d.deptype IN ('a', 'i'))
    ORDER BY c.relname"""
INTEGERS = {"smallint": 2, "integer": 4, "bigint": 8}
"""Types that count, and their bytes."""
EXTENSIONS = "SELECT extname FROM pg_catalog.pg_extension WHERE extname <> 'plpgsql' ORDER BY extname"


class _State(NamedTuple):
    """What the catalogue tells of a constraint beyond what it is."""

    deferrable: Deferred | None
    valid: bool


class _Told(NamedTuple):
    """What the Inspector tells, each by table."""

    keys: Mapping[str, Any]
    uniques: Mapping[str, Any]
    indexes: Mapping[str, Any]
    checks: Mapping[str, Any]
    foreign_keys: Mapping[str, Any]
    comments: Mapping[str, Any]
    enums: tuple[Enum, ...]
    views: tuple[View, ...]


async def read_postgresql(connection: Connection, schema: str | None = None) -> Schema:
    """The schema of that name, or else the one in which a connection would create a table."""
    name = schema or (await connection.fetch("SELECT pg_catalog.current_schema()::text"))[0][0]
    told = await run_inspector(connection, "postgresql", lambda inspector: _inspect(inspector, name))
    columns: dict[str, list[Column]] = defaultdict(list)
    for table, *column in await connection.fetch(COLUMNS, (name,)):
        columns[table].append(_column(*column))
    states: dict[tuple[str, str], _State] = {}
    for table, constraint, _, deferrable, deferred, valid in await connection.fetch(CONSTRAINTS, (name,)):
        when: Deferred | None = ("deferred" if deferred else "immediate") if deferrable else None
        states[table, constraint] = _State(when, valid)
    exclusions: dict[str, list[Exclusion]] = defaultdict(list)
    for table, constraint, *parts in await connection.fetch(EXCLUSIONS, (name,)):
        exclusions[table].append(_exclusion(constraint, states[table, constraint], *parts))
    invalid = {row[0] for row in await connection.fetch(INVALID, (name,))}
    collations: dict[str, dict[int, str]] = defaultdict(dict)
    for index, position, collation in await connection.fetch(COLLATIONS, (name,)):
        collations[index][position] = collation
    triggers: dict[str, list[Trigger]] = defaultdict(list)
    for table, trigger, definition in await connection.fetch(TRIGGERS, (name,)):
        triggers[table].append(Trigger(name=trigger, definition=definition))
    tables = {
        table: Table(
            name=table,
            columns=tuple(found),
            primary_key=_key(told.keys.get(table)),
            uniques=tuple(_unique(one, states[table, one["name"]]) for one in told.uniques.get(table, ())),
            indexes=tuple(
                _index(one, one["name"] not in invalid, collations[one["name"]])
                for one in told.indexes.get(table, ())
                if (table, one["name"]) not in states
            ),
            checks=tuple(
                Check(name=one["name"], condition=one["sqltext"], valid=states[table, one["name"]].valid)
                for one in told.checks.get(table, ())
            ),
            foreign_keys=tuple(
                _foreign_key(one, states[table, one["name"]], name) for one in told.foreign_keys.get(table, ())
            ),
            exclusions=tuple(exclusions[table]),
            triggers=tuple(triggers[table]),
            comment=(told.comments.get(table) or {}).get("text"),
        )
        for table, found in columns.items()
    }
    return Schema(
        kind="postgresql",
        tables=tables,
        views=told.views,
        sequences=tuple(
            Sequence(name=sequence, start=start, increment=increment)
            for sequence, start, increment in await connection.fetch(SEQUENCES, (name,))
        ),
        enums=told.enums,
        extensions=tuple(row[0] for row in await connection.fetch(EXTENSIONS)),
    )


def _inspect(inspector: sqlalchemy.Inspector, schema: str) -> _Told:
    def by_table(found: Mapping[Any, Any]) -> Mapping[str, Any]:
        return {table: one for (_, table), one in found.items()}

    def by_name(found: Mapping[Any, Any]) -> Mapping[str, Any]:
        return {table: sorted(many, key=lambda one: str(one["name"])) for (_, table), many in found.items()}

    asked: Any = inspector
    views = [(name, False) for name in inspector.get_view_names(schema)]
    views += [(name, True) for name in inspector.get_materialized_view_names(schema)]
    return _Told(
        by_table(inspector.get_multi_pk_constraint(schema)),
        by_name(inspector.get_multi_unique_constraints(schema)),
        by_name(inspector.get_multi_indexes(schema)),
        by_name(inspector.get_multi_check_constraints(schema)),
        by_name(inspector.get_multi_foreign_keys(schema)),
        by_table(inspector.get_multi_table_comment(schema)),
        tuple(
            Enum(name=one["name"], labels=tuple(one["labels"]))
            for one in sorted(asked.get_enums(schema), key=lambda one: str(one["name"]))
        ),
        tuple(
            View(name=name, definition=inspector.get_view_definition(name, schema), materialized=keeps)
            for name, keeps in sorted(views)
        ),
    )


def _column(
    name: str, kind: str, null: bool, expression: str | None, generated: str, identity: str, collation: str | None,
    comment: str | None, sequence: str | None,
) -> Column:  # fmt: skip
    counting = {"a": "always", "d": "by default"}.get(identity)
    if counting is None and sequence is not None:
        # A key that was made larger by other tools goes on counting to the end of what it was.
        narrow = INTEGERS.get(sequence, 0) < INTEGERS.get(kind, 0)
        counting = f"serial of {sequence}" if narrow else "serial"
    return Column(
        name=name,
        type=kind,
        null=null,
        default=None if generated or counting else expression,
        generated=expression if generated else None,
        stored=generated == "s",
        counting=counting,
        collation=collation,
        comment=comment,
    )


def _key(told: Any) -> PrimaryKey | None:
    if not told or not told["constrained_columns"]:
        return None
    return PrimaryKey(name=told["name"], columns=tuple(told["constrained_columns"]))


def _unique(told: Any, state: _State) -> Unique:
    options = told.get("dialect_options", {})
    return Unique(
        name=told["name"],
        columns=tuple(told["column_names"]),
        nulls_distinct=not options.get("postgresql_nulls_not_distinct"),
        deferrable=state.deferrable,
        include=tuple(options.get("postgresql_include") or ()),
    )


def _index(told: Any, valid: bool, collations: Mapping[int, str]) -> Index:
    options = told.get("dialect_options", {})
    columns = told["column_names"]
    expressions = told.get("expressions") or columns
    sorting = told.get("column_sorting") or {}
    classes = options.get("postgresql_ops") or {}
    return Index(
        name=told["name"],
        parts=tuple(
            _part(column, text, sorting.get(text, ()), classes.get(text), collations.get(position))
            for position, (column, text) in enumerate(zip(columns, expressions, strict=True), start=1)
        ),
        unique=bool(told["unique"]),
        condition=options.get("postgresql_where"),
        include=tuple(options.get("postgresql_include") or ()),
        method=options.get("postgresql_using"),
        nulls_distinct=not options.get("postgresql_nulls_not_distinct"),
        valid=valid,
    )


def _part(
    column: str | None, text: str, sorting: tuple[str, ...], opclass: str | None, collation: str | None
) -> IndexPart:
    return IndexPart(
        column=column,
        expression=None if column is not None else text,
        descending="desc" in sorting,
        nulls="first" if "nulls_first" in sorting else "last" if "nulls_last" in sorting else None,
        opclass=opclass,
        collation=collation,
    )


def _foreign_key(told: Any, state: _State, schema: str) -> ForeignKey:
    options = told["options"]
    elsewhere = told["referred_schema"]
    table = told["referred_table"]
    return ForeignKey(
        name=told["name"],
        columns=tuple(told["constrained_columns"]),
        table=table if elsewhere in (None, schema) else f"{elsewhere}.{table}",
        referred=tuple(told["referred_columns"]),
        on_delete=options.get("ondelete") or "NO ACTION",
        on_update=options.get("onupdate") or "NO ACTION",
        deferrable=state.deferrable,
        valid=state.valid,
    )


def _exclusion(
    name: str, state: _State, method: str, texts: list[str], plain: list[bool], operators: list[str],
    columns: list[str | None], condition: str | None,
) -> Exclusion:  # fmt: skip
    parts = [
        (IndexPart(column=column) if is_column else IndexPart(expression=text), operator)
        for text, is_column, operator, column in zip(texts, plain, operators, columns, strict=True)
    ]
    return Exclusion(name=name, parts=tuple(parts), method=method, condition=condition, deferrable=state.deferrable)
