"""The order of plugins: those that others need come first, ties by name, never by the order of installation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from heapq import heapify, heappop, heappush
from itertools import pairwise
from typing import Any

from covet.exceptions import PluginError

__all__ = ["in_order", "neighbours"]


def in_order(needs: Mapping[str, Mapping[str, str]]) -> list[str]:
    """The names, each behind those it needs, and of those that may come next the first by name.

    Args:
        needs: for each name those that come before it, with the reason, for the message.

    Raises:
        PluginError: they need each other in a circle; the message shows it, with the reasons.
    """
    waiting = {name: set(others) for name, others in needs.items()}
    followers: dict[str, list[str]] = {name: [] for name in waiting}
    for name, others in waiting.items():
        for other in others:
            followers[other].append(name)
    free = [name for name, others in waiting.items() if not others]
    heapify(free)
    order: list[str] = []
    while free:
        name = heappop(free)
        order.append(name)
        del waiting[name]
        for follower in followers[name]:
            waiting[follower].discard(name)
            if not waiting[follower]:
                heappush(free, follower)
    if waiting:
        raise PluginError(_circle(waiting, needs))
    return order


def _circle(waiting: Mapping[str, set[str]], needs: Mapping[str, Mapping[str, str]]) -> str:
    path = [min(waiting)]
    # Whatever waits needs something that waits, too, so this comes back to where it has been.
    while (following := min(waiting[path[-1]])) not in path:
        path.append(following)
    circle = [*path[path.index(following) :], following]
    steps = [f"{name!r} comes after {other!r} ({needs[name][other]})" for name, other in pairwise(circle)]
    return (
        f"the order of the plugins is a cycle: {', '.join(steps)}; disable one of them under [plugins], or take out "
        "one of these conditions"
    )


def neighbours(plugin: Any, attribute: str) -> tuple[str, ...]:
    """The plugins that one names in `covet_after` or `covet_before`: a name, or several."""
    names = getattr(plugin, attribute, ())
    if isinstance(names, str):
        return (names,)
    found = list(names) if isinstance(names, Iterable) else [names]
    if not all(isinstance(name, str) for name in found):
        raise PluginError(f"{attribute} is {names!r}, and names of plugins were expected")
    return tuple(found)
