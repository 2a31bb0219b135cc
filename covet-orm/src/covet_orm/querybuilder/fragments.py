"""Fragments of SQL that the program's author writes: the one way in for SQL text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.elements import Grouping
from sqlalchemy.types import NullType

from covet_orm.exceptions import QueryError
from covet_orm.identifiers import PARAMETER_MARKS
from covet_orm.querybuilder.expressions import Expression, untyped
from covet_orm.querybuilder.scopes import Scope

__all__ = ["Raw", "raw"]


class Raw(Expression):
    """A fragment of SQL by the program's author; see `raw`."""

    __slots__ = ("params", "pieces", "sql")

    def __init__(self, sql: str, params: Sequence[Any]) -> None:
        if not isinstance(sql, str):
            raise QueryError(f"raw() takes text, not {type(sql).__name__}")
        for mark in PARAMETER_MARKS:
            if mark in sql:
                raise QueryError(
                    f"raw({sql!r:.100}) contains {mark}, which marks a parameter; its own are written as ?"
                )
        # `??` is a question mark: pieces of text and, between them, the places of parameters.
        self.pieces = [piece.replace("\0", "?") for piece in sql.replace("??", "\0").split("?")]
        if "\0" in sql:
            raise QueryError("raw() contains a NUL character")
        if len(self.pieces) - 1 != len(params):
            raise QueryError(
                f"raw({sql!r:.100}) has {len(self.pieces) - 1} places for parameters (?) and {len(params)} parameters; "
                "a question mark of SQL's own is written as ??"
            )
        self.sql = sql
        self.params = [untyped(one) for one in params]

    def build(self, scope: Scope) -> ColumnElement[Any]:
        return RawClause(self.pieces, [param.build(scope) for param in self.params])


class RawClause(ColumnElement[Any]):
    """Pieces of text with parameters or expressions between them."""

    inherit_cache = False

    def __init__(self, pieces: Sequence[str], parts: Sequence[ColumnElement[Any]]) -> None:
        self.pieces = pieces
        self.parts = parts
        self.type = NullType()

    def self_group(self, against: Any = None) -> Any:
        """In parentheses wherever it is a part of something, so that it stays one."""
        return self if against is None else Grouping(self)


@compiles(RawClause)
def _raw_text(element: RawClause, compiler: Any, **options: Any) -> str:
    for option in ("add_to_result_map", "within_columns_clause"):
        options.pop(option, None)
    texts = [compiler.post_process_text(piece) for piece in element.pieces]
    made = [compiler.process(part, **options) for part in element.parts]
    return "".join(text + part for text, part in zip(texts, [*made, ""], strict=True))


def raw(sql: str, *params: Any) -> Raw:
    """A fragment of SQL as it is. The one way in for SQL text: never make it of what users send.

    Args:
        sql: the fragment, with `?` for each parameter on every database, and `??` for a question mark.
        params: a value or an expression for each `?`.

    Raises:
        QueryError: the number of parameters is another.
    """
    return Raw(sql, params)
