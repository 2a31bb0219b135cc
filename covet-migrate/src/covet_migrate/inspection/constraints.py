"""Indexes and constraints that are there, as models declare them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Set
from typing import Any

import covet_orm as orm
from covet_migrate.inspection.descriptions import Check, Index, IndexPart, Table, Unique
from covet_orm import RawSQL
from covet_orm.indexes import Definition
from covet_orm.models.names import name_of

__all__ = ["ConstraintReader"]

POSITIVE: dict[Any, Any] = {
    orm.SmallIntegerField: orm.PositiveSmallIntegerField,
    orm.IntegerField: orm.PositiveIntegerField,
    orm.BigIntegerField: orm.PositiveBigIntegerField,
}
USUAL_METHODS = (None, "btree")


class ConstraintReader:
    """Reads the indexes and constraints of one table.

    Args:
        kind: of the database.
        table: the table.
        names: the names of the fields by their columns.
        foreign: the columns of fields that are foreign keys.
        note: notes what cannot be declared.
    """

    def __init__(
        self,
        kind: str,
        table: Table,
        names: Mapping[str, str],
        foreign: Set[str],
        note: Callable[..., None],
    ) -> None:
        self.kind = kind
        self.table = table
        self.names = names
        self.foreign = foreign
        self.note = note
        # What fields say themselves.
        self.told: set[str | None] = set()

    def is_unique(self, column: str) -> bool:
        """Whether a column is unique by a constraint that `unique=True` makes."""
        usual = Unique(name=name_of(self.table.name, [column], "key"), columns=(column,))
        found = usual in self.table.uniques
        if found:
            self.told.add(usual.name)
        return found

    def is_indexed(self, column: str) -> bool:
        """Whether a column has the index that `db_index=True` makes."""
        usual = Index(name=name_of(self.table.name, [column], "idx"), parts=(IndexPart(column=column),))
        found = usual in self.table.indexes
        if found:
            self.told.add(usual.name)
        return found

    def json(self, column: str) -> bool:
        """Whether a text of MariaDB is JSON: that is what its check says."""
        check = next((one for one in self.table.checks if one.condition == f"json_valid(`{column}`)"), None)
        if check is None or check.name != column:
            return False
        self.told.add(check.name)
        return True

    def positive(self, column: str, declares: type[Any]) -> type[Any] | None:
        """The field of numbers that are not below zero, where a check says that they are not."""
        name = name_of(self.table.name, [column], "check")
        check = next((one for one in self.table.checks if one.name == name), None)
        if declares not in POSITIVE or check is None or not check.valid:
            return None
        left, _, right = check.condition.partition(" >= ")
        if right != "0" or re.sub(r'^["`]|["`]$', "", left) != column:
            return None
        self.told.add(name)
        found: type[Any] = POSITIVE[declares]
        return found

    def indexes(self) -> list[Definition]:
        """What stands in `Meta.indexes`."""
        found: list[Definition] = []
        for index in self.table.indexes:
            if index.name in self.told:
                continue
            made = self._index(index)
            if made is not None:
                found.append(made)
        return found

    def constraints(self) -> list[Definition]:
        """What stands in `Meta.constraints`."""
        found: list[Definition] = [self._unique(one) for one in self.table.uniques if one.name not in self.told]
        found += [self._check(one) for one in self.table.checks if one.name not in self.told or one.name is None]
        for one in self.table.exclusions:
            found.append(
                orm.ExclusionConstraint(
                    [(self._excluded(part), operator) for part, operator in one.parts],
                    name=one.name,
                    **_given(
                        condition=_raw(one.condition),
                        method=one.method if one.method != "gist" else None,
                        deferrable=one.deferrable,
                    ),
                )
            )
        for key in self.table.foreign_keys:
            if not (len(key.columns) == 1 and key.columns[0] in self.foreign):
                self.note(
                    f"the foreign key {key.name!r} of ({', '.join(key.columns)}) to {key.table} "
                    f"({', '.join(key.referred)}) is left out: a field refers to a key of one column"
                )
        return found

    def _index(self, index: Index) -> Definition | None:
        if index.method is not None and self.kind != "postgresql":
            self.note(f"the {index.method} index {index.name!r} is left out")
            return None
        for part in index.parts:
            if part.length is not None:
                self.note(f"the index {index.name!r} is of the beginning of {part.column!r}, and would be of all of it")
            if part.nulls is not None:
                self.note(f"the index {index.name!r} has NULL {part.nulls}, and would have it in its usual place")
            if part.collation is not None:
                self.note(f"the index {index.name!r} has the collation {part.collation}, which is left out")
        if not index.valid:
            self.note(f"the index {index.name!r} is not valid: its creation failed; drop it, and create it again")
        classes = self._opclasses(index)
        options = _given(
            condition=_raw(index.condition),
            include=tuple(self.names[column] for column in index.include) or None,
            opclasses=classes,
        )
        parts = [self._part(part) for part in index.parts]
        if not index.nulls_distinct:
            options["nulls_distinct"] = False
            if not (index.condition or index.include or classes or any(one.expression for one in index.parts)):
                self.note(f"the unique index {index.name!r} would be a unique constraint")
            return orm.UniqueConstraint(*parts, name=index.name, **options)
        if index.method not in USUAL_METHODS:
            options["method"] = index.method
        if index.unique:
            options["unique"] = True
        return orm.Index(*parts, name=index.name, **options)

    def _part(self, part: IndexPart) -> Any:
        if part.column is not None:
            return f"-{self.names[part.column]}" if part.descending else self.names[part.column]
        expression = RawSQL(str(part.expression))
        return expression.desc() if part.descending else expression

    def _opclasses(self, index: Index) -> dict[str, str] | None:
        found: dict[str, str] = {}
        for part in index.parts:
            if part.opclass is None:
                continue
            if part.column is None and len(index.parts) > 1:
                self.note(f"the index {index.name!r} has the operator class {part.opclass}, which is left out")
                continue
            found["" if part.column is None else self.names[part.column]] = part.opclass
        return found or None

    def _unique(self, one: Unique) -> Definition:
        if one.include:
            self.note(f"the unique constraint {one.name!r} would be a unique index, as it includes columns")
        return orm.UniqueConstraint(
            *(self.names[column] for column in one.columns),
            name=one.name,
            **_given(
                include=tuple(self.names[column] for column in one.include) or None,
                deferrable=one.deferrable,
                nulls_distinct=None if one.nulls_distinct else False,
            ),
        )

    def _check(self, one: Check) -> Definition:
        if not one.valid:
            self.note(f"rows that were there before the check {one.name!r} were not checked")
        name = one.name or name_of(self.table.name, [], "check", more=one.condition)
        return orm.CheckConstraint(RawSQL(one.condition), name=name)

    def _excluded(self, part: IndexPart) -> Any:
        return self.names[part.column] if part.column is not None else RawSQL(str(part.expression))


def _given(**options: Any) -> dict[str, Any]:
    """The options that say something."""
    return {name: value for name, value in options.items() if value is not None}


def _raw(text: str | None) -> RawSQL | None:
    return None if text is None else RawSQL(text)
