"""What the statements of SQLite do: who writes, locks the whole file (https://sqlite.org/lockingv3.html)."""

from __future__ import annotations

from covet_migrate.actions.actions import AddColumn, AddIndex, DropColumn, Execute, TableAction
from covet_migrate.safety.effects import Blocks, Effect
from covet_migrate.steps import RebuildTable, Statement, Step

__all__ = ["FILE", "sqlite_effect"]

FILE = "the whole file"
"""What is locked."""
LOCKS = {FILE: "RESERVED"}
"""One writer at a time; with write-ahead logging, which covet-orm has, readers go on."""


def sqlite_effect(step: Step) -> Effect:
    """What a step does."""
    if isinstance(step, RebuildTable):
        return Effect(locks=LOCKS, blocks=Blocks.WRITERS, rewrites=True)
    if not isinstance(step, Statement) or not isinstance(step.action, TableAction) or isinstance(step.action, Execute):
        return Effect(locks=LOCKS, blocks=Blocks.WRITERS, known=False)
    # A column that goes is cut out of every row; one that comes may have a check for the rows that are there.
    rewrites = isinstance(step.action, DropColumn)
    checks = isinstance(step.action, AddColumn) and (not step.action.column.nullable or " CHECK " in step.sql)
    scans = isinstance(step.action, AddIndex) or checks
    return Effect(locks=LOCKS, blocks=Blocks.WRITERS, rewrites=rewrites, scans=scans)
