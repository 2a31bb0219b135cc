"""Finding N+1 queries while one develops: a loop that asks the database for each object what one query could tell for
all.

    with watch(database):
        for author in await Author.objects.all():
            print(author.name, await author.books.count())

gives an `NPlusOneWarning` at the line of the loop that asks, with what to write instead; Python shows each line once,
and `-W error::covet_orm.nplusone.NPlusOneWarning` makes tests fail. Whoever listens to events gets an `NPlusOneFound`.

Counted is by task, and so by request: the same statement, or the same relation of one object after another, asked for
from one line more than `threshold` times. Nothing is counted, and nothing costs anything, while no database is watched.

In debug mode the plugin watches the databases of an application for its requests.
"""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from covet.context import current_request
from covet.events import Event, listener
from covet.requests import Request
from covet_orm.observing import caller

if TYPE_CHECKING:
    from covet_orm.databases import Database
    from covet_orm.queries.plans import Plan

__all__ = ["NPlusOneFound", "NPlusOneWarning", "asked", "watch"]

logger = logging.getLogger(__name__)

Place = tuple[str, int]
"""A file and a line of it."""

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
        requests_only: whether only that counts what is asked for a request.
    """

    def __init__(self, threshold: int, *, requests_only: bool = False) -> None:
        self.threshold = threshold
        self.requests_only = requests_only
        self._by_task: WeakKeyDictionary[asyncio.Task[Any], _Counts] = WeakKeyDictionary()

    def asked(self, model: Any, relation: str) -> None:
        """A relation of one object is asked for once more. It is told of with the statement that follows, if one does:
        that is what a watched database is asked."""
        frame = caller()
        counts = self._counts()
        if frame is not None and counts is not None:
            place = _place(frame)
            counts.relations[place] = (model, relation)
            counts.times[place, relation] = counts.times.get((place, relation), 0) + 1

    def count(self, plan: Plan) -> None:
        """Count a statement, and warn when it, or the relation that it is for, was asked for once too often."""
        frame = caller()
        counts = self._counts()
        if frame is None or counts is None:
            return
        place = _place(frame)
        of = counts.relations.get(place)
        if of is None:
            query, key, remedy = plan.name, plan.sql, _REMEDY
            counts.times[place, key] = counts.times.get((place, key), 0) + 1
        else:
            # Its remedy is the better one.
            model, key = of
            query, remedy = f"{model.__name__}.{key}", _remedy(model, key)
        times = counts.times[place, key]
        if times > self.threshold and (place, key) not in counts.told:
            counts.told.add((place, key))
            _tell(query, place, times, remedy, frame)

    def _counts(self) -> _Counts | None:
        """What this task asked; None where nothing counts."""
        task = asyncio.current_task()
        if task is None or (self.requests_only and not isinstance(current_request(), Request)):
            return None
        counts = self._by_task.get(task)
        if counts is None:
            counts = self._by_task[task] = _Counts()
        return counts


class _Counts:
    __slots__ = ("relations", "times", "told")

    def __init__(self) -> None:
        self.relations: dict[Place, tuple[Any, str]] = {}
        self.times: dict[tuple[Place, str], int] = {}
        self.told: set[tuple[Place, str]] = set()


@contextmanager
def watch(*databases: Database, threshold: int = 5, requests_only: bool = False) -> Iterator[None]:
    """Find N+1 queries in databases within the block, in every task.

    Args:
        databases: which ones.
        threshold: how often one line may ask the same in one task before it is told of.
        requests_only: whether only that counts what is asked for a request: a worker that looks for its next job again
            and again, or a WebSocket that asks at each message, is no loop over objects.
    """
    found = Watch(threshold, requests_only=requests_only)
    with ExitStack() as watched:
        for database in databases:
            watched.enter_context(_counted(database, found))
        watching.append(found)
        try:
            yield
        finally:
            watching.remove(found)


@contextmanager
def _counted(database: Database, found: Watch) -> Iterator[None]:
    unwatched = database.fetch_rows

    async def fetch_rows(plan: Plan, parameters: Sequence[Any]) -> list[Any]:
        found.count(plan)
        return await unwatched(plan, parameters)

    before = database.__dict__.get("fetch_rows")
    # In place of the method, so that a database that nobody watches does not look whether somebody does.
    database.fetch_rows = fetch_rows  # type: ignore[method-assign]
    try:
        yield
    finally:
        if before is None:
            del database.__dict__["fetch_rows"]
        else:
            database.fetch_rows = before  # type: ignore[method-assign]


def asked(model: Any, relation: str) -> None:
    """A relation of one object is asked for; called where somebody watches."""
    for one in watching:
        one.asked(model, relation)


def _place(frame: FrameType) -> Place:
    return frame.f_code.co_filename, frame.f_lineno


def _remedy(model: Any, relation: str) -> str:
    method = "prefetch_related" if model._meta.relations[relation].many else "select_related"
    return (
        f"add .{method}({relation!r}) to the query of {model.__name__}, or `await obj.fetch({relation!r})`, which "
        "loads it for every object of the same result"
    )


_REMEDY = (
    "ask once for all of them: filter(field__in=[...]) or in_bulk() in place of get(), select_related() or "
    "prefetch_related() for what belongs to an object, annotate() for a number of each"
)


def _tell(query: str, place: Place, times: int, remedy: str, frame: FrameType) -> None:
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
