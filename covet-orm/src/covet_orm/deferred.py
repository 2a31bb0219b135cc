"""SQLAlchemy, imported when something of it is first used.

Importing it takes longer than importing all else that declaring models needs, and declaring them needs none of it: a
program that writes migrations, shows routes or prints its help does not wait for it. Modules on that way take their
`sqlalchemy` from here; to type checkers, and to those who read them, it is the module itself.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sqlalchemy as sqlalchemy
    import sqlalchemy.engine.mock
    import sqlalchemy.exc
    import sqlalchemy.schema
    import sqlalchemy.sql.compiler
    import sqlalchemy.sql.elements
    from sqlalchemy.dialects import mysql as mysql
    from sqlalchemy.dialects import postgresql as postgresql

__all__ = ["is_clause", "mysql", "postgresql", "sqlalchemy"]


class _Deferred:
    """A module that is imported when an attribute of it is first asked for."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __getattr__(self, name: str) -> Any:
        value = getattr(import_module(self.__name__), name)
        # From now on it is found without this function.
        setattr(self, name, value)
        return value

    def __repr__(self) -> str:
        return f"<deferred module {self.__name__!r}>"


if not TYPE_CHECKING:
    sqlalchemy = _Deferred("sqlalchemy")
    mysql = _Deferred("sqlalchemy.dialects.mysql")
    postgresql = _Deferred("sqlalchemy.dialects.postgresql")


def is_clause(value: object) -> bool:
    """Whether a value is SQL in SQLAlchemy's own words; where nobody imported SQLAlchemy, none is."""
    return "sqlalchemy.sql.elements" in sys.modules and isinstance(value, sqlalchemy.sql.ClauseElement)
