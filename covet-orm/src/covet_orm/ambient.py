"""Which database a model asks: the one around the caller, the application's, or the only one that is open."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakSet

from covet.context import current_app
from covet.exceptions import NoApplicationError
from covet_orm.exceptions import OrmError

if TYPE_CHECKING:
    from covet_orm.databases import Database, Lane
    from covet_orm.models.instances import Model
    from covet_orm.queries.querysets import QuerySet
    from covet_orm.routers import Beside

__all__ = [
    "NoDatabase",
    "StandIn",
    "database_for",
    "find_database",
    "home_of",
    "opened",
    "routed",
    "scoped",
    "stand_ins",
]

scoped: ContextVar[Mapping[str, Database]] = ContextVar("covet_orm.databases")
"""The databases of the `async with` blocks around this code, by alias."""

opened: WeakSet[Database] = WeakSet()
"""The databases of this process that are open."""

stand_ins: list[StandIn] = []
"""The databases that stand in for others, the latest last; tests have one, to have everything in one transaction."""

routed = False
"""Whether anybody in this process has had routers: all that queries look at who have none."""


class NoDatabase(OrmError):  # noqa: N818 - it tells what there is not
    """There is no database to ask, or several and nothing that says which. The message says what to add."""


class StandIn(NamedTuple):
    """A database that stands in for others.

    Attributes:
        database: the one that serves models outside of applications.
        lane_for: gives the pools of another database in place of its own, None where it has its own.
    """

    database: Database
    lane_for: Callable[[Database], Lane | None]


def database_for(model: type[Model], using: str | Database | Beside | None = None, *, writes: bool = False) -> Database:
    """The database that serves a model: the one that is named, that of the routers, of the model, or the default.

    Args:
        model: the model.
        using: the one that is named; or the object that what is asked for belongs to.
        writes: whether it is for a write, which routers may send elsewhere.

    Raises:
        NoDatabase: there is none.
    """
    if routed and (using is None or isinstance(using, tuple)):
        from covet_orm.routers import route

        return route(model, using, writes=writes)
    if using is not None and not isinstance(using, str):
        return using  # type: ignore[return-value]  # a Beside is only there where somebody has routers
    try:
        return find_database(using or model._meta.database)
    except NoDatabase:
        if using != "primary":
            raise
        return find_database(model._meta.database).primary()


def home_of(query: QuerySet[Any], read: Database) -> Database:
    """The database that the objects of a query belong to: the one that it reads, unless routers write them elsewhere.

    Raises:
        QueryError: that is of another kind, where objects could not be saved.
    """
    if not routed:
        return read
    from covet_orm.routers import home

    return home(query, read)


def find_database(alias: str | None = None) -> Database:
    """A database by alias; without one the `default`, or the only one.

    The databases of the `async with` blocks around the caller go first, then those of the ambient application, then
    those that are open in this process.

    Raises:
        NoDatabase: there is none of that alias, or several and none is the default.
    """
    name = alias or "default"
    around = scoped.get({})
    if name in around:
        return around[name]
    if alias is None and len(around) == 1:
        return next(iter(around.values()))
    found = _of_application(alias)
    if found is not None:
        return found
    for stand_in in reversed(stand_ins):
        if stand_in.database.alias == name:
            return stand_in.database
    there = [database for database in opened if alias is None or database.alias == alias]
    preferred = [database for database in there if database.alias == name]
    if len(there) == 1 or len(preferred) == 1:
        return (preferred or there)[0]
    known = ", ".join(sorted({*around, *(database.alias for database in opened)})) or "none"
    raise NoDatabase(
        f"no database {alias!r} is open (open are: {known})" if alias else
        f"there is no database to ask (open are: {known}); add [storage.default] to the settings and run inside of the "
        "application, or write `async with Database(url)`, or say which with using(...)"
    )  # fmt: skip


def _of_application(alias: str | None) -> Database | None:
    from covet_orm.databases import Database

    try:
        storages = current_app().storage
    except NoApplicationError:
        return None
    databases = {name: storage for name, storage in storages.items() if isinstance(storage, Database)}
    if alias is None and len(databases) == 1:
        return next(iter(databases.values()))
    return databases.get(alias or "default")
