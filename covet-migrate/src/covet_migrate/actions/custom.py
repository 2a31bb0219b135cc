"""Changes of a schema that third parties bring: actions that say themselves what is done, and whom it keeps waiting."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from covet_migrate.actions.actions import Action

if TYPE_CHECKING:
    from covet_migrate.safety.effects import Effect
    from covet_migrate.steps import Step
    from covet_orm.drivers.protocol import Connection

__all__ = ["CustomAction", "steps_of_custom"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomAction(Action):
    """A change of one's own: what Covet's actions do not say, such as row-level security or a partition.

        @dataclass(frozen=True, slots=True, kw_only=True)
        class EnableRowSecurity(CustomAction):
            table: str

            def steps(self, kind, version):
                if kind == "postgresql":
                    yield Statement(sql=f'ALTER TABLE "{self.table}" ENABLE ROW LEVEL SECURITY')

            def effect(self, step, kind, version):
                return Effect(locks={self.table: "ACCESS EXCLUSIVE"}, blocks=Blocks.EVERYBODY)

            def tables(self):
                return (self.table,)

    An operation gives it in `actions`, forward and backward. `covet_migrate.testing.OperationConformance` tests it with
    the operation.
    """

    def steps(self, kind: str, version: tuple[int, ...]) -> Iterable[Step]:
        """What is done in a database: statements and calls, the same at every call, without asking the database.

        Nothing where the database has no such thing and needs none.

        Args:
            kind: `postgresql`, `mysql`, `mariadb` or `sqlite`.
            version: of the server, such as `(15, 4)`.

        Raises:
            MigrationError: the database cannot do it.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say what is done in a database: override steps()")

    def effect(self, step: Step, kind: str, version: tuple[int, ...]) -> Effect:
        """What a step does to those who use the tables meanwhile, by which `migrations lint` classifies it.

        Not known by default: its SQL is looked at as that of `RunSQL` is, and a call is taken for one that may take
        long.

        Args:
            step: one of those of `steps`.
            kind: as of `steps`.
            version: as of `steps`.
        """
        from covet_migrate.safety.effects import Effect

        return Effect(known=False)

    def tables(self) -> Collection[str]:
        """The names of the tables that it is about; empty where it is about none, or does not say.

        By them it is told, where a step was interrupted on a server that cannot roll it back, whether it happened.
        """
        return ()

    async def in_effect(self, connection: Connection, kind: str) -> bool | None:
        """Whether what it does is there already, so that it is not done again where only a part of an operation was.

        None, as by default, where that cannot be told.

        Args:
            connection: asks the database; at rest, or in a transaction.
            kind: as of `steps`.

        Raises:
            DatabaseError: the database cannot be asked.
        """
        return None


def steps_of_custom(action: CustomAction, kind: str, version: tuple[int, ...]) -> list[Step]:
    """The steps of an action, each of which knows that it is of it.

    Args:
        action: the action.
        kind: `postgresql`, `mysql`, `mariadb` or `sqlite`.
        version: of the server.

    Raises:
        MigrationError: the database cannot do it.
    """
    return [step if step.action is not None else replace(step, action=action) for step in action.steps(kind, version)]
