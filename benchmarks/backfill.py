"""Filling a column of many rows while others update them: in batches, as covet-migrate does it, beside one UPDATE.

The server is PostgreSQL 15 on the same machine, which writes to the disk before it answers a commit. Each form fills
the same column of a copy of the same table, in a process of its own; meanwhile tasks of another process update single
rows by their keys, through covet-orm, each with a pause between its updates. `idle` are these alone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import resource
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg
from tests.migrations.live_load import Processes, commands, processes
from tests.migrations.migrating import APP, create, model
from tests.migrations.runs import InMemory, migration
from tests.services import postgresql

import covet_orm as orm
from benchmarks import evidence
from covet_migrate import operations as ops
from covet_migrate.execution import Migrator
from covet_migrate.execution.events import BatchDone, Event, StepFinished, StepStarted
from covet_migrate.operations import Operation
from covet_migrate.state import State
from covet_migrate.state.rendering import historical_models
from covet_orm import Database, F, Q, Registry

ENTRY = f"{APP}.Entry"
FORMS = {
    "update": "UPDATE", "safe": "`--safe`", "sql": "`RunSQL(batched=)`", "python": "`RunPython(batched=)`"
}  # fmt: skip
TASKS = 8
PAUSE = 0.02
"""Seconds between two updates of a task, in the mean."""
GOAL = 2.0
ABOUT = """
{doc}
- `UPDATE` is one statement: `UPDATE shop_entry SET state = 3`;
- `--safe` is the column's `SET NOT NULL` as `makemigrations --safe` writes it: `Online(AlterField(..., fill=3))`. Its
  rate is that of the batches alone; the check, its validation and `SET NOT NULL` come after;
- `RunSQL(batched=)` and `RunPython(batched=)` are what users write. The function of the latter sets an attribute of
  every object, and saves them by `bulk_update`; it does so for the first {python:,} rows alone.

There are {rows:,} rows of about 70 bytes, and {tasks} tasks that update them. Memory is the most that the migrating
process held, and in parentheses what it held before it began. p99 and the longest of the updates are compared with
those of `idle` in the same run; the goal for p99 is {goal:g} times.
"""
DISTRIBUTIONS = ["covet-migrate", "covet-orm", "asyncpg", "sqlalchemy"]


def before() -> State:
    """The model."""
    fields: dict[str, Any] = {
        "id": orm.BigAutoField(primary_key=True),
        "name": orm.CharField(max_length=40),
        "amount": orm.IntegerField(),
        "state": orm.IntegerField(null=True),
    }
    made = model("Entry", fields)
    return State({made.label: made})


async def fill(url: str, rows: int) -> None:
    """Make the table and its rows."""
    await create(url, before())
    connection = await asyncpg.connect(url)
    await connection.execute(
        "INSERT INTO shop_entry (id, name, amount) "
        f"SELECT n, 'the name of entry ' || n, n % 100 FROM generate_series(1, {rows}) AS n"
    )
    await connection.execute("VACUUM ANALYZE shop_entry")
    await connection.close()


# The load


async def load(url: str, rows: int, tasks: int) -> None:
    """Updates of single rows until it is told to end."""
    entry: Any = historical_models(before())[ENTRY]
    times: list[float] = []
    ended = False

    async def task(number: int) -> None:
        chance = random.Random(number)
        while not ended:
            await asyncio.sleep(chance.uniform(0, 2 * PAUSE))
            began = time.perf_counter()
            changed = await entry.objects.filter(pk=chance.randint(1, rows)).update(amount=F("amount") + 1)
            times.append(time.perf_counter() - began)
            if changed != 1:
                raise ValueError(f"{changed} rows were changed, not 1")

    async with Database(url, min_size=tasks, max_size=tasks):
        running = [asyncio.ensure_future(task(number)) for number in range(tasks)]
        async for command, answer in commands():
            told: Any = None
            if command == "begin":
                times.clear()
            elif command == "end":
                told = list(times)
            elif command == "stop":
                ended = True
                await asyncio.gather(*running)
            answer(told)


@contextlib.asynccontextmanager
async def updated(url: str, rows: int) -> AsyncIterator[Processes]:
    """A process that updates rows."""
    command = [sys.executable, "-m", "benchmarks.backfill", "--load", url, str(rows)]
    async with processes(command) as found:
        await asyncio.sleep(2)
        await found.tell("begin")
        yield found


# What fills


async def set_state(models: Registry, entries: list[Any]) -> None:
    """What a user writes for `RunPython`."""
    for one in entries:
        one.state = 3
    await models[ENTRY].objects.bulk_update(entries, ["state"])


def operation(form: str, rows: int) -> Operation:
    """The operation of a form."""
    if form == "safe":
        return ops.Online(ops.AlterField("Entry", "state", orm.IntegerField(), fill=3))
    if form == "sql":
        statement = "UPDATE shop_entry SET state = 3 WHERE id BETWEEN :first AND :last AND state IS NULL"
        return ops.RunSQL(statement, ops.RunSQL.noop, batched="Entry")
    return ops.RunPython(set_state, ops.RunPython.noop, batched="Entry", where=Q(pk__lte=rows))


async def migrate(url: str, form: str, rows: int) -> None:
    """Run a form, and print what it took; a line for each batch as well where somebody reads them."""
    found: dict[str, Any] = {"base": _resident(), "batches": 0, "seconds": 0.0, "done": 0}
    began = 0.0

    def tell(event: Event) -> None:
        nonlocal began
        if isinstance(event, StepStarted):
            began = time.perf_counter() if ": call " in event.description else 0.0
        elif isinstance(event, StepFinished) and began:
            found["seconds"] += time.perf_counter() - began
        elif isinstance(event, BatchDone):
            found["batches"] += 1
            found["done"] = max(event.done, found["done"])
            print(event.done, flush=True)

    started = time.perf_counter()
    if form == "update":
        connection = await asyncpg.connect(url)
        told = await connection.execute("UPDATE shop_entry SET state = 3", timeout=3600)
        found["done"] = int(told.split()[1])
        await connection.close()
        found["seconds"] = time.perf_counter() - started
    else:
        first = migration(APP, "0001_first", ops.CreateModel("Entry", dict(before()[ENTRY].fields)))
        given = migration(APP, "0002_fill", operation(form, rows), after=[first.key], atomic=False)
        async with Database(url) as database:
            running = Migrator(database, InMemory(first, given), tell=tell)
            if not await running.history.read():
                await running.migrate(APP, "0001_first", fake=True)
            await running.migrate()
    found["all"] = time.perf_counter() - started
    found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(found), flush=True)


def _resident() -> int:
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:")) * 1024


@dataclass
class Result:
    """What a form took, and what it did to the updates."""

    form: str
    times: list[float] = field(default_factory=list)
    told: dict[str, Any] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Rows per second."""
        return float(self.told["done"] / self.told["seconds"])

    @property
    def p99(self) -> float:
        """Of the updates, milliseconds."""
        return self.times[len(self.times) * 99 // 100]


async def run(url: str, form: str, rows: int, total: int) -> Result:
    """Run a form in a process of its own while rows are updated."""
    async with updated(url, total) as load:
        process = await asyncio.create_subprocess_exec(*_command(url, form, rows), stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        last = b""
        async for line in process.stdout:
            last = line
        if await process.wait():
            raise RuntimeError(f"{form} failed")
        times = await load.times()
        await load.tell("stop")
    return Result(form, times, json.loads(last))


def _command(url: str, form: str, rows: int) -> list[str]:
    return [sys.executable, "-m", "benchmarks.backfill", "--run", url, form, str(rows)]


async def idle(url: str, rows: int, seconds: float) -> Result:
    """The updates alone."""
    async with updated(url, rows) as load:
        await asyncio.sleep(seconds)
        times = await load.times()
        await load.tell("stop")
    return Result("idle", times)


def table(results: Sequence[Result]) -> str:
    """The table of all forms."""
    rows = []
    quiet, bare = results[0], next(one for one in results if one.form == "update")
    for one in results:
        told = one.told
        done = (
            [f"{told['done']:,}", f"{told['seconds']:.1f}", f"{one.rate:,.0f}", f"{one.rate / bare.rate:.2f}"]
            if told
            else ["", "", "", ""]
        )
        batches, all_of_it = (f"{told['batches']:,}", f"{told['all']:.1f}") if told else ("", "")
        memory = f"{told['peak'] / 2**20:.0f} ({told['base'] / 2**20:.0f})" if told else ""
        rows.append(
            [
                FORMS.get(one.form, one.form), *done, batches, all_of_it, memory,
                f"{len(one.times):,}", f"{one.times[len(one.times) // 2]:.1f}", f"{one.p99:.1f}",
                f"{one.p99 / quiet.p99:.2f}", f"{one.times[-1]:.0f}",
            ]
        )  # fmt: skip
    head = [
        "", "rows filled", "seconds", "rows per second", "/ UPDATE", "batches", "whole migration, s",
        "memory of the process, MB", "updates meanwhile", "their median, ms", "p99, ms", "/ idle", "longest, ms",
    ]  # fmt: skip
    return evidence.table(head, rows)


async def killed(url: str, form: str, rows: int) -> list[object]:
    """A row about a form whose process is killed on its way, and run again."""
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(*_command(url, form, rows), stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    seen = 0
    async for line in process.stdout:
        seen = int(line)
        if seen > rows * 0.4:
            process.kill()
            break
    await process.wait()
    first = time.perf_counter() - began
    connection = await asyncpg.connect(url)
    kept = int(await connection.fetchval("SELECT count(*) FROM shop_entry WHERE state IS NOT NULL"))
    await connection.close()
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(*_command(url, form, rows), stdout=asyncio.subprocess.PIPE)
    told, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"the second run of {form} failed")
    second = time.perf_counter() - began
    done = json.loads(told.splitlines()[-1])["done"]
    return [FORMS[form], f"{kept:,}", f"{done:,}", f"{kept + done - rows:,}", f"{first:.1f}", f"{second:.1f}"]


async def measure(server: Any, rows: int, python: int, seconds: float, forms: Sequence[str]) -> dict[str, str]:
    """The tables."""
    await fill(server.create_database("template"), rows)

    def fresh(template: str) -> str:
        server.drop_database("live")
        server.execute(f"CREATE DATABASE live TEMPLATE {template}")
        server.execute("CHECKPOINT")
        return str(server.url("live"))

    results = [await idle(fresh("template"), rows, seconds)]
    for form in forms:
        wanted = python if form == "python" else rows
        results.append(await run(fresh("template"), form, wanted, rows))
        print(form, results[-1].told, f"{results[-1].p99:.1f} {results[-1].times[-1]:.0f}", file=sys.stderr, flush=True)
    sections = {f"{rows:,} rows": table(results)}
    server.drop_database("template")
    few = max(python // 5, 1000)
    await fill(server.create_database("small"), few)
    head = [
        "", "rows done when it was killed", "rows done by the second run", "done twice", "seconds before",
        "seconds of the second run",
    ]  # fmt: skip
    again = [await killed(fresh("small"), form, few) for form in forms if form != "update"]
    sections[f"Killed (SIGKILL) on the way, {few:,} rows"] = evidence.table(head, again)
    return sections


def main() -> None:
    """Run it, and write the page."""
    parser = argparse.ArgumentParser(prog="bench -- backfill", description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--python-rows", type=int, help="those of RunPython; a fifth of them for the kills")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long updates are measured alone")
    parser.add_argument("--forms", nargs="+", choices=list(FORMS)[1:], default=list(FORMS)[1:])
    parser.add_argument("--print", action="store_true", help="write no page")
    parser.add_argument("--load", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.load:
        asyncio.run(load(given.load[0], int(given.load[1]), TASKS))
        return
    if given.run:
        asyncio.run(migrate(given.run[0], given.run[1], int(given.run[2])))
        return
    python = given.python_rows or max(given.rows // 10, 1000)
    settings = {**postgresql.DURABLE, "shared_buffers": "1GB", "max_wal_size": "8GB"}
    with postgresql.run(15, settings=settings) as server:
        forms = ["update", *given.forms]
        sections = asyncio.run(measure(server, given.rows, python, given.seconds, forms))
    if given.print:
        print("\n\n".join(f"## {heading}\n\n{body}" for heading, body in sections.items()))
        return
    about = ABOUT.format(doc=__doc__, rows=given.rows, python=python, tasks=TASKS, goal=GOAL)
    evidence.write("backfill", "Filling a column of many rows", about, DISTRIBUTIONS, sections)


if __name__ == "__main__":
    main()
