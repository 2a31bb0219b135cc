"""Lookups of JSON: `data__author__name="Ada"`, `data__contains={"a": 1}`, `data__has_key="a"`, on every database.

Names behind a JSON field are keys of its objects, numbers positions in its arrays. They reach the database as
parameters. What is found is compared as JSON: 1 equals 1.0 and not "1", a key that is not there equals nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import ColumnElement, func
from sqlalchemy.dialects.mysql import CHAR
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.sql.elements import Null

from covet_orm.exceptions import NotSupported, QueryError
from covet_orm.expressions.base import Add, Expression
from covet_orm.fields.base import Convert, Field
from covet_orm.fields.inference import FLOAT, JSON, TEXT, family
from covet_orm.fields.json import JSONField
from covet_orm.fields.text import check_text
from covet_orm.queries.arithmetic import as_double
from covet_orm.queries.lookups import LOOKUPS as COMMON
from covet_orm.queries.lookups import Exact, In, Lookup, Range, Transform

if TYPE_CHECKING:
    from covet_orm.queries.scope import Scope

__all__ = ["LOOKUPS", "JSONKeyField", "Key", "as_json", "as_text", "at_path"]

NUMBERS = {"postgresql": ("number",), "sqlite": ("integer", "real")}
MYSQL_NUMBERS = ("INTEGER", "DOUBLE", "DECIMAL", "UNSIGNED INTEGER")


class JSONKeyField(JSONField[Any]):
    """The field of what is at a path inside of JSON."""

    def __init__(self) -> None:
        super().__init__(null=True)

    def lookup(self, name: str) -> Lookup | None:
        return KEY_LOOKUPS.get(name)


AT_PATH = JSONKeyField()


class Key(Transform):
    """What is at a path of keys and positions.

    Args:
        path: the keys, one after the other.
    """

    def __init__(self, path: tuple[str, ...]) -> None:
        super().__init__(path[-1], lambda scope, column, field: at_path(scope, column, path), lambda field: AT_PATH)
        self.path = path

    def after(self, before: Transform) -> Transform | None:
        return Key((*before.path, *self.path)) if isinstance(before, Key) else None


def at_path(scope: Scope, column: ColumnElement[Any], path: tuple[str, ...]) -> ColumnElement[Any]:
    """What is at a path, as JSON; NULL where nothing is."""
    try:
        for key in path:
            check_text(key)
    except ValueError as error:
        raise QueryError(f"{path!r} is no path in JSON: {error}") from None
    if scope.kind == "postgresql":
        keys = sqlalchemy.literal(list(path), ARRAY(sqlalchemy.Text()))
        return sqlalchemy.type_coerce(column, JSONB()).op("#>", return_type=JSONB())(keys)
    if scope.kind == "sqlite":
        if any('"' in key or "\\" in key for key in path):
            # Its paths have no way to write these.
            return func.covet_json_get(column, _text(json.dumps(path)), type_=sqlalchemy.Text())
        return column.op("->", precedence=15, return_type=sqlalchemy.Text())(_text(json_path(path)))
    if scope.kind == "mariadb" and any(key.startswith("-") for key in path):
        raise NotSupported(
            f"MariaDB has no path to {path!r}: it finds no key that begins with a minus; other databases do"
        )
    found: ColumnElement[Any] = func.json_extract(column, _text(json_path(path)), type_=sqlalchemy.Text())
    # A position of what is no array is the value itself there.
    arrays = [
        func.json_type(func.json_extract(column, _text(json_path(path[:position])))) == _text("ARRAY")
        for position, key in enumerate(path)
        if is_position(key)
    ]
    return sqlalchemy.case((sqlalchemy.and_(*arrays), found)) if arrays else found


def json_path(path: tuple[str, ...]) -> str:
    """A path as SQLite, MySQL and MariaDB write it."""
    return "$" + "".join(f"[{key}]" if is_position(key) else "." + json.dumps(key, ensure_ascii=False) for key in path)


def is_position(key: str) -> bool:
    """Whether a key is a position in an array."""
    return key.isascii() and key.isdecimal()


def as_text(scope: Scope, element: ColumnElement[Any]) -> ColumnElement[Any]:
    """A value of JSON as text: a text without its quotes; NULL for null."""
    if scope.kind == "postgresql":
        return element.op("#>>", return_type=sqlalchemy.Text())(sqlalchemy.literal([], ARRAY(sqlalchemy.Text())))
    if scope.kind == "sqlite":
        found = sqlalchemy.cast(func.json_extract(element, _text("$")), sqlalchemy.Text())
        words: list[Any] = [(func.json_type(element) == _text(word), _text(word)) for word in ("true", "false")]
        return sqlalchemy.case(*words, else_=found)
    unquoted = func.json_unquote(element, type_=sqlalchemy.Text())
    return sqlalchemy.case((func.json_type(element) != _text("NULL"), unquoted))


def as_json(scope: Scope, element: ColumnElement[Any], field: Field[Any]) -> ColumnElement[Any]:
    """An expression of any type as JSON."""
    kind = family(field)
    if kind == "json" or isinstance(element, Null):
        return (
            sqlalchemy.cast(element, JSONB()) if isinstance(element, Null) and scope.kind == "postgresql" else element
        )
    if scope.kind == "postgresql":
        return func.to_jsonb(element, type_=JSONB())
    if scope.kind == "sqlite":
        if kind == "boolean":
            return sqlalchemy.case((element, _text("true")), (sqlalchemy.not_(element), _text("false")))
        return func.json_quote(element, type_=sqlalchemy.Text())
    if kind == "boolean":
        return sqlalchemy.case((element, _text("true")), (sqlalchemy.not_(element), _text("false")))
    if kind in ("integer", "float", "decimal"):
        return sqlalchemy.cast(element, CHAR(charset="utf8mb4"))
    return func.json_quote(scope.dialect.as_text(element), type_=sqlalchemy.Text())


def equal(scope: Scope, left: ColumnElement[Any], right: ColumnElement[Any]) -> ColumnElement[Any]:
    """Whether two values of JSON are the same."""
    if scope.kind == "postgresql":
        return left == right
    if scope.kind == "sqlite":
        return func.covet_json_equal(left, right, type_=sqlalchemy.Boolean())
    if scope.kind == "mariadb":
        return func.json_equals(left, right, type_=sqlalchemy.Boolean())
    document = sqlalchemy.JSON()
    return sqlalchemy.cast(left, document) == sqlalchemy.cast(right, document)


class JSONExact(Exact):
    """Equality of JSON. With None, IS NULL of a column, and the null of JSON of what is inside.

    Args:
        name: what keywords call it.
        inside: whether what is compared is inside of a column.
    """

    def __init__(self, name: str, *, inside: bool) -> None:
        super().__init__(name)
        self.inside = inside

    def build(self, scope: Scope, left: ColumnElement[Any], field: Field[Any], value: Any) -> ColumnElement[Any]:
        if value is None:
            if not self.inside:
                return left.is_(None)
            null = sqlalchemy.cast(_text("null"), JSONB()) if scope.kind == "postgresql" else _text("null")
            return equal(scope, left, null)
        return equal(scope, left, _right(scope, field, value))


class JSONIn(In):
    """One of several values of JSON."""

    def build(self, scope: Scope, left: ColumnElement[Any], field: Field[Any], value: Any) -> ColumnElement[Any]:
        if isinstance(value, Expression):
            if scope.kind == "postgresql":
                return super().build(scope, left, field, value)
            raise QueryError("in= of JSON takes a list of values; PostgreSQL alone takes a queryset there")
        if not value:
            return sqlalchemy.false()
        if any(isinstance(member, Expression) for member in value):
            return sqlalchemy.or_(*(equal(scope, left, _right(scope, field, member)) for member in value))
        if scope.kind == "postgresql":
            return left == sqlalchemy.any_(scope.parameter(JSON, array=True))
        size = 1 << (len(value) - 1).bit_length()
        return sqlalchemy.or_(*(equal(scope, left, parameter) for parameter in scope.spread(JSON, size)))


class JSONOrder(Lookup):
    """Less or more: of numbers with numbers, of texts with texts. Nothing of another type is either."""

    is_plain = False

    def __init__(self, name: str, operator: str) -> None:
        super().__init__(name)
        self.operator = operator

    def prepared(self, value: Any, field: Field[Any] | None) -> Any:
        if isinstance(value, Expression) or (
            isinstance(value, (int, float, Decimal, str)) and not isinstance(value, bool)
        ):
            return value
        raise QueryError(f"{self.name}={value!r}: what is inside of JSON is compared with a number or a text")

    def shape(self, value: Any, key: Add, values: Add) -> None:
        if isinstance(value, Expression):
            key((self.name, "of"))
            value.shape(key, values)
            return
        key((self.name, isinstance(value, str)))
        values(value)

    def build(self, scope: Scope, left: ColumnElement[Any], field: Field[Any], value: Any) -> ColumnElement[Any]:
        if isinstance(value, Expression):
            right, is_text = value.build(scope), family(value.output(scope)) == "text"
        else:
            is_text = isinstance(value, str)
            right = scope.parameter(TEXT if is_text else FLOAT)
        if scope.kind == "postgresql":
            kind = func.jsonb_typeof(left) == _text("string" if is_text else "number")
            right = func.to_jsonb(right, type_=JSONB())
            return sqlalchemy.and_(kind, left.op(self.operator, is_comparison=True)(right))
        kind = func.json_type(left)
        if scope.kind == "sqlite":
            wanted = ("text",) if is_text else NUMBERS["sqlite"]
            found: ColumnElement[Any] = func.json_extract(left, _text("$"))
        elif is_text:
            wanted, found = ("STRING",), func.json_unquote(left)
            right = sqlalchemy.cast(right, CHAR(charset="utf8mb4")).collate("utf8mb4_bin")
        else:
            wanted, found = MYSQL_NUMBERS, as_double(scope, left)
        compared = found.op(self.operator, is_comparison=True)(right)
        return sqlalchemy.and_(sqlalchemy.or_(*(kind == _text(word) for word in wanted)), compared)


class JSONRange(Range):
    """Between two numbers, or between two texts, both included."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.ends = (JSONOrder("gte", ">="), JSONOrder("lte", "<="))

    def prepared(self, value: Any, field: Field[Any] | None) -> Any:
        pair = super().prepared(value, field)
        return [lookup.prepared(end, field) for lookup, end in zip(self.ends, pair, strict=True)]

    def shape(self, value: Any, key: Add, values: Add) -> None:
        for lookup, end in zip(self.ends, value, strict=True):
            lookup.shape(end, key, values)

    def build(self, scope: Scope, left: ColumnElement[Any], field: Field[Any], value: Any) -> ColumnElement[Any]:
        return sqlalchemy.and_(
            *(lookup.build(scope, left, field, end) for lookup, end in zip(self.ends, value, strict=True))
        )


class JSONContains(Lookup):
    """Whether a value contains another one: an object with its keys, an array with its elements.

    Args:
        name: what keywords call it.
        reverse: whether it is the other way round.
    """

    def __init__(self, name: str, *, reverse: bool = False) -> None:
        super().__init__(name)
        self.reverse = reverse

    def build(self, scope: Scope, left: ColumnElement[Any], field: Field[Any], value: Any) -> ColumnElement[Any]:
        right = _right(scope, field, value)
        outer, inner = (right, left) if self.reverse else (left, right)
        if scope.kind == "postgresql":
            return outer.op("@>", is_comparison=True)(inner)
        function = func.covet_json_contains if scope.kind == "sqlite" else func.json_contains
        contains: ColumnElement[Any] = function(outer, inner, type_=sqlalchemy.Boolean())
        return contains


class HasKeys(Lookup):
    """Whether an object has keys.

    Args:
        name: what keywords call it.
        every: whether it must have all of them, or one will do.
        single: whether the value is one key, instead of a list.
    """

    is_plain = False

    def __init__(self, name: str, *, every: bool, single: bool = False) -> None:
        super().__init__(name)
        self.every = every
        self.single = single

    def prepared(self, value: Any, field: Field[Any] | None) -> Any:
        if self.single:
            keys = [value]
        elif isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
            raise QueryError(f"{self.name}={value!r}: a list of keys is needed")
        else:
            keys = list(value)
        for key in keys:
            if not isinstance(key, str):
                raise QueryError(f"{self.name}={value!r}: the keys of JSON are texts, and {key!r} is none")
        return keys

    def shape(self, value: Any, key: Add, values: Add) -> None:
        key((self.name, _size(value)))
        if value:
            values(value)

    def build(self, scope: Scope, left: ColumnElement[Any], field: Field[Any], value: Any) -> ColumnElement[Any]:
        if scope.kind == "postgresql":
            is_object = func.jsonb_typeof(left) == _text("object")
            if not value:
                return sqlalchemy.and_(is_object, sqlalchemy.true() if self.every else sqlalchemy.false())
            operator = "?&" if self.every else "?|"
            keys = scope.parameter(TEXT, array=True)
            return sqlalchemy.and_(is_object, left.op(operator, is_comparison=True)(keys))
        is_object = func.json_type(left) == _text("object" if scope.kind == "sqlite" else "OBJECT")
        if not value:
            return sqlalchemy.and_(is_object, sqlalchemy.true() if self.every else sqlalchemy.false())
        if scope.kind == "sqlite":
            every: ColumnElement[Any] = sqlalchemy.literal_column("1" if self.every else "0")
            has: ColumnElement[Any] = func.covet_json_has(
                left, scope.parameter(JSON), every, type_=sqlalchemy.Boolean()
            )
        elif scope.kind == "mariadb":
            # Its paths do not find all keys.
            there = func.json_keys(left)
            found = [
                func.json_contains(there, key, type_=sqlalchemy.Boolean()) for key in scope.spread(JSON, _size(value))
            ]
            has = sqlalchemy.and_(*found) if self.every else sqlalchemy.or_(*found)
        else:
            paths = scope.spread(KEY_PATH, _size(value))
            mode = _text("all" if self.every else "one")
            has = func.json_contains_path(left, mode, *paths, type_=sqlalchemy.Boolean())
        return sqlalchemy.and_(is_object, has)


class KeyPath(Field[str]):
    """A key as a path of MySQL."""

    def column_type(self) -> sqlalchemy.types.TypeEngine[Any]:
        return sqlalchemy.Text()

    def binder(self, kind: str) -> Convert:
        return lambda value: "$." + json.dumps(check_text(value), ensure_ascii=False)


KEY_PATH = KeyPath()


class OfText(Lookup):
    """A lookup of text, of a value of JSON as text."""

    def __init__(self, inner: Lookup) -> None:
        super().__init__(inner.name)
        self.inner = inner

    def shape(self, value: Any, key: Add, values: Add) -> None:
        self.inner.shape(value, key, values)

    def build(self, scope: Scope, left: ColumnElement[Any], field: Field[Any], value: Any) -> ColumnElement[Any]:
        return self.inner.build(scope, as_text(scope, left), TEXT, value)


def _right(scope: Scope, field: Field[Any], value: Any) -> ColumnElement[Any]:
    if isinstance(value, Expression):
        return as_json(scope, value.build(scope), value.output(scope))
    # What is in a part of it is not of the type that the whole has.
    return scope.parameter(JSON)


def _text(value: str) -> ColumnElement[Any]:
    return sqlalchemy.literal(value, sqlalchemy.Text())


def _size(value: Any) -> int:
    return 1 << (len(value) - 1).bit_length() if value else 0


def _by_name(*lookups: Lookup) -> dict[str, Lookup]:
    return {lookup.name: lookup for lookup in lookups}


LOOKUPS: dict[str, Lookup] = _by_name(
    JSONExact("exact", inside=False),
    JSONIn("in"),
    JSONContains("contains"),
    JSONContains("contained_by", reverse=True),
    HasKeys("has_key", every=True, single=True),
    HasKeys("has_keys", every=True),
    HasKeys("has_any_keys", every=False),
)
"""The lookups of JSON, by name."""

KEY_LOOKUPS: Mapping[str, Lookup] = _by_name(
    JSONExact("exact", inside=True),
    JSONOrder("gt", ">"),
    JSONOrder("gte", ">="),
    JSONOrder("lt", "<"),
    JSONOrder("lte", "<="),
    JSONRange("range"),
    *(
        OfText(COMMON[name])
        for name in (
            "icontains",
            "startswith",
            "istartswith",
            "endswith",
            "iendswith",
            "iexact",
            "regex",
            "iregex",
        )
    ),
)
