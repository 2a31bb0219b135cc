"""What is inside of a JSON column, by a path of keys and positions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy
from sqlalchemy import ColumnElement, bindparam, func
from sqlalchemy.dialects.postgresql import ARRAY

from covet_orm.exceptions import NotSupported, QueryError
from covet_orm.querybuilder.expressions import Expression, named
from covet_orm.querybuilder.scopes import Scope
from covet_orm.querybuilder.values import PREFIX, parameter

__all__ = ["json_path"]


class JsonPath(Expression):
    """What is at a path, as text."""

    __slots__ = ("column", "keys")

    def __init__(self, column: str | Expression, keys: Sequence[str | int]) -> None:
        if not keys:
            raise QueryError("json_path() needs a key or a position")
        for key in keys:
            if isinstance(key, bool) or not isinstance(key, (str, int)) or (isinstance(key, int) and key < 0):
                raise QueryError(f"{key!r:.60} is neither a key nor a position, which counts from 0")
        self.column = named(column)
        self.keys = keys

    def build(self, scope: Scope) -> ColumnElement[Any]:
        column, kind = self.column.build(scope), scope.kind
        if kind == "postgresql":
            keys = [parameter(str(key), kind).value for key in self.keys]
            path = bindparam(PREFIX, keys, type_=ARRAY(sqlalchemy.Text()), unique=True)
            return column.op("#>>", precedence=6)(path)
        path = parameter("$" + "".join(_step(key, kind) for key in self.keys), kind)
        found, type_ = func.json_extract(column, path), func.json_type(column, path)
        if kind == "sqlite":
            # There true and false are 1 and 0; the others give their names.
            words: list[Any] = [(type_ == word, sqlalchemy.literal_column(f"'{word}'")) for word in ("true", "false")]
            return sqlalchemy.case(*words, else_=sqlalchemy.cast(found, sqlalchemy.Text()))
        # JSON's null is NULL on the others.
        return sqlalchemy.case((func.json_type(found) != "NULL", func.json_unquote(found)))


def _step(key: str | int, kind: str) -> str:
    if isinstance(key, int):
        return f"[{key}]"
    if kind == "sqlite" and ('"' in key or "\\" in key):
        raise NotSupported(f"SQLite has no way to write the key {key!r:.60} in a path, with its quote or backslash")
    return "." + json.dumps(key, ensure_ascii=False)


def json_path(column: str | Expression, *keys: str | int) -> Expression:
    """What is at a path in a JSON column, as text; NULL where nothing is there.

    Args:
        column: the column.
        keys: one after the other, keys of objects and positions in arrays, from 0. They are parameters.

    Raises:
        QueryError: there is no key, or one is neither text nor a position.
    """
    return JsonPath(column, keys)
