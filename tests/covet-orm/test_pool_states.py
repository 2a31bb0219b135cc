"""The pool against a model: anything may happen in any order, on real sockets, and what `Pool` promises holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.line_database import LineConnection, LineDriver, LineServer

from covet_orm.drivers.protocol import Connection, SessionState
from covet_orm.exceptions import ConnectionLost, DatabaseUnavailable
from covet_orm.pool import Pool, PoolSettings

MOST = 3


class Client:
    """A task that acquires, and then holds until the model says otherwise."""

    def __init__(self, number: int, pool: Pool) -> None:
        self.task = asyncio.get_running_loop().create_task(pool.acquire(), name=f"client {number}")
        self.cancelled = False

    @property
    def waits(self) -> bool:
        return not self.task.done() and not self.cancelled


class PoolMachine(RuleBasedStateMachine):
    """Clients acquire, release, are cancelled; sessions are cut; the server goes and comes."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.server = LineServer()
        self.driver = LineDriver(self.server)
        self.clients: list[Client] = []
        self.held: list[Connection] = []
        self.reachable = True
        self.numbers = 0

    def step(self, work: Callable[[], Any], turns: int = 0) -> Any:
        """Do something in the event loop, without a pause, and let it turn some times."""

        async def run() -> Any:
            result = work()
            for _ in range(turns):
                await asyncio.sleep(0)
            return result

        result = self.runner.run(run())
        self.collect()
        return result

    def collect(self) -> None:
        """See which clients were served: in the order of their arrival."""
        waiting = [client for client in self.clients if client.waits]
        for client in list(self.clients):
            if not client.task.done():
                continue
            self.clients.remove(client)
            if client.task.cancelled():
                assert client.cancelled
                continue
            error = client.task.exception()
            if error is not None:
                assert isinstance(error, DatabaseUnavailable)
                continue
            connection = client.task.result()
            # A cancellation that was asked for is not lost.
            assert not client.cancelled
            assert connection not in self.held
            assert connection.state in (SessionState.IDLE, SessionState.CLOSED)
            self.held.append(connection)
            assert all(self.order[other] > self.order[client] for other in waiting if other in self.order)

    @initialize(least=st.integers(0, 2), check=st.sampled_from([None, 0.0]))
    def begin(self, least: int, check: float | None) -> None:
        async def run() -> Pool:
            await self.server.start()
            limits = PoolSettings(
                min_size=least,
                max_size=MOST,
                acquire_timeout=1000.0,
                check_after_idle=check,
                failures=2,
                retry_after=0.01,
            )
            pool = Pool(self.driver, limits)
            await pool.open()
            return pool

        self.order: dict[Client, int] = {}
        self.pool = self.runner.run(run())

    @rule(turns=st.integers(0, 4))
    def acquire(self, turns: int) -> None:
        def work() -> None:
            self.numbers += 1
            client = Client(self.numbers, self.pool)
            self.clients.append(client)
            self.order[client] = self.numbers

        self.step(work, turns)

    @rule()
    def try_acquire(self) -> None:
        def work() -> Connection | None:
            # Those who were started and have not run yet do not wait yet.
            queued = self.pool.stats.waiting
            connection = self.pool.try_acquire()
            assert connection is None or queued == 0
            # At once: a moment later the server may have cut it.
            assert connection is None or connection.state is SessionState.IDLE
            return connection

        connection = self.step(work)
        if connection is not None:
            assert connection not in self.held
            self.held.append(connection)

    @rule(which=st.integers(0, MOST), turns=st.integers(0, 4), how=st.sampled_from(["release", "discard"]))
    def give_back(self, which: int, turns: int, how: str) -> None:
        if which < len(self.held):
            connection = self.held.pop(which)
            self.step(lambda: getattr(self.pool, how)(connection), turns)

    @rule(which=st.integers(0, MOST), statement=st.sampled_from(["begin", "hang", "hello"]), turns=st.integers(0, 2))
    def give_back_after(self, which: int, statement: str, turns: int) -> None:
        async def use(connection: Connection) -> None:
            try:
                async with asyncio.timeout(0.01 if statement == "hang" else 5):
                    await connection.fetch(statement)
            except (ConnectionLost, TimeoutError):
                assert connection.state is not SessionState.IDLE

        if which < len(self.held):
            connection = self.held.pop(which)
            self.runner.run(use(connection))
            self.collect()
            self.step(lambda: self.pool.release(connection), turns)

    @rule(which=st.integers(0, 5), turns=st.integers(0, 2), release=st.booleans(), first=st.booleans())
    def cancel(self, which: int, turns: int, release: bool, first: bool) -> None:
        """Cancel one that waits; perhaps in the same step in which a connection is released, before or after."""
        waiting = [client for client in self.clients if client.waits]
        if which >= len(waiting):
            return
        client = waiting[which]
        connection = self.held.pop(0) if release and self.held else None

        def work() -> None:
            if connection is not None and first:
                self.pool.release(connection)
            # It may have been served before this step began.
            client.cancelled = client.task.cancel()
            if connection is not None and not first:
                self.pool.release(connection)

        self.step(work, turns)

    @rule(which=st.integers(0, 8))
    def cut(self, which: int) -> None:
        """The server ends a session, whatever it is used for; its end is heard of, or not yet."""
        sessions = sorted(self.server.sessions)
        if which < len(sessions):
            self.step(lambda: self.server.kill(sessions[which]), which % 3)

    @rule()
    def cut_heard(self) -> None:
        """The server ends all sessions, and the clients have heard of it."""

        async def run() -> None:
            made = [connection for connection in self.driver.made if connection.server_id in self.server.sessions]
            self.server.kill()
            for connection in made:
                await asyncio.wait_for(connection.ended, 5)

        self.runner.run(run())
        self.collect()

    @rule(how=st.sampled_from(["unreachable", "refusing", "back", "back"]))
    def outage(self, how: str) -> None:
        async def run() -> None:
            if how == "unreachable":
                self.server.refuse()
            elif how == "refusing":
                self.server.refusal = "starting up"
            else:
                self.server.refusal = ""
                await self.server.start()

        self.reachable = how == "back"
        self.runner.run(run())
        self.collect()

    @rule()
    def expire(self) -> None:
        self.step(self.pool.expire)

    @rule(seconds=st.sampled_from([0.0, 0.002, 0.015]))
    def wait(self, seconds: float) -> None:
        self.runner.run(asyncio.sleep(seconds))
        self.collect()

    @rule()
    def come_to_rest(self) -> None:
        """What is under way ends; then nobody waits while a connection could be had."""

        async def run() -> None:
            for _ in range(2000):
                stats = self.pool.stats
                busy = stats.making or stats.checking or any(client.cancelled for client in self.clients)
                held = [connection for connection in self.held if connection.state is not SessionState.CLOSED]
                # While the server is away, one waits for what others hold, and only for that.
                waiting = stats.waiting and (stats.in_use < MOST if self.reachable else not held and not stats.in_use)
                if not busy and not waiting and len(self.server.sessions) <= stats.size:
                    return
                if stats.waiting and not self.reachable and held:
                    return
                await asyncio.sleep(0.002)
                self.collect()
            raise AssertionError(f"{self.pool!r} does not come to rest, with {len(self.server.sessions)} sessions")

        self.runner.run(run())
        self.collect()

    @invariant()
    def every_connection_is_one_thing(self) -> None:
        if not hasattr(self, "pool"):
            return
        pool, stats = self.pool, self.pool.stats
        assert stats.size == stats.idle + stats.in_use + stats.making + stats.checking <= MOST
        idle = {slot.connection for slot in pool._idle}
        checking = {slot.connection for slot in pool._checking}
        held = set(pool._held)
        assert len(idle) == stats.idle
        assert not idle & held
        assert not idle & checking
        assert not held & checking
        # Those that were handed over to a task that has not run yet are held, too.
        assert set(self.held) <= held
        assert len(held) <= len(self.held) + len(self.clients)
        since = [slot.idle_since for slot in pool._idle]
        assert since == sorted(since)

    @invariant()
    def nobody_waits_beside_an_idle_connection(self) -> None:
        if hasattr(self, "pool") and (stats := self.pool.stats).waiting:
            # One that is checked, or being made, is under way for each that could have an idle one.
            assert stats.idle == 0 or stats.checking + stats.making >= stats.waiting

    def teardown(self) -> None:
        async def run() -> None:
            if hasattr(self, "pool"):
                for connection in self.held:
                    self.pool.release(connection)
                for client in self.clients:
                    client.task.cancel()
                await asyncio.gather(*(client.task for client in self.clients), return_exceptions=True)
                for client in self.clients:
                    if not client.task.cancelled() and client.task.exception() is None:
                        self.pool.release(client.task.result())
                assert self.pool.stats.in_use == 0
                await self.pool.close()
                assert self.pool.size == 0
                assert not self.pool._workers
                assert not self.pool._closers
                for connection in self.driver.made:
                    assert isinstance(connection, LineConnection)
                    assert connection.state is SessionState.CLOSED
                    await asyncio.wait_for(connection.ended, 5)
            await self.server.stop()
            for _ in range(1000):
                if not self.server.sessions:
                    return
                await asyncio.sleep(0.002)
            raise AssertionError("the server has a session left")

        try:
            self.runner.run(run())
        finally:
            self.runner.close()


TestPool = PoolMachine.TestCase
TestPool.settings = settings(
    max_examples=80, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
