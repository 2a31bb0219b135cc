"""Storage backends: what the tables `[storage.ALIAS]` name, opened at start-up and closed at shutdown.

The kernel knows no database. A plugin brings a backend for a URL scheme through the hook `covet_storage_backends`; what
a storage can do beside opening, closing and checking is between that plugin and those who ask for its type.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from covet.collisions import settle
from covet.exceptions import ConfigurationError
from covet.settings_schema import without_password

if TYPE_CHECKING:
    from covet.settings import Settings

__all__ = ["Storage", "StorageBackend", "StorageRegistry"]

logger = logging.getLogger("covet.storage")


@runtime_checkable
class Storage(Protocol):
    """A storage, as the kernel sees it.

    Attributes:
        alias: its name in the settings.
        kind: what it is: `postgresql`, `mariadb`, `sqlite`, `mongodb`, ...
        url: where it is, without the password.
    """

    alias: str
    kind: str
    url: str

    async def open(self) -> None:
        """Connect. Called once, at start-up; an error stops the start, with one that names the storage."""

    async def close(self) -> None:
        """Disconnect. Called once for every successful `open`, shielded from cancellation."""

    async def check(self) -> None:
        """Return when the storage can be used, raise when it cannot."""


class StorageBackend:
    """What makes a storage of a settings table.

    Args:
        factory: called with the alias and the checked settings; gives a `Storage`.
        settings: a msgspec Struct with a field `url`; the table is checked against it.
    """

    __slots__ = ("factory", "settings")

    def __init__(self, factory: Callable[[str, Any], Storage], settings: type) -> None:
        self.factory = factory
        self.settings = settings


class StorageRegistry(Mapping[str, Storage]):
    """The storages of an application, by alias. Opened in the order of the settings, closed in reverse."""

    def __init__(self, storages: Mapping[str, Storage]) -> None:
        self._storages = dict(storages)
        self._open: list[Storage] = []

    @classmethod
    def build(cls, settings: Settings, backends: Iterable[tuple[str, str, StorageBackend]]) -> StorageRegistry:
        """Make the storages that the settings name, of backends given as scheme, plugin and backend.

        Raises:
            ConfigurationError: a table has no URL, nobody knows its scheme, or it does not fit its backend; one message
                for all of them.
            PluginError: two plugins claim a scheme.
        """
        settled = {
            scheme: backend
            for scheme, (_, backend) in settle("the storage scheme", backends, settings.plugins.prefer).items()
        }
        storages: dict[str, Storage] = {}
        wrong: list[str] = []
        for alias in settings.storage:
            try:
                storages[alias] = _make(alias, settings, settled)
            except ConfigurationError as error:
                wrong.append(str(error))
        if wrong:
            raise ConfigurationError("\n".join(wrong))
        return cls(storages)

    def __getitem__(self, alias: str) -> Storage:
        try:
            return self._storages[alias]
        except KeyError:
            there = ", ".join(self._storages) or "none"
            raise ConfigurationError(
                f"no storage is called {alias!r} (there are: {there}); add a table [storage.{alias}] to the settings"
            ) from None

    def __contains__(self, alias: object) -> bool:
        return alias in self._storages

    def __iter__(self) -> Iterator[str]:
        return iter(self._storages)

    def __len__(self) -> int:
        return len(self._storages)

    async def __aenter__(self) -> StorageRegistry:
        try:
            for storage in self._storages.values():
                await _opened(storage)
                self._open.append(storage)
        except BaseException:
            await self._close_all()
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._close_all()

    async def _close_all(self) -> None:
        """Close in reverse order; one that fails to close is logged and keeps none of the others open."""
        import anyio

        with anyio.CancelScope(shield=True):
            while self._open:
                storage = self._open.pop()
                try:
                    await storage.close()
                except Exception:
                    logger.exception("the storage %r failed to close", storage.alias)


def _make(alias: str, settings: Settings, backends: Mapping[str, StorageBackend]) -> Storage:
    scheme = settings.storage_url(alias).reveal().partition(":")[0]
    backend = backends.get(scheme)
    if backend is None:
        there = f"there are {', '.join(sorted(backends))}" if backends else "no installed plugin brings any"
        raise ConfigurationError(
            f"[storage.{alias}] url: nothing knows the scheme {scheme!r} ({there}); install the plugin for it"
        )
    others = {name: other.settings for name, other in backends.items() if other is not backend}
    made: Any = settings.claim_storage(alias, backend.settings, others)
    try:
        storage = backend.factory(alias, made)
    except ConfigurationError:
        raise
    except Exception as error:
        told = f"{type(error).__name__}: {without_password(str(error))}"
        raise ConfigurationError(f"[storage.{alias}]: its backend for {scheme!r} failed: {told}") from error
    if not isinstance(storage, Storage):
        raise ConfigurationError(
            f"[storage.{alias}]: its backend for {scheme!r} gave a {type(storage).__name__}, and a Storage has alias, "
            "kind, url, open, close and check"
        )
    return storage


async def _opened(storage: Storage) -> None:
    try:
        await storage.open()
    except Exception as error:
        raise ConfigurationError(
            f"the storage {storage.alias!r} ({storage.kind}) cannot be opened: {type(error).__name__}: "
            f"{without_password(str(error))}"
        ) from error
