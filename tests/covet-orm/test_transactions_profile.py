"""`transaction_manager.profile`: what transactions cost, by label."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.line_database import until
from tests.services.databases import NAMES, SERVERS, ask
from tests.services.mariadb import MariaDB

from covet_orm import (
    CharField,
    Database,
    DeadlockDetected,
    IntegerField,
    LockTimeout,
    Model,
    PoolTimeout,
    Registry,
    SerializationFailure,
    TransactionError,
    UniqueViolation,
    transaction_manager,
)
from covet_orm.ambient import NoDatabase
from covet_orm.transactions import profiling, telling
from covet_orm.transactions.profiling import Durations, TransactionProfile

pytestmark = pytest.mark.anyio
registry = Registry()
POSTGRESQL = [name for name in NAMES if name.startswith("postgresql")]


class Row(Model):
    name = CharField(max_length=50, unique=True)
    count = IntegerField(default=0)

    class Meta:
        registry = registry
        db_table = "profiled_row"


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    async with Database(url, max_size=4, acquire_timeout=10) as database:
        await database.create_all(registry)
        await Row.objects.bulk_create([Row(name="a"), Row(name="b")])
        yield database
        assert all(pool.stats.in_use == 0 for pool in database.pools())
        assert telling.profilers == ()


async def test_what_is_counted_by_label(database: Database) -> None:
    async with transaction_manager.profile() as profile:
        for number in range(3):
            async with transaction_manager.atomic(label="writes"):
                await Row.objects.create(name=str(number))
                async with transaction_manager.atomic(label="inner"):
                    await Row.objects.count()
        with pytest.raises(UniqueViolation):
            async with transaction_manager.atomic(label="writes"):
                await Row.objects.create(name="a")
        async with transaction_manager.atomic():
            await Row.objects.count()
            assert profile.labels[""].open == 1
            assert profile.labels[""].count == 0
        async with transaction_manager.atomic(label="empty"):
            pass
        # What is in no transaction of a block is none.
        await Row.objects.count()
    assert set(profile.labels) == {"writes", ""}
    writes = profile.labels["writes"]
    assert (writes.count, writes.committed, writes.rolled_back, writes.uncertain, writes.open) == (4, 3, 1, 0, 0)
    assert dict(writes.outcomes) == {"committed": 3, "rolled back": 1}
    assert dict(writes.errors) == {"UniqueViolation": 1}
    assert (writes.statements, writes.savepoints, writes.retries, writes.deadlocks) == (7, 3, 0, 0)
    assert writes.in_transaction.count == writes.idle.count == writes.lock_wait.count == 4
    assert 0 < writes.in_transaction.p50 <= writes.in_transaction.p99 <= writes.in_transaction.longest
    assert writes.in_transaction.longest <= writes.in_transaction.total
    assert 0 < writes.idle.total < writes.in_transaction.total
    assert writes.lock_wait.total == 0
    assert profile.labels[""].count == 1
    assert profile.notes == []
    # Nobody is told any more.
    async with transaction_manager.atomic(label="writes"):
        await Row.objects.count()
    assert writes.count == 4


async def test_it_is_a_table(database: Database) -> None:
    async with transaction_manager.profile() as profile:
        assert len(str(profile).splitlines()) == 1
        for label in ("transfer", ""):
            async with transaction_manager.atomic(label=label):
                await Row.objects.count()
    heading, *rows = str(profile).splitlines()
    assert heading.split("  ")[0] == "label"
    assert [row.split("  ")[0].strip() for row in rows] == ["(no label)", "transfer"]
    assert {len(line) for line in (heading, *rows)} == {len(heading)}
    assert rows[1].split()[1:8] == ["1", "1", "0", "0", "0", "0", "1"]


async def test_time_without_a_statement_is_idle(database: Database) -> None:
    async with transaction_manager.profile() as profile:
        async with transaction_manager.atomic(label="thinks"):
            await Row.objects.count()
            await anyio.sleep(0.1)
        async with transaction_manager.atomic(label="asks"):
            # Before the first statement nothing is open.
            await anyio.sleep(0.01)
            assert "asks" not in profile.labels
            await Row.objects.count()
            assert profile.labels["asks"].open == 1
    thinks, asks = profile.labels["thinks"], profile.labels["asks"]
    assert 0.09 <= thinks.idle.total < thinks.in_transaction.total
    assert asks.in_transaction.count == asks.idle.count == 1


async def test_waiting_for_a_lock(database: Database, url: str) -> None:
    """Of two databases on one file or server, as those of two processes."""
    locked = asyncio.Event()

    async def holds() -> None:
        async with transaction_manager.atomic(label="holds"):
            await Row.objects.filter(name="a").update(count=1)
            locked.set()
            if database.kind == "sqlite":
                await anyio.sleep(0.2)
            else:
                seen = profile._samplers.values
                await until(lambda: any(any(one._waits.values()) for one in seen()), "the server tells of it")

    async def waits(other: Database) -> None:
        await locked.wait()
        async with transaction_manager.atomic(other, label="waits"):
            await Row.objects.using(other).filter(name="a").update(count=2)

    async with Database(url, alias="other") as other, transaction_manager.profile(interval=0.02) as profile:
        await asyncio.gather(holds(), waits(other))
    assert profile.labels["holds"].lock_wait.total == 0
    waited = profile.labels["waits"].lock_wait.total
    assert 0 < waited <= profile.labels["waits"].in_transaction.total
    assert profile.notes == []


async def test_waiting_for_the_connection_that_writes(database: Database) -> None:
    """On SQLite that is the lock; elsewhere there is more than one."""
    held = asyncio.Event()

    async def holds() -> None:
        async with transaction_manager.atomic(label="holds"):
            await Row.objects.filter(name="a").update(count=1)
            held.set()
            await anyio.sleep(0.1)

    async def waits() -> None:
        await held.wait()
        async with transaction_manager.atomic(label="waits"):
            await Row.objects.filter(name="b").update(count=1)

    async with transaction_manager.profile() as profile:
        await asyncio.gather(holds(), waits())
    found = profile.labels["waits"]
    assert (found.lock_wait.total > 0) == (database.kind == "sqlite")
    if database.kind == "sqlite":
        assert found.connection_wait.total == 0


async def test_waiting_for_a_connection(url: str) -> None:
    async with Database(url, max_size=1, acquire_timeout=0.1) as database:
        await database.create_all(registry)
        pool = await database.pool_for(reads=True)

        async with transaction_manager.profile() as profile:
            held = await pool.acquire()
            with pytest.raises(PoolTimeout):
                async with transaction_manager.atomic(read_only=True, label="reads"):
                    await Row.objects.count()
            asyncio.get_running_loop().call_later(0.02, pool.release, held)
            async with transaction_manager.atomic(read_only=True, label="reads"):
                assert await Row.objects.count() == 0
        found = profile.labels["reads"]
        assert (found.rolled_back, found.committed) == (1, 1)
        assert dict(found.errors) == {"PoolTimeout": 1}
        assert found.connection_wait.count == 2
        assert found.connection_wait.p50 > 0
        # Only one of them was a transaction.
        assert found.in_transaction.count == 1


async def test_attempts_that_failed(database: Database) -> None:
    async with transaction_manager.profile() as profile:
        failures = iter([SerializationFailure("first"), LockTimeout("second")])

        @transaction_manager.retry(max_attempts=3, backoff=lambda _: 0.001)
        @transaction_manager.atomic(label="tried")
        async def work() -> None:
            await Row.objects.create(name="c")
            for failure in failures:
                raise failure

        await work()
    found = profile.labels["tried"]
    assert (found.count, found.committed, found.retries) == (3, 1, 2)
    assert dict(found.errors) == {"SerializationFailure": 1, "LockTimeout": 1}


@pytest.mark.parametrize("server", SERVERS, indirect=True)
async def test_deadlocks(database: Database) -> None:
    both = asyncio.Barrier(2)

    async def lock(first: str, second: str) -> None:
        async with transaction_manager.atomic(label="crossing"):
            await Row.objects.filter(name=first).update(count=1)
            await both.wait()
            await Row.objects.filter(name=second).update(count=2)

    async with transaction_manager.profile() as profile:
        found = await asyncio.gather(lock("a", "b"), lock("b", "a"), return_exceptions=True)
    assert sum(isinstance(one, DeadlockDetected) for one in found) == 1
    crossing = profile.labels["crossing"]
    assert (crossing.deadlocks, crossing.committed, crossing.rolled_back) == (1, 1, 1)


async def test_of_one_database_alone(database: Database, tmp_path: Path) -> None:
    async with Database(f"sqlite:///{tmp_path}/beside.db", alias="beside") as beside:
        async with transaction_manager.profile("beside") as one, transaction_manager.profile(database) as other:
            for number, where in enumerate((database, beside, beside)):
                async with transaction_manager.atomic(where, label=f"{where.alias} {number}"):
                    await where.fetch_value("SELECT 1")
        assert set(one.labels) == {"beside 1", "beside 2"}
        assert set(other.labels) == {"default 0"}
    with pytest.raises(NoDatabase):
        transaction_manager.profile("nowhere")


async def test_profiles_within_each_other(database: Database) -> None:
    async with transaction_manager.profile() as outer:
        async with transaction_manager.atomic(label="first"):
            await Row.objects.count()
            async with transaction_manager.profile() as inner:
                # It began before this one did.
                await Row.objects.count()
        async with transaction_manager.profile() as second, transaction_manager.atomic(label="second"):
            await Row.objects.count()
    assert {label: one.statements for label, one in outer.labels.items()} == {"first": 2, "second": 1}
    assert inner.labels == {}
    assert set(second.labels) == {"second"}


async def test_what_ends_after_the_profile_is_not_in_it(database: Database) -> None:
    async with transaction_manager.profile() as profile:
        block = transaction_manager.atomic(label="long")
        await block.__aenter__()
        await Row.objects.count()
    await block.__aexit__(None, None, None)
    assert profile.labels["long"].count == 0


async def test_another_event_loop_is_not_counted(database: Database, url: str) -> None:
    def elsewhere() -> None:
        async def work() -> None:
            async with Database(url, alias="elsewhere") as other, transaction_manager.atomic(other, label="elsewhere"):
                await Row.objects.using(other).count()

        anyio.run(work)

    async with transaction_manager.profile() as profile:
        thread = threading.Thread(target=elsewhere)
        thread.start()
        await until(lambda: not thread.is_alive(), "the other loop is done")
        async with transaction_manager.atomic(label="here"):
            await Row.objects.count()
    assert set(profile.labels) == {"here"}


async def test_cancelled_inside_it_leaves_nothing(database: Database, url: str) -> None:
    """No task, no connection, and nobody who is told."""
    profile = transaction_manager.profile()
    with anyio.move_on_after(0.3):
        async with profile, transaction_manager.atomic(label="cancelled"):
            await Row.objects.filter(name="a").update(count=5)
            await anyio.sleep(30)
    assert dict(profile.labels["cancelled"].errors) == {"CancelledError": 1}
    assert await Row.objects.filter(count=5).count() == 0
    left = asyncio.all_tasks
    await until(lambda: not [one for one in left() if one.get_name().startswith("who waits")], "its task ends")
    assert telling.profilers == ()


@pytest.mark.parametrize("server", POSTGRESQL, indirect=True)
async def test_a_sampler_whose_connection_is_lost_takes_another(
    database: Database, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from covet_orm.transactions import lock_sampling

    monkeypatch.setattr(lock_sampling, "AGAIN", 0.01)
    asks = "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query LIKE '%wait_event_type%'"
    async with transaction_manager.profile(interval=0.01) as profile, transaction_manager.atomic(label="long"):

        async def sampling() -> int:
            await database.fetch_value("SELECT pg_sleep(0.05)")
            found = await ask(url, asks)
            return int(found[0][0]) if found else 0

        with anyio.fail_after(20):
            while not (first := await sampling()):
                pass
            await ask(url, f"SELECT pg_terminate_backend({first})")
            while (second := await sampling()) in (0, first):
                pass
    assert second
    assert profile.labels["long"].committed == 1
    (note,) = profile.notes
    assert "'default'" in note
    assert str(profile).endswith(note)
    with anyio.fail_after(20):
        while await ask(url, asks):
            pass


async def test_a_server_that_does_not_tell_of_locks_is_noted(mariadb: MariaDB) -> None:
    url = mariadb.empty_database("test")
    mariadb.execute("CREATE OR REPLACE USER 'humble'@'%' IDENTIFIED BY 'humble'")
    mariadb.execute("GRANT ALL ON test.* TO 'humble'@'%'")
    async with Database(mariadb.url("test", user="humble", password="humble")) as database:
        await database.create_all(registry)
        async with transaction_manager.profile() as profile, transaction_manager.atomic(label="works"):
            with anyio.fail_after(20):
                while not profile.notes:
                    await database.fetch_value("SELECT sleep(0.05)")
    (note,) = profile.notes
    assert "PROCESS" in note
    assert profile.labels["works"].committed == 1
    assert url


async def test_a_profile_is_collected_once(database: Database) -> None:
    async with transaction_manager.profile() as profile:
        pass
    with pytest.raises(TransactionError, match="once"):
        async with profile:
            pass
    for interval in (0, -1, math.nan, True, 4000):
        with pytest.raises(TransactionError, match="interval"):
            transaction_manager.profile(interval=interval)


async def test_too_many_labels_share_one(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiling, "LABELS", 3)
    async with transaction_manager.profile() as profile:
        for number in range(6):
            with suppress(RuntimeError):
                async with transaction_manager.atomic(label=str(number)):
                    await Row.objects.count()
    assert {label: one.count for label, one in profile.labels.items()} == {"0": 1, "1": 1, "2": 1, "(others)": 3}


@given(st.lists(st.floats(0, 1000), max_size=200), st.floats(0, 100))
def test_percentiles(values: list[float], percent: float) -> None:
    """The shortest that so many percent do not exceed."""
    durations = Durations()
    for value in values:
        durations.add(value)
    found = durations.percentile(percent)
    assert durations.count == len(values)
    assert durations.total == pytest.approx(math.fsum(values))
    if not values:
        assert found == durations.longest == 0
        return
    assert found in values
    assert durations.longest == max(values)
    not_more = sum(value <= found for value in values)
    less = sum(value < found for value in values)
    assert not_more >= percent / 100 * len(values) - 1e-9
    assert less == 0 or less < percent / 100 * len(values) + 1e-9


def test_many_durations_take_no_more_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiling, "KEPT", 100)
    durations = Durations()
    for value in range(10_000):
        durations.add(float(value))
    assert len(durations._kept) == 100
    assert durations.count == 10_000
    assert durations.longest == 9999
    assert 1000 < durations.p50 < 9000
    with pytest.raises(ValueError, match="0 to 100"):
        durations.percentile(101)


def test_one_without_anything() -> None:
    profile: TransactionProfile = transaction_manager.profile()
    assert profile.labels == {}
    assert repr(Durations()) == "<0 durations: 0.000 s, p50 0.000000 s, p99 0.000000 s>"
