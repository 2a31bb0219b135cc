"""Operations that are reduced, and those that must not be."""

from __future__ import annotations

from typing import Any

import pytest

import covet_orm as orm
from covet_migrate.changes import optimize
from covet_migrate.operations import (
    AddField,
    AlterField,
    AlterModelOptions,
    AlterModelTable,
    CreateModel,
    DeleteModel,
    Operation,
    RemoveField,
    RenameField,
    RenameModel,
)
from covet_migrate.operations.indexes import AddConstraint, AddIndex, RemoveConstraint, RemoveIndex, RenameIndex
from covet_migrate.state import State
from covet_orm import Q


def key() -> dict[str, Any]:
    return {"id": orm.BigAutoField()}


def to(label: str) -> Any:
    return orm.ForeignKey(label, null=True)


class Unknown(Operation):
    """An operation of somebody's own, of which nothing is known."""

    def apply(self, state: State, app: str) -> State:
        return state

    def describe(self) -> str:
        return "Unknown"


NUMBER, TEXT = orm.IntegerField(null=True), orm.TextField(null=True)

REDUCED: dict[str, tuple[list[Operation], list[str]]] = {
    "what is created and deleted": ([CreateModel("A", key()), DeleteModel("A")], []),
    "a field of a new model": ([CreateModel("A", key()), AddField("A", "x", NUMBER)], ["Create model A"]),
    "all of a new model": (
        [
            CreateModel("A", key()),
            AddField("A", "x", NUMBER),
            AlterField("A", "x", TEXT),
            RenameField("A", "x", "y"),
            AddIndex("A", orm.Index("y", "id", name="i")),
            RenameIndex("A", "i", "j"),
            AddConstraint("A", orm.CheckConstraint(Q(id__gt=0), name="c")),
            RemoveConstraint("A", "c"),
            AlterModelTable("A", "table"),
            RenameModel("A", "B"),
            AlterModelOptions("B", comment="c"),
        ],
        ["Create model B"],
    ),
    "a field that comes and goes": ([AddField("A", "x", NUMBER), RemoveField("A", "x")], []),
    "a field that comes and is altered": (
        [AddField("A", "x", NUMBER), AddField("A", "y", NUMBER), AlterField("A", "x", TEXT)],
        ["Add field x to A", "Add field y to A"],
    ),
    "a field that comes and is renamed": (
        [AddField("A", "x", NUMBER), RenameField("A", "x", "y")],
        ["Add field y to A"],
    ),
    "a field that is altered twice": (
        [AlterField("A", "x", NUMBER), AlterField("A", "x", TEXT)],
        ["Alter field x of A"],
    ),
    "a field that is altered and goes": (
        [AlterField("A", "x", TEXT), RemoveField("A", "x")],
        ["Remove field x from A"],
    ),
    "a chain of renames": (
        [RenameField("A", "x", "y"), RenameField("A", "y", "z"), RenameField("A", "z", "w")],
        ["Rename field x of A to w"],
    ),
    "a rename and back": ([RenameField("A", "x", "y"), RenameField("A", "y", "x")], []),
    "a model that is renamed twice": ([RenameModel("A", "B"), RenameModel("B", "C")], ["Rename model A to C"]),
    "a model that is renamed and goes": ([RenameModel("A", "B"), DeleteModel("B")], ["Delete model A"]),
    "a model that is changed and goes": (
        [AddField("A", "x", NUMBER), AlterModelTable("A", "t"), DeleteModel("A")],
        ["Delete model A"],
    ),
    "an index that comes and goes": ([AddIndex("A", orm.Index("x", name="i")), RemoveIndex("A", "i")], []),
    "an index that is renamed twice": (
        [RenameIndex("A", "i", "j"), RenameIndex("A", "j", "k")],
        ["Rename index i of A to k"],
    ),
    "two tables": ([AlterModelTable("A", "s"), AlterModelTable("A", "t")], ["Rename the table of A to t"]),
    "past another model": (
        [CreateModel("A", key()), CreateModel("B", key()), AddField("A", "x", NUMBER)],
        ["Create model A", "Create model B"],
    ),
    "what is created later, when that is what it refers to": (
        [CreateModel("A", key()), CreateModel("B", key()), AddField("A", "b", to("app.B"))],
        ["Create model B", "Create model A"],
    ),
    "a reference that is taken back": (
        [CreateModel("A", key()), AddField("C", "a", to("app.A")), RemoveField("C", "a"), DeleteModel("A")],
        [],
    ),
}


@pytest.mark.parametrize("case", REDUCED)
def test_is_reduced(case: str) -> None:
    operations, expected = REDUCED[case]
    assert [one.describe() for one in optimize(operations, "app")] == expected


KEPT: dict[str, list[Operation]] = {
    "code may need the field": [AddField("A", "x", NUMBER), Unknown(), RemoveField("A", "x")],
    "code may need the model": [CreateModel("A", key()), Unknown(), AddField("A", "x", NUMBER)],
    "models that refer to each other": [
        CreateModel("A", key()),
        CreateModel("B", {**key(), "a": to("app.A")}),
        AddField("A", "b", to("app.B")),
    ],
    "a reference goes before its model": [RemoveField("B", "a"), DeleteModel("A")],
    "a reference goes before its model, though the rest goes as well": [
        RemoveField("B", "a"),
        DeleteModel("A"),
        DeleteModel("B"),
    ],
    "a reference leads elsewhere before its model goes": [
        AlterField("A", "x", TEXT),
        AlterField("B", "a", to("app.C")),
        DeleteModel("D"),
    ],
    "the old column goes before another one has its name": [RemoveField("A", "x"), AddField("A", "x", NUMBER)],
    "a column is told its name before the field is renamed": [
        AlterField("A", "x", orm.IntegerField(db_column="x")),
        RenameField("A", "x", "y"),
    ],
    "a model that comes again": [DeleteModel("A"), CreateModel("A", key())],
    "an index of a field that goes": [RemoveIndex("A", "i"), RemoveField("A", "x")],
}


@pytest.mark.parametrize("case", KEPT)
def test_is_kept(case: str) -> None:
    operations = KEPT[case]
    assert optimize(operations, "app") == operations


def test_what_rows_get_is_what_they_got() -> None:
    (one,) = optimize(
        [AddField("A", "x", orm.IntegerField(), fill=1), AlterField("A", "x", orm.BigIntegerField())], "app"
    )
    assert one.declared.options == {"fill": 1}
    (other,) = optimize([AddField("A", "x", NUMBER), AlterField("A", "x", orm.IntegerField(), fill=2)], "app")
    assert other.declared.options == {"fill": 2}


def test_a_renamed_model_refers_to_itself_by_its_new_name() -> None:
    (one,) = optimize([CreateModel("A", {**key(), "a": to("app.A")}), RenameModel("A", "B")], "app")
    state = one.apply(State(), "app")
    assert list(state["app.B"].refers_to()) == ["app.B"]
