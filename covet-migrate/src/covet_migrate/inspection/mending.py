"""The actions that make tables as they are to be, from what differs in them.

A foreign key is dropped before what it needs is changed, and added when all of that is there again; so is what else is
in the way: an index of a column that is made anew, a name that another one is to have.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
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
    Execute,
    RenameConstraint,
    RenameIndex,
    SetTableComment,
    TableAction,
)
from covet_migrate.actions.comparing import Texts, constraints_of, indexes_of
from covet_migrate.inspection.comparing import Difference
from covet_migrate.inspection.descriptions import Schema
from covet_migrate.inspection.live_tables import live_table
from covet_migrate.inspection.obstacles import Obstacles, part_name, part_of, space
from covet_orm.schema import defining_dialect

__all__ = ["Mended", "mend"]

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
JSON_CHECK = "json_valid("


@dataclass
class Mended:
    """What is done about differences.

    Attributes:
        actions: what makes the tables as they are to be, in an order in which it can be done.
        by_hand: by each difference that no action mends, why.
    """

    actions: list[Action] = field(default_factory=list)
    by_hand: dict[Difference, str] = field(default_factory=dict)


def mend(
    there: Schema,
    after: Mapping[str, sqlalchemy.Table],
    compared: Mapping[str, Sequence[Difference]],
    refused: Collection[tuple[str, str]] = (),
) -> Mended:
    """What is done about differences.

    Args:
        there: what is in the database.
        after: the tables as they are to be, by name.
        compared: by the name of each table that is to be mended, in an order in which they can be created, what
            differs in it. Nothing of other tables is changed.
        refused: pairs of types of which the database makes no one of the other.
    """
    by_hand = Obstacles(there, after, compared, refused).find()
    tables = {
        name: _Table(
            there.kind,
            after[name],
            live_table(there.tables[name]) if name in there.tables else None,
            [one for one in differences if one not in by_hand],
        )
        for name, differences in compared.items()
    }
    _free_names(there, tables.values())
    if there.kind != "sqlite":
        _free_keys(there, tables)
    actions: list[Action] = [one for table in tables.values() for one in table.actions()]
    actions = _created(there, actions)
    actions.sort(key=_rank)
    if there.kind == "sqlite":
        actions = _free_first(actions)
    return Mended(actions, by_hand)


class _Table:
    """What is done to one table.

    Args:
        kind: of the database.
        after: the table as it is to be.
        live: as it is; None where it is not there.
        differences: those that are mended.
    """

    def __init__(
        self, kind: str, after: sqlalchemy.Table, live: sqlalchemy.Table | None, differences: Iterable[Difference]
    ) -> None:
        self.kind = kind
        self.name = after.name
        self.after = after
        self.live = live
        self.texts = Texts(kind, {})
        self.created = self.commented = False
        self.dropped: list[str] = []
        self.added: list[str] = []
        self.altered: dict[str, set[str]] = {}
        self.leaving: list[Any] = []
        self.coming: list[Any] = []
        self.renamed: list[tuple[Any, Any]] = []
        for one in differences:
            self._take(one)
        self.remade = self._remade()
        self._take_along()

    @property
    def retyped(self) -> set[str]:
        """The columns that are no longer what they were, or no longer there."""
        return {*self.dropped, *self.remade, *(name for name, changes in self.altered.items() if "type" in changes)}

    def leave(self, one: Any) -> None:
        """Drop a part for as long as something is done, and add it again, where it is to be there."""
        if one in self.leaving:
            return
        self.leaving.append(one)
        for pair in [pair for pair in self.renamed if pair[0] is one]:
            self.renamed.remove(pair)
            self.coming.append(pair[1])
        again = part_of(self.after, part_name(one), None if one.name is None else str(one.name))
        if again is not None and again not in self.coming:
            self.coming.append(again)

    def actions(self) -> Iterator[TableAction]:
        """The actions, in no order."""
        if self.created or self.live is None:
            if self.created:
                yield CreateTable(table=self.after)
            return
        live = self.live
        for one in self.leaving:
            yield _drop(self.after, one)
        for old, new in self.renamed:
            yield _rename(self.after, old, new)
        for name in (*self.dropped, *sorted(self.remade)):
            yield DropColumn(table=self.after, column=live.c[name])
        for name, changes in self.altered.items():
            if name not in self.remade:
                yield AlterColumn(
                    table=self.after, before=live.c[name], column=self.after.c[name], changes=frozenset(changes)
                )
        for name in (*self.added, *sorted(self.remade)):
            yield AddColumn(table=self.after, column=self.after.c[name])
        for one in self.coming:
            yield _add(self.after, one)
        if self.commented:
            yield SetTableComment(table=self.after)

    def _take(self, one: Difference) -> None:
        if one.part == "table":
            self.created, self.commented = one.attribute is None, one.attribute is not None
        elif one.part != "column":
            self._take_part(one)
        elif one.attribute is not None:
            self.altered.setdefault(str(one.name), set()).add(CHANGES[one.attribute])
        else:
            (self.added if one.one is None else self.dropped).append(str(one.name))

    def _take_part(self, one: Difference) -> None:
        assert self.live is not None
        before = part_of(self.live, one.part, one.one if one.only_name else one.name)
        after = part_of(self.after, one.part, one.name)
        if self.kind == "mariadb" and JSON_CHECK in (one.one or one.other or ""):
            # MariaDB makes that check of a column of type JSON, and takes it away with the type.
            name = str(one.name)
            if name in self.after.c and name in self.live.c:
                self.altered.setdefault(name, set()).add("type")
            return
        if one.only_name and before.name is not None and part_name(before) == part_name(after):
            self.renamed.append((before, after))
            return
        if one.one is not None or one.only_name:
            self.leaving.append(before)
        if one.other is not None or one.only_name:
            self.coming.append(after)

    def _remade(self) -> set[str]:
        """The columns that are dropped and added, as no statement alters what computes them."""
        if self.kind == "sqlite" or self.live is None:
            # There, the table is made anew.
            return set()
        retyped = {*self.dropped, *(name for name, changes in self.altered.items() if "type" in changes)}
        found: set[str] = set()
        for column in self.after.columns:
            old = self.live.c.get(column.name)
            if old is None or column.name in self.added:
                continue
            changes = self.altered.get(column.name, set())
            was, becomes = old.computed, column.computed
            if was is None and becomes is None:
                continue
            if self.kind != "postgresql":
                kept = was is not None and becomes is not None and was.persisted == becomes.persisted
                stored = all(bool(one.persisted) for one in (was, becomes) if one is not None)
                again = "computed" in changes and not kept and not stored
            elif becomes is None:
                again = was is not None and was.persisted is False
            else:
                again = bool(changes & {"computed", "type"}) or bool(
                    retyped & self.texts.words(str(self.texts.computed(column)))
                )
            if again:
                found.add(column.name)
        return found

    def _take_along(self) -> None:
        """What is of a column that is made anew goes with it, and comes again."""
        if not self.remade or self.live is None:
            return
        parts: list[Any] = [*constraints_of(self.live, self.kind), *indexes_of(self.live, self.kind)]
        for one in parts:
            text = self.texts.index(one) if isinstance(one, sqlalchemy.Index) else self.texts.constraint(one)
            if self.remade & self.texts.words(text):
                self.leave(one)


def _free_names(there: Schema, tables: Iterable[_Table]) -> None:
    """Where something gets a name that is there, it does not get it by being renamed: what has it goes before."""
    held: set[Any] = set()
    for table in tables:
        parts: list[Any] = [] if table.live is None else [*table.live.constraints, *table.live.indexes]
        held |= {
            (space(there.kind, table.name, part_name(one)), str(one.name)) for one in parts if one.name is not None
        }
    for table in tables:
        for old, new in list(table.renamed):
            where = space(there.kind, table.name, part_name(new))
            if where is not None and (where, str(new.name)) in held and part_name(new) != "primary key":
                table.renamed.remove((old, new))
                table.leaving.append(old)
                table.coming.append(new)


def _free_keys(there: Schema, tables: Mapping[str, _Table]) -> None:
    """Foreign keys go before the columns and keys that they need are changed, and come after that."""
    retyped = {name: table.retyped for name, table in tables.items()}
    keys = {
        name: [{column.name for column in one.columns} for one in table.leaving if _is_key(one)]
        for name, table in tables.items()
    }
    for table in tables.values():
        if table.live is None:
            continue
        for key in there.tables[table.name].foreign_keys:
            referred = set(key.referred)
            in_the_way = (
                not retyped[table.name].isdisjoint(key.columns)
                or not referred.isdisjoint(retyped.get(key.table, ()))
                or referred in keys.get(key.table, ())
            )
            if in_the_way:
                table.leave(part_of(table.live, "foreign key", key.name))


def _created(there: Schema, actions: Iterable[Action]) -> list[Action]:
    """The actions, with the foreign keys of new tables added when both tables are there, where a database can."""
    found: list[Action] = []
    present = set(there.tables)
    for action in actions:
        if isinstance(action, CreateTable) and there.kind != "sqlite":
            later = [
                key
                for key in sorted(action.table.foreign_key_constraints, key=lambda key: str(key.name))
                if key.referred_table.name not in {*present, action.table.name}
            ]
            present.add(action.table.name)
            found.append(CreateTable(table=action.table, later=frozenset(str(key.name) for key in later)))
            found += [AddConstraint(table=action.table, constraint=key) for key in later]
        else:
            found.append(action)
    return found


def _free_first(actions: Sequence[Action]) -> list[Action]:
    """On SQLite, all that is done to a table is done at once, and an index has its name in the whole schema. So one
    whose name another table needs is dropped before everything else."""
    needed = {
        (str(one.name), action.table.name)
        for action in actions
        if isinstance(action, (CreateTable, AddIndex, RenameIndex))
        for one in (action.table.indexes if isinstance(action, CreateTable) else [action.index])
    }
    quote = defining_dialect("sqlite").identifier_preparer.quote
    first, rest = list[Action](), list[Action]()
    for action in actions:
        name = str(action.index.name) if isinstance(action, DropIndex) else ""
        if isinstance(action, DropIndex) and any(of == name and by != action.table.name for of, by in needed):
            first.append(Execute(sql=f"DROP INDEX {quote(name)}"))
        else:
            rest.append(action)
    return [*first, *rest]


def _rank(action: Action) -> int:
    """Where an action stands among the others."""
    match action:
        case DropConstraint():
            return 0 if isinstance(action.constraint, sqlalchemy.ForeignKeyConstraint) else 1
        case DropIndex():
            return 1
        case RenameConstraint() | RenameIndex():
            return 2
        case DropColumn():
            # What is computed goes before what it is computed of; a table has a column at every moment.
            return 3 if action.column.computed is not None or action.column.name in action.table.c else 7
        case AlterColumn():
            return 4
        case AddColumn():
            return 5 if action.column.computed is None else 6
        case AddConstraint():
            if isinstance(action.constraint, sqlalchemy.ForeignKeyConstraint):
                return 12
            return 8 if isinstance(action.constraint, sqlalchemy.PrimaryKeyConstraint) else 9
        case AddIndex():
            return 10
        case CreateTable():
            return 11
        case _:
            return 13


def _is_key(one: Any) -> bool:
    if isinstance(one, sqlalchemy.Index):
        return bool(one.unique)
    return isinstance(one, (sqlalchemy.PrimaryKeyConstraint, sqlalchemy.UniqueConstraint))


def _drop(table: sqlalchemy.Table, one: Any) -> TableAction:
    if isinstance(one, sqlalchemy.Index):
        return DropIndex(table=table, index=one)
    return DropConstraint(table=table, constraint=one)


def _add(table: sqlalchemy.Table, one: Any) -> TableAction:
    if isinstance(one, sqlalchemy.Index):
        return AddIndex(table=table, index=one)
    return AddConstraint(table=table, constraint=one)


def _rename(table: sqlalchemy.Table, old: Any, new: Any) -> TableAction:
    if isinstance(new, sqlalchemy.Index):
        return RenameIndex(table=table, index=new, before=str(old.name))
    return RenameConstraint(table=table, constraint=new, before=old)
