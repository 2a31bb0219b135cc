"""What is there in a database, as plain values; and SQLAlchemy's Inspector over connections of covet-orm."""

from __future__ import annotations

from dataclasses import replace

import anyio.lowlevel
import pytest
import sqlalchemy
from anyio import create_task_group
from tests.services.databases import NAMES
from tests.services.mariadb import MariaDB
from tests.services.postgresql import PostgreSQL

import covet_orm as orm
from covet_migrate.inspection.comparing import compare_schemas, same_schema
from covet_migrate.inspection.connections import run_inspector
from covet_migrate.inspection.descriptions import Exclusion, ForeignKey, IndexPart
from covet_migrate.inspection.schema import read_schema
from covet_migrate.inspection.sqlite_sql import created_table, index_condition, index_parts, one_form
from covet_orm import Database, F, ProgrammingError, Q
from covet_orm.drivers.protocol import SessionState

pytestmark = pytest.mark.anyio
registry = orm.Registry()


class Author(orm.Model):
    name = orm.CharField[str](max_length=40, unique=True, comment="as printed, 100%")

    class Meta:
        registry = registry
        app_label = "shelf"
        comment = "who writes"


class Book(orm.Model):
    title = orm.CharField[str](max_length=50, db_default="it's")
    pages = orm.PositiveIntegerField[int | None](null=True)
    double = orm.GeneratedField(F("pages") * 2, orm.IntegerField[int]())
    author = orm.ForeignKey[Author](Author, on_delete=orm.RESTRICT)

    class Meta:
        registry = registry
        app_label = "shelf"
        unique_together = (("title", "author"),)
        indexes = [
            orm.Index("-title", "pages", name="newest"),
            orm.Index("pages", condition=Q(pages__gt=9), name="long", databases=["sqlite", "postgresql"]),
        ]
        constraints = [orm.CheckConstraint(Q(pages__lt=10_000), name="thin")]


async def test_it_tells_of_all_that_models_declare(url: str) -> None:
    async with Database(url) as database:
        await database.create_all(registry)
        schema = await read_schema(database)
        assert set(schema.tables) == {"shelf_author", "shelf_book"}
        book, author = schema.tables["shelf_book"], schema.tables["shelf_author"]
        columns = {column.name: column for column in book.columns}
        assert list(columns) == ["id", "title", "pages", "double", "author_id"]
        assert columns["title"].type.lower() in ("varchar(50)", "character varying(50)")
        assert str(columns["title"].default).startswith("'it")
        assert (columns["title"].null, columns["pages"].null) == (False, True)
        assert columns["id"].counting is not None
        assert columns["id"].default is None
        assert columns["double"].stored
        assert "pages" in str(columns["double"].generated)
        assert book.primary_key is not None
        assert book.primary_key.columns == ("id",)
        assert [one.columns for one in book.uniques] == [("title", "author_id")]
        indexes = {one.name: one for one in book.indexes}
        assert indexes["newest"].parts == (IndexPart(column="title", descending=True), IndexPart(column="pages"))
        assert {one.name for one in book.checks} == {"thin", "shelf_book_pages_check"}
        assert book.foreign_keys == (
            ForeignKey(
                name="shelf_book_author_id_fk", columns=("author_id",), table="shelf_author", referred=("id",),
                on_delete="NO ACTION" if database.kind == "mariadb" else "RESTRICT",
            ),
        )  # fmt: skip
        if database.kind != "mariadb":
            assert "pages > 9" in str(indexes["long"].condition)
        if database.kind != "sqlite":
            assert (author.comment, author.column("name").comment) == ("who writes", "as printed, 100%")
        with pytest.raises(KeyError):
            author.column("nobody")


# MariaDB commits a transaction when a table is created.
@pytest.mark.parametrize("server", [name for name in NAMES if name != "mariadb"], indirect=True)
async def test_it_sees_what_its_transaction_sees(url: str) -> None:
    async with Database(url) as database:

        async def create_and_fail() -> None:
            async with database.transaction():
                await database.script("CREATE TABLE mine (a integer)")
                assert set((await read_schema(database)).tables) == {"mine"}
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await create_and_fail()
        assert not (await read_schema(database)).tables


async def test_a_change_is_told_in_words(url: str) -> None:
    async with Database(url) as database:
        await database.create_all(registry)
        before = await read_schema(database)
        assert same_schema(before, before)
        assert not compare_schemas(before, before)
        await database.script("ALTER TABLE shelf_author ADD COLUMN born integer")
        await database.script("CREATE INDEX old ON shelf_author (born)")
        await database.script("CREATE TABLE other (a integer)")
        after = await read_schema(database)
        assert not same_schema(before, after)
        kind = {"mariadb": "int(11)", "sqlite": "INTEGER"}.get(database.kind, "integer")
        assert [one.told("now", "then") for one in compare_schemas(after, before)] == [
            "table other: now, and not then: (a)",
            f"column shelf_author.born: now, and not then: {kind}",
            "index old of shelf_author: now, and not then: (born)",
        ]


def test_each_attribute_makes_a_difference() -> None:
    from covet_migrate.inspection import descriptions as d

    column = d.Column(name="a", type="integer")
    index = d.Index(name="i", parts=(IndexPart(column="a"),))
    key = ForeignKey(name="f", columns=("a",), table="u", referred=("id",))
    unique, check = d.Unique(name="k", columns=("a",)), d.Check(name="c", condition="a > 0")
    table = d.Table(
        name="t", columns=(column,), primary_key=d.PrimaryKey(name="p", columns=("a",)), indexes=(index,),
        foreign_keys=(key,), uniques=(unique,), checks=(check,),
    )  # fmt: skip
    part = IndexPart(column="a", descending=True)
    others = [
        *(
            replace(table, columns=(replace(column, **change),))  # type: ignore[arg-type]
            for change in (
                {"type": "bigint"}, {"null": False}, {"default": "1"}, {"generated": "b"}, {"counting": "serial"},
                {"collation": "C"}, {"comment": "x"},
            )
        ),
        *(
            replace(table, indexes=(replace(index, **change),))  # type: ignore[arg-type]
            for change in (
                {"unique": True}, {"condition": "a > 1"}, {"include": ("b",)}, {"method": "hash"}, {"valid": False},
                {"nulls_distinct": False}, {"parts": (part,)}, {"parts": (replace(part, descending=False, length=3),)},
                {"parts": (IndexPart(expression="lower(a)"),)}, {"name": "j"},
            )
        ),
        *(
            replace(table, foreign_keys=(replace(key, **change),))  # type: ignore[arg-type]
            for change in (
                {"table": "v"}, {"referred": ("b",)}, {"on_delete": "CASCADE"}, {"on_update": "CASCADE"},
                {"deferrable": "deferred"}, {"valid": False},
            )
        ),
        replace(table, uniques=(replace(unique, deferrable="deferred"),)),
        replace(table, uniques=(replace(unique, nulls_distinct=False),)),
        replace(table, checks=(replace(check, condition="a > 1"),)),
        replace(table, checks=(replace(check, valid=False),)),
        replace(table, primary_key=None),
        replace(table, comment="x"),
        replace(table, triggers=(d.Trigger(name="g", definition="x"),)),
    ]  # fmt: skip
    one = d.Schema(kind="postgresql", tables={"t": table})
    for other in others:
        found = compare_schemas(one, d.Schema(kind="postgresql", tables={"t": other}))
        assert len(found) == 1, other
        assert "t" in str(found[0])
    [renamed] = compare_schemas(
        one, d.Schema(kind="postgresql", tables={"t": replace(table, indexes=(replace(index, name="j"),))})
    )
    assert str(renamed) == "index j of t: called i in the database, j in the migrations"
    assert renamed.only_name
    enums = d.Schema(kind="postgresql", enums=(d.Enum(name="mood", labels=("a", "b")),))
    assert [str(found) for found in compare_schemas(enums, d.Schema(kind="postgresql"))] == [
        "enum type mood: in the database, and not in the migrations: (a, b)"
    ]


async def test_postgresql_tells_more(postgresql: PostgreSQL) -> None:
    async with Database(postgresql.empty_database("more")) as database:
        await database.script("""
            CREATE EXTENSION btree_gist;
            CREATE TYPE mood AS ENUM ('sad', 'glad');
            CREATE SEQUENCE tickets START 10 INCREMENT 5;
            CREATE TABLE room (
                id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
                number integer, during tstzrange, m mood, t text,
                EXCLUDE USING gist (number WITH =, during WITH &&) WHERE (number > 3) DEFERRABLE INITIALLY DEFERRED,
                CONSTRAINT numbered UNIQUE (number) DEFERRABLE);
            CREATE INDEX covering ON room USING btree (lower(t) text_pattern_ops DESC NULLS LAST) INCLUDE (number)
                WHERE t <> '';
            CREATE INDEX hashed ON room USING hash (t);
            ALTER TABLE room ADD CONSTRAINT positive CHECK (number > 0) NOT VALID;
            CREATE VIEW rooms AS SELECT id FROM room;
            CREATE MATERIALIZED VIEW kept AS SELECT id FROM room;
            CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
            CREATE TRIGGER watch BEFORE INSERT ON room FOR EACH ROW EXECUTE FUNCTION nothing();
            CREATE SCHEMA apart; CREATE TABLE apart.room (a integer);
        """)
        schema = await read_schema(database)
        [room] = schema.tables.values()
        assert room.column("id").counting == "by default"
        assert room.column("m").type == "mood"
        assert room.exclusions == (
            Exclusion(
                name="room_number_during_excl", method="gist", condition="(number > 3)", deferrable="deferred",
                parts=((IndexPart(column="number"), "="), (IndexPart(column="during"), "&&")),
            ),
        )  # fmt: skip
        assert [(one.name, one.deferrable) for one in room.uniques] == [("numbered", "immediate")]
        covering, hashed = room.indexes
        assert covering.parts == (
            IndexPart(expression="lower(t)", descending=True, nulls="last", opclass="text_pattern_ops"),
        )
        assert (covering.include, covering.condition, hashed.method) == (("number",), "(t <> ''::text)", "hash")
        assert [(one.name, one.valid) for one in room.checks] == [("positive", False)]
        assert [one.name for one in room.triggers] == ["watch"]
        assert [(one.name, one.materialized) for one in schema.views] == [("kept", True), ("rooms", False)]
        assert [(one.name, one.start, one.increment) for one in schema.sequences] == [("tickets", 10, 5)]
        assert [one.labels for one in schema.enums] == [("sad", "glad")]
        assert schema.extensions == ("btree_gist",)


async def test_an_index_that_is_not_valid_is_told(postgresql: PostgreSQL) -> None:
    async with Database(postgresql.empty_database("invalid")) as database:
        await database.script("CREATE TABLE t (a integer)")
        await database.script("INSERT INTO t VALUES (1), (1)")
        with pytest.raises(orm.UniqueViolation):
            await database.script("CREATE UNIQUE INDEX CONCURRENTLY once ON t (a)")
        [index] = (await read_schema(database)).tables["t"].indexes
        assert (index.name, index.valid) == ("once", False)


async def test_mariadb_tells_more(mariadb: MariaDB) -> None:
    async with Database(mariadb.empty_database("more")) as database:
        await database.script(
            "CREATE TABLE t (id int PRIMARY KEY AUTO_INCREMENT, j json, s text COLLATE utf8mb4_bin, b int DEFAULT 3, "
            "v int AS (b + 1) VIRTUAL, FULLTEXT KEY words (s), KEY beginning (s(10)), UNIQUE KEY down (b DESC), "
            "CHECK (b > 0))"
        )
        await database.script("CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW SET NEW.b = 4")
        await database.script("CREATE VIEW w AS SELECT id FROM t")
        schema = await read_schema(database)
        table = schema.tables["t"]
        assert {one.name: one.method for one in table.indexes} == {"words": "fulltext", "beginning": None, "down": None}
        assert next(one for one in table.indexes if one.name == "beginning").parts[0].length == 10
        assert next(one for one in table.indexes if one.name == "down").unique
        assert (table.column("v").generated, table.column("v").stored) == ("`b` + 1", False)
        assert (table.column("b").default, table.column("id").counting) == ("3", "auto_increment")
        assert table.column("s").collation == "utf8mb4_bin"
        assert [one.name for one in table.triggers] == ["g"]
        assert [one.name for one in schema.views] == ["w"]


async def test_the_inspector_works_in_the_running_loop(url: str) -> None:
    async with Database(url) as database:
        await database.create_all(registry)
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await anyio.lowlevel.checkpoint()
                turns += 1

        async with create_task_group() as tasks:
            tasks.start_soon(count)
            async with database.connection() as connection:
                names = await run_inspector(connection, database.kind, sqlalchemy.Inspector.get_table_names)
                assert connection.state is SessionState.IDLE
            tasks.cancel_scope.cancel()
        assert sorted(names) == ["shelf_author", "shelf_book"]
        # Others went on while the servers were asked.
        assert turns > 1


async def test_an_error_of_the_inspector_leaves_the_connection_at_rest(url: str) -> None:
    async with Database(url) as database, database.connection() as connection:

        def wrong(inspector: sqlalchemy.Inspector) -> None:
            with inspector.engine.connect() as connected:
                connected.exec_driver_sql("SELECT nothing FROM nowhere")

        with pytest.raises((ProgrammingError, orm.DatabaseError)):
            await run_inspector(connection, database.kind, wrong)
        assert connection.state is SessionState.IDLE
        assert await run_inspector(connection, database.kind, sqlalchemy.Inspector.get_table_names) == []


def test_the_sql_of_sqlite_is_taken_apart() -> None:
    told = created_table("""
        CREATE TABLE "a b" ( -- comment, with a comma
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            [x y] VARCHAR(10, 2) COLLATE nocase NOT NULL DEFAULT (lower('),('))
                CONSTRAINT named CHECK ("x y" <> 'it''s, (') UNIQUE,
            `g` INTEGER GENERATED ALWAYS AS (id * ( 2 + 1 )) STORED,
            r INTEGER CONSTRAINT ref REFERENCES other (id) ON DELETE SET NULL ON UPDATE NO ACTION
                DEFERRABLE INITIALLY DEFERRED,
            "check" TEXT CHECK ("check" IN ('a', /* ) */ 'b')),
            CONSTRAINT k UNIQUE (id, "x y") ON CONFLICT IGNORE,
            FOREIGN KEY (r, id) REFERENCES "o p" ON DELETE CASCADE NOT DEFERRABLE INITIALLY IMMEDIATE,
            CONSTRAINT p CHECK ((r > 0) AND (id > 0))
        ) STRICT""")
    assert [column.name for column in told.columns.values()] == ["id", "x y", "g", "r", "check"]
    assert told.columns["id"].counts
    assert told.columns["x y"].collation == "NOCASE"
    assert told.columns["g"].generated == "id * (2 + 1)"
    assert told.checks == [
        ("named", "\"x y\" <> 'it''s, ('"), (None, "\"check\" IN ('a', 'b')"), ("p", "(r > 0) AND (id > 0)"),
    ]  # fmt: skip
    assert told.uniques == [(None, ("x y",)), ("k", ("id", "x y"))]
    one, two = told.references
    assert (one.name, one.columns, one.table, one.referred) == ("ref", ("r",), "other", ("id",))
    assert (one.on_delete, one.on_update, one.deferrable) == ("SET NULL", "NO ACTION", "deferred")
    assert (two.columns, two.table, two.referred, two.on_delete, two.deferrable) == (
        ("r", "id"), "o p", (), "CASCADE", None,
    )  # fmt: skip
    sql = 'CREATE UNIQUE INDEX "on" ON "t" (a DESC, (lower("b")) COLLATE nocase, "c d") WHERE ("a" > 1 and b=\'x\')'
    assert index_parts(sql) == ["a", "lower(b)", '"c d"']
    assert index_condition(sql) == "a > 1 AND b = 'x'"
    assert index_condition("CREATE INDEX i ON t (a)") is None
    assert one_form('(( "a">=1 ))') == "a >= 1"
    assert one_form("(a) + (b)") == "(a) + (b)"
