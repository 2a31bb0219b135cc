"""Fewer operations that do the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from covet_migrate.operations.base import Operation

__all__ = ["optimize"]


def optimize(operations: Sequence[Operation], app: str) -> list[Operation]:
    """Operations reduced pairwise, as `Operation.reduce` says, until nothing changes.

    Two that are not beside each other are reduced where one of them does the same beside the other one
    (`Operation.passes`): the state after them is the same as after those that were given.

    Args:
        operations: in their order.
        app: the label of the application whose migration they are in.
    """
    found = list(operations)
    while True:
        concerned = [_touched(one, app) for one in found]
        often = Counter(label for labels in concerned if labels is not None for label in labels)
        for position, labels in enumerate(concerned):
            if labels is not None and all(often[label] == 1 for label in labels):
                # Nothing else is about these models.
                continue
            reduced = _reduced(found, concerned, position, app)
            if reduced is not None:
                found = reduced
                break
        else:
            return found


def _touched(operation: Operation, app: str) -> frozenset[str] | None:
    labels = operation.touches(app)
    return None if labels is None else frozenset(labels)


def _reduced(
    operations: list[Operation], concerned: list[frozenset[str] | None], position: int, app: str
) -> list[Operation] | None:
    """The operations with one of them and a later one reduced; None where there is no such later one."""
    first, own = operations[position], concerned[position]
    moves_on = True
    for index in range(position + 1, len(operations)):
        other, theirs = operations[index], concerned[index]
        unknown = own is None or theirs is None
        beside = index == position + 1
        if unknown and not beside:
            # Nothing passes what may be about anything.
            return None
        if own is None or theirs is None or not own.isdisjoint(theirs):
            between = operations[position + 1 : index]
            moves_back = all(other.passes(one, app) for one in between)
            together = first.reduce(other, app) if moves_back or moves_on else None
            if together is not None:
                before, after = operations[:position], operations[index + 1 :]
                moved = [*together, *between] if moves_back else [*between, *together]
                return [*before, *moved, *after]
        if unknown:
            return None
        moves_on = moves_on and first.passes(other, app)
    return None
