"""What commands are about: the application's models, the files of their migrations, and a database."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from covet.cli.reporting import Failure, aside
from covet.cli.targets import load_application
from covet.settings_schema import nearest
from covet_orm.commands.chosen import app_option, one_database, opened, run

if TYPE_CHECKING:
    from covet.applications import Covet
    from covet_migrate.files.loader import Files
    from covet_migrate.files.locations import Location
    from covet_migrate.state.models import State
    from covet_orm import Database, Registry

__all__ = ["Project", "app_option", "database_option", "failures", "load_project", "with_database"]

P = ParamSpec("P")
T = TypeVar("T")

database_option = click.option("--database", "alias", metavar="ALIAS", help="Which database; the default one, if not.")


@dataclass(frozen=True)
class Project:
    """An application, seen by those who migrate it.

    Attributes:
        app: the application.
        registry: its models.
        locations: where the migrations of each application are, or would be.
        files: the migrations that are there.
    """

    app: Covet
    registry: Registry
    locations: dict[str, Location]
    files: Files

    def state(self) -> State:
        """The state that the models are in."""
        from covet_migrate.state.from_models import state_of

        return state_of(self.registry)

    def check_apps(self, apps: Sequence[str]) -> None:
        """Return when there are applications of these labels.

        Raises:
            Failure: there is none of one.
        """
        for app in apps:
            if app not in self.locations:
                there = ", ".join(self.locations) or "none: the application imports no models"
                raise Failure(f"no application is called {app!r}{nearest(app, self.locations)}\n  There are: {there}.")


@contextmanager
def failures() -> Iterator[None]:
    """Make errors of migrations messages.

    Raises:
        Failure: for any of them.
    """
    from covet_migrate.exceptions import MigrationError
    from covet_orm.exceptions import OrmError

    try:
        yield
    except (MigrationError, OrmError) as error:
        raise Failure(str(error)) from error


def told(function: Callable[P, T]) -> Callable[P, T]:
    """Make errors of migrations, wherever a command raises them, messages."""

    @wraps(function)
    def telling(*args: P.args, **kwargs: P.kwargs) -> T:
        with failures():
            return function(*args, **kwargs)

    return telling


@told
def load_project(target: str | None) -> Project:
    """Import the application with its models, and load the migrations.

    Raises:
        Failure: one of these cannot be loaded.
    """
    from covet_migrate.collection import set_apart, without_collection
    from covet_migrate.files.loader import load_files
    from covet_migrate.files.locations import locations_of
    from covet_migrate.settings import MigrateSettings
    from covet_orm.models.registry import registry

    with without_collection():
        with aside():
            app = load_application(target)
        models = [model for model in registry if model._meta.link_of is None and not model._meta.proxy]
        locations = locations_of(models, app.settings[MigrateSettings].modules)
        project = Project(app, registry, locations, load_files(locations))
        set_apart()
    return project


def with_database(
    target: str | None,
    alias: str | None,
    work: Callable[[Database], Coroutine[Any, Any, T]],
    *,
    makes_file: bool = False,
) -> T:
    """Run something with a database of the application, open for a while; its errors become messages.

    Args:
        target: the application.
        alias: of the database.
        work: what is run.
        makes_file: whether the file of an SQLite database is made where it is not there.

    Raises:
        Failure: there is no such database, it cannot be reached, or what is run fails.
    """
    from covet_orm.exceptions import DatabaseUnavailable
    from covet_orm.provisioning import UNKNOWN

    database = one_database(target, alias)

    async def within() -> T:
        if makes_file and database.kind == "sqlite":
            from covet_orm.provisioning import create_database

            await create_database(database)
        try:
            async with opened(database):
                return await work(database)
        except DatabaseUnavailable as error:
            if error.code not in UNKNOWN:
                raise
            if database.kind == "sqlite":
                raise Failure(f"{error}\n  `covet migrate` makes it, with its tables.") from error
            raise Failure(
                f"{error}\n  `covet db create --no-tables` creates it; `covet migrate` makes the tables."
            ) from error

    with failures():
        return run(within)
