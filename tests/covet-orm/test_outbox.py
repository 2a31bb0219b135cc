"""The outbox, on every database: what is delivered, when, how often, and in which order."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import anyio.lowlevel
import msgspec
import pytest
from anyio.abc import Process
from hypothesis import given
from hypothesis import strategies as st
from tests.services.databases import SERVERS, ask
from tests.services.databases import Database as Server
from tests.services.postgresql import PostgreSQL

import covet.builtin.pubsub
import covet_orm.plugin
from covet.builtin.pubsub import MemoryPubSub
from covet.exceptions import ConfigurationError
from covet.pubsub import PubSub, get_pubsub
from covet.testing import plugin_sandbox
from covet.testing.conformance.faults import at_every_await
from covet_orm import Database, TransactionError, transaction_manager
from covet_orm.outbox import DeadLetter, Handlers, Message, Outbox, OutboxError, OutboxWorker, publish_to
from covet_orm.outbox.claiming import Claims
from covet_orm.outbox.messages import kept_payload
from covet_orm.outbox.worker import backing_off
from covet_orm.store_tables import StoreTableMissing

pytestmark = pytest.mark.anyio

WORKER = """
import sys
import anyio
from covet_orm import Database
from covet_orm.outbox import Outbox

async def deliver(message):
    print(message.payload, message.attempt, flush=True)
    await anyio.sleep(3600)

async def main():
    async with Database(sys.argv[1]) as database:
        await Outbox(database).worker({"t": deliver}, lease=float(sys.argv[2]), poll=0.05).run()

anyio.run(main)
"""


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    async with Database(url, max_size=10, acquire_timeout=20) as database:
        yield database
        assert all(pool.stats.in_use == 0 for pool in database.pools())


@pytest.fixture
async def outbox(database: Database) -> Outbox:
    outbox = Outbox(database)
    await outbox.create()
    return outbox


class Recorder:
    """A handler that keeps what it gets, and fails as often as it is told to."""

    def __init__(self, fails: int = 0) -> None:
        self.messages: list[Message] = []
        self.fails = fails

    @property
    def payloads(self) -> list[Any]:
        return [message.payload for message in self.messages]

    async def __call__(self, message: Message) -> None:
        self.messages.append(message)
        if self.fails:
            self.fails -= 1
            raise RuntimeError(f"no\0 {message.payload}")


async def write(*payloads: Any, topic: str = "t", key: Any = None, delay: float | None = None) -> None:
    async with transaction_manager.atomic():
        for payload in payloads:
            await transaction_manager.enqueue(topic, payload, key=key, delay=delay)


@transaction_manager.atomic()
async def write_and_fail(payload: str) -> None:
    await transaction_manager.enqueue("t", payload, key=1)
    raise ZeroDivisionError


async def deliver(outbox: Outbox, **options: Any) -> list[Any]:
    """What is delivered now."""
    recorder = Recorder()
    await outbox.worker({"t": recorder}, **options).drain()
    return recorder.payloads


@asynccontextmanager
async def running(*workers: OutboxWorker) -> AsyncIterator[None]:
    async with anyio.create_task_group() as group:
        for worker in workers:
            group.start_soon(worker.run)
        yield
        group.cancel_scope.cancel()


async def until(condition: Any) -> None:
    with anyio.fail_after(60):
        while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
            await anyio.sleep(0.01)


class TestWriting:
    async def test_what_is_committed_is_delivered_with_its_transaction(self, outbox: Outbox) -> None:
        async with transaction_manager.atomic():
            first = await transaction_manager.enqueue("t", {"id": 1}, key=UUID(int=7))
            second = await transaction_manager.enqueue("t", b"\0\xff")
            async with anyio.create_task_group() as group:
                if outbox.database.kind != "sqlite":
                    # Another task and another connection: nothing is there yet.
                    async def look() -> None:
                        with transaction_manager.independent():
                            assert await deliver(outbox) == []

                    group.start_soon(look)
        recorder = Recorder()
        assert await outbox.worker({"t": recorder}).drain() == 2
        one, two = recorder.messages
        assert (one.id, one.topic, one.key, one.payload, one.attempt) == (first, "t", str(UUID(int=7)), {"id": 1}, 1)
        assert (two.id, two.key, two.payload) == (second, None, b"\0\xff")
        assert second > first
        now = await outbox.database.fetch_value(
            {"sqlite": "SELECT unixepoch()", "postgresql": "SELECT extract(epoch from now())"}.get(
                outbox.database.kind, "SELECT unix_timestamp()"
            )
        )
        assert abs(one.created - float(now)) < 60
        assert await deliver(outbox) == []

    async def test_what_is_rolled_back_is_never_delivered(self, outbox: Outbox) -> None:
        async with transaction_manager.atomic():
            await transaction_manager.enqueue("t", "kept", key=1)
            with pytest.raises(ZeroDivisionError):
                await write_and_fail("inner")
        with pytest.raises(ZeroDivisionError):
            await write_and_fail("outer")
        assert await deliver(outbox) == ["kept"]

    async def test_it_needs_a_transaction(self, outbox: Outbox) -> None:
        with pytest.raises(TransactionError, match="around this"):
            await transaction_manager.enqueue("t", 1)
        async with transaction_manager.atomic():
            await transaction_manager.enqueue("t", 1)

            async def elsewhere() -> None:
                with pytest.raises(TransactionError, match="was started inside"):
                    await transaction_manager.enqueue("t", 2)

            await asyncio.create_task(elsewhere())
        assert await deliver(outbox) == [1]

    async def test_tasks_that_share_a_transaction_enqueue_in_it(self, outbox: Outbox) -> None:
        async with transaction_manager.atomic(), transaction_manager.share(), asyncio.TaskGroup() as group:
            for number in range(5):
                group.create_task(transaction_manager.enqueue("t", number, key=number))
        assert sorted(await deliver(outbox)) == [0, 1, 2, 3, 4]

    @pytest.mark.parametrize("server", ["sqlite"], indirect=True)
    @pytest.mark.parametrize(
        ("topic", "payload", "options"),
        [
            ("", 1, {}), ("t" * 256, 1, {}), ("a\0b", 1, {}), ("\ud800", 1, {}), (7, 1, {}),
            ("t", object(), {}), ("t", "\ud800", {}), ("t", {1j: 1}, {}),
            ("t", 1, {"key": "k" * 501}), ("t", 1, {"key": True}), ("t", 1, {"key": 1.5}), ("t", 1, {"key": "\0"}),
            ("t", 1, {"delay": -1}), ("t", 1, {"delay": float("inf")}), ("t", 1, {"delay": float("nan")}),
        ],
    )  # fmt: skip
    async def test_what_cannot_be_kept_is_refused_and_spoils_nothing(
        self, outbox: Outbox, topic: Any, payload: Any, options: Any
    ) -> None:
        async with transaction_manager.atomic():
            with pytest.raises(OutboxError):
                await transaction_manager.enqueue(topic, payload, **options)
            await transaction_manager.enqueue("t", "fine")
        assert await deliver(outbox) == ["fine"]

    async def test_names_are_compared_by_their_bytes(self, outbox: Outbox) -> None:
        hostile = ["t'; DROP TABLE covet_outbox; --", "é", "É", "e", "t ", "t%s", "漢" * 85]
        for topic in hostile:
            await write(topic, topic=topic, key=topic[:166])
        for topic in hostile:
            recorder = Recorder()
            assert await outbox.worker({topic: recorder}).drain() == 1
            assert (recorder.messages[0].topic, recorder.messages[0].key) == (topic, topic[:166])
        assert await outbox.status() != []

    async def test_without_the_table_the_error_says_the_line_to_type(self, database: Database) -> None:
        with pytest.raises(StoreTableMissing, match="covet db create"):
            await write(1)
        outbox = Outbox(database, create_table=True)
        await write(2, key=3)
        assert await deliver(outbox) == [2]

    async def test_create_all_makes_the_tables(self, database: Database) -> None:
        Outbox(database)
        assert "covet_outbox" in await database.create_all()
        await write(1, key=1)
        assert await deliver(Outbox(database)) == [1]

    async def test_cancelled_anywhere_it_is_all_or_nothing(self, outbox: Outbox) -> None:
        committed: list[int] = []
        number = 0

        async def call() -> None:
            nonlocal number
            number += 1
            async with transaction_manager.atomic() as block:
                block.on_commit(lambda: committed.append(number))
                await transaction_manager.enqueue("t", number, key=1)

        async def check() -> None:
            assert await deliver(outbox) == committed
            committed.clear()

        assert await at_every_await(call, check) >= 2


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63) | TEXTS,
        lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
    )
)
def test_payloads_come_back_as_they_were(payload: Any) -> None:
    text, data = kept_payload(payload)
    assert text is not None
    assert data is None
    assert msgspec.json.decode(text) == payload
    assert "\0" not in text


class TestOrder:
    async def test_the_order_of_a_key_is_that_of_commits(self, outbox: Outbox) -> None:
        """The transaction that enqueues second would like to commit first; its message would be second by number."""
        committed: list[str] = []
        enqueued = anyio.Event()

        async def second() -> None:
            await enqueued.wait()
            async with transaction_manager.atomic():
                await transaction_manager.enqueue("t", "second", key="k")
            committed.append("second")

        async with anyio.create_task_group() as group:
            group.start_soon(second)
            async with transaction_manager.atomic():
                await transaction_manager.enqueue("t", "first", key="k")
                enqueued.set()
                with anyio.move_on_after(0.5):
                    await until(lambda: committed)
            committed.append("first")
        assert await deliver(outbox) == committed

    @pytest.mark.parametrize("server", SERVERS, indirect=True)
    async def test_other_keys_do_not_wait(self, outbox: Outbox) -> None:
        async with transaction_manager.atomic():
            await transaction_manager.enqueue("t", 1, key="a")

            async def others() -> None:
                with transaction_manager.independent():
                    await write(2, key="b")
                    await write(3)
                    await write(4, topic="u", key="a")

            with anyio.fail_after(30):
                await asyncio.create_task(others())
        assert sorted(await deliver(outbox)) == [1, 2, 3]

    async def test_nothing_overtakes_under_concurrency(self, outbox: Outbox) -> None:
        """Ten tasks write to five keys while three workers deliver: per key, the commits' order."""
        committed: defaultdict[str, list[int]] = defaultdict(list)
        got: defaultdict[str, list[int]] = defaultdict(list)
        at_work: set[str] = set()
        number = 0

        async def write_some(of: int) -> None:
            nonlocal number
            for step in range(10):
                key = f"k{(of + step) % 5}"
                number += 1
                mine = number
                async with transaction_manager.atomic():
                    await transaction_manager.enqueue("t", mine, key=key)
                    await anyio.lowlevel.checkpoint()
                    # While the lock is held, nobody else of this key is here.
                    committed[key].append(mine)

        async def handle(message: Message) -> None:
            assert message.key is not None
            assert message.key not in at_work
            at_work.add(message.key)
            await anyio.sleep(0.001)
            got[message.key].append(message.payload)
            at_work.remove(message.key)

        workers = [outbox.worker({"t": handle}, concurrency=4) for _ in range(3)]
        async with running(*workers):
            async with anyio.create_task_group() as group:
                for task in range(10):
                    group.start_soon(write_some, task)
            await until(lambda: sum(worker.delivered for worker in workers) >= 100)
        assert got == committed
        assert all(worker.failed == 0 for worker in workers)
        # Two of them at least had something to do.
        assert sum(worker.delivered for worker in workers) == 100
        assert sum(worker.delivered > 0 for worker in workers) >= 2

    async def test_one_of_a_key_at_a_time_whoever_asks(self, outbox: Outbox) -> None:
        await write(1, 2, key="a")
        await write(3, 4)
        table = outbox.table
        first, second = Claims(table, ("t",), 30), Claims(table, ("t",), 30)
        assert [message.payload for message in await first.take(10)] == [1, 3, 4]
        assert await second.take(10) == []

    async def test_a_message_that_waits_holds_up_its_key_alone(self, outbox: Outbox) -> None:
        await write(1, key="a", delay=3600)
        await write(2, key="a")
        await write(3, key="b")
        await write(4)
        assert sorted(await deliver(outbox)) == [3, 4]

    async def test_a_delay_ends(self, outbox: Outbox) -> None:
        await write(1, key="a", delay=0.3)
        await write(2, key="a")
        recorder = Recorder()
        async with running(outbox.worker({"t": recorder}, poll=0.05)):
            await until(lambda: len(recorder.messages) == 2)
        assert recorder.payloads == [1, 2]


class TestFailure:
    async def test_it_is_tried_again_and_holds_up_its_key_alone(self, outbox: Outbox) -> None:
        recorder = Recorder(fails=2)
        await write(1, 2, key="a")
        async with running(outbox.worker({"t": recorder}, backoff=lambda _: 0.2, poll=0.05)):
            await until(lambda: len(recorder.messages) >= 2)
            await write(3, key="b")
            await until(lambda: len(recorder.messages) == 5)
        of_a = [(message.payload, message.attempt) for message in recorder.messages if message.key == "a"]
        assert of_a == [(1, 1), (1, 2), (1, 3), (2, 1)]

    async def test_after_the_last_attempt_it_is_a_dead_letter_and_its_key_goes_on(self, outbox: Outbox) -> None:
        recorder = Recorder(fails=2)
        await write(1, 2, key="a")
        worker = outbox.worker({"t": recorder}, max_attempts=2, backoff=lambda _: 0.01, poll=0.02)
        async with running(worker):
            await until(lambda: worker.delivered == 1)
        assert recorder.payloads == [1, 1, 2]
        (letter,) = await outbox.dead_letters()
        assert letter == DeadLetter(letter.id, "t", "a", 2, letter.created, "RuntimeError: no\\0 1")
        (status,) = await outbox.status()
        assert status[:5] == ("t", 0, 0, 1, 1)
        assert await deliver(outbox) == []
        assert await outbox.requeue(letter.id + 1000) == 0
        assert await outbox.requeue(topic="other") == 0
        assert await outbox.requeue(letter.id) == 1
        assert await outbox.dead_letters() == []
        assert await deliver(outbox) == [1]
        with pytest.raises(OutboxError):
            await outbox.requeue(1, topic="t")

    async def test_attempts_in_which_the_worker_died_count(self, outbox: Outbox) -> None:
        """A message that kills its worker does not kill all of them for ever."""
        await write("poison", key="a")
        await write("next", key="a")
        for _ in range(2):
            assert await Claims(outbox.table, ("t",), 0.01).take(1) != []
            await anyio.sleep(0.05)
        assert await deliver(outbox, max_attempts=2) == ["next"]
        (letter,) = await outbox.dead_letters()
        assert "died" in letter.error
        assert letter.attempts == 3

    async def test_what_nobody_handles_stays(self, outbox: Outbox) -> None:
        await write(1, topic="nobody")
        assert await deliver(outbox) == []
        (status,) = await outbox.status()
        assert status[:3] == ("nobody", 1, 0)
        assert status.oldest is not None

    async def test_what_was_taken_by_another_is_not_acknowledged(self, outbox: Outbox) -> None:
        await write(1, 2, key="a")
        slow, quick = Claims(outbox.table, ("t",), 0.01), Claims(outbox.table, ("t",), 30)
        (message,) = await slow.take(1)
        await anyio.sleep(0.05)
        (again,) = await quick.take(1)
        assert (again.id, again.attempt) == (message.id, 2)
        assert not await slow.renew(message.id)
        assert not await slow.delivered(message.id, 0)
        assert not await slow.failed(message.id, "x", 0)
        assert not await slow.died(message.id, "x")
        assert await slow.give_back() == 0
        assert await quick.delivered(message.id, 0)
        assert not await quick.delivered(message.id, 0)

    async def test_a_handler_may_take_longer_than_the_lease(self, outbox: Outbox) -> None:
        await write(1, key="a")
        recorder = Recorder()

        async def slow(message: Message) -> None:
            await recorder(message)
            await anyio.sleep(1.5)

        one, other = (outbox.worker({"t": slow}, lease=0.6, poll=0.05) for _ in range(2))
        async with running(one, other):
            await until(lambda: one.delivered + other.delivered == 1)
        assert recorder.payloads == [1]
        assert one.lost + other.lost == 0

    async def test_a_handler_ends_with_the_lease_that_is_lost(self, outbox: Outbox) -> None:
        """As when the process was suspended: another worker has the message, and this one's handler is cancelled."""
        await write(1, key="a")
        ended = anyio.Event()
        began = anyio.Event()

        async def slow(message: Message) -> None:
            began.set()
            try:
                await anyio.sleep(3600)
            finally:
                ended.set()

        worker = outbox.worker({"t": slow}, lease=3, poll=3600)
        async with running(worker):
            await began.wait()
            await outbox.database.execute("UPDATE covet_outbox SET worker = 'another'")
            with anyio.fail_after(30):
                await ended.wait()
            await until(lambda: worker.lost == 1)
        assert worker.delivered == 0

    def test_backoff_grows_and_ends(self) -> None:
        assert [backing_off(number) for number in (2, 3, 4)] == [1, 2, 4]
        assert backing_off(10**6) == 600

    @pytest.mark.parametrize("server", ["sqlite"], indirect=True)
    @pytest.mark.parametrize(
        "options",
        [{"concurrency": 0}, {"lease": 0}, {"lease": float("nan")}, {"max_attempts": 0}, {"keep": -1}, {"poll": 0}],
    )
    async def test_options_that_make_no_sense(self, outbox: Outbox, options: Any) -> None:
        with pytest.raises(OutboxError):
            outbox.worker({"t": Recorder()}, **options)
        with pytest.raises(OutboxError, match="no handler"):
            outbox.worker({})


class TestWorkers:
    async def test_killed_in_the_middle_its_messages_are_delivered_again(self, outbox: Outbox, url: str) -> None:
        await write("one", "two", key="a")
        async with worker_process(url, lease=1.0) as process:
            assert await line(process) == "one 1"
            os.kill(process.pid, signal.SIGKILL)
            await process.wait()
        recorder = Recorder()
        async with running(outbox.worker({"t": recorder}, poll=0.05)):
            await until(lambda: len(recorder.messages) == 2)
        assert [(message.payload, message.attempt) for message in recorder.messages] == [("one", 2), ("two", 1)]

    async def test_stopped_it_ends_what_it_has(self, outbox: Outbox) -> None:
        await write(1, 2, key="a")
        recorder = Recorder()

        async def stop(message: Message) -> None:
            worker.stop()
            await anyio.sleep(0.05)
            await recorder(message)

        worker = outbox.worker({"t": stop})
        with anyio.fail_after(30):
            await worker.run()
        assert recorder.payloads == [1]
        assert await deliver(outbox) == [2]

    async def test_cancelled_anywhere_it_gives_back_what_it_has(self, outbox: Outbox) -> None:
        got: list[int] = []
        wanted = 0

        async def handle(message: Message) -> None:
            await anyio.lowlevel.checkpoint()
            got.append(message.payload)

        async def call() -> None:
            nonlocal wanted
            wanted += 1
            await write(wanted, key="a")
            await outbox.worker({"t": handle}, lease=3600).drain()

        async def check() -> None:
            recorder = Recorder()
            await outbox.worker({"t": recorder}).drain()
            # Delivered once and noted, or delivered now; what the handler had done before may come again.
            assert all(message.attempt == 1 for message in recorder.messages)
            got.extend(recorder.payloads)
            assert all(status.waiting == status.held == 0 for status in await outbox.status())

        assert await at_every_await(call, check) > 5
        committed = await outbox.database.fetch_value("SELECT count(*) FROM covet_outbox")
        assert len(set(got)) == committed

    async def test_those_of_the_same_process_are_woken(self, outbox: Outbox) -> None:
        recorder = Recorder()
        async with running(outbox.worker({"t": recorder}, poll=3600)):
            await anyio.sleep(0.3)
            await write(1)
            await until(lambda: recorder.messages)

    async def test_a_worker_is_no_part_of_a_transaction(self, outbox: Outbox) -> None:
        async with transaction_manager.atomic():
            with pytest.raises(TransactionError, match="outside of transactions"):
                await outbox.worker({"t": Recorder()}).drain()
        worker = outbox.worker({"t": Recorder()})
        async with running(worker):
            await anyio.sleep(0.05)
            with pytest.raises(TransactionError, match="runs already"):
                await worker.run()

    async def test_handlers_may_use_transactions_and_enqueue(self, outbox: Outbox) -> None:
        recorder = Recorder()

        async def pass_on(message: Message) -> None:
            await write(message.payload + 1, topic="u", key=message.key)

        await write(1, 2, key="a")
        assert await outbox.worker({"t": pass_on, "u": recorder}).drain() == 4
        assert recorder.payloads == [2, 3]

    @pytest.mark.parametrize("server", SERVERS, indirect=True)
    async def test_the_server_away_for_a_while(self, server: Server, outbox: Outbox) -> None:
        running_server: Any = server
        recorder = Recorder()
        await write(1, key="a")
        worker = outbox.worker({"t": recorder}, poll=0.1)
        async with running(worker):
            await until(lambda: worker.delivered == 1)
            await asyncio.to_thread(running_server.kill)
            await anyio.sleep(0.5)
            await asyncio.to_thread(running_server.start)
            async for attempt in transaction_manager.retry(max_attempts=20, on=(Exception,)):
                async with attempt:
                    await write(2, key="a")
            await until(lambda: worker.delivered >= 2)
        assert recorder.payloads[:2] == [1, 2]

    async def test_what_was_delivered_is_removed_when_its_time_is_over(self, outbox: Outbox) -> None:
        await write(1, 2, 3)
        await deliver(outbox, keep=3600)
        await write(4, 5)
        await deliver(outbox, keep=0)
        await write(6)
        await anyio.sleep(0.05)
        assert await outbox.purge() == 2
        (status,) = await outbox.status()
        assert (status.delivered, status.waiting) == (3, 1)


async def test_postgresql_wakes_workers_elsewhere(postgresql: PostgreSQL) -> None:
    url = postgresql.empty_database("outbox")
    recorder = Recorder()
    async with Database(url) as database:
        await Outbox(database).create()
        async with running(Outbox(database).worker({"t": recorder}, poll=3600)):
            await until_listening(url)
            await elsewhere(url)
            await until(lambda: recorder.messages)
            # The connection that listens is lost, and made again.
            await ask(url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
            await elsewhere(url)
            await until(lambda: len(recorder.messages) == 2)


async def until_listening(url: str) -> None:
    with anyio.fail_after(30):
        while not (await ask(url, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"))[0][0]:  # noqa: ASYNC110 - the server tells nobody
            await anyio.sleep(0.02)


async def elsewhere(url: str) -> None:
    """Enqueue in another process."""
    program = (
        "import sys, anyio\n"
        "from covet_orm import Database, transaction_manager\n"
        "async def main():\n"
        "    async with Database(sys.argv[1]), transaction_manager.atomic():\n"
        "        await transaction_manager.enqueue('t', 1)\n"
        "anyio.run(main)\n"
    )
    await anyio.run_process([sys.executable, "-c", program, url])


@asynccontextmanager
async def worker_process(url: str, lease: float) -> AsyncIterator[Process]:
    process = await anyio.open_process([sys.executable, "-c", WORKER, url, str(lease)], stderr=None)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await process.aclose()


async def line(process: Process) -> str:
    assert process.stdout is not None
    found = b""
    with anyio.fail_after(60):
        while not found.endswith(b"\n"):
            found += await process.stdout.receive()
    return found.decode().strip()


class TestHandlers:
    async def test_registration(self) -> None:
        handlers = Handlers()

        @handlers.on("a", "b")
        async def first(message: Message) -> None: ...

        assert dict(handlers) == {"a": first, "b": first}
        assert len(handlers) == 2
        with pytest.raises(OutboxError, match="already"):
            handlers.on("b")(first)
        with pytest.raises(OutboxError):
            handlers.on("")(first)

    @pytest.mark.parametrize("server", ["sqlite"], indirect=True)
    async def test_messages_go_on_to_the_pubsub(self, outbox: Outbox) -> None:
        await write({"id": 1}, b"\xff")
        async with PubSub(MemoryPubSub()) as pubsub, pubsub.subscribe("t", "other") as subscription:
            await outbox.worker({"t": publish_to(pubsub)}).drain()
            assert (await anext(subscription)).json() == {"id": 1}
            assert (await anext(subscription)).payload == b"\xff"
            await write(2)
            await outbox.worker({"t": publish_to(pubsub, topic="other")}).drain()
            assert (await anext(subscription)).topic == "other"

    def test_payloads_of_a_type(self) -> None:
        message = Message(1, "t", None, ["00000000-0000-0000-0000-000000000007"], 1, 0.0)
        assert message.payload_as(list[UUID]) == [UUID(int=7)]
        with pytest.raises(OutboxError, match="message 1"):
            message.payload_as(int)


recorded = Recorder()
handlers = Handlers()
handlers.on("t")(recorded)
handlers.on("published")(publish_to())


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> str:
    """This module by a name."""
    monkeypatch.setitem(sys.modules, "outbox_handlers", sys.modules[__name__])
    recorded.messages.clear()
    return "outbox_handlers:handlers"


class TestApplication:
    async def test_it_delivers_while_it_runs(self, url: str, importable: str) -> None:
        app = plugin_sandbox(
            orm=covet_orm.plugin,
            pubsub=covet.builtin.pubsub,
            settings={
                "app": {"secret_key": "k" * 32, "debug": True},
                "storage": {"default": {"url": url}},
                "pubsub": {"default": {}},
                "plugins": {"orm": {"outbox": {"default": {"handlers": importable, "poll_seconds": 0.1}}}},
            },
        )
        async with app.running(), get_pubsub(app=app).subscribe("published") as subscription:
            await write(1, key="a")
            await write(2, topic="published")
            await until(lambda: recorded.messages)
            assert (await anext(subscription)).json() == 2

    @pytest.mark.parametrize("server", ["sqlite"], indirect=True)
    @pytest.mark.parametrize(
        ("section", "message"),
        [
            ({"other": {}}, r"\[storage.other\]"),
            ({"default": {"handlers": "outbox_handlers"}}, "module:name"),
            ({"default": {"handlers": "outbox_handlers:missing"}}, "cannot be imported"),
            ({"default": {"handlers": "outbox_handlers:recorded"}}, "no mapping"),
        ],
    )
    async def test_settings_that_are_wrong(self, url: str, importable: str, section: Any, message: str) -> None:
        app = plugin_sandbox(
            orm=covet_orm.plugin,
            settings={
                "app": {"secret_key": "k" * 32},
                "storage": {"default": {"url": url}},
                "plugins": {"orm": {"outbox": section}},
            },
        )
        with pytest.raises(Exception, match=message) as caught:
            app.build()
        assert isinstance(caught.value, ConfigurationError)


@pytest.mark.parametrize("server", ["sqlite"], indirect=True)
def test_the_command(tmp_path: Path, url: str) -> None:
    (tmp_path / "app.py").write_text(
        "from covet import Covet\n"
        "from covet_orm.outbox import Handlers\n"
        "handlers = Handlers()\n"
        "@handlers.on('t')\n"
        "async def handle(message):\n"
        "    if message.payload == 'bad': raise RuntimeError('it is bad')\n"
        "app = Covet()\n"
    )
    settings = f'[storage.default]\nurl = "{url}"\n[plugins.orm.outbox.default]\nmax_attempts = 1\n'
    (tmp_path / "covet.toml").write_text(settings)

    def covet_db(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [Path(sys.executable).with_name("covet"), "db", *arguments],
            capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False,
        )  # fmt: skip

    async def fill() -> None:
        async with Database(url):
            await write("good")
            await write("bad", key="k")

    assert "covet_outbox" in covet_db("create").stdout
    asyncio.run(fill())
    assert "t 2 0 0 0" in " ".join(covet_db("outbox").stdout.split())
    refused = covet_db("outbox", "--once")
    assert refused.returncode == 1
    assert "handlers" in refused.stderr
    delivered = covet_db("outbox", "--once", "--handlers", "app:handlers", "--json")
    assert '"delivered": 1' in delivered.stdout, delivered.stderr
    assert "it is bad" in covet_db("outbox").stdout
    assert '"requeued": 1' in covet_db("outbox", "--requeue", "--json").stdout
    for wrong in (["--id", "1"], ["--handlers", "app:handlers"], ["--requeue", "--once"]):
        assert covet_db("outbox", *wrong).returncode == 2
    worker = subprocess.Popen(
        [Path(sys.executable).with_name("covet"), "db", "outbox", "--deliver", "--handlers", "app:handlers"],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        asyncio.run(dead_again(url))
        worker.send_signal(signal.SIGTERM)
        assert "Delivered" in worker.communicate(timeout=60)[1]
        assert worker.returncode == 0
    finally:
        worker.kill()
        worker.communicate()


async def dead_again(url: str) -> None:
    async with Database(url) as database:
        with anyio.fail_after(60):
            while not await Outbox(database).dead_letters():  # noqa: ASYNC110 - another process does it
                await anyio.sleep(0.05)
