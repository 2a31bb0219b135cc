"""Exclusion constraints of ranges, and what is checked at the end of a transaction: unique and exclusion constraints,
foreign keys."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from tests.services.databases import SERVERS, ask

from covet_orm import (
    CASCADE,
    DO_NOTHING,
    RESTRICT,
    DateRangeField,
    DateTimeField,
    DateTimeRangeField,
    ExclusionConstraint,
    ExclusionViolation,
    F,
    ForeignKey,
    ForeignKeyViolation,
    IntegerField,
    IntegerRangeField,
    Model,
    ModelError,
    NotSupported,
    OneToOneField,
    ProgrammingError,
    Q,
    Range,
    Registry,
    TextField,
    UniqueConstraint,
    UniqueViolation,
)
from covet_orm.databases import Database
from covet_orm.expressions.functions import Func

pytestmark = pytest.mark.anyio
POSTGRESQL = [name for name in SERVERS if name.startswith("postgresql")]
DEFERS = ["sqlite", *POSTGRESQL]


def declare(name: str, registry: Registry, *, constraints: Any = (), **fields: Any) -> Any:
    meta = type("Meta", (), {"registry": registry, "app_label": "", "constraints": constraints})
    return type(Model)(name, (Model,), {"__module__": __name__, "Meta": meta, **fields})


def days(first: int, last: int) -> Range[dt.date]:
    return Range(dt.date(2024, 5, first), dt.date(2024, 5, last))


@pytest.mark.parametrize("server", POSTGRESQL, indirect=True)
async def test_no_room_is_booked_twice(url: str) -> None:
    registry = Registry()
    booking = declare(
        "Booking",
        registry,
        room=IntegerField(),
        nights=DateRangeField(),
        cancelled=TextField(default=""),
        constraints=[
            ExclusionConstraint([("room", "="), ("nights", "&&")], condition=Q(cancelled=""), name="one_at_a_time")
        ],
    )
    async with Database(url) as database:
        with pytest.raises(ProgrammingError, match="CREATE EXTENSION btree_gist"):
            await database.create_all(registry)
        assert await database.create_all(registry, extensions=["btree_gist"]) == ["booking"]
        await booking.objects.create(room=1, nights=days(1, 5))
        await booking.objects.create(room=1, nights=days(5, 6))
        await booking.objects.create(room=2, nights=days(1, 5))
        await booking.objects.create(room=1, nights=days(1, 9), cancelled="ill")
        with pytest.raises(ExclusionViolation) as caught:
            await booking.objects.create(room=1, nights=days(4, 5))
        assert caught.value.constraint == "one_at_a_time"
        assert caught.value.fields == ("room", "nights")
        assert await booking.objects.count() == 4


class Between(Func[Range[dt.datetime]]):
    """The range of two columns."""

    function = "tstzrange"
    arity = (2, 2)
    output_field = DateTimeRangeField()


@pytest.mark.parametrize("server", POSTGRESQL, indirect=True)
async def test_of_an_expression_that_is_checked_at_the_end(url: str) -> None:
    registry = Registry()
    turn = declare(
        "Turn",
        registry,
        begins=DateTimeField(),
        ends=DateTimeField(),
        constraints=[ExclusionConstraint([(Between("begins", "ends"), "&&")], deferrable="deferred")],
    )
    noon = dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC)
    hour = dt.timedelta(hours=1)
    async with Database(url) as database:
        await database.create_all(registry)
        first = await turn.objects.create(begins=noon, ends=noon + hour)
        second = await turn.objects.create(begins=noon + hour, ends=noon + 2 * hour)
        async with database.transaction():
            first.begins, first.ends = second.begins, second.ends
            await first.save()
            second.begins, second.ends = noon, noon + hour
            await second.save()

        async def overlap() -> None:
            async with database.transaction():
                await turn.objects.create(begins=noon, ends=noon + hour)
                assert await turn.objects.count() == 3

        with pytest.raises(ExclusionViolation):
            await overlap()
        assert await turn.objects.count() == 2
        found = turn.objects.annotate(during=Between("begins", "ends")).filter(during__contains=noon)
        assert await found.values_list("id", "during") == [(second.id, Range(noon, noon + hour))]


@pytest.mark.parametrize("server", POSTGRESQL, indirect=True)
async def test_a_transaction_says_when(url: str) -> None:
    registry = Registry()
    seat = declare(
        "Seat",
        registry,
        place=IntegerField(),
        span=IntegerRangeField(default=Range(0, 1)),
        constraints=[
            UniqueConstraint("place", deferrable="immediate", name="one_each"),
            ExclusionConstraint([("span", "&&")], deferrable="immediate", name="apart"),
        ],
    )
    async with Database(url) as database:
        await database.create_all(registry)
        await seat.objects.bulk_create([seat(place=place, span=(place, place + 1)) for place in (1, 2, 3)])
        with pytest.raises(UniqueViolation):
            await seat.objects.filter(place=1).update(place=2)
        with pytest.raises(ExclusionViolation):
            await seat.objects.filter(place=1).update(span=(2, 3))
        # All rows of one statement are seen at its end.
        await seat.objects.update(place=F("place") + 1)
        async with database.transaction():
            await database.execute("SET CONSTRAINTS one_each, apart DEFERRED")
            first, second, _ = await seat.objects.order_by("id")
            for one, other in ((first, second), (second, first)):
                await seat.objects.filter(id=one.id).update(place=other.place, span=other.span)
        places = await seat.objects.order_by("id").values_list("place", "span")
        assert places == [(3, Range(2, 3)), (2, Range(1, 2)), (4, Range(3, 4))]


@pytest.mark.parametrize("server", DEFERS, indirect=True)
async def test_foreign_keys_that_are_checked_at_the_end(url: str) -> None:
    registry = Registry()
    node = declare(
        "Node",
        registry,
        id=IntegerField(primary_key=True),
        next=ForeignKey("self", deferrable="deferred", on_delete=DO_NOTHING, related_name="+"),
        twin=OneToOneField("self", deferrable="deferred", null=True, on_delete=DO_NOTHING, related_name="+"),
    )
    async with Database(url) as database:
        await database.create_all(registry)
        # Two that refer to each other.
        async with database.transaction():
            await node.objects.create(id=1, next_id=2)
            await node.objects.create(id=2, next_id=1, twin_id=1)
        with pytest.raises(ForeignKeyViolation):
            await node.objects.create(id=3, next_id=9)

        async def refer_to_nothing() -> None:
            async with database.transaction():
                await node.objects.create(id=3, next_id=9)
                assert await node.objects.count() == 3

        with pytest.raises(ForeignKeyViolation):
            await refer_to_nothing()
        # The connection that was refused its COMMIT is at rest.
        assert await node.objects.order_by("id").values_list("id", flat=True) == [1, 2]
        async with database.transaction():
            await node.objects.filter(id=2).delete()
            await node.objects.create(id=2, next_id=2)
        with pytest.raises(ForeignKeyViolation):
            async with database.transaction():
                await node.objects.filter(id=2).delete()
        assert await node.objects.count() == 2


@pytest.mark.parametrize("server", DEFERS, indirect=True)
async def test_foreign_keys_that_are_checked_at_once(url: str) -> None:
    registry = Registry()
    team = declare("Team", registry, id=IntegerField(primary_key=True))
    player = declare(
        "Player",
        registry,
        team=ForeignKey(team, deferrable="immediate", on_delete=RESTRICT),
        other=ForeignKey(team, deferrable="immediate", on_delete=CASCADE, related_name="+", null=True),
        kept=ForeignKey(team, deferrable="deferred", on_delete=RESTRICT, related_name="+", null=True),
    )
    async with Database(url) as database:
        await database.create_all(registry)
        with pytest.raises(ForeignKeyViolation):
            async with database.transaction():
                await player.objects.create(team_id=1)
        defer = "SET CONSTRAINTS ALL DEFERRED" if database.kind == "postgresql" else "PRAGMA defer_foreign_keys = ON"
        async with database.transaction():
            await database.execute(defer)
            made = await player.objects.create(team_id=1)
            await team.objects.create(id=1)
        assert await player.objects.filter(team=1).values_list("id", flat=True) == [made.id]
        await team.objects.create(id=2)
        await player.objects.filter(id=made.id).update(kept=2)
        went_on: list[str] = []

        async def delete(number: int, first: str) -> None:
            async with database.transaction():
                await database.execute(first)
                await team.objects.filter(id=number).delete()
                went_on.append(first)

        # RESTRICT is not put off, whatever the constraint says; SQLite's pragma alone makes it NO ACTION.
        for number, first in ((2, "SELECT 1"), (1, defer)):
            with pytest.raises(ForeignKeyViolation):
                await delete(number, first)
        assert went_on == ([defer] if database.kind == "sqlite" else [])


@pytest.mark.parametrize("server", ["sqlite", "mariadb"], indirect=True)
async def test_what_is_refused_before_anything_is_sent(url: str) -> None:
    async with Database(url) as database:
        for constraint, told in (
            (ExclusionConstraint([("n", "=")]), "has no exclusion constraints; PostgreSQL has"),
            (UniqueConstraint("n", deferrable="deferred"), "has no unique constraints that are deferrable"),
        ):
            registry = Registry()
            declare("Thing", registry, n=IntegerField(), constraints=[constraint])
            with pytest.raises(NotSupported, match=told):
                await database.create_all(registry)
        registry = Registry()
        declare("Thing", registry, other=ForeignKey("self", deferrable="deferred", null=True))
        if database.kind == "mariadb":
            with pytest.raises(NotSupported, match=r"Thing\.other: mariadb has no foreign keys that are deferrable"):
                await database.create_all(registry)
            assert await ask(url, "SELECT count(*) FROM information_schema.tables WHERE table_name = 'thing'") == [(0,)]


def test_a_foreign_key_that_nobody_checks_is_not_deferrable() -> None:
    with pytest.raises(ModelError, match="no check that could be deferrable"):
        ForeignKey("self", deferrable="deferred", db_constraint=False)
