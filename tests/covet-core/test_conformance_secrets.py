"""The conformance kit of secret providers: the builtin ones keep every promise, and wrong ones are caught."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from tests.kits import run_kit

from covet.secrets import SecretValue, from_environment, from_file, watched_file
from covet.testing.conformance.secrets import SecretProviderConformance


class FileKit(SecretProviderConformance):
    wrong: Any = staticmethod(from_file)
    alphabet = st.characters(exclude_categories=["Cs"], exclude_characters="\0\r")

    @pytest.fixture
    def provider(self) -> Any:
        return self.wrong

    @pytest.fixture
    def store(self, tmp_path: Path) -> Callable[[str], str]:
        def store(text: str) -> str:
            (tmp_path / "secret").write_text(text + "\n", encoding="utf-8", newline="")
            return str(tmp_path / "secret")

        return store

    @pytest.fixture
    def missing(self, tmp_path: Path) -> str:
        return str(tmp_path / "nothing")


class TestFile(FileKit):
    """A file is read as text, whose line breaks are of one kind."""


class TestWatchedFile(TestFile):
    wrong = staticmethod(watched_file(60.0))


class TestEnvironment(SecretProviderConformance):
    @pytest.fixture
    def provider(self) -> Any:
        return from_environment

    @pytest.fixture
    def store(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
        def store(text: str) -> str:
            monkeypatch.setenv("COVET_KIT_SECRET", text)
            return "COVET_KIT_SECRET"

        return store

    @pytest.fixture
    def missing(self) -> str:
        return "COVET_KIT_NOTHING"


async def asynchronous(path: str) -> str:
    return from_file(path)


def strips(path: str) -> str:
    return from_file(path).strip()


def expands(path: str) -> str:
    return os.path.expandvars(from_file(path))


class Caches:
    def __init__(self) -> None:
        self.known: dict[str, str] = {}

    def __call__(self, path: str) -> str:
        if path not in self.known:
            self.known[path] = from_file(path)
        return self.known[path]


def empty(path: str) -> str:
    return from_file(path) if Path(path).is_file() else ""


def echoes(path: str) -> str:
    return from_file(path) if Path(path).is_file() else path


def quotes(path: str) -> str:
    from covet.secrets import SecretError

    if not Path(path).is_file():
        raise SecretError(
            f"only {[each.read_text() for each in Path(path).parent.iterdir() if each.is_file()]} are there"
        )
    return from_file(path)


def logs(path: str) -> str:
    found = from_file(path)
    logging.getLogger("vault").debug("read %s", found)
    return found


def prints(path: str) -> str:
    found = from_file(path)
    print(found)
    return found


class OneAtATime:
    busy = False

    def __call__(self, path: str) -> str:
        import time

        if self.busy:
            raise RuntimeError("busy")
        self.busy = True
        time.sleep(0.01)
        self.busy = False
        return from_file(path)


def late(path: str) -> SecretValue:
    return SecretValue(from_file(path), expires_in=1, renew_in=2)


WRONG: list[tuple[Any, str]] = [
    (asynchronous, "test_it_is_a_plain_function"),
    (strips, "test_the_value_as_it_is"),
    (expands, "test_the_value_as_it_is"),
    (strips, "test_any_value"),
    (Caches(), "test_the_value_as_it_is_now"),
    (empty, "test_what_is_not_there"),
    (echoes, "test_what_is_not_there"),
    (quotes, "test_an_error_quotes_no_secret"),
    (logs, "test_nothing_is_logged"),
    (prints, "test_nothing_is_logged"),
    (OneAtATime(), "test_threads_may_ask_at_once"),
    (late, "test_how_long_it_is_valid"),
]


@pytest.mark.parametrize(
    ("wrong", "test"), WRONG, ids=lambda value: getattr(value, "__name__", str(type(value).__name__))
)
def test_a_wrong_provider_is_caught(wrong: Any, test: str) -> None:
    kit = type("Kit", (FileKit,), {"wrong": staticmethod(wrong)})
    outcome = run_kit(kit, only=test)
    assert test in outcome.failed, (outcome.passed, outcome.failed)


def test_every_promise_has_a_provider_that_breaks_it() -> None:
    promises = {name for name in vars(SecretProviderConformance) if name.startswith("test_")}
    assert {test for _, test in WRONG} == promises
