"""What databases write differently, and SQLAlchemy leaves to its user."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import BindParameter, ColumnElement
from sqlalchemy.dialects import mysql

from covet_orm.fields.inference import family

if TYPE_CHECKING:
    from covet_orm.fields.base import Field

__all__ = ["DEFINITIONS", "DIFFERENCES", "Differences", "MariaDB", "MySQL", "SQLite", "SQLiteDefinitions"]

# What means something in a pattern, and the same as it is.
LIKE = {"\\": "\\\\", "%": "\\%", "_": "\\_"}
GLOB = {"[": "[[]", "*": "[*]", "?": "[?]"}


class Differences:
    """PostgreSQL, from which the others differ.

    Attributes:
        returning: whether INSERT, UPDATE and DELETE can give back columns.
        tells_key: whether the answer to an INSERT has the key that the database counted, which costs less than to ask
            for it.
    """

    returning: tuple[str, ...] = ("insert", "update", "delete")
    tells_key = False

    def like(self, left: ColumnElement[Any], pattern: ColumnElement[Any], *, fold: bool) -> ColumnElement[Any]:
        """Whether a text matches a pattern in which a backslash escapes; with `fold`, whatever its case."""
        return left.ilike(pattern, escape="\\") if fold else left.like(pattern, escape="\\")

    def pattern(self, text: ColumnElement[Any], before: str, after: str) -> ColumnElement[Any]:
        """A pattern for `like`, in which nothing of a text has a meaning of its own.

        Args:
            text: an expression.
            before, after: what stands around it in the pattern: a percent sign, or nothing.
        """
        return _pattern(text, LIKE, before, after)

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
    tells_key = True

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
        if isinstance(element.type, sqlalchemy.Uuid):
            # Sixteen bytes, which are no text of their own.
            element = sqlalchemy.func.lower(sqlalchemy.func.hex(element))
            for place in ("9", "14", "19", "24"):
                where: list[ColumnElement[Any]] = [sqlalchemy.literal_column(text) for text in (place, "0", "'-'")]
                element = sqlalchemy.func.insert(element, *where)
        return sqlalchemy.cast(element, mysql.CHAR(charset="utf8mb4"))


class MariaDB(MySQL):
    """MariaDB, which can give back what it inserted and deleted."""

    returning = ("insert", "delete")


class SQLite(Differences):
    """SQLite, whose connections are told that LIKE tells upper from lower case, and are given functions of their
    own (`covet_orm.queries.sqlite_functions`): `covet_lower`, for one, knows more letters than SQLite's `lower`."""

    tells_key = True

    def like(self, left: ColumnElement[Any], pattern: ColumnElement[Any], *, fold: bool) -> ColumnElement[Any]:
        if fold:
            left, pattern = sqlalchemy.func.covet_lower(left), sqlalchemy.func.covet_lower(pattern)
        return left.like(pattern, escape="\\")

    def regex(self, left: ColumnElement[Any], pattern: ColumnElement[Any], *, fold: bool) -> ColumnElement[Any]:
        flag: ColumnElement[Any] = sqlalchemy.literal_column("1" if fold else "0")
        return sqlalchemy.func.covet_regexp(pattern, left, flag, type_=sqlalchemy.Boolean())


class SQLiteDefinitions(SQLite):
    """SQLite in the definition of a table: a partial index may not use LIKE, since whether it tells upper from lower
    case is a setting of each connection (https://sqlite.org/pragma.html#pragma_case_sensitive_like). GLOB always does.
    """

    def like(self, left: ColumnElement[Any], pattern: ColumnElement[Any], *, fold: bool) -> ColumnElement[Any]:
        if isinstance(pattern, BindParameter):
            pattern = _text(_glob(str(pattern.value)))
        if fold:
            left, pattern = sqlalchemy.func.covet_lower(left), sqlalchemy.func.covet_lower(pattern)
        return left.op("GLOB", is_comparison=True)(pattern)

    def pattern(self, text: ColumnElement[Any], before: str, after: str) -> ColumnElement[Any]:
        return _pattern(text, GLOB, before.replace("%", "*"), after.replace("%", "*"))


def _glob(pattern: str) -> str:
    """A pattern of LIKE, in which a backslash escapes, as one of GLOB."""

    def translated(found: re.Match[str]) -> str:
        escaped, letter = found.groups()
        if letter == "%":
            return "*"
        return GLOB.get(escaped or letter, escaped or letter)

    return re.sub(r"\\(.)|(.)", translated, pattern)


def _pattern(text: ColumnElement[Any], escapes: dict[str, str], before: str, after: str) -> ColumnElement[Any]:
    for letter, escaped in escapes.items():
        text = sqlalchemy.func.replace(text, _text(letter), _text(escaped))
    if before:
        text = _text(before).concat(text)
    return text.concat(_text(after)) if after else text


def _text(value: str) -> ColumnElement[Any]:
    return sqlalchemy.literal(value, sqlalchemy.Text())


def _collated(text: ColumnElement[Any], collation: str) -> ColumnElement[Any]:
    return sqlalchemy.cast(text, mysql.CHAR(charset="utf8mb4")).collate(collation)


DIFFERENCES: dict[str, Differences] = {
    "postgresql": Differences(),
    "mysql": MySQL(),
    "mariadb": MariaDB(),
    "sqlite": SQLite(),
}
"""What databases write differently, by kind."""

DEFINITIONS: dict[str, Differences] = DIFFERENCES | {"sqlite": SQLiteDefinitions()}
"""The same in the definitions of tables."""
