"""Who is told of distributed transactions: the listeners of the application."""

from __future__ import annotations

from collections.abc import Iterable
from time import perf_counter
from typing import TYPE_CHECKING

from covet.events import Event, listener
from covet_orm.events import (
    DistributedBegun,
    DistributedDecided,
    DistributedEnded,
    DistributedInDoubt,
    DistributedOutcome,
    DistributedPrepared,
    DistributedRecovered,
)
from covet_orm.exceptions import CommitIncomplete, HeuristicOutcome

if TYPE_CHECKING:
    from covet.applications import Covet
    from covet_orm.transactions.distributed.recovery import InDoubt

__all__ = ["DistributedTelling", "tell_recovered"]


class DistributedTelling:
    """Tells of one transaction, if anybody listened when its block was entered.

    Args:
        transaction: which.
        label: what its block is called.
        log: the alias of the database that holds the decision.
    """

    def __init__(self, transaction: str, label: str, log: str) -> None:
        self._app: Covet | None = listener()
        self._transaction = transaction
        self._label = label
        self._log = log
        self._began = perf_counter()

    def begun(self, databases: Iterable[str]) -> None:
        """Its block was entered, in the databases of these aliases."""
        self._emit(DistributedBegun(self._transaction, self._label, ",".join(databases), self._log))

    def prepared(self, database: str, seconds: float) -> None:
        """A participant has promised to commit; how long that took."""
        self._emit(DistributedPrepared(self._transaction, self._label, database, seconds))

    def decided(self) -> None:
        """It is written that it commits."""
        self._emit(DistributedDecided(self._transaction, self._label, self._log, perf_counter() - self._began))

    def ended(self, *, committed: bool | None, error: BaseException | None) -> None:
        """It has ended: committed or not, None where that is not known, and with this error."""
        outcome: DistributedOutcome = "uncertain"
        if isinstance(error, HeuristicOutcome):
            outcome = "mixed"
        elif committed is not None:
            outcome = "committed" if committed else "rolled back"
        pending = ",".join(error.pending) if isinstance(error, CommitIncomplete) else ""
        told = type(error).__name__ if error is not None else None
        code, seconds = str(getattr(error, "code", "")), perf_counter() - self._began
        self._emit(DistributedEnded(self._transaction, self._label, outcome, pending, seconds, told, code))

    def _emit(self, event: Event) -> None:
        if self._app is not None:
            self._app.emit(event)


def tell_recovered(found: Iterable[InDoubt]) -> None:
    """Tell what recovery has ended, and what it could not."""
    app = listener()
    if app is None:
        return
    for entry in found:
        about = (entry.transaction, entry.application, entry.database)
        if entry.state in ("committed", "rolled back"):
            app.emit(DistributedRecovered(*about, entry.state == "committed", entry.age))
        elif entry.state != "undecided":
            app.emit(DistributedInDoubt(*about, entry.state, entry.age))
