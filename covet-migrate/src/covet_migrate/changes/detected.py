"""An operation that was detected, with what has to be known to put it in its place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from covet_migrate.operations.base import Operation
from covet_migrate.state.models import ModelState
from covet_orm import Field
from covet_orm.fields.related import RelatedField

__all__ = ["Detected", "targets"]


@dataclass(frozen=True, slots=True)
class Detected:
    """A difference, as an operation.

    Attributes:
        app: the label of the application whose model it is about.
        operation: the operation.
        label: the model that it changes.
        changes: whether it changes what other models know of that one: whether it is there, its name, its table, its
            key.
        needs: the models that have to be as they are then: those that its fields lead to, before it and after it.
        loses: what is lost by it, for people; empty where nothing is.
    """

    app: str
    operation: Operation
    label: str
    changes: bool = False
    needs: frozenset[str] = field(default_factory=frozenset)
    loses: str = ""


def targets(model: ModelState, fields: Iterable[Field[object]]) -> Iterator[str]:
    """The labels of the models that fields of a model lead to, without itself."""
    for one in fields:
        if isinstance(one, RelatedField):
            for target in (one.to, getattr(one, "through", None)):
                if target is not None and target != "self" and target != model.label:
                    yield str(target)
