"""States of models told as text, so that two can be compared, whatever way each was made."""

from __future__ import annotations

from covet_migrate.files.writer import source_of
from covet_migrate.migrations import Migration
from covet_migrate.operations.models import CreateModel
from covet_migrate.state.models import ModelState, State

__all__ = ["told_state"]


def told_state(state: State, *, ordered: bool = True) -> dict[str, str]:
    """Each model of a state as the operation that creates it, by its label.

    Args:
        state: the state.
        ordered: whether the order of fields counts.

    Raises:
        NotSerializable: something in it cannot be written into a file.
    """
    return {model.label: _told(model, ordered) for model in sorted(state, key=lambda model: model.label)}


def _told(model: ModelState, ordered: bool) -> str:
    fields = dict(model.fields) if ordered else dict(sorted(model.fields.items()))
    return source_of(Migration([CreateModel(model.name, fields, dict(model.options))], app=model.app, name="told"))
