"""Names in a database: of tables, columns, indexes and constraints.

What a program declares is taken as it is, or refused; what is made here of other names is shortened where it is too
long, to the same name every time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from covet_orm.exceptions import InvalidIdentifier, ModelError
from covet_orm.identifiers import check_identifier

__all__ = ["MOST_BYTES", "check_name", "name_of", "shortened"]

MOST_BYTES = 63
"""Bytes of UTF-8 that a name may have on every database: PostgreSQL cuts a longer one, and says nothing."""


def check_name(name: str, what: str, remedy: str) -> str:
    """A name that a program declared, if every database takes it.

    Args:
        name: the name.
        what: what it is the name of, for the message.
        remedy: what to change.

    Raises:
        ModelError: it is too long, empty, or contains what a name cannot have.
    """
    try:
        check_identifier(name, "mariadb", what)
        return check_identifier(name, "postgresql", what)
    except InvalidIdentifier as error:
        raise ModelError(f"{error}; {remedy}") from None


def shortened(name: str, ending: str = "") -> str:
    """A name with an ending, of at most 63 bytes: of a longer one the beginning, and digits that tell it apart."""
    whole = f"{name}{ending}"
    if len(whole.encode()) <= MOST_BYTES:
        return whole
    mark = f"_{hashlib.sha256(whole.encode()).hexdigest()[:8]}{ending}"
    cut = name.encode()[: MOST_BYTES - len(mark.encode())].decode(errors="ignore")
    return f"{cut}{mark}"


def name_of(table: str, columns: Iterable[str], ending: str, *, more: str = "") -> str:
    """The name of an index or a constraint: `table_column_column_ending`.

    Args:
        table: the table's name.
        columns: the names of its columns.
        ending: what kind of thing it is: `idx`, `key`, `check`, `fk`.
        more: what else tells it from others of the same columns, such as a condition; digits of it become part of the
            name.
    """
    parts = [table, *columns]
    if more:
        parts.append(hashlib.sha256(more.encode()).hexdigest()[:8])
    return shortened("_".join(parts), f"_{ending}")
