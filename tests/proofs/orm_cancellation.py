"""Transactions that are cancelled at every place where they wait, in every way.

Each operation is made again and again: cancelled where it waits first, second, and so on, until it ends before it
would be. It is cancelled in five ways:

- **scope**: a cancel scope of anyio, which cancels again at each later place;
- **task**: `asyncio.Task.cancel`, once;
- **twice**: the same, and again at the next place, which is often in the middle of the rollback;
- **late**: once, when what it waits for is there, and the task has not heard of it;
- **timeout**: `asyncio.timeout`, whose time is over.

A place is passed when, after the call:

- what it was to write is there as a whole or not at all, and as it was told: there where it ended without an error or
  the block says that it was committed, and nowhere else; so a session of its own finds it, over the raw driver;
- its error is the cancellation, if it was cancelled; hooks were called for what became of it, once;
- no connection is missing in a pool, and the next transaction, with a savepoint, works;
- no transaction is open, nor prepared: PostgreSQL is asked by `pg_stat_activity` and `pg_prepared_xacts`, MariaDB by
  `innodb_trx` and each connection of the pool by `@@in_transaction`, and SQLite by an attempt to write and to empty its
  log.

The second database of `distributed()` is another one on the same server; that of SQLite is on PostgreSQL 15.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Sequence

import anyio
from benchmarks import evidence
from tests.cancellation.matrix import Cell, cancel, prepared, rehearse
from tests.cancellation.operations import OPERATIONS, Operation
from tests.services.databases import NAMES, Databases

from covet.testing.conformance.faults import WAYS, Way

HEAD = (
    "database", "operation", "ways", "places enumerated", "places passed", "connections leaked",
    "transactions left open",
)  # fmt: skip


async def prove(
    databases: Databases,
    names: Iterable[str] = NAMES,
    operations: Sequence[Operation] = OPERATIONS,
    ways: Sequence[Way] = WAYS,
    *,
    ask: bool = True,
) -> list[Cell]:
    """Every operation, in every way, on every database.

    Args:
        databases: the servers.
        names: of those that are looked at.
        operations: what is cancelled.
        ways: how.
        ask: whether the server is asked after each place, or else once in the end.
    """
    cells = []
    for name in names:
        server = databases.get(name)
        url = server.empty_database("cancelled")
        second = databases.get("postgresql-15") if name == "sqlite" else server
        other = second.empty_database("cancelled_other")
        async with prepared(url, other) as seen:
            await rehearse(url, other, operations)
            cells += [
                await cancel(name, url, other, seen, operation, way, ask=ask)
                for operation in operations
                for way in ways
            ]
    return cells


def rows(cells: Sequence[Cell]) -> list[list[object]]:
    """A row for each operation on each database, and one for all of them."""
    by_operation: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        by_operation.setdefault((cell.database, cell.operation), []).append(cell)
    found = [[*key, ", ".join(cell.way for cell in several), *_sums(several)] for key, several in by_operation.items()]
    return [*found, ["**all**", "", "", *_sums(cells)]]


def _sums(cells: Sequence[Cell]) -> list[object]:
    return [f"{sum(getattr(cell, name) for cell in cells):,}" for name in ("places", "passed", "leaked", "left")]


def failures(cells: Iterable[Cell]) -> list[str]:
    """What was wrong, in words."""
    return [
        f"{cell.database}, {cell.operation}, {cell.way}: {cell.failure or 'places that were not passed'}"
        for cell in cells
        if cell.failure or cell.passed != cell.places or cell.leaked or cell.left
    ]


def main() -> None:
    """Run it, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--databases", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--operation", default="", help="only those with this in their names")
    parser.add_argument("--print", action="store_true", help="write no page")
    given = parser.parse_args()
    operations = [operation for operation in OPERATIONS if given.operation in operation.name]
    began = time.monotonic()
    with Databases() as databases:
        cells = anyio.run(prove, databases, given.databases, operations, given.ways)
    body = evidence.table(HEAD, rows(cells))
    if given.print:
        print(f"{body}\n\n{time.monotonic() - began:.0f} s")
    else:
        evidence.write(
            "orm_cancellation",
            "Cancellation",
            __doc__,
            ["covet-orm", "asyncpg", "aiomysql", "aiosqlite", "anyio"],
            {"Outcome": body},
            session="proof",
        )
    wrong = failures(cells)
    if wrong:
        raise SystemExit("not passed:\n" + "\n".join(wrong))


if __name__ == "__main__":
    main()
