"""What holds of any two sets of models: what is detected between them makes one of the other, and no more."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tests.migrations.model_classes import model_sets

from covet_migrate.changes import Changes, Unattended, arrange, detect, optimize
from covet_migrate.changes.questions import Fill, Questions, Rename
from covet_migrate.exceptions import MigrationError
from covet_migrate.migrations import Key, Migration
from covet_migrate.operations.base import Operation
from covet_migrate.state import ModelState, State
from covet_migrate.state.declarations import same
from covet_migrate.state.from_models import state_of
from covet_migrate.state.rendering import Renderer
from covet_orm import ModelError, Registry

FEW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


class Anything:
    """Answers all questions; yes or no to renames as a random number says."""

    def __init__(self, seed: int, yes: float = 0.5) -> None:
        self.random = random.Random(seed)
        self.yes = yes

    def renames(self) -> Collection[Rename]:
        return ()

    def is_model_renamed(self, old: ModelState, new: ModelState) -> bool:
        return self.random.random() < self.yes

    def is_field_renamed(self, model: ModelState, old: str, new: str) -> bool:
        return self.random.random() < self.yes

    def fill(self, asked: Fill) -> Any:
        return 1

    def replace(self, model: ModelState, name: str, loss: str) -> None:
        return None


def differences(one: State, other: State) -> list[str]:
    """What two states do not have in common."""
    found = [*(one.models.keys() ^ other.models.keys())]
    for label in one.models.keys() & other.models.keys():
        mine, theirs = one[label], other[label]
        found += [f"{label}.{name}" for name in mine.fields.keys() ^ theirs.fields.keys()]
        found += [
            f"{label}.{name}"
            for name in mine.fields.keys() & theirs.fields.keys()
            if not same(mine.fields[name], theirs.fields[name])
        ]
        for name in mine.options.keys() | theirs.options.keys():
            values = [model.options.get(name, ()) for model in (mine, theirs)]
            if name in ("indexes", "constraints", "unique_together"):
                values = [sorted(map(repr, value)) for value in values]
            if not same(*values):
                found.append(f"{label}.Meta.{name}")
    return found


def between(before: State, after: State, questions: Questions) -> Changes:
    """What is detected between two states that can follow each other."""
    try:
        return detect(before, after, questions)
    except MigrationError as error:
        # A model has the table of another one that others refer to: somebody has to say what becomes of it.
        assume("that is one table with another model" not in str(error))
        assume("exchange the names of their tables" not in str(error))
        assume("is to be the primary key of" not in str(error))
        raise


class Numbered:
    """Names migrations by their number."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def __call__(self, app: str, operations: Sequence[Operation]) -> str:
        self.numbers[app] = self.numbers.get(app, 0) + 1
        return f"{self.numbers[app]:04}"


def apply(migrations: Sequence[Migration], state: State) -> State:
    for migration in migrations:
        state = migration.apply(state)
    return state


def some_order(migrations: Sequence[Migration], chance: random.Random) -> list[Migration]:
    """Some order that their dependencies allow."""
    left = list(migrations)
    ordered: list[Migration] = []
    done: set[Key] = set()
    while left:
        ready = [one for one in left if all(key in done for key in one.dependencies)]
        chosen = chance.choice(ready)
        left.remove(chosen)
        ordered.append(chosen)
        done.add(chosen.key)
    return ordered


@given(model_sets())
@FEW
def test_all_of_new_models_is_detected_and_nothing_after_that(models: Registry) -> None:
    after = state_of(models)
    changes = detect(State(), after, Unattended())
    made = changes.apply(State())
    assert differences(made, after) == []
    assert detect(made, after, Unattended()).detected == []
    assert detect(after, state_of(models), Unattended()).detected == []


@given(model_sets(), model_sets(), st.integers(0, 1000))
@FEW
def test_what_is_detected_makes_one_state_of_another(before: Registry, after: Registry, seed: int) -> None:
    old, new = state_of(before), state_of(after)
    changes = between(old, new, Anything(seed))
    made = changes.apply(old)
    assert differences(made, new) == []
    assert detect(made, new, Unattended()).detected == []


@given(model_sets(), model_sets(), st.integers(0, 1000))
@FEW
def test_every_model_can_be_rendered_after_every_operation(before: Registry, after: Registry, seed: int) -> None:
    state, renderer = state_of(before), Renderer()
    for one in between(state, state_of(after), Anything(seed)).detected:
        state = one.operation.apply(state, one.app)
        if one.label in state:
            try:
                renderer.render(state, one.label)
            except ModelError as error:
                # A model whose key gets several columns while what referred to it changes as well, in one run.
                assume("a foreign key has one" not in str(error))
                raise


@given(model_sets(), model_sets(), st.integers(0, 1000))
@FEW
def test_migrations_make_the_state_in_every_order_that_their_dependencies_allow(
    before: Registry, after: Registry, seed: int
) -> None:
    empty, old, new = State(), state_of(before), state_of(after)
    name = Numbered()
    first = arrange(detect(empty, old, Unattended()), empty, {}, name)
    leaves = {one.app: one.key for one in first}
    second = arrange(between(old, new, Anything(seed)), old, leaves, name)
    history = [*first, *second]
    assert len({one.key for one in history}) == len(history)
    chance = random.Random(seed)
    ordered = some_order(history, chance)
    assert differences(apply(ordered, empty), new) == []
    for app in {one.app for one in history}:
        names = [one.name for one in ordered if one.app == app]
        assert names == sorted(names)


@given(model_sets(), model_sets())
@FEW
def test_the_same_is_detected_every_time(before: Registry, after: Registry) -> None:
    def told(changes: Changes, state: State) -> str:
        found = arrange(changes, state, {}, Numbered())
        return repr([(one.key, one.dependencies, list(map(repr, one.operations))) for one in found])

    old, new = state_of(before), state_of(after)
    backwards = [State(dict(reversed(list(one.models.items())))) for one in (old, new)]
    assert told(between(old, new, Anything(1, 0)), old) == told(
        between(backwards[0], backwards[1], Anything(1, 0)), backwards[0]
    )


@given(st.lists(model_sets(most=3), min_size=2, max_size=4), st.integers(0, 1000))
@FEW
def test_optimizing_a_history_does_not_change_the_state(sets: list[Registry], seed: int) -> None:
    state = State()
    operations: list[Operation] = []
    for models in sets:
        # All in one application: what an optimizer sees is the operations of one.
        after = _of_one_app(state_of(models))
        changes = between(state, after, Anything(seed))
        operations += changes.operations().get("app", [])
        state = changes.apply(state)
    fewer = optimize(operations, "app")
    made = State()
    for operation in fewer:
        made = operation.apply(made, "app")
    assert differences(made, state) == []
    assert len(fewer) <= len(operations)
    assert optimize(fewer, "app") == fewer


def _of_one_app(state: State) -> State:
    """A state of several applications as one of an application, whose models have the names of both."""
    from covet_orm.fields.related import RelatedField

    def label(name: object) -> str:
        return "app." + str(name).replace(".", "") if name != "self" else "self"

    models: dict[str, ModelState] = {}
    for model in state:
        fields: dict[str, Any] = {}
        for name, field in model.fields.items():
            fields[name] = field
            if isinstance(field, RelatedField):
                args, options = field.declared
                fields[name] = type(field)(label(field.to), *args[1:], **options)
        options = {name: value for name, value in model.options.items() if name != "db_table"}
        moved = ModelState("app", f"{model.app}{model.name}", fields).with_options(**options)
        models[moved.label] = moved
    return State(models)
