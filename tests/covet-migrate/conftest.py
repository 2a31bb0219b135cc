"""Fixtures of the tests of covet-migrate: real databases, and projects in which commands are typed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.services.fixtures import anyio_backend, databases, mariadb, postgresql, server, url
from tests.typed_commands import Project, Typist, typist

__all__ = ["anyio_backend", "commands", "databases", "mariadb", "postgresql", "project", "server", "url"]


@pytest.fixture(scope="session")
def commands() -> Iterator[Typist]:
    """Somebody who types commands."""
    with typist() as found:
        yield found


@pytest.fixture
def project(tmp_path: Path, commands: Typist) -> Project:
    """A project without models, on an SQLite file that is not there yet."""
    return Project(tmp_path / "project", commands)
