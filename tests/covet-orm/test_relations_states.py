"""Many-to-many relations against a model: whatever is added, removed, set and cleared from either side, in
transactions that are rolled back as well, the database has the pairs that a set of Python has, and what was loaded is
never stale."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from covet_orm.databases import Database
from covet_orm.fields import CharField, ForeignKey, IntegerField, ManyToManyField
from covet_orm.models import Model, Registry
from covet_orm.relations.managers import RelatedManager
from covet_orm.relations.prefetching import prefetch_related_objects

school = Registry()
COUNT = 3


class Base(Model):
    class Meta:
        abstract = True
        registry = school


class Pupil(Base):
    name = CharField(max_length=10)
    friends: ManyToManyField[Pupil] = ManyToManyField("self")
    admires: ManyToManyField[Pupil] = ManyToManyField("self", symmetrical=False, related_name="admirers")
    courses: ManyToManyField[Course] = ManyToManyField("Course", related_name="pupils")
    clubs: ManyToManyField[Course] = ManyToManyField("Course", through="Membership", related_name="members")

    if TYPE_CHECKING:
        admirers: RelatedManager[Pupil]


class Course(Base):
    name = CharField(max_length=10)

    if TYPE_CHECKING:
        pupils: RelatedManager[Pupil]
        members: RelatedManager[Pupil]


class Membership(Base):
    """Nothing keeps a pair from being there twice but the manager."""

    pupil = ForeignKey(Pupil, related_name="+")
    course = ForeignKey(Course, related_name="+")
    fee = IntegerField(default=0)


RELATIONS: dict[str, tuple[str, type[Any], type[Any]]] = {
    "courses": ("pupils", Pupil, Course),
    "clubs": ("members", Pupil, Course),
    "friends": ("friends", Pupil, Pupil),
    "admires": ("admirers", Pupil, Pupil),
}
relations = st.sampled_from(sorted(RELATIONS))
numbers = st.integers(0, COUNT - 1)
several = st.lists(numbers, max_size=COUNT + 1)


class UndoneError(Exception):
    """Leaves a transaction."""


class Machine(RuleBasedStateMachine):
    """Changes one pair of sides at a time."""

    url: str

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.pairs: dict[str, set[tuple[int, int]]] = {name: set() for name in RELATIONS}
        self.runner.run(self.begin())

    async def begin(self) -> None:
        self.database = Database(self.url, min_size=1)
        await self.database.create_all(school)
        # In this order: what refers to others goes first.
        for model in reversed(school.tables()):
            await self.database.execute(model.delete())
        self.objects: dict[type[Any], list[Any]] = {
            model: [await model.objects.using(self.database).create(name=str(number)) for number in range(COUNT)]
            for model in (Pupil, Course)
        }

    def teardown(self) -> None:
        self.runner.run(self.database.close())
        self.runner.close()

    def change(
        self,
        name: str,
        reverse: bool,
        owner: int,
        act: Callable[[Any, list[Any]], Awaitable[object]],
        model: Callable[[set[int]], set[int]],
        *,
        undone: bool,
    ) -> None:
        """Change what belongs to an object, and the model of it."""
        back, near, far = RELATIONS[name]
        if reverse:
            near, far = far, near
        manager = getattr(self.objects[near][owner], back if reverse else name)

        async def run() -> None:
            if not undone:
                await act(manager, self.objects[far])
                return
            try:
                async with self.database.transaction():
                    await act(manager, self.objects[far])
                    raise UndoneError
            except UndoneError:
                pass

        self.runner.run(run())
        if undone:
            return
        pairs = self.pairs[name]
        there = {b if not reverse else a for a, b in pairs if (a if not reverse else b) == owner}
        after = model(set(there))
        if after != there:
            assert not manager.is_loaded
        for other in there ^ after:
            sides = {(other, owner) if reverse else (owner, other)}
            if name == "friends":
                sides |= {(other, owner), (owner, other)}
            if other in after:
                pairs |= sides
            else:
                pairs -= sides

    @rule(name=relations, reverse=st.booleans(), owner=numbers, others=several, undone=st.booleans())
    def add(self, name: str, reverse: bool, owner: int, others: list[int], undone: bool) -> None:
        self.change(
            name,
            reverse,
            owner,
            lambda manager, objects: manager.add(*(objects[other] for other in others)),
            lambda there: there | set(others),
            undone=undone,
        )

    @rule(name=relations, reverse=st.booleans(), owner=numbers, others=several, undone=st.booleans())
    def remove(self, name: str, reverse: bool, owner: int, others: list[int], undone: bool) -> None:
        self.change(
            name,
            reverse,
            owner,
            lambda manager, objects: manager.remove(*(objects[other].pk for other in others)),
            lambda there: there - set(others),
            undone=undone,
        )

    @rule(name=relations, reverse=st.booleans(), owner=numbers, others=several, undone=st.booleans())
    def set(self, name: str, reverse: bool, owner: int, others: list[int], undone: bool) -> None:
        self.change(
            name,
            reverse,
            owner,
            lambda manager, objects: manager.set([objects[other] for other in others]),
            lambda there: {*others},
            undone=undone,
        )

    @rule(name=relations, reverse=st.booleans(), owner=numbers, undone=st.booleans())
    def clear(self, name: str, reverse: bool, owner: int, undone: bool) -> None:
        self.change(name, reverse, owner, lambda manager, objects: manager.clear(), lambda there: {*()}, undone=undone)

    @rule(name=relations, reverse=st.booleans())
    def load(self, name: str, reverse: bool) -> None:
        """Have the objects know what belongs to them; a later change through their manager makes them forget it."""
        back, near, far = RELATIONS[name]
        self.runner.run(prefetch_related_objects(self.objects[far if reverse else near], back if reverse else name))

    @invariant()
    def the_database_has_the_pairs(self) -> None:
        async def found(name: str, *, reverse: bool) -> list[tuple[int, int]]:
            back, near, far = RELATIONS[name]
            if reverse:
                near, far, name = far, near, back
            pairs: list[tuple[int, int]] = []
            for owner in await near.objects.using(self.database).prefetch_related(name):
                pairs += [(int(owner.name), int(other.name)) for other in getattr(owner, name)]
            return pairs

        for name, wanted in self.pairs.items():
            assert sorted(self.runner.run(found(name, reverse=False))) == sorted(wanted)
            there = [(b, a) for a, b in self.runner.run(found(name, reverse=True))]
            assert sorted(there) == sorted(wanted)

    @invariant()
    def the_manager_used_last_is_right(self) -> None:
        async def all_of(owner: Any, name: str) -> list[int]:
            return [int(other.name) for other in await getattr(owner, name).all()]

        for name, pairs in self.pairs.items():
            for number, owner in enumerate(self.objects[RELATIONS[name][1]]):
                if not getattr(owner, name).is_loaded:
                    wanted = sorted(b for a, b in pairs if a == number)
                    assert sorted(self.runner.run(all_of(owner, name))) == wanted


def test_many_to_many_relations_are_sets_of_pairs(url: str) -> None:
    machine = type("MachineOf", (Machine,), {"url": url})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=12,
            stateful_step_count=15,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
