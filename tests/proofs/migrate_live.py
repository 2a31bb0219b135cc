"""Migrations of a live table: how long requests stall, and which of them fail, in the naive form and with `--safe`.

A table of many rows is used by tasks in processes of their own, all through covet-orm: reads of a row by its key,
updates, reads that save what they read, inserts, each task with a pause between its requests. Meanwhile another process
migrates the table: with the operations as they are (naive), and with what `makemigrations --safe` writes instead. The
server writes to the disk before it answers a commit.

The programs are those of a deployment: the migrations run while all of them have the old models; then one task after
the other goes on with the new ones, so that for a while there are both; and where `--safe` leaves something for the
time when no old code runs (the last migration of an added column, and of a rename), that is applied in the end. Each
task knows what it wrote last into its own rows, and looks whether it reads that.

- stall: the longest of all requests from the begin of the first migration to the end of the last one, the change of
  programs included;
- p99: of the same requests; beside it, that of the two seconds before;
- errors: requests that failed; what a task reads and did not write counts as well;
- seconds: the migrations alone.

In the end the schema has to be that of the new models made from nothing, and every row as it was, or as it was written
last by a request that was answered.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio
from benchmarks import evidence
from tests.migrations.live_load import SCENARIOS, before, fill, loaded, wrong
from tests.migrations.migrating import APP, create
from tests.migrations.runs import InMemory, migration
from tests.migrations.schema_snapshots import Snapshot, snapshot
from tests.services.databases import ask

import covet_orm as orm
from covet_migrate import operations as ops
from covet_migrate.execution import Migrator, Settings
from covet_migrate.execution.events import Event, Retrying
from covet_migrate.migrations import Migration
from covet_migrate.safety.rewriting import safe_migrations
from covet_orm import Database

__all__ = ["Outcome", "expected_schema", "held", "main", "prove", "run", "schema", "table"]

DATABASES = ("postgresql-15", "postgresql-18", "mariadb")


@dataclass
class Outcome:
    """What a migration did to those who used the table."""

    title: str
    form: str
    requests: int = 0
    idle_p99: float = 0.0
    idle_stall: float = 0.0
    p99: float = 0.0
    stall: float = 0.0
    seconds: float = 0.0
    attempts: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    unavoidable: bool = False

    def take(self, idle: list[float], times: list[float]) -> None:
        """The times of requests before and meanwhile, in order."""
        self.idle_p99, self.idle_stall = percentile(idle), idle[-1]
        self.requests, self.p99, self.stall = len(times), percentile(times), times[-1]

    def row(self) -> list[object]:
        """The outcome as a row of the table."""
        seen = "; ".join(f"{count:,} x {text.partition(':')[0]}" for text, count in self.errors.most_common(3))
        return [
            self.title, f"{self.form} (no other way)" if self.unavoidable and self.form != "naive" else self.form,
            f"{self.requests:,}", f"{self.idle_p99:.1f}", f"{self.p99:.1f}",
            f"{self.idle_stall:,.0f}", f"{self.stall:,.0f}", sum(self.errors.values()), seen or "none",
            f"{self.seconds:.1f}", self.attempts, "; ".join(self.wrong) or "as expected",
        ]  # fmt: skip


HEAD = [
    "migration", "form", "requests", "p99 before, ms", "p99, ms", "longest before, ms", "longest stall, ms", "errors",
    "of them", "seconds", "tried again", "schema and rows",
]  # fmt: skip


def table(outcomes: Sequence[Outcome]) -> str:
    """The table."""
    return evidence.table(HEAD, [one.row() for one in outcomes])


def percentile(times: Sequence[float], share: float = 0.99) -> float:
    """A percentile of times in order."""
    return times[min(int(len(times) * share), len(times) - 1)]


def written(scenario: str, form: str, kind: str) -> list[Migration]:
    """The migrations of a scenario, naive or safe."""
    given = migration(APP, "0002_given", SCENARIOS[scenario].operation(), after=[(APP, "0001_first")])
    if form == "naive":
        return [given]
    names = iter(range(2, 100))
    return safe_migrations([given], before(), kind, lambda app, found: f"{next(names):04}_{found[0].file_name()}")


def migrator(database: Database, made: Sequence[Migration], tell: Callable[[Event], None]) -> Migrator:
    """What migrates: with the settings of everybody, behind a first migration that is there."""
    creating = [ops.CreateModel(one.name, dict(one.fields), dict(one.options)) for one in before()]
    first = migration(APP, "0001_first", *creating)
    return Migrator(database, InMemory(first, *made), settings=Settings(), tell=tell)


async def run(url: str, scenario: str, form: str, rows: int, tasks: int, *, idle: float = 2.0) -> Outcome:
    """Migrate a table that was filled while it is used.

    Args:
        url: of its database.
        scenario: one of `SCENARIOS`.
        form: `naive` or `--safe`.
        rows: how many it has.
        tasks: how many use it.
        idle: for how many seconds requests are looked at before.
    """
    about = SCENARIOS[scenario]
    outcome = Outcome(about.title, form)

    def tell(event: Event) -> None:
        outcome.attempts += isinstance(event, Retrying)

    async with Database(url) as database:
        outcome.unavoidable = database.kind not in about.avoidable
        made = written(scenario, form, database.kind)
        running = migrator(database, made, tell)
        await running.migrate(APP, "0001_first", fake=True)
        async with loaded(url, scenario, rows, tasks) as processes:
            # What is made once in a process is made by now.
            await asyncio.sleep(min(idle, 1.0))
            await processes.tell("begin")
            await asyncio.sleep(idle)
            quiet = await processes.times()
            await processes.tell("begin")
            last = made[-2] if form != "naive" and about.contracts else made[-1]
            began = time.monotonic()
            await running.migrate(APP, last.name)
            outcome.seconds = time.monotonic() - began
            await processes.tell("switch")
            began = time.monotonic()
            await running.migrate()
            outcome.seconds += time.monotonic() - began
            await asyncio.sleep(min(idle, 0.5))
            outcome.take(quiet, await processes.times())
            answers = await processes.tell("stop")
    for one in answers:
        outcome.errors.update(one["errors"])
    outcome.wrong = await wrong(url, scenario, rows, answers)
    return outcome


async def schema(url: str) -> Snapshot:
    """The schema without the tables of migrations."""
    return {name: parts for name, parts in (await snapshot(url)).items() if not name.startswith("covet_")}


async def expected_schema(url: str, scenario: str) -> Snapshot:
    """The schema of the new models, made from nothing in an empty database."""
    await create(url, SCENARIOS[scenario].operation().apply(before(), APP))
    return await schema(url)


async def held(url: str, form: str, rows: int, tasks: int, *, seconds: float, idle: float = 2.0) -> Outcome:
    """Add a column while a transaction that has read the table stays open for some seconds.

    Args:
        url: of a database that was filled.
        form: `no lock_timeout`, the statement as any client sends it; or `migrate`.
        rows: how many rows there are.
        tasks: how many use it.
        seconds: how long the transaction stays open.
        idle: for how many seconds requests are looked at before.
    """
    outcome = Outcome(f"new column, a transaction of {seconds:.0f} s holds the table", form)

    def tell(event: Event) -> None:
        outcome.attempts += isinstance(event, Retrying)

    async with Database(url) as database:
        added = ops.AddField("Item", "extra", orm.IntegerField(null=True))
        running = migrator(database, [migration(APP, "0002_extra", added, after=[(APP, "0001_first")])], tell)
        await running.migrate(APP, "0001_first", fake=True)
        async with loaded(url, "held", rows, tasks) as processes:
            await asyncio.sleep(min(idle, 1.0))
            await processes.tell("begin")
            await asyncio.sleep(idle)
            quiet = await processes.times()
            await processes.tell("begin")
            ready = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                group.create_task(_hold(url, ready, seconds))
                await ready.wait()
                began = time.monotonic()
                if form == "migrate":
                    await running.migrate()
                else:
                    await ask(url, "ALTER TABLE shop_item ADD COLUMN extra integer")
                outcome.seconds = time.monotonic() - began
            await asyncio.sleep(min(idle, 0.5))
            outcome.take(quiet, await processes.times())
            answers = await processes.tell("stop")
    for one in answers:
        outcome.errors.update(one["errors"])
    outcome.wrong = await wrong(url, "held", rows, answers)
    return outcome


async def _hold(url: str, ready: asyncio.Event, seconds: float) -> None:
    async with Database(url) as database, orm.transaction_manager.atomic(database):
        await database.fetch_value("SELECT count(*) FROM shop_item WHERE id = 1")
        ready.set()
        await asyncio.sleep(seconds)


async def prove(server: Any, names: Sequence[str], rows: int, tasks: int) -> tuple[list[Outcome], list[Outcome]]:
    """Every scenario in both forms, each on rows of its own."""
    outcomes: list[Outcome] = []
    kept: list[Outcome] = []
    postgresql = server.kind == "postgresql"
    if postgresql:
        await fill(await asyncio.to_thread(server.create_database, "template"), rows)

    async def fresh() -> str:
        if not postgresql:
            url: str = await asyncio.to_thread(server.empty_database, "live")
            await fill(url, rows)
            return url
        await asyncio.to_thread(server.drop_database, "live")
        await asyncio.to_thread(server.execute, "CREATE DATABASE live TEMPLATE template")
        # What the copy has to write is written before, not meanwhile.
        await asyncio.to_thread(server.execute, "CHECKPOINT")
        return str(server.url("live"))

    for name in names:
        if name == "held":
            continue
        expected = await expected_schema(await asyncio.to_thread(server.empty_database, "expected"), name)
        for form in ("naive", "--safe"):
            url = await fresh()
            outcome = await run(url, name, form, rows, tasks)
            if await schema(url) != expected:
                outcome.wrong.append("another schema")
            print(*outcome.row(), dict(outcome.errors), sep=" | ", flush=True)
            outcomes.append(outcome)
    if "held" in names:
        for form in ("no lock_timeout", "migrate"):
            kept.append(await held(await fresh(), form, rows, tasks, seconds=8.0))
            print(*kept[-1].row(), sep=" | ", flush=True)
    return outcomes, kept


def main() -> None:
    """Run it, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--tasks", type=int, default=50)
    parser.add_argument("--databases", nargs="+", choices=DATABASES, default=["postgresql-15", "mariadb"])
    names = [*SCENARIOS, "held"]
    parser.add_argument("--scenarios", nargs="+", choices=names, default=names)
    parser.add_argument("--print", action="store_true", help="write no page")
    given = parser.parse_args()
    from tests.services import mariadb, postgresql

    sections = {}
    failed = False
    for name in given.databases:
        kind, _, number = name.partition("-")
        with (
            postgresql.run(
                int(number), settings={**postgresql.DURABLE, "shared_buffers": "512MB", "max_wal_size": "4GB"}
            )
            if kind == "postgresql"
            else mariadb.run(
                settings={**mariadb.DURABLE, "innodb-buffer-pool-size": "512M", "innodb-log-file-size": "512M"}
            )
        ) as server:
            outcomes, kept = anyio.run(prove, server, given.scenarios, given.rows, given.tasks)
        sections[f"{name}: {given.rows:,} rows, {given.tasks} tasks"] = table(outcomes)
        if kept:
            sections[f"{name}: somebody holds the table"] = table(kept)
        failed |= any(one.wrong or (one.errors and one.form != "naive") for one in [*outcomes, *kept])
    if given.print:
        print("\n\n".join(f"## {title}\n\n{body}" for title, body in sections.items()))
    else:
        evidence.write(
            "migrate_live",
            "Migrations of a live table",
            __doc__ or "",
            ["covet-migrate", "covet-orm", "asyncpg", "aiomysql", "sqlalchemy"],
            sections,
            session="proof",
        )
    if failed:
        raise SystemExit("requests failed with --safe, or the schema or rows are not as expected: see the table")


if __name__ == "__main__":
    main()
