"""Covet's own operations pass the conformance kit of operations, on every database."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from tests.kits import run_kit
from tests.migrations.operation_cases import APP, CASES, OperationCase, created, operation_class
from tests.migrations.wrong_operations import RIGHT, WRONG, WrongOperation
from tests.migrations.wrong_operations import before as before_wrong
from tests.services.databases import Databases

from covet_migrate import operations as ops
from covet_migrate.operations import Operation
from covet_migrate.testing import OperationConformance
from covet_orm import Database

ALL = bool(os.environ.get("COVET_OPERATIONS_KIT"))
"""Whether each operation has all tests on each database, as the proof wants it, or those here that are quick."""
KINDS = {"sqlite": "sqlite", "postgresql-15": "postgresql", "postgresql-18": "postgresql", "mariadb": "mariadb"}
ABSTRACT = {"Change", "Operation", "ModelOperation", "FieldOperation", "DefinitionOperation", "Wrapping", "unwrapped"}
FEW: dict[str, dict[str, list[str]]] = {
    "test_it_locks_no_more_than_it_says": {"postgresql-18": ["AddField", "RenameModel", "DeleteModel"]},
    "test_forward_it_makes_what_the_state_says": {
        "mariadb": ["Online of a field"],
        "postgresql-18": ["AddConstraint without a look"],
    },
    "test_backward_it_is_as_it_was": {
        "sqlite": [
            "AddField", "AlterField", "RenameField", "RenameModel", "SeparateDatabaseAndState", "RunSQL", "SyncFields",
            "RunSQL without a way back", "CreateView", "Reviewed",
        ],
        "postgresql-18": [
            "CreateExtension", "CreateCollation", "CreateSequence", "AddIndex concurrently", "StopSyncFields",
        ],
    },
    "test_interrupted_it_goes_on": {
        "sqlite": ["RunPython in batches"],
        "mariadb": ["RunPython in batches", "AddField"],
        "postgresql-18": ["AddIndex concurrently"],
    },
    "test_interrupted_it_is_unwound": {
        "mariadb": ["AddField", "RenameModel", "AlterField of a key"],
        "sqlite": ["RunPython"],
    },
    "test_it_is_reduced_to_the_same_schema": {"sqlite": ["RemoveField"]},
}  # fmt: skip
"""The operations that have a test on a database."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test its operations, and the databases that can do them."""
    if "make" not in metafunc.fixturenames:
        return
    if "empty" not in metafunc.fixturenames:
        metafunc.parametrize("case", list(CASES), indirect=True)
        return
    chosen = {name: list(CASES) for name in KINDS} if ALL else FEW[metafunc.function.__name__]
    pairs = [(one, name) for name, cases in chosen.items() for one in cases if KINDS[name] in CASES[one]().kinds]
    metafunc.parametrize(("case", "empty"), pairs, indirect=True)


class TestOurs(OperationConformance):
    app = APP
    other_process = False

    @pytest.fixture
    def case(self, request: pytest.FixtureRequest) -> OperationCase:
        case = CASES[request.param]()
        self.kinds = [*case.kinds, *(["mysql"] if "mariadb" in case.kinds else [])]
        self.rows, self.restores, self.keeps_rows = case.rows, case.restores, case.keeps_rows
        self.query = case.done
        return case

    @pytest.fixture
    def make(self, case: OperationCase) -> Callable[[], Operation]:
        return case.make

    @pytest.fixture
    def before(self, case: OperationCase) -> Sequence[Operation]:
        return [*created(), *case.before]

    @pytest.fixture
    def later(self, case: OperationCase) -> Sequence[Operation]:
        return case.later

    @pytest.fixture
    def empty(self, request: pytest.FixtureRequest, databases: Databases) -> Callable[[], str]:
        server = databases.get(request.param)
        return lambda: server.empty_database("kit")

    async def check_done(self, database: Database) -> None:
        if self.query:
            assert await count(database, self.query) == 1

    async def check_not_done(self, database: Database) -> None:
        if self.query:
            assert await count(database, self.query) == 0


async def count(database: Database, query: str) -> Any:
    async with database.connection() as connection:
        return (await connection.fetch(query))[0][0]


def test_every_operation_is_among_them() -> None:
    assert {operation_class(name) for name in CASES} == set(ops.__all__) - ABSTRACT


def kit_of(operations: Mapping[str, WrongOperation], databases: Databases) -> type[OperationConformance]:
    """The kit for operations: for each of them the test that it breaks, or all of them."""

    class Kit(OperationConformance):
        rows = ("INSERT INTO kit_shelf (name) VALUES ('a'), ('b')",)

        def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
            names = [name for name, one in operations.items() if one.promise in ("", metafunc.function.__name__)]
            metafunc.parametrize("wrong", names, indirect=True)

        @pytest.fixture
        def wrong(self, request: pytest.FixtureRequest) -> WrongOperation:
            wrong = operations[request.param]
            self.kinds = (KINDS[wrong.database],)
            return wrong

        @pytest.fixture
        def make(self, wrong: WrongOperation) -> Callable[[], Operation]:
            return lambda: wrong.make()

        @pytest.fixture
        def before(self) -> Sequence[Operation]:
            return before_wrong()

        @pytest.fixture
        def later(self, wrong: WrongOperation) -> Sequence[Operation]:
            return wrong.later

        @pytest.fixture
        def empty(self, wrong: WrongOperation) -> Callable[[], str]:
            server = databases.get(wrong.database)
            return lambda: server.empty_database("kit")

    return Kit


PROMISES = {name for name in vars(OperationConformance) if name.startswith("test_")}


def test_operations_that_break_a_promise_are_caught(databases: Databases) -> None:
    outcome = run_kit(kit_of(WRONG, databases))
    assert outcome.passed == set()
    assert set(outcome.failed) == PROMISES
    # By what it is about, and not by an accident.
    by_accident = {one.promise for one in WRONG.values() if one.told not in outcome.failed[one.promise]}
    assert by_accident == set()


def test_a_right_one_keeps_them_all(databases: Databases) -> None:
    outcome = run_kit(kit_of(RIGHT, databases))
    assert outcome.failed == {}
    assert outcome.passed == PROMISES


def test_every_promise_is_broken_by_somebody() -> None:
    assert sorted(one.promise for one in WRONG.values()) == sorted(PROMISES)
