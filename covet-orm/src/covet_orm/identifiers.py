"""Names of tables, columns and aliases: quoted by the dialect when they could be names, refused when they could not.

Quoting makes a name of nearly any text, so a hostile one cannot leave its quotes. What is refused here is what a server
would cut, fold into another name or not take at all, and what would be mistaken for something else on the way to it.
"""

from __future__ import annotations

from covet_orm.exceptions import InvalidIdentifier

__all__ = ["MAX_BYTES", "MAX_CHARACTERS", "check_identifier", "check_path"]

MAX_BYTES = {"postgresql": 63}
"""How many bytes of UTF-8 a name may have (PostgreSQL: NAMEDATALEN - 1; it cuts a longer one without an error)."""

MAX_CHARACTERS = {"mysql": 64, "mariadb": 64}
"""How many characters a name may have (MySQL Reference Manual, "Identifier Length Limits")."""

# SQLAlchemy finds its parameters in the finished text by these; in a name they could be taken for one.
PARAMETER_MARKS = ("%(", "__[")


def check_identifier(name: str, kind: str, what: str = "name") -> str:
    """A name by itself: of a table, a column, a schema or an alias.

    Args:
        name: the name, not quoted.
        kind: `postgresql`, `mysql`, `mariadb` or `sqlite`.
        what: what it is the name of, for the message.

    Returns:
        The name, unchanged: it is never cut, folded or stripped.

    Raises:
        InvalidIdentifier: it is no text, is empty or too long for the database, contains a dot, a control character or
            what cannot be encoded; on MySQL and MariaDB also a character beyond U+FFFF or a space at its end.
    """
    if not isinstance(name, str):
        raise InvalidIdentifier(f"a {what} is text, not {type(name).__name__}: {name!r:.60}")
    wrong = _wrong(name, kind)
    if wrong:
        raise InvalidIdentifier(f"the {what} {name!r:.100} {wrong}")
    return name


def check_path(path: str, kind: str, what: str = "name", *, most: int = 3) -> tuple[str, ...]:
    """A name that dots take apart: `column`, `table.column`, `schema.table.column`.

    Args:
        path: the name, not quoted.
        kind: `postgresql`, `mysql`, `mariadb` or `sqlite`.
        what: what it is the name of, for the message.
        most: how many parts it may have.

    Returns:
        The parts.

    Raises:
        InvalidIdentifier: a part is no name by itself, or there are too many.
    """
    if not isinstance(path, str):
        raise InvalidIdentifier(f"a {what} is text, not {type(path).__name__}: {path!r:.60}")
    parts = tuple(path.split("."))
    if len(parts) > most:
        raise InvalidIdentifier(f"the {what} {path!r:.100} has {len(parts)} parts; there are at most {most}")
    for part in parts:
        wrong = _wrong(part, kind)
        if wrong:
            raise InvalidIdentifier(f"the {what} {path!r:.100} {wrong}")
    return parts


def _wrong(name: str, kind: str) -> str:
    """What is wrong with a name, as the end of a sentence; empty when nothing is."""
    if not name or name.isspace():
        return "is empty"
    if "." in name:
        return "contains a dot, and is to be one name by itself"
    for character in name:
        # C0 and C1 controls, the line and paragraph separators, and what has no encoding.
        if character < " " or "\x7f" <= character <= "\x9f" or character in "\u2028\u2029":
            return f"contains the control character U+{ord(character):04X}"
        if "\ud800" <= character <= "\udfff":
            return "contains half of a surrogate pair, which has no encoding"
    if any(mark in name for mark in PARAMETER_MARKS):
        return f"contains {' or '.join(PARAMETER_MARKS)}, which mark a parameter"
    limit = MAX_BYTES.get(kind)
    if limit is not None and len(name.encode()) > limit:
        return f"has {len(name.encode())} bytes in UTF-8, and {kind} takes {limit}"
    limit = MAX_CHARACTERS.get(kind)
    if limit is not None:
        if len(name) > limit:
            return f"has {len(name)} characters, and {kind} takes {limit}"
        if name[-1] == " ":
            return f"ends with a space, which {kind} does not take"
        if max(name) > "\uffff":
            return f"contains a character beyond U+FFFF, which {kind} does not take"
    return ""
