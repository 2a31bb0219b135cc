"""Migrations as files."""

from __future__ import annotations

import textwrap
from itertools import pairwise
from pathlib import Path

from covet_migrate.exceptions import MigrationError
from covet_migrate.files.copying import Copied
from covet_migrate.files.layout import WIDTH, Bracket, Source, lines_of
from covet_migrate.files.literals import documentation
from covet_migrate.files.values import Values
from covet_migrate.migrations import Migration

__all__ = ["source_of", "write_migration"]


def source_of(migration: Migration) -> str:
    """The text of a migration's file: the same every time, and as `ruff format` leaves it.

    Raises:
        NotSerializable: a value in it cannot be written. The message says which one, and what to do.
    """
    values = Values()
    # What a squashed migration runs stands in files that are to go.
    copied = Copied(values.imports)
    for operation in migration.operations if migration.replaces else ():
        copied.take(operation)
    items: list[tuple[str, Source]] = []
    if migration.initial is not None:
        items.append(("initial=", values.source(migration.initial, "initial")))
    for name in ("replaces", "dependencies", "run_before"):
        keys = list(getattr(migration, name))
        if keys or name == "dependencies":
            items.append((f"{name}=", values.source(keys, name)))
    if not migration.atomic:
        items.append(("atomic=", values.source(False, "atomic")))
    operations = [("", values.source(operation, str(migration))) for operation in migration.operations]
    items.append(("operations=", Bracket("[", operations, "]", one_a_line=True)))
    made = Bracket(f"{values.imports.name('covet_migrate', 'Migration')}(", items, ")", one_a_line=True)
    imports = "\n".join(values.imports.lines())
    text = lines_of(made, "", "migration = ", "")
    parts = [*copied.code(), f"migration = {text}"]
    code = "".join(f"{_gap(before, part)}{part}\n" for before, part in pairwise(["", *parts]))
    return f"{documentation(_description(migration))}\n\n{imports}{code}"


def _gap(before: str, part: str) -> str:
    """The empty lines between two statements: two around functions and classes."""
    defines = ("def ", "async def ", "class ", "@")
    return "\n\n" if part.startswith(defines) or before.startswith(defines) else "\n" if not before else ""


def write_migration(migration: Migration, folder: Path, source: str | None = None) -> Path:
    """Write a migration into the file of its name.

    Args:
        migration: the migration.
        folder: the folder, which has to be there.
        source: its text, where that was made already.

    Returns:
        The file.

    Raises:
        NotSerializable: a value in it cannot be written; there is no file then.
        MigrationError: the file is there already, or cannot be written.
    """
    text = source if source is not None else source_of(migration)
    path = folder / f"{migration.name}.py"
    try:
        with path.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError:
        raise MigrationError(f"{path} is there already; give the migration another name with --name") from None
    except OSError as error:
        # A part of a file would be a migration that cannot be loaded.
        path.unlink(missing_ok=True)
        raise MigrationError(f"{path} cannot be written: {error.strerror or error}") from error
    return path


def _description(migration: Migration) -> str:
    """What a migration does, in a sentence or in a list."""
    told = [operation.describe() for operation in migration.operations]
    told = [" ".join("".join(letter if letter.isprintable() else " " for letter in one).split()) for one in told]
    if migration.replaces:
        told.insert(0, f"In place of {', '.join(name for _, name in migration.replaces)}")
    if not told:
        return "Nothing yet."
    sentence = "; ".join([told[0], *(one[:1].lower() + one[1:] for one in told[1:])]) + "."
    if len(sentence) + len('""""""') <= WIDTH:
        return sentence
    lines = [
        textwrap.fill(
            one, WIDTH, initial_indent="- ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )
        for one in told
    ]
    title = f"{len(migration.operations)} operations" if len(migration.operations) > 1 else "One operation"
    return "\n".join([f"{title} on {migration.app or 'the models'}.", "", *lines, ""])
