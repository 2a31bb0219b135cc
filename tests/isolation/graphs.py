"""Directed graphs with several kinds of edges, and the cycles in them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from typing import NamedTuple

__all__ = ["Dependency", "Edge", "Graph"]


class Dependency(Enum):
    """Why a transaction comes after another one in every serial order that explains both (Adya, section 3.1)."""

    WW = "ww"
    """It overwrote what the other had written."""
    WR = "wr"
    """It read what the other had written."""
    RW = "rw"
    """It overwrote what the other had read: an anti-dependency."""


class Edge(NamedTuple):
    """A dependency.

    Attributes:
        source: the transaction that comes first.
        target: the one that comes after it.
        kind: why.
        key: of which item or set.
        predicate: whether what was read is a set.
    """

    source: int
    target: int
    kind: Dependency
    key: int
    predicate: bool = False


class Graph:
    """Transactions by number, and the dependencies between them."""

    def __init__(self) -> None:
        self._out: dict[int, dict[Edge, None]] = {}

    def add(self, edge: Edge) -> None:
        """Add an edge; none from a transaction to itself."""
        if edge.source != edge.target:
            self._out.setdefault(edge.source, {})[edge] = None

    def edges(self) -> Iterator[Edge]:
        """All of them."""
        for edges in self._out.values():
            yield from edges

    def only(self, wanted: Callable[[Edge], bool]) -> Graph:
        """The same with some of its edges."""
        graph = Graph()
        for edge in filter(wanted, self.edges()):
            graph.add(edge)
        return graph

    def components(self) -> list[set[int]]:
        """The strongly connected components of more than one node (Tarjan 1972): each cycle is within one of them."""
        index: dict[int, int] = {}
        low: dict[int, int] = {}
        stack: list[int] = []
        on_stack: set[int] = set()
        found: list[set[int]] = []
        for root in list(self._out):
            if root in index:
                continue
            # In place of a recursion, which long histories would make too deep.
            work: list[tuple[int, Iterator[Edge]]] = [(root, self._enter(root, index, low, stack, on_stack))]
            while work:
                node, edges = work[-1]
                for edge in edges:
                    target = edge.target
                    if target not in index:
                        work.append((target, self._enter(target, index, low, stack, on_stack)))
                        break
                    if target in on_stack:
                        low[node] = min(low[node], index[target])
                else:
                    work.pop()
                    if work:
                        low[work[-1][0]] = min(low[work[-1][0]], low[node])
                    if low[node] == index[node]:
                        component = set()
                        while True:
                            member = stack.pop()
                            on_stack.discard(member)
                            component.add(member)
                            if member == node:
                                break
                        if len(component) > 1:
                            found.append(component)
        return found

    def _enter(
        self, node: int, index: dict[int, int], low: dict[int, int], stack: list[int], on_stack: set[int]
    ) -> Iterator[Edge]:
        index[node] = low[node] = len(index)
        stack.append(node)
        on_stack.add(node)
        return iter(self._out.get(node, ()))

    def cycle_through(self, edge: Edge, within: set[int], *, apart: bool = False) -> list[Edge] | None:
        """A shortest cycle that begins with an edge.

        Args:
            edge: its first one.
            within: the nodes that it may pass.
            apart: whether no two anti-dependencies in it may follow each other.
        """
        start = (edge.target, edge.kind is Dependency.RW)
        came: dict[tuple[int, bool], tuple[tuple[int, bool], Edge] | None] = {start: None}
        queue = deque([start])
        while queue:
            state = queue.popleft()
            node, after_rw = state
            for step in self._out.get(node, ()):
                is_rw = step.kind is Dependency.RW
                if step.target not in within or (apart and is_rw and after_rw):
                    continue
                if step.target == edge.source and not (apart and is_rw and edge.kind is Dependency.RW):
                    return [edge, *_back(came, state), step]
                following = (step.target, is_rw if apart else start[1])
                if following not in came:
                    came[following] = (state, step)
                    queue.append(following)
        return None


def _back(
    came: dict[tuple[int, bool], tuple[tuple[int, bool], Edge] | None], state: tuple[int, bool]
) -> Iterable[Edge]:
    path = []
    while (step := came[state]) is not None:
        state, edge = step
        path.append(edge)
    return reversed(path)
