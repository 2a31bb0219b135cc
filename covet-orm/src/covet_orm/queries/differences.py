"""What databases write differently, and SQLAlchemy leaves to its user."""

from __future__ import annotations

from typing import Any

import sqlalchemy
from sqlalchemy import ColumnElement
from sqlalchemy.dialects import mysql

__all__ = ["DIFFERENCES", "Differences", "MariaDB", "MySQL", "SQLite"]


class Differences:
    """PostgreSQL, from which the others differ.

    Attributes:
        returning: whether INSERT, UPDATE and DELETE can give back columns.
    """

    returning = ("insert", "update", "delete")

    def like(self, left: ColumnElement[Any], pattern: ColumnElement[Any], *, fold: bool) -> ColumnElement[Any]:
        """Whether a text matches a pattern in which a backslash escapes; with `fold`, whatever its case."""
        return left.ilike(pattern, escape="\\") if fold else left.like(pattern, escape="\\")


class MySQL(Differences):
    """MySQL and MariaDB: what is compared depends on the collation, unless one is named."""

    returning = ()

    def like(self, left: ColumnElement[Any], pattern: ColumnElement[Any], *, fold: bool) -> ColumnElement[Any]:
        if fold:
            return sqlalchemy.func.lower(left).like(sqlalchemy.func.lower(pattern), escape="\\")
        return left.like(sqlalchemy.cast(pattern, mysql.CHAR(charset="utf8mb4")).collate("utf8mb4_bin"), escape="\\")


class MariaDB(MySQL):
    """MariaDB, which can give back what it inserted and deleted."""

    returning = ("insert", "delete")


class SQLite(Differences):
    """SQLite, whose connections are told that LIKE tells upper from lower case, and are given `covet_lower`, which knows
    more letters than SQLite's own."""

    def like(self, left: ColumnElement[Any], pattern: ColumnElement[Any], *, fold: bool) -> ColumnElement[Any]:
        if fold:
            left, pattern = sqlalchemy.func.covet_lower(left), sqlalchemy.func.covet_lower(pattern)
        return left.like(pattern, escape="\\")


DIFFERENCES: dict[str, Differences] = {
    "postgresql": Differences(),
    "mysql": MySQL(),
    "mariadb": MariaDB(),
    "sqlite": SQLite(),
}
"""What databases write differently, by kind."""
