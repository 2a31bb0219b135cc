"""What Django, Alembic, Tortoise and aerich recorded."""

from __future__ import annotations

import datetime as dt

import pytest

from covet_migrate.inspection.others import Recorded, recorded_by_others
from covet_orm import Database

pytestmark = pytest.mark.anyio


async def test_what_others_recorded_is_read(url: str) -> None:
    async with Database(url) as database:
        assert await recorded_by_others(database) == []
        kind = {"postgresql": "timestamptz", "mariadb": "datetime(6)"}.get(database.kind, "datetime")
        zone = "+00:00" if database.kind == "postgresql" else ""
        await database.script(
            "CREATE TABLE django_migrations (id integer PRIMARY KEY, app varchar(255), name varchar(255), "
            f"applied {kind})"
        )
        await database.script("CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
        await database.script(
            f"INSERT INTO django_migrations VALUES (2, 'blog', '0002_x', '2024-05-02 10:00:00{zone}')"
        )
        await database.script(
            f"INSERT INTO django_migrations VALUES (1, 'blog', '0001_initial', '2024-05-01 10:00:00{zone}')"
        )
        await database.script("INSERT INTO alembic_version VALUES ('27c6a30d7c24')")
        await database.script(
            "CREATE TABLE tortoise_migrations (id integer PRIMARY KEY, app varchar(255), name varchar(255), "
            f"applied_at {kind})"
        )
        await database.script(
            f"INSERT INTO tortoise_migrations VALUES (1, 'shop', '0001_initial', '2026-05-01 10:00:00{zone}')"
        )
        await database.script("CREATE TABLE aerich (id integer PRIMARY KEY, version varchar(255), app varchar(100))")
        await database.script("INSERT INTO aerich VALUES (1, '1_20240501_update.py', 'models')")
        found = await recorded_by_others(database)
        assert found == [
            Recorded("django", "blog", "0001_initial", dt.datetime(2024, 5, 1, 10, tzinfo=dt.UTC)),
            Recorded("django", "blog", "0002_x", dt.datetime(2024, 5, 2, 10, tzinfo=dt.UTC)),
            Recorded("alembic", "", "27c6a30d7c24"),
            Recorded("tortoise", "shop", "0001_initial", dt.datetime(2026, 5, 1, 10, tzinfo=dt.UTC)),
            Recorded("aerich", "models", "1_20240501_update"),
        ]
        assert str(found[0]) == "blog.0001_initial (by django, 2024-05-01 10:00)"
        assert str(found[2]) == "27c6a30d7c24 (by alembic)"
