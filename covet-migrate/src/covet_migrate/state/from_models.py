"""The state that the models of a program are in."""

from __future__ import annotations

from typing import Any

from covet_migrate.state.declarations import migrated_field
from covet_migrate.state.expressions import unbound
from covet_migrate.state.models import OPTIONS, ModelState, State
from covet_orm import Model, Registry

__all__ = ["model_state", "state_of"]


def state_of(registry: Registry) -> State:
    """The state of all models with a table that somebody declared."""
    return State({model._meta.label: model_state(model) for model in registry if _counts(model)})


def model_state(model: type[Model]) -> ModelState:
    """The state of a model: the fields of its own table, and what its `Meta` says of that."""
    options: Any = model._meta
    own = [*options.fields, *options.many_to_many]
    fields = {field.name: migrated_field(field) for field in own if field.model is model}
    # The name of the table is written down where it is not that which the model's name gives.
    bare = ModelState(options.app_label, model.__name__, fields)
    given = {name: unbound(getattr(options, name)) for name in OPTIONS}
    given["db_table"] = options.db_table if options.db_table != _usual_table(options) else None
    return bare.with_options(**given)


def _counts(model: type[Model]) -> bool:
    options = model._meta
    return not (options.abstract or options.proxy or options.link_of is not None)


def _usual_table(options: Any) -> str:
    from covet_orm.models.options import usual_table

    return usual_table(options.app_label, options.model.__name__)
