"""SQL that somebody wrote, as an expression."""

from __future__ import annotations

from typing import Any

import sqlalchemy
from sqlalchemy import ColumnElement
from sqlalchemy.sql.elements import Grouping

from covet_orm.exceptions import QueryError
from covet_orm.expressions.base import Add, field_key
from covet_orm.expressions.conditions import Condition
from covet_orm.fields.base import Field
from covet_orm.queries.scope import Scope

__all__ = ["RawSQL"]


class RawSQL(Condition):
    """SQL as it is: for what no other expression says, in the words of the one database that it is for.

        CheckConstraint(RawSQL("phone ~ '^[0-9]+$'"), name="phone_digits")

    It stands for a condition, or for a value, in definitions (checks, indexes, generated columns, `db_default`) and in
    queries. Columns are named as the database names them, which in a query of several tables may need the table.

    The text must be the program's own. It has no parameters: put nothing into it that came from outside.

    Args:
        sql: the text, without a semicolon; it is put into parentheses.
        output_field: the field of its type, where a query gives its values.

    Raises:
        QueryError: there is no text.
    """

    __slots__ = ("field", "sql")

    def __init__(self, sql: str, output_field: Field[Any] | None = None) -> None:
        if not sql.strip() or "\0" in sql:
            raise QueryError(f"RawSQL({sql!r}): a text of SQL is needed, without a NUL character")
        self.sql = sql
        self.field = output_field

    def shape(self, key: Add, values: Add) -> None:
        key(("raw", self.sql, None if self.field is None else field_key(self.field)))

    def build(self, scope: Scope) -> ColumnElement[Any]:
        column_type = None if self.field is None else self.field.column_type()
        return Grouping(sqlalchemy.literal_column(self.sql, column_type))

    def output(self, scope: Scope) -> Field[Any]:
        if self.field is None:
            raise QueryError(f"{self!r} does not know its type: give it output_field=...")
        return self.field

    def __repr__(self) -> str:
        return f"RawSQL({self.sql!r})"
