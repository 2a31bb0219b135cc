"""Operations on models: their tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from covet_migrate.exceptions import MigrationError
from covet_migrate.operations.base import Change, Operation
from covet_migrate.state.declarations import migrated_field
from covet_migrate.state.models import OPTIONS, ModelState, State
from covet_orm import Field
from covet_orm.fields.base import Declared
from covet_orm.fields.related import RelatedField

__all__ = [
    "AlterModelOptions",
    "AlterModelTable",
    "AlterModelTableComment",
    "AlterUniqueTogether",
    "CreateModel",
    "DeleteModel",
    "ModelOperation",
    "RenameModel",
]


def label_of(app: str, name: str) -> str:
    """`app.Name`."""
    return f"{app}.{name}" if app else name


class ModelOperation(Operation):
    """An operation on one model.

    Args:
        name: the name of the model, in the application of the migration.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def label(self, app: str) -> str:
        """The label of the model."""
        return label_of(app, self.name)

    def within(self, created: CreateModel, app: str) -> list[Operation] | None:
        """What stands for this operation and the one before it that creates the model; None where nothing does."""
        return None

    def touches(self, app: str) -> Iterable[str] | None:
        return (self.label(app),)

    def actions(self, change: Change) -> Sequence[Any]:
        label = self.label(change.app)
        return change.model_actions(label, label)


class CreateModel(ModelOperation):
    """Create a model.

    Args:
        name: its name.
        fields: its fields by name, the key among them.
        options: `db_table`, `indexes`, `constraints`, `unique_together`, `comment`, `database`, `managed`.

    Raises:
        MigrationError: there is no such option.
    """

    def __init__(self, name: str, fields: Mapping[str, Field[Any]], options: Mapping[str, Any] | None = None) -> None:
        super().__init__(name)
        self.fields = dict(fields)
        self.options = dict(options or {})
        # What says nothing is not written down.
        given = {"fields": self.fields, "options": self.options}
        self.declared = Declared((name,), {key: value for key, value in given.items() if value})
        unknown = sorted(set(self.options) - set(OPTIONS))
        if unknown:
            raise MigrationError(f"CreateModel({name!r}) has no option {unknown[0]!r}; there are {', '.join(OPTIONS)}")

    def apply(self, state: State, app: str) -> State:
        label = self.label(app)
        if label in state:
            raise MigrationError(f"CreateModel({self.name!r}): {label} is there already")
        fields = {name: migrated_field(field) for name, field in self.fields.items()}
        return state.put(ModelState(app, self.name, fields).with_options(**self.options))

    def describe(self) -> str:
        return f"Create model {self.name}"

    def file_name(self) -> str:
        return self.name.lower()

    def actions(self, change: Change) -> Sequence[Any]:
        label = self.label(change.app)
        return change.model_actions(*((label, None) if change.backward else (None, label)))

    def refers_to(self, app: str) -> Iterable[str]:
        return labels_in(self.fields.values())

    def reduce(self, other: Operation, app: str) -> list[Operation] | None:
        if isinstance(other, RenameModel) and other.old == self.name:
            old, new = self.label(app), label_of(app, other.new)
            fields = {name: pointing(field, old, new) for name, field in self.fields.items()}
            options = dict(self.options)
            return [CreateModel(other.new, fields, options)]
        if not isinstance(other, ModelOperation) or other.name != self.name:
            return None
        if isinstance(other, DeleteModel):
            return []
        return other.within(self, app)

    def resulting(self, app: str, after: Operation) -> CreateModel:
        """An operation that creates the model as it is after another one.

        Raises:
            MigrationError: that one does not fit the model.
        """
        made = ModelState(app, self.name, self.fields).with_options(**self.options)
        state = after.apply(State({made.label: made}), app)
        changed = state[self.label(app)]
        return CreateModel(self.name, changed.fields, changed.options)


class DeleteModel(ModelOperation):
    """Delete a model, with the rows of its table."""

    frees = True
    needs_freedom = True

    def apply(self, state: State, app: str) -> State:
        label = state[self.label(app)].label
        for model in state:
            if model.label != label and label in model.refers_to():
                raise MigrationError(f"DeleteModel({self.name!r}): {model.label} refers to it")
        return state.without(label)

    def describe(self) -> str:
        return f"Delete model {self.name}"

    def file_name(self) -> str:
        return f"delete_{self.name.lower()}"

    def actions(self, change: Change) -> Sequence[Any]:
        label = self.label(change.app)
        return change.model_actions(*((None, label) if change.backward else (label, None)))


class RenameModel(Operation):
    """Rename a model: its table, unless that has a name of its own, what is named after the table, and what refers to
    it.

    Args:
        old: its name before.
        new: its name after.
    """

    needs_freedom = True

    def __init__(self, old: str, new: str) -> None:
        self.old = old
        self.new = new

    def apply(self, state: State, app: str) -> State:
        old, new = label_of(app, self.old), label_of(app, self.new)
        if new in state:
            raise MigrationError(f"RenameModel({self.old!r}, {self.new!r}): {new} is there already")
        model = state[old]
        state = state.renamed(old, replace(model, app=app, name=self.new))
        for other in list(state):
            if old in other.refers_to():
                fields = {name: pointing(field, old, new) for name, field in other.fields.items()}
                state = state.put(other.with_fields(fields))
        return state

    def describe(self) -> str:
        return f"Rename model {self.old} to {self.new}"

    def file_name(self) -> str:
        return f"rename_{self.old.lower()}_{self.new.lower()}"

    def touches(self, app: str) -> Iterable[str] | None:
        return (label_of(app, self.old), label_of(app, self.new))

    def reduce(self, other: Operation, app: str) -> list[Operation] | None:
        if isinstance(other, RenameModel) and other.old == self.new:
            return [] if other.new == self.old else [RenameModel(self.old, other.new)]
        if isinstance(other, DeleteModel) and other.name == self.new:
            return [DeleteModel(self.old)]
        return None

    def actions(self, change: Change) -> Sequence[Any]:
        old, new = label_of(change.app, self.old), label_of(change.app, self.new)
        if change.backward:
            old, new = new, old
        actions = list(change.model_actions(old, new))
        tables = {
            change.rendered(change.before, old).table.name: change.rendered(change.after, new).table.name,
        }
        # Link tables have columns named after the models that they lead to; a foreign key follows by itself.
        for model in change.after:
            if model.label != new and new in model.refers_to():
                actions += change.model_actions(model.label, model.label, tables=tables)
        return actions


class AlterModelOptions(ModelOperation):
    """Change options of a model.

    Args:
        name: the model.
        options: the options that change, by name; None takes one away.
    """

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name)
        self.options = options
        unknown = sorted(set(options) - set(OPTIONS))
        if unknown:
            raise MigrationError(
                f"{type(self).__name__}({name!r}) has no option {unknown[0]!r}; there are {', '.join(OPTIONS)}"
            )

    def apply(self, state: State, app: str) -> State:
        return state.put(state[self.label(app)].with_options(**self.options))

    def within(self, created: CreateModel, app: str) -> list[Operation] | None:
        return [created.resulting(app, self)]

    def reduce(self, other: Operation, app: str) -> list[Operation] | None:
        if isinstance(other, DeleteModel) and other.name == self.name:
            return [other]
        if isinstance(other, AlterModelOptions) and other.name == self.name:
            if set(self.options) <= set(other.options):
                return [other]
            if type(self) is type(other) is AlterModelOptions:
                return [AlterModelOptions(self.name, **{**self.options, **other.options})]
        return None

    def describe(self) -> str:
        return f"Alter {', '.join(self.options)} of {self.name}"

    def file_name(self) -> str:
        return f"{self.name.lower()}_{'_'.join(self.options)}"


class AlterModelTable(AlterModelOptions):
    """Rename the table of a model.

    Args:
        name: the model.
        table: the name of the table; None for that which the model's name gives.
    """

    def __init__(self, name: str, table: str | None) -> None:
        super().__init__(name, db_table=table)

    def describe(self) -> str:
        return f"Rename the table of {self.name} to {self.options['db_table'] or 'its usual name'}"

    def file_name(self) -> str:
        return f"{self.name.lower()}_table"


class AlterModelTableComment(AlterModelOptions):
    """Change the comment of the table of a model.

    Args:
        name: the model.
        comment: the comment; None for none.
    """

    def __init__(self, name: str, comment: str | None) -> None:
        super().__init__(name, comment=comment)


class AlterUniqueTogether(AlterModelOptions):
    """Change `unique_together` of a model.

    Args:
        name: the model.
        unique_together: tuples of names of fields.
    """

    def __init__(self, name: str, unique_together: Iterable[Sequence[str]]) -> None:
        super().__init__(name, unique_together=tuple(tuple(names) for names in unique_together))


def labels_in(fields: Iterable[Field[Any]]) -> set[str]:
    """The labels of the models that fields name."""
    found: set[str] = set()
    for field in fields:
        if isinstance(field, RelatedField):
            found |= {str(one) for one in (field.to, getattr(field, "through", None)) if one not in (None, "self")}
    return found


def pointing(field: Field[Any], old: str, new: str) -> Field[Any]:
    """A field that refers to a model by its new label."""
    if not isinstance(field, RelatedField):
        return field
    args, options = field.declared
    through = options.get("through")
    if field.to != old and through != old:
        return field
    options = {**options, **({"through": new} if through == old else {})}
    made: Field[Any] = type(field)(new if field.to == old else field.to, *args[1:], **options)
    return made
