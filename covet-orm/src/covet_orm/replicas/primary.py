"""A database whose reads go to the primary."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Unpack

from covet.events import listener
from covet_orm.databases import Database
from covet_orm.observing import WATCHED, observed_connection

if TYPE_CHECKING:
    from covet_orm.databases import Lane
    from covet_orm.drivers.protocol import Connection, Inserted, Row
    from covet_orm.observing import Watcher
    from covet_orm.pool import Pool
    from covet_orm.queries.plans import Plan
    from covet_orm.replicas.routing import PrimaryReads, ReadRouter
    from covet_orm.transactions.blocks import Transaction
    from covet_orm.transactions.options import BlockOptions

__all__ = ["PrimaryDatabase"]


class PrimaryDatabase(Database):
    """A database with replicas, seen so that none of them is asked. It shares pools and transactions with the other.

    Attributes:
        database: the database with its replicas.
    """

    database: Database

    @classmethod
    def of(cls, database: Database) -> PrimaryDatabase:
        """The database without its replicas."""
        made = cls.__new__(cls)
        made.__dict__.update(copy.copy(database).__dict__)
        made.database = database
        # What comes from here is asked for again here.
        made.sources = {}
        # Methods of a database that is watched are those of the other one, which asks replicas.
        for name in WATCHED:
            vars(made).pop(name, None)
        return made

    def __repr__(self) -> str:
        return f"<PrimaryDatabase {self.alias} {self.url}>"

    @property
    def watchers(self) -> tuple[Watcher, ...]:
        """Those of the other one."""
        return self.database.watchers

    @watchers.setter
    def watchers(self, watchers: tuple[Watcher, ...]) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self.database.watchers = watchers

    @asynccontextmanager
    async def connection(self, *, reads: bool = False, name: str = "") -> AsyncIterator[Connection]:
        """As the other's, and never of a replica."""
        given = observed_connection(self, listener(), reads=reads, name=name) if self.watchers else None
        async with given or super().connection(reads=reads, name=name) as connection:
            yield connection

    def primary(self) -> Database:
        """This one."""
        return self

    def transaction(self, **options: Unpack[BlockOptions]) -> Transaction:
        """A transaction, which is on the primary anyway."""
        return self.database.transaction(**options)

    async def source_for(self, *, reads: bool) -> Pool | ReadRouter | PrimaryReads:
        """Who lends connections: the primary."""
        lane = await self._lane()
        return lane.replicated.router.primary_reads if reads and lane.replicated is not None else lane.writers

    async def _fetch(self, plan: Plan, parameters: Sequence[Any], *, reads: bool) -> list[Row]:
        async with self.connection(reads=reads, name=plan.name) as connection:
            return await connection.fetch(plan.sql, parameters)

    async def write(self, plan: Plan, parameters: Sequence[Any]) -> Inserted:
        """As the other's, which asks the primary."""
        return await self.database.write(plan, parameters)

    async def close(self) -> None:
        """Close the database."""
        await self.database.close()

    async def _lane(self) -> Lane:
        lane = await self.database._lane()
        self.kind = self.database.kind
        return lane
