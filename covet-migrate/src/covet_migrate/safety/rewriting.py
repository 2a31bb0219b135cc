"""Migrations that do the same as others, and keep nobody waiting: what `makemigrations --safe` writes.

It is done when migrations are made, not when they are run: so what runs is what somebody has read, and the same
everywhere. One migration becomes several: what may be a transaction stays one; what cannot gets `atomic=False`; and
what has to wait until no old code runs is the last one, to be applied by a later deployment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from covet_migrate.ddl import LATEST, steps_of
from covet_migrate.execution.stages import Target
from covet_migrate.migrations import Key, Migration
from covet_migrate.operations.base import Operation
from covet_migrate.operations.fields import AddField, AlterField, RemoveField, RenameField
from covet_migrate.operations.indexes import AddConstraint, AddIndex, RemoveIndex, ValidateConstraint
from covet_migrate.operations.models import CreateModel, DeleteModel, ModelOperation, RenameModel
from covet_migrate.operations.syncing import StopSyncFields, SyncFields
from covet_migrate.operations.wrapping import Online, Reviewed
from covet_migrate.safety.linting import findings_of
from covet_migrate.state.declarations import same
from covet_migrate.state.models import State
from covet_migrate.state.rendering import Renderer
from covet_orm import CheckConstraint, Field
from covet_orm.exceptions import OrmError
from covet_orm.fields.base import UNSET
from covet_orm.fields.related import RelatedField

__all__ = ["AVOIDABLE", "Naming", "safe_migrations"]

Naming = Callable[[str, Sequence[Operation]], str]
"""Gives the name of the next migration of an application; called in the order of the migrations."""

AVOIDABLE = frozenset(
    (
        "all-rows-at-once",
        "constraint-checked-at-once",
        "drop-index-not-concurrent",
        "foreign-key-checked-at-once",
        "index-not-concurrent",
        "primary-key-built-at-once",
        "set-not-null-reads",
        "unique-built-at-once",
        "volatile-default",
    )
)
"""The rules that another way of doing the same keeps."""


@dataclass(frozen=True)
class _Part:
    """An operation and where it belongs.

    Attributes:
        operation: the operation.
        atomic: whether it may be in a transaction with others.
        apart: whether a migration begins with it.
        contracts: whether it has to wait until no old code runs.
    """

    operation: Operation
    atomic: bool = True
    apart: bool = False
    contracts: bool = False


def safe_migrations(
    migrations: Sequence[Migration],
    before: State,
    kind: str,
    name: Naming,
    version: tuple[int, ...] | None = None,
    *,
    alias: str = "default",
) -> list[Migration]:
    """Migrations after which the models are the same, and during which the tables can be used.

    What is new in them, and what no other way helps, stays as it is: `migrations lint` says what that is.

    Args:
        migrations: new ones, each after those that it depends on.
        before: the state before all of them.
        kind: `postgresql`, `mysql`, `mariadb` or `sqlite`; on SQLite nothing is done otherwise.
        name: gives the names of those that are returned.
        version: of the server; one of now by default.
        alias: of the database.

    Raises:
        MigrationError: an operation does not fit its state.
    """
    target = Target(kind, version or LATEST.get(kind, ()), alias, steps_of, Renderer())
    state = before
    last: dict[Key, Key] = {}
    found: list[Migration] = []
    new: set[str] = set()
    for migration in migrations:
        parts: list[_Part] = []
        for position, operation in enumerate(migration.operations):
            later = list(migration.operations)[position + 1 :]
            parts += _parts(operation, later, state, migration.app, target, new)
            state = operation.apply(state, migration.app)
        dependencies = [last.get(key, key) for key in migration.dependencies]
        made = list(_packed(migration, parts, dependencies, name))
        last[migration.key] = made[-1].key
        found += made
    return found


def _packed(
    migration: Migration, parts: Sequence[_Part], dependencies: Iterable[Key], name: Naming
) -> Iterator[Migration]:
    """The parts of one migration, as few migrations as they need."""
    groups: list[list[_Part]] = []
    for part in (*(one for one in parts if not one.contracts), *(one for one in parts if one.contracts)):
        ahead = groups[-1][-1] if groups else None
        joins = (
            ahead is not None and not part.apart and (ahead.atomic, ahead.contracts) == (part.atomic, part.contracts)
        )
        if joins:
            groups[-1].append(part)
        else:
            groups.append([part])
    depends = list(dependencies)
    for number, group in enumerate(groups or [[]]):
        operations = [one.operation for one in group]
        made = replace(
            migration,
            operations=operations,
            dependencies=depends,
            initial=migration.initial if number == 0 else None,
            atomic=migration.atomic and all(one.atomic for one in group),
            run_before=list(migration.run_before) if number + 1 >= len(groups) else [],
            name=name(migration.app, operations),
        )
        yield made
        depends = [made.key]


def _parts(
    operation: Operation, later: Sequence[Operation], state: State, app: str, target: Target, new: set[str]
) -> list[_Part]:
    """What stands for an operation."""
    if isinstance(operation, CreateModel):
        new.add(operation.label(app))
    touched = operation.touches(app)
    if target.kind == "sqlite" or touched is None or new.issuperset(touched):
        return [_Part(operation)]
    if isinstance(operation, AddField) and not _leaves(operation, later, app):
        expanded = _expanded(operation)
        if expanded is not None:
            # Old code leaves the column to its default, until there is none of it left.
            first = _online(expanded, state, app, target)
            contract = AlterField(operation.model_name, operation.field_name, operation.field)
            return [*first, _Part(contract, contracts=True, apart=True)]
    if isinstance(operation, RenameField) and _is_renamable(operation, later, state, app, target):
        return _renamed(operation, state, app, target)
    return _online(operation, state, app, target)


def _is_renamable(operation: RenameField, later: Sequence[Operation], state: State, app: str, target: Target) -> bool:
    """Whether a field can be renamed by expand and contract: its column is renamed, nothing else names it, and nothing
    is done to the model later."""
    label = operation.label(app)
    model = state[label]
    field = model.fields[operation.old]
    relation = isinstance(field, RelatedField)
    if relation or field.primary_key or field.generated or field.db_column or not field.column_is_there:
        return False
    if any((touched := one.touches(app)) is None or label in touched for one in later):
        return False
    after = operation.apply(state, app)
    others = all(one is after.models.get(key) for key, one in state.models.items() if key != label)
    fields = {name: one for name, one in model.fields.items() if name != operation.old}
    kept = all(after[label].fields.get(name) is one for name, one in fields.items())
    return (
        others
        and kept
        and same(dict(model.options), dict(after[label].options))
        and _renames(operation, state, app, target)
    )


def _renames(operation: RenameField, state: State, app: str, target: Target) -> bool:
    found = findings_of(Migration([operation], app=app, name="new"), state, target)
    return any(one.rule == "rename-column" for one in found)


def _renamed(operation: RenameField, state: State, app: str, target: Target) -> list[_Part]:
    """Both columns, kept the same, until no old code runs; then the new one alone."""
    name, old, new = operation.model_name, operation.old, operation.new
    field = state[operation.label(app)].fields[old]
    args, options = field.declared
    loose: Field[Any] = type(field)(*args, **{**options, "null": True})
    # New code writes the old column no more, and old code not the new one.
    first: list[Operation] = [*([] if field.null else [AlterField(name, old, loose)]), AddField(name, new, loose)]
    parts: list[_Part] = []
    for one in first:
        parts += _online(one, state, app, target)
        state = one.apply(state, app)
    parts.append(_Part(SyncFields(name, old, new), atomic=False))
    last: list[_Part] = [_Part(StopSyncFields(name, old, new), apart=True)]
    if not field.null:
        last += _online(AlterField(name, new, field.clone()), state, app, target)
    gone = Reviewed(RemoveField(name, old), f"renamed to {new}; apply this when no code runs that knows {old}")
    return [*parts, *(replace(one, contracts=True, atomic=False) for one in [*last, _Part(gone)])]


def _online(operation: Operation, state: State, app: str, target: Target) -> list[_Part]:
    """The operation in a form that keeps nobody waiting; itself where it does not, or nothing helps."""
    broken = {one.rule for one in findings_of(Migration([operation], app=app, name="new"), state, target)}
    if not broken & AVOIDABLE and target.kind == "postgresql":
        return [_Part(operation)]
    if target.kind == "postgresql":
        if isinstance(operation, AddIndex):
            concurrent = AddIndex(operation.model_name, operation.index, concurrently=True)
            return [_Part(concurrent, atomic=False)]
        if isinstance(operation, RemoveIndex):
            return [_Part(RemoveIndex(operation.model_name, operation.index_name, concurrently=True), atomic=False)]
        checked = isinstance(operation, AddConstraint) and isinstance(operation.constraint, CheckConstraint)
        if isinstance(operation, AddConstraint) and checked and operation.constraint.name is not None:
            waiting = AddConstraint(operation.model_name, operation.constraint, validate=False)
            validated = ValidateConstraint(operation.model_name, operation.constraint.name)
            return [_Part(waiting), _Part(validated, apart=True)]
    elif isinstance(operation, (CreateModel, DeleteModel, RenameModel)) or not isinstance(operation, ModelOperation):
        return [_Part(operation)]
    return [_Part(Online(operation), atomic=False)]


def _expanded(operation: AddField) -> AddField | None:
    """A field that is added with what rows get that are there as its default in the database; None where it has one
    already, needs none, or cannot have it."""
    field = operation.field
    options: dict[str, Any] = dict(field.declared[1])
    value = operation.fill if operation.fill is not UNSET else field.default
    given = field.null or field.db_default is not UNSET or field.primary_key or field.generated
    if given or value is UNSET or value is None or callable(value) or not field.column_is_there:
        return None
    try:
        made: Field[Any] = type(field)(*field.declared[0], **{**options, "db_default": value})
    except OrmError:
        return None
    return AddField(operation.model_name, operation.field_name, made)


def _leaves(operation: AddField, later: Iterable[Operation], app: str) -> bool:
    """Whether what is done later to the model keeps its field from being changed at the end."""
    return any(
        isinstance(one, (DeleteModel, RenameModel))
        or (isinstance(one, (RemoveField, AlterField)) and one.field_name == operation.field_name)
        for one in later
        if isinstance(one, ModelOperation) and one.label(app) == operation.label(app)
    )
