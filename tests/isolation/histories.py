"""What transactions did, in a form from which the order of the versions can be read back.

An item is a list to which transactions append elements, each of them once in all (the list-append histories of
Kingsbury and Alvaro, "Elle: Inferring Isolation Anomalies from Experimental Observations", VLDB 2020): whoever reads it
sees which writes came before, and in which order. A set is a group of rows that transactions insert, and that others
scan by a condition: whoever scans it sees which of the inserts it was too early for. That is the predicate read of
Adya's "Weak Consistency" (1999), section 3.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

__all__ = ["History", "Kind", "Operation", "Outcome", "Transaction", "append", "insert", "read", "scan"]

Kind = Literal["read", "append", "scan", "insert"]
Outcome = Literal["open", "committed", "aborted"]


class Operation(NamedTuple):
    """A step of a transaction.

    Attributes:
        kind: `read` and `append` are of an item, `scan` and `insert` of a set.
        key: which item, or which set.
        element: what is appended or inserted.
        found: what was read, in the order of the list.
    """

    kind: Kind
    key: int
    element: int = 0
    found: tuple[int, ...] = ()

    @property
    def writes(self) -> bool:
        """Whether it changes anything."""
        return self.kind in ("append", "insert")


def read(key: int, *found: int) -> Operation:
    """An item is read."""
    return Operation("read", key, found=found)


def append(key: int, element: int) -> Operation:
    """An element is appended to an item."""
    return Operation("append", key, element)


def scan(key: int, *found: int) -> Operation:
    """A set is read by its condition."""
    return Operation("scan", key, found=found)


def insert(key: int, element: int) -> Operation:
    """A row is inserted that belongs to a set."""
    return Operation("insert", key, element)


@dataclass
class Transaction:
    """What a transaction did, and what became of it.

    Attributes:
        name: for messages.
        operations: those that the database carried out, in their order.
        outcome: `open` until it ends.
        error: the name of the error that ended it.
    """

    name: str
    operations: list[Operation] = field(default_factory=list)
    outcome: Outcome = "open"
    error: str = ""


@dataclass
class History:
    """Transactions that ran side by side, and what they left.

    Attributes:
        transactions: in any order.
        lists: each item as it was when all had ended.
        sets: the elements of each set then.
    """

    transactions: Sequence[Transaction]
    lists: Mapping[int, Sequence[int]] = field(default_factory=dict)
    sets: Mapping[int, Sequence[int]] = field(default_factory=dict)
