"""A schema as migrations know it: models by label, each with its fields and options.

A state is a value. An operation makes another one of it, which shares what did not change, so that what an operation
costs does not depend on how many models there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from covet_migrate.exceptions import MigrationError
from covet_orm import Field
from covet_orm.fields.related import RelatedField
from covet_orm.models.options import usual_table

__all__ = ["OPTIONS", "ModelState", "State"]

OPTIONS = ("comment", "constraints", "database", "db_table", "indexes", "managed", "unique_together")
"""The options of a model that a migration knows."""


@dataclass(frozen=True, slots=True)
class ModelState:
    """A model: one table, and those of its many-to-many fields.

    Attributes:
        app: the label of its application.
        name: its name.
        fields: its own fields by name, in the order of the table. They belong to no model; what they refer to is named
            `app.Name`, or `self`.
        options: those of `OPTIONS` that say something.
        unchecked: the names of constraints for which the rows that were there before were not checked yet: what a
            database may say of them, and models do not.
    """

    app: str
    name: str
    fields: Mapping[str, Field[Any]]
    options: Mapping[str, Any] = field(default_factory=dict)
    unchecked: frozenset[str] = frozenset()

    @property
    def label(self) -> str:
        """`app.Name`."""
        return f"{self.app}.{self.name}" if self.app else self.name

    @property
    def managed(self) -> bool:
        """Whether migrations create, change and drop its table."""
        return bool(self.options.get("managed", True))

    def with_fields(self, fields: Mapping[str, Field[Any]]) -> Self:
        """The same with other fields."""
        return replace(self, fields=dict(fields))

    def with_options(self, **options: Any) -> Self:
        """The same with some options changed; None, False and what is empty take one away."""
        merged = {**self.options, **{name: _canonical(name, value) for name, value in options.items()}}
        if merged.get("db_table") == usual_table(self.app, self.name):
            # It is called so without being told.
            merged["db_table"] = None
        kept = {name: value for name, value in sorted(merged.items()) if value is not None and value != ()}
        if kept.get("managed", True) is True:
            kept.pop("managed", None)
        return replace(self, options=kept)

    def refers_to(self) -> Iterator[str]:
        """The labels of the models that its fields name, itself included."""
        for one in self.fields.values():
            if isinstance(one, RelatedField):
                yield self.label if one.to == "self" else str(one.to)
                through = getattr(one, "through", None)
                if through is not None:
                    yield str(through)


def _canonical(name: str, value: Any) -> Any:
    """An option in one form of the several that mean the same."""
    if name == "unique_together" and value:
        names = tuple(value)
        return (names,) if all(isinstance(one, str) for one in names) else tuple(map(tuple, names))
    return tuple(value) if isinstance(value, list) else value


@dataclass(frozen=True, slots=True)
class State:
    """All models, by label."""

    models: Mapping[str, ModelState] = field(default_factory=dict)

    def __getitem__(self, label: str) -> ModelState:
        """The model of a label.

        Raises:
            MigrationError: there is none.
        """
        try:
            return self.models[label]
        except KeyError:
            from covet.settings_schema import nearest

            raise MigrationError(
                f"no model {label!r} is there at this point of the migrations{nearest(label, self.models)}"
            ) from None

    def __contains__(self, label: object) -> bool:
        return label in self.models

    def __iter__(self) -> Iterator[ModelState]:
        return iter(self.models.values())

    def put(self, model: ModelState) -> State:
        """The state with a model, or another form of it."""
        return State({**self.models, model.label: model})

    def without(self, label: str) -> State:
        """The state without a model."""
        models = dict(self.models)
        del models[label]
        return State(models)

    def renamed(self, label: str, model: ModelState) -> State:
        """The state with a model at the place of another one."""
        return State(
            {(model.label if key == label else key): model if key == label else one for key, one in self.models.items()}
        )
