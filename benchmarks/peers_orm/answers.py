"""The operations by name, with their goals, and what each has to answer."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from benchmarks.peers_orm import schema


class Workload(NamedTuple):
    """An operation.

    Attributes:
        title: what it is.
        count: how many of them a round has.
        goals: how much a user of Covet may pay at most, in multiples of the driver, by kind of database.
    """

    title: str
    count: int
    goals: dict[str, float]


def _goals(postgresql: float, sqlite: float) -> dict[str, float]:
    return {"postgresql": postgresql, "sqlite": sqlite}


WORKLOADS = {
    "get": Workload("get by key", 300, _goals(1.0, 1.3)),
    "list100": Workload("100 rows to objects", 60, _goals(1.1, 1.6)),
    "list10k": Workload("10,000 rows to objects", 3, _goals(1.3, 2.0)),
    "values10k": Workload("10,000 rows to dicts", 3, _goals(1.2, 1.5)),
    "insert": Workload("insert one", 200, _goals(1.0, 1.5)),
    "bulk10k": Workload("insert 10,000", 1, _goals(1.5, 1.5)),
    "update": Workload("update one field", 200, _goals(1.0, 1.4)),
    "join1k": Workload("1,000 children with their parent", 8, _goals(2.0, 2.0)),
    "prefetch": Workload("100 parents with their 10 children each", 12, _goals(2.5, 2.5)),
    "count": Workload("count", 200, _goals(1.0, 1.2)),
}


async def check(name: str, peer: schema.Peer, raw: schema.Peer, workloads: Sequence[str]) -> None:
    """Raise ValueError unless a peer answers as the driver does, and leaves the same rows behind."""
    for workload in workloads:
        answers = [await answer(one, workload, raw) for one in (raw, peer)]
        if answers[0] != answers[1]:
            raise ValueError(f"{name} answers {workload} with {answers[1]!r:.500}, not {answers[0]!r:.500}")


async def answer(peer: schema.Peer, workload: str, raw: schema.Peer) -> Any:
    """What a peer answers, comparable with other peers' answers; of what is written, the rows that `raw` finds then."""
    schema.begin_turn(peer)
    if workload in ("insert", "bulk10k"):
        await peer.clear()
        await getattr(peer, workload)(7)
        sql = f"select {', '.join(schema.FIELDS)} from bench_scratch"
        return sorted(row_of(row, schema.FIELDS) for row in await raw.query(sql))
    if workload == "update":
        await raw.query("update bench_item set small = -1 where id = 8")
        await peer.update(7)
        return [row[0] for row in await raw.query("select small from bench_item where id = 8")]
    found = await getattr(peer, workload)(7)
    if workload == "count":
        return found
    if workload == "get":
        return row_of(found, schema.COLUMNS)
    if workload == "prefetch":
        return {author: sorted(titles) for author, titles in peer.books(found).items()}
    if workload == "join1k":
        return sorted(joined(book) for book in found)
    return sorted(row_of(one, schema.COLUMNS) for one in found)


def joined(book: Any) -> tuple[Any, ...]:
    """Key, title and the author's name."""
    if hasattr(book, "author"):
        return book.id, book.title, book.author.name
    return book[0], book[1], book[4]


def row_of(found: Any, names: Sequence[str]) -> tuple[Any, ...]:
    """The values of a row, a dict or an object, as Python has them."""
    if isinstance(found, Mapping):
        values = [found[name] for name in names]
    elif hasattr(found, "note"):
        values = [getattr(found, name) for name in names]
    else:
        values = list(found)
    return tuple(python(name, value) for name, value in zip(names, values, strict=True))


def python(name: str, value: Any) -> Any:
    """A value of a column; SQLite has neither booleans, decimals nor dates, and its driver gives what was stored."""
    if name == "price" and not isinstance(value, Decimal):
        return Decimal(str(value)).quantize(Decimal("0.01"))
    if name == "active":
        return bool(value)
    if name == "created" and isinstance(value, str):
        return datetime.datetime.fromisoformat(value).replace(tzinfo=None)
    return value
