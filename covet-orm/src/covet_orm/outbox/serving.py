"""The outboxes that the settings name, `[plugins.orm.outbox.ALIAS]`: declared with the application, and delivered from
while it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from anyio import Event, move_on_after

from covet.concurrency import task_group
from covet.exceptions import ConfigurationError
from covet_orm.databases import Database
from covet_orm.exceptions import OrmError
from covet_orm.outbox.messages import checked_topic
from covet_orm.outbox.outbox import Outbox
from covet_orm.outbox.worker import OutboxWorker

if TYPE_CHECKING:
    from covet.applications import Covet
    from covet_orm.outbox.handlers import Handler
    from covet_orm.outbox_settings import OutboxSettings

__all__ = ["declare", "import_handlers", "worker_of"]


def declare(app: Covet, outboxes: Mapping[str, OutboxSettings]) -> None:
    """Declare the outboxes of an application, and let it deliver from those that are to be delivered from by it.

    Raises:
        ConfigurationError: there is no such database, or its handlers cannot be imported.
    """
    for alias, settings in outboxes.items():
        storage = app.storage.get(alias)
        if not isinstance(storage, Database):
            raise ConfigurationError(
                f"[plugins.orm.outbox.{alias}]: there is no [storage.{alias}] that is a database of covet-orm"
            )
        create = app.settings.app.debug if settings.create_table is None else settings.create_table
        outbox = Outbox(storage, create_table=create)
        if settings.handlers and settings.deliver:
            worker = worker_of(outbox, settings)
            app.add_lifespan(partial(_delivering, worker=worker, grace=settings.shutdown_seconds))


def worker_of(outbox: Outbox, settings: OutboxSettings, handlers: str = "") -> OutboxWorker:
    """A worker as the settings describe it.

    Args:
        outbox: from where.
        settings: those of the outbox.
        handlers: others than the settings name, as `module:name`.

    Raises:
        ConfigurationError: they cannot be imported, or are none.
    """
    found = import_handlers(handlers or settings.handlers, f"[plugins.orm.outbox.{outbox.database.alias}] handlers")
    return OutboxWorker(
        outbox,
        found,
        concurrency=settings.concurrency,
        lease=settings.lease_seconds,
        max_attempts=settings.max_attempts,
        keep=settings.keep_seconds,
        poll=settings.poll_seconds,
    )


def import_handlers(name: str, where: str) -> Mapping[str, Handler]:
    """Import functions by topic.

    Args:
        name: `module:name` of a mapping, such as `Handlers`.
        where: who names them, for messages.

    Raises:
        ConfigurationError: they cannot be imported, or are none.
    """
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise ConfigurationError(f"{where}: {name!r} is not of the form `module:name`, such as 'app.messages:handlers'")
    try:
        found: Any = getattr(import_module(module), attribute)
    except Exception as error:
        raise ConfigurationError(f"{where}: {name!r} cannot be imported: {type(error).__name__}: {error}") from error
    if not isinstance(found, Mapping) or not found or not all(callable(handler) for handler in found.values()):
        raise ConfigurationError(
            f"{where}: {name!r} is no mapping of topics to functions that has one: `handlers = Handlers()`, and "
            '`@handlers.on("topic")` before an `async def`'
        )
    try:
        for topic in found:
            checked_topic(topic)
    except OrmError as error:
        raise ConfigurationError(f"{where}: {name!r}: {error}") from error
    return found


@asynccontextmanager
async def _delivering(app: Covet, *, worker: OutboxWorker, grace: float) -> AsyncIterator[None]:
    """Deliver while the application runs; at its end, handlers that are at work have so many seconds."""
    ended = Event()

    async def run() -> None:
        try:
            await worker.run()
        finally:
            ended.set()

    async with task_group() as group:
        group.start_soon(run)
        try:
            yield
        finally:
            worker.stop()
            with move_on_after(grace):
                await ended.wait()
            group.cancel_scope.cancel()
