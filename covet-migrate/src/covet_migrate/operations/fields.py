"""Operations on fields: their columns, and the tables of many-to-many fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from covet_migrate.exceptions import MigrationError
from covet_migrate.operations.base import Change, Operation
from covet_migrate.operations.keys import with_referring
from covet_migrate.operations.models import CreateModel, DeleteModel, ModelOperation, labels_in
from covet_migrate.state.declarations import migrated_field
from covet_migrate.state.models import ModelState, State
from covet_migrate.state.renaming import renamed_fields, renamed_in
from covet_orm import Field, ForeignKey, ManyToManyField
from covet_orm.deferred import sqlalchemy
from covet_orm.fields.base import UNSET

__all__ = ["AddField", "AlterField", "FieldOperation", "RemoveField", "RenameField"]


class FieldOperation(ModelOperation):
    """An operation on one field.

    Args:
        model_name: the name of the model.
        name: the name of the field.
    """

    def __init__(self, model_name: str, name: str) -> None:
        super().__init__(model_name)
        self.model_name = model_name
        self.field_name = name

    def _model(self, state: State, app: str, *, has: bool = True) -> ModelState:
        model = state[self.label(app)]
        if has and self.field_name not in model.fields:
            from covet.settings_schema import nearest

            raise MigrationError(
                f"{type(self).__name__}: {model.label} has no field {self.field_name!r} at this point of the migrations"
                f"{nearest(self.field_name, model.fields)}"
            )
        if not has and self.field_name in model.fields:
            raise MigrationError(f"{type(self).__name__}: {model.label} has a field {self.field_name!r} already")
        return model

    def within(self, created: CreateModel, app: str) -> list[Operation] | None:
        return [created.resulting(app, self)]

    def names(self) -> set[str]:
        """The names of fields that it is about."""
        return {self.field_name}

    def passes(self, other: Operation, app: str) -> bool:
        if not isinstance(other, FieldOperation) or other.label(app) != self.label(app):
            return super().passes(other, app)
        return self.names().isdisjoint(other.names()) and self._stands_alone() and other._stands_alone()

    def _stands_alone(self) -> bool:
        """Whether it is known to have nothing to do with other fields of the model, or their columns."""
        field = getattr(self, "field", None)
        return field is not None and not (field.primary_key or field.generated or field.db_column)

    def file_name(self) -> str:
        return f"{self.model_name.lower()}_{self.field_name.lower()}"


class AddField(FieldOperation):
    """Add a field.

    Args:
        model_name: the name of the model.
        name: the name of the field.
        field: the field.
        fill: what rows get that are there, where the column may not be NULL and has no default; it is no default of
            the field afterwards. The field's `default` where it is not given.
    """

    def __init__(self, model_name: str, name: str, field: Field[Any], *, fill: Any = UNSET) -> None:
        super().__init__(model_name, name)
        self.field = field
        self.fill = fill

    def apply(self, state: State, app: str) -> State:
        model = self._model(state, app, has=False)
        return state.put(model.with_fields({**model.fields, self.field_name: migrated_field(self.field)}))

    def refers_to(self, app: str) -> Iterable[str]:
        return labels_in((self.field,))

    def reduce(self, other: Operation, app: str) -> list[Operation] | None:
        if _deletes(other, self):
            return [other]
        if not isinstance(other, FieldOperation) or other.name != self.name or other.field_name != self.field_name:
            return None
        if isinstance(other, RemoveField):
            return []
        if isinstance(other, RenameField):
            return [AddField(self.model_name, other.new, self.field, **_given(self.fill))]
        if isinstance(other, AlterField) and _same_column(self.field, other.field):
            fill = self.fill if self.fill is not UNSET else other.fill
            return [AddField(self.model_name, self.field_name, other.field, **_given(fill))]
        return None

    def describe(self) -> str:
        return f"Add field {self.field_name} to {self.model_name}"

    def actions(self, change: Change) -> Sequence[Any]:
        label = self.label(change.app)
        fill = {} if change.backward else filling(change, label, self.field_name, self.fill)
        return change.model_actions(label, label, fill=fill)


class RemoveField(FieldOperation):
    """Remove a field, with the values in its column.

    Args:
        model_name: the name of the model.
        name: the name of the field.
    """

    frees = True

    def apply(self, state: State, app: str) -> State:
        model = self._model(state, app)
        return state.put(
            model.with_fields({name: field for name, field in model.fields.items() if name != self.field_name})
        )

    def reduce(self, other: Operation, app: str) -> list[Operation] | None:
        return [other] if _deletes(other, self) else None

    def describe(self) -> str:
        return f"Remove field {self.field_name} from {self.model_name}"

    def file_name(self) -> str:
        return f"remove_{super().file_name()}"

    def actions(self, change: Change) -> Sequence[Any]:
        label = self.label(change.app)
        fill = filling(change, label, self.field_name, UNSET) if change.backward else {}
        return change.model_actions(label, label, fill=fill)


class AlterField(FieldOperation):
    """Change a field: its type, its options, the name of its column.

    Args:
        model_name: the name of the model.
        name: the name of the field.
        field: the field as it is to be.
        fill: what rows get that have NULL there, where the column may not be NULL any longer. The field's `default`
            where it is not given.
    """

    frees = True

    def __init__(self, model_name: str, name: str, field: Field[Any], *, fill: Any = UNSET) -> None:
        super().__init__(model_name, name)
        self.field = field
        self.fill = fill

    def apply(self, state: State, app: str) -> State:
        model = self._model(state, app)
        return state.put(model.with_fields({**model.fields, self.field_name: migrated_field(self.field)}))

    def refers_to(self, app: str) -> Iterable[str]:
        return labels_in((self.field,))

    def reduce(self, other: Operation, app: str) -> list[Operation] | None:
        if _deletes(other, self):
            return [other]
        if not isinstance(other, FieldOperation) or other.name != self.name or other.field_name != self.field_name:
            return None
        if isinstance(other, RemoveField):
            return [other]
        if isinstance(other, AlterField) and _same_column(self.field, other.field):
            fill = other.fill if other.fill is not UNSET else self.fill
            return [AlterField(self.model_name, self.field_name, other.field, **_given(fill))]
        # A column that is told its name, so that it keeps it when the field is renamed, is told it before that.
        return None

    def describe(self) -> str:
        return f"Alter field {self.field_name} of {self.model_name}"

    def actions(self, change: Change) -> Sequence[Any]:
        label = self.label(change.app)
        fill = filling(change, label, self.field_name, UNSET if change.backward else self.fill)
        return with_referring(change, label, change.model_actions(label, label, fill=fill))


class RenameField(FieldOperation):
    """Rename a field, and its column unless that has a name of its own.

    Args:
        model_name: the name of the model.
        old: the name of the field before.
        new: its name after.
    """

    def __init__(self, model_name: str, old: str, new: str) -> None:
        super().__init__(model_name, old)
        self.old = old
        self.new = new

    def apply(self, state: State, app: str) -> State:
        model = self._model(state, app)
        if self.new in model.fields:
            raise MigrationError(f"RenameField: {model.label} has a field {self.new!r} already")
        names = {self.old: self.new}
        if isinstance(model.fields[self.old], ForeignKey):
            # Both are names of it: `author` and `author_id`.
            names[f"{self.old}_id"] = f"{self.new}_id"
        fields = {names.get(name, name): renamed_fields(field, names) for name, field in model.fields.items()}
        options = {name: renamed_in(value, names) for name, value in model.options.items()}
        state = state.put(replace(model, fields=fields, options=options))
        for other in list(state):
            if model.label in other.refers_to():
                named = {name: _through(field, model.label, names) for name, field in other.fields.items()}
                if any(named[name] is not field for name, field in other.fields.items()):
                    state = state.put(other.with_fields(named))
        return state

    def names(self) -> set[str]:
        return {self.old, self.new}

    def reduce(self, other: Operation, app: str) -> list[Operation] | None:
        if _deletes(other, self):
            return [other]
        if not isinstance(other, FieldOperation) or other.name != self.name or other.field_name != self.new:
            return None
        if isinstance(other, RenameField):
            return [] if other.new == self.old else [RenameField(self.model_name, self.old, other.new)]
        if isinstance(other, RemoveField):
            return [RemoveField(self.model_name, self.old)]
        return None

    def describe(self) -> str:
        return f"Rename field {self.old} of {self.model_name} to {self.new}"

    def file_name(self) -> str:
        return f"rename_{self.model_name.lower()}_{self.old.lower()}_{self.new.lower()}"

    def actions(self, change: Change) -> Sequence[Any]:
        label = self.label(change.app)
        fields = {self.new: self.old} if change.backward else {self.old: self.new}
        return change.model_actions(label, label, fields=fields)


def _same_column(one: Field[Any], other: Field[Any]) -> bool:
    """Whether two forms of a field say the same of the name of its column: the name that one of them gives away may be
    that of another field meanwhile."""
    return one.db_column == other.db_column


def _deletes(other: Operation, field: FieldOperation) -> bool:
    """Whether an operation deletes the model of a field."""
    return isinstance(other, DeleteModel) and other.name == field.name


def _given(fill: Any) -> dict[str, Any]:
    """The argument for a fill that was given."""
    return {} if fill is UNSET else {"fill": fill}


def filling(change: Change, label: str, name: str, given: Any) -> Mapping[str, sqlalchemy.ColumnElement[Any]]:
    """What rows get that are there, by column, as SQL; nothing where the database or NULL will do."""
    if not change.lives_here(change.after[label]):
        return {}
    model: Any = change.rendered(change.after, label).model
    field = model._meta.by_name.get(name)
    if field is None or not field.column_is_there or field.generated:
        return {}
    value = given if given is not UNSET else field.default
    if value is UNSET:
        return {} if field.db_default is UNSET or field.null else {field.column: field.server_default()}
    if callable(value):
        value = value()
    if value is None:
        return {}
    from covet_orm.models.definitions import DefinedValue

    return {field.column: DefinedValue(field, value)}


def _through(field: Field[Any], label: str, names: Mapping[str, str]) -> Field[Any]:
    """A many-to-many field that names fields of the model that it goes through."""
    if not isinstance(field, ManyToManyField) or field.through != label or not field.through_fields:
        return field
    args, options = field.declared
    through = tuple(names.get(name, name) for name in field.through_fields)
    return (
        field if through == field.through_fields else ManyToManyField(*args, **{**options, "through_fields": through})
    )
