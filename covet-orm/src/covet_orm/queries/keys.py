"""Primary keys of several columns: `get(pk=(1, 2))`, `filter(pk__in=[(1, 2), (1, 3)])`, `filter(pk__gt=(1, 2))`,
`order_by("pk")`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import ColumnElement

from covet_orm.exceptions import FieldError, QueryError
from covet_orm.expressions.base import Add, Expression
from covet_orm.expressions.conditions import Condition
from covet_orm.queries.lookups import Lookup

if TYPE_CHECKING:
    from covet_orm.expressions.base import Ordering
    from covet_orm.fields.base import Field
    from covet_orm.models.options import Options
    from covet_orm.queries.querysets import QuerySet
    from covet_orm.queries.scope import Scope

__all__ = [
    "KeyCompares",
    "KeyIsIn",
    "KeyIsOneOf",
    "ObjectsOfSeveralColumns",
    "expand_lookups",
    "expand_order",
    "key_names",
]

OPERATORS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


class KeyIsOneOf(Condition):
    """The key of several columns is one of some keys.

    Args:
        options: the model's.
        keys: the keys, each with a value for each column.
    """

    __slots__ = ("keys", "options", "size")

    def __init__(self, options: Options, keys: Sequence[tuple[Any, ...]]) -> None:
        self.options = options
        self.keys = keys
        # As of the lookup `in`: few statements for lists of every length.
        self.size = _size(len(keys))

    def shape(self, key: Add, values: Add) -> None:
        key(("key is one of", self.options.primary_key, self.size))
        if self.keys:
            for column in zip(*self.keys, strict=True):
                values(list(column))

    def build(self, scope: Scope) -> ColumnElement[Any]:
        fields = self.options.primary_key
        columns = [scope.resolve(field.attribute)[0] for field in fields] if self.keys else []
        return _is_one_of(columns, fields, self.size, scope)

    def __repr__(self) -> str:
        return f"(pk in {self.keys!r})"


class KeyIsIn(Condition):
    """The key of several columns is one that a query gives.

    Args:
        options: the model's.
        query: the query, of as many columns as the key has.
    """

    __slots__ = ("options", "query")

    def __init__(self, options: Options, query: QuerySet[Any]) -> None:
        self.options = options
        self.query = query

    def shape(self, key: Add, values: Add) -> None:
        key(("key is in", self.options.primary_key))
        self.query.shape(key, values)

    def build(self, scope: Scope) -> ColumnElement[Any]:
        columns = [scope.resolve(field.attribute)[0] for field in self.options.primary_key]
        return sqlalchemy.tuple_(*columns).in_(_rows(self.query, scope))

    def __repr__(self) -> str:
        return f"(pk in {self.query!r})"


class KeyCompares(Condition):
    """The key of several columns comes before or behind another one: by its first column, where that is equal by the
    second, and so on.

    Args:
        options: the model's.
        operator: `gt`, `gte`, `lt` or `lte`.
        other: the other key.
    """

    __slots__ = ("operator", "options", "other")

    def __init__(self, options: Options, operator: str, other: tuple[Any, ...]) -> None:
        self.options = options
        self.operator = operator
        self.other = other

    def shape(self, key: Add, values: Add) -> None:
        key(("key compares", self.options.primary_key, self.operator))
        for value in self.other:
            values(value)

    def build(self, scope: Scope) -> ColumnElement[Any]:
        fields = self.options.primary_key
        columns = sqlalchemy.tuple_(*(scope.resolve(field.attribute)[0] for field in fields))
        values = sqlalchemy.tuple_(*(scope.parameter(field) for field in fields))
        return columns.op(OPERATORS[self.operator], is_comparison=True)(values)

    def __repr__(self) -> str:
        return f"(pk {OPERATORS[self.operator]} {self.other!r})"


class ObjectsOfSeveralColumns(Lookup):
    """The objects that a relation leads to are among some, and their keys have several columns: `stock=one`,
    `stock__in=[one, other]`.

    Args:
        name: `exact` or `in`.
        options: those of the model of the objects.
    """

    is_plain = False

    def __init__(self, name: str, options: Options) -> None:
        super().__init__(name)
        self.options = options

    def prepared(self, value: Any, field: Field[Any] | None) -> Any:
        if hasattr(value, "get_queryset") or hasattr(value, "prepared"):
            return _keys_of(self.options, value)
        if self.name == "exact":
            return (_key(self.options, value),)
        if isinstance(value, (str, bytes, Expression)) or not hasattr(value, "__iter__"):
            raise QueryError(f"in={value!r}: a list of objects, or a queryset, is needed")
        return tuple(_key(self.options, one) for one in value)

    def shape(self, value: Any, key: Add, values: Add) -> None:
        if not isinstance(value, tuple):
            key("objects of several columns in")
            value.shape(key, values)
            return
        key(("objects of several columns", _size(len(value))))
        for column in zip(*value, strict=True):
            values(list(column))

    def build(self, scope: Scope, left: ColumnElement[Any], field: Field[Any], value: Any) -> ColumnElement[Any]:
        table: Any = left.table
        columns = [table.c[key.column] for key in self.options.primary_key]
        if not isinstance(value, tuple):
            return sqlalchemy.tuple_(*columns).in_(_rows(value, scope))
        return _is_one_of(columns, self.options.primary_key, _size(len(value)), scope)


def expand_lookups(options: Options, lookups: Mapping[str, Any]) -> tuple[list[Condition], dict[str, Any]]:
    """The conditions of the lookups that concern a key of several columns, and the other lookups.

    Raises:
        QueryError: a value is no tuple of as many values as the key has columns.
        FieldError: a lookup that such a key does not have.
    """
    conditions: list[Condition] = []
    others: dict[str, Any] = {}
    for name, value in lookups.items():
        bare, _, lookup = name.partition("__")
        if bare != "pk":
            others[name] = value
        elif lookup in ("", "exact"):
            conditions.append(KeyIsOneOf(options, [_key(options, value)]))
        elif lookup in OPERATORS:
            conditions.append(KeyCompares(options, lookup, _key(options, value)))
        elif lookup == "in" and (hasattr(value, "get_queryset") or hasattr(value, "shape")):
            conditions.append(KeyIsIn(options, _keys_of(options, value)))
        elif lookup == "in":
            if isinstance(value, (str, bytes, Expression)) or not hasattr(value, "__iter__"):
                raise QueryError(f"{name}={value!r}: a list of tuples is needed")
            conditions.append(KeyIsOneOf(options, [_key(options, one) for one in value]))
        else:
            raise FieldError(
                f"{name!r}: the key of {options.model.__name__} has several columns, and the lookups exact, in, gt, "
                f"gte, lt and lte; its columns have the others: {key_names(options)}"
            )
    return conditions, others


def expand_order(options: Options, names: Sequence[str | Expression[Any] | Ordering]) -> list[Any]:
    """What to order by, with the columns of the key in place of `pk`."""
    found: list[Any] = []
    for name in names:
        if name in ("pk", "-pk") and isinstance(name, str):
            found += [f"{name.removesuffix('pk')}{field.name}" for field in options.primary_key]
        else:
            found.append(name)
    return found


def _size(count: int) -> int:
    return 1 << (count - 1).bit_length() if count else 0


def _is_one_of(
    columns: Sequence[ColumnElement[Any]], fields: Sequence[Field[Any]], size: int, scope: Scope
) -> ColumnElement[Any]:
    """Columns have the values of one of some keys."""
    if not size:
        return sqlalchemy.false()
    # One list of parameters for each column, in the order of `shape`; SQLite has no tuples of values in a list.
    values = [scope.spread(field, size) for field in fields]
    return sqlalchemy.or_(
        *(
            sqlalchemy.and_(*(column == of_column[number] for column, of_column in zip(columns, values, strict=True)))
            for number in range(size)
        )
    )


def _rows(query: QuerySet[Any], scope: Scope) -> Any:
    """What a query gives, for IN."""
    from covet_orm.queries.selects import build_select

    statement = build_select(query, scope.kind, outer=scope)[0]
    if scope.kind in ("mysql", "mariadb") and (query._limit is not None or query._offset):
        # As of any subquery behind IN: they have no LIMIT there, but in a table that it makes.
        inner = statement.correlate(None).subquery()
        return sqlalchemy.select(*inner.c)
    return statement


def _keys_of(options: Options, value: Any) -> QuerySet[Any]:
    """The query of the keys that a queryset gives."""
    from covet_orm.expressions.subqueries import queryset_of

    query = queryset_of(value)
    if query._chosen is None:
        if query.model._meta.concrete is not options.concrete:
            raise QueryError(
                f"{value!r} gives {query.model.__name__}, and {options.model.__name__} is needed; values() "
                "chooses columns"
            )
        query = query.values_list(*(field.attribute for field in options.primary_key))
    if query._chosen is None or len(query._chosen[1]) != len(options.primary_key):
        raise QueryError(
            f"{value!r}: the key of {options.model.__name__} has {len(options.primary_key)} columns: "
            f"({key_names(options)})"
        )
    return query


def _key(options: Options, value: Any) -> tuple[Any, ...]:
    count = len(options.primary_key)
    if not isinstance(value, (tuple, list)) or len(value) != count or any(part is None for part in value):
        raise QueryError(
            f"{value!r}: the key of {options.model.__name__} is a tuple of {count} values: ({key_names(options)})"
        )
    return tuple(value)


def key_names(options: Options) -> str:
    """The names of the columns of a key, for messages."""
    return ", ".join(field.name for field in options.primary_key)
