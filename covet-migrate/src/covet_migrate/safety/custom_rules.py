"""Rules about actions of third parties, by what these say of themselves."""

from __future__ import annotations

from collections.abc import Iterator

from covet_migrate.actions.custom import CustomAction
from covet_migrate.safety.findings import Severity
from covet_migrate.safety.rules import Found, Subject, rule

__all__: list[str] = []


@rule(
    "custom-action-stalls",
    Severity.ERROR,
    title="An action of somebody else's keeps others waiting",
    why="It reads or writes every row while others wait for its lock.",
    instead="See in its documentation whether it can be done in another way; or at an hour at which the table may be "
    "locked, as Reviewed(...).",
    kinds=("postgresql", "mysql", "mariadb"),
)
def custom_action_stalls(subject: Subject) -> Iterator[Found]:
    for action, step, effect in subject.steps(CustomAction):
        if effect.known and effect.stalls:
            tables = ", ".join(sorted(action.tables()))
            yield Found(f"the table {tables}" if tables else type(action).__name__, step)
