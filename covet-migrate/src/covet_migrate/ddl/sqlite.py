"""Statements of SQLite, which alters little of a table: what it cannot alter, the table is made anew for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
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
    DropIndex,
    DropTable,
    RenameColumn,
    RenameIndex,
    RenameTable,
    SetTableComment,
    TableAction,
    ValidateConstraint,
)
from covet_migrate.actions.columns import alone, form_of_time
from covet_migrate.ddl.base import DDL
from covet_migrate.ddl.rebuilding import broken_foreign_keys, rebuild, rebuild_statements
from covet_migrate.steps import RebuildTable, Statement, Step

__all__ = ["SQLite", "broken_foreign_keys", "rebuild", "rebuild_statements"]

CONSTANT = re.compile(r"'(?:[^']|'')*'|[-+]?\d[\w.]*|X'[0-9A-F]*'|NULL|TRUE|FALSE", re.IGNORECASE)
"""What a column that is added may have as a default (https://sqlite.org/lang_altertable.html)."""
DROPS_COLUMNS = (3, 35)
AT_ONCE = (CreateTable, DropTable, RenameTable, RenameColumn, AddIndex, DropIndex, RenameIndex, SetTableComment)
BEFORE = (RenameTable, RenameColumn, DropIndex, RenameIndex)
"""What is done to a table before it is made anew; SQLite follows a new name into triggers, views and other tables."""


class SQLite(DDL):
    """Statements of SQLite."""

    def steps(self, actions: Iterable[Action | Step]) -> list[Step]:
        self.actions = list(actions)
        groups: dict[str, list[TableAction]] = {}
        for action in self.actions:
            if isinstance(action, TableAction):
                groups.setdefault(action.table.name, []).append(action)
        found: list[Step] = []
        for action in self.actions:
            if isinstance(action, Step):
                found.append(action)
            elif not isinstance(action, TableAction):
                found += self.step(action)
            elif action.table.name in groups:
                # All that is done to one table is done where the first of it is.
                found += self._table(groups.pop(action.table.name))
        return found

    def set_table_comment(self, action: SetTableComment) -> Iterable[str]:
        """Nothing: SQLite has no comments."""
        return []

    def validate_constraint(self, action: ValidateConstraint) -> Iterable[str]:
        return []

    def rename_index(self, action: RenameIndex) -> Iterable[str]:
        drop = f"DROP INDEX {self.quote(action.before)}"
        return [drop, *self.add_index(AddIndex(table=action.table, index=action.index))]

    def _table(self, group: Sequence[TableAction]) -> Iterator[Step]:
        keys = self._added_keys(group)
        if all(self._alone(action, group, keys) for action in group):
            for action in group:
                if isinstance(action, AddConstraint):
                    continue
                if isinstance(action, AddColumn) and action.column.name in keys:
                    clause = f"ADD COLUMN {self.column(action.column)} {keys[action.column.name]}"
                    yield Statement(action=action, sql=self.alter(action, clause))
                else:
                    yield from self.step(action)
            return
        yield from self._rebuilt(group)

    def _alone(self, action: TableAction, group: Sequence[TableAction], keys: dict[str, str]) -> bool:
        """Whether SQLite does it without making the table anew."""
        if isinstance(action, (*AT_ONCE, ValidateConstraint)):
            return True
        if isinstance(action, AddConstraint):
            return _is_key(action) and all(name in keys for name in _columns(action))
        if isinstance(action, DropColumn):
            return self.version >= DROPS_COLUMNS and not action.column.primary_key
        if not isinstance(action, AddColumn) or action.fill is not None or action.column.primary_key:
            return False
        column = action.column
        if column.computed is not None:
            return column.computed.persisted is False
        default = self.default(column)
        if default is None:
            return bool(column.nullable)
        return CONSTANT.fullmatch(default) is not None and column.name not in keys

    def _added_keys(self, group: Sequence[TableAction]) -> dict[str, str]:
        """The foreign keys of columns that are added with them, as they stand behind such a column."""
        added = {action.column.name for action in group if isinstance(action, AddColumn)}
        found: dict[str, str] = {}
        for action in group:
            if not (isinstance(action, AddConstraint) and _is_key(action)):
                continue
            names = _columns(action)
            named = f"CONSTRAINT {self.quote(str(action.constraint.name))} "
            head = f"{named}FOREIGN KEY({self.quote(names[0])}) "
            text = self.constraint(action.constraint)
            if len(names) == 1 and names[0] in added and text.startswith(head):
                found[names[0]] = f"{named}{text.removeprefix(head)}"
        return found

    def _rebuilt(self, group: Sequence[TableAction]) -> Iterator[Step]:
        after = group[0].table
        for action in group:
            if isinstance(action, RenameIndex):
                yield Statement(action=action, sql=f"DROP INDEX {self.quote(action.before)}")
            elif isinstance(action, BEFORE):
                yield from self.step(action)
        rest = tuple(action for action in group if not isinstance(action, BEFORE))
        added = {action.column.name: action for action in rest if isinstance(action, AddColumn)}
        altered = {action.column.name: action for action in rest if isinstance(action, AlterColumn)}
        before = [altered[one.name].before if one.name in altered else one for one in after.c if one.name not in added]
        before += [action.column for action in rest if isinstance(action, DropColumn)]
        columns: dict[str, str] = {}
        for column in after.columns:
            if column.computed is None:
                value = self._value(column, added.get(column.name), altered.get(column.name))
                if value is not None:
                    columns[column.name] = value
        yield RebuildTable(
            action=rest[0],
            before=_as_it_was(after.name, before, {one.column.name: one for one in altered.values()}),
            after=after,
            columns=columns,
            actions=rest,
        )

    def _value(
        self, column: sqlalchemy.Column[Any], added: AddColumn | None, altered: AlterColumn | None
    ) -> str | None:
        """What rows get in a column; None where that is its default."""
        fill = added.fill if added is not None else altered.fill if altered is not None else None
        given = self.default(alone(column, fill)) if fill is not None else None
        if added is not None:
            return given
        name = self.quote(column.name)
        if altered is not None and "type" in altered.changes:
            name = _converted(name, altered.before, column)
        return name if given is None else f"COALESCE({name}, {given})"


def _converted(name: str, old: sqlalchemy.Column[Any], new: sqlalchemy.Column[Any]) -> str:
    """The value of a column as one of another type. SQLite keeps days and times as text, in the form that the type had
    when they were written; numbers and texts become what the new column holds by themselves."""
    was, becomes = (form_of_time(one) for one in (old, new))
    if None in (was, becomes) or was == becomes:
        return name
    if becomes == "day":
        return f"substr({name}, 1, 10)"
    zone = "+00:00" if becomes == "instant" else ""
    if was == "day":
        return f"{name} || ' 00:00:00.000000{zone}'"
    # An instant is written in UTC.
    return f"{name} || '{zone}'" if zone else f"replace({name}, '+00:00', '')"


def _columns(action: AddConstraint) -> list[str]:
    """The columns of a constraint."""
    constraint: Any = action.constraint
    return [column.name for column in constraint.columns]


def _is_key(action: AddConstraint) -> bool:
    return isinstance(action.constraint, sqlalchemy.ForeignKeyConstraint)


def _as_it_was(
    name: str, columns: Sequence[sqlalchemy.Column[Any]], altered: dict[str, AlterColumn]
) -> sqlalchemy.Table:
    """A table of columns, under the names that they have now."""
    names = {id(action.before): now for now, action in altered.items()}
    return sqlalchemy.Table(
        name,
        sqlalchemy.MetaData(),
        *(
            sqlalchemy.Column(
                names.get(id(one), one.name), one.type, nullable=bool(one.nullable), primary_key=one.primary_key
            )
            for one in columns
        ),
    )
