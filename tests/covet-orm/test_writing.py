"""`save`, `update`, `delete`, `bulk_create`, `bulk_update` and `iterator`, on every database."""

from __future__ import annotations

import datetime as dt
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import pytest

from covet.testing.conformance.faults import at_every_await
from covet_orm.databases import Database
from covet_orm.exceptions import FieldError, FieldNotLoaded, ModelError, QueryError, UniqueViolation, ValidationError
from covet_orm.expressions import F
from covet_orm.expressions.functions import UUID4
from covet_orm.fields import (
    BooleanField,
    CharField,
    DateTimeField,
    ForeignKey,
    GeneratedField,
    IntegerField,
    JSONField,
    UUIDField,
)
from covet_orm.models import Model, Registry

pytestmark = pytest.mark.anyio

registry = Registry()


class Team(Model):
    name = CharField(max_length=50)

    class Meta:
        registry = registry


class Player(Model):
    name = CharField(max_length=30, unique=True)
    age = IntegerField(null=True)
    active = BooleanField(default=True)
    team = ForeignKey(Team, related_name="players", null=True)
    joined = DateTimeField(auto_now_add=True)

    class Meta:
        registry = registry


class Score(Model):
    """A key that the application gives."""

    code = CharField(max_length=10, primary_key=True)
    points = IntegerField(default=0)

    class Meta:
        registry = registry


class Ticket(Model):
    """Nothing but a key that the database counts."""

    class Meta:
        registry = registry


class Token(Model):
    """A key that the database makes up."""

    key = UUIDField(primary_key=True, db_default=UUID4())
    note = CharField(max_length=10, default="")

    class Meta:
        registry = registry


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    async with Database(url, max_size=4) as database:
        await database.create_all(registry)
        yield database


async def test_many_with_nothing_but_a_key(database: Database) -> None:
    tickets = [Ticket() for _ in range(3)]
    await Ticket.objects.bulk_create(tickets)
    assert sorted(await Ticket.objects.values_list("pk", flat=True)) == sorted(ticket.pk for ticket in tickets)
    assert len({ticket.pk for ticket in tickets}) == 3


async def test_many_whose_keys_the_database_makes_up(database: Database) -> None:
    given = UUID(int=7)
    tokens = [Token(note="a"), Token(note="b"), Token(key=given, note="c")]
    await Token.objects.bulk_create(tokens)
    found = dict(await Token.objects.values_list("note", "key"))
    assert found == {token.note: token.key for token in tokens}
    assert found["c"] == given
    assert all(token.saved and not token.changed_fields() for token in tokens)


async def players(count: int = 10) -> list[Player]:
    teams = await Team.objects.bulk_create([Team(name="red"), Team(name="blue")])
    return await Player.objects.bulk_create(
        [Player(name=f"p{number}", age=number, team=teams[number % 2]) for number in range(count)]
    )


async def test_an_object_is_inserted_once_and_then_updated(database: Database) -> None:
    player = Player(name="ada")
    assert not player.saved
    assert player.changed_fields() == ["name", "age", "active", "team", "joined"] or "name" in player.changed_fields()
    await player.save()
    assert player.saved
    assert player.id is not None
    assert player.changed_fields() == []
    player.age = 36
    assert player.changed_fields() == ["age"]
    await player.save()
    assert player.changed_fields() == []
    found = await Player.objects.get(name="ada")
    assert (found.id, found.age, found.joined) == (player.id, 36, player.joined)
    assert await Player.objects.count() == 1


async def test_save_writes_what_changed_and_nothing_else(database: Database) -> None:
    (player,) = await players(1)
    await Player.objects.filter(id=player.id).update(age=99)
    player.active = False
    await player.save()
    found = await Player.objects.get(id=player.id)
    assert (found.age, found.active) == (99, False)


async def test_update_fields_writes_these_alone(database: Database) -> None:
    (player,) = await players(1)
    player.age, player.name = 5, "other"
    await player.save(update_fields=["age"])
    found = await Player.objects.get(id=player.id)
    assert (found.age, found.name) == (5, "p0")
    assert player.changed_fields() == ["name"]
    with pytest.raises(FieldError, match="has no field 'agee'; did you mean 'age'"):
        await player.save(update_fields=["agee"])


async def test_saving_what_is_gone_is_an_error(database: Database) -> None:
    (player,) = await players(1)
    await Player.objects.all().delete()
    player.age = 3
    with pytest.raises(Player.DoesNotExist, match="not there any more"):
        await player.save()


async def test_a_changed_key_is_a_new_value_of_the_same_row(database: Database) -> None:
    score = await Score.objects.create(code="a", points=1)
    score.code = "b"
    await score.save()
    assert await Score.objects.all().values_list("code", "points") == [("b", 1)]


async def test_a_duplicate_names_the_field(database: Database) -> None:
    await players(2)
    with pytest.raises(UniqueViolation, match="name") as told:
        await Player.objects.create(name="p1")
    assert told.value.fields == ("name",)
    with pytest.raises(UniqueViolation) as told:
        await Player.objects.filter(name="p0").update(name="p1")
    assert told.value.fields == ("name",)
    assert "p1" not in str(told.value)


async def test_an_object_is_deleted(database: Database) -> None:
    first, second = await players(2)
    assert await first.delete() == 1
    assert not first.saved
    assert await Player.objects.all().values_list("name", flat=True) == [second.name]
    with pytest.raises(QueryError, match="not saved yet"):
        await first.delete()
    await first.save()
    assert await Player.objects.count() == 2


async def test_deleting_takes_what_refers_to_it(database: Database) -> None:
    await players(4)
    assert await Team.objects.filter(name="red").delete() == 1
    assert sorted(await Player.objects.all().values_list("name", flat=True)) == ["p1", "p3"]


async def test_update_of_a_query(database: Database) -> None:
    await players(10)
    assert await Player.objects.filter(age__lt=3).update(age=F("age") + 10, active=False) == 3
    assert sorted(await Player.objects.filter(active=False).values_list("age", flat=True)) == [10, 11, 12]
    assert await Player.objects.filter(team__name="blue").update(active=False) == 5
    assert await Player.objects.order_by("name")[:2].update(team=None) == 2
    assert await Player.objects.filter(team=None).count() == 2
    # As many as match, whether they had the value already or not.
    assert await Player.objects.all().update(active=False) == 10


async def test_what_update_refuses(database: Database) -> None:
    await players(1)
    with pytest.raises(FieldError, match="did you mean 'age'"):
        await Player.objects.all().update(aeg=1)
    with pytest.raises(QueryError, match="'x' is no whole number"):
        await Player.objects.all().update(age="x")
    with pytest.raises(QueryError, match="has 31 characters"):
        await Player.objects.all().update(name="x" * 31)
    with pytest.raises(QueryError, match="may not be None"):
        await Player.objects.all().update(name=None)
    with pytest.raises(QueryError, match="nothing to write"):
        await Player.objects.all().update()
    assert await Player.objects.filter(name="p0", age=0).exists()


async def test_delete_of_a_query(database: Database) -> None:
    await players(10)
    assert await Player.objects.order_by("-age")[:2].delete() == 2
    assert await Player.objects.filter(team__name="red").delete() == 4
    assert sorted(await Player.objects.all().values_list("age", flat=True)) == [1, 3, 5, 7]
    assert await Player.objects.filter(age__in=[]).delete() == 0
    assert await Player.objects.all().delete() == 4


@pytest.mark.parametrize("count", [0, 1, 2, 999, 1000, 1001, 5000])
async def test_many_objects_get_their_keys(database: Database, count: int) -> None:
    await Player.objects.create(name="before")
    made = await Player.objects.bulk_create([Player(name=f"n{number}", age=number) for number in range(count)])
    assert len({player.id for player in made}) == count
    found = {player.id: player for player in await Player.objects.exclude(name="before")}
    assert len(found) == count
    for player in made:
        assert (found[player.id].name, found[player.id].age) == (player.name, player.age)
        assert player.changed_fields() == []
    after = await Player.objects.create(name="after")
    assert after.id not in found


async def test_objects_with_keys_of_their_own(database: Database) -> None:
    made = await Score.objects.bulk_create([Score(code=f"c{number}") for number in range(50)], batch_size=7)
    assert await Score.objects.filter(points=0).count() == len(made) == 50
    mixed = await Player.objects.bulk_create([Player(id=1000, name="a"), Player(name="b"), Player(id=2000, name="c")])
    assert [player.id for player in mixed][::2] == [1000, 2000]
    assert await Player.objects.filter(name="b", id=mixed[1].id).exists()


async def test_all_of_many_or_none(database: Database) -> None:
    await players(3)
    with pytest.raises(UniqueViolation) as told:
        await Player.objects.bulk_create([Player(name="new"), Player(name="p1")])
    assert told.value.fields == ("name",)
    with pytest.raises(ValidationError, match="object 1: Player: name: it has 31 characters") as wrong:
        await Player.objects.bulk_create([Player(name="new"), Player(name="x" * 31)])
    assert wrong.value.errors == {"name": ["it has 31 characters, and may have 30"]}
    with pytest.raises(ValidationError, match="object 2: Player: name: it has no value"):
        await Player.objects.bulk_create([Player(name="new"), Player(name="newer"), Player(age=1)])
    with pytest.raises(ModelError, match="was given <Team"):
        await Player.objects.bulk_create([Team(name="x")])  # type: ignore[list-item]
    with pytest.raises(QueryError, match="batch_size=0"):
        await Player.objects.bulk_create([Player(name="new")], batch_size=0)
    assert await Player.objects.count() == 3


async def test_rows_that_are_there_already(database: Database) -> None:
    await players(2)
    unique: dict[str, Any] = {"unique_fields": ["name"]}
    await Player.objects.bulk_create([Player(name="p0", age=7), Player(name="new", age=8)], ignore_conflicts=True)
    assert await Player.objects.order_by("name").values_list("name", "age") == [("new", 8), ("p0", 0), ("p1", 1)]
    await Player.objects.bulk_create(
        [Player(name="p0", age=7), Player(name="newer", age=9)], update_conflicts=True, update_fields=["age"], **unique
    )
    assert await Player.objects.order_by("name").values_list("name", "age") == [
        ("new", 8), ("newer", 9), ("p0", 7), ("p1", 1),
    ]  # fmt: skip
    with pytest.raises(QueryError, match="needs update_fields"):
        await Player.objects.bulk_create([Player(name="x")], update_conflicts=True, **unique)
    with pytest.raises(QueryError, match="exclude each other"):
        await Player.objects.bulk_create([Player(name="x")], update_conflicts=True, ignore_conflicts=True)


async def test_some_fields_of_many(database: Database) -> None:
    made = await players(20)
    for player in made[::2]:
        player.age, player.active = 100, False
    assert await Player.objects.bulk_update(made[::2], ["age"], batch_size=3) == 10
    assert await Player.objects.filter(age=100, active=True).count() == 10
    assert made[0].changed_fields() == ["active"]
    with pytest.raises(QueryError, match="not saved yet"):
        await Player.objects.bulk_update([Player(name="x")], ["age"])
    with pytest.raises(FieldError, match="by which it finds the rows"):
        await Player.objects.bulk_update(made, ["id"])


async def test_rows_one_chunk_at_a_time(database: Database) -> None:
    await players(25)
    ages = [player.age async for player in Player.objects.order_by("id").iterator(chunk_size=4)]
    assert ages == list(range(25))
    seen = 0
    async with aclosing(Player.objects.order_by("id").iterator(chunk_size=4)) as found:
        async for _ in found:
            seen += 1
            if seen == 5:
                break
    # The connection is at rest: there are four of them, and nothing hangs.
    for _ in range(6):
        async with aclosing(Player.objects.all().iterator(chunk_size=2)) as found:
            async for _ in found:
                break
    assert await Player.objects.count() == 25
    with pytest.raises(QueryError, match="at least 1"):
        async for _ in Player.objects.all().iterator(chunk_size=0):
            pass


async def test_an_iterator_holds_one_chunk_in_memory(database: Database) -> None:
    await Score.objects.bulk_create([Score(code=f"c{number}", points=number) for number in range(20_000)])

    async def peak(chunk_size: int) -> int:
        tracemalloc.start()
        try:
            async for _ in Score.objects.all().iterator(chunk_size=chunk_size):
                pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    await peak(100)
    small, large = await peak(100), await peak(20_000)
    assert small < large / 5, (small, large)


async def test_cancelled_anywhere_all_or_none(database: Database) -> None:
    number = 0

    async def write() -> None:
        nonlocal number
        number += 1
        await Player.objects.bulk_create([Player(name=f"{number}-{part}") for part in range(3)])

    async def check() -> None:
        counts: dict[str, int] = {}
        for name in await Player.objects.all().values_list("name", flat=True):
            attempt = name.partition("-")[0]
            counts[attempt] = counts.get(attempt, 0) + 1
        assert set(counts.values()) <= {3}, counts
        assert all(pool.stats.in_use == 0 for pool in database.pools())

    assert await at_every_await(write, check) > 0


async def test_fifty_tasks_at_once(database: Database) -> None:
    async def work(number: int) -> None:
        player = await Player.objects.create(name=f"t{number}", age=0)
        for _ in range(5):
            await Player.objects.filter(id=player.id).update(age=F("age") + 1)
        await player.refresh_from_db()
        assert player.age == 5

    async with anyio.create_task_group() as group:
        for number in range(50):
            group.start_soon(work, number)
    assert await Player.objects.filter(age=5).count() == 50


class Line(Model):
    """What the database computes, and what it keeps as JSON."""

    price = IntegerField()
    total = GeneratedField(F("price") * 2, IntegerField())
    data = JSONField(null=True)
    at = DateTimeField(null=True)

    class Meta:
        registry = registry


async def test_what_the_database_computes_is_read_again_after_an_update(database: Database) -> None:
    line = await Line.objects.create(price=3)
    assert line.total == 6
    line.price = 4
    await line.save()
    with pytest.raises(FieldNotLoaded, match="refresh_from_db"):
        line.total
    await line.refresh_from_db("total")
    assert line.total == 8
    line.price = 5
    await Line.objects.bulk_update([line], ["price"])
    with pytest.raises(FieldNotLoaded):
        line.total
    assert (await Line.objects.get(id=line.id)).total == 10


@pytest.mark.parametrize(
    ("before", "after"),
    [([1], [True]), ([1], [1.0]), ({"a": {"b": 0}}, {"a": {"b": False}}), ([], None), (None, []), ([1], [1, 2])],
)
async def test_a_change_inside_of_json_is_noticed(database: Database, before: Any, after: Any) -> None:
    line = await Line.objects.create(price=1, data=before)
    assert line.changed_fields() == []
    line.data = after
    assert line.changed_fields() == ["data"]
    await line.save()
    found = await Line.objects.get(id=line.id)
    assert repr(found.data) == repr(after)


async def test_an_object_of_another_kind_of_database(database: Database, tmp_path: Path) -> None:
    """What it remembers of its row is in the words of the database that it was written to last."""
    at = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    line = await Line.objects.create(price=1, data={"a": [1]}, at=at)
    async with Database(f"sqlite:///{tmp_path / 'other.db'}", alias="other") as other:
        await other.create_all(registry)
        await Line.objects.using(other).create(id=line.id, price=7)
        line.price = 2
        await line.save(using=other)
        assert line.changed_fields() == []
        line.at = at + dt.timedelta(hours=1)
        line.data["a"].append(2)
        assert line.changed_fields() == ["data", "at"]
        await line.save()
        found = await Line.objects.using(other).get(id=line.id)
        assert (found.price, found.data, found.at) == (2, {"a": [1, 2]}, line.at)
