"""Names of new migrations: `0003_user_email`."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from covet_migrate.exceptions import MigrationError
from covet_migrate.operations.base import Operation
from covet_migrate.operations.models import CreateModel

__all__ = ["LONGEST", "check_name", "name_of", "next_number", "number_of"]

LONGEST = 60
"""Characters of the part of a name that is made of operations."""
LONGEST_GIVEN = 120
"""Characters of a name that somebody gives: with the number it fits into the history, and into every file system."""


def number_of(name: str) -> int | None:
    """The number that a name begins with; None where it begins with none."""
    found = re.match(r"\d+", name)
    return int(found.group()) if found else None


def next_number(names: Iterable[str]) -> str:
    """The number after the largest of names, with four digits at least: `0004`."""
    largest = max((number for name in names if (number := number_of(name)) is not None), default=0)
    return f"{largest + 1:04}"


def name_of(
    operations: Sequence[Operation], before: Iterable[str], *, given: str | None = None, initial: bool = False
) -> str:
    """The name of a new migration.

    Args:
        operations: what it does.
        before: the names of the migrations of its application.
        given: its name without the number, where somebody chose it (`--name`).
        initial: whether it is the first one, which is called `0001_initial` where it creates models.

    Raises:
        MigrationError: the name that was given is none that a file can have.
    """
    number = next_number(before)
    if given is not None:
        return f"{number}_{check_name(given)}"
    if initial and any(isinstance(one, CreateModel) for one in operations):
        return f"{number}_initial"
    return f"{number}_{_described(operations)}"


def check_name(given: str) -> str:
    """A name that somebody chose.

    Raises:
        MigrationError: it is none.
    """
    if re.fullmatch(r"[A-Za-z0-9_]+", given) and len(given) <= LONGEST_GIVEN:
        return given
    almost = _words(given)[:LONGEST_GIVEN]
    hint = f", such as {almost}" if almost else ""
    raise MigrationError(
        f"{given!r:.200} is no name of a migration: it is a part of a file's name, of letters of English, digits and "
        f"underscores, {LONGEST_GIVEN} at most{hint}"
    )


def _described(operations: Sequence[Operation]) -> str:
    """What operations do: the names of as many as fit, one behind the other."""
    names = [name for name in dict.fromkeys(_words(one.file_name()) for one in operations) if name]
    if not names:
        return "empty"
    found = names[0][:LONGEST].rstrip("_")
    for position, name in enumerate(names[1:], start=1):
        rest = f"_and_{len(names) - position}_more"
        last = position == len(names) - 1
        if len(found) + len(name) + 1 + (0 if last else len(rest)) > LONGEST:
            return f"{found[: LONGEST - len(rest)].rstrip('_')}{rest}"
        found = f"{found}_{name}"
    return found


def _words(text: str) -> str:
    """A text as a part of a file's name."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "_", plain.lower()).strip("_")
