"""What databases write differently, and SQLAlchemy leaves to its user."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import ColumnElement
from sqlalchemy.dialects import mysql

from covet_orm.fields.inference import family

if TYPE_CHECKING:
    from covet_orm.fields.base import Field

__all__ = ["DIFFERENCES", "Differences", "MariaDB", "MySQL", "SQLite"]


class Differences:
    """PostgreSQL, from which the others differ.

    Attributes:
        returning: whether INSERT, UPDATE and DELETE can give back columns.
    """

    returning: tuple[str, ...] = ("insert", "update", "delete")

    def like(self, left: ColumnElement[Any], pattern: ColumnElement[Any], *, fold: bool) -> ColumnElement[Any]:
        """Whether a text matches a pattern in which a backslash escapes; with `fold`, whatever its case."""
        return left.ilike(pattern, escape="\\") if fold else left.like(pattern, escape="\\")

    def regex(self, left: ColumnElement[Any], pattern: ColumnElement[Any], *, fold: bool) -> ColumnElement[Any]:
        """Whether something in a text matches a regular expression; with `fold`, whatever its case."""
        return left.op("~*" if fold else "~", is_comparison=True)(pattern)

    def typed(self, parameter: ColumnElement[Any], field: Field[Any]) -> ColumnElement[Any]:
        """A parameter that stands by itself, of the type of a field."""
        return parameter

    def as_text(self, element: ColumnElement[Any]) -> ColumnElement[Any]:
        """A value of another type as text."""
        return sqlalchemy.cast(element, sqlalchemy.Text())


class MySQL(Differences):
    """MySQL and MariaDB: what is compared depends on the collation, unless one is named."""

    returning: tuple[str, ...] = ()

    def like(self, left: ColumnElement[Any], pattern: ColumnElement[Any], *, fold: bool) -> ColumnElement[Any]:
        if fold:
            return sqlalchemy.func.lower(left).like(sqlalchemy.func.lower(pattern), escape="\\")
        return left.like(_collated(pattern, "utf8mb4_bin"), escape="\\")

    def regex(self, left: ColumnElement[Any], pattern: ColumnElement[Any], *, fold: bool) -> ColumnElement[Any]:
        collation = "utf8mb4_general_ci" if fold else "utf8mb4_bin"
        return left.op("REGEXP", is_comparison=True)(_collated(pattern, collation))

    def typed(self, parameter: ColumnElement[Any], field: Field[Any]) -> ColumnElement[Any]:
        # Points in time are texts there, unless something makes them what they are.
        types: dict[str, Any] = {
            "date": sqlalchemy.Date(),
            "datetime": mysql.DATETIME(fsp=6),
            "time": mysql.TIME(fsp=6),
        }
        column_type = types.get(family(field))
        return parameter if column_type is None else sqlalchemy.cast(parameter, column_type)

    def as_text(self, element: ColumnElement[Any]) -> ColumnElement[Any]:
        return sqlalchemy.cast(element, mysql.CHAR(charset="utf8mb4"))


class MariaDB(MySQL):
    """MariaDB, which can give back what it inserted and deleted."""

    returning = ("insert", "delete")


class SQLite(Differences):
    """SQLite, whose connections are told that LIKE tells upper from lower case, and are given functions of their
    own (`covet_orm.queries.sqlite_functions`): `covet_lower`, for one, knows more letters than SQLite's `lower`."""

    def like(self, left: ColumnElement[Any], pattern: ColumnElement[Any], *, fold: bool) -> ColumnElement[Any]:
        if fold:
            left, pattern = sqlalchemy.func.covet_lower(left), sqlalchemy.func.covet_lower(pattern)
        return left.like(pattern, escape="\\")

    def regex(self, left: ColumnElement[Any], pattern: ColumnElement[Any], *, fold: bool) -> ColumnElement[Any]:
        flag: ColumnElement[Any] = sqlalchemy.literal_column("1" if fold else "0")
        return sqlalchemy.func.covet_regexp(pattern, left, flag, type_=sqlalchemy.Boolean())


def _collated(text: ColumnElement[Any], collation: str) -> ColumnElement[Any]:
    return sqlalchemy.cast(text, mysql.CHAR(charset="utf8mb4")).collate(collation)


DIFFERENCES: dict[str, Differences] = {
    "postgresql": Differences(),
    "mysql": MySQL(),
    "mariadb": MariaDB(),
    "sqlite": SQLite(),
}
"""What databases write differently, by kind."""
