"""Operations on indexes and constraints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from covet_migrate.actions import actions as parts
from covet_migrate.exceptions import MigrationError
from covet_migrate.operations.base import Change, Operation
from covet_migrate.operations.models import CreateModel, DeleteModel, ModelOperation
from covet_migrate.state.declarations import same
from covet_migrate.state.definition_names import definition_name, find_definition, named_definition
from covet_migrate.state.models import State
from covet_orm import CheckConstraint, Index
from covet_orm.fields.related import RelatedField
from covet_orm.indexes import Definition

__all__ = [
    "AddConstraint",
    "AddIndex",
    "DefinitionOperation",
    "RemoveConstraint",
    "RemoveIndex",
    "RenameIndex",
    "ValidateConstraint",
]


class DefinitionOperation(ModelOperation):
    """An operation on one index or constraint.

    Args:
        model_name: the name of the model.
    """

    option = "indexes"
    """Where it stands in `class Meta`."""

    def __init__(self, model_name: str) -> None:
        super().__init__(model_name)
        self.model_name = model_name

    def within(self, created: CreateModel, app: str) -> list[Operation] | None:
        if any(isinstance(one, RelatedField) for one in created.fields.values()) and self.names_one(created):
            # What a table calls an index that has no name, takes the models that it refers to.
            return None
        return [created.resulting(app, self)]

    def names_one(self, created: CreateModel) -> bool:
        """Whether it names an index or constraint that was declared without a name."""
        return False

    def _is_of(self, operation: Operation) -> bool:
        return isinstance(operation, DefinitionOperation) and (operation.name, operation.option) == (
            self.name,
            self.option,
        )

    def _unnamed(self, created: CreateModel, name: str) -> bool:
        return all(one.name != name for one in created.options.get(self.option, ()))

    def _there(self, state: State, app: str) -> tuple[Definition, ...]:
        return tuple(state[self.label(app)].options.get(self.option, ()))

    def _put(self, state: State, app: str, definitions: Sequence[Definition]) -> State:
        return state.put(state[self.label(app)].with_options(**{self.option: tuple(definitions)}))

    def _added(self, state: State, app: str, definition: Definition) -> State:
        there = self._there(state, app)
        if any(same(one, definition) for one in there):
            raise MigrationError(f"{type(self).__name__}: {self.label(app)} has {definition!r} already")
        return self._put(state, app, (*there, definition))

    def _removed(self, state: State, app: str, name: str) -> State:
        found = find_definition(state, self.label(app), self.option, name)
        return self._put(state, app, [one for one in self._there(state, app) if one is not found])


class AddIndex(DefinitionOperation):
    """Add an index.

    Args:
        model_name: the name of the model.
        index: the index.
        concurrently: without keeping writers away (PostgreSQL; elsewhere it changes nothing). The migration then has
            `atomic=False`.
    """

    def __init__(self, model_name: str, index: Index, concurrently: bool = False) -> None:
        super().__init__(model_name)
        self.index = index
        self.concurrently = concurrently

    def apply(self, state: State, app: str) -> State:
        return self._added(state, app, self.index)

    def reduce(self, other: Operation, app: str) -> list[Operation] | None:
        if isinstance(other, DeleteModel) and other.name == self.name:
            return [other]
        if not self._is_of(other) or self.index.name is None:
            return None
        if isinstance(other, RemoveIndex) and other.index_name == self.index.name:
            return []
        if isinstance(other, RenameIndex) and other.old == self.index.name:
            return [AddIndex(self.model_name, _index(self.index, other.new), self.concurrently)]
        return None

    def describe(self) -> str:
        return f"Add index {_called(self.index)} to {self.model_name}"

    def file_name(self) -> str:
        return f"{self.model_name.lower()}_{_word(self.index)}"

    def actions(self, change: Change) -> Sequence[Any]:
        return _concurrently(super().actions(change), self.concurrently and change.kind == "postgresql")


class RemoveIndex(DefinitionOperation):
    """Remove an index.

    Args:
        model_name: the name of the model.
        name: its name in the database, also where it was declared without one.
        concurrently: as of `AddIndex`.
    """

    def __init__(self, model_name: str, name: str, concurrently: bool = False) -> None:
        super().__init__(model_name)
        self.index_name = name
        self.concurrently = concurrently

    def apply(self, state: State, app: str) -> State:
        return self._removed(state, app, self.index_name)

    def names_one(self, created: CreateModel) -> bool:
        return self._unnamed(created, self.index_name)

    def reduce(self, other: Operation, app: str) -> list[Operation] | None:
        return [other] if isinstance(other, DeleteModel) and other.name == self.name else None

    def describe(self) -> str:
        return f"Remove index {self.index_name} from {self.model_name}"

    def file_name(self) -> str:
        return f"remove_{self.index_name.lower()}"

    def actions(self, change: Change) -> Sequence[Any]:
        return _concurrently(super().actions(change), self.concurrently and change.kind == "postgresql")


class RenameIndex(DefinitionOperation):
    """Rename an index.

    Args:
        model_name: the name of the model.
        old: its name before, in the database, also where it was declared without one.
        new: its name after.
    """

    def __init__(self, model_name: str, old: str, new: str) -> None:
        super().__init__(model_name)
        self.old = old
        self.new = new

    def apply(self, state: State, app: str) -> State:
        found = find_definition(state, self.label(app), self.option, self.old)
        there = self._there(state, app)
        if any(one.name == self.new for one in there):
            raise MigrationError(f"RenameIndex: {self.label(app)} has an index {self.new!r} already")
        return self._put(state, app, [named_definition(one, self.new) if one is found else one for one in there])

    def names_one(self, created: CreateModel) -> bool:
        return self._unnamed(created, self.old)

    def reduce(self, other: Operation, app: str) -> list[Operation] | None:
        if isinstance(other, DeleteModel) and other.name == self.name:
            return [other]
        if not self._is_of(other):
            return None
        if isinstance(other, RemoveIndex) and other.index_name == self.new:
            return [RemoveIndex(self.model_name, self.old, other.concurrently)]
        if isinstance(other, RenameIndex) and other.old == self.new:
            # Back to its first name it would have one, where it may have been declared without.
            return None if other.new == self.old else [RenameIndex(self.model_name, self.old, other.new)]
        return None

    def describe(self) -> str:
        return f"Rename index {self.old} of {self.model_name} to {self.new}"

    def file_name(self) -> str:
        return f"rename_{self.old.lower()}"


class AddConstraint(DefinitionOperation):
    """Add a constraint.

    Args:
        model_name: the name of the model.
        constraint: the constraint.
        validate: whether the rows that are there are checked as well. False leaves that to `ValidateConstraint`, in a
            later migration, so that the table is locked for a moment alone (PostgreSQL, check constraints; elsewhere
            they are always checked).

    Raises:
        MigrationError: `validate=False` of a constraint that has to be checked.
    """

    option = "constraints"

    def __init__(self, model_name: str, constraint: Definition, validate: bool = True) -> None:
        super().__init__(model_name)
        self.constraint = constraint
        self.validate = validate
        if not validate and not isinstance(constraint, CheckConstraint):
            raise MigrationError(
                f"AddConstraint({model_name!r}, {constraint!r}, validate=False): only a CheckConstraint can be added "
                "without checking the rows that are there; leave validate out"
            )

    def apply(self, state: State, app: str) -> State:
        state = self._added(state, app, self.constraint)
        if self.validate:
            return state
        model = state[self.label(app)]
        name = definition_name(state, model.label, self.constraint)
        return state.put(replace(model, unchecked=model.unchecked | {name}))

    def reduce(self, other: Operation, app: str) -> list[Operation] | None:
        if isinstance(other, DeleteModel) and other.name == self.name:
            return [other]
        if self._is_of(other) and isinstance(other, RemoveConstraint) and self.constraint.name is not None:
            return [] if other.constraint_name == self.constraint.name else None
        return None

    def describe(self) -> str:
        return f"Add constraint {_called(self.constraint)} to {self.model_name}"

    def file_name(self) -> str:
        return f"{self.model_name.lower()}_{_word(self.constraint)}"

    def actions(self, change: Change) -> Sequence[Any]:
        found = super().actions(change)
        if self.validate or change.kind != "postgresql":
            return found
        return [replace(one, validate=False) if isinstance(one, parts.AddConstraint) else one for one in found]


class RemoveConstraint(DefinitionOperation):
    """Remove a constraint.

    Args:
        model_name: the name of the model.
        name: its name in the database, also where it was declared without one.
    """

    option = "constraints"

    def __init__(self, model_name: str, name: str) -> None:
        super().__init__(model_name)
        self.constraint_name = name

    def apply(self, state: State, app: str) -> State:
        return _checked(self._removed(state, app, self.constraint_name), self.label(app), self.constraint_name)

    def names_one(self, created: CreateModel) -> bool:
        return self._unnamed(created, self.constraint_name)

    def reduce(self, other: Operation, app: str) -> list[Operation] | None:
        return [other] if isinstance(other, DeleteModel) and other.name == self.name else None

    def describe(self) -> str:
        return f"Remove constraint {self.constraint_name} from {self.model_name}"

    def file_name(self) -> str:
        return f"remove_{self.constraint_name.lower()}"


class ValidateConstraint(DefinitionOperation):
    """Check the rows that were there before a constraint was added with `validate=False` (PostgreSQL; elsewhere there
    is nothing to do). Backward nothing is done.

    Args:
        model_name: the name of the model.
        name: the constraint's name in the database.
    """

    option = "constraints"

    def __init__(self, model_name: str, name: str) -> None:
        super().__init__(model_name)
        self.constraint_name = name

    def apply(self, state: State, app: str) -> State:
        if self.constraint_name not in self._foreign_keys(state, app):
            find_definition(state, self.label(app), self.option, self.constraint_name)
        return _checked(state, self.label(app), self.constraint_name)

    def within(self, created: CreateModel, app: str) -> list[Operation] | None:
        # There are no rows that would have to be checked.
        return [created]

    def describe(self) -> str:
        return f"Validate constraint {self.constraint_name} of {self.model_name}"

    def file_name(self) -> str:
        return f"validate_{self.constraint_name.lower()}"

    def actions(self, change: Change) -> Sequence[Any]:
        label = self.label(change.app)
        if change.backward or change.kind != "postgresql" or not change.lives_here(change.after[label]):
            return ()
        table = change.rendered(change.after, label).table
        return [
            parts.ValidateConstraint(table=table, constraint=one)
            for one in table.constraints
            if str(one.name) == self.constraint_name
        ]

    def _foreign_keys(self, state: State, app: str) -> set[str]:
        from covet_migrate.state.rendering import Renderer

        table = Renderer().render(state, self.label(app)).table
        return {str(one.name) for one in table.foreign_key_constraints}


def _checked(state: State, label: str, name: str) -> State:
    """The state in which there is no constraint of that name any more whose rows were not checked."""
    model = state[label]
    return state.put(replace(model, unchecked=model.unchecked - {name})) if name in model.unchecked else state


def _concurrently(actions: Sequence[Any], concurrently: bool) -> Sequence[Any]:
    if not concurrently:
        return actions
    return [
        replace(one, concurrently=True) if isinstance(one, (parts.AddIndex, parts.DropIndex)) else one
        for one in actions
    ]


def _index(index: Index, name: str) -> Index:
    """An index under another name."""
    named: Any = named_definition(index, name)
    made: Index = named
    return made


def _called(definition: Definition) -> str:
    return definition.name or repr(definition)


def _word(definition: Definition) -> str:
    """What stands for an index or constraint in the name of a file."""
    if definition.name is not None and "%" not in definition.name:
        return definition.name.lower()
    names = [one.removeprefix("-") for one in getattr(definition, "expressions", ()) if isinstance(one, str)]
    return "_".join([*names, definition.ending])
