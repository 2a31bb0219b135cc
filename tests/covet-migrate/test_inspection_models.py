"""Models of what is there make the same schema again."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import pytest
from hypothesis import HealthCheck, given, settings
from tests.migrations.model_states import APP, states
from tests.proofs.migrate_inspect import check_makemigrations, registry_of
from tests.services.databases import Databases, ask
from tests.services.mariadb import MariaDB
from tests.services.postgresql import PostgreSQL

import covet_orm as orm
from covet_migrate.execution.history import History
from covet_migrate.execution.journal import Journal
from covet_migrate.inspection.comparing import compare_schemas
from covet_migrate.inspection.drift import find_drift
from covet_migrate.inspection.models import inspected_models
from covet_migrate.inspection.naming import class_name, field_name
from covet_migrate.inspection.own_tables import own_tables
from covet_migrate.inspection.schema import read_schema
from covet_migrate.inspection.shadow import shadow_of_state, shadow_of_tables
from covet_migrate.inspection.source import models_source
from covet_migrate.state.from_models import state_of
from covet_migrate.state.models import ModelState, State
from covet_orm import Database
from covet_orm.cache import DatabaseCache
from covet_orm.outbox.tables import OutboxTable
from covet_orm.replicas.servers import PostgreSQLReplication
from covet_orm.sessions import DatabaseSessionStore
from covet_orm.transactions.confirming import prepare
from covet_orm.transactions.distributed.decisions import DecisionLog

EXAMPLES = {"sqlite": 60, "postgresql-15": 15, "postgresql-18": 15, "mariadb": 15}


async def round_trip(database: Database, state: State) -> None:
    """Create, inspect, write, run, create again: the schema is the same, and the source as well.

    The short form of a proof, which makes real databases (`nox -s proof -- migrate_inspect`).
    """
    there = await shadow_of_state(database, state)
    inspected = inspected_models(there, app=APP)
    source = models_source(inspected, base="Base")
    registry = registry_of(source)
    again = await shadow_of_tables(database, registry.tables())
    differences = compare_schemas(there, again)
    assert not differences, "\n".join([*map(str, differences), source])
    assert not inspected.notes, source
    assert models_source(inspected_models(again, app=APP), base="Base") == source
    check_makemigrations(inspected.state, state_of(registry))


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_is_inspected_makes_the_same_schema(name: str, databases: Databases) -> None:
    server = databases.get(name)
    url = server.empty_database("inspected")
    with asyncio.Runner() as runner:
        database = Database(url)
        try:

            @settings(
                max_examples=EXAMPLES[name], deadline=None, suppress_health_check=list(HealthCheck), database=None
            )
            @given(states(server.kind))
            def check(state: State) -> None:
                runner.run(round_trip(database, state))

            check()
        finally:
            runner.run(database.close())


FOUND: dict[str, ModelState] = {
    # The index of a key, which the key does not declare, was taken for one that its field declares.
    "an index of the key": ModelState(
        APP, "User", {"number": orm.SmallAutoField[int](db_column="Nr")}, {"indexes": [orm.Index("number")]}
    ),
    "a name in quotes": ModelState(
        APP,
        "A",
        {"code": orm.CharField[str](max_length=20, primary_key=True)},
        {"db_table": 'quo"ted', "indexes": [orm.Index("-code")]},
    ),
}
"""What the property above found, each as small as it became."""


@pytest.mark.anyio
@pytest.mark.parametrize("found", FOUND.values(), ids=FOUND)
async def test_what_was_found_once_is_right(url: str, found: ModelState) -> None:
    async with Database(url) as database:
        await round_trip(database, State().put(found))


async def sources(url: str, *statements: str, **options: Any) -> tuple[str, list[str]]:
    """What is written of tables that somebody else made, and what is noted."""
    async with Database(url) as database:
        for statement in statements:
            await database.script(statement)
        inspected = inspected_models(await read_schema(database), **options)
        return models_source(inspected), [str(note) for note in inspected.notes]


@pytest.mark.anyio
async def test_the_source_is_as_people_write_it(postgresql: PostgreSQL) -> None:
    source, notes = await sources(
        postgresql.empty_database("legacy"),
        "CREATE TABLE blog_author (id bigserial CONSTRAINT blog_author_pkey PRIMARY KEY, name varchar(40) NOT NULL)",
        'CREATE TABLE blog_post (id bigserial CONSTRAINT blog_post_pkey PRIMARY KEY, "Class" text, mood money, '
        "author_id bigint NOT NULL CONSTRAINT blog_post_author_id_fk REFERENCES blog_author ON DELETE SET NULL, "
        "editor bigint CONSTRAINT blog_post_editor_fk REFERENCES blog_author ON DELETE SET NULL ON UPDATE CASCADE, "
        'CONSTRAINT odd CHECK (length("Class") <> 3))',
        "CREATE TABLE log (at timestamptz, line text NOT NULL)",
        app="blog",
    )
    assert notes == [
        "blog.Log: the table has no primary key, and a model needs one: its fields are taken for it, and no table made",
        "blog.Post.mood: its type is money, and TextField makes another one",
        "blog.Post.author: on delete SET NULL can only fail, and is left to the database's check",
        "blog.Post.editor: on update CASCADE is left out",
    ]
    assert (
        source
        == '''"""Models of the tables that are there."""

from __future__ import annotations

import covet_orm as orm


class Author(orm.Model):
    name = orm.CharField(max_length=40)


class Log(orm.Model):
    # the table has no primary key, and a model needs one: its fields are taken for it, and no table made
    at = orm.DateTimeField(primary_key=True)
    line = orm.TextField(primary_key=True)

    class Meta:
        db_table = "log"
        managed = False


class Post(orm.Model):
    class_field = orm.TextField(db_column="Class", null=True)
    # its type is money, and TextField makes another one
    mood = orm.TextField(null=True)
    # on delete SET NULL can only fail, and is left to the database's check
    author = orm.ForeignKey("Author", on_delete=orm.DO_NOTHING, db_index=False)
    # on update CASCADE is left out
    editor = orm.ForeignKey(
        "Author",
        null=True,
        db_column="editor",
        on_delete=orm.SET_NULL,
        related_name="post_editor_set",
        db_index=False,
    )

    class Meta:
        constraints = [orm.CheckConstraint(orm.RawSQL('length("Class") <> 3'), name="odd")]
'''
    )


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("CREATE INDEX odd ON one (a NULLS FIRST)", "the index 'odd' has NULL first, and would have it in its usual"),
        ('CREATE INDEX odd ON one (t COLLATE "C")', "the index 'odd' has the collation C, which is left out"),
        (
            "CREATE INDEX odd ON one (a, lower(t) text_pattern_ops)",
            "the index 'odd' has the operator class text_pattern_ops, which is left out",
        ),
        (
            "CREATE UNIQUE INDEX odd ON one (a) NULLS NOT DISTINCT",
            "the unique index 'odd' would be a unique constraint",
        ),
        (
            "ALTER TABLE one ADD CONSTRAINT odd UNIQUE (a) INCLUDE (t)",
            "the unique constraint 'odd' would be a unique index, as it includes columns",
        ),
        (
            "ALTER TABLE one ADD CONSTRAINT odd CHECK (a > 0) NOT VALID",
            "rows that were there before the check 'odd' were not checked",
        ),
    ],
)
async def test_what_postgresql_has_and_no_index_of_a_model_is_noted(
    postgresql: PostgreSQL, statement: str, told: str
) -> None:
    table = "CREATE TABLE one (id bigserial PRIMARY KEY, a integer, t text)"
    source, notes = await sources(postgresql.empty_database("legacy"), table, statement)
    assert any(told in note for note in notes), notes
    compile(source, "models.py", "exec")


@pytest.mark.anyio
async def test_an_index_that_failed_is_noted(postgresql: PostgreSQL) -> None:
    url = postgresql.empty_database("legacy")
    await ask(url, "CREATE TABLE one (id bigserial PRIMARY KEY, a integer)", "INSERT INTO one (a) VALUES (1), (1)")
    with pytest.raises(asyncpg.UniqueViolationError):
        await ask(url, "CREATE UNIQUE INDEX CONCURRENTLY odd ON one (a)")
    _, notes = await sources(url)
    assert any("the index 'odd' is not valid: its creation failed" in note for note in notes), notes


@pytest.mark.anyio
async def test_what_mariadb_has_and_no_index_of_a_model_is_noted(mariadb: MariaDB) -> None:
    _, notes = await sources(
        mariadb.empty_database("legacy"),
        "CREATE TABLE one (id bigint AUTO_INCREMENT PRIMARY KEY, t text, INDEX odd (t(10)), FULLTEXT INDEX words (t))",
    )
    assert any("the index 'odd' is of the beginning of 't', and would be of all of it" in note for note in notes), notes
    assert any("the fulltext index 'words' is left out" in note for note in notes), notes


@pytest.mark.anyio
async def test_what_no_model_can_say_is_noted(url: str) -> None:
    source, notes = await sources(
        url,
        "CREATE TABLE one (a integer NOT NULL, b integer NOT NULL, c varchar(9) DEFAULT 'x', PRIMARY KEY (a, b))",
        "CREATE TABLE two (id integer NOT NULL PRIMARY KEY, a integer, b integer, "
        "CONSTRAINT pair FOREIGN KEY (a, b) REFERENCES one (a, b))",
        app="legacy",
    )
    left_out = "legacy.Two: the foreign key 'pair' of (a, b) to one (a, b) is left out"
    assert any(note.startswith(left_out) for note in notes)
    assert "a = orm.IntegerField(primary_key=True)" in source
    assert "# the foreign key 'pair'" in source
    compile(source, "models.py", "exec")


@pytest.mark.anyio
async def test_some_tables_come_with_what_they_refer_to(url: str) -> None:
    source, _ = await sources(
        url,
        "CREATE TABLE a (id integer NOT NULL PRIMARY KEY)",
        "CREATE TABLE b (id integer NOT NULL PRIMARY KEY, a_id integer, FOREIGN KEY (a_id) REFERENCES a (id))",
        "CREATE TABLE c (id integer NOT NULL PRIMARY KEY)",
        "CREATE TABLE covet_migrations (id integer NOT NULL PRIMARY KEY)",
        only=["b"],
    )
    assert [line for line in source.splitlines() if line.startswith("class")] == [
        "class A(orm.Model):",
        "class B(orm.Model):",
    ]


async def make_own_tables(database: Database) -> None:
    """What Covet makes in a database by itself."""
    async with database.connection() as connection:
        await History(database).ensure(connection)
        await Journal(database).ensure(connection)
        if database.kind == "postgresql":
            await connection.script(PostgreSQLReplication.TABLE)
    await prepare(database)
    DatabaseCache(database)
    DatabaseSessionStore(database, table="visits")
    OutboxTable(database)
    DecisionLog.of(database).declare()
    await database.create_all(orm.Registry())


@pytest.mark.anyio
async def test_the_tables_of_covet_are_nobodys_models(url: str) -> None:
    async with Database(url) as database:
        await make_own_tables(database)
        schema = await read_schema(database)
        assert {"covet_migrations", "covet_commits", "covet_outbox", "covet_cache", "covet_2pc"} <= set(schema.tables)
        assert "visits" in schema.tables
        assert not inspected_models(schema, leave_out=own_tables(database)).state.models
        assert set(inspected_models(schema).state.models) == {"Visits"}, "without the database, by their usual names"
        drift = await find_drift(database, State())
        assert (drift.told(), drift.unknown) == ([], [])
        # Who asks for one gets it.
        assert set(inspected_models(schema, only=["covet_commits"]).state.models) == {"CovetCommits"}


@pytest.mark.parametrize(
    ("table", "name"),
    [
        ("blog_post", "Post"), ("blog", "Blog"), ("user group", "UserGroup"), ("1st", "Table1st"), ("class", "Class"),
        ("none", "NoneModel"), ("model", "ModelModel"), ("\u00fcber_x", "\u00dcberX"), ("--", "Table"),
        ("blog_", "Blog"),
    ],
)  # fmt: skip
def test_tables_have_names_of_classes(table: str, name: str) -> None:
    assert class_name(table, "blog") == name


@pytest.mark.parametrize(
    ("column", "name"),
    [
        ("title", "title"), ("Title", "title"), ("class", "class_field"), ("a__b_", "a_b"), ("1st", "column_1st"),
        ("save", "save_field"), ("%", "column"), ("pk", "pk_field"), ("we ird", "we_ird"), ("\ufb01x", "fix"),
    ],
)  # fmt: skip
def test_columns_have_names_of_fields(column: str, name: str) -> None:
    assert field_name(column) == name
