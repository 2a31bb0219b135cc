"""Backends that are chosen by name: session stores, cache and pub/sub backends, object stores.

The tables `[sessions]`, `[cache.ALIAS]`, `[pubsub.ALIAS]` and `[objects.ALIAS]` each name a backend, which a plugin
brings through the hook of its section. The other keys of a table are the section's own or those of its backend, each
checked by who owns it. Without a table, the alias `default` is the backend `memory`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import Struct

from covet.collisions import settle
from covet.exceptions import ConfigurationError
from covet.settings_schema import nearest, without_password
from covet.settings_sections import BACKED_SECTIONS

if TYPE_CHECKING:
    from covet.applications import Covet

__all__ = ["Backend", "Backends", "Configured", "NoSettings"]

HOOKS = {
    "sessions": "covet_session_stores",
    "cache": "covet_cache_backends",
    "pubsub": "covet_pubsub_backends",
    "objects": "covet_object_stores",
}


class NoSettings(Struct, frozen=True):
    """The settings of a backend that has none."""


class Backend:
    """What makes a backend of a settings table.

    Args:
        factory: called once for each table that names it, with the application, the table's alias and the checked
            settings. It connects to nothing; what has to connect adds a lifespan with `app.add_lifespan`.
        settings: a msgspec Struct of the keys that only this backend knows.
    """

    __slots__ = ("factory", "settings")

    def __init__(self, factory: Callable[[Covet, str, Any], Any], settings: type = NoSettings) -> None:
        self.factory = factory
        self.settings = settings


class Configured(NamedTuple):
    """A backend that was made.

    Attributes:
        alias: its name in the settings.
        name: the name of the backend that its table chose.
        backend: what the factory made.
        settings: the keys that every table of its section may have.
    """

    alias: str
    name: str
    backend: Any
    settings: Any


class Backends:
    """The backends of an application, by section and alias. Those that the settings name are made when it is built."""

    def __init__(self, app: Covet, known: Mapping[str, Mapping[str, Backend]]) -> None:
        self._app = app
        self._known = known
        self._made: dict[tuple[str, str], Configured] = {}
        self._named: dict[tuple[str, str], Any] = {}

    @classmethod
    def build(cls, app: Covet, contributed: Mapping[str, list[tuple[str, str, Backend]]]) -> Backends:
        """Make what the settings name, of backends given by section as name, plugin and backend.

        Raises:
            ConfigurationError: a table names a backend that nobody brings, or does not fit it; one message for all.
            PluginError: two plugins claim a name.
        """
        known = {
            section: {
                name: backend
                for name, (_, backend) in settle(f"the {section} backend", claims, app.settings.plugins.prefer).items()
            }
            for section, claims in contributed.items()
        }
        made = cls(app, known)
        wrong: list[str] = []
        for section, tables in app.settings.backed.items():
            for alias in tables:
                try:
                    made.configured(section, alias)
                except ConfigurationError as error:
                    wrong.append(str(error))
        if wrong:
            raise ConfigurationError("\n".join(wrong))
        return made

    def configured(self, section: str, alias: str = "default") -> Configured:
        """The backend of `[section.alias]`, made at first use.

        Raises:
            ConfigurationError: there is no such table, no plugin brings the backend it names, or it does not fit it.
        """
        key = (section, alias)
        if key not in self._made:
            self._made[key] = self._configure(section, alias)
        return self._made[key]

    def named(self, section: str, name: str) -> Any:
        """The backend called `name` with its default settings, whether a table names it or not; made at first use.

        Raises:
            ConfigurationError: no plugin brings it, or it does not work without settings.
        """
        key = (section, name)
        if key not in self._named:
            backend = self._find(section, name, f"the {section} backend {name!r}")
            try:
                settings = backend.settings()
            except TypeError as error:
                raise ConfigurationError(
                    f"the {section} backend {name!r} does not work without settings ({error}); add a table "
                    f"[{section}.ALIAS] with `backend = {name!r}`"
                ) from None
            self._named[key] = self._make(backend, name, settings, f"the {section} backend {name!r}")
        return self._named[key]

    def names(self, section: str) -> list[str]:
        """The names of the backends that plugins bring for a section, sorted."""
        return sorted(self._known.get(section, {}))

    def _configure(self, section: str, alias: str) -> Configured:
        settings = self._app.settings
        where = settings.backed_prefix(section, alias)
        if alias != "default" and alias not in settings.backed[section]:
            there = ", ".join(sorted({"default", *settings.backed[section]}))
            raise ConfigurationError(f"there is no [{where}] in the settings (there are: {there}); add that table")
        chooser, common = BACKED_SECTIONS[section]
        name = settings.backend_name(section, alias)
        backend = self._find(section, name, f"[{where}] {chooser}")
        others = {other: known.settings for other, known in self._known[section].items() if other != name}
        shared, own = settings.claim_backend(section, alias, common, backend.settings, others)
        return Configured(alias, name, self._make(backend, alias, own, f"[{where}]"), shared)

    def _find(self, section: str, name: str, where: str) -> Backend:
        known = self._known.get(section, {})
        if name not in known:
            raise ConfigurationError(
                f"{where}: no plugin that takes part brings {name!r}{nearest(name, known)}; install or enable one that "
                f"does (`covet plugins list` shows who implements {HOOKS[section].removeprefix('covet_')})"
            )
        return known[name]

    def _make(self, backend: Backend, alias: str, settings: Any, where: str) -> Any:
        try:
            return backend.factory(self._app, alias, settings)
        except ConfigurationError:
            raise
        except Exception as error:
            told = f"{type(error).__name__}: {without_password(str(error))}"
            raise ConfigurationError(f"{where}: its backend failed: {told}") from error
