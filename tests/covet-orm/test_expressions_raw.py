"""SQL as an expression: in definitions and in queries."""

from __future__ import annotations

import pytest

import covet_orm as orm
from covet_orm import CheckViolation, Database, F, Q, QueryError, RawSQL, UniqueViolation

pytestmark = pytest.mark.anyio
registry = orm.Registry()


class Line(orm.Model):
    price = orm.IntegerField[int]()
    count = orm.IntegerField[int](db_default=RawSQL("3 - 1"))
    total = orm.GeneratedField(RawSQL("price * count"), orm.IntegerField[int]())

    class Meta:
        registry = registry
        app_label = "raw"
        constraints = [
            orm.CheckConstraint(RawSQL("price % 10 <> 9 OR count = 1"), name="odd"),
            orm.UniqueConstraint(RawSQL("price % 100"), name="cents", databases=["postgresql", "sqlite"]),
        ]


async def test_it_stands_in_definitions_and_in_queries(url: str) -> None:
    async with Database(url) as database:
        await database.create_all(registry)
        line = await Line.objects.using(database).create(price=101)
        await line.refresh_from_db()
        assert (line.count, line.total) == (2, 202)
        with pytest.raises(CheckViolation):
            await Line.objects.using(database).create(price=19)
        if database.kind != "mariadb":
            with pytest.raises(UniqueViolation):
                await Line.objects.using(database).create(price=201)
        await Line.objects.using(database).create(price=50, count=1)
        lines = Line.objects.using(database)
        # In parentheses, whatever is around it.
        assert await lines.filter(RawSQL("price = 7 OR price = 50") & Q(count=2)).count() == 0
        assert await lines.filter(~RawSQL("price % 2 = 0")).values_list("price", flat=True) == [101]
        double = RawSQL("price + 1", orm.IntegerField[int]()) * 2
        assert await lines.annotate(double=double).order_by("price").values_list("double", flat=True) == [102, 204]
        assert await lines.filter(count__lt=RawSQL("price - 99", orm.IntegerField[int]())).count() == 0
        assert await lines.order_by(RawSQL("-price").asc(), F("count")).values_list("price", flat=True) == [101, 50]


def test_what_it_needs_is_told() -> None:
    with pytest.raises(QueryError, match="a text of SQL is needed"):
        RawSQL("  ")
    assert repr(RawSQL("a > b")) == "RawSQL('a > b')"


async def test_a_query_that_gives_its_values_needs_their_type(url: str) -> None:
    async with Database(url) as database:
        await database.create_all(registry)
        with pytest.raises(QueryError, match="give it output_field"):
            await Line.objects.using(database).annotate(one=RawSQL("1")).all()
