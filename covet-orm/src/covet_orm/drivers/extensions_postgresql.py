"""Which extension of PostgreSQL has what a statement named and the server did not find."""

from __future__ import annotations

import re

__all__ = ["advice"]

NOT_FOUND = frozenset(("42704", "42883"))
"""Of types and operator classes, of functions and operators."""

EXTENSIONS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\bhstore\b"), "hstore"),
    (re.compile(r'"citext"'), "citext"),
    (re.compile(r"\bunaccent\("), "unaccent"),
    (re.compile(r'\b(?:strict_)?(?:word_)?similarity\(|"gi(?:n|st)_trgm_ops"'), "pg_trgm"),
    (re.compile(r"(?:\btext|\bcharacter varying|\bunknown) (?:<{0,3}%>{0,2}|<{1,3}->{1,3}) "), "pg_trgm"),
    # The values of JSON have no order there.
    (re.compile(r'^(?!.*\bjsonb?\b).*access method "gist"'), "btree_gist"),
    (re.compile(r'^(?!.*\bjsonb?\b).*access method "gin"'), "btree_gin"),
)
"""By the names in the server's words, which stand there in every language."""

VERSIONS = {"uuidv7(": "18"}
"""Functions, and since which version the server has them."""


def advice(code: str, told: str) -> str:
    """What would make the server find it; empty where nothing is known of it.

    Args:
        code: the SQLSTATE.
        told: the server's words.
    """
    if code not in NOT_FOUND:
        return ""
    for name, version in VERSIONS.items():
        if name in told:
            return f"; PostgreSQL has it since version {version}"
    for words, extension in EXTENSIONS:
        if words.search(told):
            return (
                f"; the extension {extension} has it, which this database lacks or has in a schema that is not in its "
                f"search_path: CREATE EXTENSION {extension}, or create_all(extensions=['{extension}'])"
            )
    return ""
