"""Counting the queries of a block of code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from covet_orm.observing import unwatch, watch

if TYPE_CHECKING:
    from covet_orm.databases import Database
    from covet_orm.events import QueryDone

__all__ = ["assert_num_queries", "captured_queries"]


@contextmanager
def captured_queries(*databases: Database) -> Iterator[list[QueryDone]]:
    """The queries of a block, in every task, in the order in which they end.

        with captured_queries() as queries:
            await client.get("/books")
        assert [query.name for query in queries] == ["Book.select"]

    Args:
        databases: in which; all that are open by default.
    """
    from covet_orm.ambient import opened

    found: list[QueryDone] = []
    tell = found.append
    watched = databases or tuple(opened)
    for database in watched:
        watch(database, tell)
    try:
        yield found
    finally:
        for database in watched:
            unwatch(database, tell)


@contextmanager
def assert_num_queries(number: int, *databases: Database) -> Iterator[list[QueryDone]]:
    """Fail when a block runs another number of queries; the failure lists them.

    Args:
        number: how many.
        databases: in which; all that are open by default.

    Raises:
        AssertionError: it ran more or fewer.
    """
    __tracebackhide__ = True
    with captured_queries(*databases) as found:
        yield found
    if len(found) != number:
        listed = "".join(f"\n  {place}. {' '.join(query.sql.split())}" for place, query in enumerate(found, 1))
        raise AssertionError(f"{len(found)} queries instead of {number}{listed or ''}")
