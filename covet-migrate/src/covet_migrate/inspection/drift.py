"""What is otherwise in a database than the migrations say: in words, and as the actions that would mend it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy

from covet_migrate.actions.actions import (
    Action,
    AddColumn,
    AddConstraint,
    AddIndex,
    AlterColumn,
    CreateTable,
    DropColumn,
    DropConstraint,
    DropIndex,
    RenameConstraint,
    RenameIndex,
    SetTableComment,
)
from covet_migrate.inspection.comparing import Difference, compare_tables
from covet_migrate.inspection.descriptions import Table
from covet_migrate.inspection.live_tables import live_table
from covet_migrate.inspection.models import OWN_TABLES
from covet_migrate.inspection.schema import read_schema
from covet_migrate.inspection.shadow import shadow_of_tables, tables_of
from covet_migrate.state.models import State
from covet_orm import Database

__all__ = ["Drift", "find_drift"]

CHANGES = {
    "type": "type",
    "collation": "type",
    "null": "null",
    "default": "default",
    "generated": "computed",
    "counting": "counting",
    "comment": "comment",
}
"""What an attribute that differs is called in the changes of a column."""
ORDER = (
    CreateTable, RenameConstraint, RenameIndex, DropConstraint, DropIndex, DropColumn, AlterColumn, AddColumn,
    AddConstraint, AddIndex, SetTableComment,
)  # fmt: skip


@dataclass
class Drift:
    """What is otherwise in a database than in a state.

    Attributes:
        differences: what differs in tables that the migrations know.
        unknown: what no migration knows: tables, and triggers of tables that are known. It may have been made by hand,
            by another program, or by SQL in a migration.
        actions: what makes the database as the migrations say, in an order in which it can be done; of what is unknown
            nothing is dropped.
        by_hand: the differences that no action mends, such as another primary key.
    """

    differences: list[Difference] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    by_hand: list[Difference] = field(default_factory=list)

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
    wanted = await shadow_of_tables(database, tables)
    there = await read_schema(database)
    after = {table.name: table for table in tables}
    drift = Drift()
    for name in [table.name for table in tables if table.name in kept]:
        found = compare_tables(there.tables.get(name), wanted.tables.get(name), there.kind)
        drift.unknown += [f"trigger {one.name} of {name}" for one in found if one.part == "trigger"]
        found = [one for one in found if one.part != "trigger"]
        drift.differences += found
        mended = _Mending(after[name], there.tables.get(name))
        drift.by_hand += mended.add(found)
        drift.actions += mended.actions
    ours = {*after, *OWN_TABLES, *(store.table.name for store in database.store_tables.values())}
    drift.unknown += [f"table {name}" for name in sorted(there.tables) if name not in ours]
    # Foreign keys come last: they need the tables and keys that are made before.
    drift.actions.sort(key=lambda action: (_is_reference(action), ORDER.index(type(action))))
    return drift


def _tables_of_apps(state: State, apps: set[str]) -> set[str]:
    labels = {model.label for model in state if model.app in apps}
    from covet_migrate.state.rendering import historical_models

    found: set[str] = set()
    for model in historical_models(state):
        owner = model._meta.link_of or model
        if owner._meta.label in labels:
            found.add(model._meta.db_table)
    return found


def _is_reference(action: Action) -> bool:
    constraint = getattr(action, "constraint", None)
    return isinstance(action, AddConstraint) and isinstance(constraint, sqlalchemy.ForeignKeyConstraint)


class _Mending:
    """Collects the actions that make one table as it is to be."""

    def __init__(self, after: sqlalchemy.Table, there: Table | None) -> None:
        self.after = after
        self.live = None if there is None else live_table(there)
        self.actions: list[Any] = []
        self.altered: dict[str, set[str]] = {}

    def add(self, found: Iterable[Difference]) -> list[Difference]:
        """Take differences; those that no action mends come back."""
        left = [one for one in found if not self._mend(one)]
        for name, changes in self.altered.items():
            assert self.live is not None
            self.actions.append(
                AlterColumn(
                    table=self.after, before=self.live.c[name], column=self.after.c[name], changes=frozenset(changes)
                )
            )
        return left

    def _mend(self, one: Difference) -> bool:
        if one.part == "table":
            return self._mend_table(one)
        if self.live is None:
            return False
        if one.part == "column":
            return self._mend_column(one, str(one.name))
        if one.part == "primary key":
            return False
        before = _part(self.live, one.one if one.only_name else one.name)
        after = _part(self.after, one.name)
        if one.only_name:
            return self._rename(before, after)
        if (one.one is not None and before is None) or (one.other is not None and after is None):
            # Without a name, as SQLite may have it, there is nothing to be called by.
            return False
        if one.one is not None:
            self._drop(before)
        if one.other is not None:
            self._create(after)
        return True

    def _mend_table(self, one: Difference) -> bool:
        if one.attribute is None:
            self.actions.append(CreateTable(table=self.after))
            return True
        if one.attribute == "comment":
            self.actions.append(SetTableComment(table=self.after))
        return one.attribute == "comment"

    def _mend_column(self, one: Difference, name: str) -> bool:
        assert self.live is not None
        if one.attribute is not None:
            self.altered.setdefault(name, set()).add(CHANGES[one.attribute])
        elif one.one is None:
            self.actions.append(AddColumn(table=self.after, column=self.after.c[name]))
        else:
            self.actions.append(DropColumn(table=self.after, column=self.live.c[name]))
        return True

    def _rename(self, before: Any, after: Any) -> bool:
        if isinstance(after, sqlalchemy.Index) and isinstance(before, sqlalchemy.Index):
            self.actions.append(RenameIndex(table=self.after, index=after, before=str(before.name)))
        elif isinstance(after, sqlalchemy.Constraint) and isinstance(before, sqlalchemy.Constraint):
            self.actions.append(RenameConstraint(table=self.after, constraint=after, before=before))
        else:
            return False
        return True

    def _drop(self, one: Any) -> None:
        if isinstance(one, sqlalchemy.Index):
            self.actions.append(DropIndex(table=self.after, index=one))
        else:
            self.actions.append(DropConstraint(table=self.after, constraint=one))

    def _create(self, one: Any) -> None:
        if isinstance(one, sqlalchemy.Index):
            self.actions.append(AddIndex(table=self.after, index=one))
        else:
            self.actions.append(AddConstraint(table=self.after, constraint=one))


def _part(table: sqlalchemy.Table, name: str | None) -> Any:
    parts: list[Any] = [*table.constraints, *table.indexes]
    return next((one for one in parts if name is not None and one.name is not None and str(one.name) == name), None)
