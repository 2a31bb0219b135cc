"""Creating and dropping tables: whatever things are called, in whatever order they refer to each other, by however many
processes at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.services.databases import ask

from covet_orm.constraints import CheckConstraint
from covet_orm.databases import Database
from covet_orm.exceptions import CheckViolation, DatabaseError, ForeignKeyViolation, ModelError, NotSupported
from covet_orm.expressions import Q
from covet_orm.fields import (
    CASCADE,
    BigAutoField,
    CharField,
    ForeignKey,
    IntegerField,
    JSONField,
    ManyToManyField,
    SmallIntegerField,
    TextField,
)
from covet_orm.indexes import Index
from covet_orm.models import Model, Registry
from covet_orm.schema import check_supported, statements

pytestmark = pytest.mark.anyio

SQLITE_WORDS = (  # noqa: SIM905
    "abort action add after all alter always analyze and as asc attach autoincrement before begin between by "
    "cascade case cast check collate column commit conflict constraint create cross current current_date "
    "current_time current_timestamp database default deferrable deferred delete desc detach distinct do drop "
    "each else end escape except exclude exclusive exists explain fail filter first following for foreign from "
    "full generated glob group groups having if ignore immediate in index indexed initially inner insert "
    "instead intersect into is isnull join key last left like limit match materialized natural no not nothing "
    "notnull null nulls of offset on or order others outer over partition plan pragma preceding primary query "
    "raise range recursive references regexp reindex release rename replace restrict returning right rollback "
    "row rows savepoint select set table temp temporary then ties to transaction trigger unbounded union "
    "unique update using vacuum values view virtual when where window with without "
).split()
"""The keywords of SQLite (https://sqlite.org/lang_keywords.html), which it cannot be asked for by SQL."""


def declare(own: Registry, called: str, *, table: str | None = None, **attributes: Any) -> Any:
    """A model in a registry."""
    options = {"registry": own, "app_label": "", **attributes.pop("meta", {})}
    if table is not None:
        options["db_table"] = table
    meta = type("Meta", (), options)
    return type(Model)(called, (Model,), {"__module__": __name__, "Meta": meta, **attributes})


async def words_of(database: Database) -> list[str]:
    """What the server calls a keyword."""
    if database.kind == "sqlite":
        return SQLITE_WORDS
    statement = {
        "postgresql": "SELECT word FROM pg_get_keywords()",
        "mariadb": "SELECT lower(word) FROM information_schema.keywords",
    }[database.kind]
    words = [row[0] for row in (await database.query(statement)).rows]
    return sorted({word for word in words if word.replace("_", "").isalnum()})


async def test_every_keyword_can_be_a_name(url: str) -> None:
    """Of a column and of a table, in every statement that has one."""
    async with Database(url) as database:
        words = [word for word in await words_of(database) if word != "id"]
        assert len(words) > 100
        # Columns have other names than attributes, which Python has a say about.
        for start in range(0, len(words), 60):
            some = words[start : start + 60]
            own = Registry()
            fields = {
                f"f{number}": IntegerField(db_column=word, db_index=number < 20) for number, word in enumerate(some)
            }
            model = declare(own, "Words", **fields)
            await database.create_all(own)
            made = await model.objects.create(**dict.fromkeys(fields, 1))
            made.f0 = 2
            await made.save()
            found = await model.objects.filter(**dict.fromkeys(list(fields)[1:], 1)).order_by(*fields).get()
            assert found.f0 == 2
            assert await model.objects.filter(f0=2).update(f1=3) == 1
            assert await found.delete() == 1
            await database.drop_all(own)
        own = Registry()
        some = words[:: 1 + len(words) // 50]
        named = [declare(own, f"M{number}", table=word, a=IntegerField()) for number, word in enumerate(some)]
        await database.create_all(own)
        for model in named:
            made = await model.objects.create(a=1)
            assert await model.objects.filter(a=1).count() == 1
            await made.delete()
        await database.drop_all(own)


@pytest.mark.parametrize(
    "name", ["ä" * 31 + "x", "x" * 63, "Upper Case", 'qu"ote', "`back`", "per%cent", "a'b", "日本"]
)
async def test_names_of_every_kind(url: str, name: str) -> None:
    own = Registry()
    first = declare(own, "First", table=name, a=IntegerField(db_column=name, unique=True, db_index=True))
    second = declare(own, "Second", one=ForeignKey(first, db_column=f"{name[:20]}_id"))
    async with Database(url) as database:
        await database.create_all(own)
        one = await first.objects.create(a=1)
        await second.objects.create(one=one)
        assert (await first.objects.get(a=1)).a == 1
        assert await second.objects.filter(one__a=1).values_list("one__a", flat=True) == [1]
        assert await database.create_all(own) == []
        assert len(await database.drop_all(own)) == 2


async def test_tables_that_refer_to_each_other(url: str) -> None:
    own = Registry()
    first = declare(own, "First", second=ForeignKey("Second", null=True, on_delete=CASCADE))
    second = declare(own, "Second", first=ForeignKey("Third", null=True), itself=ForeignKey("self", null=True))
    third = declare(own, "Third", first=ForeignKey("First", null=True))
    async with Database(url) as database:
        assert set(await database.create_all(own)) == {"first", "second", "third"}
        assert await database.create_all(own) == []
        a = await first.objects.create()
        c = await third.objects.create(first=a)
        b = await second.objects.create(first=c)
        b.itself = b
        await b.save()
        a.second = b
        await a.save()
        # The constraints are there.
        for model, field in ((first, "second_id"), (second, "first_id"), (third, "first_id")):
            with pytest.raises(ForeignKeyViolation):
                await model.objects.create(**{field: 999})
        assert set(await database.drop_all(own)) == {"first", "second", "third"}
        assert await database.drop_all(own) == []


@pytest.mark.parametrize("kind", ["postgresql", "mysql", "mariadb"])
def test_a_table_of_a_circle_has_its_foreign_keys_when_it_is_created_alone(kind: str) -> None:
    """What was told once of both tables changed what was told of one afterwards: it had none."""
    own = Registry()
    declare(own, "First", second=ForeignKey("Second", null=True))
    declare(own, "Second", first=ForeignKey("First", null=True))
    tables = own.tables()
    alone = [statements(kind, [table], create=True) for table in tables]
    both = statements(kind, tables, create=True)
    assert sum("FOREIGN KEY" in statement for statement in both) == 2
    assert [statements(kind, [table], create=True) for table in tables] == alone
    assert all("FOREIGN KEY" in statement for (statement, *_) in alone)


async def test_what_others_refer_to_stays(url: str) -> None:
    """Dropping some tables never leaves rows that refer to nothing."""
    own = Registry()
    team = declare(own, "Team")
    user = declare(own, "User", team=ForeignKey(team))
    some = Registry()
    declare(some, "Team")
    async with Database(url) as database:
        await database.create_all(own)
        await user.objects.create(team=await team.objects.create())
        with pytest.raises(DatabaseError):
            await database.drop_all(some)
        assert await user.objects.count() == 1
        assert await team.objects.count() == 1
        # Foreign keys are looked at as before.
        with pytest.raises(ForeignKeyViolation):
            await user.objects.create(team_id=99)
        if database.kind == "mariadb":
            # Its definitions end a transaction.
            assert set(await database.drop_all(own)) == {"team", "user"}
            return
        async with database.transaction():
            assert set(await database.drop_all(own)) == {"team", "user"}


async def test_many_create_at_once(url: str) -> None:
    """Programs that start together: each table is created once, and none of them fails."""
    own = Registry()
    team = declare(own, "Team", name=CharField(max_length=5, unique=True))
    declare(own, "Member", team=ForeignKey(team), teams=ManyToManyField(team, related_name="+"))

    async def create() -> list[str]:
        async with Database(url) as database:
            return await database.create_all(own)

    found = await asyncio.gather(*(create() for _ in range(6)))
    assert sorted(name for names in found for name in names) == ["member", "member_teams", "team"]


async def test_all_tables_or_none(url: str) -> None:
    """An error on the way leaves nothing, where definitions are part of a transaction."""
    own = Registry()
    declare(own, "Aardvark", a=IntegerField())
    declare(own, "Badger", value=IntegerField(), meta={"indexes": ()})
    async with Database(url) as database:
        # A table of the name of an index to come: the server refuses what the model cannot know of.
        await database.script("CREATE TABLE badger_other (id integer)")
        await database.script("CREATE INDEX taken ON badger_other (id)")
        broken = Registry()
        declare(broken, "Aardvark", a=IntegerField())
        declare(broken, "Badger", value=IntegerField(), meta={"indexes": [Index("value", name="taken")]})
        if database.kind == "mariadb":
            await database.create_all(broken)
            return
        with pytest.raises(DatabaseError):
            await database.create_all(broken)
        assert await database.create_all(own) == ["aardvark", "badger"]


async def test_nothing_is_created_that_cannot_be(url: str) -> None:
    own = Registry()
    declare(own, "Aardvark", a=IntegerField())
    declare(own, "Badger", value=IntegerField(), other=ForeignKey("Cat"))
    async with Database(url) as database:
        with pytest.raises(ModelError, match="no model is called 'Cat'"):
            await database.create_all(own)
        rest = Registry()
        declare(rest, "Aardvark", a=IntegerField())
        assert await database.create_all(rest) == ["aardvark"]


async def test_comments(url: str) -> None:
    own = Registry()
    declare(own, "Told", a=IntegerField(comment="100% of 'it' \\ \"x\""), meta={"comment": "it's a table; 50%"})
    async with Database(url) as database:
        await database.create_all(own)
        if database.kind == "postgresql":
            found = await ask(url, "SELECT obj_description('told'::regclass), col_description('told'::regclass, 2)")
            assert found == [("it's a table; 50%", "100% of 'it' \\ \"x\"")]
        elif database.kind == "mariadb":
            assert await ask(
                url,
                "SELECT table_comment FROM information_schema.tables WHERE table_name = 'told' UNION ALL "
                "SELECT column_comment FROM information_schema.columns WHERE table_name = 'told' AND column_name = 'a'",
            ) == [("it's a table; 50%",), ("100% of 'it' \\ \"x\"",)]


async def test_text_of_mariadb_is_compared_by_its_bytes(mariadb: Any) -> None:
    url = mariadb.empty_database("test")
    own = Registry()
    declare(own, "Text", a=CharField(max_length=10), b=TextField(), c=JSONField())
    async with Database(url) as database:
        await database.create_all(own)
        rows = await ask(
            url,
            "SELECT engine, table_collation FROM information_schema.tables WHERE table_name = 'text'",
        )
        assert rows == [("InnoDB", "utf8mb4_nopad_bin")]
        columns = await ask(
            url,
            "SELECT collation_name FROM information_schema.columns "
            "WHERE table_name = 'text' AND data_type LIKE '%char%'",
        )
        assert columns == [("utf8mb4_nopad_bin",)]
        # The server checks what is written past the model.
        with pytest.raises(CheckViolation):
            await database.execute("INSERT INTO text (a, b, c) VALUES ('', '', '{')")


async def test_a_cancelled_creation_leaves_all_or_nothing(url: str) -> None:
    """Cancelled anywhere, the next creation goes on from there, and no connection is left holding the lock."""
    for turns in range(0, 40, 3):
        own = Registry()
        declare(own, "Aardvark", a=IntegerField(db_index=True))
        declare(own, "Badger", value=IntegerField(db_index=True))
        async with Database(url) as database:
            await database.open()
            task = asyncio.create_task(database.create_all(own))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await database.create_all(own)
            assert sorted(await database.drop_all(own)) == ["aardvark", "badger"]


def test_statements_are_the_same_each_time() -> None:
    for kind in ("postgresql", "mysql", "mariadb", "sqlite"):
        own = Registry()
        declare(own, "Badger", value=IntegerField(), other=ForeignKey("Cat", null=True))
        declare(own, "Cat", value=CharField(max_length=5, db_default="%"), other=ForeignKey("Badger", null=True))
        found = [statements(kind, own.tables(), create=create) for create in (True, False) for _ in range(2)]
        assert found[0] == found[1]
        assert found[2] == found[3]
        assert any("DEFAULT '%'" in one for one in found[0])
        assert statements(kind, [], create=True) == []


def test_everything_that_is_missing_is_told_at_once() -> None:
    own = Registry()
    model = declare(own, "Badger", a=TextField(unique=True), b=JSONField(db_index=True))
    with pytest.raises(NotSupported, match=r"Badger\.a: .*; Badger\.b: "):
        check_supported("mariadb", [model])
    check_supported("postgresql", [model])


def test_sqlite_counts_no_part_of_a_key() -> None:
    model = declare(Registry(), "Badger", number=BigAutoField(), year=IntegerField(primary_key=True))
    with pytest.raises(NotSupported, match=r"Badger\.number: SQLite counts no part of a key"):
        check_supported("sqlite", [model])
    check_supported("postgresql", [model])
    check_supported("sqlite", [declare(Registry(), "Cat", number=BigAutoField(), year=IntegerField())])


@pytest.mark.parametrize("value", [10**9, "many"])
def test_a_check_compares_with_values_of_its_field(value: Any) -> None:
    own = Registry()
    meta = {"constraints": [CheckConstraint(Q(legs__lt=value))]}
    declare(own, "Badger", meta=meta, legs=SmallIntegerField())
    with pytest.raises(ModelError, match=rf"Badger\.Meta, Q\(legs__lt={value!r}\): {value!r} is "):
        own.tables()


async def test_the_names_of_a_filter_are_safe_whatever_a_column_is_called(url: str) -> None:
    """A column whose name looks like SQL is a name."""
    own = Registry()
    model = declare(own, "Odd", a=IntegerField(db_column='x" ; DROP TABLE odd; --'), b=IntegerField(db_column="`; --"))
    async with Database(url) as database:
        await database.create_all(own)
        await model.objects.create(a=1, b=2)
        assert await model.objects.filter(Q(a=1) & Q(b__gt=1)).order_by("a", "-b").values_list("a", "b") == [(1, 2)]
