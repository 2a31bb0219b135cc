"""Operations as they come out of files, in this process and in another one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from covet_migrate.files.loader import load_file
from covet_migrate.files.writer import write_migration
from covet_migrate.migrations import Migration
from covet_migrate.operations.base import Operation
from covet_migrate.testing.files import BEFORE, TRIED
from covet_migrate.testing.trials import offline_stage, steps_told

__all__ = ["steps_of_files", "told_elsewhere", "written_and_read"]

TOLD = """
import json, sys
from covet_migrate.testing.rereading import steps_of_files
print(json.dumps(steps_of_files(*json.loads(sys.argv[1]))))
"""


def written_and_read(operation: Operation, app: str, folder: Path) -> tuple[Operation, str]:
    """An operation as it comes out of a file, and the file.

    Args:
        operation: the operation.
        app: the label of the application.
        folder: a folder that is not there yet.

    Raises:
        NotSerializable: it cannot be written.
        MigrationError: the file cannot be loaded.
    """
    folder.mkdir()
    package = f"covet_kit_{folder.name}"
    path = write_migration(Migration([operation], app=app, name=TRIED), folder)
    try:
        (found,) = load_file(path, app, package).migration.operations
    finally:
        sys.modules.pop(f"{package}.{TRIED}", None)
    return found, path.read_text(encoding="utf-8")


def steps_of_files(folder: str, app: str, kinds: Sequence[str]) -> dict[str, list[list[Any]]]:
    """What the operation of a file does, forward and backward, by kind of database.

    Args:
        folder: where it is, with the file of what comes before it.
        app: the label of the application.
        kinds: the databases.
    """
    first, tried = (load_file(Path(folder, f"{name}.py"), app).migration for name in (BEFORE, TRIED))
    (operation,) = tried.operations
    return {
        kind: [
            [
                list(one)
                for one in steps_told(offline_stage(first.operations, operation, app, kind, backward=back).steps)
            ]
            for back in ((False, True) if operation.reversible else (False,))
        ]
        for kind in kinds
    }


def told_elsewhere(folder: Path, app: str, kinds: Sequence[str], *, seed: str) -> Any:
    """What another process says of the steps of files (`steps_of_files`).

    Args:
        folder: where they are.
        app: the label of the application.
        kinds: the databases.
        seed: of its hashes.
    """
    told = json.dumps([str(folder), app, list(kinds)])
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with tempfile.TemporaryDirectory() as elsewhere:
        done = subprocess.run(
            [sys.executable, "-c", TOLD, told],
            cwd=elsewhere,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
