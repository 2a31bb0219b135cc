"""Operations around another one: how it is done, and what somebody says of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from covet_migrate.actions import actions as parts
from covet_migrate.exceptions import MigrationError
from covet_migrate.operations.base import Change, Operation
from covet_migrate.state.models import State

__all__ = ["Online", "Reviewed", "Wrapping", "unwrapped"]


class Wrapping(Operation):
    """An operation that does what another one does.

    Args:
        operation: the other one.
    """

    def __init__(self, operation: Operation) -> None:
        if not isinstance(operation, Operation):
            raise MigrationError(f"{type(self).__name__}({operation!r:.200}): an operation is needed")
        self.operation = operation
        self.reversible = operation.reversible
        self.elidable = operation.elidable
        # Of the one that it is around, not of the class.
        self.__dict__.update(frees=operation.frees, needs_freedom=operation.needs_freedom)

    def apply(self, state: State, app: str) -> State:
        return self.operation.apply(state, app)

    def describe(self) -> str:
        return self.operation.describe()

    def file_name(self) -> str:
        return self.operation.file_name()

    def actions(self, change: Change) -> Sequence[Any]:
        return self.operation.actions(change)

    def touches(self, app: str) -> Iterable[str] | None:
        return self.operation.touches(app)

    def refers_to(self, app: str) -> Iterable[str]:
        return self.operation.refers_to(app)

    def passes(self, other: Operation, app: str) -> bool:
        return self.operation.passes(unwrapped(other), app)


class Reviewed(Wrapping):
    """An operation of which somebody says why it may be done although rules of `migrations lint` speak against it.

        operations.Reviewed(
            operations.RemoveField("Post", "slug"), "no code has read it since 4.2", rules=["drop-column"]
        )

    It does what the operation does. A rule that is named and finds nothing is a finding itself (`unused-review`).

    Args:
        operation: the operation.
        why: why it may be done, for those who read it later.
        rules: the rules that it is about; all that find something by default. Named, a rule that only comes to find
            something later is not covered.

    Raises:
        MigrationError: it says no why, or `rules` is a text.
    """

    def __init__(self, operation: Operation, why: str, *, rules: Collection[str] | None = None) -> None:
        super().__init__(operation)
        if not isinstance(why, str) or not why.strip():
            raise MigrationError(f"Reviewed({operation!r:.200}): say why it may be done")
        if isinstance(rules, str):
            raise MigrationError(f"Reviewed(rules={rules!r}): a list of names is needed: rules=[{rules!r}]")
        self.why = why
        self.rules = None if rules is None else tuple(rules)


class Online(Wrapping):
    """An operation that is done while others use the table: in more and smaller steps, none of which keeps them waiting
    for longer than a moment.

        migration = Migration(
            atomic=False,
            operations=[
                operations.Online(operations.AlterField("Post", "slug", orm.SlugField(max_length=50), fill=""))
            ],
        )

    PostgreSQL: indexes are created and dropped concurrently; foreign keys and checks are added `NOT VALID` and
    validated in another transaction; a unique constraint takes an index that was created concurrently; a column becomes
    `NOT NULL` through a check that is validated, and rows get their values in batches, also those of a new column whose
    default differs from row to row. MySQL and MariaDB: statements that need not keep writers waiting say so
    (`LOCK=NONE`), and fail where they would; rows get their values in batches. SQLite: nothing changes.

    The steps are committed one by one, and what was interrupted goes on where it was: the migration needs
    `atomic=False` where one of them cannot be in a transaction.

    Args:
        operation: the operation.
        batch: how many rows get their values at a time, at the most; fewer where they take long.

    Raises:
        MigrationError: a batch of no rows.
    """

    def __init__(self, operation: Operation, *, batch: int = 5000) -> None:
        super().__init__(operation)
        if batch < 1:
            raise MigrationError(f"Online(batch={batch}): a batch has at least one row")
        self.batch = batch

    def actions(self, change: Change) -> Sequence[Any]:
        found = tuple(self.operation.actions(change))
        if not found or change.kind == "sqlite":
            return found
        return [parts.Online(actions=found, batch=self.batch)]


def unwrapped(operation: Operation) -> Operation:
    """The operation within others that are around it; itself where there are none."""
    while isinstance(operation, Wrapping):
        operation = operation.operation
    return operation
