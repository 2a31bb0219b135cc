"""The parts of a query, as a builder collects them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from covet_orm.querybuilder.conditions import Conditions
from covet_orm.querybuilder.expressions import Aliased, Expression, Ordering

if TYPE_CHECKING:
    from covet_orm.querybuilder.builders import QueryBuilder

__all__ = [
    "CommonTable", "Delete", "Insert", "InsertFrom", "Join", "JoinKind", "Lock", "Parts", "SetOperation", "Source",
    "Update", "Upsert", "Verb",
]  # fmt: skip

JoinKind: TypeAlias = Literal["inner", "left", "right", "full", "cross"]
"""How two tables are joined."""

SetOperation: TypeAlias = Literal["union", "union all", "intersect", "intersect all", "except", "except all"]
"""How the rows of two queries are combined."""


NO_CONDITIONS = Conditions()


@dataclass(frozen=True, slots=True)
class Source:
    """A table by name, or a query; with the name that it goes by."""

    table: str | QueryBuilder
    alias: str | None = None


@dataclass(frozen=True, slots=True)
class Join:
    """A join to what was named before it."""

    source: Source
    kind: JoinKind
    on: Conditions | None
    lateral: bool = False


@dataclass(frozen=True, slots=True)
class CommonTable:
    """A common table expression; a recursive one has a step."""

    name: str
    query: QueryBuilder
    step: QueryBuilder | None = None
    distinct: bool = False
    materialized: bool | None = None


@dataclass(frozen=True, slots=True)
class Lock:
    """How the rows are locked until the transaction ends."""

    share: bool = False
    nowait: bool = False
    skip_locked: bool = False
    of: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Insert:
    """Rows to insert, all with the same columns."""

    rows: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class InsertFrom:
    """The rows of a query to insert."""

    columns: tuple[str, ...]
    query: QueryBuilder


@dataclass(frozen=True, slots=True)
class Upsert:
    """Rows to insert, and what becomes of those that are there: nothing where `update` is empty."""

    rows: tuple[Mapping[str, Any], ...]
    conflict: tuple[str, ...]
    update: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Update:
    """Values for the rows."""

    values: Mapping[str, Any]
    everything: bool


@dataclass(frozen=True, slots=True)
class Delete:
    """The rows go."""

    everything: bool


Verb: TypeAlias = Insert | InsertFrom | Upsert | Update | Delete
"""What a statement does; a query has none."""


@dataclass(frozen=True, slots=True)
class Parts:
    """All that a builder was told."""

    source: Source | None
    columns: tuple[Expression | Aliased, ...] = ()
    distinct: bool = False
    distinct_on: tuple[Expression, ...] = ()
    joins: tuple[Join, ...] = ()
    where: Conditions = NO_CONDITIONS
    group_by: tuple[Expression, ...] = ()
    having: Conditions = NO_CONDITIONS
    order_by: tuple[Ordering, ...] = ()
    limit: int | None = None
    offset: int | None = None
    lock: Lock | None = None
    tables: tuple[CommonTable, ...] = ()
    operation: SetOperation | None = None
    arms: tuple[QueryBuilder, ...] = ()
    verb: Verb | None = None
    returning: tuple[Expression | Aliased, ...] = ()
