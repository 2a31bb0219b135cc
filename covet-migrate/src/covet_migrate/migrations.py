"""A migration: what a file in a `migrations` folder declares."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from covet_migrate.exceptions import MigrationError

if TYPE_CHECKING:
    from covet_migrate.operations.base import Operation
    from covet_migrate.state import State

__all__ = ["Key", "Migration"]

Key = tuple[str, str]
"""The label of an application, and the name of one of its migrations: `("blog", "0002_post_slug")`."""


@dataclass(eq=False)
class Migration:
    """What one file does: `migration = Migration(dependencies=[...], operations=[...])`.

    Args:
        operations: what is done, in order.
        dependencies: the migrations that come before: pairs of an application and a name. The one before in the same
            application is among them.
        run_before: migrations that come after, though they do not say so: those of applications that know nothing of
            this one.
        replaces: the migrations that this one stands for, when it was squashed out of them.
        initial: whether it is the first of its application, whose tables may be there already; that one which depends
            on none of its application by default.
        atomic: whether all of it happens or nothing, where the database can (PostgreSQL, SQLite). What has to be
            outside of a transaction, such as an index that is created concurrently, needs False.

    Raises:
        MigrationError: something else than pairs of texts names other migrations.

    Attributes:
        app: the label of the application; set when the file is loaded.
        name: the name of the file without its ending; set when the file is loaded.
    """

    operations: Sequence[Operation] = ()
    dependencies: Iterable[Key] = ()
    run_before: Iterable[Key] = ()
    replaces: Iterable[Key] = ()
    initial: bool | None = None
    atomic: bool = True
    app: str = field(default="", kw_only=True)
    name: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        self.operations = list(self.operations)
        self.dependencies = _keys("dependencies", self.dependencies)
        self.run_before = _keys("run_before", self.run_before)
        self.replaces = _keys("replaces", self.replaces)

    @property
    def key(self) -> Key:
        """The application and the name."""
        return (self.app, self.name)

    @property
    def is_initial(self) -> bool:
        """Whether it is the first of its application."""
        return self.initial if self.initial is not None else all(app != self.app for app, _ in self.dependencies)

    def apply(self, state: State) -> State:
        """The state after it.

        Raises:
            MigrationError: an operation does not fit the state.
        """
        for operation in self.operations:
            state = operation.apply(state, self.app)
        return state

    def __str__(self) -> str:
        return f"{self.app}.{self.name}" if self.app else self.name

    def __repr__(self) -> str:
        return f"<Migration {self.app}.{self.name}>"


def _keys(argument: str, given: Iterable[Key]) -> list[Key]:
    """The migrations that an argument names."""
    found = list(given)
    for key in found:
        if not isinstance(key, tuple) or len(key) != 2 or not all(isinstance(part, str) for part in key):
            raise MigrationError(
                f"{argument}={found!r:.200}: a migration is named by a pair of its application and its name, such as "
                '[("blog", "0001_initial")]'
            )
    return found
