"""What keeps a difference from being mended by statements, and what has to stay with it.

Nothing of what no migration knows is dropped. So a key that another program's table refers to stays, and with it what
would need the new one; a name that is taken there is not given again.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy
from sqlalchemy.dialects.postgresql import ExcludeConstraint

from covet_migrate.actions.comparing import Texts, constraints_of, indexes_of
from covet_migrate.inspection.comparing import Difference
from covet_migrate.inspection.descriptions import ForeignKey, Schema, Table

__all__ = ["Obstacles", "part_name", "part_of", "space"]

KEYS = ("primary key", "unique constraint", "index")
"""What a foreign key can refer to the columns of."""
RELATIONS = frozenset(
    ("table", "view", "sequence", "primary key", "unique constraint", "index", "exclusion constraint")
)
"""What has a name in a whole schema of PostgreSQL; others have theirs in a table."""
Name = tuple[Hashable, str]


def space(kind: str, table: str | None, part: str) -> Hashable:
    """Within what a name can be given once; None where it does not matter.

    Args:
        kind: of the database.
        table: whose part it is.
        part: what it is, as of `Difference`.
    """
    if part in ("table", "view", "sequence"):
        return ""
    if kind == "sqlite":
        return "" if part == "index" else None
    if kind == "postgresql":
        return "" if part in RELATIONS else table
    if part == "primary key":
        return None
    if part == "foreign key" or (part == "check" and kind == "mysql"):
        return part
    return (table, part == "check")


class Obstacles:
    """What of the differences no action mends.

    Args:
        there: what is in the database.
        after: the tables as they are to be, by name.
        compared: by the name of each table that is to be mended, what differs in it.
        refused: pairs of types of which the database makes no one of the other.
    """

    def __init__(
        self,
        there: Schema,
        after: Mapping[str, sqlalchemy.Table],
        compared: Mapping[str, Sequence[Difference]],
        refused: Collection[tuple[str, str]] = (),
    ) -> None:
        self.there = there
        self.kind = there.kind
        self.after = after
        self.compared = compared
        self.refused = refused
        self.found: dict[Difference, str] = {}
        self._texts = Texts(there.kind, {})
        self._holders = _holders(there)
        self._stuck: dict[str, set[str]] = {}
        # The foreign keys that stay whatever happens, each with its table.
        self._stay: list[tuple[str, ForeignKey]] = [
            (table.name, key)
            for table in there.tables.values()
            if table.name not in compared
            for key in table.foreign_keys
        ]

    def find(self) -> dict[Difference, str]:
        """By each difference that stays, why."""
        while True:
            count = len(self.found)
            free = self._free()
            for differences in self.compared.values():
                for one in differences:
                    reason = None if one in self.found else self._reason(one, free)
                    if reason is not None:
                        self._stays(one, reason)
            if len(self.found) == count:
                return self.found

    def _stays(self, one: Difference, reason: str) -> None:
        self.found[one] = reason
        if one.table is None:
            return
        stuck = self._stuck.setdefault(one.table, set())
        if one.part == "column" and one.attribute in (None, "type", "generated", "counting"):
            stuck.add(str(one.name))
        table = self.there.tables[one.table]
        if one.part == "foreign key" and one.one is not None:
            old = one.one if one.only_name else one.name
            self._stay += [(one.table, key) for key in table.foreign_keys if key.name == old]

    def _reason(self, one: Difference, free: set[Name]) -> str | None:
        if one.part == "table":
            return self._reason_of_table(one, free)
        assert one.table is not None
        if self.kind == "sqlite" and one.part != "index" and any(other.table == one.table for other in self.found):
            return "SQLite makes a table anew as a whole, and something of it stays as it is"
        if one.part == "column":
            return self._reason_of_column(one, one.table, str(one.name))
        if one.part in KEYS and one.one is not None and not one.only_name:
            holder = next((by for by, key in self._staying_keys(one.table) if set(key) == self._columns(one)), None)
            if holder is not None:
                return f"the table {holder} refers to it"
        if one.other is None:
            return None
        if one.name is not None:
            reason = self._taken(one.table, one.part, one.name, free)
            if reason is not None:
                return reason
        after = part_of(self.after[one.table], one.part, one.name)
        stuck = None if after is None or one.only_name else self._stuck_in(one.table, after)
        if stuck is not None:
            return f"the column {stuck} stays as it is"
        if isinstance(after, sqlalchemy.ForeignKeyConstraint):
            return self._unreachable(after)
        return None

    def _reason_of_table(self, one: Difference, free: set[Name]) -> str | None:
        if one.attribute is not None:
            return None if one.attribute == "comment" else "no action changes that of a table"
        table = self.after[str(one.name)]
        for part, name in _names(table, self.kind):
            reason = self._taken(table.name, part, name, free)
            if reason is not None:
                return reason
        return next(filter(None, map(self._unreachable, table.foreign_key_constraints)), None)

    def _reason_of_column(self, one: Difference, table: str, name: str) -> str | None:
        if one.attribute == "type" and (one.one, one.other) in self.refused:
            return f"the database makes no {one.other} of {one.one}: drop the column, and the next comparison adds it"
        if one.attribute is None and one.one is None and self.kind != "postgresql":
            others = [other.name for other in self.there.tables[table].columns]
            same = next((other for other in others if other.lower() == name.lower()), None)
            if same is not None:
                return f"it is called {same} there, and is to be renamed"
        if one.attribute not in (None, "type", "comment") and name in self._stuck.get(table, ()):
            return "its type stays as it is"
        goes = one.attribute is None and one.other is None
        if goes or (one.attribute == "type" and self.kind != "sqlite"):
            holder = next((by for by, key in self._staying_keys(table) if name in key), None)
            own = next((key for by, key in self._stay if by == table and name in key.columns), None)
            if holder is not None:
                return f"the table {holder} refers to it"
            if own is not None:
                return f"its foreign key {own.name} stays as it is"
        if self._key_stays(table):
            described, key = self.there.tables[table].primary_key, self.after[table].primary_key
            if goes and described is not None and name in described.columns:
                return "the primary key stays as it is"
            if name in key.columns and (one.one is None or one.attribute == "counting"):
                return "the primary key stays as it is"
        return None

    def _unreachable(self, key: sqlalchemy.ForeignKeyConstraint) -> str | None:
        """Why a foreign key cannot be added."""
        target = key.referred_table.name
        if target not in self.there.tables:
            missing = next((one for one in self.compared.get(target, ()) if one.part == "table"), None)
            return f"the table {target} is not there" if missing is None or missing in self.found else None
        columns = {element.column.name for element in key.elements}
        stuck = columns & self._stuck.get(target, set())
        if stuck:
            return f"the column {target}.{min(stuck)} stays as it is"
        if target in self.compared:
            return f"the primary key of {target} stays as it is" if self._key_stays(target) else None
        described = self.there.tables[target].primary_key
        fits = described is not None and set(described.columns) == columns
        return None if fits else f"the primary key of {target} is another one"

    def _staying_keys(self, table: str) -> Iterator[tuple[str, tuple[str, ...]]]:
        """The columns that foreign keys which stay refer to, each with the table that does."""
        return ((by, key.referred) for by, key in self._stay if key.table == table)

    def _key_stays(self, table: str) -> bool:
        return any(one.part == "primary key" and not one.only_name for one in self.found if one.table == table)

    def _columns(self, one: Difference) -> set[str]:
        """The columns of a key that is there."""
        table = self.there.tables[str(one.table)]
        if one.part == "primary key":
            return set(table.primary_key.columns) if table.primary_key is not None else set()
        parts: Iterable[Any] = table.uniques if one.part == "unique constraint" else table.indexes
        return {column for part in parts if part.name == one.name for column in part.columns}

    def _stuck_in(self, table: str, part: Any) -> str | None:
        stuck = self._stuck.get(table)
        if not stuck:
            return None
        text = self._texts.index(part) if isinstance(part, sqlalchemy.Index) else self._texts.constraint(part)
        return min(stuck & self._texts.words(text), default=None)

    # Names

    def _taken(self, table: str, part: str, name: str, free: set[Name]) -> str | None:
        where = space(self.kind, table, part)
        holder = self._holders.get((where, name)) if where is not None else None
        if holder is None or (where, name) in free:
            return None
        return f"{holder} is called {name}"

    def _free(self) -> set[Name]:
        """The names that are there and go: of what is dropped, made anew or renamed."""
        found: set[Name] = set()
        for table, differences in self.compared.items():
            for one in differences:
                if one in self.found or one.table is None or one.part == "column" or one.one is None:
                    continue
                name = one.one if one.only_name else one.name
                if one.part == "primary key":
                    key = self.there.tables[table].primary_key
                    name = None if key is None else key.name
                where = space(self.kind, table, one.part)
                if name is not None and where is not None:
                    found.add((where, name))
        return found


CLASSES: Mapping[str, tuple[type[Any], ...]] = {
    "primary key": (sqlalchemy.PrimaryKeyConstraint,),
    "unique constraint": (sqlalchemy.UniqueConstraint, sqlalchemy.Index),
    "index": (sqlalchemy.Index, sqlalchemy.UniqueConstraint),
    "check": (sqlalchemy.CheckConstraint,),
    "foreign key": (sqlalchemy.ForeignKeyConstraint,),
    "exclusion constraint": (ExcludeConstraint,),
}
"""What may be called so by a database: a unique index may be a unique constraint to it, and the other way round."""


def part_name(part: Any) -> str:
    """What a constraint or an index is, as of `Difference`."""
    return next(name for name, classes in CLASSES.items() if isinstance(part, classes[:1]))


def part_of(table: sqlalchemy.Table, part: str, name: str | None) -> Any:
    """A constraint or an index of a table; None where there is none of that name.

    Args:
        table: the table.
        part: what it is, as of `Difference`.
        name: what it is called; None for one without a name, and for the primary key, whatever that is called.
    """
    if part == "primary key":
        return table.primary_key if len(table.primary_key.columns) else None
    found: list[Any] = [one for one in (*table.constraints, *table.indexes) if isinstance(one, CLASSES[part])]
    return next((one for one in found if (None if one.name is None else str(one.name)) == name), None)


def _holders(there: Schema) -> dict[Name, str]:
    """The names that are given, and to what."""
    found: dict[Name, str] = {}
    for name, table in there.tables.items():
        found[space(there.kind, name, "table"), name] = f"the table {name}"
        for part, own in _described_names(table):
            where = space(there.kind, name, part)
            if where is not None:
                article = "the" if part == "primary key" else "an" if part[0] in "ei" else "a"
                found[where, own] = f"{article} {part} of {name}"
    for part, many in (("view", there.views), ("sequence", there.sequences)):
        found |= {(space(there.kind, None, part), one.name): f"a {part}" for one in many}
    return found


def _described_names(table: Table) -> Iterator[tuple[str, str]]:
    """The parts of a table that is there and have names, and these."""
    parts: list[tuple[str, Iterable[Any]]] = [
        ("primary key", filter(None, [table.primary_key])), ("unique constraint", table.uniques),
        ("index", table.indexes), ("check", table.checks), ("foreign key", table.foreign_keys),
        ("exclusion constraint", table.exclusions),
    ]  # fmt: skip
    return ((part, one.name) for part, many in parts for one in many if one.name is not None)


def _names(table: sqlalchemy.Table, kind: str) -> Iterator[tuple[str, str]]:
    """The parts of a table that is to be created, and their names; the table itself as well."""
    yield "table", table.name
    parts: list[Any] = [*indexes_of(table, kind), *constraints_of(table, kind)]
    for one in parts:
        if one.name is not None:
            yield part_name(one), str(one.name)
