"""Copies of objects, and objects that are pickled: they know as much of their row as before."""

from __future__ import annotations

import copy
from typing import Any

from covet_orm.models.changes import values_of
from covet_orm.queries.sources import Source

__all__ = ["copied", "deep_copied", "restore", "state_of"]


class RestoredSource(Source):
    """Where an object came from that was pickled: the kind of the database, not which one it was."""

    __slots__ = ()

    def __init__(self, instance: Any, names: list[str], kind: str) -> None:
        fields = [instance._meta.by_name[name] for name in names]
        super().__init__(fields, [field.loader(kind) for field in fields], None)
        self.kind = kind


def state_of(instance: Any) -> dict[str, Any]:
    """What is pickled of an object: its values, its row as it was read, and the related objects that were loaded."""
    state: dict[str, Any] = {"values": values_of(instance), "related": _related(instance)}
    if instance.saved:
        source = instance._source
        state["row"] = tuple(instance._row)
        state["fields"] = [field.name for field in source.fields]
        state["kind"] = source.kind
    return state


def restore(instance: Any, state: dict[str, Any]) -> None:
    """Give an object that was made without its constructor what was pickled of it."""
    for name, value in state["values"].items():
        setattr(instance, name, value)
    if state["related"]:
        instance._related = state["related"]
    if "row" in state:
        instance._row = state["row"]
        instance._source = RestoredSource(instance, state["fields"], state["kind"])


def copied(instance: Any) -> Any:
    """Another object with the same values, of the same row."""
    made = object.__new__(type(instance))
    for name, value in values_of(instance).items():
        setattr(made, name, value)
    if instance.saved:
        made._row, made._source = instance._row, instance._source
    related = _related(instance)
    if related:
        made._related = related
    return made


def deep_copied(instance: Any, memo: dict[int, Any]) -> Any:
    """Another object with copies of the values and of the related objects, of the same row."""
    made = memo[id(instance)] = copied(instance)
    for name, value in values_of(instance).items():
        setattr(made, name, copy.deepcopy(value, memo))
    if _related(instance):
        made._related = copy.deepcopy(instance._related, memo)
    return made


def _related(instance: Any) -> dict[str, Any]:
    try:
        return dict(instance._related)
    except AttributeError:
        return {}
