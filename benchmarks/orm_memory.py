"""What loaded objects weigh, and what memory it takes to read a million rows one by one.

Each candidate runs in a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

from benchmarks import evidence
from benchmarks.orm import database
from benchmarks.peers_orm import schema
from benchmarks.peers_orm.answers import python

DISTRIBUTIONS = ["covet-orm", "asyncpg", "aiosqlite", "sqlalchemy", "tortoise-orm", "piccolo", "django"]
SLOTS = ("slots", "slots and row")
CANDIDATES = [*SLOTS, "covet", "tortoise", "sqlalchemy_orm", "piccolo", "django"]
GOAL = 1.2
STREAMED = ("covet", "sqlalchemy_orm", "django")
ABOUT = """
Objects: {objects:,} rows of ten columns (`bench_item`) are read, and what `tracemalloc` counts as allocated afterwards
and not before is divided by their number; the same read before makes whatever is made once. `slots` is a class with
`__slots__` and the same values, made of the driver's rows, which are thrown away: it does not know what was changed.
`slots and row` keeps the row as well, by which a change can be told. The goal is one of the latter; of these, Covet and
SQLAlchemy know what was changed.

Streaming: {rows:,} rows of the same ten columns of a table on PostgreSQL 15 are read by a cursor of the server and
counted; what is resident (`VmRSS`) after a tenth of the rows, and the most of it from there on.
"""


class Slotted:
    """A class with the ten attributes and nothing else."""

    __slots__ = schema.COLUMNS


class Tracked:
    """A class with the ten attributes, and the row that they came from."""

    __slots__ = (*schema.COLUMNS, "row")


async def slots(url: str, count: int, *, keep: bool) -> list[Any]:
    """Objects with slots, with the types that an object-relational mapper gives; they `keep` their rows or do not."""
    raw = importlib.import_module("benchmarks.peers_orm.raw").Peer(url)
    await raw.open()
    sql = f"select {', '.join(schema.COLUMNS)} from bench_item where id <= {count}"
    found: list[Any] = []
    for row in await raw.query(sql):
        made: Any = Tracked() if keep else Slotted()
        if keep:
            made.row = row
        for name, value in zip(schema.COLUMNS, row, strict=True):
            setattr(made, name, python(name, value))
        found.append(made)
    await raw.close()
    return found


async def load(name: str, peer: Any, count: int) -> Any:
    """Objects of a peer, all at once."""
    module = importlib.import_module(f"benchmarks.peers_orm.{name}")
    if name == "covet":
        return await module.Item.objects.filter(id__lte=count)
    if name == "tortoise":
        return await module.Item.filter(id__lte=count)
    if name == "piccolo":
        return await module.Item.objects().where(module.Item.id <= count)
    if name == "django":
        return [found async for found in module.Item.objects.filter(id__lte=count)]
    async with peer.session() as session:
        return (await session.scalars(module.select(module.Item).where(module.Item.id <= count))).all()


async def weigh(name: str, url: str, count: int) -> float:
    """Bytes per object."""
    peer = None
    if name not in SLOTS:
        peer = importlib.import_module(f"benchmarks.peers_orm.{name}").Peer(url)
        await peer.open()

    async def read(number: int) -> Any:
        return await slots(url, number, keep=name != "slots") if peer is None else await load(name, peer, number)

    tracemalloc.start()
    # The drivers keep a buffer, and what was read last until something else is.
    await read(count)
    await read(10)
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    found = await read(count)
    # Whoever reads attributes of an object may make it heavier.
    for one in found:
        for column in schema.COLUMNS:
            getattr(one, column)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    if len(found) != count:
        raise ValueError(f"{name} read {len(found)} objects, not {count}")
    if peer is not None:
        await peer.close()
    return grown / count


def resident() -> int:
    """The resident memory of this process, in bytes."""
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:")) * 1024


async def stream(name: str, url: str, rows: int) -> tuple[int, int]:
    """What is resident after a tenth of the rows, and the most of it afterwards."""
    module = importlib.import_module(f"benchmarks.peers_orm.{name}")
    peer = module.Peer(url)
    await peer.open()
    first = most = number = 0

    def count() -> None:
        nonlocal first, most, number
        number += 1
        if number == rows // 10:
            gc.collect()
            first = most = resident()
        elif number > rows // 10 and number % 2000 == 0:
            most = max(most, resident())

    if name == "sqlalchemy_orm":
        async with peer.session() as session:
            async for _ in await session.stream_scalars(
                module.select(module.Scratch).execution_options(yield_per=2000)
            ):
                count()
    elif name == "django":
        async for _ in module.Scratch.objects.all().aiterator(chunk_size=2000):
            count()
    else:
        async for _ in module.Scratch.objects.all().iterator(chunk_size=2000):
            count()
    await peer.close()
    if number != rows:
        raise ValueError(f"{name} streamed {number} rows, not {rows}")
    return first, most


async def fill(url: str, rows: int) -> None:
    """Make the tables, with that many rows in `bench_scratch`."""
    import asyncpg

    await schema.build(url)
    connection = await asyncpg.connect(url)
    await connection.execute(
        f"insert into bench_scratch ({', '.join(schema.FIELDS)}) select 'name ' || n, 'slug-' || n, n % 97, "
        "n::bigint * 10, n / 7.0, n / 100.0, n % 2 = 0, timestamp '2026-01-02 03:04:05', 'lorem' "
        f"from generate_series(1, {rows}) as n"
    )
    await connection.close()


def apart(what: str, name: str, url: str, count: int) -> list[float]:
    """Measure in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.orm_memory", "--apart", what, name, url, str(count)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=900)
    return [float(number) for number in done.stdout.splitlines()[-1].split()]


def objects_table(kind: str, candidates: list[str], count: int) -> str:
    """The table of what objects weigh."""
    found = {}
    with database(kind) as url:
        asyncio.run(schema.build(url))
        for name in candidates:
            found[name] = apart("weigh", name, url, count)[0]
            print(f"# {kind}, {name}: {found[name]:.0f} bytes", flush=True)
    rows = []
    for name, size in found.items():
        alone, tracked = (size / found[one] for one in SLOTS)
        goal = [f"≤ {GOAL}", "yes" if tracked <= GOAL + 0.005 else "no"] if name == "covet" else ["", ""]
        rows.append([name, f"{size:,.0f}", f"{alone:.2f}", f"{tracked:.2f}", *goal])
    return evidence.table(["object of ten fields", "bytes", "/ slots", "/ slots and row", "goal", "met"], rows)


def stream_table(candidates: list[str], count: int) -> str:
    """The table of streaming."""
    rows = []
    with database("postgresql") as url:
        asyncio.run(fill(url, count))
        for name in candidates:
            first, most = apart("stream", name, url, count)
            print(f"# {name}: {first / 2**20:.1f} MiB, {most / 2**20:.1f} MiB", flush=True)
            rows.append([name, f"{first / 2**20:.1f}", f"{most / 2**20:.1f}", f"{(most - first) / 2**20:+.1f}"])
    head = [f"{count:,} rows", "after a tenth, MiB", "the most afterwards, MiB", "growth, MiB"]
    return evidence.table(head, rows)


def main() -> None:
    if sys.argv[1:2] == ["--apart"]:
        _, _, what, name, url, count = sys.argv
        if what == "weigh":
            print(asyncio.run(weigh(name, url, int(count))))
        else:
            print(*asyncio.run(stream(name, url, int(count))))
        return
    parser = argparse.ArgumentParser(prog="bench -- orm_memory", description=__doc__)
    parser.add_argument("--objects", type=int, default=schema.ITEMS)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--peers", nargs="+", choices=CANDIDATES, default=CANDIDATES)
    parser.add_argument("--quick", action="store_true", help="50,000 rows; the figures mean little")
    parser.add_argument("--print", action="store_true", help="write no page")
    chosen = parser.parse_args()
    rows = 50_000 if chosen.quick else chosen.rows
    wanted = list(dict.fromkeys([*SLOTS, *chosen.peers]))
    sections = {
        "Loaded objects, from PostgreSQL": objects_table("postgresql", wanted, chosen.objects),
        "Loaded objects, from SQLite": objects_table("sqlite", wanted, chosen.objects),
        "Streaming": stream_table([name for name in STREAMED if name in chosen.peers], rows),
    }
    if chosen.print:
        for heading, body in sections.items():
            print(f"\n## {heading}\n\n{body}")
        return
    evidence.write(
        "orm_memory",
        "ORM: memory",
        ABOUT.format(objects=chosen.objects, rows=rows),
        DISTRIBUTIONS,
        sections,
    )


if __name__ == "__main__":
    main()
