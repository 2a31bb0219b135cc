"""Migrations of what is detected: as few as can be, each after those that it depends on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.migrations.model_classes import declare

import covet_orm as orm
from covet_migrate.changes import Unattended, arrange, detect
from covet_migrate.changes.creation import circles
from covet_migrate.migrations import Key, Migration
from covet_migrate.operations.base import Operation
from covet_migrate.state import State
from covet_migrate.state.from_models import state_of
from covet_orm import Registry


def state(**bodies: dict[str, Any]) -> State:
    """The state of models, each called `app_Model`."""
    registry = Registry()
    for name, body in bodies.items():
        app, _, model = name.partition("_")
        declare(registry, app, model, body)
    return state_of(registry)


def to(label: str, **options: Any) -> orm.ForeignKey[Any]:
    return orm.ForeignKey(label, related_name="+", **options)


def written(before: State, after: State, leaves: dict[str, Key] | None = None) -> list[Migration]:
    numbers = {app: int(name) for app, name in (leaves or {}).values()}

    def name(app: str, operations: Sequence[Operation]) -> str:
        numbers[app] = numbers.get(app, 0) + 1
        return f"{numbers[app]:04}"

    found = arrange(detect(before, after, Unattended()), before, leaves or {}, name)
    made = before
    for migration in found:
        made = migration.apply(made)
    assert detect(made, after, Unattended()).detected == []
    return found


def outline(migrations: list[Migration]) -> list[tuple[str, list[str], list[str]]]:
    return [
        (str(one), [".".join(key) for key in one.dependencies], [each.describe() for each in one.operations])
        for one in migrations
    ]


def test_one_migration_for_each_application() -> None:
    found = written(State(), state(a_One={"two": to("b.Two")}, a_Four={}, b_Two={"three": to("c.Three")}, c_Three={}))
    assert outline(found) == [
        ("c.0001", [], ["Create model Three"]),
        ("b.0001", ["c.0001"], ["Create model Two"]),
        ("a.0001", ["b.0001"], ["Create model Four", "Create model One"]),
    ]
    assert all(one.is_initial for one in found)


def test_applications_that_need_each_other_get_one_more_migration() -> None:
    """The models are in no circle: none of them is created without a field."""
    after = state(a_One={"one": to("b.One")}, a_Two={}, b_One={}, b_Two={"two": to("a.Two")})
    assert outline(written(State(), after)) == [
        ("a.0001", [], ["Create model Two"]),
        ("b.0001", ["a.0001"], ["Create model One", "Create model Two"]),
        ("a.0002", ["a.0001", "b.0001"], ["Create model One"]),
    ]


def test_models_of_two_applications_that_refer_to_each_other() -> None:
    after = state(a_One={"other": to("b.One")}, b_One={"other": to("a.One", null=True)})
    assert outline(written(State(), after)) == [
        ("b.0001", [], ["Create model One"]),
        ("a.0001", ["b.0001"], ["Create model One"]),
        ("b.0002", ["a.0001", "b.0001"], ["Add field other to One"]),
    ]


def test_a_migration_depends_on_the_last_one_of_its_application_and_of_those_that_it_needs() -> None:
    before = state(a_One={}, b_One={}, c_One={})
    after = state(a_One={"other": to("b.One", null=True)}, b_One={}, c_One={"note": orm.TextField(null=True)})
    leaves = {"a": ("a", "0003"), "b": ("b", "0007"), "c": ("c", "0001")}
    found = written(before, after, leaves)
    assert outline(found) == [
        ("a.0004", ["a.0003", "b.0007"], ["Add field other to One"]),
        ("c.0002", ["c.0001"], ["Add field note to One"]),
    ]
    assert not any(one.is_initial for one in found)


def test_models_that_go_wait_for_those_elsewhere_that_refer_to_them() -> None:
    before = state(a_Gone={}, b_Stays={"gone": to("a.Gone")})
    after = state(b_Stays={})
    assert outline(written(before, after, {"a": ("a", "0001"), "b": ("b", "0001")})) == [
        ("b.0002", ["a.0001", "b.0001"], ["Remove field gone from Stays"]),
        ("a.0002", ["a.0001", "b.0002"], ["Delete model Gone"]),
    ]


def test_a_table_is_handed_on_across_applications() -> None:
    def handed(app: str) -> State:
        registry = Registry()
        for name in ("a", "b"):
            declare(registry, name, "One", {}, **({"db_table": "things"} if name == app else {}))
        return state_of(registry)

    leaves = {"a": ("a", "0001"), "b": ("b", "0001")}
    assert [one.app for one in written(handed("a"), handed("b"), leaves)] == ["a", "b"]
    assert [one.app for one in written(handed("b"), handed("a"), leaves)] == ["b", "a"]


def test_the_table_of_a_model_that_goes_is_handed_on_across_applications() -> None:
    registry, later = Registry(), Registry()
    declare(registry, "b", "Old", {}, db_table="things")
    declare(later, "a", "Fresh", {}, db_table="things")
    found = written(state_of(registry), state_of(later), {"b": ("b", "0001")})
    assert outline(found) == [
        ("b.0002", ["b.0001"], ["Delete model Old"]),
        ("a.0001", ["b.0002"], ["Create model Fresh"]),
    ]


def test_what_is_done_to_one_model_stays_in_its_order() -> None:
    registry = Registry()
    declare(registry, "a", "One", {"new": to("b.New", null=True)}, indexes=[orm.Index("new", "id", name="i")])
    declare(registry, "a", "Two", {})
    declare(registry, "b", "New", {"two": to("a.Two")})
    found = written(state(a_One={}), state_of(registry), {"a": ("a", "0001")})
    assert outline(found) == [
        ("a.0002", ["a.0001"], ["Create model Two"]),
        ("b.0001", ["a.0002"], ["Create model New"]),
        ("a.0003", ["a.0002", "b.0001"], ["Add field new to One", "Add index i to One"]),
    ]


def test_circles_are_found_each_after_what_it_leads_to() -> None:
    links = {"a": ["b"], "b": ["c"], "c": ["b", "d"], "d": [], "e": ["a", "e"]}
    assert circles(links) == [["d"], ["b", "c"], ["a"], ["e"]]


def test_a_chain_of_models_may_be_longer_than_the_stack() -> None:
    bodies: dict[str, dict[str, Any]] = {"a_M0": {"other": to("a.M1499", null=True)}}
    for number in range(1, 1500):
        bodies[f"a_M{number}"] = {"other": to(f"a.M{number - 1}", null=True)}
    found = written(State(), state(**bodies))
    assert [len(one.operations) for one in found] == [1501]
