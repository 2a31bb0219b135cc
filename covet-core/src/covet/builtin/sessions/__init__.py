"""The builtin plugin `sessions`: sessions in this process (`memory`) or in the browser (`cookie`), handlers that ask
for one, and the removal of those that have expired.

A request that touches no session pays nothing for it: what a session does to its response is attached when it is
loaded.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from random import random
from typing import TYPE_CHECKING, Any

import anyio

from covet.backends import Backend
from covet.builtin.sessions.memory import MemorySessionSettings, MemorySessionStore
from covet.concurrency import task_group
from covet.connections import Connection
from covet.exceptions import HTTPError
from covet.hooks import hookimpl
from covet.sessions import Session

if TYPE_CHECKING:
    from covet.applications import Covet

__all__ = [
    "MemorySessionSettings",
    "MemorySessionStore",
    "covet_dependencies",
    "covet_lifespan",
    "covet_session_stores",
    "load_session",
]

logger = logging.getLogger("covet.sessions")


async def load_session(connection: Connection) -> Session:
    """The session of a request or WebSocket, loaded: what a handler gets that asks for `session: Session`."""
    return await connection.session


def _memory(app: Covet, alias: str, settings: MemorySessionSettings) -> MemorySessionStore:
    return MemorySessionStore(settings)


def _cookie(app: Covet, alias: str, settings: Any) -> Any:
    from covet.builtin.sessions.sealed import CookieSessions

    return CookieSessions(app.signing_keys("session cookie", app.settings.app.name))


@hookimpl
def covet_session_stores() -> Mapping[str, Backend]:
    """The stores `memory` and `cookie`."""
    return {"memory": Backend(_memory, MemorySessionSettings), "cookie": Backend(_cookie)}


@hookimpl
def covet_dependencies(app: Covet) -> Mapping[type, Any]:
    """A handler may ask for its session."""
    return {Session: load_session}


@hookimpl
@asynccontextmanager
async def covet_lifespan(app: Covet) -> AsyncIterator[None]:
    """Removes expired sessions now and then, for as long as the application runs."""
    sessions = app.sessions
    if any(step.provider is load_session for plan in app.plans for step in plan.steps):
        sessions.warn_if_unshared()
    if sessions.sealed:
        yield
        return
    async with task_group() as group:
        group.start_soon(_purge, app)
        yield
        group.cancel_scope.cancel()


async def _purge(app: Covet) -> None:
    interval = app.sessions.settings.purge_seconds
    # Processes that start together do not come to the store together.
    await anyio.sleep(interval * random())
    while True:
        try:
            ended = await app.sessions.purge()
        except HTTPError:
            # Told to the log already, with its cause.
            logger.warning("expired sessions could not be removed; it is tried again")
        else:
            logger.debug("%d expired sessions were removed", ended)
        await anyio.sleep(interval * (0.75 + 0.5 * random()))
