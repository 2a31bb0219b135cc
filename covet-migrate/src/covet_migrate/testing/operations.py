"""The conformance kit of operations: what migrations ask of every one, Covet's own included.

class TestCreateTrigger(OperationConformance):
    @pytest.fixture
    def make(self):
        return lambda: CreateTrigger("slugs", "blog_post", "UPDATE blog_post SET slug = 'new' WHERE id = NEW.id")

    @pytest.fixture
    def before(self):
        return [operations.CreateModel("Post", {"id": orm.BigAutoField(primary_key=True), "slug": orm.SlugField()})]

    @pytest.fixture
    def empty(self, tmp_path):
        numbers = itertools.count()
        return lambda: f"sqlite:///{tmp_path}/{next(numbers)}.db"
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from covet.testing.conformance.kits import ConformanceKit
from covet_migrate.changes.optimizer import optimize
from covet_migrate.ddl import DIALECTS, LATEST
from covet_migrate.exceptions import HistoryError, Irreversible, MigrationError
from covet_migrate.execution.executor import TRANSACTIONAL
from covet_migrate.files.writer import write_migration
from covet_migrate.migrations import Migration
from covet_migrate.operations.base import Operation
from covet_migrate.operations.models import CreateModel
from covet_migrate.safety.effects import effects_of
from covet_migrate.safety.raw_sql import read_sql
from covet_migrate.state.declarations import same
from covet_migrate.state.models import State
from covet_migrate.steps import Call, Statement
from covet_migrate.testing.files import BEFORE, TRIED
from covet_migrate.testing.rereading import told_elsewhere, written_and_read
from covet_migrate.testing.states import told_state
from covet_migrate.testing.trials import Trial, offline_stage, states_around, steps_told, trial
from covet_migrate.testing.watching import locks_no_more
from covet_orm import BigAutoField, Database, IntegerField

__all__ = ["OperationConformance"]

MOMENTS = ("begun", "after", "done")
"""Where a run is interrupted at each step: when it is known to begin, when it was sent, and when it is known to be
done."""


class OperationConformance(ConformanceKit):
    """The promises of an operation. A subclass overrides `make`, `before` and `empty`, and what else it needs.

    Attributes:
        app: the label of the application.
        kinds: the databases whose statements are looked at, without a server; all by default.
        rows: statements of SQL that put rows into the tables before it.
        restores: whether the schema is the same again when it was taken back; False where it says that it need not be,
            as `RunSQL(..., RunSQL.noop)` does.
        keeps_rows: whether rows stay that are in tables which are there before and after.
        other_process: whether it is looked at in a process with another seed of hashes, which has to be able to import
            it.
    """

    app: str = "kit"
    kinds: Sequence[str] = tuple(DIALECTS)
    rows: Sequence[str] = ()
    restores: bool = True
    keeps_rows: bool = True
    other_process: bool = True

    @pytest.fixture
    def anyio_backend(self) -> str:
        """The drivers run on asyncio."""
        return "asyncio"

    @pytest.fixture
    def make(self) -> Callable[[], Operation]:
        """Makes the operation, anew at each call. Override it."""
        raise pytest.UsageError("override the fixture `make` to give a function that makes the operation")

    @pytest.fixture
    def empty(self) -> Callable[[], str]:
        """Gives the URL of an empty database at each call. Override it; with parameters, for several databases."""
        raise pytest.UsageError("override the fixture `empty` to give a function that gives URLs of empty databases")

    @pytest.fixture
    def before(self) -> Sequence[Operation]:
        """The operations that come before it, on nothing; none by default."""
        return ()

    @pytest.fixture
    def later(self) -> Sequence[Operation]:
        """Operations each of which may directly follow it, for the optimizer; none by default."""
        return ()

    async def check_done(self, database: Database) -> None:
        """See whether what it does is there, beyond what the state tells. Override it with assertions.

        Args:
            database: it was applied there.
        """

    async def check_not_done(self, database: Database) -> None:
        """See whether nothing of it is there. Override it with assertions.

        Args:
            database: it was not applied there, or was taken back.
        """

    # The state

    def test_it_leaves_the_state_before_as_it_was(
        self, make: Callable[[], Operation], before: Sequence[Operation]
    ) -> None:
        """Promise: `apply` makes a new state, and changes nothing in the one that it gets."""
        state = Migration(before, app=self.app).apply(State())
        told = told_state(state)
        after = make().apply(state, self.app)
        assert isinstance(after, State)
        assert told_state(state) == told, "apply() changed the state that it was given"
        assert told_state(make().apply(state, self.app)) == told_state(after), "applied again, it makes another state"

    def test_what_does_not_fit_is_an_error_of_migrations(
        self, make: Callable[[], Operation], before: Sequence[Operation]
    ) -> None:
        """Promise: on a state that it does not fit, `apply` raises a MigrationError, and nothing else."""
        _, after = states_around(before, make(), self.app)
        for state in (State(), after):
            try:
                assert isinstance(make().apply(state, self.app), State)
            except MigrationError as error:
                assert str(error)  # noqa: PT017 - that it is raised is not asked for

    def test_it_touches_what_it_says(self, make: Callable[[], Operation], before: Sequence[Operation]) -> None:
        """Promise: it changes no models but those of `touches`, and those that refer to them."""
        operation = make()
        state, after = states_around(before, operation, self.app)
        touched = operation.touches(self.app)
        if touched is None:
            return
        old, new = told_state(state), told_state(after)
        changed = {label for label in {*old, *new} if old.get(label) != new.get(label)}
        named = set(touched)
        referring = {one.label for part in (state, after) for one in part if named.intersection(one.refers_to())}
        assert changed <= named | referring, f"it changes {sorted(changed - named)}, and touches {sorted(named)}"

    # What people and files are told

    def test_it_says_what_it_does(self, make: Callable[[], Operation]) -> None:
        """Promise: `describe` is a line for people, `file_name` a part of a file's name, the same every time."""
        operation = make()
        told = operation.describe()
        assert type(operation).describe is not Operation.describe, "override describe()"
        assert told.strip() == told
        assert told.isprintable(), "a description is one line"
        assert told
        assert operation.file_name().strip()
        assert (make().describe(), make().file_name()) == (told, operation.file_name())

    def test_it_is_written_and_read_back(
        self, make: Callable[[], Operation], before: Sequence[Operation], tmp_path: Path
    ) -> None:
        """Promise: out of the file that it is written into comes one that is declared the same, and does the same."""
        operation = make()
        again, text = written_and_read(operation, self.app, tmp_path / "first")
        assert type(again) is type(operation)
        assert same(again, operation), f"{again!r} is declared otherwise than {operation!r}"
        state, after = states_around(before, operation, self.app)
        assert told_state(again.apply(state, self.app)) == told_state(after)
        assert again.describe() == operation.describe()
        assert again.reversible == operation.reversible
        assert again.elidable == operation.elidable
        for kind in self.kinds:
            told = [steps_told(offline_stage(before, one, self.app, kind).steps) for one in (operation, again)]
            assert told[0] == told[1], f"read back, it does something else on {kind}"
        _, second = written_and_read(again, self.app, tmp_path / "second")
        assert second == text, "written again, it stands there otherwise"

    # What is done

    def test_its_steps_are_the_same_every_time(
        self, make: Callable[[], Operation], before: Sequence[Operation]
    ) -> None:
        """Promise: forward and backward, it makes the same steps whenever it is asked: what was interrupted goes on by
        them."""
        for kind in self.kinds:
            for backward in (False, True) if make().reversible else (False,):
                operation = make()
                first, second, other = (
                    steps_told(offline_stage(before, one, self.app, kind, backward=backward).steps)
                    for one in (operation, operation, make())
                )
                assert first == second == other, f"the steps on {kind} differ from call to call"

    def test_so_are_they_in_another_process(
        self, make: Callable[[], Operation], before: Sequence[Operation], tmp_path: Path
    ) -> None:
        """Promise: nor do they depend on the order of sets, the time, or the process."""
        if not self.other_process:
            return
        for name, operations in ((BEFORE, before), (TRIED, [make()])):
            write_migration(Migration(operations, app=self.app, name=name), tmp_path)
        found = [told_elsewhere(tmp_path, self.app, self.kinds, seed=seed) for seed in ("1", "2")]
        assert found[0] == found[1], "the steps differ from process to process"

    def test_it_says_what_it_locks(self, make: Callable[[], Operation], before: Sequence[Operation]) -> None:
        """Promise: each of its steps is classified: its action says what it does to others, or its SQL is such of which
        `migrations lint` knows what it does."""
        for kind in self.kinds:
            for backward in (False, True) if make().reversible else (False,):
                steps = offline_stage(before, make(), self.app, kind, backward=backward).steps
                for step, effect in zip(steps, effects_of(steps, kind, LATEST[kind]), strict=True):
                    assert effect.describe()
                    if effect.known or isinstance(step, Call):
                        continue
                    assert isinstance(step, Statement), f"{step!r} is not classified on {kind}"
                    unknown = [one for one in read_sql(step.sql, kind) if "raw-sql" in one.rules]
                    assert not unknown, f"what this does on {kind} is not known; see CustomAction.effect: {step.sql}"

    async def test_it_locks_no_more_than_it_says(
        self, make: Callable[[], Operation], before: Sequence[Operation], empty: Callable[[], str]
    ) -> None:
        """Promise: on PostgreSQL, a step of which is said what it locks takes no stronger lock, and writes no table
        anew where it does not say so."""
        async with trial(empty(), self.app, before, [make()], rows=self.rows, atomic=False) as one:
            if one.database.kind != "postgresql":
                return
            await locks_no_more(one)

    async def test_forward_it_makes_what_the_state_says(
        self, make: Callable[[], Operation], before: Sequence[Operation], empty: Callable[[], str]
    ) -> None:
        """Promise: applied, the database is as the state after it says, and rows are kept."""
        async with trial(empty(), self.app, before, [make()], rows=self.rows, atomic=self.atomic(make())) as one:
            await self.check_not_done(one.database)
            counted = await one.row_counts(one.states[0])
            await one.forward()
            await self.check_after(one, counted)

    async def test_backward_it_is_as_it_was(
        self, make: Callable[[], Operation], before: Sequence[Operation], empty: Callable[[], str]
    ) -> None:
        """Promise: taken back, the database is as it was; applied again, as it is to be. Where it says that there is no
        way back, the attempt is refused and nothing happens."""
        operation = make()
        async with trial(empty(), self.app, before, [operation], rows=self.rows, atomic=self.atomic(operation)) as one:
            there, counted = await one.schema(), await one.row_counts(one.states[0])
            await one.forward()
            if not operation.reversible:
                made = await one.schema()
                with pytest.raises(Irreversible):
                    await one.backward()
                assert await one.schema() == made
                assert await one.applied()
                return
            await one.backward()
            await self.check_before(one, there)
            kept = await one.row_counts(one.states[0])
            if self.keeps_rows:
                both = set(one.states[0].models) & set(one.states[1].models)
                assert {label: kept[label] for label in both} == {label: counted[label] for label in both}
            await one.forward()
            await self.check_after(one, None)

    async def test_interrupted_it_goes_on(
        self, make: Callable[[], Operation], before: Sequence[Operation], empty: Callable[[], str]
    ) -> None:
        """Promise: interrupted at any step, the next run brings it to its end, as if nothing had been."""
        for atomic, moment, number in await self.moments(make, before, empty):
            async with trial(empty(), self.app, before, [make()], rows=self.rows, atomic=atomic) as one:
                counted = await one.row_counts(one.states[0])
                if await one.interrupted(moment, number):
                    # Another process has another object of it.
                    one.operations = [make()]
                    await one.forward()
                    await self.check_after(one, counted)

    async def test_interrupted_it_is_unwound(
        self, make: Callable[[], Operation], before: Sequence[Operation], empty: Callable[[], str]
    ) -> None:
        """Promise: interrupted at any step, it is taken back exactly; or what was done cannot be told or taken back,
        which is said, and the next run brings it to its end."""
        for atomic, moment, number in await self.moments(make, before, empty):
            async with trial(empty(), self.app, before, [make()], rows=self.rows, atomic=atomic) as one:
                there = await one.schema()
                if not await one.interrupted(moment, number):
                    continue
                one.operations = [make()]
                try:
                    await one.unwind()
                except (HistoryError, Irreversible):
                    await one.forward()
                    await self.check_after(one, None)
                    continue
                if not await one.applied():
                    await self.check_before(one, there)
                else:
                    await self.check_after(one, None)

    # Fewer operations

    def test_it_is_reduced_to_the_same_state(
        self, make: Callable[[], Operation], before: Sequence[Operation], later: Sequence[Operation]
    ) -> None:
        """Promise: what `reduce` gives for it and one that follows does the same to the state, and so does what the
        optimizer makes of all."""
        state, after = states_around(before, make(), self.app)
        for other in later:
            wanted = told_state(other.apply(after, self.app), ordered=False)
            reduced = make().reduce(other, self.app)
            if reduced is not None:
                found = told_state(Migration(reduced, app=self.app).apply(state), ordered=False)
                assert found == wanted, f"reduced with {other!r} it is {reduced!r}, which does something else"
            fewer = optimize([*before, make(), other], self.app)
            assert told_state(Migration(fewer, app=self.app).apply(State()), ordered=False) == wanted

    def test_it_passes_what_it_has_nothing_to_do_with(
        self, make: Callable[[], Operation], before: Sequence[Operation], later: Sequence[Operation]
    ) -> None:
        """Promise: where it says that it passes another operation, or that does, the state is the same in both
        orders."""
        state, after = states_around(before, make(), self.app)
        for other in (*later, unrelated()):
            if not (make().passes(other, self.app) or other.passes(make(), self.app)):
                continue
            wanted = told_state(other.apply(after, self.app), ordered=False)
            found = told_state(make().apply(other.apply(state, self.app), self.app), ordered=False)
            assert found == wanted, f"it passes {other!r}, and does something else then"

    async def test_it_is_reduced_to_the_same_schema(
        self,
        make: Callable[[], Operation],
        before: Sequence[Operation],
        later: Sequence[Operation],
        empty: Callable[[], str],
    ) -> None:
        """Promise: so is the schema that a database has."""
        for other in later:
            schemas = []
            fewer = optimize([*before, make(), other], self.app)
            for operations in ([*before, make(), other], fewer):
                async with trial(empty(), self.app, (), operations, atomic=False) as one:
                    await one.forward()
                    assert not await one.differences(one.states[1])
                    schemas.append(await one.schema())
            assert schemas[0] == schemas[1], f"followed by {other!r} and optimized, it makes another schema"

    # What the tests above are made of

    def atomic(self, operation: Operation) -> bool:
        """Whether a migration of it is atomic: not where a step of it cannot be in a transaction. Override it where it
        cannot be told offline.

        Args:
            operation: the operation.
        """
        return self._atomic

    _atomic = True

    @pytest.fixture(autouse=True)
    def _how_it_is_run(self, request: pytest.FixtureRequest) -> None:
        """Find out whether all steps may be in a transaction, also those that take it back."""
        make: Callable[[], Operation] = request.getfixturevalue("make")
        before: Sequence[Operation] = request.getfixturevalue("before")
        stages = [
            offline_stage(before, make(), self.app, kind, backward=backward)
            for kind in self.kinds
            for backward in ((False, True) if make().reversible else (False,))
        ]
        self._atomic = all(step.transactional for stage in stages for step in stage.steps)

    async def moments(
        self, make: Callable[[], Operation], before: Sequence[Operation], empty: Callable[[], str]
    ) -> list[tuple[bool, str, int]]:
        """Where it can be interrupted: whether its migration is atomic, the moment, and the step.

        Args:
            make: as the fixture.
            before: as the fixture.
            empty: as the fixture.
        """
        async with trial(empty(), self.app, before, [make()]) as one:
            steps = [step for stage in await one.stage() for step in stage.steps]
            together = one.database.kind in TRANSACTIONAL and self.atomic(make())
        found = [(False, moment, number) for number in range(len(steps)) for moment in MOMENTS]
        found += [(False, "batch", 0)] if any(isinstance(step, Call) for step in steps) else []
        if together:
            found += [(True, "after", number) for number in range(len(steps))]
        return found

    async def check_after(self, one: Trial, counted: dict[str, int] | None) -> None:
        """See whether a trial is as it is to be when it was applied.

        Args:
            one: the trial.
            counted: how many rows there were before, by model; None where that does not count.
        """
        before, after = one.states
        assert await one.applied()
        assert not (differences := await one.differences(after)), "\n".join(differences)
        if counted is not None and self.keeps_rows:
            kept = {label: counted[label] for label in counted if label in after and label in before}
            now = await one.row_counts(after)
            assert {label: now.get(label) for label in kept} == kept, "rows are gone, or came"
        await self.check_done(one.database)

    async def check_before(self, one: Trial, schema: Any) -> None:
        """See whether a trial is as it was before.

        Args:
            one: the trial.
            schema: what was there.
        """
        assert not await one.applied()
        if self.restores:
            assert await one.schema() == schema
            await self.check_not_done(one.database)


def unrelated() -> Operation:
    """An operation that has nothing to do with others."""
    return CreateModel("KitUnrelated", {"id": BigAutoField(primary_key=True), "number": IntegerField(null=True)})
