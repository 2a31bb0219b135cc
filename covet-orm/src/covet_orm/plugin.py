"""The plugin: what covet-orm adds to an application."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from covet import hookimpl
from covet.backends import Backend
from covet.exceptions import ConfigurationError, CovetError
from covet.storage import StorageBackend
from covet_orm.backend_settings import DatabaseCacheSettings, DatabaseSessionSettings, PostgreSQLPubSubSettings
from covet_orm.settings import MySQLSettings, OrmSettings, PostgreSQLSettings, SQLiteSettings, options_of

# SQLAlchemy takes half a second to import, which `covet plugins list` need not wait for: what needs it is imported
# where it is used.
if TYPE_CHECKING:
    from covet.applications import Covet
    from covet.health import HealthCheck
    from covet_orm.cache import DatabaseCache
    from covet_orm.databases import Database
    from covet_orm.expiry import Start
    from covet_orm.pubsub import PostgreSQLPubSub
    from covet_orm.sessions import DatabaseSessionStore

__all__ = [
    "covet_cache_backends",
    "covet_health_checks",
    "covet_lifespan",
    "covet_pubsub_backends",
    "covet_session_stores",
    "covet_settings",
    "covet_setup",
    "covet_storage_backends",
]

logger = logging.getLogger("covet.orm")
IDLE_IN_TRANSACTION = 5.0
"""Seconds: the `idle_in_transaction_warning` of debug mode."""


@hookimpl
def covet_settings() -> type:
    """The settings: routers."""
    return OrmSettings


@hookimpl
def covet_setup(app: Covet) -> None:
    """Import the routers that the settings name, and declare the outboxes and the log of distributed transactions.

    Raises:
        ConfigurationError: a router or a mapping of handlers cannot be imported, or is none.
    """
    outboxes = app.settings[OrmSettings].outbox
    if outboxes:
        from covet_orm.outbox.serving import declare

        declare(app, outboxes)
    log = app.settings[OrmSettings].distributed_log
    if log:
        from covet_orm.transactions.distributed import serving

        serving.declare(app, log)
    names = app.settings[OrmSettings].routers
    if names:
        from covet_orm.routers import Routers, import_routers

        app.state[Routers] = import_routers(names)


@hookimpl
def covet_storage_backends() -> Mapping[str, StorageBackend]:
    """The databases, by the schemes of their URLs."""
    mysql = StorageBackend(_database, MySQLSettings)
    postgresql = StorageBackend(_database, PostgreSQLSettings)
    return {
        "postgresql": postgresql,
        "postgres": postgresql,
        "mysql": mysql,
        "mariadb": mysql,
        "sqlite": StorageBackend(_database, SQLiteSettings),
    }


@hookimpl
def covet_session_stores() -> Mapping[str, Backend]:
    """The store `database`."""
    return {"database": Backend(_sessions, DatabaseSessionSettings)}


@hookimpl
def covet_cache_backends() -> Mapping[str, Backend]:
    """The backend `database`."""
    return {"database": Backend(_cache, DatabaseCacheSettings)}


@hookimpl
def covet_pubsub_backends() -> Mapping[str, Backend]:
    """The backend `postgresql`."""
    return {"postgresql": Backend(_pubsub, PostgreSQLPubSubSettings)}


@hookimpl
def covet_health_checks(app: Covet) -> Mapping[str, HealthCheck]:
    """One for each database."""
    from covet_orm.health import health_check

    return {f"database {alias}": health_check(database) for alias, database in _databases(app).items()}


@hookimpl
@asynccontextmanager
async def covet_lifespan(app: Covet) -> AsyncIterator[None]:
    """Makes the tables of the stores that are chosen, where that was asked for; tells of those that are not there. In
    debug mode it looks for queries in loops, for tables that are locked in different orders, and for transactions that
    nobody uses."""
    databases = list(_databases(app).values())
    if databases:
        from anyio import to_thread

        from covet_orm.dialects import dialect_of

        for kind in {database.kind for database in databases}:
            # Imports SQLAlchemy, which declaring models does not: the first request would wait for it, and all others.
            await to_thread.run_sync(dialect_of, kind)
    for database in databases:
        for table in database.store_tables.values():
            try:
                await table.require()
            except CovetError as error:
                # The stores say the same whenever they are used. Those who need none of them are served.
                logger.error("%s", error)
    if not app.settings.app.debug:
        yield
        return
    for database in databases:
        if database.observing.idle_in_transaction_warning is None:
            database.observing = replace(database.observing, idle_in_transaction_warning=IDLE_IN_TRANSACTION)
    if not databases:
        yield
        return
    from covet_orm import nplusone
    from covet_orm.transactions import lock_order

    with (
        nplusone.watch(*(one for one in databases if one.observing.warn_n_plus_one), requests_only=True),
        lock_order.watch(*(one for one in databases if one.observing.warn_lock_order)),
    ):
        yield


def _databases(app: Covet) -> dict[str, Database]:
    """The databases of an application by alias; those of other plugins are none of ours."""
    if not app.storage:
        return {}
    from covet_orm.databases import Database

    return {alias: storage for alias, storage in app.storage.items() if isinstance(storage, Database)}


def _database(alias: str, settings: Any) -> Database:
    from covet_orm.databases import Database

    return Database(settings.url, alias=alias, **options_of(settings))


def _sessions(app: Covet, alias: str, settings: DatabaseSessionSettings) -> DatabaseSessionStore:
    from covet_orm.sessions import DatabaseSessionStore

    database = _find(app, settings.database, "sessions")
    return DatabaseSessionStore(database, table=settings.table, create_table=_creates(app, settings.create_table))


def _cache(app: Covet, alias: str, settings: DatabaseCacheSettings) -> DatabaseCache:
    from covet_orm.cache import DatabaseCache

    return DatabaseCache(
        _find(app, settings.database, f"cache.{alias}"),
        table=settings.table,
        create_table=_creates(app, settings.create_table),
        unlogged=settings.unlogged,
        max_bytes=settings.max_bytes,
        max_value_bytes=settings.max_value_bytes,
        start=_starter(app),
    )


def _pubsub(app: Covet, alias: str, settings: PostgreSQLPubSubSettings) -> PostgreSQLPubSub:
    from covet_orm.pubsub import PostgreSQLPubSub

    return PostgreSQLPubSub(
        _find(app, settings.database, f"pubsub.{alias}"),
        table=settings.table,
        create_table=_creates(app, settings.create_table),
        heartbeat=settings.heartbeat_seconds,
        start=_starter(app),
    )


def _find(app: Covet, alias: str, section: str) -> Database:
    from covet_orm.databases import Database

    try:
        storage = app.storage[alias]
    except ConfigurationError as error:
        raise ConfigurationError(f"[{section}] database: {error}") from None
    if not isinstance(storage, Database):
        raise ConfigurationError(
            f"[{section}] database: the storage {alias!r} is of the kind {storage.kind}, and a database of covet-orm "
            "was expected"
        )
    return storage


def _creates(app: Covet, wanted: bool | None) -> bool:
    return app.settings.app.debug if wanted is None else wanted


def _starter(app: Covet) -> Start:
    def start(work: Any) -> bool:
        if not app.tasks.running:
            return False
        app.tasks.start_soon(work, name="removal of what expired")
        return True

    return start
