"""Functions of JSON."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import ColumnElement, func
from sqlalchemy.dialects.postgresql import JSONB

from covet_orm.exceptions import QueryError
from covet_orm.expressions.casts import cast_to
from covet_orm.expressions.functions.base import Func
from covet_orm.fields.base import Declared
from covet_orm.fields.inference import JSON, TEXT, family
from covet_orm.queries.json_lookups import AT_PATH, as_json, as_text, at_path

if TYPE_CHECKING:
    from covet_orm.fields.base import Field
    from covet_orm.queries.scope import Scope

__all__ = ["KT", "JSONArray", "JSONExtract", "JSONObject"]


class JSONObject(Func[Any]):
    """An object of JSON: `JSONObject(name="name", total=F("price") * F("count"))`.

    Args:
        values: what its keys hold: expressions, or names of fields.
    """

    __slots__ = ("keys",)

    output_field = JSON

    def __init__(self, **values: Any) -> None:
        super().__init__(*values.values())
        self.keys = tuple(values)

    @property
    def declared(self) -> Declared:
        return Declared((), dict(zip(self.keys, self.arguments, strict=True)))

    def options(self) -> Hashable:
        return self.keys

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        pairs: list[Any] = []
        for key, argument, built in zip(self.keys, self.arguments, arguments, strict=True):
            pairs += [sqlalchemy.literal(key, sqlalchemy.Text()), part(scope, built, argument.output(scope))]
        if scope.kind == "postgresql":
            return func.jsonb_build_object(*pairs, type_=JSONB())
        return func.json_object(*pairs)


class JSONArray(Func[Any]):
    """An array of JSON: `JSONArray("first", "last")`.

    Args:
        arguments: its elements: expressions, or names of fields.
    """

    output_field = JSON

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        parts = [
            part(scope, built, argument.output(scope))
            for argument, built in zip(self.arguments, arguments, strict=True)
        ]
        if scope.kind == "postgresql":
            return func.jsonb_build_array(*parts, type_=JSONB())
        return func.json_array(*parts)


class JSONExtract(Func[Any]):
    """What is at a path inside of JSON: `JSONExtract("data", "author", "age", output_field=IntegerField())`.

    Names behind a JSON field do the same (`F("data__author__age")`), where no key is called like a lookup.

    Args:
        expression: the JSON.
        path: keys of objects, and positions in arrays.
        output_field: the field of the result: a text without its quotes, a number, ...; JSON by default.

    Raises:
        QueryError: there is no path.
    """

    __slots__ = ("path",)

    def __init__(self, expression: Any, *path: str | int, output_field: Field[Any] | None = None) -> None:
        if not path or any(isinstance(key, bool) or not isinstance(key, (str, int)) for key in path):
            raise QueryError(f"JSONExtract(..., {path!r}): a path is keys, which are texts, and positions")
        super().__init__(expression, output_field=output_field)
        self.path = tuple(map(str, path))

    def options(self) -> Hashable:
        return self.path

    def build(self, scope: Scope) -> ColumnElement[Any]:
        found = at_path(scope, self.arguments[0].build(scope), self.path)
        if self.field is None:
            return found
        text = as_text(scope, found)
        if scope.kind == "postgresql" and family(self.field) == "integer":
            # A number of JSON may be written with a point.
            text = sqlalchemy.cast(text, sqlalchemy.Numeric())
        return cast_to(scope, text, TEXT, self.field)

    def output(self, scope: Scope) -> Field[Any]:
        return AT_PATH if self.field is None else self.field


class KT(Func[str]):
    """A text inside of JSON, without its quotes: `KT("data__author__name")`; of anything else its JSON.

    `F("data__author__name")` is the JSON itself.

    Args:
        name: the path: a JSON field, and the keys and positions behind it.
    """

    arity = (1, 1)
    output_field = TEXT

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        return as_text(scope, arguments[0])


def part(scope: Scope, built: ColumnElement[Any], field: Field[Any]) -> ColumnElement[Any]:
    """A value as a part of a JSON that is made."""
    value = as_json(scope, built, field)
    if scope.kind == "postgresql":
        return func.coalesce(
            value, sqlalchemy.cast(sqlalchemy.literal("null", sqlalchemy.Text()), JSONB()), type_=JSONB()
        )
    null = sqlalchemy.literal("null", sqlalchemy.Text())
    if scope.kind == "sqlite":
        return func.json(func.coalesce(value, null))
    # It takes text for text, unless it is a document that it found itself.
    return func.json_extract(func.coalesce(value, null), sqlalchemy.literal("$", sqlalchemy.Text()))
