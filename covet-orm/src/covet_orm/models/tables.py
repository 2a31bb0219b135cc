"""The table of a model, as SQLAlchemy has it: columns, keys, indexes, constraints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy

from covet_orm.exceptions import FieldError, ModelError
from covet_orm.fields.related import ForeignKey

if TYPE_CHECKING:
    from covet_orm.fields.base import Field
    from covet_orm.models.options import Options

__all__ = ["build_table"]


def build_table(model: Any) -> sqlalchemy.Table:
    """Make the table of a model. What it refers to is made as well, when it is needed.

    Raises:
        ModelError: a relation names a model that is not there, or an option names a field that is not.
    """
    options: Options = model._meta
    if options.abstract:
        raise ModelError(f"{model.__name__} is abstract, and has no table; a model that derives from it has")
    if options.proxy:
        parent = next(base for base in model.__mro__[1:] if hasattr(base, "_meta") and not base._meta.proxy)
        table: sqlalchemy.Table = parent.__table__
        return table
    own = [field for field in options.fields if field.model is model]
    items: list[Any] = [_column(field) for field in own]
    for field in own:
        if isinstance(field, ForeignKey) and field.db_constraint:
            items.append(_reference(field))
    for names in options.unique_together:
        items.append(sqlalchemy.UniqueConstraint(*(_column_name(options, name) for name in names)))
    made = sqlalchemy.Table(options.db_table, options.registry.metadata, *items, comment=options.comment)
    for field in own:
        if field.db_index and not field.unique and not field.primary_key:
            sqlalchemy.Index(f"{options.db_table}_{field.column}_idx", made.c[field.column])
    for declared in (*options.indexes, *options.constraints):
        declared.attach(made, options)
    return made


def _column(field: Field[Any]) -> sqlalchemy.Column[Any]:
    arguments: dict[str, Any] = {
        "nullable": field.null,
        "primary_key": field.primary_key,
        "unique": field.unique or None,
        "comment": field.comment,
        "server_default": field.server_default(),
        "autoincrement": field.primary_key and field.filled_by_database and field.db_default_is_unset,
    }
    computed = field.computed()
    return sqlalchemy.Column(
        field.column, field.column_type(), *([computed] if computed is not None else []), **arguments
    )


def _reference(field: ForeignKey[Any]) -> sqlalchemy.ForeignKeyConstraint:
    # By name, so that two tables may refer to each other; the other one is made when all are.
    target = field.target._meta
    field.target.__table__  # noqa: B018 - made at first use
    return sqlalchemy.ForeignKeyConstraint(
        [field.column],
        [f"{target.db_table}.{field.remote.column}"],
        name=f"{field.model._meta.db_table}_{field.column}_fk",
        ondelete=None if field.on_delete == "NO ACTION" else field.on_delete,
    )


def _column_name(options: Options, name: str) -> str:
    try:
        return options.field(name).column
    except FieldError as error:
        raise ModelError(f"{options.model.__name__}.Meta.unique_together: {error}") from None
