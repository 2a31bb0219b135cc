"""Statements of MySQL and MariaDB.

Each is a transaction of its own there. What InnoDB does with foreign keys decides much: each of them needs an index,
and where there is none it makes one, called as the key is; a column of one cannot change its type, and an index that
one needs cannot be dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import sqlalchemy

from covet_migrate.actions.actions import (
    Action,
    AddColumn,
    AddConstraint,
    AlterColumn,
    DropColumn,
    DropConstraint,
    DropIndex,
    RenameColumn,
    RenameConstraint,
    RenameIndex,
    RenameTable,
    TableAction,
)
from covet_migrate.actions.columns import alone
from covet_migrate.actions.comparing import Texts
from covet_migrate.ddl.base import DDL, Part, Version, covers, is_there
from covet_migrate.steps import Statement, Step

__all__ = ["MySQL"]

LITERAL = re.compile(r"""\(.*\)|'(?:[^']|'')*'|[-+]?[\w.]+""", re.DOTALL)
"""A default that needs no parentheses around it."""

LONGEST_KEY = 3072
"""Bytes that an index of InnoDB has at the most, of all its columns."""


class MySQL(DDL):
    """Statements of MySQL and MariaDB."""

    def __init__(self, kind: str, version: Version) -> None:
        super().__init__(kind, version)
        self._named: set[int] = set()

    def steps(self, actions: Iterable[Action | Step]) -> list[Step]:
        """A column that counts has to be a key at every moment: what changes a primary key is one statement."""
        self.actions = list(actions)
        self._named.clear()
        found: list[Step] = []
        merged: set[int] = set()
        for action in self.actions:
            if id(action) in merged:
                continue
            if isinstance(action, Step):
                found.append(action)
                continue
            group = self._with_key(action) if isinstance(action, TableAction) else []
            if action not in group:
                found += self.step(action)
            elif not isinstance(action, DropConstraint) or all(isinstance(one, DropConstraint) for one in group):
                # Other constraints are dropped before the columns are.
                merged |= {id(one) for one in group}
                found += self._merged(group)
        return found

    def rename_table(self, action: RenameTable) -> Iterable[str]:
        return [f"RENAME TABLE {self.table(action.before)} TO {self.table(action.table)}"]

    def rename_column(self, action: RenameColumn) -> Iterable[Part]:
        rename = f"RENAME COLUMN {self.quote(action.before)} TO {self.quote(action.after)}"
        if self.kind == "mariadb":
            return self._rename_on_mariadb(action, self.alter(action, rename))
        # MySQL renames no column that a check names.
        texts, coming = Texts(self.kind, {}), self.coming(action.table)
        checks = [
            one
            for one in action.table.constraints
            if isinstance(one, sqlalchemy.CheckConstraint)
            and is_there(one, self.kind)
            and str(one.name) not in coming
            and action.after in texts.words(self.constraint(one))
        ]
        dropped = [f"DROP CONSTRAINT {self.quote(str(one.name))}" for one in checks]
        added = [f"ADD {self.constraint(one)}" for one in checks]
        return [self.alter(action, ", ".join((*dropped, rename, *added)))]

    def add_column(self, action: AddColumn) -> Iterable[str]:
        clause, later = self._add_column(action)
        return [self.alter(action, clause), *later]

    def alter_column(self, action: AlterColumn) -> Iterable[Part]:
        keys = self._keys_of(action) if "type" in action.changes else []
        yield from (self._key_dropped(action.table, one) for one in keys)
        yield from self._filled(action)
        yield self.alter(action, self._alter_column(action))
        yield from (self._key_added(action.table, one) for one in keys)

    def drop_index(self, action: DropIndex) -> Iterable[Part]:
        return self._without(action, action.index, f"DROP INDEX {self.quote(str(action.index.name))}")

    def rename_index(self, action: RenameIndex) -> Iterable[str]:
        old, new = self.quote(action.before), self.quote(str(action.index.name))
        return [self.alter(action, f"RENAME INDEX {old} TO {new}")]

    def drop_constraint(self, action: DropConstraint) -> Iterable[Part]:
        one, name = action.constraint, self.quote(str(action.constraint.name))
        if isinstance(one, sqlalchemy.ForeignKeyConstraint):
            return [self._key_dropped(action.table, one, self._own_index(one))]
        if isinstance(one, sqlalchemy.UniqueConstraint):
            return self._without(action, one, f"DROP INDEX {name}")
        return [self.alter(action, f"DROP CONSTRAINT {name}")]

    def rename_constraint(self, action: RenameConstraint) -> Iterable[Part]:
        old, new = action.before, action.constraint
        name = self.quote(str(old.name))
        if isinstance(new, sqlalchemy.PrimaryKeyConstraint) or id(new) in self._named:
            # Every primary key is called PRIMARY; and some were made again meanwhile.
            return []
        if isinstance(new, sqlalchemy.UniqueConstraint):
            return [self.alter(action, f"RENAME INDEX {name} TO {self.quote(str(new.name))}")]
        if isinstance(old, sqlalchemy.ForeignKeyConstraint):
            return [self._key_dropped(action.table, old, self._own_index(old)), self._key_added(action.table, new)]
        return [self.alter(action, f"DROP CONSTRAINT {name}, ADD {self.constraint(new)}")]

    def _key_dropped(self, table: sqlalchemy.Table, key: sqlalchemy.Constraint, more: str = "") -> Statement:
        """Drop a foreign key. Where that is a part of something else, it is known for what it is: interrupted between
        the parts, nobody would know otherwise whether the key is there."""
        action = DropConstraint(table=table, constraint=key)
        return Statement(action=action, sql=self.alter(action, f"DROP FOREIGN KEY {self.quote(str(key.name))}{more}"))

    def _key_added(self, table: sqlalchemy.Table, key: sqlalchemy.Constraint) -> Statement:
        action = AddConstraint(table=table, constraint=key)
        return Statement(action=action, sql=self.alter(action, f"ADD {self.constraint(key)}"))

    def _rename_on_mariadb(self, action: RenameColumn, sql: str) -> list[Part]:
        column = action.table.c.get(action.after)
        if column is not None and self.type(column) == "JSON" and not self._restated(action):
            # JSON is text there that is checked; the check is called as the column is, and keeps that name otherwise.
            return [self.alter(action, f"CHANGE COLUMN {self.quote(action.before)} {self.column(column)}")]
        keys = [one for one in self._keys(action.table) if action.after in one.column_keys]
        if not keys or not self._is_hashed(action.table):
            return [sql]
        # Made again, they have the name at once that they are to have.
        before = {
            id(one.constraint): one.before
            for one in self.actions
            if isinstance(one, RenameConstraint) and one.table.name == action.table.name
        }
        self._named |= {id(one) for one in keys}
        return [
            *(self._key_dropped(action.table, before.get(id(one), one)) for one in keys),
            sql,
            *(self._key_added(action.table, one) for one in keys),
        ]

    def _is_hashed(self, table: sqlalchemy.Table) -> bool:
        """Whether a table has a unique index of hashes, as MariaDB makes of what is too long for another. Every
        statement copies such a table, and none that does renames a column of a foreign key."""
        coming = self.coming(table)
        declared: list[Any] = [*table.indexes, *table.constraints]
        return any(
            sum(map(_bytes, one.columns)) > LONGEST_KEY
            for one in declared
            if isinstance(one, sqlalchemy.UniqueConstraint) or (isinstance(one, sqlalchemy.Index) and one.unique)
            if str(one.name) not in coming and is_there(one, self.kind)
        )

    def _restated(self, action: RenameColumn) -> bool:
        """Whether the column is told anew later on."""
        return any(
            isinstance(one, AlterColumn)
            and one.table.name == action.table.name
            and one.column.name == action.after
            and one.changes != {"default"}
            for one in self.actions
        )

    def _add_column(self, action: AddColumn) -> tuple[str, list[str]]:
        column = action.column
        if action.fill is None or column.computed is not None:
            return f"ADD COLUMN {self.column(column)}", []
        return f"ADD COLUMN {self.column(alone(column, action.fill))}", [self._set_default(action, column)]

    def _filled(self, action: AlterColumn) -> Iterator[str]:
        fill = self.filling(action)
        if fill and "type" in action.changes:
            # What rows get is of the new type.
            column = alone(action.column, action.column.server_default, nullable=True)
            yield self.alter(action, f"MODIFY COLUMN {self.column(column)}")
        yield from fill

    def _alter_column(self, action: AlterColumn) -> str:
        if action.changes == {"default"}:
            return self._set_default(action, action.column).removeprefix(self.alter(action, ""))
        return f"MODIFY COLUMN {self.column(action.column)}"

    def _set_default(self, action: TableAction, column: sqlalchemy.Column[Any]) -> str:
        name, default = self.quote(column.name), self.default(column)
        if default is None:
            return self.alter(action, f"ALTER COLUMN {name} DROP DEFAULT")
        if LITERAL.fullmatch(default) is None:
            default = f"({default})"
        return self.alter(action, f"ALTER COLUMN {name} SET DEFAULT {default}")

    def _keys_of(self, action: AlterColumn) -> list[sqlalchemy.ForeignKeyConstraint]:
        """The foreign keys of a column that stay, and keep it from another type."""
        return [one for one in self._keys(action.table) if action.column.name in one.column_keys]

    def _keys(self, table: sqlalchemy.Table) -> list[sqlalchemy.ForeignKeyConstraint]:
        """The foreign keys of a table that are there at this moment."""
        coming = self.coming(table)
        return sorted(
            (one for one in table.foreign_key_constraints if str(one.name) not in coming), key=lambda one: str(one.name)
        )

    def _own_index(self, key: sqlalchemy.ForeignKeyConstraint) -> str:
        """What drops the index that InnoDB made for a foreign key, where none was declared that it could use."""
        if any(covers(one, key.column_keys) for one in (*key.table.indexes, *key.table.constraints)):
            return ""
        return f", DROP INDEX {self.quote(str(key.name))}"

    def _without(self, action: TableAction, gone: Any, what: str) -> list[Part]:
        """Drop an index; the foreign keys that need it are dropped before, and added after, and have one of their own
        then."""
        coming = self.coming(action.table)
        declared: list[Any] = [*action.table.indexes, *action.table.constraints]
        others = [one for one in declared if str(one.name) not in coming and is_there(one, self.kind)]
        # They have the names that columns have now; what is dropped has those that they had before.
        renamed = {
            one.before: one.after
            for one in self.actions
            if isinstance(one, RenameColumn) and one.table.name == action.table.name
        }
        names = [renamed.get(column.name, column.name) for column in gone.columns]
        keys = [
            one
            for one in self._keys(action.table)
            if names[: len(one.column_keys)] == list(one.column_keys)
            and not any(covers(other, one.column_keys) for other in others)
        ]
        return [
            *(self._key_dropped(action.table, one) for one in keys),
            self.alter(action, what),
            *(self._key_added(action.table, one) for one in keys),
        ]

    def _with_key(self, action: TableAction) -> list[TableAction]:
        """All that is a part of the statement that changes the primary key of the table; nothing where none does."""
        of_table = [one for one in self.actions if isinstance(one, TableAction) and one.table.name == action.table.name]
        if not any(map(_changes_key, of_table)):
            return []
        return [one for one in of_table if _changes_key(one) or isinstance(one, (AddColumn, DropColumn, AlterColumn))]

    def _merged(self, group: Sequence[TableAction]) -> Iterator[Step]:
        first, clauses, later = group[0], [], list[str]()
        for one in group:
            match one:
                case DropConstraint():
                    clauses.append("DROP PRIMARY KEY")
                case AddConstraint():
                    clauses.append(f"ADD {self.constraint(one.constraint)}")
                case AddColumn():
                    clause, more = self._add_column(one)
                    clauses.append(clause)
                    later += more
                case AlterColumn():
                    yield from (Statement(action=one, sql=sql) for sql in self._filled(one))
                    clauses.append(self._alter_column(one))
                case DropColumn():
                    clauses.append(f"DROP COLUMN {self.quote(one.column.name)}")
        # InnoDB drops what was the index of a foreign key only while the key is not there.
        gone = next((one.constraint for one in group if isinstance(one, DropConstraint)), None)
        what = ", ".join(clauses)
        primary = isinstance(gone, sqlalchemy.PrimaryKeyConstraint)
        for part in self._without(first, gone, what) if primary else [self.alter(first, what)]:
            if isinstance(part, Statement):
                yield part
                continue
            yield from (Statement(action=first, sql=sql) for sql in (part, *later))


def _changes_key(action: TableAction) -> bool:
    return isinstance(action, (AddConstraint, DropConstraint)) and isinstance(
        action.constraint, sqlalchemy.PrimaryKeyConstraint
    )


def _bytes(column: sqlalchemy.Column[Any]) -> float:
    """How many bytes a column takes in an index, as far as that is much."""
    if not isinstance(column.type, (sqlalchemy.String, sqlalchemy.LargeBinary)):
        return 0
    if column.type.length is None:
        return float("inf")
    return column.type.length * (4 if isinstance(column.type, sqlalchemy.String) else 1)
