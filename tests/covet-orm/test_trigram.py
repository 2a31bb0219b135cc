"""Texts that are alike (pg_trgm) and texts without accents (unaccent), UUIDs of the server; what says so where they
are missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from tests.services.databases import SERVERS, ask
from tests.services.postgresql import PostgreSQL

from covet_orm import F, Index, Model, NotSupported, ProgrammingError, Registry, TextField, UUIDField, Value
from covet_orm.databases import Database
from covet_orm.drivers.extensions_postgresql import advice
from covet_orm.expressions.functions import (
    UUID4,
    UUID7,
    Func,
    Lower,
    RandomUUID,
    TrigramDistance,
    TrigramSimilarity,
    TrigramStrictWordDistance,
    TrigramStrictWordSimilarity,
    TrigramWordDistance,
    TrigramWordSimilarity,
    Unaccent,
)

pytestmark = pytest.mark.anyio
POSTGRESQL = [name for name in SERVERS if name.startswith("postgresql")]
registry = Registry()


class Word(Model):
    text = TextField()
    other = TextField(default="")

    class Meta:
        registry = registry


TEXTS = ["Katherine Stephanie", "Catherine", "Stephen", "Élodie crème brûlée", "50% off"]
FUNCTIONS: list[tuple[Func[Any], str]] = [
    (TrigramSimilarity("text", "Stephan"), "similarity(text, 'Stephan')"),
    (TrigramDistance("text", "Stephan"), "1 - similarity(text, 'Stephan')"),
    (TrigramWordSimilarity("Stephan", "text"), "word_similarity('Stephan', text)"),
    (TrigramWordDistance("Stephan", "text"), "1 - word_similarity('Stephan', text)"),
    (TrigramStrictWordSimilarity("Stephan", "text"), "strict_word_similarity('Stephan', text)"),
    (TrigramStrictWordDistance("Stephan", "text"), "1 - strict_word_similarity('Stephan', text)"),
    (TrigramSimilarity(Lower("text"), F("other")), "similarity(lower(text), other)"),
]
LOOKUPS: list[tuple[dict[str, Any], str]] = [
    ({"text__trigram_similar": "Katerine"}, "similarity(text, 'Katerine') > 0.3"),
    ({"text__trigram_word_similar": "Stephan"}, "word_similarity('Stephan', text) > 0.6"),
    ({"text__trigram_strict_word_similar": "Stephan"}, "strict_word_similarity('Stephan', text) > 0.5"),
    ({"text__unaccent": "Elodie creme brulee"}, "unaccent(text) = 'Elodie creme brulee'"),
    ({"text__unaccent__icontains": "CREME"}, "unaccent(text) ILIKE '%CREME%'"),
    ({"text__unaccent__trigram_similar": "Elodie creme"}, "similarity(unaccent(text), 'Elodie creme') > 0.3"),
]


@pytest.mark.parametrize("server", POSTGRESQL, indirect=True)
async def test_they_are_what_the_functions_of_the_server_say(url: str) -> None:
    async with Database(url) as database:
        await database.create_all(registry, extensions=["pg_trgm", "unaccent"])
        table = Word._meta.db_table
        await Word.objects.bulk_create([Word(text=text, other="stephanie") for text in TEXTS])
        for function, sql in FUNCTIONS:
            found = await Word.objects.annotate(found=function).order_by("id").values_list("found", flat=True)
            expected = await ask(url, f'SELECT {sql} FROM "{table}" ORDER BY id')
            assert found == pytest.approx([row[0] for row in expected], abs=1e-6), function
            assert len(set(found)) > 1, function
        for lookups, sql in LOOKUPS:
            found = await Word.objects.filter(**lookups).order_by("id").values_list("id", flat=True)
            assert found == [row[0] for row in await ask(url, f'SELECT id FROM "{table}" WHERE {sql} ORDER BY id')]
            assert 0 < len(found) < len(TEXTS), lookups
        near = await Word.objects.order_by(TrigramDistance("text", "Stefen")).values_list("text", flat=True)
        assert near[0] == "Stephen"
        texts = await Word.objects.annotate(x=Unaccent("text")).filter(x__startswith="E").values_list("x", flat=True)
        assert texts == ["Elodie creme brulee"]


@pytest.mark.parametrize("server", POSTGRESQL, indirect=True)
async def test_an_index_serves_them(url: str) -> None:
    class Title(Model):
        text = TextField()

        class Meta:
            registry = Registry()
            app_label = ""
            indexes = (Index("text", method="gin", opclasses="gin_trgm_ops", name="trigrams"),)

    async with Database(url) as database:
        with pytest.raises(ProgrammingError, match=r"gin_trgm_ops.*create_all\(extensions=\[\'pg_trgm\'\]\)"):
            await database.create_all(Title._meta.registry)
        await database.create_all(Title._meta.registry, extensions=["pg_trgm"])
        async with database.transaction():
            await database.execute("SET LOCAL enable_seqscan = off")
            plan = await Title.objects.filter(text__trigram_similar="Katerine").explain()
        assert "trigrams" in plan


@pytest.mark.parametrize("server", POSTGRESQL, indirect=True)
async def test_without_the_extension(url: str) -> None:
    async with Database(url) as database:
        await database.create_all(registry)
        for function, _ in FUNCTIONS:
            with pytest.raises(ProgrammingError, match=r"does not exist.*CREATE EXTENSION pg_trgm"):
                await Word.objects.annotate(found=function)
        for lookups, _ in LOOKUPS:
            with pytest.raises(ProgrammingError, match=r"CREATE EXTENSION (pg_trgm|unaccent)"):
                await Word.objects.filter(**lookups)
        for sql in ("SELECT nothing_like_it('x')", "SELECT 1 % 'x'::text", "SELECT NULL::nothing_like_it"):
            with pytest.raises(ProgrammingError) as caught:
                await database.query(sql)
            assert "EXTENSION" not in str(caught.value)
        assert "EXTENSION" not in advice("42P01", 'relation "hstore" does not exist')


@pytest.mark.parametrize("server", ["sqlite", "mariadb"], indirect=True)
async def test_what_has_none_of_them_says_so(url: str) -> None:
    async with Database(url) as database:
        await database.create_all(registry, extensions=["pg_trgm"])
        for function, _ in FUNCTIONS:
            with pytest.raises(NotSupported, match=r"has no Trigram\w+; PostgreSQL has, with CREATE EXTENSION pg_trgm"):
                await Word.objects.annotate(found=function)
        for lookups, _ in LOOKUPS:
            with pytest.raises(NotSupported, match="PostgreSQL has, with CREATE EXTENSION"):
                await Word.objects.filter(**lookups)
        with pytest.raises(NotSupported, match="CREATE EXTENSION unaccent"):
            await Word.objects.annotate(found=Unaccent("text"))


def declared(default: Func[UUID]) -> Any:
    meta = type("Meta", (), {"registry": Registry(), "app_label": ""})
    fields = {"id": UUIDField(primary_key=True, db_default=default), "token": UUIDField(default=uuid4)}
    return type(Model)("Ticket", (Model,), {"__module__": __name__, "Meta": meta, **fields})


async def test_random_uuids(url: str) -> None:
    model = declared(RandomUUID())
    async with Database(url) as database:
        await database.create_all(model._meta.registry)
        one = await model.objects.create()
        assert one.id == (await model.objects.get(id=one.id)).id
        made = [await model.objects.create() for _ in range(100)]
        await model.objects.update(token=UUID4())
        rows = await model.objects.annotate(more=UUID4()).values_list("id", "token", "more")
        assert {row[0] for row in rows} == {one.id, *(each.id for each in made)}
        found = [value for row in rows for value in row]
        assert len(set(found)) == 303
        assert {(value.version, value.variant) for value in found} == {(4, uuid4().variant)}
        # Each digit but those two is any.
        for place in range(32):
            digits = {value.hex[place] for value in found}
            assert len(digits) == {12: 1, 16: 4}.get(place, 16), place
        assert await model.objects.filter(id=Value(one.id)).count() == 1


@pytest.mark.parametrize("server", ["postgresql-18"], indirect=True)
async def test_uuids_that_begin_with_the_time(url: str) -> None:
    model = declared(UUID7())
    async with Database(url) as database:
        await database.create_all(model._meta.registry)
        made = [(await model.objects.create()).id for _ in range(10)]
        assert made == sorted(made)
        assert {value.version for value in made} == {7}


async def test_where_they_do_not(databases: Any, tmp_path: Any) -> None:
    old: PostgreSQL = databases.postgresql(15)
    model = declared(UUID7())
    async with Database(old.empty_database("test")) as database:
        with pytest.raises(ProgrammingError, match=r"uuidv7\(\) does not exist.*since version 18"):
            await database.create_all(model._meta.registry)
    for make in (databases.mariadb().empty_database, lambda name: f"sqlite:///{tmp_path / name}.db"):
        make_url: Callable[[str], str] = make
        async with Database(make_url("test")) as database:
            with pytest.raises(NotSupported, match="default="):
                await database.create_all(model._meta.registry)
