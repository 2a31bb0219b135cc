"""A migration of thirty steps that is killed at random instants, and what is there afterwards, to the last row.

A walk goes back and forth between two ends: the long migration is not applied, or it is. On the way it is killed, its
process or its server; what is there then is compared with what the journal says, and the migration is brought to an
end, or unwound. `tests/proofs/migrate_kill.py` is the long form.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from tests.migrations import history
from tests.migrations.processes import Command, Ended, MigratingProcess, run
from tests.migrations.runs import migrator
from tests.migrations.schema_snapshots import Snapshot, snapshot

from covet_migrate.execution import Event, Migrator
from covet_migrate.execution.events import StepStarted
from covet_migrate.execution.journal import Entry
from covet_migrate.execution.migrator import server_version
from covet_migrate.migrations import Migration
from covet_orm import Database
from covet_orm.testing import faultpoints

__all__ = ["OUTCOMES", "Seen", "Tally", "Walk", "at_once"]

OUTCOMES = ("untouched", "rolled back", "resumed", "unwound", "had finished")
LONG = f"{history.APP}.{history.LONG}"
MINE = ("covet_migrations", "covet_migrations_journal")
COUNTED = ("shop_entry", "shop_card", "shop_plastic", "shop_branch")
"""Tables whose keys the database counts: a number that a transaction took is gone when it is rolled back."""

Row = tuple[tuple[str, Any], ...]
Rows = dict[str, list[Row]]


@dataclass
class Seen:
    """What is there.

    Attributes:
        applied: the migrations of the history.
        entry: the line of the long migration in the journal.
        schema: the schema, without the tables of the history.
        rows: those of each table.
    """

    applied: list[str]
    entry: Entry | None
    schema: Snapshot
    rows: Rows

    def same(self, other: Seen) -> bool:
        """Whether schema and rows are the same."""
        return self.schema == other.schema and self.rows == other.rows


@dataclass
class Tally:
    """What a walk showed.

    Attributes:
        outcomes: how many kills had which outcome.
        struck: how many kills there were: of the client or the server, at a point or at an instant.
        again: how many times the second run, that was to bring it to an end, was killed as well.
        exact: how many times what was there was compared with the journal.
        refused: how many times it could not be unwound, said why, and was resumed.
        wrong: what was not as it should be.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    struck: Counter[str] = field(default_factory=Counter)
    again: int = 0
    exact: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)


async def look(url: str) -> Seen:
    """Look at a database."""
    schema = {table: told for table, told in (await snapshot(url)).items() if table not in MINE}
    rows: Rows = {}
    async with Database(url) as database:
        applied = [f"{one.app}.{one.name}" for one in await Migrator(database, _no_files()).history.read()]
        entries = await Migrator(database, _no_files()).journal.read()
        named: dict[Any, Any] = {None: None}
        if "shop_branch" in schema:
            named |= {row["id"]: row["name"] for row in await database.fetch_all("SELECT id, name FROM shop_branch")}
        for table in schema:
            found = [dict(row) for row in await database.fetch_all(f"SELECT * FROM {table}")]
            for row in found:
                if table in COUNTED:
                    del row["id"]
                if "branch_id" in row:
                    row["branch_id"] = named.get(row["branch_id"], row["branch_id"])
            rows[table] = sorted((tuple(sorted(row.items())) for row in found), key=repr)
    return Seen(applied, entries[0] if entries else None, schema, rows)


def _no_files() -> Any:
    from tests.migrations.runs import InMemory

    return InMemory()


class _Recorded(dict[str, Any]):
    """Notes the points that are reached, and lets something happen behind each step."""

    def __init__(self, done: Callable[[int], Any]) -> None:
        super().__init__({"": None})
        self.names: list[str] = []
        self._done = done

    def get(self, key: str, default: Any = None) -> Any:
        told = key.startswith(("transaction.commit", "migrate.batch")) and key.count(".") < 3
        if told or (key.startswith("migrate.") and f".{history.LONG}." in key):
            self.names.append(key)
        if key.startswith(f"migrate.done.{LONG}."):
            number = int(key.rpartition(".")[2])
            return lambda: self._done(number + 1)
        return None


class Walk:
    """Back and forth over the long migration of a history.

    Args:
        server: a server, or the folder of SQLite; its database is made empty.
        way: `in parts` or `whole`.
        seed: of what is random.

    Attributes:
        tally: what it showed.
    """

    def __init__(self, server: Any, way: str, seed: int) -> None:
        self.server = server
        self.way = way
        self.migrations: Callable[[str], Sequence[Migration]] = history.in_parts if way == "in parts" else history.whole
        self.tally = Tally()
        self.url = server.empty_database("walk")
        self._chance = random.Random(seed)
        self._states: dict[bool, dict[int, Seen]] = {}
        self._points: dict[bool, list[str]] = {}
        self._seconds: dict[bool, float] = {}
        self._steps: dict[bool, list[list[Any]]] = {}
        self._backward = False

    @property
    def steps(self) -> int:
        """How many steps the long migration has."""
        return sum(map(len, self._steps[False]))

    @property
    def points(self) -> int:
        """How many points are passed on the way there and back."""
        return sum(map(len, self._points.values()))

    async def prepare(self) -> None:
        """Go there and back once without a kill, and note what is there behind each step."""
        first, long = self.migrations(self.server.kind)
        async with Database(self.url) as database:
            version = await server_version(database)
            await migrator(database, first, steps_of=None).migrate()
        for backward in (False, True):
            stages = history.stages(long, self.server.kind, version, backward=backward)
            self._steps[backward] = [stage.steps for stage in stages]
            await self._note(backward)
        there, back = self._states[False], self._states[True]
        assert there[0].same(back[max(back)])
        assert there[max(there)].same(back[0])
        for backward in (False, True):
            began = monotonic()
            ended = run(self.url, self.migrations, "backward" if backward else "migrate")
            self._seconds[backward] = monotonic() - began
            assert ended.code == 0, ended.error

    async def _note(self, backward: bool) -> None:
        states = self._states[backward] = {0: await look(self.url)}

        async def done(number: int) -> None:
            states[number] = await look(self.url)

        recorded = _Recorded(done)
        before, faultpoints.actions = faultpoints.actions, recorded
        count = 0

        def tell(event: Event) -> None:
            nonlocal count
            count += isinstance(event, StepStarted)

        try:
            async with Database(self.url) as database:
                one = migrator(database, *self.migrations(database.kind), tell=tell, steps_of=None)
                await one.migrate(*(self.migrations(database.kind)[0].key if backward else ()), yes=True)
        finally:
            faultpoints.actions = before
        self._points[backward] = recorded.names
        states[count] = await look(self.url)
        assert count == sum(map(len, self._steps[backward]))

    # Walking

    async def strike(self, victim: str) -> str:
        """Start the migration, kill the `client` or the `server`, see what is there, and bring it to an end; what the
        outcome was."""
        command: Command = "migrate"
        if self._backward:
            command = self._chance.choice(("backward", "rollback"))
        ended, told = await self._killed(command, victim)
        await self._at_rest()
        seen = await look(self.url)
        outcome = await self._judge(seen, ended, f"{told}, {command}")
        self.tally.outcomes[outcome] += 1
        return outcome

    async def _killed(self, command: Command, victim: str, *, at_a_point: bool | None = None) -> tuple[Ended, str]:
        """Run a command until it, or its server, is killed; what was done when."""
        points = self._points[self._backward]
        where = self._chance.randrange(len(points))
        stop, passes = points[where], points[:where].count(points[where])
        by_point = self._chance.random() < 0.5 if at_a_point is None else at_a_point
        process = MigratingProcess(
            self.url, self.migrations, command, stop=stop if by_point else "", passes=passes if by_point else 0
        )
        after = 30.0 if by_point else self._chance.uniform(0.0, self._seconds[self._backward] * 1.05)
        await asyncio.to_thread(process.hears, after)
        self.tally.struck[f"{victim}, {'at a point' if by_point else 'at an instant'}"] += 1
        if victim == "client":
            process.kill()
        else:
            await asyncio.to_thread(self.server.kill)
            if process.ended.reached:
                process.go_on()
        ended = await asyncio.to_thread(process.wait)
        told = f"{victim} killed {f'at {stop} ({passes})' if by_point else f'after {after:.3f} s'}"
        if victim == "server":
            await asyncio.to_thread(self.server.start)
            told_well = "type" in ended.error or "cannot connect to database" in ended.error
            if ended.code not in (0, 1) or (ended.code == 1 and not told_well):
                self._wrong(f"{told}: the process ended with {ended.code}: {ended.error or 'no message'}")
        return ended, told

    async def _judge(self, seen: Seen, ended: Ended, told: str) -> str:
        """Compare what is there with what the journal says, and bring it to an end."""
        start, end = self._ends(self._backward)
        applied = LONG in seen.applied
        if seen.entry is None:
            finished = applied is not self._backward
            if not seen.same(end if finished else start):
                self._wrong(f"{told}: {'finished' if finished else 'not begun'}, and something else is there")
            self.tally.exact += 1
            if finished:
                self._turn()
                return "had finished"
            await self._finish("backward" if self._backward else "migrate", told)
            return "rolled back" if ended.begun else "untouched"
        if applied is not self._backward:
            self._wrong(f"{told}: in the history and in the journal")
        self._compare(seen, told)
        if self._backward and self._chance.random() < 0.2:
            refused = await asyncio.to_thread(run, self.url, self.migrations, "rollback")
            if refused.code != 1 or "--unwind" not in refused.error:
                self._wrong(f"{told}: rollback of what is under way: {refused.code} {refused.error}")
        again: Command = self._chance.choice(("unwind", "backward" if self._backward else "migrate"))
        return await self._finish(again, told)

    async def _finish(self, command: Command, told: str) -> str:
        """Bring it to an end, in a share of the cases with one more kill on the way."""
        if self._chance.random() < 0.25:
            self.tally.again += 1
            victim = self._chance.choice(("client", "server")) if self.server.kind != "sqlite" else "client"
            _, more = await self._killed(command, victim, at_a_point=False)
            await self._at_rest()
            seen = await look(self.url)
            told = f"{told}; {command}, {more}"
            if seen.entry is not None:
                self._compare(seen, told)
                if seen.entry.unwound is not None:
                    command = "unwind"
            elif command == "unwind" and seen.same(self._ends(self._backward)[0]):
                return "unwound"
        ended = await asyncio.to_thread(run, self.url, self.migrations, command)
        if command == "unwind" and "cannot be seen in the schema" in ended.error:
            # Of an operation of several statements that only change rows a part was done: it says what to type.
            self.tally.refused += 1
            command = "backward" if self._backward else "migrate"
            ended = await asyncio.to_thread(run, self.url, self.migrations, command)
        if ended.code != 0:
            self._wrong(f"{told}: {command} ended with {ended.code}: {ended.error}")
        seen = await look(self.url)
        start, end = self._ends(self._backward)
        wanted = start if command == "unwind" else end
        if seen.entry is not None or not seen.same(wanted):
            self._wrong(f"{told}: {command} left {'a journal' if seen.entry else _difference(seen, wanted)}")
        if (LONG in seen.applied) is not (self._backward if command == "unwind" else not self._backward):
            self._wrong(f"{told}: {command} left the history {seen.applied}")
        if command == "unwind":
            return "unwound"
        self._turn()
        return "resumed"

    def _turn(self) -> None:
        self._backward = not self._backward

    def _ends(self, backward: bool) -> tuple[Seen, Seen]:
        states = self._states[backward]
        return states[0], states[max(states)]

    def _wrong(self, what: str) -> None:
        self.tally.wrong.append(f"{self.server.name}, {self.way}: {what}")

    def _compare(self, seen: Seen, told: str) -> None:
        """See whether exactly what the journal says is done."""
        entry = seen.entry
        assert entry is not None
        backward, offset = self._backward, 0
        if entry.unwound is not None:
            if entry.position is not None and not isinstance(entry.position, int):
                # An operation is taken back of which a part was done: the end tells whether that went well.
                return
            backward = not backward
            whole = sum(map(len, self._steps[backward][len(self._steps[backward]) - entry.unwound :]))
            offset = sum(map(len, self._steps[backward])) - whole
        states, number = self._states[backward], offset + entry.done
        wanted = [states[number]]
        if entry.under_way:
            wanted.append(states[number + 1])
            _forget_invalid(seen)
        if entry.position is not None:
            wanted = [_mixed(states[number], states[number + 1], entry.position)]
        self.tally.exact += 1
        if not any(seen.same(one) for one in wanted):
            self._wrong(f"{told}: the journal says {entry}, and there is: {_difference(seen, wanted[0])}")

    async def _at_rest(self) -> None:
        """Wait until the server has ended what a process that is gone was about."""
        if self.server.kind == "sqlite":
            return
        others = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND backend_type = 'client backend'"
            if self.server.kind == "postgresql"
            else "SELECT count(*) FROM information_schema.processlist WHERE db = database() AND id <> connection_id()"
        )
        async with Database(self.url) as database:
            for _ in range(600):
                if not await database.fetch_value(others):
                    return
                await asyncio.sleep(0.05)
        self._wrong("a statement of a process that is gone does not end")


def _mixed(before: Seen, after: Seen, position: Any) -> Seen:
    """What is there when a step in batches has come to a key."""

    def key(row: Row) -> Any:
        told = dict(row)
        return told.get("account_number", told.get("id"))

    rows = {}
    for table, old in before.rows.items():
        if table in ("shop_account", "shop_entry"):
            done = [row for row in after.rows[table] if key(row) <= position]
            rows[table] = sorted([*done, *(row for row in old if key(row) > position)], key=repr)
        else:
            rows[table] = old
    return Seen(before.applied, None, before.schema, rows)


def _forget_invalid(seen: Seen) -> None:
    """Leave out the indexes that an interrupted CREATE INDEX CONCURRENTLY left; the next run drops them."""
    for told in seen.schema.values():
        for name in [name for name, text in told.items() if name.startswith("index") and text.endswith("| false")]:
            del told[name]


def _difference(seen: Seen, wanted: Seen) -> str:
    """What is not as it should be, in a few words."""
    found = [
        f"{table}: {sorted(set(seen.schema.get(table, {}).items()) ^ set(wanted.schema.get(table, {}).items()))[:4]}"
        for table in sorted(seen.schema | wanted.schema)
        if seen.schema.get(table) != wanted.schema.get(table)
    ]
    found += [
        f"rows of {table}: {sorted(set(seen.rows.get(table, [])) ^ set(wanted.rows.get(table, [])), key=repr)[:3]}, "
        f"{len(seen.rows.get(table, []))} instead of {len(wanted.rows.get(table, []))}"
        for table in sorted(seen.rows | wanted.rows)
        if seen.rows.get(table) != wanted.rows.get(table)
    ]
    return "; ".join(found) or "no difference"


async def at_once(server: Any, way: str, processes: int = 10) -> list[str]:
    """Let processes migrate an empty database at once; what was not as it should be."""
    url = server.empty_database("together")
    migrations = history.in_parts if way == "in parts" else history.whole
    started = [MigratingProcess(url, migrations) for _ in range(processes)]
    ended = [await asyncio.to_thread(one.wait) for one in started]
    wrong = [f"{server.name}: a process ended with {one.code}: {one.error}" for one in ended if one.code != 0]
    done = sorted(name for one in ended for name in one.done)
    if done != [f"{history.APP}.0001_first", LONG]:
        wrong.append(f"{server.name}: applied were {done}")
    seen = await look(url)
    if sorted(seen.applied) != done or seen.entry is not None:
        wrong.append(f"{server.name}: the history has {seen.applied}, the journal {seen.entry}")
    balances = {dict(row)["balance"] for row in seen.rows.get("shop_account", [])}
    if balances != {1100 + number for number in range(history.ROWS)}:
        wrong.append(f"{server.name}: rows were changed more than once, or not at all")
    return wrong
