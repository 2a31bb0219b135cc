"""What the actions of a migration become for one database: statements, without asking the database anything."""

from __future__ import annotations

from collections.abc import Iterable

from covet_migrate.actions.actions import Action, Online
from covet_migrate.ddl.base import DDL, Version
from covet_migrate.ddl.mysql import MySQL
from covet_migrate.ddl.postgresql import PostgreSQL
from covet_migrate.ddl.sqlite import SQLite
from covet_migrate.exceptions import MigrationError
from covet_migrate.steps import Step

__all__ = ["DDL", "DIALECTS", "LATEST", "Version", "steps_of"]

DIALECTS: dict[str, type[DDL]] = {"postgresql": PostgreSQL, "mysql": MySQL, "mariadb": MySQL, "sqlite": SQLite}
"""Who makes the statements for each kind of database."""

LATEST: dict[str, Version] = {"postgresql": (18,), "mysql": (9, 0), "mariadb": (11, 4), "sqlite": (3, 45)}
"""The versions that are taken where nobody says one, as there is no server to ask."""


def steps_of(actions: Iterable[Action | Step], kind: str, version: Version | None = None) -> list[Step]:
    """What is done in a database, one after the other.

    Args:
        actions: those of one operation; a step among them stays where it is.
        kind: `postgresql`, `mysql`, `mariadb` or `sqlite`.
        version: of the server, such as `(15, 4)`; one of now by default.

    Raises:
        MigrationError: there is no such database, or it cannot do an action.
    """
    if kind not in DIALECTS:
        raise MigrationError(f"no database is called {kind!r}; there are {', '.join(DIALECTS)}")
    dialect = DIALECTS[kind](kind, version or LATEST[kind])
    given = list(actions)
    if not any(isinstance(one, Online) for one in given):
        return dialect.steps(given)
    from covet_migrate.ddl.online import online_steps

    found: list[Step] = []
    waiting: list[Action | Step] = []
    for one in given:
        if isinstance(one, Online):
            found += [*dialect.steps(waiting), *online_steps(one, dialect)]
            waiting = []
        else:
            waiting.append(one)
    return [*found, *dialect.steps(waiting)]
