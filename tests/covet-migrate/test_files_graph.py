"""The graph of migrations: order, plans, branches, circles, squashed migrations, and replay."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import covet_orm as orm
from covet_migrate import Migration, operations
from covet_migrate.exceptions import ConflictingMigrations, HistoryError, MigrationError, MigrationNotFound
from covet_migrate.files.graph import Graph
from covet_migrate.migrations import Key


def made(key: str, *dependencies: str, **more: Any) -> Migration:
    app, name = key.split(".")
    options: Any = {
        name: [_key(one) for one in value] if isinstance(value, list) else value for name, value in more.items()
    }
    return Migration(dependencies=[_key(one) for one in dependencies], app=app, name=name, **options)


def _key(text: str) -> Key:
    app, name = text.split(".")
    return (app, name)


def told(keys: Iterable[Any]) -> list[str]:
    return [".".join(one.key if isinstance(one, Migration) else one) for one in keys]


LINE = [made("blog.1"), made("blog.2", "blog.1"), made("blog.3", "blog.2")]


def test_an_application_comes_as_far_as_it_goes_after_what_it_needs() -> None:
    graph = Graph([*reversed(LINE), made("auth.1"), made("auth.2", "auth.1", "blog.2"), made("zoo.1")])
    assert told(graph.migrations) == ["auth.1", "blog.1", "blog.2", "auth.2", "blog.3", "zoo.1"]
    assert told(graph.leaves()) == ["auth.2", "blog.3", "zoo.1"]
    assert told(graph.leaves("blog")) == ["blog.3"]
    assert graph.conflicts() == {}
    graph.check_conflicts()


def test_one_that_runs_before_another_is_needed_by_it() -> None:
    graph = Graph([*LINE, made("auth.1", run_before=["blog.1"])])
    assert told(graph.migrations)[0] == "auth.1"
    assert told(graph.parents["blog", "1"]) == ["auth.1"]


def test_plans_forward() -> None:
    graph = Graph([*LINE, made("auth.1"), made("auth.2", "auth.1", "blog.2")], applied=[("blog", "1")])
    assert told(graph.forward_plan([("auth", "2")])) == ["auth.1", "blog.2", "auth.2"]
    assert told(graph.forward_plan(graph.leaves())) == ["auth.1", "blog.2", "auth.2", "blog.3"]
    assert told(graph.forward_plan([("blog", "1")])) == []
    with pytest.raises(MigrationNotFound, match=re.escape("no migration blog.4")):
        graph.forward_plan([("blog", "4")])


def test_plans_backward_take_what_depends_along_and_leave_what_does_not() -> None:
    others = [made("auth.1", "blog.1"), made("auth.2", "auth.1", "blog.3")]
    graph = Graph([*LINE, *others], applied=[*(one.key for one in LINE), ("auth", "1"), ("auth", "2")])
    # auth.1 depends on blog.1, which stays.
    assert told(graph.backward_plan("blog", ("blog", "1"))) == ["auth.2", "blog.3", "blog.2"]
    assert told(graph.backward_plan("blog", None)) == ["auth.2", "blog.3", "blog.2", "auth.1", "blog.1"]
    assert told(graph.backward_plan("blog", ("blog", "3"))) == []
    # What was not applied is not taken back.
    graph = Graph([*LINE, *others], applied=[("blog", "1"), ("blog", "2")])
    assert told(graph.backward_plan("blog", None)) == ["blog.2", "blog.1"]


def test_several_ends_say_what_to_type() -> None:
    graph = Graph([made("blog.0001_a"), made("blog.0002_b", "blog.0001_a"), made("blog.0002_c", "blog.0001_a")])
    assert graph.conflicts() == {"blog": [("blog", "0002_b"), ("blog", "0002_c")]}
    with pytest.raises(ConflictingMigrations, match="covet makemigrations --merge blog") as caught:
        graph.check_conflicts()
    assert "0002_b and 0002_c" in str(caught.value)


def test_two_of_one_name_are_an_error() -> None:
    with pytest.raises(ConflictingMigrations, match=re.escape("two migrations blog.1")):
        Graph([made("blog.1"), made("blog.1")])


@pytest.mark.parametrize(
    ("dependency", "hint"),
    [
        ("blog.0002_slog", "did you mean '0002_slug'"),
        ("blog.0002_whatever", "did you mean '0002_slug'"),
        ("blog.0009_more", "the last one of 'blog' is '0002_slug'"),
        ("bloog.0001", "'bloog' has no migrations, did you mean 'blog'"),
    ],
)
def test_a_dependency_that_is_not_there(dependency: str, hint: str) -> None:
    migrations = [made("blog.0001_first"), made("blog.0002_slug", "blog.0001_first"), made("auth.1", dependency)]
    with pytest.raises(MigrationNotFound) as caught:
        Graph(migrations, files={("auth", "1"): "auth/migrations/1.py"})
    assert str(caught.value).startswith(f"auth/migrations/1.py: auth.1 depends on {dependency}, which is not there")
    assert hint in str(caught.value)


def test_a_circle_is_shown() -> None:
    circle = [made("a.1", "b.2"), made("b.1"), made("b.2", "b.1", "c.1"), made("c.1", "a.1")]
    with pytest.raises(ConflictingMigrations) as caught:
        Graph(circle)
    assert "a.1 → b.2 → c.1 → a.1" in str(caught.value)
    assert "foreign key is added in a later one" in str(caught.value)
    with pytest.raises(ConflictingMigrations, match=re.escape("a.1 → a.2 → a.1")):
        Graph([made("a.1", "a.2"), made("a.2", "a.1")])
    # One that is to run before what it depends on.
    with pytest.raises(ConflictingMigrations, match=re.escape("a.1 → b.1 → a.1")):
        Graph([made("a.1"), made("b.1", "a.1", run_before=["a.1"])])


def test_names_are_found_by_their_beginning() -> None:
    graph = Graph([made("blog.0001_first"), made("blog.0002_b", "blog.0001_first"), made("blog.0002_c", "blog.0002_b")])
    assert graph.find("blog", "0001") == ("blog", "0001_first")
    assert graph.find("blog", "0002_c") == ("blog", "0002_c")
    with pytest.raises(MigrationNotFound, match="may be 0002_b or 0002_c"):
        graph.find("blog", "0002")
    with pytest.raises(MigrationNotFound, match="did you mean 'blog'"):
        graph.find("blogg", "0002")
    with pytest.raises(MigrationNotFound, match="did you mean '0001_first'"):
        graph.find("blog", "0001_frist")


def test_a_history_with_a_hole_is_refused() -> None:
    Graph(LINE, applied=[("blog", "1")]).check_history()
    with pytest.raises(
        HistoryError, match=re.escape("blog.3 was applied, and blog.2, which it depends on, was not")
    ) as caught:
        Graph(LINE, applied=[("blog", "1"), ("blog", "3")]).check_history()
    assert "migrate blog 2 --fake" in str(caught.value)


# Squashed migrations.

SQUASHED = made("blog.1_squashed_3", replaces=["blog.1", "blog.2", "blog.3"])
AFTER = made("blog.4", "blog.3")
OTHER = made("auth.1", "blog.2")


@pytest.mark.parametrize(
    ("applied", "order", "completed"),
    [
        # Nothing was applied: the squashed one alone, and who depended on a part depends on it.
        ([], ["blog.1_squashed_3", "auth.1", "blog.4"], False),
        # A part was applied: the parts.
        (["blog.1"], ["blog.1", "blog.2", "auth.1", "blog.3", "blog.4"], False),
        # All was applied: the squashed one, which was applied with that.
        (["blog.1", "blog.2", "blog.3"], ["blog.1_squashed_3", "auth.1", "blog.4"], True),
        (["blog.1_squashed_3"], ["blog.1_squashed_3", "auth.1", "blog.4"], False),
    ],
)
def test_a_squashed_migration_or_its_parts(applied: list[str], order: list[str], completed: bool) -> None:
    graph = Graph([*LINE, SQUASHED, AFTER, OTHER], applied=[_key(one) for one in applied])
    assert told(graph.migrations) == order
    assert (SQUASHED.key in graph.completed) is completed
    assert told(graph.applied) == ([".".join(SQUASHED.key)] if completed else applied)


def test_when_the_files_of_its_parts_are_gone() -> None:
    there = [SQUASHED, AFTER, OTHER]
    done = [("blog", "1"), ("blog", "2"), ("blog", "3")]
    graph = Graph(there, applied=done)
    assert told(graph.migrations) == ["blog.1_squashed_3", "auth.1", "blog.4"]
    assert told(graph.applied) == ["blog.1_squashed_3"]
    assert told(graph.forward_plan(graph.leaves())) == ["auth.1", "blog.4"]
    with pytest.raises(MigrationNotFound, match=re.escape("of which blog.1 were applied and blog.2, blog.3 not")):
        Graph(there, applied=done[:1])


def test_who_depends_on_a_squashed_migration_depends_on_its_parts_where_these_count() -> None:
    graph = Graph([*LINE, SQUASHED, made("auth.1", "blog.1_squashed_3")], applied=[("blog", "1")])
    assert told(graph.forward_plan([("auth", "1")])) == ["blog.2", "blog.3", "auth.1"]


def test_a_squashed_migration_of_squashed_ones() -> None:
    again = made("blog.1_squashed_4", replaces=["blog.1_squashed_3", "blog.4"])
    last = made("blog.5", "blog.4")
    every = [*LINE, SQUASHED, AFTER, again, last]
    assert told(Graph(every).migrations) == ["blog.1_squashed_4", "blog.5"]
    # The inner one was applied: it counts, and with it the part that the outer one has besides.
    graph = Graph(every, applied=[("blog", "1_squashed_3")])
    assert told(graph.migrations) == ["blog.1_squashed_3", "blog.4", "blog.5"]
    assert told(graph.forward_plan(graph.leaves())) == ["blog.4", "blog.5"]
    graph = Graph(every, applied=[("blog", "1"), ("blog", "2")])
    assert told(graph.migrations) == ["blog.1", "blog.2", "blog.3", "blog.4", "blog.5"]
    # All was applied, of the inner one its parts.
    parts = [("blog", name) for name in "1234"]
    graph = Graph(every, applied=parts)
    assert dict(graph.completed) == {again.key: (*parts,)}
    assert told(graph.forward_plan(graph.leaves())) == ["blog.5"]
    # The files of the inner one's parts are gone, and it was applied.
    graph = Graph([SQUASHED, AFTER, again, last], applied=[("blog", "1_squashed_3"), ("blog", "4")])
    assert dict(graph.completed) == {again.key: (("blog", "1_squashed_3"), ("blog", "4"))}
    assert told(graph.forward_plan(graph.leaves())) == ["blog.5"]
    # The inner one is gone as well.
    graph = Graph([again, last], applied=[("blog", "1_squashed_3"), ("blog", "4")])
    assert told(graph.applied) == ["blog.1_squashed_4"]
    graph = Graph([again, last])
    assert told(graph.migrations) == ["blog.1_squashed_4", "blog.5"]


def test_squashed_migrations_that_contradict_each_other() -> None:
    with pytest.raises(ConflictingMigrations, match="replaces"):
        Graph([made("a.1", replaces=["a.2"]), made("a.2", replaces=["a.1"])])
    with pytest.raises(ConflictingMigrations, match="replaced by"):
        Graph([made("a.1"), made("a.s1", replaces=["a.1"]), made("a.s2", replaces=["a.1"])])


def test_a_circle_that_squashing_makes_is_shown() -> None:
    # b.1 needs a.1, a.2 needs b.1: fine, until both of `a` are one.
    graph = [made("a.1"), made("a.2", "a.1", "b.1"), made("b.1", "a.1")]
    Graph(graph)
    squashed = made("a.s", "b.1", replaces=["a.1", "a.2"])
    with pytest.raises(ConflictingMigrations, match=re.escape("a.s → b.1 → a.s")):
        Graph([*graph, squashed])


# Replay.


def create(name: str) -> operations.CreateModel:
    return operations.CreateModel(name, {"id": orm.BigAutoField(primary_key=True)})


def with_models() -> list[Migration]:
    first = made("blog.1")
    first.operations = [create("Post")]
    second = made("blog.2", "blog.1")
    second.operations = [operations.AddField("Post", "title", orm.TextField())]
    third = made("blog.3", "blog.2")
    third.operations = [create("Tag")]
    return [first, second, third]


def test_states_before_and_after() -> None:
    graph = Graph(with_models())
    assert set(graph.state().models) == {"blog.Post", "blog.Tag"}
    assert list(graph.state(("blog", "2"))["blog.Post"].fields) == ["id", "title"]
    assert list(graph.state(("blog", "2"), before=True)["blog.Post"].fields) == ["id"]
    assert graph.state(("blog", "1"), before=True).models == {}
    replayed = list(graph.replay())
    assert [one.migration.name for one in replayed] == ["1", "2", "3"]
    assert all(one.after is other.before for one, other in pairwise(replayed))
    # From a state on.
    on = list(graph.replay([("blog", "3")], replayed[1].after))
    assert set(on[0].after.models) == {"blog.Post", "blog.Tag"}


def test_a_migration_that_does_not_fit_is_named() -> None:
    migrations = with_models()
    migrations[2].operations = [operations.RemoveField("Post", "titel")]
    with pytest.raises(MigrationError, match=re.escape("blog/3.py: RemoveField: blog.Post has no field 'titel'")):
        Graph(migrations, files={("blog", "3"): "blog/3.py"}).state()


def test_each_migration_is_applied_once_however_many_there_are() -> None:
    number = 2000
    calls = 0

    class Counting(operations.AddField):
        def apply(self, state: Any, app: str) -> Any:
            nonlocal calls
            calls += 1
            return super().apply(state, app)

    migrations = [made("blog.0000")]
    migrations[0].operations = [create("Post")]
    for index in range(1, number):
        one = made(f"blog.{index:04}", f"blog.{index - 1:04}")
        one.operations = [Counting("Post", f"field{index}", orm.IntegerField())]
        migrations.append(one)
    graph = Graph(reversed(migrations))
    assert told(graph.forward_plan(graph.leaves())) == [f"blog.{index:04}" for index in range(number)]
    assert len(graph.state()["blog.Post"].fields) == number
    assert calls == number - 1


@st.composite
def histories(draw: st.DrawFn) -> list[Migration]:
    """Migrations of three applications, each depending on earlier ones."""
    found: list[Migration] = []
    for number in range(draw(st.integers(1, 12))):
        app = draw(st.sampled_from("abc"))
        known = [one.key for one in found]
        dependencies = draw(st.lists(st.sampled_from(known), max_size=3)) if known else []
        found.append(Migration(dependencies=dependencies, app=app, name=f"{number:02}"))
    return found


@given(histories(), st.randoms(), st.data())
@settings(deadline=None)
def test_orders_and_plans_of_any_history(migrations: list[Migration], random: Any, data: st.DataObject) -> None:
    shuffled = list(migrations)
    random.shuffle(shuffled)
    graph = Graph(shuffled)
    order = list(graph.migrations)
    # The same order, however the files are read.
    assert order == list(Graph(migrations).migrations)
    position = {key: index for index, key in enumerate(order)}
    assert all(position[parent] < position[key] for key in order for parent in graph.parents[key])
    target = data.draw(st.sampled_from(order))
    applied = graph.ancestors(data.draw(st.lists(st.sampled_from(order))))
    plan = [one.key for one in graph.forward_plan([target], applied)]
    after = applied | set(plan)
    # Whenever one is applied, what it needs is there; and nothing is done that is not needed.
    known = set(applied)
    for key in plan:
        assert known.issuperset(graph.parents[key])
        known.add(key)
    assert target in after
    assert after == applied | graph.ancestors([target])
    # Back again: what is taken away is needed by nobody who stays.
    for one in graph.backward_plan(target[0], target, after):
        assert not any(child in after for child in graph.children[one.key])
        after.discard(one.key)
    assert target in after
    stay = graph.ancestors([target])
    assert all(key in stay for key in after if key[0] == target[0])
