"""A migration of more than thirty steps is killed with signal 9 at random instants, its process or its server.

The history has two migrations. The second one makes tables, columns, indexes, unique, check and foreign-key
constraints, renames, removes, and changes rows by SQL and by functions; each operation has a way back. It is run in two
ways: *in parts* (`atomic=False`: functions get rows in batches, indexes are created concurrently on PostgreSQL) and
*whole* (one transaction on PostgreSQL and SQLite; MariaDB keeps each step by itself either way).

A walk goes forward and back over it, and at each turn a process, or the server under it, is killed: half of the times
at a point between two statements, chosen at random among all that are reached (before and after each statement, each
batch, each commit), half of the times after a random time. A server that was killed is started again. Then:

- what is there, the schema as the catalogue has it and every row, is compared with what the history and the journal
  say: all of it, nothing of it, or exactly so many steps, and of a step in batches exactly the rows up to the key that
  was written down;
- the same command is typed again, or `migrate --unwind`; in a quarter of the cases that is killed as well, and typed
  once more. In the end schema and rows are those of the end of the migration, or of its beginning. All data steps add
  to what is there, so that one which was done twice would be seen;
- a process whose server was killed says so, and what to type.

A server that cannot read its own files after the kill is counted in the last column, and the walk goes on over another.

*Untouched*: no step had begun. *Rolled back*: steps had been run, and nothing of them was there. *Resumed*: what the
journal had was brought to an end. *Unwound*: it was taken back. *Had finished*: the kill came after the end.

Then ten processes at once migrate an empty database: all of them end well, and each migration is applied by one.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
from benchmarks import evidence
from tests.migrations.killing import OUTCOMES, Tally, Walk, at_once
from tests.services import mariadb, postgresql
from tests.services.databases import NAMES, SQLite
from tests.services.processes import ServiceError

DAMAGED = "due to corruption"
"""What InnoDB says where it cannot apply its own log after a crash."""
WAYS = {"in parts": 2, "whole": 1}
"""The ways in which the migration is run, each with its share of the kills."""


@contextlib.contextmanager
def started(name: str) -> Iterator[Any]:
    """A server that keeps what it said it has, started; or a folder for SQLite."""
    if name == "sqlite":
        with tempfile.TemporaryDirectory(prefix="covet-sqlite-") as folder:
            yield SQLite(Path(folder))
    elif name == "mariadb":
        with mariadb.run(settings=mariadb.DURABLE) as server:
            yield server
    else:
        with postgresql.run(int(name.rpartition("-")[2]), settings=postgresql.DURABLE) as server:
            yield server


async def walk(name: str, way: str, kills: int, seed: int) -> tuple[Walk, int]:
    """Kill so many times, process and server in turn; and how many servers that did not survive.

    A server that finds its own files damaged after the kill does not start again, whoever used it; the walk goes on
    over another one.
    """
    tally = Tally()
    lost = 0
    victims = ["client"] if name == "sqlite" else ["client", "server"]
    while True:
        with started(name) as server:
            one = Walk(server, way, seed + lost)
            one.tally = tally
            await one.prepare()
            try:
                for number in range(sum(tally.struck.values()), kills):
                    await one.strike(victims[number % len(victims)])
            except ServiceError as error:
                if DAMAGED not in str(error):
                    raise
                lost += 1
                print(f"# {name} did not start again: {DAMAGED}", flush=True)
                continue
        return one, lost


async def prove(names: tuple[str, ...], kills: int, rounds: int, seed: int) -> tuple[list[Any], list[Any], list[str]]:
    """The rows of the two tables, and what was wrong."""
    struck, together, wrong = [], [], []
    for name in names:
        for way, share in WAYS.items():
            began = time.monotonic()
            one, lost = await walk(name, way, -(-kills * share // sum(WAYS.values())), seed)
            struck.append([*row(name, way, one), lost])
            wrong += one.tally.wrong
            print(f"# {struck[-1]} in {time.monotonic() - began:.0f} s {one.tally.wrong}", flush=True)
        with started(name) as server:
            found = [await at_once(server, list(WAYS)[number % 2]) for number in range(rounds)]
            together.append([name, rounds, rounds * 10, sum(map(len, found))])
            wrong += [each for one in found for each in one]
            print(f"# {together[-1]} {found}", flush=True)
    return struck, together, wrong


def row(name: str, way: str, one: Walk) -> list[object]:
    """A walk as a row of the table."""
    tally: Tally = one.tally
    clients = sum(count for what, count in tally.struck.items() if what.startswith("client"))
    points = sum(count for what, count in tally.struck.items() if what.endswith("point"))
    kills = sum(tally.struck.values())
    return [
        name, way, one.steps, f"{kills} ({clients} of the process, {kills - clients} of the server)",
        f"{points} of {one.points}", *(tally.outcomes[outcome] for outcome in OUTCOMES), tally.again, tally.exact,
        len(tally.wrong),
    ]  # fmt: skip


HEAD = [
    "database", "way", "steps", "kills", "of these at a point", *OUTCOMES, "second runs killed as well",
    "exact comparisons", "wrong", "servers whose own files were damaged",
]  # fmt: skip


def main() -> None:
    """Run it, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=120, help="turns on each database")
    parser.add_argument("--rounds", type=int, default=20, help="of ten processes at once, on each database")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=NAMES, action="append", help="this database; no page is written then")
    given = parser.parse_args()
    names = tuple(given.only or NAMES)
    struck, together, wrong = anyio.run(prove, names, given.kills, given.rounds, given.seed)
    if given.only is None:
        evidence.write(
            "migrate_kill",
            "A migration is killed",
            __doc__,
            ["covet-migrate", "covet-orm", "asyncpg", "aiomysql", "aiosqlite", "sqlalchemy"],
            {
                "Killed": evidence.table(HEAD, struck),
                "Ten processes at once": evidence.table(["database", "rounds", "processes", "wrong"], together),
            },
            session="proof",
        )
    for one in wrong:
        print(one)
    if wrong:
        raise SystemExit(f"{len(wrong)} times something was wrong")


if __name__ == "__main__":
    main()
