"""Inheritance from a model that has a table: proxies, and models whose own fields stand in a table beside the parent's.

The second kind refers to its parent's row by a one-to-one field, the parent link, which is its primary key. Only the
table of such a model knows of the other: `person.employee` leads from the parent's row to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from covet_orm.exceptions import ModelError

if TYPE_CHECKING:
    from covet_orm.fields.base import Field
    from covet_orm.fields.related import ForeignKey
    from covet_orm.models.options import Options

__all__ = ["inherit", "lineage", "parent_link_name"]


def inherit(
    options: Options, parent: Options, fields: Mapping[str, Field[Any]], take: Callable[[Field[Any]], None]
) -> dict[str, Field[Any]]:
    """Give a model the fields and relations of a parent with a table, and the link to it.

    Args:
        options: of the model that is made.
        parent: of its parent.
        fields: what it declares itself.
        take: adds a field to the model.

    Returns:
        The fields that are still to be added.

    Raises:
        ModelError: a field has the name of one that is inherited.
    """
    for field in parent.fields:
        options.add(field)
    options.primary_key = parent.primary_key
    options.many_to_many = list(parent.many_to_many)
    options.parent = parent
    parent.heirs.append(options)
    if options.proxy:
        options.db_table = parent.db_table
        options.concrete = parent.concrete
        options.parent_link = parent.parent_link
    for name in fields:
        if name in options.by_name or name in parent.relations:
            raise ModelError(
                f"{options.model.__qualname__}.{name}: {parent.model.__qualname__} has a field or relation of that "
                "name, and an object cannot have both"
            )
        if options.proxy:
            raise ModelError(
                f"{options.model.__qualname__} is a proxy and declares {name}; a proxy has the fields of its parent"
            )
    left = dict(fields)
    if not options.proxy:
        declared = parent_link_name(fields, parent.model)
        name = declared or f"{parent.model.__name__.lower()}_ptr"
        take(_link(options, parent, left.pop(declared) if declared else None, name))
    for relation in parent.relations.values():
        options.inherit_relation(relation)
    return left


def parent_link_name(fields: Mapping[str, Field[Any]], parent: type[Any]) -> str | None:
    """The name of the field that a model declares to be its link to its parent: a one-to-one field to it that is the
    primary key. None where the link is to be made."""
    from covet_orm.fields.related import OneToOneField

    for name, field in fields.items():
        if isinstance(field, OneToOneField) and field.primary_key and field.to is parent:
            return name
    return None


def lineage(model: type[Any]) -> list[type[Any]]:
    """The models whose tables together hold an object, the one without a parent first."""
    found: list[type[Any]] = []
    current: type[Any] = model._meta.concrete
    while True:
        found.append(current)
        link = current._meta.parent_link
        if link is None:
            return found[::-1]
        current = link.target._meta.concrete


def _link(options: Options, parent: Options, declared: Field[Any] | None, name: str) -> ForeignKey[Any]:
    """The field that refers to the parent's row. It has no slot of its own: its value is the parent's key."""
    from covet_orm.fields.related import ParentLink

    if len(parent.primary_key) != 1:
        raise ModelError(
            f"{options.model.__qualname__} derives from {parent.model.__qualname__}, whose primary key has "
            f"{len(parent.primary_key)} columns; the link to it has one"
        )
    given: Any = declared
    link = ParentLink(
        parent.concrete,
        related_name=given.related_name if declared is not None else None,
        db_column=given.db_column if declared is not None else None,
    )
    link.contribute(options.model, name)
    setattr(options.model, link.attribute, _slot(parent.model, parent.primary_key[0].attribute))
    # In place of the parent's: the key of the child's own table, which needs no join.
    options.primary_key = ()
    options.parent_link = link
    return link


def _slot(model: type[Any], attribute: str) -> Any:
    """The descriptor of a slot, past the expression that the class answers with."""
    for ancestor in model.__mro__:
        if attribute in ancestor.__dict__:
            return ancestor.__dict__[attribute]
    raise ModelError(f"{model.__qualname__} has no slot for {attribute}")
