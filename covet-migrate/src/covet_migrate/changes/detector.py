"""What differs between the state that migrations make and the one that models are in, as operations."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from covet.settings_schema import nearest
from covet_migrate.changes.creation import circles, created
from covet_migrate.changes.definitions import option_changes
from covet_migrate.changes.detected import Detected, targets
from covet_migrate.changes.fields import field_changes, names_in, removing
from covet_migrate.changes.keys import check_key, key_of, replaces_key
from covet_migrate.changes.questions import Questions
from covet_migrate.changes.renames import Said, renamed_fields, renamed_models
from covet_migrate.exceptions import MigrationError
from covet_migrate.operations.base import Operation
from covet_migrate.operations.fields import AddField, FieldOperation, RemoveField
from covet_migrate.operations.models import DeleteModel, RenameModel
from covet_migrate.state.models import ModelState, State
from covet_orm import Field
from covet_orm.models.options import usual_table

__all__ = ["Changes", "detect"]


@dataclass(frozen=True, slots=True)
class Changes:
    """What differs.

    Attributes:
        detected: the operations of all applications, in an order in which they can be done.
    """

    detected: list[Detected] = field(default_factory=list)

    @property
    def losses(self) -> list[str]:
        """What is lost by them, for people."""
        return [one.loses for one in self.detected if one.loses]

    def operations(self) -> dict[str, list[Operation]]:
        """The operations by application, each in order."""
        found: dict[str, list[Operation]] = {}
        for one in self.detected:
            found.setdefault(one.app, []).append(one.operation)
        return found

    def apply(self, state: State) -> State:
        """The state after them.

        Raises:
            MigrationError: they do not fit it.
        """
        for one in self.detected:
            state = one.operation.apply(state, one.app)
        return state

    def __bool__(self) -> bool:
        return bool(self.detected)


def detect(before: State, after: State, questions: Questions, apps: Collection[str] | None = None) -> Changes:
    """What has to be done so that one state becomes the other.

    Args:
        before: the state that the migrations make.
        after: the state of the models.
        questions: who is asked.
        apps: the applications that are looked at, and those that their changes need; all by default.

    Raises:
        QuestionUnanswered: something is to be asked, and nobody answers.
        MigrationError: what was said does not fit, or models cannot be created or deleted in any order.
    """
    if apps is not None:
        after = _restricted(before, after, apps)
    said = Said(tuple(questions.renames()))
    state, models_renamed = renamed_models(before, after, questions, said)
    labels = {
        one.label: f"{one.app}.{one.operation.old}" if one.app else one.operation.old
        for one in models_renamed
        if isinstance(one.operation, RenameModel)
    }
    state, fields_renamed = renamed_fields(state, after, questions, said, labels)
    if apps is None:
        said.check(before, after)
    phases = _Phases(renamed=[*models_renamed, *fields_renamed])
    new = [after[label] for label in sorted(after.models) if label not in state]
    gone = [state[label] for label in sorted(state.models) if label not in after]
    for label in sorted(state.models):
        then = after.models.get(label)
        if then is not None and then is not state.models[label]:
            check_key(state.models[label], then, state, after)
            phases.compare(state, state.models[label], then, questions)
    phases.create(new)
    phases.delete(gone, state, after)
    phases.hand_tables_on(state, after)
    return Changes(phases.ordered())


class _Phases:
    """The operations, gathered in the order in which they can be done."""

    def __init__(self, renamed: list[Detected]) -> None:
        self.renamed = renamed
        self.definitions_removed: list[Detected] = []
        self.fields_removed: list[Detected] = []
        self.columns: list[Detected] = []
        self.deleted_early: list[Detected] = []
        self.tables: list[Detected] = []
        self.created: list[Detected] = []
        self.keys_composed_before: list[Detected] = []
        self.keys: list[Detected] = []
        self.keys_composed: list[Detected] = []
        self.computed: list[Detected] = []
        self.added: list[Detected] = []
        self.altered: list[Detected] = []
        self.options: list[Detected] = []
        self.deleted: list[Detected] = []

    def ordered(self) -> list[Detected]:
        # What refers to a key that was one of several columns comes when it is one of a single column.
        composed = {one.label for one in self.keys_composed_before}
        first: list[Detected] = []
        later: list[Detected] = []
        for one in self.created:
            waits = not composed.isdisjoint(one.needs)
            composed |= {one.label} if waits else set()
            (later if waits else first).append(one)
        return [
            *self.renamed,
            *self.definitions_removed,
            *self.fields_removed,
            *self.columns,
            *self.deleted_early,
            *self.tables,
            *first,
            *self.keys_composed_before,
            *later,
            *self.keys,
            *self.added,
            *self.altered,
            *self.deleted,
            *self.keys_composed,
            *self.computed,
            *self.options,
        ]

    def compare(self, state: State, before: ModelState, after: ModelState, questions: Questions) -> None:
        """What differs between two forms of a model."""
        fields = field_changes(before, after, questions)
        options = option_changes(state, before, after, fields.gone)
        self.definitions_removed += options.removed
        self.fields_removed += fields.removed
        self.columns += fields.columns
        self.tables += options.table
        # A key of several columns is not referred to: any longer, or yet.
        if len(key_of(before)) > 1 or replaces_key(before, after):
            self.keys_composed_before += fields.keys
        else:
            (self.keys_composed if len(key_of(after)) > 1 else self.keys).extend(fields.keys)
        self.added += [one for one in fields.added if not _is_computed(one)]
        self.computed += [one for one in fields.added if _is_computed(one)]
        self.altered += fields.altered
        self.options += options.added

    def create(self, models: list[ModelState]) -> None:
        """Models that have come."""
        creations, later = created(models)
        self.created += creations
        # What closes a circle of new models may be a field that others are waiting for.
        self.added += [one for one in later if _is_field(one) and not _is_computed(one)]
        self.computed += [one for one in later if _is_computed(one)]
        self.options += [one for one in later if not _is_field(one)]

    def delete(self, models: list[ModelState], before: State, after: State) -> None:
        """Models that are gone. One whose table another model gets is deleted before that one comes."""
        wanted = {_table(model): model.label for model in after}
        early = {model.label for model in models if _table(model) in wanted}
        waiting = list(early)
        while waiting:
            # What refers to a model that goes early goes early as well.
            gone = waiting.pop()
            referring = {model.label for model in models if model.label not in early and gone in model.refers_to()}
            early |= referring
            waiting += referring
        for model in before:
            if model.label not in after:
                continue
            for label in early.intersection(model.refers_to()):
                if self._still_refers(model, after[model.label], label):
                    raise MigrationError(
                        f"{wanted.get(_table(before[label]), label)} is to have the table of {label}, to which "
                        f"{model.label} refers: that is one table with another model. Write it by hand (makemigrations "
                        f"{model.app} --empty): SeparateDatabaseAndState with state operations alone"
                    )
        # A key that refers to such a model goes before it does.
        for keys in (self.keys_composed_before, self.keys, self.keys_composed):
            leaving = [one for one in keys if isinstance(one.operation, RemoveField) and one.needs & early]
            self.fields_removed += leaving
            keys[:] = [one for one in keys if one not in leaving]
        # Any other key that refers to a model that goes is changed before that.
        leaving = [one for one in self.keys_composed if one.needs & {model.label for model in models}]
        self.keys += leaving
        self.keys_composed = [one for one in self.keys_composed if one not in leaving]
        self.deleted_early += _deletions(before, [model for model in models if model.label in early])
        self.deleted += _deletions(before, [model for model in models if model.label not in early])

    def hand_tables_on(self, before: State, after: State) -> None:
        """The name of a table is free before another model gets it."""
        owners = {_table(model): model.label for model in before}

        def owner(one: Detected) -> frozenset[str]:
            label = owners.get(_table(after[one.label]), one.label)
            return frozenset((label,)) - {one.label}

        self.created = [replace(one, needs=one.needs | owner(one)) if owner(one) else one for one in self.created]
        waiting = [(one, owner(one)) for one in self.tables]
        self.tables = []
        while waiting:
            taken = {one.label for one, _ in waiting}
            ready = [(one, needs) for one, needs in waiting if taken.isdisjoint(needs)]
            if not ready:
                raise MigrationError(
                    f"{' and '.join(sorted(taken))} exchange the names of their tables, which takes one in between: "
                    "give one of them another Meta.db_table first, and make a migration of that"
                )
            self.tables += [replace(one, needs=one.needs | needs) for one, needs in ready]
            waiting = [one for one in waiting if one not in ready]

    @staticmethod
    def _still_refers(before: ModelState, after: ModelState, label: str) -> bool:
        """Whether a field that stays referred to a model, so that it is altered when others are there."""
        names = [name for name, one in before.fields.items() if label in targets(before, (one,))]
        return any(name in after.fields and not hasattr(before.fields[name], "through") for name in names)


def _deletions(state: State, models: list[ModelState]) -> list[Detected]:
    """The operations that delete models, those first that others do not refer to. Where models refer to each other in
    a circle, the fields that do go first."""
    by_label = {model.label: model for model in models}
    links = {label: _others(model, by_label) for label, model in by_label.items()}
    fields: list[Detected] = []
    deletions: list[Detected] = []
    for circle in circles(links):
        members = frozenset(circle)
        # What is left in a circle when the fields that close it are gone is keys that refer to other keys.
        keys = {
            label: sorted(members.intersection(targets(by_label[label], _key_fields(by_label[label]))))
            for label in sorted(circle)
        }
        for label in (one for each in circles(keys) for one in each):
            model = by_label[label]
            if len(circle) > 1:
                fields += _links_removed(state, model, members - {label})
            loses = f"the rows of {label}" if model.managed else ""
            needs = frozenset(targets(model, model.fields.values()))
            deletions.append(
                Detected(model.app, DeleteModel(model.name), label, changes=True, needs=needs, loses=loses)
            )
    return [*fields, *reversed(deletions)]


def _key_fields(model: ModelState) -> list[Field[Any]]:
    return [one for one in model.fields.values() if one.primary_key]


def _links_removed(state: State, model: ModelState, members: frozenset[str]) -> list[Detected]:
    """The operations that remove the fields that lead to other models of a circle, and what names them."""
    names = {
        name
        for name, one in model.fields.items()
        if not one.primary_key and not members.isdisjoint(targets(model, (one,)))
    }
    computed = [name for name, one in model.fields.items() if one.generated and not names.isdisjoint(names_in(one))]
    definitions = option_changes(state, model, model, names.union(computed)).removed
    return [*definitions, *(removing(model, name) for name in (*computed, *sorted(names)))]


def _others(model: ModelState, among: Mapping[str, ModelState]) -> list[str]:
    return sorted({target for target in targets(model, model.fields.values()) if target in among})


def _table(model: ModelState) -> str:
    return str(model.options.get("db_table") or usual_table(model.app, model.name))


def _is_field(one: Detected) -> bool:
    return isinstance(one.operation, FieldOperation)


def _is_computed(one: Detected) -> bool:
    return isinstance(one.operation, AddField) and one.operation.field.generated


def _restricted(before: State, after: State, apps: Iterable[str]) -> State:
    """The state that is to be, of some applications and those that their changes need; others stay as they are.

    Raises:
        MigrationError: there is no such application.
    """
    wanted = set(apps)
    known = {model.app for model in (*before, *after)}
    for app in sorted(wanted - known):
        raise MigrationError(f"no application {app!r} has models or migrations{nearest(app, known)}")
    while True:
        models = {
            label: model
            for label, model in (*before.models.items(), *after.models.items())
            if (label in after and after[label].app in wanted) or (label in before and before[label].app not in wanted)
        }
        models |= {label: before[label] for label in models if label in before and before[label].app not in wanted}
        # A model that has come elsewhere and is referred to, and those elsewhere that refer to one that is gone.
        missing = {target for model in models.values() for target in model.refers_to() if target not in models}
        if not missing:
            return State(models)
        more = {after[label].app for label in missing if label in after}
        more |= {model.app for model in models.values() if not missing.isdisjoint(model.refers_to())}
        if more <= wanted:
            raise MigrationError(f"models refer to {', '.join(sorted(missing))}, which nobody declares")
        wanted |= more
