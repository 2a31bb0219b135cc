"""What is otherwise in a database than the migrations say."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from tests.migrations.migrating import VERSIONS, run_steps
from tests.services.databases import ask
from tests.services.mariadb import MariaDB
from tests.services.postgresql import PostgreSQL

import covet_orm as orm
from covet_migrate.ddl import steps_of
from covet_migrate.exceptions import MigrationError
from covet_migrate.inspection import shadow
from covet_migrate.inspection.drift import find_drift
from covet_migrate.inspection.schema import read_schema
from covet_migrate.inspection.shadow import shadow_of_state
from covet_migrate.state.from_models import state_of
from covet_migrate.state.models import State
from covet_orm import Database, DatabaseError, F, Q

pytestmark = pytest.mark.anyio
registry = orm.Registry()


class Author(orm.Model):
    name = orm.CharField[str](max_length=40)

    class Meta:
        registry = registry
        app_label = "shelf"


class Book(orm.Model):
    title = orm.CharField[str](max_length=100, db_default="none")
    pages = orm.PositiveIntegerField[int | None](null=True)
    double = orm.GeneratedField(F("pages") * 2, orm.IntegerField[int]())
    author = orm.ForeignKey[Author](Author)
    tags = orm.ManyToManyField(Author, related_name="+")

    class Meta:
        registry = registry
        app_label = "shelf"
        indexes = [orm.Index("-pages", "title")]
        constraints = [orm.CheckConstraint(Q(pages__lt=9) | Q(title="long"), name="thin")]


STATE = state_of(registry)


async def test_what_was_just_made_has_not_drifted(url: str) -> None:
    async with Database(url) as database:
        await database.create_all(registry)
        before = await read_schema(database)
        drift = await find_drift(database, STATE)
        assert not drift
        assert (drift.told(), drift.unknown, drift.actions) == ([], [], [])
        assert await read_schema(database) == before


async def test_what_was_changed_by_hand_is_told_and_mended(url: str) -> None:
    async with Database(url) as database:
        await database.create_all(registry)
        kind = database.kind
        if kind != "mariadb":
            await database.script("DROP INDEX shelf_book_author_id_idx")
        await database.script("ALTER TABLE shelf_author ADD COLUMN born integer")
        await database.script("CREATE INDEX by_hand ON shelf_author (name)")
        await database.script("DROP TABLE shelf_book_tags")
        await database.script("CREATE TABLE stranger (a integer)")
        if kind != "sqlite":
            change = (
                "ALTER COLUMN title TYPE varchar(50)"
                if kind == "postgresql"
                else "MODIFY title varchar(50) NOT NULL DEFAULT 'none'"
            )
            await database.script(f"ALTER TABLE shelf_book {change}")
            await database.script("ALTER TABLE shelf_book DROP CONSTRAINT thin")
        drift = await find_drift(database, STATE)
        told = "\n".join(drift.told())
        assert drift
        assert "column shelf_author.born: in the database, and not in the migrations" in told
        assert "index by_hand of shelf_author: in the database, and not in the migrations: (name)" in told
        assert "table shelf_book_tags: missing in the database" in told
        if kind != "sqlite":
            types = (
                ["varchar(50)", "varchar(100)"]
                if kind == "mariadb"
                else ["character varying(50)", "character varying(100)"]
            )
            assert f"column shelf_book.title: {types[0]} in the database, {types[1]} in the migrations" in told
            assert "check thin of shelf_book: missing in the database" in told
        assert drift.unknown == ["table stranger"]
        assert not drift.by_hand
        async with database.connection() as connection:
            await run_steps(connection, kind, steps_of(drift.actions, kind, VERSIONS[kind]))
        assert not (await find_drift(database, STATE)).told()
        # What nobody knows stays.
        assert "stranger" in (await read_schema(database)).tables


async def test_another_name_is_told_as_such(url: str) -> None:
    async with Database(url) as database:
        await database.create_all(registry)
        kind = database.kind
        if kind == "sqlite":
            await database.script("DROP INDEX shelf_book_author_id_idx")
            await database.script("CREATE INDEX old_name ON shelf_book (author_id)")
        elif kind == "postgresql":
            await database.script("ALTER INDEX shelf_book_author_id_idx RENAME TO old_name")
        else:
            await database.script("ALTER TABLE shelf_book RENAME INDEX shelf_book_author_id_idx TO old_name")
        drift = await find_drift(database, STATE)
        assert drift.told() == [
            "index shelf_book_author_id_idx of shelf_book: called old_name in the database, shelf_book_author_id_idx "
            "in the migrations"
        ]
        async with database.connection() as connection:
            await run_steps(connection, kind, steps_of(drift.actions, kind, VERSIONS[kind]))
        assert not await find_drift(database, STATE)


async def test_one_application_alone_can_be_compared(url: str) -> None:
    async with Database(url) as database:
        assert (await find_drift(database, STATE, only=["other"])).told() == []
        assert len((await find_drift(database, STATE, only=["shelf"])).told()) == 3


async def test_models_that_are_not_managed_or_live_elsewhere_are_left_out(url: str) -> None:
    author, book = STATE["shelf.Author"], STATE["shelf.Book"]
    async with Database(url) as database:
        found = await shadow_of_state(database, STATE.put(author.with_options(managed=False)))
        assert set(found.tables) == {"shelf_book", "shelf_book_tags"}
        alone = State().put(author).put(book.with_options(database="archive"))
        assert set((await shadow_of_state(database, alone)).tables) == {"shelf_author"}


async def test_nothing_is_left_behind_wherever_it_is_cancelled(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Database(url) as database:
        before = await read_schema(database)
        described: Any = shadow._described
        for at in range(1, 7):
            with anyio.CancelScope() as scope:

                async def cancelled(
                    connection: Any, *args: Any, at: int = at, scope: anyio.CancelScope = scope, **options: Any
                ) -> Any:
                    return await described(_Cancelling(connection, at, scope), *args, **options)

                monkeypatch.setattr(shadow, "_described", cancelled)
                await shadow_of_state(database, STATE)
            assert scope.cancelled_caught
            assert await read_schema(database) == before
        if database.kind == "mariadb":
            assert not await _shadows(url)
        if database.kind == "postgresql":
            assert not await ask(url, "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'covet\\_%'")


class _Cancelling:
    """A connection in which one of the statements is cancelled."""

    def __init__(self, connection: Any, at: int, scope: anyio.CancelScope) -> None:
        self._connection = connection
        self._left = at
        self._scope = scope

    async def script(self, sql: str) -> None:
        self._left -= 1
        if self._left == 0:
            self._scope.cancel()
        await self._connection.script(sql)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


async def _shadows(url: str) -> list[Any]:
    names = "SELECT schema_name FROM information_schema.schemata"
    return await ask(url, f"{names} WHERE left(schema_name, 13) = 'covet_shadow_'")


async def test_what_a_killed_process_left_is_dropped_by_the_next(mariadb: MariaDB) -> None:
    url = mariadb.empty_database("killed")
    await ask(url, "CREATE DATABASE covet_shadow_0123456789abcdef")
    async with Database(url) as database:
        # Another one is under way: its database is not touched.
        other = await database.connect()
        await other.fetch("SELECT GET_LOCK('covet_shadow_fedcba9876543210', 0)")
        await ask(url, "CREATE DATABASE covet_shadow_fedcba9876543210")
        await shadow_of_state(database, STATE)
        assert await _shadows(url) == [("covet_shadow_fedcba9876543210",)]
        await other.close()
        await shadow_of_state(database, STATE)
        assert not await _shadows(url)


async def test_a_statement_that_fails_leaves_nothing_behind(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: Any = shadow.statements
    monkeypatch.setattr(shadow, "statements", lambda *args, **options: [*made(*args, **options), "CREATE NONSENSE"])
    async with Database(url) as database:
        with pytest.raises(DatabaseError):
            await shadow_of_state(database, STATE)
        assert not (await read_schema(database)).tables
        if database.kind == "mariadb":
            assert not await _shadows(url)


async def test_a_user_who_may_not_is_told_what_to_grant(postgresql: PostgreSQL) -> None:
    url = postgresql.empty_database("grants")
    await ask(url, "DROP ROLE IF EXISTS reader", "CREATE ROLE reader LOGIN PASSWORD 'secret'")
    async with Database(postgresql.url("grants", user="reader")) as database:
        with pytest.raises(MigrationError, match="GRANT CREATE ON DATABASE"):
            await find_drift(database, STATE)


async def test_a_user_of_mariadb_who_may_not_is_told_what_to_grant(mariadb: MariaDB) -> None:
    url = mariadb.empty_database("grants")
    await ask(
        url, "CREATE USER IF NOT EXISTS 'reader'@'%' IDENTIFIED BY 'secret'", "GRANT ALL ON `grants`.* TO 'reader'@'%'"
    )
    user = url.split("//")[1].split("@")[0]
    async with Database(url.replace(user, "reader:secret")) as database:
        with pytest.raises(MigrationError, match="GRANT ALL ON `covet"):
            await find_drift(database, STATE)
