"""Classes and tables of models as they were at a point of the migrations.

A table needs little of the models that it refers to: their tables' names and their keys. So a model is rendered with
stubs of those, and what that costs does not depend on how many others there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from covet_migrate.state.models import ModelState, State
from covet_orm import Field, Model, Registry
from covet_orm.deferred import sqlalchemy
from covet_orm.fields.related import ManyToManyField, RelatedField

__all__ = ["Rendered", "Renderer", "historical_models"]

MODULE = "covet_migrate.historical"


@dataclass(frozen=True, slots=True)
class Rendered:
    """A model as a class, and its tables.

    Attributes:
        model: the class, in a registry of its own.
        table: its table.
        links: the tables of its many-to-many fields, by the names of the fields; of those that no model declares.
    """

    model: type[Model]
    table: sqlalchemy.Table
    links: Mapping[str, sqlalchemy.Table]


class Renderer:
    """Makes classes and tables, and keeps the last of each model for the case that nothing changed."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[tuple[ModelState, ...], Rendered]] = {}

    def render(self, state: State, label: str) -> Rendered:
        """A model and its tables.

        Raises:
            MigrationError: there is no such model, or one that it refers to is not there.
            ModelError: the model is not one that can be.
        """
        needed = [state[label], *_keys_of(state, label)]
        kept = self._kept.get(label)
        if kept is not None and len(kept[0]) == len(needed) and all(map(_is, kept[0], needed)):
            return kept[1]
        registry = Registry()
        for stub in needed[1:]:
            _make(stub, registry, {name: one for name, one in stub.fields.items() if one.primary_key}, stub=True)
        model = needed[0]
        made = _make(model, registry, {name: one for name, one in model.fields.items() if not _declared_link(one)})
        # Foreign keys are told by the tables that they lead to.
        registry.tables()
        links = {
            one.name: one.link.__table__
            for one in made._meta.many_to_many
            if one.through is None and one.link is not None
        }
        rendered = Rendered(made, made.__table__, links)
        self._kept[label] = (tuple(needed), rendered)
        return rendered


def historical_models(state: State) -> Registry:
    """All models of a state, for code that moves data: with fields, relations and managers, without methods of their
    own."""
    registry = Registry()
    for model in state:
        _make(model, registry, model.fields)
    return registry


def _keys_of(state: State, label: str) -> list[ModelState]:
    """The models that one refers to, and those that their keys refer to."""
    found: dict[str, ModelState] = {}
    waiting = [str(target) for target in _targets(state[label], label)]
    while waiting:
        target = waiting.pop()
        if target == label or target in found:
            continue
        model = found[target] = state[target]
        waiting += _targets(model, target, keys=True)
    return list(found.values())


def _targets(model: ModelState, label: str, *, keys: bool = False) -> list[str]:
    return [
        label if one.to == "self" else str(one.to)
        for one in model.fields.values()
        if isinstance(one, RelatedField) and not _declared_link(one) and (one.primary_key if keys else True)
    ]


def _declared_link(field: Field[Any]) -> bool:
    """Whether the table of a many-to-many field is that of a model of its own."""
    return isinstance(field, ManyToManyField) and field.through is not None


def _make(model: ModelState, registry: Registry, fields: Mapping[str, Field[Any]], *, stub: bool = False) -> Any:
    options = dict(model.options)
    if stub:
        options = {name: value for name, value in options.items() if name == "db_table"}
    meta = type("Meta", (), {"app_label": model.app, "registry": registry, **options})
    clones = {name: field.clone() for name, field in fields.items()}
    if stub:
        for one in clones.values():
            if isinstance(one, RelatedField):
                one.related_name = "+"
    namespace = {"__module__": MODULE, "__qualname__": model.name, "Meta": meta, **clones}
    metaclass: Any = type(Model)
    return metaclass(model.name, (Model,), namespace)


def _is(one: object, other: object) -> bool:
    return one is other
