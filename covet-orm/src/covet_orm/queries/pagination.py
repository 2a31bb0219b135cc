"""Pages of a query, found by values instead of by counting.

A page begins behind the last row of the one before: behind the values that this row has in what the query is ordered
by, the key included, so that no two rows are alike. NULL has its place in the order, which differs between databases;
conditions say it as the database has it. A cursor is those values, as opaque text: it grants nothing that the query
does not give, and is of no use to a query with another order.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from covet_orm.exceptions import NotSupported, QueryError
from covet_orm.expressions.base import Expression, Ordering
from covet_orm.expressions.conditions import Combined, Comparison, Condition
from covet_orm.expressions.references import ColumnReference, F
from covet_orm.fields.inference import family
from covet_orm.queries.annotating import annotate
from covet_orm.queries.lookup_names import find_lookup
from covet_orm.queries.named_rows import row_class
from covet_orm.queries.names import annotation_in
from covet_orm.queries.scope import Scope

if TYPE_CHECKING:
    from covet_orm.fields.base import Field
    from covet_orm.queries.querysets import QuerySet

__all__ = ["LARGEST", "Page", "paginate"]

M = TypeVar("M")

LARGEST = 10_000
"""How many results a page may have."""

HIDDEN = "_page_key_{}"
LONGEST = 8192
"""How many characters a cursor may have."""


class Page(Generic[M]):
    """A page of results.

    Attributes:
        items: the results, in the order of the query.
        next: the cursor of the page behind this one, for `paginate(after=...)`; None where this is the last.
        previous: the cursor of the page before this one, for `paginate(before=...)`; None where this is the first.
        size: how many results it may have.
        total: how many results there are on all pages; None where nobody asked.
    """

    __slots__ = ("items", "next", "previous", "size", "total")

    def __init__(
        self,
        items: list[M],
        *,
        next: str | None,
        previous: str | None,
        size: int,
        total: int | None,
    ) -> None:
        self.items = items
        self.next = next
        self.previous = previous
        self.size = size
        self.total = total

    def __repr__(self) -> str:
        return f"<Page of {len(self.items)}>"


async def paginate(query: QuerySet[Any], *, after: str | None, before: str | None, size: int, total: bool) -> Page[Any]:
    """One page of a query. What `QuerySet.paginate` does."""
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= LARGEST:
        raise QueryError(f"paginate(size={size!r}): a whole number from 1 to {LARGEST:,} is needed")
    if after is not None and before is not None:
        raise QueryError("paginate(): after and before exclude each other")
    query._not_sliced("paginate")
    query._not_combined("paginate")
    if not query._is_plain_select() or query._distinct is not None:
        raise QueryError("paginate() is for the rows of tables: groups and distinct rows have no key to go on from")
    database = query.database
    await database.open()
    keys = _Keys(query, database.kind)
    asked = query
    cursor = after if after is not None else before
    backwards = before is not None
    if cursor is not None:
        asked = asked.filter(keys.behind(keys.read(cursor), backwards=backwards))
    order = tuple(one.reversed() for one in keys.order) if backwards else keys.order
    made = keys.with_values(asked)
    made._order = order
    rows = await made.limit(size + 1)
    more = len(rows) > size
    rows = rows[:size]
    if backwards:
        rows.reverse()
    values = [keys.taken(row) for row in rows]
    items = [keys.stripped(row) for row in rows]
    behind = bool(rows) and (more if not backwards else True)
    ahead = bool(rows) and (more if backwards else after is not None)
    return Page(
        items,
        next=keys.write(values[-1]) if behind else None,
        previous=keys.write(values[0]) if ahead else None,
        size=size,
        total=await query.count() if total else None,
    )


class _Keys:
    """What the rows of a query are told apart by: the order, with the key behind it."""

    def __init__(self, query: QuerySet[Any], kind: str) -> None:
        self.query = query
        self.kind = kind
        order = list(query._effective_order())
        named = {_own_field(query, one.expression) for one in order}
        for key in query.model._meta.primary_key:
            if key not in named:
                order.append(Ordering(F(key.attribute)))
        self.order = tuple(order)
        scope = Scope(query.options, kind, annotations=query._annotations)
        self.fields: list[Field[Any]] = [one.expression.output(scope) for one in order]
        self.own = [_own_field(query, one.expression) for one in order]
        told = [f"{one.expression!r} {one.descending} {one.nulls}" for one in order]
        self.digest = hashlib.blake2b(repr((query.model._meta.label, told)).encode(), digest_size=6).digest()
        # Fields of objects that are loaded have their values there; everything else is asked for beside them.
        self.hidden = {
            number: HIDDEN.format(number)
            for number, own in enumerate(self.own)
            if own is None or query._chosen is not None or not _is_loaded(query, own)
        }

    def with_values(self, query: QuerySet[Any]) -> QuerySet[Any]:
        """The query with the values that it is ordered by."""
        if not self.hidden:
            return query._copy()
        expressions = {name: self.order[number].expression for number, name in self.hidden.items()}
        made = annotate(query, expressions)
        if query._chosen is not None and query._chosen[0] in ("flat", "named"):
            made._chosen = ("tuples", (*query._chosen[1], *expressions))
        return made

    def taken(self, row: Any) -> list[Any]:
        """The values of a row."""
        if self.query._chosen is None:
            return [self._value(row, number, own) for number, own in enumerate(self.own)]
        if self.query._chosen[0] == "dicts":
            return [row[name] for name in self.hidden.values()]
        return list(row[-len(self.hidden) :])

    def _value(self, row: Any, number: int, own: Field[Any] | None) -> Any:
        if own is None or number in self.hidden:
            return row._related[self.hidden[number]]
        return getattr(row, own.attribute)

    def stripped(self, row: Any) -> Any:
        """A row without what was not asked for."""
        if self.query._chosen is None:
            for name in self.hidden.values():
                row._related.pop(name, None)
            return row
        if self.query._chosen[0] == "dicts":
            return {name: value for name, value in row.items() if name not in self.hidden.values()}
        left = row[: -len(self.hidden)]
        if self.query._chosen[0] == "named":
            return row_class(self.query._chosen[1])._make(left)
        return left[0] if self.query._chosen[0] == "flat" else tuple(left)

    def behind(self, values: Sequence[Any], *, backwards: bool) -> Condition:
        """The rows behind one that has these values; or those before it."""
        condition: Condition | None = None
        for one, value in reversed(list(zip(self.order, values, strict=True))):
            strictly = self._after(one, value, backwards=backwards)
            if condition is None:
                condition = strictly
                continue
            equal = (
                _compare(one.expression, "isnull", True) if value is None else _compare(one.expression, "exact", value)
            )
            rest = Combined("and", (equal, condition))
            condition = rest if strictly is None else Combined("or", (strictly, rest))
        # The key, which is never NULL, always has something behind it.
        assert condition is not None
        return condition

    def _after(self, one: Ordering, value: Any, *, backwards: bool) -> Condition | None:
        """What comes strictly behind a value in one part of the order; None where nothing can."""
        descending = one.descending != backwards
        nulls_last = self._nulls_last(one) != backwards
        if value is None:
            return None if nulls_last else _compare(one.expression, "isnull", False)
        further = _compare(one.expression, "lt" if descending else "gt", value)
        if nulls_last and self._may_be_null(one):
            return Combined("or", (further, _compare(one.expression, "isnull", True)))
        return further

    def _nulls_last(self, one: Ordering) -> bool:
        if one.nulls is not None:
            return one.nulls == "last"
        # For PostgreSQL NULL is more than every value, for the others less.
        return one.descending != (self.kind == "postgresql")

    def _may_be_null(self, one: Ordering) -> bool:
        own = _own_field(self.query, one.expression)
        return own is None or own.null

    def write(self, values: Sequence[Any]) -> str:
        """A cursor."""
        try:
            encoded = msgspec.json.encode(values)
        except (TypeError, ValueError) as error:
            raise NotSupported(f"paginate(): what the query is ordered by has no place in a cursor: {error}") from None
        return base64.urlsafe_b64encode(self.digest + encoded).rstrip(b"=").decode()

    def read(self, cursor: str) -> list[Any]:
        """The values of a cursor.

        Raises:
            QueryError: it is none, or that of another query.
        """
        wrong = "the cursor of paginate() is none that this query gave; begin with the first page"
        if not isinstance(cursor, str) or len(cursor) > LONGEST:
            raise QueryError(wrong)
        try:
            decoded = base64.b64decode(cursor.encode() + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
            values = msgspec.json.decode(decoded[6:], type=list[Any])
        except (binascii.Error, ValueError, msgspec.MsgspecError, RecursionError):
            raise QueryError(wrong) from None
        if decoded[:6] != self.digest or len(values) != len(self.order):
            raise QueryError(wrong)
        try:
            return [
                None if value is None else field.to_python(_typed(value, field))
                for field, value in zip(self.fields, values, strict=True)
            ]
        except (ValueError, TypeError, msgspec.ValidationError):
            raise QueryError(wrong) from None


TYPES: dict[str, Any] = {"binary": bytes, "duration": dt.timedelta}
"""What a field makes of a value of JSON by itself, is not here."""


def _typed(value: Any, field: Field[Any]) -> Any:
    """A value of a cursor, as its field takes it."""
    found = TYPES.get(family(field))
    return value if found is None else msgspec.convert(value, found)


def _compare(expression: Expression[Any], lookup: str, value: Any) -> Condition:
    return Comparison(expression, find_lookup(lookup), value)


def _own_field(query: QuerySet[Any], expression: Expression[Any]) -> Field[Any] | None:
    """The field of the model's own that an expression is; None where it is something else."""
    if isinstance(expression, ColumnReference):
        return expression.field
    if not isinstance(expression, F) or annotation_in(query._annotations, expression.name) is not None:
        return None
    path = query.options.path(expression.name)
    return None if path.relations or path.rest else path.field


def _is_loaded(query: QuerySet[Any], field: Field[Any]) -> bool:
    if query._deferred is None or field.primary_key:
        return True
    only, names = query._deferred
    return (field.name in names) == only
