"""Indexes: `Meta.indexes = [Index("-created"), Index("email", condition=Q(active=True))]`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from covet_orm.deferred import sqlalchemy
from covet_orm.exceptions import FieldError, ModelError
from covet_orm.expressions.base import Expression, Ordering
from covet_orm.expressions.conditions import Condition
from covet_orm.expressions.declaring import unbound
from covet_orm.fields.base import Declared
from covet_orm.models.names import check_name, name_of

if TYPE_CHECKING:
    from covet_orm.models.options import Options

__all__ = ["Definition", "Index", "Indexed", "column_name", "without_order"]

Indexed = str | Expression[Any] | Ordering
"""What an index is of: a field by name, with a minus where it descends, or an expression."""


class Definition:
    """The base of what stands in `Meta.indexes` and `Meta.constraints`.

    Args:
        name: its name in the database; made of the columns by default. `%(class)s` and `%(app_label)s` in it become the
            names of the model, so that an abstract model can hand it on.
        databases: the databases that have it (`postgresql`, `mariadb`, `mysql`, `sqlite`); on others it is left out.
            All of them by default.
    """

    ending = "idx"
    declared: Declared
    """What it was declared with."""

    if not TYPE_CHECKING:

        def __new__(cls, *args: Any, **options: Any) -> Self:
            made = super().__new__(cls)
            made.declared = Declared(args, options)
            return made

    def __init__(self, name: str | None, databases: Iterable[str] | None) -> None:
        self.name = name
        self.databases = frozenset(databases) if databases is not None else None

    def attach(self, table: sqlalchemy.Table, options: Options) -> None:
        """Become a part of a table.

        Raises:
            ModelError: it names what the model does not have.
        """
        raise ModelError(f"{type(self).__name__} does not say what it is: override attach()")

    def lacking(self, kind: str) -> str:
        """What it needs that a database does not have, and the way around; empty where there is nothing."""
        return ""

    def unsupported(self, kind: str) -> str:
        """Why a database cannot have it; empty when it can, and when it is left out there."""
        if self.databases is not None and kind not in self.databases:
            return ""
        return self.lacking(kind)

    def _named(self, options: Options, columns: Iterable[str], more: str = "") -> str:
        if self.name is None:
            return name_of(options.db_table, columns, self.ending, more=more)
        name = self.name.replace("%(class)s", options.model.__name__.lower()).replace(
            "%(app_label)s", options.app_label
        )
        return check_name(
            name, f"{type(self).__name__} of {options.model.__qualname__}", "give it a shorter name, or none"
        )

    def _only_there(self, made: Any) -> Any:
        if self.databases is None:
            return made
        chosen = self.databases
        made.info["databases"] = chosen
        return made.ddl_if(callable_=lambda ddl, target, bind, **options: options["dialect"].name in chosen)


class Index(Definition):
    """An index.

    Args:
        expressions: fields by name, with a minus where the order descends, or expressions: `Index(Lower("email"))`.
        name: its name; see `Definition`.
        condition: which rows it holds: a partial index (PostgreSQL, SQLite).
        include: fields that it holds beside, so that a query of them needs no look at the table (PostgreSQL).
        method: `gin`, `gist`, `brin`, `hash`, `spgist` (PostgreSQL).
        opclasses: operator classes by field (PostgreSQL): `{"data": "jsonb_path_ops"}`; for one expression alone its
            class by itself.
        unique: whether no two rows may have the same values. `UniqueConstraint` says more about that.
        databases: see `Definition`.
    """

    def __init__(
        self,
        *expressions: Indexed,
        name: str | None = None,
        condition: Condition | None = None,
        include: Sequence[str] = (),
        method: str | None = None,
        opclasses: Mapping[str, str] | str | None = None,
        unique: bool = False,
        databases: Iterable[str] | None = None,
    ) -> None:
        super().__init__(name, databases)
        if not expressions:
            raise ModelError(f"{type(self).__name__}() is of nothing; name at least one field, or give an expression")
        self.expressions = expressions
        self.condition = condition
        self.include = tuple(include)
        self.method = method
        self.opclasses: Mapping[str, str] = {"": opclasses} if isinstance(opclasses, str) else dict(opclasses or {})
        self.unique = unique
        self.nulls_distinct = True
        if isinstance(opclasses, str) and len(expressions) != 1:
            raise ModelError(
                "an index of several things needs opclasses by field: opclasses={'name': 'text_pattern_ops'}"
            )

    @property
    def computes(self) -> bool:
        """Whether something in it is no column."""
        return any(not isinstance(without_order(one)[0], str) for one in self.expressions)

    def lacking(self, kind: str) -> str:
        if kind == "postgresql":
            return ""
        if self.condition is not None and kind != "sqlite":
            return f"{kind} has no partial indexes; PostgreSQL and SQLite have"
        if self.computes and kind == "mariadb":
            return "MariaDB has no indexes of expressions; add a GeneratedField with the expression, and an index of it"
        for given, what in (
            (self.include, "include"),
            (self.method, "method"),
            (self.opclasses, "opclasses"),
            (not self.nulls_distinct, "nulls_distinct=False"),
        ):
            if given:
                return f"{kind} has no {what}; PostgreSQL has: with databases=['postgresql'] it is left out elsewhere"
        return ""

    def attach(self, table: sqlalchemy.Table, options: Options) -> None:
        from covet_orm.models.definitions import DefinedExpression, columns_of

        where = f"{options.model.__qualname__}.Meta: {type(self).__name__}"
        elements: list[Any] = []
        columns: list[sqlalchemy.Column[Any]] = []
        told: list[str] = []
        classes: dict[str, str] = {}
        for position, one in enumerate(self.expressions):
            bare, descends = without_order(one)
            if isinstance(bare, str):
                column = table.c[column_name(options, bare, where)]
                element: Any = column
                columns.append(column)
                label = column.key
                opclass = self.opclasses.get(bare, self.opclasses.get(""))
            else:
                found = columns_of(bare, options.model)
                columns += found
                told.append(repr(unbound(bare)))
                element = sqlalchemy.sql.elements.Grouping(DefinedExpression(bare, options.model, found))
                label = f"expression_{position}"
                opclass = self.opclasses.get("")
            if opclass is not None:
                classes[label] = opclass
                if not isinstance(bare, str):
                    element = element.label(label)
            elements.append(element.desc() if descends else element)
        unknown = set(self.opclasses) - {without_order(one)[0] for one in self.expressions} - {""}
        if unknown:
            raise ModelError(f"{where} has opclasses of {', '.join(map(repr, sorted(unknown)))}, of which it is not")
        arguments: dict[str, Any] = {"unique": self.unique}
        if self.condition is not None:
            found = columns_of(self.condition, options.model)
            told.append(repr(unbound(self.condition)))
            clause = DefinedExpression(self.condition, options.model, found)
            arguments |= {"postgresql_where": clause, "sqlite_where": clause}
        if self.include:
            arguments["postgresql_include"] = [column_name(options, name, where) for name in self.include]
            told.append(repr(self.include))
        if self.method is not None:
            arguments["postgresql_using"] = self.method
            told.append(self.method)
        if classes:
            arguments["postgresql_ops"] = classes
        if not self.nulls_distinct:
            arguments["postgresql_nulls_not_distinct"] = True
        name = self._named(options, dict.fromkeys(column.name for column in columns), "; ".join(told))
        made = sqlalchemy.Index(name, *elements, **arguments)
        # Where no expression names a column, nothing has told it yet whose index it is.
        if made.table is None:
            table.append_constraint(made)
        self._only_there(made)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name or ', '.join(map(str, self.expressions))}>"


def without_order(one: Indexed) -> tuple[Any, bool]:
    """What an index is of, and whether it descends."""
    if isinstance(one, str):
        return one.removeprefix("-"), one.startswith("-")
    if isinstance(one, Ordering):
        return one.expression, one.descending
    return one, False


def column_name(options: Options, name: str, where: str) -> str:
    """The column of a field that a definition names.

    Raises:
        ModelError: there is no such field.
    """
    try:
        field = options.field(name)
    except FieldError as error:
        raise ModelError(f"{where}: {error}") from None
    if field.model is not options.model:
        raise ModelError(f"{where}: {name!r} stands in the table of {field.model.__qualname__}; declare it there")
    return field.column
