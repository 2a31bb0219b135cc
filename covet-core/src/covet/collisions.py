"""What happens when two claim the same thing: a route, a dependency's type, a backend's name."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

from covet.exceptions import PluginError

__all__ = ["settle"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

# Owners that are no plugins, as `[plugins] prefer` names them.
APPLICATION = "application"
KERNEL = "covet"


def settle(
    what: str, claims: Iterable[tuple[K, str, V]], prefer: Sequence[str], name: Callable[[K], str] = str
) -> dict[K, tuple[str, V]]:
    """One owner and value per key.

    Args:
        what: the kind of thing, for the message, such as `the storage scheme`.
        claims: key, owner (a plugin's name, `application` or `covet`) and value, in plugin order.
        prefer: the owners that win a collision, the first listed before the others: `[plugins] prefer`.
        name: how a key is written in the message.

    Raises:
        PluginError: several claim one key and the settings prefer none, which it names; or one claims it twice.
    """
    claimants: dict[K, list[tuple[str, V]]] = {}
    for key, owner, value in claims:
        claimants.setdefault(key, []).append((owner, value))
    settled: dict[K, tuple[str, V]] = {}
    for key, claimed in claimants.items():
        owners = [owner for owner, _ in claimed]
        winner = next((owner for owner in prefer if owner in owners), None) if len(set(owners)) > 1 else owners[0]
        won = [(owner, value) for owner, value in claimed if owner == winner]
        if not won:
            called = [_called(owner) for owner in dict.fromkeys(owners)]
            raise PluginError(
                f"{what} {name(key)} is claimed by {', '.join(called[:-1])} and {called[-1]}; disable one, or say "
                f'which one wins with `[plugins] prefer = ["{owners[-1]}"]`'
            )
        if len(won) > 1:
            raise PluginError(f"{what} {name(key)} is claimed by {_called(won[0][0])}, twice; let it claim it once")
        settled[key] = won[0]
    return settled


def _called(owner: str) -> str:
    return {APPLICATION: "the application", KERNEL: "Covet itself"}.get(owner, f"the plugin {owner!r}")
