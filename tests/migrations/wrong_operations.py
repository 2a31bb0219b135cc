"""Operations that break a promise each, and a right one: for tests of the conformance kit of operations."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import covet_orm as orm
from covet_migrate import operations as ops
from covet_migrate.actions.actions import Execute
from covet_migrate.actions.custom import CustomAction
from covet_migrate.operations import Change, ModelOperation, Operation
from covet_migrate.safety.effects import Blocks, Effect
from covet_migrate.state import State
from covet_migrate.steps import Call, Statement, Step
from covet_orm.drivers.protocol import Connection
from covet_orm.fields.base import Declared

__all__ = ["RIGHT", "WRONG", "WrongOperation", "before"]

LABEL = "kit.Shelf"


def before() -> list[Operation]:
    """What comes before each of them."""
    return [
        ops.CreateModel(
            "Shelf", {"id": orm.BigAutoField(primary_key=True), "name": orm.CharField(max_length=20, null=True)}
        )
    ]


class Trigger(Operation):
    """A right one: a trigger of SQLite, a comment of PostgreSQL."""

    def __init__(self, name: str) -> None:
        self.name = name

    def apply(self, state: State, app: str) -> State:
        return state

    def describe(self) -> str:
        return f"Create the trigger {self.name}"

    def actions(self, change: Change) -> Sequence[Any]:
        if change.kind != "sqlite":
            return []
        sql = f"CREATE TRIGGER {self.name} AFTER INSERT ON kit_shelf BEGIN DELETE FROM kit_shelf WHERE id < 0; END"
        if change.backward:
            sql = f"DROP TRIGGER {self.name}"
        return [Statement(sql=sql, action=Execute(sql=sql))]


class ChangesTheState(Trigger):
    """Changes the state that it is given."""

    def apply(self, state: State, app: str) -> State:
        models: Any = state.models
        models[LABEL] = state[LABEL].with_options(comment="changed")
        return state


class FailsSomehow(Trigger):
    """Raises what nobody expects where its model is not there."""

    def apply(self, state: State, app: str) -> State:
        if not state.models[f"{app}.Shelf"].fields:
            raise AssertionError
        return state


class Commented(ModelOperation):
    """A right one of the state: the comment of a table."""

    def __init__(self, name: str, comment: str) -> None:
        super().__init__(name)
        self.comment = comment

    def apply(self, state: State, app: str) -> State:
        return state.put(state[self.label(app)].with_options(comment=self.comment))

    def describe(self) -> str:
        return f"Comment {self.name}"


class TouchesInSecret(Commented):
    """Says that it touches nothing."""

    def touches(self, app: str) -> Iterable[str]:
        return ()


class SaysNothing(Operation):
    """Has no description."""

    def apply(self, state: State, app: str) -> State:
        return state


class IsWrittenInPart(Trigger):
    """Forgets an argument when it is written down."""

    def __init__(self, name: str = "forgotten") -> None:
        super().__init__(name)
        self.declared = Declared((), {})


class ChangesItsSteps(Trigger):
    """Makes other steps at every call."""

    def actions(self, change: Change) -> Sequence[Any]:
        sql = f"SELECT '{uuid4()}'"
        return [Statement(sql=sql, action=Execute(sql=sql))]


class DependsOnHashes(Trigger):
    """Takes its steps out of a set."""

    def actions(self, change: Change) -> Sequence[Any]:
        return [Statement(sql=f"SELECT '{word}'") for word in {f"{self.name}{number}" for number in range(20)}]


class SaysNoLocks(Trigger):
    """Does what nobody knows anything of."""

    def actions(self, change: Change) -> Sequence[Any]:
        return [Anything()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Anything(CustomAction):
    """Says nothing of what it does to others."""

    def steps(self, kind: str, version: tuple[int, ...]) -> Iterable[Step]:
        yield Statement(sql="DO $$ BEGIN EXECUTE 'SELECT 1'; END $$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled(CustomAction):
    """Says that it locks less than it does."""

    def steps(self, kind: str, version: tuple[int, ...]) -> Iterable[Step]:
        if kind == "postgresql":
            yield Statement(sql="ALTER TABLE kit_shelf SET (fillfactor = 70)")
            yield Statement(sql="ALTER TABLE kit_shelf SET UNLOGGED")

    def effect(self, step: Step, kind: str, version: tuple[int, ...]) -> Effect:
        return Effect(locks={"kit_shelf": "SHARE UPDATE EXCLUSIVE"}, blocks=Blocks.NOBODY)


class LocksMore(Trigger):
    """Locks more than it says."""

    reversible = False

    def actions(self, change: Change) -> Sequence[Any]:
        return [Filled()]


class DoesNothing(Commented):
    """Changes the state, and not the database."""

    def apply(self, state: State, app: str) -> State:
        model = state[self.label(app)]
        return state.put(model.with_fields({**model.fields, "x": orm.TextField(null=True)}))

    def actions(self, change: Change) -> Sequence[Any]:
        return ()


class HasNoWayBack(Trigger):
    """Does nothing when it is taken back, and does not say so."""

    def actions(self, change: Change) -> Sequence[Any]:
        return [] if change.backward else super().actions(change)


async def put_a_row(step: Any) -> None:
    """Insert a row, and commit that."""
    async with step.database.connection() as connection:
        await connection.script("INSERT INTO kit_shelf (name) VALUES ('new')")


class DoesItTwice(Trigger):
    """Cannot be interrupted: what was done is done again."""

    reversible = False

    def actions(self, change: Change) -> Sequence[Any]:
        return [Call(function=put_a_row, name="put a row", transactional=False)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Made(CustomAction):
    """A table, of which it says that it is never there."""

    name: str
    backward: bool

    def steps(self, kind: str, version: tuple[int, ...]) -> Iterable[Step]:
        yield Statement(sql=f"DROP TABLE {self.name}" if self.backward else f"CREATE TABLE {self.name} (id int)")

    def tables(self) -> Collection[str]:
        return (self.name,)

    async def in_effect(self, connection: Connection, kind: str) -> bool | None:
        return self.backward


class LeavesAPart(Trigger):
    """Is not taken back where a part of it was done."""

    def actions(self, change: Change) -> Sequence[Any]:
        names = ("kit_one", "kit_two")
        return [Made(name=name, backward=change.backward) for name in (reversed(names) if change.backward else names)]


class ForgetsTheOther(Commented):
    """Stands for itself and what follows, and forgets that."""

    def reduce(self, other: Operation, app: str) -> list[Operation] | None:
        return [self]


class PassesAnything(Commented):
    """Says that it passes what changes what it does."""

    def apply(self, state: State, app: str) -> State:
        model = state[self.label(app)]
        return state.put(model.with_options(comment=f"{len(model.fields)} fields"))

    def passes(self, other: Operation, app: str) -> bool:
        return True


class ReducesItsIndex(ModelOperation):
    """Reduced, it makes what the state says, without what else it is to make."""

    def apply(self, state: State, app: str) -> State:
        return state

    def describe(self) -> str:
        return f"Make a view of {self.name}"

    def actions(self, change: Change) -> Sequence[Any]:
        sql = "DROP VIEW kit_view" if change.backward else "CREATE VIEW kit_view AS SELECT id FROM kit_shelf"
        return [Statement(sql=sql)]

    def reduce(self, other: Operation, app: str) -> list[Operation] | None:
        return [other] if isinstance(other, ops.AddField) else None


@dataclass(frozen=True)
class WrongOperation:
    """An operation, and what is wrong with it.

    Attributes:
        make: the operation.
        promise: the test of the kit that fails for it; empty for a right one.
        told: what that says.
        database: on which.
        later: what may follow it.
    """

    make: Any
    promise: str
    told: str = ""
    database: str = "sqlite"
    later: Sequence[Operation] = ()


field = ops.AddField("Shelf", "x", orm.TextField(null=True))
RIGHT = {
    "Trigger": WrongOperation(lambda: Trigger("kit_trigger"), "", later=[field]),
}
WRONG = {
    "ChangesTheState": WrongOperation(
        lambda: ChangesTheState("a"), "test_it_leaves_the_state_before_as_it_was", "changed the state that it was given"
    ),
    "FailsSomehow": WrongOperation(
        lambda: FailsSomehow("a"), "test_what_does_not_fit_is_an_error_of_migrations", "KeyError"
    ),
    "TouchesInSecret": WrongOperation(
        lambda: TouchesInSecret("Shelf", "a"), "test_it_touches_what_it_says", "and touches []"
    ),
    "SaysNothing": WrongOperation(SaysNothing, "test_it_says_what_it_does", "override describe()"),
    "IsWrittenInPart": WrongOperation(
        lambda: IsWrittenInPart("a"), "test_it_is_written_and_read_back", "again.describe() == operation.describe()"
    ),
    "ChangesItsSteps": WrongOperation(
        lambda: ChangesItsSteps("a"), "test_its_steps_are_the_same_every_time", "differ from call to call"
    ),
    "DependsOnHashes": WrongOperation(
        lambda: DependsOnHashes("a"), "test_so_are_they_in_another_process", "differ from process to process"
    ),
    "SaysNoLocks": WrongOperation(
        lambda: SaysNoLocks("a"), "test_it_says_what_it_locks", "is not known; see CustomAction.effect"
    ),
    "LocksMore": WrongOperation(
        lambda: LocksMore("a"),
        "test_it_locks_no_more_than_it_says",
        "takes ACCESS EXCLUSIVE on kit_shelf, and says SHARE UPDATE EXCLUSIVE",
        "postgresql-18",
    ),
    "DoesNothing": WrongOperation(
        lambda: DoesNothing("Shelf", "a"), "test_forward_it_makes_what_the_state_says", "kit_shelf"
    ),
    "HasNoWayBack": WrongOperation(
        lambda: HasNoWayBack("kit_trigger"), "test_backward_it_is_as_it_was", "one.schema() == schema"
    ),
    "DoesItTwice": WrongOperation(lambda: DoesItTwice("a"), "test_interrupted_it_goes_on", "rows are gone, or came"),
    "LeavesAPart": WrongOperation(
        lambda: LeavesAPart("a"), "test_interrupted_it_is_unwound", "check_before", "postgresql-18"
    ),
    "ForgetsTheOther": WrongOperation(
        lambda: ForgetsTheOther("Shelf", "a"),
        "test_it_is_reduced_to_the_same_state",
        "which does something else",
        later=[field],
    ),
    "PassesAnything": WrongOperation(
        lambda: PassesAnything("Shelf", "a"),
        "test_it_passes_what_it_has_nothing_to_do_with",
        "and does something else then",
        later=[field],
    ),
    "ReducesItsIndex": WrongOperation(
        lambda: ReducesItsIndex("Shelf"),
        "test_it_is_reduced_to_the_same_schema",
        "it makes another schema",
        later=[field],
    ),
}
"""By name; each fails one test of the kit at least."""
