"""A table that is used: rows, changes of its models, and processes of tasks that read, update and insert rows through
covet-orm while somebody migrates it (`tests/proofs/migrate_live.py`).

python -m tests.migrations.live_load URL SCENARIO ROWS FIRST TASKS ALL
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.migrations.migrating import APP, create, model
from tests.services.databases import ask

import covet_orm as orm
from covet_migrate import operations as ops
from covet_migrate.operations import Operation
from covet_migrate.state import State
from covet_migrate.state.rendering import historical_models
from covet_orm import Database, F
from covet_orm.expressions.functions import RandomUUID

__all__ = [
    "ITEM", "SCENARIOS", "Processes", "Scenario", "before", "commands", "fill", "loaded", "processes", "wrong",
]  # fmt: skip

ITEM = f"{APP}.Item"
OWNERS = 1000
PROCESSES = 2
PAUSE = 0.1
"""Seconds between two requests of a task, in the mean."""
FIRST_CODE = 1_000_000_000
"""The codes of rows that requests insert begin here."""


def before() -> State:
    """The models at the beginning."""
    owner: dict[str, Any] = {"id": orm.BigAutoField(primary_key=True), "name": orm.CharField(max_length=40)}
    item: dict[str, Any] = {
        "id": orm.BigAutoField(primary_key=True),
        "name": orm.CharField(max_length=50),
        "code": orm.IntegerField(),
        "owner": orm.ForeignKey(f"{APP}.Owner", db_constraint=False, related_name="+"),
        "note": orm.CharField(max_length=50, null=True),
        "amount": orm.IntegerField(),
    }
    models = [model("Owner", owner), model("Item", item)]
    return State({one.label: one for one in models})


def _altered(name: str, **options: Any) -> Operation:
    made = before()[ITEM].fields[name]
    args, given = made.declared
    return ops.AlterField("Item", name, type(made)(*args, **{**given, **options}))


@dataclass(frozen=True)
class Scenario:
    """A change of the models.

    Attributes:
        title: what it is, for people.
        operation: makes the operation.
        contracts: whether something is left for the time when no old code runs.
        holds: SQL that counts rows which are not as they should be.
        avoidable: the kinds of database on which `--safe` keeps everybody from waiting.
    """

    title: str
    operation: Callable[[], Operation]
    contracts: bool = False
    holds: str = "SELECT 0"
    avoidable: tuple[str, ...] = ("postgresql", "mariadb")


SCENARIOS = {
    "column": Scenario(
        "NOT NULL column with a default",
        lambda: ops.AddField("Item", "state", orm.IntegerField(default=3)),
        contracts=True,
        holds="SELECT count(*) FROM shop_item WHERE state <> 3",
    ),
    "volatile": Scenario(
        "NOT NULL column, each row another default",
        lambda: ops.AddField("Item", "token", orm.UUIDField(db_default=RandomUUID())),
        holds="SELECT count(*) - count(DISTINCT token) FROM shop_item",
    ),
    "unique": Scenario("unique index", lambda: _altered("code", unique=True)),
    "foreign_key": Scenario(
        "foreign key", lambda: _altered("owner", db_constraint=True), avoidable=("postgresql",)
    ),
    "rename": Scenario("rename of a column", lambda: ops.RenameField("Item", "name", "title"), contracts=True),
    "not_null": Scenario(
        "SET NOT NULL, a tenth of the rows NULL",
        lambda: ops.AlterField("Item", "note", orm.CharField(max_length=50), fill="none"),
        holds="SELECT count(*) FROM shop_item WHERE (note = 'none') <> (id % 10 = 0) AND code < 1000000000",
    ),
}  # fmt: skip


@dataclass
class Load:
    """The requests of one process.

    Attributes:
        old, new: the model Item, as programs know it before and after.
        rows: how many there were at the beginning.
        first: the number of its first task, of all processes.
        tasks: how many it has.
        all_tasks: how many there are.
    """

    old: Any
    new: Any
    rows: int
    first: int
    tasks: int
    all_tasks: int
    pause: float = PAUSE
    times: list[float] | None = None
    written: dict[int, str] = field(default_factory=dict)
    inserted: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    ended: bool = False

    def __post_init__(self) -> None:
        self.models = [self.old] * self.tasks

    async def task(self, number: int) -> None:
        """One request after the other."""
        chance = random.Random(self.first + number)
        own: dict[int, str] = {}
        count = 0
        await asyncio.sleep(chance.uniform(0, self.pause))
        while not self.ended:
            count += 1
            began = time.perf_counter()
            try:
                await self._request(number, count, chance, own)
            except Exception as error:  # Whatever a user would have got.
                self.errors[f"{type(error).__name__}: {str(error).splitlines()[0]:.90}"] += 1
            if self.times is not None:
                self.times.append(time.perf_counter() - began)
            await asyncio.sleep(chance.uniform(0, 2 * self.pause))
        self.written.update(own)

    async def _request(self, number: int, count: int, chance: random.Random, own: dict[int, str]) -> None:
        item = self.models[number]
        name = "name" if "name" in item._meta.by_name else "title"
        index = self.first + number
        value = f"written {index}-{count}"
        kind = chance.random()
        if kind < 0.5 or (kind < 0.6 and not own):
            key = chance.choice(list(own)) if own and chance.random() < 0.5 else chance.randint(1, self.rows)
            found = await item.objects.get(pk=key)
            if key in own and getattr(found, name) != own[key]:
                raise ValueError("a request read what it did not write")
        elif kind < 0.6:
            key = chance.choice(list(own))
            found = await item.objects.get(pk=key)
            setattr(found, name, value)
            await found.save()
            own[key] = value
        elif kind < 0.85:
            # Nobody else writes into rows whose key leaves this rest.
            key = index + 1 + self.all_tasks * chance.randrange(max((self.rows - index) // self.all_tasks, 1))
            if key > self.rows:
                return
            await item.objects.filter(pk=key).update(**{name: value, "amount": F("amount") + 1})
            own[key] = value
        else:
            code = FIRST_CODE + index * 1_000_000 + count
            made = await item.objects.create(
                **{name: value}, code=code, owner_id=chance.randint(1, OWNERS), note="new", amount=0
            )
            self.inserted += 1
            own[made.pk] = value

    async def switch(self) -> None:
        """One task after the other goes on with the new models."""
        for number in range(self.tasks):
            self.models[number] = self.new
            await asyncio.sleep(0.8 / self.tasks)


async def commands() -> AsyncIterator[tuple[str, Callable[[Any], None]]]:
    """The commands that come, each with what answers it."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    with os.fdopen(os.dup(1), "wb") as output:

        def answer(value: Any) -> None:
            output.write(json.dumps(value).encode() + b"\n")
            output.flush()

        while command := (await reader.readline()).decode().strip():
            yield command, answer


async def load(url: str, scenario: str, rows: int, first: int, tasks: int, all_tasks: int) -> None:
    """Requests until it is told to end."""
    state = before()
    after = SCENARIOS[scenario].operation().apply(state, APP) if scenario in SCENARIOS else state
    old, new = (historical_models(one)[ITEM] for one in (state, after))
    running = Load(old, new, rows, first, tasks, all_tasks)
    async with Database(url, min_size=tasks, max_size=tasks, acquire_timeout=120):
        group = [asyncio.ensure_future(running.task(number)) for number in range(tasks)]
        async for command, answer in commands():
            told: Any = None
            if command == "begin":
                running.times = []
            elif command == "end":
                told, running.times = running.times, None
            elif command == "switch":
                await running.switch()
            elif command == "stop":
                running.ended = True
                await asyncio.gather(*group)
                written = {str(key): value for key, value in running.written.items()}
                told = {"written": written, "inserted": running.inserted, "errors": running.errors}
            answer(told)


class Processes:
    """The processes of a load."""

    def __init__(self, processes: Sequence[asyncio.subprocess.Process]) -> None:
        self._processes = processes

    async def tell(self, command: str) -> list[Any]:
        """Tell all of them something; what they answer."""
        for one in self._processes:
            assert one.stdin is not None
            one.stdin.write(f"{command}\n".encode())
        return list(await asyncio.gather(*(self._answer(one) for one in self._processes)))

    async def _answer(self, process: asyncio.subprocess.Process) -> Any:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), 600)
        if not line:
            raise RuntimeError(f"a process of the load ended with {await process.wait()}")
        return json.loads(line)

    async def times(self) -> list[float]:
        """How long the requests since `begin` took, in order, in milliseconds."""
        return sorted(one * 1000 for times in await self.tell("end") for one in times)


@contextlib.asynccontextmanager
async def processes(*commands: Sequence[str]) -> AsyncIterator[Processes]:
    """Processes of a load, by their command lines; they answer when the context begins."""
    started = []
    try:
        for command in commands:
            started.append(
                await asyncio.create_subprocess_exec(
                    *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 28
                )
            )
        found = Processes(started)
        await found.tell("begin")
        yield found
    finally:
        for one in started:
            if one.returncode is None:
                one.kill()
            await one.wait()


@contextlib.asynccontextmanager
async def loaded(url: str, scenario: str, rows: int, tasks: int) -> AsyncIterator[Processes]:
    """Processes that use the table."""
    share = tasks // PROCESSES if tasks >= 10 else tasks
    command = [sys.executable, "-m", "tests.migrations.live_load", url, scenario, str(rows)]
    counts = [(first, min(share, tasks - first)) for first in range(0, tasks, share)]
    async with processes(*([*command, str(first), str(count), str(tasks)] for first, count in counts)) as found:
        yield found


async def fill(url: str, rows: int) -> None:
    """Make the tables of before, and their rows."""
    await create(url, before())
    postgresql = url.startswith("postgresql")
    numbers = "generate_series(1, {0}) AS n(seq)" if postgresql else "seq_1_to_{0}"
    await ask(
        url,
        f"INSERT INTO shop_owner (id, name) SELECT seq, concat('owner ', seq) FROM {numbers.format(OWNERS)}",
        "INSERT INTO shop_item (id, name, code, owner_id, note, amount) SELECT seq, concat('name ', seq), seq, "
        f"1 + seq % {OWNERS}, CASE WHEN seq % 10 > 0 THEN 'old' END, 0 FROM {numbers.format(rows)}",
        *(
            ["SELECT setval(pg_get_serial_sequence('shop_item', 'id'), max(id)) FROM shop_item", "ANALYZE"]
            if postgresql
            else ["ANALYZE TABLE shop_item"]
        ),
    )


async def wrong(url: str, scenario: str, rows: int, answers: Sequence[Any]) -> list[str]:
    """What is not as it should be in the rows, by what the processes know that they wrote."""
    found = []
    name = "title" if scenario == "rename" else "name"
    known = {int(key): value for one in answers for key, value in one["written"].items()}
    there = {
        int(key): value
        for key, value in await ask(
            url,
            f"SELECT id, {name} FROM shop_item WHERE id > {rows} OR {name} <> concat('name ', id) OR {name} IS NULL",
        )
    }
    if lost := [key for key, value in known.items() if there.get(key) != value]:
        found.append(f"{len(lost)} rows are not as they were written last")
    if others := there.keys() - known.keys():
        found.append(f"{len(others)} rows are not as they were")
    inserted = sum(one["inserted"] for one in answers)
    sums = await ask(url, f"SELECT count(*), sum(code), sum(owner_id) FROM shop_item WHERE id <= {rows}")
    expected = (rows, rows * (rows + 1) // 2, sum(1 + number % OWNERS for number in range(1, rows + 1)))
    if tuple(int(one) for one in sums[0]) != expected:
        found.append(f"of the rows that were there, {sums[0]} is not {expected}")
    count = (await ask(url, f"SELECT count(*) FROM shop_item WHERE id > {rows}"))[0][0]
    if count != inserted:
        found.append(f"{count} rows came, and {inserted} were answered for")
    if scenario in SCENARIOS and (bad := (await ask(url, SCENARIOS[scenario].holds))[0][0]):
        found.append(f"{bad} rows did not get what they should")
    return found


if __name__ == "__main__":
    asyncio.run(load(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:7])))
