"""Finds the anomalies in a history, by the definitions of Adya ("Weak Consistency", 1999, chapters 3 and 4).

The dependencies between the transactions that committed make a graph; a cycle in it is an order that no serial
execution has, and the kinds of its edges say which anomaly it is. What is found did happen. What is not found may be
there all the same: a history shows only what its transactions read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum
from itertools import pairwise
from typing import NamedTuple

from tests.isolation.graphs import Dependency, Edge, Graph
from tests.isolation.histories import History, Operation, Transaction

__all__ = ["Anomaly", "Finding", "check", "found_in"]

WW, WR, RW = Dependency.WW, Dependency.WR, Dependency.RW


class Anomaly(Enum):
    """What isolation keeps apart, from what every database prevents to what only serializable ones do."""

    G0 = "G0"
    """Dirty write: two transactions overwrite each other's writes."""
    G1A = "G1a"
    """Aborted read: what was read, or built upon, was rolled back."""
    G1B = "G1b"
    """Intermediate read: what was read was overwritten by the one that wrote it."""
    G1C = "G1c"
    """Circular information flow: each of two transactions saw, or overwrote, what the other one wrote."""
    P4 = "P4"
    """Lost update: two transactions read the same version of an item, and both wrote it."""
    G_SINGLE = "G-single"
    """Read skew, fuzzy read, phantom read: one part was seen before another transaction, and another part after it."""
    G_NONADJACENT = "G-nonadjacent"
    """A longer cycle of the kind that snapshots exclude: no two of its anti-dependencies follow each other."""
    G2_ITEM = "G2-item"
    """Write skew: each of two transactions wrote what the other had read."""
    G2 = "G2"
    """Write skew over a predicate: each of two transactions inserted what the other had looked for."""


class Finding(NamedTuple):
    """An anomaly that happened.

    Attributes:
        anomaly: which.
        about: what happened, with the names of the transactions.
    """

    anomaly: Anomaly
    about: str


def found_in(history: History) -> set[Anomaly]:
    """The anomalies that happened in a history."""
    return {finding.anomaly for finding in check(history)}


def check(history: History) -> list[Finding]:
    """Look for every anomaly; of each kind that a cycle shows, one in each component of the graph.

    Raises:
        ValueError: it is no history: a transaction is open, an element was written twice, or never.
    """
    return _Check(history).findings()


class _Check:
    def __init__(self, history: History) -> None:
        self.history = history
        self.transactions = history.transactions
        self.writer: dict[tuple[str, int], int] = {}
        self.last: dict[tuple[int, int], int] = {}
        for number, transaction in enumerate(self.transactions):
            if transaction.outcome == "open":
                raise ValueError(f"{transaction.name} has not ended")
            for operation in transaction.operations:
                if operation.writes:
                    name = (_home(operation), operation.element)
                    if name in self.writer:
                        raise ValueError(f"{operation.element} was written twice")
                    self.writer[name] = number
                if operation.kind == "append":
                    self.last[number, operation.key] = operation.element
        self.orders = {key: self._committed("lists", found) for key, found in history.lists.items()}

    def findings(self) -> list[Finding]:
        graph = Graph()
        for edge in self._edges():
            graph.add(edge)
        return [*self._dirty(), *self._lost(), *self._cycles(graph)]

    # What a single read shows

    def _dirty(self) -> Iterator[Finding]:
        for home, left in (("lists", self.history.lists), ("sets", self.history.sets)):
            for key, elements in left.items():
                for element in elements:
                    if not self._is_committed(home, element):
                        about = f"{element} is in {key} in the end, and {self._who(home, element)} was rolled back"
                        yield Finding(Anomaly.G1A, about)
        for number, operation in self._reads():
            home, name = _home(operation), self.transactions[number].name
            for element in operation.found:
                if self._written_by(home, element) != number and not self._is_committed(home, element):
                    yield Finding(Anomaly.G1A, f"{name} read {element}, which {self._who(home, element)} rolled back")
            if operation.kind == "read":
                seen = self._others(number, operation.found)
                writer = self._written_by(home, seen[-1]) if seen else number
                if writer != number and self.last[writer, operation.key] != seen[-1]:
                    yield Finding(
                        Anomaly.G1B,
                        f"{name} read {operation.key} while {self.transactions[writer].name} was writing it",
                    )

    def _lost(self) -> Iterator[Finding]:
        for transaction in self.transactions:
            for operation in transaction.operations:
                kept = self.history.lists if operation.kind == "append" else self.history.sets
                if (
                    operation.writes
                    and transaction.outcome == "committed"
                    and operation.element not in kept.get(operation.key, ())
                ):
                    yield Finding(Anomaly.P4, f"{operation.element} of {transaction.name}, which committed, is gone")
        readers: dict[tuple[int, tuple[int, ...]], set[int]] = {}
        for number, transaction in enumerate(self.transactions):
            if transaction.outcome == "committed":
                for key, found in _based_on(transaction):
                    readers.setdefault((key, tuple(self._committed("lists", found))), set()).add(number)
        for (key, _), numbers in readers.items():
            if len(numbers) > 1:
                names = ", ".join(self.transactions[number].name for number in sorted(numbers))
                yield Finding(Anomaly.P4, f"{names} read the same version of {key}, and wrote it")

    # Cycles

    def _edges(self) -> Iterator[Edge]:
        for key, order in self.orders.items():
            writers = [self.writer["lists", element] for element in order]
            for first, second in pairwise(writers):
                yield Edge(first, second, WW, key)
        for number, operation in self._reads():
            if operation.kind == "read":
                yield from self._edges_of_read(number, operation)
            else:
                yield from self._edges_of_scan(number, operation)

    def _edges_of_read(self, number: int, operation: Operation) -> Iterator[Edge]:
        order = self.orders.get(operation.key, ())
        seen = self._committed("lists", self._others(number, operation.found))
        if seen:
            yield Edge(self.writer["lists", seen[-1]], number, WR, operation.key)
        # The version that came after the one that was read, and who wrote it.
        after = order.index(seen[-1]) + 1 if seen and seen[-1] in order else 0 if not seen else len(order)
        if after < len(order):
            yield Edge(number, self.writer["lists", order[after]], RW, operation.key)

    def _edges_of_scan(self, number: int, operation: Operation) -> Iterator[Edge]:
        for element in operation.found:
            if self._is_committed("sets", element):
                yield Edge(self.writer["sets", element], number, WR, operation.key, predicate=True)
        for element in set(self.history.sets.get(operation.key, ())) - set(operation.found):
            if self._is_committed("sets", element):
                yield Edge(number, self.writer["sets", element], RW, operation.key, predicate=True)

    def _cycles(self, graph: Graph) -> Iterator[Finding]:
        for component in graph.only(lambda edge: edge.kind is WW).components():
            yield self._finding(Anomaly.G0, self._any_cycle(graph.only(lambda edge: edge.kind is WW), component, WW))
        informed = graph.only(lambda edge: edge.kind is not RW)
        for component in informed.components():
            cycle = self._any_cycle(informed, component, WR)
            if cycle:
                yield self._finding(Anomaly.G1C, cycle)
        items = graph.only(lambda edge: not edge.predicate)
        for component in graph.components():
            told: set[Anomaly] = set()
            for edge in graph.edges():
                if edge.kind is not RW or not {edge.source, edge.target} <= component:
                    continue
                for anomaly, cycle in self._through(edge, component, informed, items, graph):
                    if anomaly not in told:
                        told.add(anomaly)
                        yield self._finding(anomaly, cycle)

    def _through(
        self, edge: Edge, within: set[int], informed: Graph, items: Graph, graph: Graph
    ) -> Iterator[tuple[Anomaly, list[Edge]]]:
        """The anomalies that an anti-dependency is part of."""
        single = informed.cycle_through(edge, within)
        if single:
            yield Anomaly.G_SINGLE, single
            return
        apart = graph.cycle_through(edge, within, apart=True)
        if apart:
            yield Anomaly.G_NONADJACENT, apart
        skew = None if edge.predicate else items.cycle_through(edge, within)
        if skew:
            yield Anomaly.G2_ITEM, skew
            return
        phantom = graph.cycle_through(edge, within)
        if phantom:
            yield Anomaly.G2, phantom

    def _any_cycle(self, graph: Graph, component: set[int], kind: Dependency) -> list[Edge]:
        """A cycle in a component with at least one edge of a kind; none where there is no such edge."""
        for edge in graph.edges():
            if edge.kind is kind and {edge.source, edge.target} <= component:
                return graph.cycle_through(edge, component) or []
        return []

    def _finding(self, anomaly: Anomaly, cycle: Sequence[Edge]) -> Finding:
        steps = "".join(f" -{edge.kind.value} {edge.key}-> {self.transactions[edge.target].name}" for edge in cycle)
        return Finding(anomaly, f"{self.transactions[cycle[0].source].name}{steps}" if cycle else "")

    # Who wrote what

    def _reads(self) -> Iterator[tuple[int, Operation]]:
        """Those of the transactions that committed: what others saw does not count (Adya, section 3.1)."""
        for number, transaction in enumerate(self.transactions):
            if transaction.outcome == "committed":
                for operation in transaction.operations:
                    if not operation.writes:
                        yield number, operation

    def _written_by(self, home: str, element: int) -> int:
        try:
            return self.writer[home, element]
        except KeyError:
            raise ValueError(f"{element} was read, and nobody wrote it") from None

    def _who(self, home: str, element: int) -> str:
        return self.transactions[self._written_by(home, element)].name

    def _is_committed(self, home: str, element: int) -> bool:
        return self.transactions[self._written_by(home, element)].outcome == "committed"

    def _committed(self, home: str, elements: Sequence[int]) -> list[int]:
        return [element for element in elements if self._is_committed(home, element)]

    def _others(self, number: int, elements: Sequence[int]) -> Sequence[int]:
        """A version without what its reader itself has appended at the end."""
        end = len(elements)
        while end and self._written_by("lists", elements[end - 1]) == number:
            end -= 1
        return elements[:end]


def _based_on(transaction: Transaction) -> Iterator[tuple[int, tuple[int, ...]]]:
    """The version of each item that a transaction had read last when it first wrote it."""
    read: dict[int, tuple[int, ...]] = {}
    written = set()
    for operation in transaction.operations:
        if operation.kind == "read":
            read[operation.key] = operation.found
        elif operation.kind == "append" and operation.key not in written:
            written.add(operation.key)
            if operation.key in read:
                yield operation.key, read[operation.key]


def _home(operation: Operation) -> str:
    return "lists" if operation.kind in ("read", "append") else "sets"
