"""What is otherwise in a database than the migrations say: in words, and as the actions that would mend it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

import sqlalchemy

from covet_migrate.actions.actions import Action
from covet_migrate.inspection.comparing import Difference, compare_tables
from covet_migrate.inspection.descriptions import Schema
from covet_migrate.inspection.mending import mend
from covet_migrate.inspection.own_tables import own_tables
from covet_migrate.inspection.schema import read_schema
from covet_migrate.inspection.shadow import shadow_of_tables, tables_of
from covet_migrate.state.models import State
from covet_migrate.state.rendering import Renderer, historical_models
from covet_orm import Database
from covet_orm.exceptions import DatabaseError

__all__ = ["Drift", "compare_with", "find_drift"]

CANNOT_CAST = "42846"
"""PostgreSQL's code for a type of which it makes no other one."""
BY_ITSELF = frozenset(("boolean", "smallint", "integer", "bigint", "numeric", "real", "double precision"))
"""Types of which each is made of each of the others."""


@dataclass
class Drift:
    """What is otherwise in a database than in a state.

    Attributes:
        differences: what differs in tables that the migrations know.
        unknown: what no migration knows: tables, and triggers of tables that are known. It may have been made by hand,
            by another program, or by SQL in a migration.
        actions: what makes the database as the migrations say, in an order in which it can be done; of what is unknown
            nothing is dropped.
        by_hand: the differences that no action mends, and why: an unknown table refers to a key, for instance.
    """

    differences: list[Difference] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    by_hand: dict[Difference, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether anything differs in the tables that the migrations know."""
        return bool(self.differences)

    def told(self) -> list[str]:
        """All of it in words, one difference a line."""
        return [str(one) for one in self.differences]


async def find_drift(
    database: Database, state: State, *, alias: str = "default", only: Iterable[str] | None = None
) -> Drift:
    """Compare what is there with what a state would make there.

    The server describes both, so that what it writes in other words is no difference. Nothing that is there is changed.

    Args:
        database: the database.
        state: the state, as the migrations that were applied make it.
        alias: of the database; models that name another one are left out.
        only: the labels of the applications that are compared; all by default.

    Raises:
        MigrationError: the user may not create what is needed for it; the message says what to grant.
        DatabaseError: the database cannot be asked.

    Cancelled, it leaves nothing behind; killed, on MySQL and MariaDB a database that the next call drops.
    """
    tables, kept = tables_of(state, alias)
    if only is not None:
        kept &= _tables_of_apps(state, set(only))
    there = _taken_for_checked(await read_schema(database), state)
    drift = await compare_with(database, there, tables, kept)
    known = {table.name for table in tables} | own_tables(database)
    drift.unknown += [f"table {name}" for name in sorted(there.tables) if name not in known]
    return drift


async def compare_with(
    database: Database, there: Schema, tables: Sequence[sqlalchemy.Table], kept: Collection[str]
) -> Drift:
    """Compare what is there with what some tables would be there, as `find_drift` does.

    Args:
        database: the database.
        there: what is there, as `read_schema` tells it.
        tables: the tables, of one registry, with all that they refer to, in an order in which they can be created.
        kept: the names of those that are compared.

    Raises:
        MigrationError, DatabaseError: as of `find_drift`.
    """
    wanted = await shadow_of_tables(database, tables)
    drift = Drift()
    compared: dict[str, list[Difference]] = {}
    for name in [table.name for table in tables if table.name in kept]:
        found = compare_tables(there.tables.get(name), wanted.tables.get(name), there.kind)
        drift.unknown += [f"trigger {one.name} of {name}" for one in found if one.part == "trigger"]
        compared[name] = [one for one in found if one.part != "trigger" and _is_one(one, there.kind)]
        drift.differences += compared[name]
    if drift:
        refused = await _refused(database, drift.differences)
        mended = mend(there, {table.name: table for table in tables}, compared, refused)
        drift.actions, drift.by_hand = mended.actions, mended.by_hand
    return drift


def _taken_for_checked(there: Schema, state: State) -> Schema:
    """What is there, where constraints whose rows were not checked are as any other, if the state has not checked them
    either."""
    tables = dict(there.tables)
    renderer = Renderer()
    for model in state:
        name = renderer.render(state, model.label).table.name if model.unchecked else ""
        if name in tables:
            checks = [replace(one, valid=True) if one.name in model.unchecked else one for one in tables[name].checks]
            tables[name] = replace(tables[name], checks=tuple(checks))
    return replace(there, tables=tables)


def _is_one(one: Difference, kind: str) -> bool:
    """Whether it is a difference that a migration could make or mend.

    SQLite drops no constraint by its name, which stands in messages alone; and how a table counts is kept when it is
    made anew.
    """
    return kind != "sqlite" or not ((one.only_name and one.part != "index") or one.attribute == "counting")


def _tables_of_apps(state: State, apps: set[str]) -> set[str]:
    labels = {model.label for model in state if model.app in apps}
    found: set[str] = set()
    for model in historical_models(state):
        owner = model._meta.link_of or model
        if owner._meta.label in labels:
            found.add(model._meta.db_table)
    return found


async def _refused(database: Database, differences: Iterable[Difference]) -> set[tuple[str, str]]:
    """The pairs of types of which PostgreSQL makes no second one of the first; the others make anything of anything."""
    pairs = {
        (one.one, one.other)
        for one in differences
        if one.attribute == "type" and one.one is not None and one.other is not None
    }
    asked = [pair for pair in sorted(pairs) if not BY_ITSELF.issuperset(one.partition("(")[0] for one in pair)]
    if database.kind != "postgresql" or not asked:
        return set()
    refused: set[tuple[str, str]] = set()
    # A connection of its own: an error spoils the transaction that there may be.
    connection = await database.connect()
    try:
        for old, new in asked:
            try:
                await connection.fetch(f"SELECT NULL::{old}::{new}")
            except DatabaseError as error:
                if error.code != CANNOT_CAST:
                    raise
                refused.add((old, new))
    finally:
        await connection.close()
    return refused
