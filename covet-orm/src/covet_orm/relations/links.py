"""The table between the two models of a many-to-many relation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from covet_orm.exceptions import ModelError
from covet_orm.models.names import shortened

if TYPE_CHECKING:
    from covet_orm.fields.related import ForeignKey, ManyToManyField
    from covet_orm.models.instances import Model

__all__ = ["make_link", "sides"]


def make_link(field: ManyToManyField[Any]) -> type[Model]:
    """The model of a table that nobody declared: two foreign keys, which no two rows have alike."""
    from covet_orm.fields.related import ForeignKey
    from covet_orm.models.instances import Model

    model, target = field.model, field.target
    near, far = model.__name__.lower(), target.__name__.lower()
    if near == far:
        near, far = f"from_{near}", f"to_{far}"
    options = model._meta
    meta = type(
        "Meta",
        (),
        {
            "app_label": options.app_label,
            "registry": options.registry,
            "database": options.database,
            "db_table": field.db_table or shortened(f"{options.db_table}_{field.name}"),
            "unique_together": ((near, far),),
        },
    )
    namespace = {
        "__module__": model.__module__,
        "__qualname__": f"{model.__qualname__}.{field.name}.through",
        "Meta": meta,
        near: ForeignKey(model, related_name="+"),
        far: ForeignKey(target, related_name="+"),
    }
    metaclass: Any = type(Model)
    made: type[Model] = metaclass(f"{model.__name__}_{field.name}", (Model,), namespace)
    made._meta.link_of = model
    return made


def sides(field: ManyToManyField[Any], link: type[Model]) -> tuple[ForeignKey[Any], ForeignKey[Any]]:
    """The two foreign keys of a link, that of the field's own model first.

    Raises:
        ModelError: the link does not have one of each, and nothing says which of several are meant.
    """
    from covet_orm.fields.related import ForeignKey

    keys = {key.name: key for key in link._meta.fields if isinstance(key, ForeignKey)}
    if field.through_fields:
        if len(field.through_fields) != 2 or any(name not in keys for name in field.through_fields):
            raise ModelError(
                f"{field!r} has through_fields={field.through_fields!r}; the foreign keys of {link.__name__} are "
                f"{', '.join(keys) or 'none'}, and two of them are needed"
            )
        return keys[field.through_fields[0]], keys[field.through_fields[1]]
    near = [key for key in keys.values() if key.target is field.model]
    far = [key for key in keys.values() if key.target is field.target]
    if field.model is field.target:
        near, far = near[:1], near[1:]
    if len(near) != 1 or len(far) != 1:
        raise ModelError(
            f"{field!r} goes through {link.__name__}, which has {len(near)} foreign keys to {field.model.__name__} and "
            f"{len(far)} to {field.target.__name__}; say which with through_fields"
        )
    return near[0], far[0]
