"""`update_returning` and `delete_returning`: rows that are written and read at once, on every database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from covet.testing.conformance.faults import at_every_await
from covet_orm.databases import Database
from covet_orm.exceptions import (
    FieldError,
    FieldNotLoaded,
    ForeignKeyViolation,
    QueryError,
    StaleObject,
    UniqueViolation,
)
from covet_orm.expressions import Case, F, Max, OuterRef, RowNumber, Subquery, Value, When, Window
from covet_orm.fields import PROTECT, CharField, ForeignKey, GeneratedField, IntegerField, JSONField, VersionField
from covet_orm.models import Model, Registry
from covet_orm.relations.prefetching import Prefetch
from covet_orm.signals import post_delete

pytestmark = pytest.mark.anyio

registry = Registry()


class Queue(Model):
    name = CharField(max_length=20)

    class Meta:
        registry = registry


class Job(Model):
    queue = ForeignKey(Queue, related_name="jobs", null=True)
    name = CharField(max_length=20, unique=True)
    state = CharField(max_length=10, default="new")
    tries = IntegerField(default=0)
    twice = GeneratedField(F("tries") * 2, IntegerField())
    data = JSONField(null=True)

    class Meta:
        registry = registry


class Urgent(Job):
    """In two tables."""

    deadline = IntegerField(default=0)

    class Meta:
        registry = registry


class Note(Model):
    job = ForeignKey(Job, related_name="notes", on_delete=PROTECT)
    text = CharField(max_length=20)

    class Meta:
        registry = registry


class Cell(Model):
    """A key of two columns, and a version."""

    row = IntegerField(primary_key=True)
    column = IntegerField(primary_key=True)
    value = IntegerField(default=0)
    version = VersionField()

    class Meta:
        registry = registry


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    async with Database(url) as made:
        await made.create_all(registry)
        yield made


async def jobs(count: int) -> list[Job]:
    queues = [await Queue.objects.create(name=name) for name in ("red", "blue")]
    return await Job.objects.bulk_create(
        [Job(name=f"j{n}", queue=queues[n % 2], tries=n, data={"n": n}) for n in range(count)]
    )


def told(found: list[Any]) -> list[tuple[Any, ...]]:
    return sorted((one.name, one.state, one.tries, one.twice) for one in found)


async def test_rows_are_updated_and_read_at_once(database: Database) -> None:
    made = await jobs(6)
    found = await Job.objects.filter(tries__lt=2).update_returning(tries=F("tries") + 10, state="old")
    assert told(found) == [("j0", "old", 10, 20), ("j1", "old", 11, 22)]
    assert {one.pk for one in found} == {made[0].pk, made[1].pk}
    assert [one.data for one in sorted(found, key=lambda one: one.name)] == [{"n": 0}, {"n": 1}]
    # They are objects as any: they know what changed, and are saved and deleted.
    assert found[0].changed_fields() == []
    found[0].tries = 0
    await found[0].save()
    assert await Job.objects.filter(tries=0).count() == 1
    # Across a relation, of a slice, and by expressions of every kind.
    blue = await Job.objects.filter(queue__name="blue").update_returning(state="blue")
    assert {one.name for one in blue} == {"j1", "j3", "j5"}
    last = await Job.objects.order_by("-name")[:2].update_returning(
        tries=Case(When(state="blue", then=Value(1)), default=Value(2)),
        state=Subquery(Queue.objects.filter(pk=OuterRef("queue")).values("name")),
    )
    assert told(last) == [("j4", "red", 2, 4), ("j5", "blue", 1, 2)]
    placed = Job.objects.annotate(place=Window(RowNumber(), order_by="-name")).filter(place=1)
    assert told(await placed.update_returning(tries=7)) == [("j5", "blue", 7, 14)]
    assert await Job.objects.filter(pk=0).update_returning(tries=1) == []
    assert await Job.objects.all().none().update_returning(tries=1) == []
    assert await Job.objects.aggregate(m=Max("tries")) == {"m": max(one.tries for one in await Job.objects.all())}


async def test_rows_are_deleted_and_read_at_once(database: Database) -> None:
    await jobs(6)
    gone = await Job.objects.filter(tries__gte=4).delete_returning()
    assert told(gone) == [("j4", "new", 4, 8), ("j5", "new", 5, 10)]
    assert await Job.objects.count() == 4
    assert not any(one.saved for one in gone)
    await gone[0].save()
    assert await Job.objects.filter(name=gone[0].name).exists()
    assert {one.name for one in await Job.objects.order_by("name")[:1].delete_returning()} == {"j0"}
    assert {one.name for one in await Job.objects.filter(queue__name="blue", tries__lt=4).delete_returning()} == {
        "j1",
        "j3",
    }
    assert await Job.objects.all().none().delete_returning() == []
    assert len(await Job.objects.delete_returning()) == 2
    assert await Job.objects.delete_returning() == []


async def test_what_the_query_says_of_its_objects(database: Database) -> None:
    await jobs(2)
    for job in await Job.objects.all():
        await Note.objects.create(job=job, text=job.name)
    few = await Job.objects.only("name").update_returning(state="x")
    assert {one.name for one in few} == {"j0", "j1"}
    with pytest.raises(FieldNotLoaded):
        few[0].state
    whole = await Job.objects.prefetch_related(Prefetch("notes", to_attr="texts")).update_returning(tries=1)
    assert sorted(one.texts[0].text for one in whole) == ["j0", "j1"]
    with pytest.raises(ForeignKeyViolation):
        await Job.objects.filter(name="j0").delete_returning()
    gone = await Note.objects.prefetch_related("job").delete_returning()
    assert sorted(note.job.name for note in gone) == ["j0", "j1"]


async def test_many_who_take_the_first_ones_take_each_once(database: Database) -> None:
    """A queue of jobs: whoever takes some by one call has them alone."""
    await Job.objects.bulk_create([Job(name=f"j{n:02}") for n in range(40)])
    query = Job.objects.filter(state="new").order_by("id")

    async def take(found: list[int]) -> None:
        for _ in range(20):
            found += [one.pk for one in await query[:2].update_returning(state="taken", tries=F("tries") + 1)]

    taken: list[list[int]] = [[] for _ in range(8)]
    await asyncio.gather(*map(take, taken))
    everything = [pk for found in taken for pk in found]
    assert len(everything) == len(set(everything)) == 40
    assert set(await Job.objects.values_list("tries", flat=True)) == {1}
    if database.kind == "sqlite":
        return
    await Job.objects.update(state="new")
    first = (await query.first()) or Job()
    holding, done = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with database.transaction():
            await Job.objects.filter(pk=first.pk).select_for_update()
            holding.set()
            await done.wait()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(hold())
        await holding.wait()
        # What somebody has is left out where that is asked for, by one statement or by several.
        found = await query.select_for_update(skip_locked=True)[:3].update_returning(state="taken")
        done.set()
    assert len(found) == 3
    assert first.pk not in {one.pk for one in found}


async def test_who_waits_for_a_row_looks_again_whether_it_is_wanted(database: Database) -> None:
    """A subquery that chooses rows has seen them as they were before one waited."""
    await Job.objects.bulk_create([Job(name=f"j{n}") for n in range(3)])
    query = Job.objects.filter(state="new").order_by("id")
    holding, done = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with database.transaction():
            await Job.objects.filter(name="j0").update(state="held")
            holding.set()
            await done.wait()

    async def take() -> list[Job]:
        await holding.wait()
        return await query[:1].update_returning(state="taken")

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(hold())
        taking = tasks.create_task(take())
        await holding.wait()
        # So that it waits for the row, most probably; whenever it comes, it must not take it.
        await asyncio.sleep(0.2)
        done.set()
    assert "j0" not in {one.name for one in taking.result()}
    assert (await Job.objects.get(name="j0")).state == "held"


async def test_many_who_delete_the_first_ones_get_each_once(database: Database) -> None:
    await Job.objects.bulk_create([Job(name=f"j{n:02}") for n in range(20)])

    async def take(found: list[int]) -> None:
        for _ in range(10):
            found += [one.pk for one in await Job.objects.order_by("name")[:2].delete_returning()]

    taken: list[list[int]] = [[] for _ in range(4)]
    await asyncio.gather(*map(take, taken))
    everything = [pk for found in taken for pk in found]
    assert len(everything) == len(set(everything))
    assert await Job.objects.count() == 20 - len(everything)


async def test_keys_of_several_columns_and_versions(database: Database) -> None:
    await Cell.objects.bulk_create([Cell(row=r, column=c, value=r * c) for r in (1, 2) for c in (1, 2)])
    before = await Cell.objects.get(pk=(2, 2))
    found = await Cell.objects.filter(pk__in=[(1, 1), (2, 2)]).update_returning(value=F("value") + 1)
    assert sorted((one.pk, one.value) for one in found) == [((1, 1), 2), ((2, 2), 5)]
    assert {one.version for one in found} == {before.version + 1}
    before.value = 0
    with pytest.raises(StaleObject):
        await before.save()
    assert {one.pk for one in await Cell.objects.order_by("-pk")[:1].delete_returning()} == {(2, 2)}


async def test_objects_in_two_tables(database: Database) -> None:
    for number in range(3):
        await Urgent.objects.create(name=f"u{number}", deadline=number)
    found = await Urgent.objects.filter(deadline__gt=0).update_returning(state="late", deadline=9)
    assert sorted((one.name, one.state, one.deadline) for one in found) == [("u1", "late", 9), ("u2", "late", 9)]
    gone = await Urgent.objects.filter(state="late").delete_returning()
    assert sorted((one.name, one.deadline) for one in gone) == [("u1", 9), ("u2", 9)]
    assert await Job.objects.count() == 1


async def test_signals_are_sent_for_what_is_deleted(database: Database) -> None:
    await jobs(3)
    heard: list[str] = []

    async def listen(sender: Any, instance: Any, **told: Any) -> None:
        heard.append(instance.name)

    post_delete.connect(listen, Job)
    try:
        gone = await Job.objects.filter(tries__gt=0).delete_returning()
    finally:
        post_delete.disconnect(listen, Job)
    assert sorted(heard) == sorted(one.name for one in gone) == ["j1", "j2"]
    assert not any(one.saved for one in gone)


async def test_all_rows_are_written_or_none_when_it_is_cancelled(database: Database) -> None:
    await jobs(4)
    await Job.objects.filter(name="j0").update_returning(state="x")

    async def change() -> None:
        await Job.objects.filter(state="new").update_returning(state="y")

    async def check() -> None:
        states = await Job.objects.order_by("name").values_list("state", flat=True)
        assert states in (["x", "new", "new", "new"], ["x", "y", "y", "y"]), states
        await Job.objects.filter(state="y").update(state="new")

    await at_every_await(change, check)


async def test_what_is_refused(database: Database) -> None:
    await jobs(2)
    with pytest.raises(FieldError, match="of the key"):
        await Job.objects.update_returning(id=5)
    with pytest.raises(FieldError, match="did you mean 'tries'"):
        await Job.objects.update_returning(tires=5)
    with pytest.raises(QueryError, match="for objects"):
        await Job.objects.values("name").update_returning(tries=5)
    with pytest.raises(QueryError, match="for objects"):
        await Job.objects.values("name").delete_returning()
    with pytest.raises(QueryError, match="prefetch_related"):
        await Job.objects.select_related("queue").update_returning(tries=5)
    with pytest.raises(QueryError, match="set operation"):
        await Job.objects.filter(pk=1).union(Job.objects.filter(pk=2)).delete_returning()
    with pytest.raises(QueryError, match=r"Job\.tries"):
        await Job.objects.update_returning(tries="many")
    with pytest.raises(UniqueViolation) as caught:
        await Job.objects.update_returning(name="same")
    assert caught.value.fields == ("name",)
    assert await Job.objects.filter(name="same").count() == 0
