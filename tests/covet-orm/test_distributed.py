"""Two-phase commit: in all databases or in none, whoever dies when."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import pytest
from tests.proofs.orm_2pc import STEPS, Entry, recover_all, registry, run_until_killed
from tests.services.databases import Databases, ask

from covet import Covet
from covet.testing.conformance.faults import at_every_await
from covet_orm import (
    CommitHookFailed,
    CommitIncomplete,
    Database,
    DatabaseUnavailable,
    HeuristicOutcome,
    NotSupported,
    OrmError,
    TransactionError,
    TransactionTimeout,
    UniqueViolation,
    transaction_manager,
)
from covet_orm.testing import faultpoints
from covet_orm.transactions.distributed.decisions import DecisionLog
from covet_orm.transactions.distributed.identifiers import GlobalId
from covet_orm.transactions.distributed.recovery import forget, in_doubt, recover

pytestmark = pytest.mark.anyio

PAIRS = {
    "postgresql-mariadb": ("postgresql-15", "mariadb", None),
    "mariadb-postgresql": ("mariadb", "postgresql-18", None),
    "postgresql-postgresql": ("postgresql-15", "postgresql-15", None),
    "log-apart": ("postgresql-18", "mariadb", "log"),
    "mariadb-mariadb": ("mariadb", "mariadb", "billing"),
    "postgresql-sqlite": ("postgresql-15", "sqlite", None),
    "sqlite-mariadb": ("sqlite", "mariadb", None),
}


class Pair(NamedTuple):
    """Two databases, and where their log is."""

    orders: Database
    billing: Database
    urls: list[str]
    log: str | None
    all: tuple[Database, ...]

    def block(self, **options: Any) -> Any:
        return transaction_manager.distributed("orders", "billing", log=self.log, **options)


@pytest.fixture(params=PAIRS)
async def pair(request: pytest.FixtureRequest, databases: Databases, tmp_path: Path) -> AsyncIterator[Pair]:
    first, second, log = PAIRS[request.param]
    urls = [made(databases, tmp_path, name, alias) for name, alias in ((first, "orders"), (second, "billing"))]
    orders, billing = Database(urls[0], alias="orders", max_size=3), Database(urls[1], alias="billing", max_size=3)
    everything = [orders, billing]
    async with orders, billing:
        if log == "log":
            everything.append(Database(made(databases, tmp_path, "postgresql-15", "decisions"), alias="log"))
            await everything[-1].__aenter__()
        try:
            await orders.create_all(registry)
            await billing.create_all(registry)
            yield Pair(orders, billing, urls, log, tuple(everything))
            await recover_all(*everything)
            for database in everything:
                assert all(pool.stats.in_use == 0 for pool in database.pools())
        finally:
            if log == "log":
                await everything[-1].__aexit__(None, None, None)


def made(databases: Databases, folder: Path, server: str, name: str) -> str:
    if server == "sqlite":
        return f"sqlite:///{folder}/{name}.db"
    url = databases.get(server).empty_database(name)
    # asyncpg leaves a future with an error behind when it is cut off while it asks for TLS, which fails any test.
    return f"{url}?tls=disable" if server.startswith("postgresql") else url


async def write(code: str) -> None:
    await Entry.objects.using("orders").create(code=code)
    await Entry.objects.using("billing").create(code=code)


async def within(tx: Any, *work: Awaitable[object]) -> None:
    async with tx:
        for one in work:
            await one


async def fail(why: str) -> None:
    raise RuntimeError(why)


async def both() -> tuple[set[str], set[str]]:
    found = [set(await Entry.objects.using(alias).values_list("code", flat=True)) for alias in ("orders", "billing")]
    return found[0], found[1]


async def test_in_both_or_in_none(pair: Pair) -> None:
    called: list[str] = []
    async with pair.block() as tx:
        tx.branch("orders").on_commit(lambda: called.append("orders"))
        tx.branch("billing").on_commit(lambda: called.append("billing"))
        await write("a")
        inner = Entry.objects.using("billing").create(code="inner")
        with pytest.raises(RuntimeError):
            await within(transaction_manager.atomic("billing"), inner, fail("inner"))
    assert tx.committed
    assert called == ["orders", "billing"]
    tx = pair.block()
    with pytest.raises(RuntimeError, match="no"):
        await within(tx, write("b"), fail("no"))
    assert tx.committed is False
    with pytest.raises(UniqueViolation):
        async with pair.block():
            await write("a")
    assert await both() == ({"a"}, {"a"})
    assert await in_doubt(*pair.all) == []


async def test_one_that_is_not_touched_takes_no_part(pair: Pair) -> None:
    points: list[str] = []
    with watched(points):
        async with pair.block():
            pass
        async with pair.block():
            await Entry.objects.using("orders").create(code="alone")
    assert points == []
    assert await both() == ({"alone"}, set())


class watched:  # noqa: N801 - it is used as a function would be
    """Notes each point of the protocol that is passed."""

    def __init__(self, points: list[str]) -> None:
        self.points = points

    def __enter__(self) -> None:
        for step in STEPS:
            faultpoints.actions[step] = lambda step=step: self.points.append(step)  # type: ignore[misc]

    def __exit__(self, *args: object) -> None:
        faultpoints.actions.clear()


@pytest.mark.parametrize("pair", ["postgresql-postgresql"], indirect=True)
async def test_who_only_reads_is_not_prepared(pair: Pair) -> None:
    points: list[str] = []
    with watched(points):
        async with pair.block():
            await Entry.objects.using("orders").create(code="a")
            assert await Entry.objects.using("billing").count() == 0
    assert points == []
    assert await both() == ({"a"}, set())


@pytest.mark.parametrize("pair", ["postgresql-mariadb", "mariadb-postgresql", "postgresql-sqlite"], indirect=True)
@pytest.mark.parametrize("step", STEPS)
async def test_killed_at_each_step(pair: Pair, step: str) -> None:
    """Both sides agree after recovery, and what was decided is there."""
    points: list[str] = []
    with watched(points):
        async with pair.block():
            await write("first")
    if step not in points:
        # Whose database has the log is not prepared.
        assert step.rpartition(".")[2] == home_of_log(pair).alias
        return
    told = await asyncio.to_thread(run_until_killed, pair.urls, log=pair.log, point=step)
    assert told == []
    await recover_all(*pair.all)
    first, second = await both()
    assert first == second
    decided = points.index(step) >= points.index("2pc.decided")
    assert len(first) == (2 if decided else 1)


@pytest.mark.parametrize("step", [step for step in STEPS if "decided" not in step and "told" not in step])
async def test_an_error_before_the_decision_rolls_all_back(pair: Pair, step: str) -> None:
    called: list[str] = []

    def fail() -> None:
        called.append(step)
        raise RuntimeError(step)

    with faultpoints.at(step, fail):
        if step in ("2pc.begin", "2pc.deciding"):
            with pytest.raises(RuntimeError):
                async with pair.block() as tx:
                    await write("a")
            assert tx.committed is False
        else:
            try:
                async with pair.block() as tx:
                    await write("a")
            except RuntimeError:
                assert tx.committed is False
            else:
                assert not called
                return
    assert await both() == (set(), set())
    assert await in_doubt(*pair.all) == []


@pytest.mark.parametrize("every", ["anyio", "asyncio"])
async def test_cancelled_at_every_await(pair: Pair, every: str) -> None:
    number = 0
    told: dict[int, str] = {}

    async def work() -> None:
        nonlocal number
        number += 1
        own = number
        async with pair.block() as tx:
            tx.branch("orders").on_commit(lambda: told.update({own: "committed"}))
            tx.branch("orders").on_rollback(lambda: told.update({own: "rolled back"}))
            await write(f"{own}")

    async def check() -> None:
        first, second = await both()
        assert first == second == {f"{own}" for own, what in told.items() if what == "committed"}
        assert await in_doubt(*pair.all) == []
        assert all(pool.stats.in_use == 0 for database in pair.all for pool in database.pools())

    if every == "anyio":
        assert await at_every_await(work, check) >= 5
    else:
        assert await natively(work, check) >= 5
    assert "committed" in told.values()


async def natively(work: Any, check: Any) -> int:
    """Cancelled as asyncio does it, once, after each number of turns of the loop."""
    for number in range(10_000):
        task = asyncio.ensure_future(work())
        for _ in range(number):
            if task.done():
                break
            await asyncio.sleep(0)
        was_done = task.done()
        task.cancel()
        await asyncio.wait([task])
        await check()
        if was_done:
            return number
        if number > 40:
            # The rest of the time is spent in waiting for servers: strike at moments.
            task = asyncio.ensure_future(work())
            await asyncio.sleep((number - 40) * 0.001)
            was_done = task.done()
            task.cancel()
            await asyncio.wait([task])
            await check()
            if was_done:
                return number
    raise AssertionError("unreachable")


@pytest.mark.parametrize("pair", ["postgresql-mariadb", "mariadb-postgresql", "postgresql-sqlite"], indirect=True)
async def test_connections_lost_at_each_step(pair: Pair) -> None:
    """Each connection of the participants is cut at each step: in both or in none, and nothing waits for recovery."""
    points: list[str] = []
    with watched(points):
        async with pair.block():
            await write("first")
    written = {"first"}
    for step in points:
        for alias in ("orders", "billing"):
            code = f"{step} {alias}"
            tx = pair.block()
            with faultpoints.at(step, partial(cut, tx, alias)):
                try:
                    async with tx:
                        await write(code)
                except CommitIncomplete:
                    assert tx.committed
                except OrmError:
                    assert tx.committed is False
            if tx.committed:
                written.add(code)
            else:
                await recover_all(*pair.all)
            first, second = await both()
            assert first == second == written, code
    assert await in_doubt(*pair.all) == []


def cut(tx: Any, alias: str) -> None:
    connection = tx.branch(alias)._connection
    if connection is not None:
        connection.terminate()


@pytest.mark.parametrize("pair", ["postgresql-mariadb", "mariadb-postgresql"], indirect=True)
async def test_a_participant_that_cannot_be_told_is_told_by_recovery(pair: Pair) -> None:
    real = pair.billing.connect

    async def down() -> Any:
        raise DatabaseUnavailable("it is down")

    tx = pair.block(wait=0.3)
    pair.billing.connect = down  # type: ignore[method-assign]
    try:
        with (
            faultpoints.at("2pc.decided", lambda: cut(tx, "billing")),
            pytest.raises(CommitIncomplete, match="decided: commit; 1 of the participants") as told,
        ):
            async with tx:
                await write("a")
    finally:
        pair.billing.connect = real  # type: ignore[method-assign]
    assert tx.committed
    assert told.value.pending == ("billing",)
    assert [one.state for one in await in_doubt(*pair.all)] == ["commit"]
    assert [one.state for one in await recover_all(*pair.all)] == ["committed"]
    assert await both() == ({"a"}, {"a"})


@pytest.mark.parametrize("pair", ["mariadb-postgresql"], indirect=True)
async def test_somebody_ended_it_by_hand(pair: Pair) -> None:
    async def by_hand(verb: str) -> None:
        url = pair.urls[1].partition("?")[0]
        for gid in [row[0] for row in await ask(url, "SELECT gid FROM pg_prepared_xacts")]:
            await ask(url, f"{verb} PREPARED '{gid}'")

    with (
        faultpoints.at("2pc.decided", lambda: by_hand("ROLLBACK")),
        pytest.raises(HeuristicOutcome, match="had rolled back") as told,
    ):
        async with pair.block() as tx:
            await write("a")
    assert tx.committed
    assert told.value.participants == ("billing",)

    def fail() -> None:
        raise RuntimeError

    async def commit_and_fail() -> None:
        await by_hand("COMMIT")
        fail()

    with faultpoints.at("2pc.deciding", commit_and_fail), pytest.raises(HeuristicOutcome, match="had committed"):
        async with pair.block() as tx:
            await write("b")
    assert tx.committed is False
    assert await both() == ({"a"}, {"b"})
    await recover(*pair.all)
    mixed = await in_doubt(*pair.all)
    assert [one.state for one in mixed] == ["mixed"]
    with pytest.raises(TransactionError, match=r"no decision on 'ffff' in any log$"):
        await forget("ffff", *pair.all)
    assert (await forget(mixed[0].transaction, *pair.all)).participant == "billing"
    assert await in_doubt(*pair.all) == []


@pytest.mark.parametrize("pair", ["mariadb-postgresql"], indirect=True)
async def test_only_what_is_mixed_and_not_prepared_is_forgotten(pair: Pair) -> None:
    tx = pair.block(wait=0.0)
    with faultpoints.at("2pc.decided", lambda: cut(tx, "billing")), pytest.raises(CommitIncomplete):
        await within(tx, write("a"))
    transaction = tx.transaction
    with pytest.raises(TransactionError, match="in 'orders' is 'commit', and recovery may need it"):
        await forget(transaction, *pair.all)
    log = DecisionLog.of(pair.orders)
    async with pair.orders.connection() as connection:
        await log.mark_mixed(connection, transaction)
    with pytest.raises(TransactionError, match="still prepared in billing"):
        await forget(transaction, *pair.all)
    await recover(*pair.all, older_than=0)
    await forget(transaction, *pair.all)
    assert await both() == ({"a"}, {"a"})


async def test_recovery_and_a_coordinator_that_lives_after_all(pair: Pair) -> None:
    """Recovery takes it for dead while it prepares: it can commit no more."""
    states: list[str] = []

    async def too_early() -> None:
        states.extend(one.state for one in await recover(*pair.all, older_than=0))

    if "sqlite" in (pair.orders.kind, pair.billing.kind):
        # Its commit is the decision, and nobody else can write the log meanwhile.
        return
    with faultpoints.at("2pc.deciding", too_early), pytest.raises(TransactionError, match="took it for dead"):
        async with pair.block() as tx:
            await write("a")
    assert tx.committed is False
    assert set(states) <= {"rolled back", "held"}
    assert await both() == (set(), set())
    await recover_all(*pair.all)


async def test_young_ones_and_those_of_others_are_left_alone(pair: Pair) -> None:
    """A prepared transaction whose log is not among those that are asked stays as it is."""
    seen: list[str] = []

    async def look() -> None:
        seen.extend(one.state for one in await recover(*pair.all))
        others = [database for database in pair.all if database is not home_of_log(pair)]
        seen.extend(one.state for one in await recover(*others, older_than=0))

    with faultpoints.at("2pc.deciding", look):
        async with pair.block() as tx:
            await write("a")
    assert tx.committed
    assert set(seen) <= {"undecided", "log unknown"}
    assert "undecided" in seen
    assert await both() == ({"a"}, {"a"})


def home_of_log(pair: Pair) -> Database:
    kinds = {database.alias: database for database in pair.all}
    files = [database for database in pair.all if database.kind == "sqlite"]
    return files[0] if files else kinds[pair.log or "orders"]


@pytest.mark.parametrize("pair", ["postgresql-mariadb"], indirect=True)
async def test_options_and_bad_input(pair: Pair, tmp_path: Path, databases: Databases) -> None:
    with pytest.raises(TransactionTimeout):
        await within(pair.block(timeout=0.05), write("a"), anyio.sleep(10))
    with pytest.raises(TransactionError, match="named twice"):
        async with transaction_manager.distributed("orders", "orders"):
            pass
    with pytest.raises(TransactionError, match="wants the databases"):
        async with transaction_manager.distributed():
            pass
    with pytest.raises(TransactionError, match="at most 31 letters"):
        async with transaction_manager.distributed("orders", "billing", application="a:b'; DROP"):
            pass
    async with transaction_manager.atomic("billing"):
        with pytest.raises(TransactionError, match="outermost"):
            async with pair.block():
                pass
    async with pair.block(isolation="serializable", lock_timeout=3, statement_timeout=9) as tx:
        await write("b")
        with pytest.raises(TransactionError, match="entered once"):
            await tx.__aenter__()
    files = [Database(f"sqlite:///{tmp_path}/{name}.db", alias=name) for name in ("one", "two")]
    async with files[0], files[1]:
        with pytest.raises(NotSupported, match="'one' and 'two' are SQLite"):
            async with transaction_manager.distributed("one", "orders", "two"):
                pass
        with pytest.raises(NotSupported, match="its commit is the decision"):
            async with transaction_manager.distributed("one", "orders", log="orders"):
                pass
    assert await both() == ({"b"}, {"b"})


@pytest.mark.parametrize("pair", ["postgresql-postgresql"], indirect=True)
async def test_hooks(pair: Pair) -> None:
    def veto() -> None:
        raise RuntimeError("veto")

    async def register(moment: str) -> None:
        getattr(transaction_manager, moment)(veto, using="billing")

    with pytest.raises(RuntimeError, match="veto"):
        await within(pair.block(), register("pre_commit"), write("a"))
    tx = pair.block()
    with pytest.raises(CommitHookFailed):
        await within(tx, register("on_commit"), write("b"))
    assert tx.committed
    assert await both() == ({"b"}, {"b"})


@pytest.mark.parametrize("pair", ["mariadb-mariadb"], indirect=True)
async def test_a_deadlock_leaves_no_connection_within_xa(pair: Pair) -> None:
    """The server rolls back, and the session is at rest by its status; the next user of it would be refused."""
    async with pair.block():
        await write("1")
        await write("2")
    ready = [anyio.Event(), anyio.Event()]
    errors: list[BaseException] = []

    async def change(first: str, second: str, mine: anyio.Event, other: anyio.Event) -> None:
        try:
            async with pair.block():
                await Entry.objects.using("orders").filter(code=first).update(code=first + "x")
                mine.set()
                await other.wait()
                await Entry.objects.using("orders").filter(code=second).update(code=second + "y")
        except Exception as error:
            errors.append(error)

    async with anyio.create_task_group() as group:
        group.start_soon(change, "1", "2", *ready)
        group.start_soon(change, "2", "1", *reversed(ready))
    assert len(errors) == 1
    for number in range(8):
        await Entry.objects.using("orders").create(code=f"after {number}")


async def test_decisions_that_all_were_told_of_are_forgotten(pair: Pair) -> None:
    for number in range(45):
        async with pair.block():
            await write(f"{number}")
    log = DecisionLog.of(home_of_log(pair))
    async with log.database.connection() as connection:
        found = await log.read(connection)
    assert found is not None
    assert 1 <= len(found[1]) <= 25


def test_identifiers() -> None:
    identifier = GlobalId("a" * 31, "0" * 32, "f" * 12, "b" * 31)
    assert len(identifier.text) < 200
    first, second, number = identifier.xid.split(",")
    assert max(len(first), len(second)) - 2 <= 64
    assert GlobalId.parse(identifier.text) == identifier
    data = (first[1:-1] + second[1:-1]).encode()
    assert GlobalId.parse_xa(int(number), len(first) - 2, data) == identifier
    assert GlobalId.parse_xa(1, len(first) - 2, data) is None
    assert GlobalId.parse("covet:x") is None
    assert GlobalId.parse_xa(int(number), 3, b"\xff\x00x'") is None


@pytest.mark.parametrize("pair", ["postgresql-mariadb"], indirect=True)
async def test_the_command_and_the_start_of_an_application(pair: Pair, tmp_path: Path) -> None:
    """What a process left that was killed is listed, and ended: by the command, or by an application that starts."""

    def covet(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("COVET_")}
        return subprocess.run(
            [str(Path(sys.executable).with_name("covet")), "db", *arguments],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    (tmp_path / "app.py").write_text("from covet import Covet\n\napp = Covet()\n")
    (tmp_path / "covet.toml").write_text(
        f'[storage.orders]\nurl = "{pair.urls[0]}"\n[storage.billing]\nurl = "{pair.urls[1]}"\n'
        '[plugins.orm]\ndistributed_log = "orders"\n'
    )
    created = await asyncio.to_thread(covet, "create", "--json")
    assert "covet_2pc" in json.loads(created.stdout)[0]["tables"], created.stderr
    await asyncio.to_thread(run_until_killed, pair.urls, point="2pc.decided")
    listed = await asyncio.to_thread(covet, "2pc", "list", "--json")
    assert [(one["participant"], one["log"], one["state"]) for one in json.loads(listed.stdout)] == [
        ("billing", "orders", "commit")
    ]
    async with Covet(settings=tmp_path / "covet.toml").running():
        with anyio.fail_after(30):
            while await in_doubt(*pair.all):  # noqa: ASYNC110 - servers tell no event
                await anyio.sleep(0.05)
    first, second = await both()
    assert first == second
    assert len(first) == 1
    recovered = await asyncio.to_thread(covet, "2pc", "recover")
    assert (recovered.returncode, recovered.stdout) == (0, "Nothing is prepared.\n")

    async with pair.orders.connection() as connection:
        log = DecisionLog.of(pair.orders)
        await log.write(connection, "f" * 32, "mixed", "test", {"billing": ""})
    kept = await asyncio.to_thread(covet, "2pc", "recover")
    assert (kept.returncode, "mixed" in kept.stdout) == (1, True)
    unknown = await asyncio.to_thread(covet, "2pc", "forget", "e" * 32)
    assert unknown.returncode == 1
    assert f"there is no decision on '{'e' * 32}' in any log" in unknown.stderr
    forgotten = await asyncio.to_thread(covet, "2pc", "forget", "f" * 32)
    assert forgotten.returncode == 0, forgotten.stderr
    assert f"orders    {'f' * 32}" in forgotten.stdout
    assert forgotten.stdout.endswith("This is forgotten.\n")
    assert (await asyncio.to_thread(covet, "2pc", "list")).stdout == "Nothing is prepared.\n"
