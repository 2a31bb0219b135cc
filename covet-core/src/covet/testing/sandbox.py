"""An application with exactly the plugins that a test names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from covet.applications import Covet

__all__ = ["plugin_sandbox"]


def plugin_sandbox(*plugins: object, settings: Mapping[str, Any] | None = None, **named: object) -> Covet:
    """An application that has the plugins given here and no other, whatever else is installed.

        app = plugin_sandbox("timing", settings={"plugins": {"timing": {"unit": "ms"}}})
        async with TestClient(app) as client: ...

    Neither a settings file nor the environment is read. The application is not built yet, so a test may still add
    routes of its own.

    Args:
        plugins: modules or objects with hook implementations, or the names of installed plugins, builtin ones
            included. A module is called by the last part of its name, an object by its class.
        settings: tables as in the settings file.
        named: further modules or objects, under the name of the keyword.

    Raises:
        PluginError: no installed plugin has such a name, or two plugins here have the same.
        SettingsError: the settings do not fit.
    """
    from covet.applications import Covet
    from covet.exceptions import PluginError
    from covet.settings import Settings

    installed = [plugin for plugin in plugins if isinstance(plugin, str)]
    _require_installed(installed)
    objects: dict[str, object] = {}
    for name, plugin in [*((_name(p), p) for p in plugins if not isinstance(p, str)), *named.items()]:
        if name in objects or name in installed:
            raise PluginError(f"two plugins of this sandbox are called {name!r}; pass one as `other_name=plugin`")
        objects[name] = plugin
    return Covet(Settings.load_only(settings or {}), plugins=objects, installed_plugins=installed or False)


def _require_installed(names: list[str]) -> None:
    from covet.discovery import GROUP, find_entry_points
    from covet.exceptions import PluginError
    from covet.settings_schema import nearest

    known = {entry_point.name for entry_point in find_entry_points(GROUP)} if names else set()
    for name in names:
        if name not in known:
            raise PluginError(f"no installed plugin is called {name!r}{nearest(name, known)}")


def _name(plugin: object) -> str:
    from covet.plugins import name_plugins

    (name,) = name_plugins([plugin])
    return name
