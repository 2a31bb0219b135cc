"""The names that indexes and constraints have in a database: their own, or those that their table gives them."""

from __future__ import annotations

from typing import Any

from covet_migrate.exceptions import MigrationError
from covet_migrate.state.models import State
from covet_migrate.state.rendering import Renderer
from covet_orm.indexes import Definition

__all__ = ["definition_name", "find_definition", "named_definition"]


def definition_name(state: State, label: str, definition: Definition) -> str:
    """What an index or a constraint of a model is called in a database.

    Args:
        state: the state in which the model is.
        label: the model.
        definition: the index or constraint.

    Raises:
        MigrationError: there is no such model.
        ModelError: it names what the model does not have.
    """
    if definition.name is not None and "%" not in definition.name:
        return definition.name
    model = state[label]
    # Alone in its table: what is new there by it is its own.
    bare = model.with_options(indexes=None, constraints=None)
    alone = bare.with_options(constraints=(definition,))
    return next(iter(_names(state.put(alone), label) - _names(state.put(bare), label)))


def _names(state: State, label: str) -> set[str]:
    table: Any = Renderer().render(state, label).table
    return {str(one.name) for one in (*table.indexes, *table.constraints)}


def find_definition(state: State, label: str, option: str, name: str) -> Definition:
    """The index or constraint of a model that is called so in a database.

    Args:
        state: the state in which the model is.
        label: the model.
        option: `indexes` or `constraints`.
        name: the name.

    Raises:
        MigrationError: the model has none of that name.
    """
    there: list[Definition] = list(state[label].options.get(option, ()))
    unnamed = [one for one in there if one.name is None or "%" in one.name]
    for one in there:
        if one.name == name:
            return one
    names = {definition_name(state, label, one): one for one in unnamed}
    if name in names:
        return names[name]
    from covet.settings_schema import nearest

    known = [*names, *(one.name for one in there if one.name is not None and one not in unnamed)]
    what = "index" if option == "indexes" else "constraint"
    raise MigrationError(f"{label} has no {what} {name!r} at this point of the migrations{nearest(name, known)}")


def named_definition(definition: Definition, name: str) -> Definition:
    """An index or constraint that is declared the same, under another name."""
    args, options = definition.declared
    made: Definition = type(definition)(*args, **{**options, "name": name})
    return made
