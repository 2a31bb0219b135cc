"""The conformance kit of storages: one on SQLite keeps every promise, and wrong ones are caught."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from tests.kits import run_kit

from covet.testing.conformance.storage import StorageConformance


class SQLite:
    """A storage with one connection."""

    kind = "sqlite"

    def __init__(self, path: Path, password: str = "hunter2") -> None:
        self.alias, self.path, self.password = "default", path, password
        self.url = f"sqlite://me:********@{path}"
        self.connection: sqlite3.Connection | None = None

    async def open(self) -> None:
        await anyio.lowlevel.checkpoint()
        opened: list[sqlite3.Connection] = []
        try:
            await anyio.to_thread.run_sync(lambda: opened.append(sqlite3.connect(self.path, check_same_thread=False)))
            await anyio.to_thread.run_sync(lambda: opened[0].execute("create table if not exists t (n)"))
        except BaseException:
            for each in opened:
                each.close()
            raise
        self.connection = opened[0]

    async def close(self) -> None:
        await anyio.lowlevel.checkpoint()
        if self.connection is not None:
            connection, self.connection = self.connection, None
            connection.close()

    async def check(self) -> None:
        await anyio.lowlevel.checkpoint()
        if self.connection is None:
            raise RuntimeError("it is not open")
        self.connection.execute("select 1").fetchall()


class Kit(StorageConformance):
    password = "hunter2"
    patience = 2.0
    wrong: type[SQLite] = SQLite

    @pytest.fixture
    def storage(self, tmp_path: Path) -> Any:
        return self.wrong(tmp_path / "db")

    @pytest.fixture
    def unreachable(self, tmp_path: Path) -> Any:
        return self.wrong(tmp_path / "no" / "such" / "db")


class TestSQLite(Kit):
    patience = 30.0


class ShowsPassword(SQLite):
    def __repr__(self) -> str:
        return f"<SQLite {self.password}>"


class NeverCloses(SQLite):
    kept: list[Any] = []

    async def close(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.kept.append(self.connection)
        self.connection = None


class OnlyOnce(SQLite):
    used = False

    async def open(self) -> None:
        if self.used:
            raise RuntimeError("used up")
        self.used = True
        await super().open()


class AlwaysWell(SQLite):
    async def check(self) -> None:
        await anyio.lowlevel.checkpoint()


class OneCheck(SQLite):
    busy = False

    async def check(self) -> None:
        if self.busy:
            raise RuntimeError("busy")
        self.busy = True
        await anyio.lowlevel.checkpoint()
        self.busy = False
        await super().check()


class LeaksWhenCancelled(SQLite):
    kept: list[Any] = []

    async def open(self) -> None:
        connection = sqlite3.connect(self.path, check_same_thread=False)
        connection.execute("create table if not exists t (n)")
        self.kept.append(connection)
        await anyio.lowlevel.checkpoint()
        self.connection = connection


class WaitsForChecks(SQLite):
    checks = 0

    async def check(self) -> None:
        self.checks += 1
        await super().check()
        self.checks -= 1

    async def close(self) -> None:
        while self.checks:  # noqa: ASYNC110
            await anyio.sleep(0.01)
        await super().close()


class TellsPassword(SQLite):
    async def open(self) -> None:
        try:
            await super().open()
        except sqlite3.OperationalError as error:
            raise RuntimeError(f"cannot open with {self.password}") from error


class Hangs(SQLite):
    async def open(self) -> None:
        if not self.path.parent.exists():
            await anyio.sleep(60)
        await super().open()


WRONG: list[tuple[type[SQLite], str]] = [
    (ShowsPassword, "test_it_says_what_it_is"),
    (NeverCloses, "test_it_opens_checks_and_closes"),
    (OnlyOnce, "test_it_opens_again"),
    (AlwaysWell, "test_a_check_fails_where_it_cannot_be_used"),
    (OneCheck, "test_checks_at_once"),
    (LeaksWhenCancelled, "test_cancelled_while_it_opens"),
    (OneCheck, "test_cancelled_while_it_is_checked"),
    (WaitsForChecks, "test_it_closes_in_spite_of_cancellation"),
    (TellsPassword, "test_one_that_cannot_be_reached"),
    (Hangs, "test_one_that_cannot_be_reached"),
]


@pytest.mark.parametrize(("wrong", "test"), WRONG, ids=lambda value: getattr(value, "__name__", value))
def test_a_wrong_storage_is_caught(wrong: type[SQLite], test: str) -> None:
    try:
        outcome = run_kit(type("WrongKit", (Kit,), {"wrong": wrong}), only=test)
    finally:
        for connection in vars(wrong).get("kept", []):
            connection.close()
    assert set(outcome.failed) == {test}, (outcome.passed, outcome.failed)


def test_every_promise_has_a_storage_that_breaks_it() -> None:
    promises = {name for name in vars(StorageConformance) if name.startswith("test_")}
    assert {test for _, test in WRONG} == promises
