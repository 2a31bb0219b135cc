"""A cluster changes its primary under load: what callers saw, how long writes paused, what was lost or read too old.

Three nodes of PostgreSQL 15 under Patroni with etcd. The application has one `Database` whose URL names all three, and
is never restarted. Fifty tasks insert rows with keys of their own as fast as they can, note what was acknowledged, and
read each row back in the session that wrote it; ten more tasks read in sessions that wrote nothing. Each key is sent
once, and nothing in the table keeps it from being there twice. Meanwhile

- a switchover makes a replica the primary, and the primary a replica;
- the primary is killed with SIGKILL, Patroni and all, and another node takes over when its key in etcd has run out
  (`ttl` of 20 seconds, the least that Patroni allows);
- the node that was killed is started again, and returns as a replica.

Synchronous: a commit waits for a replica, which alone may be promoted (`synchronous_mode`, `synchronous_mode_strict`).
Then nothing that was acknowledged may be lost. Asynchronous: what no replica had got by then is lost with the primary,
whatever the client does, and is only counted.

A read is stale when it does not show the row that its own session wrote before, and the row is there in the end. Writes
pause from one insert that was acknowledged to the next one, in the longest of the pauses; a part of it passes when
Patroni says already that a node leads: until the pool tries again, and, in a synchronous cluster, until another node
follows, which commits wait for. In the end no connection may be held, none of those that are left may be dirty, and the
nodes may have no more sessions than the pools and checks know of.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import anyio
from benchmarks import evidence
from tests.proofs.orm_kill import SESSIONS, look_at_pools
from tests.services import patroni
from tests.services.databases import ask

from covet_orm import CharField, Database, Model, OrmError, Registry
from covet_orm.replicas import read_session

TASKS = 50
READERS = 10
POOL = 10
FAULTS = ("none", "switchover", "kill -9 of the primary", "its return")
READ = "SELECT pg_is_in_recovery(), current_setting('port')::int, (SELECT count(*) FROM failover_entry WHERE code = $1)"
registry = Registry()


class Entry(Model):
    # Not unique: a statement that was sent twice is to be seen.
    code = CharField(max_length=40, db_index=True)

    class Meta:
        registry = registry
        db_table = "failover_entry"


@dataclass
class Phase:
    """What happened from one fault to the next. Points in time are those of `time.monotonic()`.

    Attributes:
        fault: what began it.
        began: when.
        led: when Patroni said that a node leads.
        acknowledged: when inserts were.
        answered: how many reads by port and whether that was a replica then.
        errors: what callers saw, by what they did and its type.
    """

    fault: str
    began: float = field(default_factory=time.monotonic)
    led: float = 0.0
    acknowledged: list[float] = field(default_factory=list)
    answered: Counter[tuple[int, bool]] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    reads: int = 0

    def pause(self) -> tuple[float, float]:
        """How long writes paused, and how much of it passed while a node led."""
        times = [self.began, *self.acknowledged]
        first, last = max(pairwise(times), key=lambda pair: pair[1] - pair[0], default=(0.0, 0.0))
        return last - first, max(0.0, last - max(first, self.led)) if self.led else 0.0


@dataclass
class Outcome:
    """What a run showed."""

    name: str
    synchronous: bool
    replicas: bool
    names: dict[int, str] = field(default_factory=dict)
    phases: list[Phase] = field(default_factory=list)
    acknowledged: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    missed: set[str] = field(default_factory=set)
    lost: int = 0
    twice: int = 0
    stale: int = 0
    there: int = 0
    held: int = 0
    dirty: int = 0
    known: int = 0
    sessions: int = 0
    back: float | None = None

    @property
    def failed(self) -> bool:
        """Whether anything is as it must not be."""
        lost = self.lost if self.synchronous else 0
        unanswered = any(not phase.acknowledged or not phase.answered for phase in self.phases)
        return bool(
            lost or self.twice or self.stale or self.held or self.dirty or self.sessions > self.known or unanswered
        )

    def rows(self) -> list[list[object]]:
        """A row for each phase."""
        rows: list[list[object]] = []
        for phase in self.phases:
            pause, led = phase.pause()
            fault = phase.fault != "none"
            rows.append([
                self.name, phase.fault, f"{pause:.1f}" if fault else "", f"{led:.1f}" if phase.led else "",
                f"{len(phase.acknowledged):,}", f"{phase.reads:,}", told(phase.errors), self.where(phase),
            ])  # fmt: skip
        return rows

    def where(self, phase: Phase) -> str:
        """Where the reads of a phase went."""
        parts = []
        for (port, replica), count in phase.answered.most_common():
            role = "replica" if replica else "primary"
            parts.append(f"{self.names[port]} ({role}) {count / phase.reads:.0%}")
        return ", ".join(parts)

    def end(self) -> list[object]:
        """The row of what was left."""
        return [
            self.name, f"{len(self.acknowledged):,}", self.lost, self.twice, self.stale,
            f"{self.there} of {len(self.unknown)}", self.held, self.dirty, f"{self.sessions} of {self.known}",
            "" if self.back is None else f"{self.back:.1f}",
        ]  # fmt: skip


class Load:
    """The tasks, and what they note.

    Args:
        database: what they use.
        outcome: where they note it.
    """

    def __init__(self, database: Database, outcome: Outcome) -> None:
        self.database = database
        self.outcome = outcome
        self.ended = anyio.Event()

    @property
    def phase(self) -> Phase:
        """The one that runs."""
        return self.outcome.phases[-1]

    async def write(self, number: int) -> None:
        """Insert rows, each in a session of its own, and read them back there."""
        chance = random.Random(number)
        outcome, step = self.outcome, 0
        while not self.ended.is_set():
            step += 1
            code = f"{number}-{step}"
            with read_session():
                outcome.unknown.add(code)
                try:
                    if chance.random() < 0.3:
                        async with self.database.transaction():
                            await Entry.objects.create(code=code)
                    else:
                        await Entry.objects.create(code=code)
                except OrmError as error:
                    if _never_sent(error):
                        outcome.unknown.discard(code)
                    self.phase.errors[f"write: {type(error).__name__}"] += 1
                    await anyio.sleep(0.02)
                    continue
                outcome.unknown.discard(code)
                outcome.acknowledged.add(code)
                self.phase.acknowledged.append(time.monotonic())
                if await self._read(code) == 0:
                    outcome.missed.add(code)
            await anyio.sleep(chance.uniform(0, 0.02))

    async def read(self) -> None:
        """Read in sessions that wrote nothing."""
        while not self.ended.is_set():
            with read_session():
                await self._read("")
            await anyio.sleep(0.01)

    async def _read(self, code: str) -> int | None:
        try:
            replica, port, count = (await self.database.query(READ, [code])).rows[0]
        except OrmError as error:
            self.phase.errors[f"read: {type(error).__name__}"] += 1
            await anyio.sleep(0.02)
            return None
        self.phase.reads += 1
        self.phase.answered[port, replica] += 1
        return int(count)

    async def until(self, true: Callable[[], object], what: str) -> None:
        """Wait until something is so.

        Raises:
            AssertionError: it is not within a minute and a half.
        """
        deadline = time.monotonic() + 90
        while not true():
            assert time.monotonic() < deadline, f"waited in vain until {what}: {self.phase.errors}"
            await anyio.sleep(0.01)


def _never_sent(error: OrmError) -> bool:
    """Whether an insert surely did not happen, by what the error says."""
    return getattr(error, "sent", False) is False and type(error).__name__ != "TransactionError"


def told(errors: Counter[str]) -> str:
    """What callers saw, in words."""
    return ", ".join(f"{name} {count:,}" for name, count in errors.most_common()) or "nothing"


async def run(
    name: str, cluster: patroni.Cluster, *, faults: tuple[str, ...], seconds: float, replicas: bool
) -> Outcome:
    """Load, and faults one after the other; then look at what is left."""
    nodes = cluster.nodes
    outcome = Outcome(name, nodes[0].synchronous, replicas, names={node.port: node.name for node in nodes})
    await ask(cluster.wait_leader().url(), "DROP DATABASE IF EXISTS proof", "CREATE DATABASE proof")
    hosts = ",".join(f"{node.host}:{node.port}" for node in nodes)
    one = nodes[0]
    url = one.url("proof").replace(f"{one.host}:{one.port}", hosts)
    options: dict[str, Any] = {"read_replicas": [node.url("proof") for node in nodes]} if replicas else {}
    async with Database(url, max_size=POOL, acquire_timeout=60, connect_timeout=3, **options) as database:
        await database.create_all(registry)
        for node in cluster.replicas():
            await asyncio.to_thread(cluster.catch_up, node)
        load = Load(database, outcome)
        outcome.phases.append(Phase("none"))
        async with anyio.create_task_group() as group:
            for number in range(TASKS):
                group.start_soon(load.write, number)
            for _ in range(READERS):
                group.start_soon(load.read)
            await anyio.sleep(seconds)
            killed: patroni.Node | None = None
            for fault in faults:
                if fault == "switchover":
                    candidate = await asyncio.to_thread(cluster.wait_candidate)
                    outcome.phases.append(Phase(fault))
                    await asyncio.to_thread(cluster.switch_over, candidate)
                elif fault == "kill -9 of the primary":
                    await asyncio.to_thread(cluster.wait_candidate)
                    killed = await asyncio.to_thread(cluster.wait_leader)
                    outcome.phases.append(Phase(fault))
                    await asyncio.to_thread(killed.kill)
                    await asyncio.to_thread(cluster.wait_leader, other_than=killed)
                elif killed is not None:
                    outcome.phases.append(Phase(fault))
                    await asyncio.to_thread(killed.start)
                    if replicas:
                        at = (killed.port, True)
                        await load.until(lambda at=at: load.phase.answered[at], "the killed node is read from")
                        outcome.back = time.monotonic() - load.phase.began
                phase = load.phase
                if fault != "its return":
                    phase.led = time.monotonic()
                    before = len(phase.acknowledged)
                    await load.until(lambda phase=phase, n=before: len(phase.acknowledged) > n, "writes are served")
                await anyio.sleep(seconds)
            load.ended.set()
        await _look(database, cluster, outcome)
    return outcome


async def _look(database: Database, cluster: patroni.Cluster, outcome: Outcome) -> None:
    running = [node for node in cluster.nodes if node.running]
    for node in running:
        await asyncio.to_thread(node.wait_ready)
    codes = Counter(await Entry.objects.using("primary").values_list("code", flat=True))
    outcome.lost = len(outcome.acknowledged - set(codes))
    outcome.twice = sum(count > 1 for count in codes.values())
    outcome.stale = len(outcome.missed & set(codes))
    outcome.there = len(outcome.unknown & set(codes))
    # What was replaced is closed in the background.
    for _ in range(100):
        outcome.held, outcome.dirty, outcome.known = look_at_pools(database.pools())
        (lane,) = database._lanes.values()
        if lane.replicated is not None:
            watch = lane.replicated.watch
            links = [watch._primary, *(link for _, link in watch._links)]
            outcome.known += sum(link.connection is not None for link in links)
        outcome.sessions = 0
        for node in running:
            outcome.sessions += (await ask(node.url("proof"), SESSIONS))[0][0]
        if outcome.sessions <= outcome.known:
            break
        await anyio.sleep(0.05)


def main() -> None:
    """Run it, and write the page."""
    parser = argparse.ArgumentParser(prog="proof -- orm_failover", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    chosen = parser.parse_args()
    outcomes = []
    for name, synchronous, replicas in (
        ("synchronous, reads on replicas", True, True),
        ("synchronous, all on the primary", True, False),
        ("asynchronous, reads on replicas", False, True),
    ):
        with patroni.run(synchronous=synchronous) as cluster:
            outcome = anyio.run(_run_all, name, cluster, chosen.seconds, replicas)
        outcomes.append(outcome)
        for row in (*outcome.rows(), outcome.end()):
            print("#", row, flush=True)
    evidence.write(
        "orm_failover",
        "A cluster changes its primary under load",
        __doc__ or "",
        ["covet-orm", "asyncpg", "sqlalchemy"],
        {
            "Faults": evidence.table(
                ["cluster", "fault", "writes paused, s", "of it with a leader, s", "inserts acknowledged",
                 "reads answered", "what callers saw", "where reads went"],
                [row for outcome in outcomes for row in outcome.rows()],
            ),
            "What was left": evidence.table(
                ["cluster", "inserts acknowledged", "of these lost", "there twice", "stale reads",
                 "inserts of unknown end, of these there", "connections held", "dirty", "sessions at the servers",
                 "killed node read from again after s"],
                [outcome.end() for outcome in outcomes],
            ),
        },
        session="proof",
    )  # fmt: skip
    sys.exit(any(outcome.failed for outcome in outcomes))


async def _run_all(name: str, cluster: patroni.Cluster, seconds: float, replicas: bool) -> Outcome:
    return await run(name, cluster, faults=FAULTS[1:], seconds=seconds, replicas=replicas)


if __name__ == "__main__":
    main()
