"""What differs between the options that a model has and those that it is to have, such as indexes and constraints."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from covet_migrate.changes.detected import Detected
from covet_migrate.changes.fields import names_in
from covet_migrate.operations.indexes import AddConstraint, AddIndex, RemoveConstraint, RemoveIndex, RenameIndex
from covet_migrate.operations.models import (
    AlterModelOptions,
    AlterModelTable,
    AlterModelTableComment,
    AlterUniqueTogether,
)
from covet_migrate.state.declarations import declaration_of, same
from covet_migrate.state.definition_names import definition_name
from covet_migrate.state.models import ModelState, State
from covet_orm.indexes import Definition

__all__ = ["OptionChanges", "defining", "option_changes"]

ELSEWHERE = ("comment", "database", "managed")


@dataclass(slots=True)
class OptionChanges:
    """The changes of a model's options.

    Attributes:
        removed: what goes before fields go.
        table: the change of the table's name.
        added: what comes when all fields are there.
    """

    removed: list[Detected] = field(default_factory=list)
    table: list[Detected] = field(default_factory=list)
    added: list[Detected] = field(default_factory=list)


def option_changes(state: State, before: ModelState, after: ModelState, gone: Collection[str]) -> OptionChanges:
    """What has to be done with the options of a model.

    Args:
        state: the state that the model is in.
        before: the model as it is.
        after: the model as it is to be.
        gone: the names of fields that are removed meanwhile, also of those that come again.
    """
    changes = OptionChanges()
    if same(before.options, after.options) and not gone:
        return changes
    _together(before, after, gone, changes)
    for option in ("indexes", "constraints"):
        _definitions(state, before, after, option, gone, changes)
    old, new = (model.options.get("db_table") for model in (before, after))
    if old != new:
        changes.table.append(_of(after, AlterModelTable(after.name, new), changes=True))
    altered = {
        name: after.options.get(name, True if name == "managed" else None)
        for name in ELSEWHERE
        if not same(before.options.get(name), after.options.get(name))
    }
    if "comment" in altered:
        changes.added.append(_of(after, AlterModelTableComment(after.name, altered.pop("comment"))))
    if altered:
        loses = f"the rows of {after.label} in the database where it was" if "database" in altered else ""
        changes.added.append(_of(after, AlterModelOptions(after.name, **altered), changes=True, loses=loses))
    return changes


def defining(model: ModelState, option: str, definition: Any) -> Detected:
    """The operation that adds an index or a constraint.

    Args:
        model: the model.
        option: `indexes` or `constraints`.
        definition: the index or the constraint.
    """
    kind = AddIndex if option == "indexes" else AddConstraint
    return _of(model, kind(model.name, definition))


def _together(before: ModelState, after: ModelState, gone: Collection[str], changes: OptionChanges) -> None:
    old: tuple[Any, ...] = before.options.get("unique_together", ())
    new: tuple[Any, ...] = after.options.get("unique_together", ())
    staying = tuple(names for names in old if gone_from(names, gone) is None)
    if staying != old:
        staying = tuple(names for names in staying if names in new)
        changes.removed.append(_of(after, AlterUniqueTogether(after.name, staying)))
        old = staying
    if set(old) != set(new):
        changes.added.append(_of(after, AlterUniqueTogether(after.name, new)))


def _definitions(
    state: State,
    before: ModelState,
    after: ModelState,
    option: str,
    gone: Collection[str],
    changes: OptionChanges,
) -> None:
    old: Sequence[Definition] = before.options.get(option, ())
    coming: list[Definition] = list(after.options.get(option, ()))
    leaving: list[Definition] = []
    for one in old:
        match = next((other for other in coming if same(one, other)), None)
        if match is not None and gone_from(one, gone) is None:
            coming.remove(match)
        else:
            leaving.append(one)
    for one in leaving:
        name = definition_name(state, before.label, one)
        renamed = next((other for other in coming if option == "indexes" and _renames(one, other)), None)
        if renamed is not None and renamed.name is not None and gone_from(one, gone) is None:
            coming.remove(renamed)
            changes.removed.append(_of(after, RenameIndex(after.name, name, renamed.name)))
            continue
        removal = RemoveIndex if option == "indexes" else RemoveConstraint
        changes.removed.append(_of(after, removal(after.name, name)))
    changes.added += [defining(after, option, one) for one in coming]


def gone_from(names: Any, gone: Collection[str]) -> str | None:
    """A field that is gone, of those that a definition names; None where all stay."""
    return next((name for name in names_in(names) if name in gone), None) if gone else None


def _renames(one: Definition, other: Definition) -> bool:
    """Whether a definition is another one, which says its name, but for that."""
    if type(one) is not type(other) or other.name is None or "%" in other.name:
        return False
    _, args, options = declaration_of(one)
    _, other_args, other_options = declaration_of(other)
    nameless = [{key: value for key, value in each.items() if key != "name"} for each in (options, other_options)]
    return same(args, other_args) and same(*nameless)


def _of(model: ModelState, operation: Any, *, changes: bool = False, loses: str = "") -> Detected:
    return Detected(model.app, operation, model.label, changes=changes, loses=loses)
