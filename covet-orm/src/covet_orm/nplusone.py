"""Finding N+1 queries while one develops: a loop that asks the database for each object what one query could tell for
all.

    with watch(database):
        for author in await Author.objects.all():
            print(author.name, await author.books.count())

gives an `NPlusOneWarning` at the line of the loop that asks, with what to write instead; Python shows each line once,
and `-W error::covet_orm.nplusone.NPlusOneWarning` makes tests fail. Whoever listens to events gets an `NPlusOneFound`.

Counted is by task, and so by request: the same statement, or the same relation of one object after another, asked for
from one line more than `threshold` times. Nothing is counted, and nothing costs anything, while no database is watched.
"""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from covet.events import Event, listener
from covet_orm.observing import caller

if TYPE_CHECKING:
    from covet_orm.databases import Database
    from covet_orm.queries.plans import Plan

__all__ = ["NPlusOneFound", "NPlusOneWarning", "asked", "watch"]

logger = logging.getLogger(__name__)

watching: list[Watch] = []
"""Who watches now; the innermost is last."""


class NPlusOneWarning(UserWarning):
    """One line asks the database for object after object what one query could tell for all."""


class NPlusOneFound(Event, frozen=True, gc=False):
    """One line asks for object after object what one query could tell for all.

    Attributes:
        query: what is asked: the statement's name, or the relation.
        filename, line: where.
        times: how often by now, in one task.
        remedy: what to write instead.
    """

    query: str
    filename: str
    line: int
    times: int
    remedy: str


class Watch:
    """Counts what is asked, by task and line.

    Args:
        threshold: how often one line may ask the same.
    """

    def __init__(self, threshold: int) -> None:
        self.threshold = threshold
        self._by_task: WeakKeyDictionary[asyncio.Task[Any], _Counts] = WeakKeyDictionary()

    def count(self, query: str, key: object, remedy: str, *, relation: bool) -> None:
        """Count once more, and warn when it is once too often.

        Args:
            query: what is asked, for the warning.
            key: tells it from other queries.
            remedy: what to write instead.
            relation: whether it is a relation, whose remedy is the better one: the statement it becomes is not told of.
        """
        task = asyncio.current_task()
        frame = caller()
        if task is None or frame is None:
            return
        counts = self._by_task.get(task)
        if counts is None:
            counts = self._by_task[task] = _Counts()
        place = (frame.f_code.co_filename, frame.f_lineno)
        if relation:
            counts.of_relations.add(place)
        elif place in counts.of_relations:
            return
        times = counts.times[place, key] = counts.times.get((place, key), 0) + 1
        if times == self.threshold + 1:
            _tell(query, place, times, remedy, frame)


class _Counts:
    __slots__ = ("of_relations", "times")

    def __init__(self) -> None:
        self.of_relations: set[tuple[str, int]] = set()
        self.times: dict[Any, int] = {}


@contextmanager
def watch(database: Database, *, threshold: int = 5) -> Iterator[None]:
    """Find N+1 queries in a database within the block, in every task.

    Args:
        database: which one.
        threshold: how often one line may ask the same in one task before it is told of.
    """
    found = Watch(threshold)
    unwatched = database.fetch_rows

    async def fetch_rows(plan: Plan, parameters: Sequence[Any]) -> list[Any]:
        found.count(plan.name, plan.sql, _REMEDY, relation=False)
        return await unwatched(plan, parameters)

    before = database.__dict__.get("fetch_rows")
    # In place of the method, so that a database that nobody watches does not look whether somebody does.
    database.fetch_rows = fetch_rows  # type: ignore[method-assign]
    watching.append(found)
    try:
        yield
    finally:
        watching.remove(found)
        if before is None:
            del database.__dict__["fetch_rows"]
        else:
            database.fetch_rows = before  # type: ignore[method-assign]


def asked(model: Any, relation: str) -> None:
    """A relation of one object is asked for; called where somebody watches."""
    name = f"{model.__name__}.{relation}"
    found = model._meta.relations[relation]
    method = "prefetch_related" if found.many else "select_related"
    remedy = (
        f"add .{method}({relation!r}) to the query of {model.__name__}, or `await obj.fetch({relation!r})`, which "
        "loads it for every object of the same result"
    )
    watching[-1].count(name, (model, relation), remedy, relation=True)


_REMEDY = (
    "ask once for all of them: filter(field__in=[...]) or in_bulk() in place of get(), select_related() or "
    "prefetch_related() for what belongs to an object, annotate() for a number of each"
)


def _tell(query: str, place: tuple[str, int], times: int, remedy: str, frame: FrameType) -> None:
    filename, line = place
    message = f"{query} was asked for {times} times from this line, within one task; {remedy}"
    logger.warning("%s:%d: %s", filename, line, message)
    app = listener()
    if app is not None:
        app.emit(NPlusOneFound(query, filename, line, times, remedy))
    warnings.warn_explicit(
        message,
        NPlusOneWarning,
        filename,
        line,
        module=frame.f_globals.get("__name__"),
        registry=frame.f_globals.setdefault("__warningregistry__", {}),
    )
