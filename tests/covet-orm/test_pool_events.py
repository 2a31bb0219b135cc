"""What a pool tells those who listen."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

import pytest
from tests.line_database import LineDriver, LineServer, until

import covet
import covet_orm.pool.connection_pool
import covet_orm.pool.stock
from covet import Covet
from covet_orm.events import (
    ConnectionDiscarded,
    ConnectionFailed,
    ConnectionMade,
    ConnectionWaited,
    PoolExhausted,
)
from covet_orm.exceptions import DatabaseUnavailable, PoolTimeout
from covet_orm.pool import Pool, PoolSettings

pytestmark = pytest.mark.anyio

E = TypeVar("E")


class Listener:
    """Keeps every event."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    @covet.hookimpl
    def covet_event(self, event: object) -> None:
        self.events.append(event)

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]


async def use(server: LineServer) -> Pool:
    """A pool to which everything happens that it tells of."""
    pool = Pool(LineDriver(server), PoolSettings(max_size=1, check_after_idle=None), name="orders")
    await pool.open()
    connection = await pool.acquire()
    with pytest.raises(PoolTimeout):
        await pool.acquire(timeout=0.001)
    waiting = asyncio.create_task(pool.acquire())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    await connection.fetch("begin")
    pool.release(connection)
    pool.discard(await pool.acquire())
    server.refusal = "starting up"
    with pytest.raises(DatabaseUnavailable):
        await pool.acquire()
    server.refusal = ""
    pool.release(await pool.acquire())
    await pool.close()
    await until(lambda: not server.sessions, "the server has no session left")
    return pool


async def test_what_happens_is_told() -> None:
    heard, server = Listener(), LineServer()
    await server.start()
    app = Covet({}, plugins={"listener": heard}, installed_plugins=False)
    async with app.running():
        pool = await use(server)
    await server.stop()
    assert [(event.pool, event.size) for event in heard.of(ConnectionMade)] == [("orders", 1)] * 3
    assert all(event.seconds > 0 for event in heard.of(ConnectionMade))
    discarded = heard.of(ConnectionDiscarded)
    assert [event.reason for event in discarded] == ["transaction", "discarded", "closed"]
    assert [event.number for event in discarded] == [event.number for event in heard.of(ConnectionMade)]
    assert [event.error for event in heard.of(ConnectionFailed)] == ["DatabaseUnavailable"]
    outcomes = [event.outcome for event in heard.of(ConnectionWaited)]
    assert outcomes == ["served", "timeout", "cancelled", "served", "unavailable", "served"]
    assert [(event.size, event.waiting) for event in heard.of(PoolExhausted)] == [(1, 1), (1, 1)]
    stats = pool.stats
    assert (stats.made, stats.discarded, stats.failures, stats.timeouts, stats.waits) == (3, 3, 1, 1, 6)


async def test_nothing_is_built_when_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    def built(*values: object) -> None:
        raise AssertionError(f"an event was built: {values}")

    for module in (covet_orm.pool.connection_pool, covet_orm.pool.stock):
        for kind in (ConnectionMade, ConnectionFailed, ConnectionDiscarded, ConnectionWaited, PoolExhausted):
            if hasattr(module, kind.__name__):
                monkeypatch.setattr(module, kind.__name__, built)
    server = LineServer()
    await server.start()
    async with Covet({}, installed_plugins=False).running():
        await use(server)
    await use(server)
    await server.stop()
