"""The log that the settings name, `[plugins.orm] distributed_log`: declared with the application, and recovered from
while it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from covet.concurrency import task_group
from covet.exceptions import ConfigurationError
from covet_orm.databases import Database
from covet_orm.transactions.distributed.decisions import DecisionLog
from covet_orm.transactions.distributed.recovery import keep_recovering

if TYPE_CHECKING:
    from covet.applications import Covet

__all__ = ["declare"]


def declare(app: Covet, alias: str) -> None:
    """Declare the table of the log, and let the application recover at its start, and each minute.

    Raises:
        ConfigurationError: there is no such database.
    """
    storage = app.storage.get(alias)
    if not isinstance(storage, Database):
        raise ConfigurationError(
            f"[plugins.orm] distributed_log: there is no [storage.{alias}] that is a database of covet-orm"
        )
    DecisionLog.of(storage, create_table=app.settings.app.debug).declare()
    app.add_lifespan(_recovering)


@asynccontextmanager
async def _recovering(app: Covet) -> AsyncIterator[None]:
    databases = [storage for storage in app.storage.values() if isinstance(storage, Database)]
    async with task_group() as group:
        group.start_soon(partial(keep_recovering, databases))
        try:
            yield
        finally:
            group.cancel_scope.cancel()
