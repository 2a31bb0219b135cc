"""Which databases a command is about: those of the application, opened one at a time and without starting it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

import click

from covet.cli.reporting import Failure, aside
from covet.cli.targets import load_application

if TYPE_CHECKING:
    from covet_orm.databases import Database
    from covet_orm.routers import Router

__all__ = ["alias_argument", "app_option", "databases_and_routers", "databases_of", "one_database", "opened", "run"]

T = TypeVar("T")

app_option = click.option("--app", "target", metavar="MODULE:NAME", help="The application; `[app] target` by default.")
"""Which application: its settings name the databases, and its modules the models."""

alias_argument = click.argument("alias", required=False, metavar="[ALIAS]")
"""Which database; all of them, or the default one, where it is left out."""


def databases_of(target: str | None, alias: str | None = None) -> list[Database]:
    """The databases of an application, or the one of an alias.

    Raises:
        Failure: the application cannot be loaded, or has no such database.
    """
    return databases_and_routers(target, alias)[0]


def databases_and_routers(target: str | None, alias: str | None = None) -> tuple[list[Database], tuple[Router, ...]]:
    """The databases of an application, or the one of an alias, and the routers that say which models live there.

    Raises:
        Failure: as for `databases_of`.
    """
    from covet_orm.databases import Database
    from covet_orm.routers import Routers

    with aside():
        app = load_application(target)
    routers = app.state.get(Routers)
    found = {name: storage for name, storage in app.storage.items() if isinstance(storage, Database)}
    if not found:
        raise Failure(
            "the application has no database\n"
            '  Name one in covet.toml: `url = "sqlite:///app.db"` under [storage.default], or postgresql://, mariadb://.'
        )
    if alias is not None and alias not in found:
        raise Failure(f"no database is called {alias!r}\n  There are: {', '.join(found)}.")
    chosen = list(found.values()) if alias is None else [found[alias]]
    return chosen, () if routers is None else routers.routers


def one_database(target: str | None, alias: str | None) -> Database:
    """The database of an alias; without one the default, or the only one.

    Raises:
        Failure: as for `databases_of`; or there are several, and none is the default.
    """
    found = databases_of(target, alias)
    for database in found:
        if len(found) == 1 or database.alias == "default":
            return database
    names = ", ".join(database.alias for database in found)
    raise Failure(f"there are several databases, and none is the default\n  Say which: {names}.")


@asynccontextmanager
async def opened(database: Database) -> AsyncIterator[None]:
    """A database, open for a while. A file that is not there is not made.

    Raises:
        DatabaseUnavailable: it cannot be reached, or is not there.
    """
    from covet_orm.exceptions import DatabaseUnavailable
    from covet_orm.provisioning import UNKNOWN, database_exists

    if database.kind == "sqlite" and not await database_exists(database):
        raise DatabaseUnavailable(f"{database._target.where} is not there", code=UNKNOWN[0])
    try:
        await database.open()
        await database.check()
        yield
    finally:
        await database.close()


def run(work: Callable[[], Coroutine[Any, Any, T]], routers: Sequence[Router] = ()) -> T:
    """Run something in an event loop, with errors of the database as messages.

    Args:
        work: makes what is run.
        routers: those of the application, where it matters which models live in a database.

    Raises:
        Failure: a database could not do what it was asked.
    """
    import asyncio

    from covet_orm.exceptions import OrmError
    from covet_orm.routers import routing

    try:
        with routing(*routers) if routers else nullcontext():
            return asyncio.run(work())
    except OrmError as error:
        raise Failure(f"{error}{_next_step(error)}") from error


def _next_step(error: Exception) -> str:
    from covet_orm.exceptions import DatabaseUnavailable
    from covet_orm.provisioning import UNKNOWN

    if not isinstance(error, DatabaseUnavailable):
        return ""
    if error.code in UNKNOWN:
        return "\n  `covet db create` creates it, with its tables; where migrations make these, add --no-tables."
    return "\n  Is the server running, and the URL right? `covet config show` shows it; `covet db check` says more."
