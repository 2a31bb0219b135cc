"""The table of a model, as SQLAlchemy has it: columns, keys, indexes, constraints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy

from covet_orm.exceptions import FieldError, ModelError
from covet_orm.fields.related import ForeignKey
from covet_orm.models.names import check_name, name_of, shortened

if TYPE_CHECKING:
    from covet_orm.fields.base import Field
    from covet_orm.models.options import Options

__all__ = ["build_table"]

TABLE_OPTIONS: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_0900_bin",
    "mariadb_engine": "InnoDB",
    "mariadb_charset": "utf8mb4",
    "mariadb_collate": "utf8mb4_nopad_bin",
}
"""Text is compared byte by byte, as PostgreSQL and SQLite do: upper and lower case differ, accents count, and so do
blanks at the end, which the usual collations of MySQL and MariaDB do not see."""


def build_table(model: Any) -> sqlalchemy.Table:
    """Make the table of a model.

    Raises:
        ModelError: a relation names a model that is not there, or an option names a field that is not.
    """
    from covet_orm.indexes import Definition

    options: Options = model._meta
    if options.abstract:
        raise ModelError(f"{model.__name__} is abstract, and has no table; a model that derives from it has")
    if options.proxy:
        table: sqlalchemy.Table = options.concrete.__table__
        return table
    own = [field for field in options.fields if field.model is model]
    check_name(options.db_table, f"table of {model.__qualname__}", "give it a shorter Meta.db_table")
    by_column: dict[str, Field[Any]] = {}
    for field in own:
        check_name(field.column, f"column of {field!r}", "give the field another db_column")
        other = by_column.setdefault(field.column, field)
        if other is not field:
            raise ModelError(
                f"{field!r} and {other!r} have the same column {field.column!r}; give one of them another db_column"
            )
    _check_ordering(options)
    items: list[Any] = [_column(field) for field in own]
    keys = [field.column for field in own if field.primary_key]
    items.append(sqlalchemy.PrimaryKeyConstraint(*keys, name=shortened(options.db_table, "_pkey")))
    for field in own:
        if field.unique and not (field.primary_key and len(keys) == 1):
            items.append(
                sqlalchemy.UniqueConstraint(field.column, name=name_of(options.db_table, [field.column], "key"))
            )
        if isinstance(field, ForeignKey) and field.db_constraint:
            items.append(_reference(field))
    for names in options.unique_together:
        columns = [_column_name(options, name) for name in names]
        items.append(sqlalchemy.UniqueConstraint(*columns, name=name_of(options.db_table, columns, "key")))
    made = sqlalchemy.Table(
        options.db_table, options.registry.metadata, *items, comment=options.comment, **TABLE_OPTIONS
    )
    # What follows may ask for the table, to find its columns.
    model._table = made
    try:
        for field in own:
            column = made.c[field.column]
            if field.db_index and not field.unique and not (field.primary_key and len(keys) == 1):
                sqlalchemy.Index(name_of(options.db_table, [field.column], "idx"), column)
            check = field.check(column)
            if check is not None:
                made.append_constraint(
                    sqlalchemy.CheckConstraint(check, name=name_of(options.db_table, [field.column], "check"))
                )
        for declared in (*options.indexes, *options.constraints):
            if not isinstance(declared, Definition):
                raise ModelError(
                    f"{model.__qualname__}.Meta: {declared!r} is neither index nor constraint, such as Index('name')"
                )
            declared.attach(made, options)
        _check_names(made, model)
    except BaseException:
        model._table = None
        options.registry.metadata.remove(made)
        raise
    return made


def _check_names(table: sqlalchemy.Table, model: Any) -> None:
    seen: set[str] = set()
    declared: list[Any] = [*table.constraints, *table.indexes]
    for one in declared:
        name = str(one.name)
        if name in seen:
            raise ModelError(f"{model.__qualname__}.Meta declares two things called {name!r}; give one of them a name")
        seen.add(name)


def _check_ordering(options: Options) -> None:
    for one in options.ordering:
        if isinstance(one, str):
            try:
                options.path(one.removeprefix("-"))
            except FieldError as error:
                raise ModelError(f"{options.model.__qualname__}.Meta.ordering: {error}") from None


def _column(field: Field[Any]) -> sqlalchemy.Column[Any]:
    computed = field.computed()
    return sqlalchemy.Column(
        field.column,
        field.column_type(),
        *([computed] if computed is not None else []),
        nullable=field.null,
        comment=field.comment,
        server_default=field.server_default(),
        primary_key=field.primary_key,
        autoincrement=field.primary_key
        and field.filled_by_database
        and field.db_default_is_unset
        and not isinstance(field, ForeignKey),
    )


def _reference(field: ForeignKey[Any]) -> sqlalchemy.ForeignKeyConstraint:
    # By name, so that two tables may refer to each other: the other one is made when all are.
    target = field.target._meta.concrete._meta
    return sqlalchemy.ForeignKeyConstraint(
        [field.column],
        [f"{target.db_table}.{field.remote.column}"],
        name=name_of(field.model._meta.db_table, [field.column], "fk"),
        ondelete=None if field.on_delete == "NO ACTION" else field.on_delete,
        deferrable=True if field.deferrable is not None else None,
        initially=field.deferrable.upper() if field.deferrable is not None else None,
    )


def _column_name(options: Options, name: str) -> str:
    try:
        return options.field(name).column
    except FieldError as error:
        raise ModelError(f"{options.model.__name__}.Meta.unique_together: {error}") from None
