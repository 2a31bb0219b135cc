"""Subqueries: a queryset as a value, or as a condition."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import ColumnElement

from covet_orm.exceptions import QueryError
from covet_orm.expressions.base import Add, Expression, field_key
from covet_orm.expressions.conditions import Condition
from covet_orm.queries.one_database import key_of_database

if TYPE_CHECKING:
    from covet_orm.fields.base import Field
    from covet_orm.queries.querysets import QuerySet
    from covet_orm.queries.scope import Scope

__all__ = ["Exists", "Subquery", "keys_of", "queryset_of"]


class Subquery(Expression[Any]):
    """What a queryset gives, as a value: the one column of its one row; NULL without a row.

        newest = Book.objects.filter(author=OuterRef("pk")).order_by("-published").values("title")[:1]
        Author.objects.annotate(newest=Subquery(newest))

    Args:
        queryset: a queryset that `values` gives one column; the key of its objects is taken without.
        output_field: the field of the value; that of the column by default.

    Raises:
        QueryError: it gives several columns, or no queryset was given.
    """

    __slots__ = ("field", "name", "query")

    def __init__(self, queryset: Any, output_field: Field[Any] | None = None) -> None:
        query = queryset_of(queryset)
        if query._chosen is None:
            query = query.values_list("pk")
        names = query._chosen[1] if query._chosen is not None else ()
        if len(names) != 1:
            raise QueryError(f"a subquery as a value has one column, not {', '.join(names)}; use values(name)")
        self.name = names[0]
        self.query: QuerySet[Any] = query
        self.field = output_field

    def shape(self, key: Add, values: Add) -> None:
        key(("subquery", None if self.field is None else field_key(self.field)))
        if self.query._database is not None:
            key_of_database(self.query, key)
        self.query.shape(key, values)

    def build(self, scope: Scope) -> ColumnElement[Any]:
        from covet_orm.queries.selects import build_select

        return build_select(self.query, scope.kind, outer=scope)[0].scalar_subquery()

    def rows(self, scope: Scope) -> Any:
        """What it gives, for IN."""
        from covet_orm.queries.selects import build_select

        statement = build_select(self.query, scope.kind, outer=scope)[0]
        if scope.kind in ("mysql", "mariadb") and (self.query._limit is not None or self.query._offset):
            # They have no LIMIT behind IN, but in a table that the subquery makes.
            inner = statement.correlate(None).subquery()
            return sqlalchemy.select(*inner.c)
        return statement

    def output(self, scope: Scope) -> Field[Any]:
        if self.field is not None:
            return self.field
        from covet_orm.queries.selects import output_field

        return output_field(self.query, self.name, scope.kind)

    def __repr__(self) -> str:
        return f"Subquery({self.query!r})"


class Exists(Condition):
    """Whether a queryset gives any row: `Exists(Book.objects.filter(author=OuterRef("pk")))`.

    Args:
        queryset: the queryset.

    Raises:
        QueryError: no queryset was given.
    """

    __slots__ = ("query",)

    def __init__(self, queryset: Any) -> None:
        self.query: QuerySet[Any] = queryset_of(queryset)

    def parts(self) -> Iterable[Expression[Any]]:
        return ()

    def shape(self, key: Add, values: Add) -> None:
        key("any row of")
        if self.query._database is not None:
            key_of_database(self.query, key)
        self.query.shape(key, values)

    def build(self, scope: Scope) -> ColumnElement[Any]:
        from covet_orm.queries.selects import build_select

        statement = build_select(self.query, scope.kind, outer=scope)[0]
        if self.query._is_plain_select():
            statement = statement.with_only_columns(
                sqlalchemy.literal_column("1"), maintain_column_froms=True
            ).order_by(None)
        return statement.exists()

    def __repr__(self) -> str:
        return f"Exists({self.query!r})"


def keys_of(queryset: Any) -> Subquery:
    """What `in` takes of a queryset: its column, or the keys of its objects. Their order does not matter."""
    query = queryset_of(queryset)
    if query._limit is None and not query._offset and query._distinct is None:
        query = query.order_by()
    return Subquery(query)


def queryset_of(queryset: Any) -> QuerySet[Any]:
    """A queryset, or that of a manager.

    Raises:
        QueryError: it is neither.
    """
    from covet_orm.queries.querysets import QuerySet

    if hasattr(queryset, "get_queryset"):
        queryset = queryset.get_queryset()
    if not isinstance(queryset, QuerySet):
        raise QueryError(f"{queryset!r} is no queryset")
    return queryset
