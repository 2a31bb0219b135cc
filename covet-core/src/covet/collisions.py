"""What happens when two claim the same thing: a route, a dependency's type, a backend's name."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeVar

from covet.exceptions import PluginError

__all__ = ["settle"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

APPLICATION = "application"


def settle(
    what: str, claims: Iterable[tuple[K, str, V]], prefer: Sequence[str], name: Callable[[K], str] = str
) -> dict[K, tuple[str, V]]:
    """One owner and value per key.

    Args:
        what: the kind of thing, for the message, such as `the storage scheme`.
        claims: key, owner (a plugin's name or `application`) and value, in plugin order.
        prefer: the owners that win a collision, the first listed before the others: `[plugins] prefer`.
        name: how a key is written in the message.

    Raises:
        PluginError: two claim one key and the settings prefer neither; it names both.
    """
    settled: dict[K, tuple[str, Any]] = {}
    for key, owner, value in claims:
        if key not in settled:
            settled[key] = (owner, value)
            continue
        other = settled[key][0]
        ranked = [candidate for candidate in prefer if candidate in (owner, other)]
        if owner == other or not ranked:
            both = f"{_called(other)} and {_called(owner)}" if owner != other else f"{_called(owner)}, twice"
            raise PluginError(
                f"{what} {name(key)} is claimed by {both}; disable one, or say which one wins with "
                f'`[plugins] prefer = ["{owner}"]`'
            )
        if ranked[0] == owner:
            settled[key] = (owner, value)
    return settled


def _called(owner: str) -> str:
    return "the application" if owner == APPLICATION else f"the plugin {owner!r}"
