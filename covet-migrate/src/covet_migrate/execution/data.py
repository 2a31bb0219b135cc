"""What code that moves data gets: models as they were, and a way to do it in batches that are kept one by one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any

import anyio

from covet_migrate.execution.events import BatchDone, Listener
from covet_orm import Database, Registry, transaction_manager
from covet_orm.ambient import scoped
from covet_orm.testing import faultpoints

__all__ = ["Batch", "DataStep", "Pace"]

Save = Callable[[Any], Awaitable[None]]


BATCH_SECONDS = 0.003
"""How long a batch is to work before its commit: about as long as a transaction of somebody else takes, who wants a row
of it, or the processor and the disk that it keeps busy. How long the commit takes, nobody can choose."""
REST = 0.5
"""For what share of the time of a batch others have the database to themselves after it."""
FEWEST = 100
"""Rows of a batch where even few take longer: less would only be more of what each batch costs by itself."""


class Pace:
    """How many rows a batch has: as many as can be done in `BATCH_SECONDS`, by how long those before it worked.

    Args:
        most: rows at the most.
        first: rows of the first batch; `most` by default.
    """

    def __init__(self, most: int, first: int | None = None) -> None:
        self.most = most
        self.size = min(first or most, most)

    def took(self, seconds: float) -> None:
        """Choose the number of the next batch, by how long one of `size` rows worked; twice or half as many at the
        most, since one batch may have been lucky."""
        wanted = self.size * min(max(BATCH_SECONDS / max(seconds, 1e-6), 0.5), 2.0)
        self.size = max(min(round(wanted), self.most), min(FEWEST, self.most))


@dataclass
class Batch:
    """A part of the work, in a transaction of its own.

    Attributes:
        position: how far it came, such as the last key: what JSON can hold. It is kept together with the batch.
        rows: how many rows it did.
    """

    position: Any = None
    rows: int = 0


class DataStep:
    """A step that moves data.

    Args:
        database: where.
        models: the models as they were at this point of the migrations.
        name: of the step, for people.
        backward: whether it is taken back.
        inside: whether it runs in the transaction of its migration.
        position: how far it came before it was interrupted; None at the beginning.
        until: how far it goes, where it takes back what was interrupted; None to the end.
        save: keeps the position, in the transaction around it.
        tell: is told of each batch.

    Attributes:
        seconds: how long the last batch took, its commit included; 0 before there was one.
        worked: how long it took before it was committed.
        database, models, name, backward, inside, position, until: as given.
        done: rows that are done, since it began or went on.
        total: rows that there are to do, where somebody says it.
    """

    def __init__(
        self,
        database: Database,
        models: Registry,
        name: str,
        *,
        backward: bool,
        inside: bool,
        position: Any = None,
        until: Any = None,
        save: Save | None = None,
        tell: Listener | None = None,
    ) -> None:
        self.database = database
        self.models = models
        self.name = name
        self.backward = backward
        self.inside = inside
        self.position = position
        self.until = until
        self.done = 0
        self.total: int | None = None
        self.seconds = self.worked = 0.0
        self._save = save
        self._tell = tell

    async def call(self, function: Callable[[DataStep], Awaitable[object]]) -> None:
        """Call a function with this, and the models bound to the database: whatever it raises is raised."""
        around = scoped.get({})
        token = scoped.set({**around, "default": self.database, self.database.alias: self.database})
        try:
            await function(self)
        finally:
            scoped.reset(token)

    @asynccontextmanager
    async def batch(self) -> AsyncIterator[Batch]:
        """A part of the work: all of it is kept, with its position, or nothing.

        Within the transaction of the migration it is a part of that. Cancelled, it is rolled back; what was done before
        it stays, and the next run goes on behind it. There is a rest before each but the first one, in which no row is
        locked.
        """
        if not self.inside:
            await anyio.sleep(self.seconds * REST)
        batch = Batch(self.position)
        began = monotonic()
        if self.inside:
            yield batch
            self.worked = monotonic() - began
        else:
            async with transaction_manager.atomic(self.database, durable=True, label="migration.batch"):
                yield batch
                self.worked = monotonic() - began
                if self._save is not None:
                    await self._save(batch.position)
            if faultpoints.actions:
                await faultpoints.reached("migrate.batch")
        self.seconds = monotonic() - began
        self.position = batch.position
        self.done += batch.rows
        if self._tell is not None:
            self._tell(BatchDone(name=self.name, done=self.done, total=self.total))

    def rest(self, query: Any) -> Any:
        """The objects of a query that are not done: those behind the position, as far as it goes."""
        if self.until is not None:
            query = query.filter(pk__lte=self.until)
        return query if self.position is None else query.filter(pk__gt=self.position)

    async def in_batches(
        self, query: Any, function: Callable[[list[Any]], Awaitable[object]], *, size: int = 1000
    ) -> int:
        """Do something with all objects of a query, so many at a time, in the order of their keys; how many there were.

        Each batch is kept by itself, where the step runs outside of a transaction; interrupted, the next run goes on
        behind the last one. Objects that come meanwhile with a smaller key are left out.

        Args:
            query: the objects.
            function: is awaited with those of a batch.
            size: how many at a time, at the most; fewer where they take long.
        """
        pace = Pace(size)
        while True:
            async with self.batch() as batch:
                found = [one async for one in self.rest(query).order_by("pk")[: pace.size]]
                if found:
                    await function(found)
                    batch.position, batch.rows = _holdable(found[-1].pk), len(found)
            if len(found) < pace.size:
                return self.done
            if not self.inside:
                pace.took(self.worked)


def _holdable(key: Any) -> Any:
    """A key as JSON holds it; fields take the text of a UUID and the like for the value."""
    return key if isinstance(key, (int, str)) else str(key)
