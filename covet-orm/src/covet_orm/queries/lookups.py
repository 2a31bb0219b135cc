"""Lookups: what may stand behind the two underscores of `age__gt=3`.

A lookup says which part of its value belongs to the shape of the query (whether it is None, how many there are) and
which becomes a parameter, and builds its SQL of a column and a value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import ColumnElement

from covet_orm.exceptions import QueryError
from covet_orm.expressions.base import Add, Expression
from covet_orm.fields.base import Convert
from covet_orm.fields.inference import TEXT, family
from covet_orm.fields.text import TextField, check_text

if TYPE_CHECKING:
    from covet_orm.fields.base import Field
    from covet_orm.queries.scope import Scope

__all__ = [
    "LOOKUPS",
    "TRANSFORMS",
    "Exact",
    "In",
    "IsNull",
    "Lookup",
    "Range",
    "Regex",
    "TextLookup",
    "Transform",
]

Operation = Callable[[Any, Any], ColumnElement[Any]]
Places = Callable[["Scope", ColumnElement[Any], "Field[Any]"], ColumnElement[Any]]


class Lookup:
    """A lookup by an operator: `gt`, `lte`. A lookup of one's own derives from this class and overrides `build`.

    Args:
        name: what keywords call it.
        operate: gives the condition of a column and a parameter.

    Attributes:
        is_plain: whether `prepared` gives back what it gets.
    """

    is_plain: bool = True

    def __init__(self, name: str, operate: Operation | None = None) -> None:
        self.name = name
        self.operate = operate

    def prepared(self, value: Any, field: Field[Any] | None) -> Any:
        """The value as `shape` and `build` want it; called once, when a query takes the condition.

        Args:
            value: what the caller gave.
            field: the field of the left side; None where it is not known yet.

        Raises:
            QueryError: the lookup takes no such value.
        """
        return value

    def shape(self, value: Any, key: Add, values: Add) -> None:
        """What the SQL depends on of a value goes to `key`, what becomes parameters to `values`."""
        if isinstance(value, Expression):
            key((self.name, "of"))
            value.shape(key, values)
            return
        key(self.name)
        values(self.parameter(self.not_none(value)))

    def shape_one(self, value: Any, key: Add, values: Add) -> None:
        """As `shape`, of one value: an expression, or a parameter."""
        if isinstance(value, Expression):
            key("of")
            value.shape(key, values)
            return
        key(None)
        values(self.parameter(self.not_none(value)))

    def not_none(self, value: Any) -> Any:
        """The value, if it is not None.

        Raises:
            QueryError: it is.
        """
        if value is None:
            raise QueryError(
                f"{self.name} compares with None, which is neither less nor more than anything; use isnull"
            )
        return value

    def parameter(self, value: Any) -> Any:
        """The parameter that a value becomes, before the conversions of its field."""
        return value

    def build(self, scope: Scope, left: ColumnElement[Any], field: Field[Any], value: Any) -> ColumnElement[Any]:
        """The condition. Asks the scope for as many parameters as `shape` gave, in that order."""
        if self.operate is None:
            raise QueryError(f"the lookup {self.name!r} has no SQL: override build()")
        return self.operate(left, self.right(scope, field, value))

    def right(self, scope: Scope, field: Field[Any], value: Any) -> ColumnElement[Any]:
        """What stands on the right: an expression, or a parameter of the field's type."""
        return value.build(scope) if isinstance(value, Expression) else scope.parameter(field)

    def __repr__(self) -> str:
        return f"<lookup {self.name}>"


class Exact(Lookup):
    """Equality; with None, IS NULL."""

    def shape(self, value: Any, key: Add, values: Add) -> None:
        if value is None:
            key("null")
        elif isinstance(value, Expression):
            key("= of")
            value.shape(key, values)
        else:
            key("=")
            values(value)

    def build(self, scope: Scope, left: ColumnElement[Any], field: Field[Any], value: Any) -> ColumnElement[Any]:
        if value is None:
            return left.is_(None)
        return left == self.right(scope, field, value)


class IsNull(Lookup):
    """Whether there is no value."""

    def shape(self, value: Any, key: Add, values: Add) -> None:
        if value is not True and value is not False:
            raise QueryError(f"isnull={value!r}: it is True or False")
        key(("isnull", value))

    def build(self, scope: Scope, left: ColumnElement[Any], field: Field[Any], value: Any) -> ColumnElement[Any]:
        return left.is_(None) if value else left.is_not(None)


class In(Lookup):
    """One of several values, or of what a queryset gives.

    PostgreSQL takes values as one array. Elsewhere there are as many parameters as the next power of two, the last
    value repeated, so that few statements serve lists of every length.
    """

    is_plain = False

    def prepared(self, value: Any, field: Field[Any] | None) -> Any:
        if isinstance(value, Expression):
            return value
        if hasattr(value, "get_queryset") or hasattr(value, "prepared"):
            from covet_orm.expressions.subqueries import keys_of

            return keys_of(value)
        if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
            raise QueryError(f"in={value!r}: a list of values, or a queryset, is needed")
        # Nothing equals NULL.
        return [member for member in value if member is not None]

    def shape(self, value: Any, key: Add, values: Add) -> None:
        if isinstance(value, Expression):
            key("in")
            value.shape(key, values)
            return
        if not value:
            key("in nothing")
        elif any(isinstance(member, Expression) for member in value):
            key(("in these", len(value)))
            for member in value:
                self.shape_one(member, key, values)
        else:
            key(("in", _size(len(value))))
            values(value)

    def build(self, scope: Scope, left: ColumnElement[Any], field: Field[Any], value: Any) -> ColumnElement[Any]:
        if isinstance(value, Expression):
            from covet_orm.expressions.subqueries import Subquery

            if isinstance(value, Subquery):
                return left.in_(value.rows(scope))
            return left.in_([value.build(scope)])
        if not value:
            return sqlalchemy.false()
        if any(isinstance(member, Expression) for member in value):
            return left.in_([self.right(scope, field, member) for member in value])
        # An array of arrays has the elements of all of them, and no arrays.
        if scope.kind == "postgresql" and not isinstance(field.column_type(), sqlalchemy.ARRAY):
            return left == sqlalchemy.any_(scope.parameter(field, array=True))
        return left.in_(scope.spread(field, _size(len(value))))


class Range(Lookup):
    """Between two values, both included."""

    is_plain = False

    def prepared(self, value: Any, field: Field[Any] | None) -> Any:
        if isinstance(value, (str, bytes)) or not isinstance(value, Sequence) or len(value) != 2:
            raise QueryError(f"range={value!r}: a pair of values is needed")
        return list(value)

    def shape(self, value: Any, key: Add, values: Add) -> None:
        key("range")
        for end in value:
            self.shape_one(end, key, values)

    def build(self, scope: Scope, left: ColumnElement[Any], field: Field[Any], value: Any) -> ColumnElement[Any]:
        low, high = (self.right(scope, field, end) for end in value)
        return left.between(low, high)


class TextLookup(Lookup):
    """A lookup in text, whose value is looked for as it is: `%` and `_` mean nothing in it.

    Args:
        name: what keywords call it.
        before, after: what stands around the value in the pattern.
        fold: whether upper and lower case are the same.
    """

    def __init__(self, name: str, before: str, after: str, *, fold: bool) -> None:
        self.before = before
        self.after = after
        self.fold = fold
        super().__init__(name, lambda left, right: left.like(right, escape="\\"))

    def parameter(self, value: Any) -> Any:
        if not isinstance(value, (str, int)):
            raise QueryError(f"{self.name}={value!r}: a text is needed")
        escaped = str(value).replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        return f"{self.before}{escaped}{self.after}"

    def build(self, scope: Scope, left: ColumnElement[Any], field: Field[Any], value: Any) -> ColumnElement[Any]:
        if isinstance(value, Expression):
            pattern: ColumnElement[Any] = scope.dialect.pattern(value.build(scope), self.before, self.after)
        else:
            pattern = scope.parameter(TEXT)
        if family(field) != "text":
            left = scope.dialect.as_text(left)
        return scope.dialect.like(left, pattern, fold=self.fold)


class Pattern(TextField[str]):
    """The parameter of a regular expression: SQLite's are Python's, and a wrong one is found before it is sent."""

    def binder(self, kind: str) -> Convert:
        if kind != "sqlite":
            return check_text

        def bind(value: Any) -> str:
            text = check_text(value)
            try:
                re.compile(text)
            except re.error as error:
                raise ValueError(f"{text!r} is no regular expression: {error}") from None
            return text

        return bind


PATTERN = Pattern()


class Regex(Lookup):
    """A text in which something matches a regular expression, in the dialect that the database has.

    Args:
        name: what keywords call it.
        fold: whether upper and lower case are the same.
    """

    def __init__(self, name: str, *, fold: bool) -> None:
        super().__init__(name)
        self.fold = fold

    def build(self, scope: Scope, left: ColumnElement[Any], field: Field[Any], value: Any) -> ColumnElement[Any]:
        if family(field) != "text":
            left = scope.dialect.as_text(left)
        return scope.dialect.regex(left, self.right(scope, PATTERN, value), fold=self.fold)


class Transform:
    """Something that is made of a column before it is compared: `created__year`.

    Args:
        name: what keywords call it.
        build: gives the expression, of the scope, the column and its field.
        output: gives the field of its type, of the field that it is made of.
        lookups: lookups of the column itself that say the same, and that an index can serve.
    """

    def __init__(
        self,
        name: str,
        build: Places,
        output: Callable[[Field[Any]], Field[Any]],
        lookups: Mapping[str, Lookup] | None = None,
    ) -> None:
        self.name = name
        self.build = build
        self.output = output
        self.lookups = lookups if lookups is not None else {}

    def after(self, before: Transform) -> Transform | None:
        """One transform that does what another one and then this one do; None where there is none."""
        return None

    def __repr__(self) -> str:
        return f"<transform {self.name}>"


LOOKUPS: dict[str, Lookup] = {
    lookup.name: lookup
    for lookup in (
        Exact("exact", lambda left, right: left == right),
        Lookup("gt", lambda left, right: left > right),
        Lookup("gte", lambda left, right: left >= right),
        Lookup("lt", lambda left, right: left < right),
        Lookup("lte", lambda left, right: left <= right),
        IsNull("isnull", lambda left, right: left.is_(None)),
        In("in", lambda left, right: left.in_(right)),
        Range("range", lambda left, right: left.between(*right)),
        TextLookup("contains", "%", "%", fold=False),
        TextLookup("icontains", "%", "%", fold=True),
        TextLookup("startswith", "", "%", fold=False),
        TextLookup("istartswith", "", "%", fold=True),
        TextLookup("endswith", "%", "", fold=False),
        TextLookup("iendswith", "%", "", fold=True),
        TextLookup("iexact", "", "", fold=True),
        Regex("regex", fold=False),
        Regex("iregex", fold=True),
    )
}
"""The lookups that every field has, by name."""

TRANSFORMS: dict[str, Transform] = {}
"""The transforms that every field has, by name."""


def _size(count: int) -> int:
    """The next power of two."""
    return 1 << (count - 1).bit_length()
