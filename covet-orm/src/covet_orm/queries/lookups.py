"""Lookups: what may stand behind the two underscores of `age__gt=3`.

A lookup says which part of its value belongs to the shape of the query (whether it is None, how many there are) and
which becomes a parameter, and builds its SQL of a column and a value.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import ColumnElement

from covet_orm.exceptions import FieldError, QueryError
from covet_orm.expressions.base import Add, Expression

if TYPE_CHECKING:
    from covet_orm.fields.base import Field
    from covet_orm.queries.scope import Scope

__all__ = [
    "LOOKUPS",
    "TRANSFORMS",
    "Lookup",
    "Transform",
    "find_lookup",
    "register_lookup",
    "register_transform",
    "split_lookup",
    "transformed",
]

Operation = Callable[[Any, Any], ColumnElement[Any]]


class Lookup:
    """A lookup by an operator: `gt`, `lte`.

    Args:
        name: what keywords call it.
        operate: gives the condition of a column and a parameter.
    """

    def __init__(self, name: str, operate: Operation) -> None:
        self.name = name
        self.operate = operate

    def shape(self, value: Any, key: Add, values: Add) -> None:
        """What the SQL depends on of a value goes to `key`, what becomes parameters to `values`."""
        key(self.name)
        if isinstance(value, Expression):
            value.shape(key, values)
            return
        if value is None:
            raise QueryError(
                f"{self.name} compares with None, which is neither less nor more than anything; use isnull"
            )
        values(self.parameter(value))

    def parameter(self, value: Any) -> Any:
        """The parameter that a value becomes, before the conversions of its field."""
        return value

    def build(self, scope: Scope, left: ColumnElement[Any], field: Field[Any], value: Any) -> ColumnElement[Any]:
        """The condition. Asks the scope for as many parameters as `shape` gave, in that order."""
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
            key("=")
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
    """One of several values, or of what a subquery gives.

    PostgreSQL takes them as one array. Elsewhere there are as many parameters as the next power of two, the last value
    repeated, so that few statements serve lists of every length.
    """

    def shape(self, value: Any, key: Add, values: Add) -> None:
        if isinstance(value, Expression):
            key("in")
            value.shape(key, values)
            return
        members = self.members(value)
        if not members:
            key("in nothing")
            return
        key(("in", _size(len(members))))
        values(members)

    def members(self, value: Any) -> list[Any]:
        """The values, without None, which nothing equals."""
        if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
            raise QueryError(f"in={value!r}: a list of values, or a queryset, is needed")
        return [member for member in value if member is not None]

    def build(self, scope: Scope, left: ColumnElement[Any], field: Field[Any], value: Any) -> ColumnElement[Any]:
        if isinstance(value, Expression):
            return left.in_(value.build(scope))
        members = self.members(value)
        if not members:
            return sqlalchemy.false()
        if scope.kind == "postgresql":
            return left == sqlalchemy.any_(scope.parameter(field, array=True))
        return left.in_(scope.spread(field, _size(len(members))))


class Range(Lookup):
    """Between two values, both included."""

    def shape(self, value: Any, key: Add, values: Add) -> None:
        if isinstance(value, (str, bytes)) or not isinstance(value, Sequence) or len(value) != 2:
            raise QueryError(f"range={value!r}: a pair of values is needed")
        key("range")
        for end in value:
            if isinstance(end, Expression):
                end.shape(key, values)
            else:
                key(None)
                values(end)

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
        escaped = str(value).replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        return f"{self.before}{escaped}{self.after}"

    def build(self, scope: Scope, left: ColumnElement[Any], field: Field[Any], value: Any) -> ColumnElement[Any]:
        from covet_orm.fields.text import TextField

        if isinstance(value, Expression):
            pattern: ColumnElement[Any] = value.build(scope)
            for letter in "\\%_":
                pattern = sqlalchemy.func.replace(pattern, _text(letter), _text("\\" + letter))
            if self.before:
                pattern = _text(self.before).concat(pattern)
            if self.after:
                pattern = pattern.concat(_text(self.after))
        else:
            pattern = scope.parameter(TextField[str]())
        if not isinstance(left.type, sqlalchemy.String):
            left = sqlalchemy.cast(left, sqlalchemy.Text)
        return scope.dialect.like(left, pattern, fold=self.fold)


class Transform:
    """Something that is made of a column before it is compared: `created__year`.

    Args:
        name: what keywords call it.
        build: gives the expression.
        output: gives the field of its type.
    """

    def __init__(
        self,
        name: str,
        build: Callable[[Scope, ColumnElement[Any]], ColumnElement[Any]],
        output: Callable[[Field[Any]], Field[Any]],
    ) -> None:
        self.name = name
        self.build = build
        self.output = output


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
    )
}
"""The lookups by name; those that only fields of one kind have stand with the field."""

TRANSFORMS: dict[str, Transform] = {}
"""The transforms by name."""


def register_lookup(lookup: Lookup) -> None:
    """Add a lookup that every field has."""
    LOOKUPS[lookup.name] = lookup


def register_transform(transform: Transform) -> None:
    """Add a transform that every field has."""
    TRANSFORMS[transform.name] = transform


def find_lookup(name: str) -> Lookup:
    """A lookup by name.

    Raises:
        FieldError: there is none.
    """
    try:
        return LOOKUPS[name]
    except KeyError:
        raise FieldError(_unknown(name, LOOKUPS)) from None


def split_lookup(field: Field[Any], rest: Sequence[str], keyword: str) -> tuple[list[Transform], Lookup]:
    """What follows a field in a keyword: transforms, and the lookup, `exact` when there is none.

    Raises:
        FieldError: one of them is unknown.
    """
    transforms: list[Transform] = []
    for position, name in enumerate(rest):
        transform = field.transform(name) or TRANSFORMS.get(name)
        last = position == len(rest) - 1
        if last and (transform is None or name in LOOKUPS):
            lookup = field.lookup(name) or LOOKUPS.get(name)
            if lookup is None:
                raise FieldError(f"{keyword!r}: {_unknown(name, {**LOOKUPS, **TRANSFORMS})}")
            return transforms, lookup
        if transform is None:
            raise FieldError(f"{keyword!r}: {_unknown(name, TRANSFORMS, what='transform')}")
        transforms.append(transform)
        field = transform.output(field)
    return transforms, LOOKUPS["exact"]


def transformed(
    scope: Scope, column: ColumnElement[Any], field: Field[Any], rest: Sequence[str], name: str
) -> tuple[ColumnElement[Any], Field[Any]]:
    """A column with the transforms that a path names behind it.

    Raises:
        FieldError: one of them is unknown.
    """
    for part in rest:
        transform = field.transform(part) or TRANSFORMS.get(part)
        if transform is None:
            raise FieldError(f"{name!r}: {_unknown(part, TRANSFORMS, what='transform')}")
        column, field = transform.build(scope, column), transform.output(field)
    return column, field


def _size(count: int) -> int:
    """The next power of two."""
    return 1 << (count - 1).bit_length()


def _text(value: str) -> ColumnElement[Any]:
    return sqlalchemy.literal(value, sqlalchemy.Text())


def _unknown(name: str, known: Any, what: str = "lookup") -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"there is no {what} {name!r}" + (
        f"; did you mean {near[0]!r}?" if near else f"; there are: {', '.join(known)}"
    )
