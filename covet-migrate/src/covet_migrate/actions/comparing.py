"""What differs between two forms of a table, as actions.

Two columns, indexes or constraints are the same when the database is told of them in the same words: their DDL is
compared, for the database that the actions are for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from covet_migrate.actions.actions import (
    Action,
    AddColumn,
    AddConstraint,
    AddIndex,
    AlterColumn,
    DropColumn,
    DropConstraint,
    DropIndex,
    RenameColumn,
    RenameConstraint,
    RenameIndex,
    RenameTable,
    SetTableComment,
)
from covet_migrate.actions.columns import alone, form_of_time
from covet_orm.deferred import sqlalchemy
from covet_orm.schema import defining_dialect

__all__ = ["Texts", "column_text", "compare_tables", "constraints_of", "indexes_of"]

Fill = Mapping[str, "sqlalchemy.ColumnElement[Any]"]


def compare_tables(
    before: sqlalchemy.Table,
    after: sqlalchemy.Table,
    kind: str,
    *,
    renamed: Mapping[str, str] | None = None,
    fill: Fill | None = None,
    tables: Mapping[str, str] | None = None,
) -> list[Action]:
    """The actions that make one table of another, in an order in which they can be done.

    Args:
        before: the table as it is.
        after: the table as it is to be.
        kind: `postgresql`, `mysql`, `mariadb` or `sqlite`.
        renamed: columns that have another name afterwards.
        fill: by column, what rows get that are there.
        tables: tables that this one refers to and that have another name afterwards; the foreign keys follow by
            themselves.
    """
    renamed = dict(renamed or {})
    fill = fill or {}
    actions: list[Action] = []
    if before.name != after.name:
        actions.append(RenameTable(table=after, before=before))
    texts = Texts(kind, renamed, {**(tables or {}), before.name: after.name})
    there = {renamed.get(column.name, column.name): column for column in before.columns}
    remade = _remade(there, after, texts)
    kept = {old: new for old, new in renamed.items() if new not in remade}
    actions += [RenameColumn(table=after, before=old, after=new) for old, new in _in_order(kept)]
    constraints, renamed_constraints = _pair(
        {str(one.name): (one, texts.constraint(one, old=True)) for one in constraints_of(before, kind)},
        {str(one.name): (one, texts.constraint(one)) for one in constraints_of(after, kind)},
        remade,
        texts,
    )
    indexes, renamed_indexes = _pair(
        {str(one.name): (one, texts.index(one, old=True)) for one in indexes_of(before, kind)},
        {str(one.name): (one, texts.index(one)) for one in indexes_of(after, kind)},
        remade,
        texts,
    )
    actions += [RenameConstraint(table=after, constraint=new, before=old) for old, new in renamed_constraints]
    actions += [RenameIndex(table=after, index=new, before=str(old.name)) for old, new in renamed_indexes]
    leaving, coming = constraints
    first = (sqlalchemy.ForeignKeyConstraint, sqlalchemy.CheckConstraint)
    actions += [
        DropConstraint(table=after, constraint=one)
        for one in sorted(leaving, key=lambda one: not isinstance(one, first))
    ]
    actions += [DropIndex(table=after, index=one) for one in indexes[0]]
    actions += _columns(there, after, texts, remade, fill)
    keys = [one for one in coming if isinstance(one, sqlalchemy.ForeignKeyConstraint)]
    actions += [AddConstraint(table=after, constraint=one) for one in coming if one not in keys]
    actions += [AddIndex(table=after, index=one) for one in indexes[1]]
    actions += [AddConstraint(table=after, constraint=one) for one in keys]
    if before.comment != after.comment and kind != "sqlite":
        actions.append(SetTableComment(table=after))
    return actions


def _in_order(renamed: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    """Renamings, none of them to a name that another column still has; columns that exchange names take a third."""
    waiting = dict(renamed)
    while waiting:
        ready = next((old for old, new in waiting.items() if new not in waiting), None)
        if ready is not None:
            yield ready, waiting.pop(ready)
            continue
        old, new = next(iter(waiting.items()))
        del waiting[old]
        yield old, f"covet_{old}"
        waiting[f"covet_{old}"] = new


def constraints_of(table: sqlalchemy.Table, kind: str) -> list[sqlalchemy.Constraint]:
    """The constraints of a table that a database has, in the order of their names."""
    return sorted((one for one in table.constraints if _is_there(one, kind)), key=lambda one: str(one.name))


def indexes_of(table: sqlalchemy.Table, kind: str) -> list[sqlalchemy.Index]:
    """The indexes of a table that a database has, in the order of their names."""
    return sorted((one for one in table.indexes if _is_there(one, kind)), key=lambda one: str(one.name))


def _is_there(one: Any, kind: str) -> bool:
    """Whether a database has it, or it is left out there (`databases=` of an index or a constraint)."""
    databases = one.info.get("databases")
    return databases is None or kind in databases


def _columns(
    there: Mapping[str, sqlalchemy.Column[Any]],
    after: sqlalchemy.Table,
    texts: Texts,
    remade: frozenset[str],
    fill: Fill,
) -> Iterable[Action]:
    """What is done to columns. One that is computed of others goes before them and comes after them."""
    gone = [column for name, column in there.items() if name not in after.c or name in remade]
    yield from (DropColumn(table=after, column=column) for column in gone if column.computed is not None)
    plain = [column for column in after.columns if column.computed is None]
    for column in (*plain, *(column for column in after.columns if column.computed is not None)):
        old = there.get(column.name)
        if old is None or column.name in remade:
            if old is not None and old.computed is None:
                yield DropColumn(table=after, column=old)
            given = fill.get(column.name)
            if given is not None and texts.default(alone(column, given)) == texts.default(column):
                # Rows get their default without being told.
                given = None
            yield AddColumn(table=after, column=column, fill=given)
            continue
        changes = texts.changes(old, column)
        if changes:
            given = fill.get(column.name) if "null" in changes and not column.nullable else None
            yield AlterColumn(table=after, before=old, column=column, changes=frozenset(changes), fill=given)
    yield from (
        DropColumn(table=after, column=column)
        for column in gone
        if column.computed is None and column.name not in remade and column.name not in after.c
    )


def _remade(there: Mapping[str, sqlalchemy.Column[Any]], after: sqlalchemy.Table, texts: Texts) -> frozenset[str]:
    """The columns that no ALTER makes what they are to be: they are dropped and added.

    They are computed ones, so that nothing is lost, or become such. SQLite makes the whole table anew instead.
    """
    if texts.kind == "sqlite":
        return frozenset()
    pairs = {column.name: (there[column.name], column) for column in after.columns if column.name in there}
    changes = {name: texts.changes(old, new) for name, (old, new) in pairs.items()}
    retyped = {name for name, changed in changes.items() if "type" in changed}
    found: set[str] = set()
    for name, (old, new) in pairs.items():
        was, becomes = old.computed, new.computed
        if was is None and becomes is None:
            continue
        kept = was is not None and becomes is not None and was.persisted == becomes.persisted
        if texts.kind != "postgresql":
            # MODIFY makes anything of a stored column, and another virtual column of a virtual one.
            stored = [one.persisted for one in (was, becomes) if one is not None]
            if not kept and not all(stored):
                found.add(name)
        elif becomes is None:
            # What was computed stays as it is where it is in the row.
            if was is not None and not was.persisted:
                found.add(name)
        elif changes[name] & {"computed", "type"} or retyped & texts.words(str(texts.computed(new))):
            found.add(name)
    return frozenset(found)


Named = dict[str, tuple[Any, str]]


def _pair(
    before: Named, after: Named, remade: frozenset[str], texts: Texts
) -> tuple[tuple[list[Any], list[Any]], list[tuple[Any, Any]]]:
    """Those that go, those that come, and those that only get another name. What is of a column that is dropped and
    added goes and comes."""

    def stays(name: str, there: Named, text: str) -> bool:
        return name in there and there[name][1] == text and not (remade and remade & texts.words(text))

    leaving = {name: one for name, one in before.items() if not stays(name, after, one[1])}
    coming = {name: one for name, one in after.items() if not stays(name, before, one[1])}
    renamed: list[tuple[Any, Any]] = []
    for name, (new, text) in list(coming.items()):
        if name in before or (remade and remade & texts.words(text)):
            continue
        same = next((old for old, one in leaving.items() if one[1] == text and old not in after), None)
        if same is not None:
            renamed.append((leaving.pop(same)[0], new))
            del coming[name]
    return ([one for one, _ in leaving.values()], [one for one, _ in coming.values()]), renamed


class Texts:
    """The DDL of parts of a table without their own names, and with the names that columns and tables have afterwards.

    Args:
        kind: `postgresql`, `mysql`, `mariadb` or `sqlite`.
        renamed: names of columns, with what they are called afterwards.
        tables: names of tables, in the same way.
    """

    def __init__(self, kind: str, renamed: Mapping[str, str], tables: Mapping[str, str] | None = None) -> None:
        self.kind = kind
        self.dialect: Any = defining_dialect(kind)
        compiler: Any = self.dialect.ddl_compiler
        self.compiler = compiler(self.dialect, None)
        self.renamed = {old: new for old, new in renamed.items() if old != new}
        self.tables = {old: new for old, new in (tables or {}).items() if old != new}
        self.quote = self.dialect.identifier_preparer.quote

    def constraint(self, one: sqlalchemy.Constraint, *, old: bool = False) -> str:
        """A constraint."""
        text = str(self.compiler.process(one))
        text = text.removeprefix(f"CONSTRAINT {self.dialect.identifier_preparer.format_constraint(one)} ")
        return self._renamed(text) if old else text

    def index(self, one: sqlalchemy.Index, *, old: bool = False) -> str:
        """An index."""
        text = str(sqlalchemy.schema.CreateIndex(one).compile(dialect=self.dialect))
        head, _, rest = text.partition(f" {self.quote(str(one.name))} ON ")
        rest = f" ON {rest}"
        return f"{head}{self._renamed(rest) if old else rest}"

    def changes(self, old: sqlalchemy.Column[Any], new: sqlalchemy.Column[Any]) -> set[str]:
        """What differs between two columns."""
        found = set()
        if old.type.compile(self.dialect) != new.type.compile(self.dialect):
            found.add("type")
        if self.kind == "sqlite" and form_of_time(old) != form_of_time(new):
            # Both are text there, and what is written in it is not the same.
            found.add("type")
        if bool(old.nullable) != bool(new.nullable):
            found.add("null")
        if self.default(old, old=True) != self.default(new):
            found.add("default")
        if self.computed(old, old=True) != self.computed(new):
            found.add("computed")
        if old.comment != new.comment and self.kind != "sqlite":
            found.add("comment")
        # SQLite counts in every key of whole numbers.
        if bool(old.autoincrement is True) != bool(new.autoincrement is True) and self.kind != "sqlite":
            found.add("counting")
        return found

    def default(self, column: sqlalchemy.Column[Any], *, old: bool = False) -> str | None:
        """The default of a column; None without one."""
        text: str | None = self.compiler.get_column_default_string(column)
        return self._renamed(text) if old and text is not None else text

    def computed(self, column: sqlalchemy.Column[Any], *, old: bool = False) -> str | None:
        """What a column is computed of; None for every other."""
        if column.computed is None:
            return None
        text = str(self.compiler.process(column.computed))
        return self._renamed(text) if old else text

    def words(self, text: str) -> set[str]:
        """The names in a text of SQL, without those in its literals."""
        return {name for match in WORD.finditer(text) if (name := _name(match.group())) is not None}

    def _renamed(self, text: str) -> str:
        def put(match: re.Match[str]) -> str:
            word = match.group()
            name = _name(word)
            # A column may be called as a table is.
            names = self.tables if OF_A_TABLE.search(text, 0, match.start()) is not None else self.renamed
            return word if name is None or name not in names else self.quote(names[name])

        return WORD.sub(put, text) if self.renamed or self.tables else text


WORD = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`|[^\W\d][\w$]*""")
"""A literal, a quoted name, or a word."""


OF_A_TABLE = re.compile(r"(?:^ ON|\bREFERENCES) $")
"""What stands before the name of a table."""


def _name(word: str) -> str | None:
    """The name that a word of SQL is; None for a literal."""
    if word[0] == "'":
        return None
    return word[1:-1].replace(word[0] * 2, word[0]) if word[0] in '"`' else word


def column_text(column: sqlalchemy.Column[Any], kind: str) -> str:
    """A column as it stands in `CREATE TABLE`."""
    return str(sqlalchemy.schema.CreateColumn(column).compile(dialect=defining_dialect(kind)))
