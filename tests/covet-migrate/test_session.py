"""The session of the proof, from models to rollback, on SQLite; and that it notices what is not as it is to be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.proofs.migrate_session import Session, WrongSessionError, play
from tests.services.databases import SQLite
from tests.typed_commands import Typist


def session(tmp_path: Path, commands: Typist) -> Session:
    def typed(folder: Path, arguments: Sequence[str]) -> tuple[int, str]:
        ended = commands.type(folder, list(arguments), "", {})
        return ended.code, ended.err + ended.out

    return Session(tmp_path, SQLite(tmp_path).url("site"), typed)


def test_the_session(tmp_path: Path, commands: Typist) -> None:
    made = session(tmp_path, commands)
    play(made)
    text = "\n".join(made.lines)
    assert made.typed > 30
    assert str(tmp_path) not in text
    assert "applied  _ s" in text


def test_it_notices_what_is_wrong(tmp_path: Path, commands: Typist) -> None:
    made = session(tmp_path, commands)
    made.make()
    made.models("class Post(orm.Model):\n    pass\n")
    with pytest.raises(WrongSessionError, match="missing"):
        made.type("makemigrations", "something else")
    with pytest.raises(WrongSessionError, match="exit code 0, not 1"):
        made.type("migrate", code=1)
    with pytest.raises(WrongSessionError):
        made.type("migrate", never="Nothing")
