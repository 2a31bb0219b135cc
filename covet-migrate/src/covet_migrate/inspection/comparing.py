"""What differs between two schemas, in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from covet_migrate.inspection.descriptions import Column, Schema, Table
from covet_migrate.inspection.wording import words

__all__ = ["Difference", "compare_schemas", "compare_tables", "same_schema"]

PARTS = {
    "unique constraint": "uniques",
    "index": "indexes",
    "check": "checks",
    "foreign key": "foreign_keys",
    "exclusion constraint": "exclusions",
    "trigger": "triggers",
}
"""The parts of a table that have names, by what they are called."""
OF_A_SCHEMA = {"view": "views", "sequence": "sequences", "enum type": "enums"}
WITHOUT_KEY_NAMES = ("mysql", "mariadb", "sqlite")


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is otherwise in one of two schemas.

    Attributes:
        table: the table; None for what is none's.
        part: what it is: `table`, `column`, `primary key`, `index`, `check`, ...
        name: what it is called, in the second schema if it is there.
        attribute: what differs about it: `type`, `null`, `default`, ..., `name`; None where it is there in one alone,
            or its whole definition differs.
        one: how it is in the first; None where it is not there.
        other: how it is in the second; None where it is not there.
    """

    table: str | None
    part: str
    name: str | None
    attribute: str | None
    one: str | None
    other: str | None

    @property
    def only_name(self) -> bool:
        """Whether it is the same under another name."""
        return self.attribute == "name"

    def told(self, one: str = "in the database", other: str = "in the migrations") -> str:
        """It in words.

        Args:
            one: where the first schema is.
            other: where the second one is.
        """
        where = self._where()
        if self.attribute == "name":
            return f"{where}: called {self.one or 'nothing'} {one}, {self.other or 'nothing'} {other}"
        if self.attribute is None and self.one is None:
            return f"{where}: missing {one}" + (f"; {self.other} {other}" if self.other else "")
        if self.attribute is None and self.other is None:
            return f"{where}: {one}, and not {other}" + (f": {self.one}" if self.one else "")
        what = "" if self.attribute in (None, "type", "null") else f"{self.attribute} "
        return f"{where}: {what}{self.one or 'none'} {one}, {self.other or 'none'} {other}"

    def _where(self) -> str:
        if self.table is None or self.part == "table":
            return f"{self.part} {self.name}"
        if self.part == "column":
            return f"column {self.table}.{self.name}"
        if self.part == "primary key":
            return f"primary key of {self.table}"
        return f"{self.part} {self.name} of {self.table}" if self.name else f"{self.part} of {self.table}"

    def __str__(self) -> str:
        return self.told()


def same_schema(one: Schema, other: Schema, *, names: bool = True) -> bool:
    """Whether two schemas have the same tables, columns, keys, indexes, constraints, triggers, views, sequences and
    enum types, whatever the order of their columns is.

    Args:
        one: a schema.
        other: another one, of the same kind of database.
        names: whether constraints and indexes have to have the same names as well.
    """
    return all(found.only_name and not names for found in compare_schemas(one, other))


def compare_schemas(one: Schema, other: Schema) -> list[Difference]:
    """What differs between two schemas of the same kind of database, in the order of tables; nothing if they are the
    same."""
    found: list[Difference] = []
    for name in sorted(one.tables.keys() | other.tables.keys()):
        found += compare_tables(one.tables.get(name), other.tables.get(name), one.kind)
    for part, attribute in OF_A_SCHEMA.items():
        found += _parts(None, part, getattr(one, attribute), getattr(other, attribute))
    return found


def compare_tables(one: Table | None, other: Table | None, kind: str) -> list[Difference]:
    """What differs between two tables of one name.

    Args:
        one: the table in the one schema; None where it is not there.
        other: the table in the other one.
        kind: of the databases.
    """
    if one is None or other is None:
        there = one or other
        if there is None:
            return []
        text = f"({', '.join(column.name for column in there.columns)})"
        return [Difference(None, "table", there.name, None, text if one else None, text if other else None)]
    name = other.name
    found = [*_columns(one, other)]
    found += _keys(one, other, kind)
    for part, attribute in PARTS.items():
        found += _parts(name, part, getattr(one, attribute), getattr(other, attribute))
    for attribute in ("comment", "collation"):
        before, after = getattr(one, attribute), getattr(other, attribute)
        if before != after:
            found.append(Difference(None, "table", name, attribute, _quoted(before), _quoted(after)))
    return found


def _columns(one: Table, other: Table) -> Iterator[Difference]:
    before = {column.name: column for column in one.columns}
    after = {column.name: column for column in other.columns}
    for name, column in before.items():
        if name not in after:
            yield Difference(one.name, "column", name, None, column.type, None)
    for name, column in after.items():
        if name not in before:
            yield Difference(one.name, "column", name, None, None, column.type)
            continue
        for attribute, told, wanted in _column(before[name], column):
            yield Difference(one.name, "column", name, attribute, told, wanted)


def _column(one: Column, other: Column) -> Iterator[tuple[str, str | None, str | None]]:
    if one.type != other.type:
        yield "type", one.type, other.type
    if one.null != other.null:
        yield "null", _null(one), _null(other)
    for attribute in ("default", "collation"):
        before, after = getattr(one, attribute), getattr(other, attribute)
        if before != after:
            yield attribute, before, after
    if (one.generated, one.stored) != (other.generated, other.stored):
        yield "generated", _generated(one), _generated(other)
    if one.counting != other.counting:
        yield "counting", one.counting, other.counting
    if one.comment != other.comment:
        yield "comment", _quoted(one.comment), _quoted(other.comment)


def _null(column: Column) -> str:
    return "may be NULL" if column.null else "may not be NULL"


def _generated(column: Column) -> str | None:
    if column.generated is None:
        return None
    return f"by {column.generated}, {'stored' if column.stored else 'virtual'}"


def _keys(one: Table, other: Table, kind: str) -> Iterator[Difference]:
    before, after = one.primary_key, other.primary_key
    told, wanted = (None if key is None else words(key) for key in (before, after))
    if told != wanted:
        yield Difference(other.name, "primary key", None, None, told, wanted)
    elif before is not None and after is not None and before.name != after.name and kind not in WITHOUT_KEY_NAMES:
        yield Difference(other.name, "primary key", after.name, "name", before.name, after.name)


def _parts(table: str | None, part: str, one: Sequence[Any], other: Sequence[Any]) -> Iterator[Difference]:
    """Parts are the same by their names and their words; by their words alone they differ in their names."""
    left = [each for each in one if not _there(each, other)]
    right = [each for each in other if not _there(each, one)]
    for each in list(right):
        same = next((candidate for candidate in left if words(candidate) == words(each)), None)
        if same is not None:
            left.remove(same)
            right.remove(each)
            yield Difference(table, part, each.name, "name", same.name, each.name)
    before = {each.name: each for each in left if each.name}
    for each in right:
        same = before.get(each.name)
        if same is not None:
            left.remove(same)
        yield Difference(table, part, each.name, None, None if same is None else words(same), words(each))
    for each in left:
        yield Difference(table, part, each.name, None, words(each), None)


def _there(part: Any, others: Iterable[Any]) -> bool:
    return any(other.name == part.name and words(other) == words(part) for other in others)


def _quoted(text: str | None) -> str | None:
    return None if text is None else repr(text)
