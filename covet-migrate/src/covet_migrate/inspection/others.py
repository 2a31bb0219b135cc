"""What other tools recorded of their migrations in a database: where to begin from when one comes from them.

Django has a row for each migration in `django_migrations`, Tortoise in `tortoise_migrations`, aerich in `aerich`;
Alembic has the newest revision (of each branch) in `alembic_version`. Their files are not read and not needed: the
first migration here is made of the models, and `migrate --fake-initial` takes it for done where the tables are as it
would make them.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Literal

from covet_orm import Database
from covet_orm.schema import table_names

__all__ = ["Recorded", "recorded_by_others"]


@dataclass(frozen=True, slots=True)
class Recorded:
    """A migration that another tool recorded.

    Attributes:
        tool: `django`, `alembic`, `tortoise` or `aerich`.
        app: the label of the application; empty for Alembic, which knows none.
        name: the name of the migration, or the revision.
        when: when it was applied, in UTC; None where the tool does not tell.
    """

    tool: Literal["django", "alembic", "tortoise", "aerich"]
    app: str
    name: str
    when: dt.datetime | None = None

    def __str__(self) -> str:
        told = f"{self.app}.{self.name}" if self.app else self.name
        return f"{told} (by {self.tool}{f', {self.when:%Y-%m-%d %H:%M}' if self.when else ''})"


async def recorded_by_others(database: Database) -> list[Recorded]:
    """The migrations that Django, Alembic, Tortoise or aerich recorded in a database, each tool's in the order in which
    they were applied; none where there are no tables of theirs.

    Args:
        database: the database.

    Raises:
        DatabaseError: the database cannot be asked, or a table of that name is another one.
    """
    await database.open()
    tables = await table_names(database)
    found: list[Recorded] = []
    if "django_migrations" in tables:
        rows = (await database.query("SELECT app, name, applied FROM django_migrations ORDER BY id")).rows
        found += [Recorded("django", str(app), str(name), _moment(applied)) for app, name, applied in rows]
    if "alembic_version" in tables:
        rows = (await database.query("SELECT version_num FROM alembic_version ORDER BY version_num")).rows
        found += [Recorded("alembic", "", str(row[0])) for row in rows]
    if "tortoise_migrations" in tables:
        rows = (await database.query("SELECT app, name, applied_at FROM tortoise_migrations ORDER BY id")).rows
        found += [Recorded("tortoise", str(app), str(name), _moment(applied)) for app, name, applied in rows]
    if "aerich" in tables:
        rows = (await database.query("SELECT app, version FROM aerich ORDER BY id")).rows
        found += [Recorded("aerich", str(app), str(name).removesuffix(".py")) for app, name in rows]
    return found


def _moment(applied: object) -> dt.datetime | None:
    """A time as the database gives it: text on SQLite, without a zone on MySQL; Django writes it in UTC."""
    if isinstance(applied, str):
        try:
            applied = dt.datetime.fromisoformat(applied)
        except ValueError:
            return None
    if not isinstance(applied, dt.datetime):
        return None
    return applied.replace(tzinfo=dt.UTC) if applied.tzinfo is None else applied.astimezone(dt.UTC)
