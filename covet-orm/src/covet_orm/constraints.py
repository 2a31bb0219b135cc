"""Constraints: `Meta.constraints = [UniqueConstraint("team", "number"), CheckConstraint(Q(age__gte=0))]`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from covet_orm.deferred import postgresql, sqlalchemy
from covet_orm.exceptions import ModelError
from covet_orm.expressions.base import Expression
from covet_orm.expressions.conditions import Condition
from covet_orm.expressions.declaring import unbound
from covet_orm.fields.options import Deferrable
from covet_orm.indexes import Definition, Index, Indexed, column_name, without_order

if TYPE_CHECKING:
    from covet_orm.models.options import Options

__all__ = ["CheckConstraint", "Deferrable", "ExclusionConstraint", "UniqueConstraint"]


class UniqueConstraint(Index):
    """No two rows have the same values.

    Rows that have NULL in one of them are all different, unless `nulls_distinct=False`.

    Args:
        expressions: fields by name, or expressions: `UniqueConstraint(Lower("email"))`.
        name: its name; see `Definition`.
        condition: among which rows (PostgreSQL, SQLite).
        include, method, opclasses: as of `Index`.
        deferrable: `deferred` is checked at the end of the transaction, `immediate` at once unless the transaction says
            otherwise (PostgreSQL).
        nulls_distinct: whether NULL differs from NULL (False: PostgreSQL).
        databases: see `Definition`.
    """

    ending = "key"

    def __init__(
        self,
        *expressions: Indexed,
        name: str | None = None,
        condition: Condition | None = None,
        include: Sequence[str] = (),
        opclasses: Mapping[str, str] | str | None = None,
        deferrable: Deferrable | None = None,
        nulls_distinct: bool = True,
        databases: Iterable[str] | None = None,
    ) -> None:
        super().__init__(
            *expressions,
            name=name,
            condition=condition,
            include=include,
            opclasses=opclasses,
            unique=True,
            databases=databases,
        )
        self.nulls_distinct = nulls_distinct
        self.deferrable: Deferrable | None = deferrable
        if deferrable is not None and (self.computes or condition is not None or include or opclasses):
            raise ModelError(
                "a UniqueConstraint that is deferrable is of fields alone: without expressions, condition, include and "
                "opclasses"
            )

    @property
    def plain(self) -> bool:
        """Whether it is a constraint by itself, and not only an index that is unique."""
        descends = any(without_order(one)[1] for one in self.expressions)
        return not (self.computes or descends or self.condition is not None or self.include or self.opclasses)

    def lacking(self, kind: str) -> str:
        if self.deferrable is not None and kind != "postgresql":
            return f"{kind} has no unique constraints that are deferrable; PostgreSQL has"
        return super().lacking(kind)

    def attach(self, table: sqlalchemy.Table, options: Options) -> None:
        if not self.plain:
            super().attach(table, options)
            return
        where = f"{options.model.__qualname__}.Meta: UniqueConstraint"
        columns = [column_name(options, str(one), where) for one in self.expressions]
        arguments: dict[str, Any] = {} if self.nulls_distinct else {"postgresql_nulls_not_distinct": True}
        made = sqlalchemy.UniqueConstraint(
            *(table.c[column] for column in columns),
            name=self._named(options, columns),
            deferrable=True if self.deferrable is not None else None,
            initially=self.deferrable.upper() if self.deferrable is not None else None,
            **arguments,
        )
        self._only_there(made)


class CheckConstraint(Definition):
    """A condition that holds for every row (or is NULL): `CheckConstraint(Q(begins__lt=F("ends")))`.

    Args:
        condition: the condition, of columns of one row.
        name: its name; see `Definition`.
        databases: see `Definition`.
    """

    ending = "check"

    def __init__(
        self, condition: Condition, *, name: str | None = None, databases: Iterable[str] | None = None
    ) -> None:
        super().__init__(name, databases)
        if not isinstance(condition, Condition):
            raise ModelError(f"CheckConstraint({condition!r}): a condition is needed, such as Q(age__gte=0)")
        self.condition = condition

    def attach(self, table: sqlalchemy.Table, options: Options) -> None:
        from covet_orm.models.definitions import DefinedExpression, columns_of

        found = columns_of(self.condition, options.model)
        made = sqlalchemy.CheckConstraint(
            DefinedExpression(self.condition, options.model, found),
            name=self._named(options, [column.name for column in found], repr(unbound(self.condition))),
        )
        table.append_constraint(made)
        self._only_there(made)

    def __repr__(self) -> str:
        return f"<CheckConstraint {self.name or self.condition!r}>"


class ExclusionConstraint(Definition):
    """No two rows for which all operators hold (PostgreSQL): no room is booked twice at a time, for instance.

        ExclusionConstraint([("room", "="), ("during", "&&")])

    Equality of plain values needs the extension `btree_gist`.

    Args:
        expressions: fields by name, or expressions, each with its operator.
        name: its name; see `Definition`.
        condition: among which rows.
        method: `gist`, `spgist`, or `hash` where every operator is `=`.
        deferrable: as of `UniqueConstraint`.
        databases: see `Definition`.
    """

    ending = "excl"

    def __init__(
        self,
        expressions: Sequence[tuple[str | Expression[Any], str]],
        *,
        name: str | None = None,
        condition: Condition | None = None,
        method: str = "gist",
        deferrable: Deferrable | None = None,
        databases: Iterable[str] | None = None,
    ) -> None:
        super().__init__(name, databases)
        if not expressions:
            raise ModelError(
                "ExclusionConstraint([]) excludes nothing; give fields with their operators: [('room', '=')]"
            )
        for one in expressions:
            if not isinstance(one, tuple) or len(one) != 2 or not isinstance(one[1], str) or not _is_operator(one[1]):
                raise ModelError(f"ExclusionConstraint: {one!r} is no field with an operator, such as ('room', '=')")
        self.expressions = tuple(expressions)
        self.condition = condition
        self.method = method
        self.deferrable: Deferrable | None = deferrable

    def lacking(self, kind: str) -> str:
        if kind == "postgresql":
            return ""
        return (
            f"{kind} has no exclusion constraints; PostgreSQL has: with databases=['postgresql'] "
            "it is left out elsewhere"
        )

    def attach(self, table: sqlalchemy.Table, options: Options) -> None:
        from covet_orm.models.definitions import DefinedExpression, columns_of

        where = f"{options.model.__qualname__}.Meta: ExclusionConstraint"
        elements: list[tuple[Any, str]] = []
        names: list[str] = []
        for expression, operator in self.expressions:
            if isinstance(expression, str):
                column = table.c[column_name(options, expression, where)]
                elements.append((column, operator))
                names.append(column.name)
            else:
                found = columns_of(expression, options.model)
                names += [column.name for column in found]
                defined = DefinedExpression(expression, options.model, found)
                elements.append((sqlalchemy.sql.elements.Grouping(defined), operator))
        arguments: dict[str, Any] = {}
        if self.condition is not None:
            arguments["where"] = DefinedExpression(
                self.condition, options.model, columns_of(self.condition, options.model)
            )
        if self.deferrable is not None:
            arguments |= {"deferrable": True, "initially": self.deferrable.upper()}
        told = repr(unbound((self.expressions, self.condition, self.method)))
        made = postgresql.ExcludeConstraint(
            *elements, name=self._named(options, dict.fromkeys(names), told), using=self.method, **arguments
        )
        table.append_constraint(made)
        self._only_there(made)

    def __repr__(self) -> str:
        return f"<ExclusionConstraint {self.name or self.expressions!r}>"


def _is_operator(text: str) -> bool:
    """Whether a text is an operator (PostgreSQL's documentation, "SQL Syntax", Operators), which cannot be quoted."""
    return (
        bool(text) and all(letter in "+-*/<>=~!@#%^&|`?" for letter in text) and "--" not in text and "/*" not in text
    )
