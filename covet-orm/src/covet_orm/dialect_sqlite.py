"""SQLite, as statements are written for it."""

from __future__ import annotations

from sqlalchemy.dialects.sqlite import aiosqlite
from sqlalchemy.dialects.sqlite.base import SQLiteIdentifierPreparer
from sqlalchemy.engine.interfaces import Dialect

__all__ = ["SQLiteStatements"]


class _Preparer(SQLiteIdentifierPreparer):
    """Quotes names by backticks.

    SQLite takes a double-quoted name that is no column for a string (https://sqlite.org/quirks.html, section 8), so
    that a misspelt column gives a wrong answer instead of an error. Backticks always mean a name.
    """

    def __init__(self, dialect: Dialect) -> None:
        super().__init__(dialect, initial_quote="`", final_quote="`", escape_quote="`")


class SQLiteStatements(aiosqlite.dialect):
    """SQLite, for statements: its DDL stays in the usual quotes, which reflection knows."""

    supports_statement_cache = True
    # `INSERT INTO ... WITH ...`: Python's sqlite3 counts the rows of a statement that begins with INSERT alone.
    cte_follows_insert = True
    preparer: type[SQLiteIdentifierPreparer] = _Preparer
