"""Where the migrations of applications are: in the package `migrations` beside the module with the models."""

from __future__ import annotations

import importlib
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from covet_migrate.exceptions import MigrationError
from covet_orm import Model

__all__ = ["Location", "locations_of", "make_package"]

PACKAGE = "migrations"


@dataclass(frozen=True, slots=True)
class Location:
    """Where the migrations of an application are, or would be.

    Attributes:
        app: the label of the application.
        package: the package of the files: `shop.blog.migrations`.
        folder: its folder, which may not be there.
    """

    app: str
    package: str
    folder: Path

    @property
    def is_installed(self) -> bool:
        """Whether it is among the packages that were installed: somebody else's, where nothing is to be written."""
        return not _installed().isdisjoint(self.folder.resolve().parents)


def locations_of(models: Iterable[type[Model]], modules: Mapping[str, str] | None = None) -> dict[str, Location]:
    """Where the migrations of the applications of models are, by label.

    Args:
        models: the models.
        modules: the packages of the migrations of some applications, by label, where they are not beside the models:
            `[plugins.migrate] modules` of the settings. It may name applications that have no models any more.

    Raises:
        MigrationError: the models of an application are in several packages, none of which has its name, or a package
            is not to be found.
    """
    given = dict(modules or {})
    packages: dict[str, dict[str, str]] = {}
    for model in models:
        label = model._meta.app_label
        if label not in given:
            packages.setdefault(label, {}).setdefault(_package_of(model.__module__), model.__module__)
    found = {app: _given(app, package) for app, package in given.items()}
    for app, candidates in packages.items():
        package = _one(app, candidates)
        found[app] = Location(
            app, f"{package}.{PACKAGE}" if package else PACKAGE, _folder(package, candidates[package])
        )
    return dict(sorted(found.items()))


def make_package(location: Location) -> Path:
    """Make the folder of an application's migrations a package, if it is not there; its folder.

    Raises:
        MigrationError: it cannot be made.
    """
    marker = location.folder / "__init__.py"
    try:
        location.folder.mkdir(exist_ok=True)
        marker.touch()
    except OSError as error:
        raise MigrationError(
            f"{location.folder}: the package of the migrations of {location.app!r} cannot be made: "
            f"{error.strerror or error}; `[plugins.migrate] modules` puts it elsewhere: "
            f'{location.app} = "package.{PACKAGE}"'
        ) from error
    # Whoever imports it next, in this process, finds it.
    importlib.invalidate_caches()
    return location.folder


def _package_of(module: str) -> str:
    """The package beside whose module the migrations are: `blog` of `blog.models`, `blog.models.posts`, `blog.tables`;
    that which gives an application its label."""
    parts = module.split(".")
    return ".".join(parts[: parts.index("models")] if "models" in parts else parts[:-1])


def _one(app: str, candidates: Mapping[str, str]) -> str:
    """The package of an application whose models may be in several."""
    if len(candidates) == 1:
        return next(iter(candidates))
    named = [package for package in candidates if package.rpartition(".")[2] == app]
    if len(named) == 1:
        return named[0]
    there = [package for package in candidates if (_folder(package, candidates[package])).is_dir()]
    if len(there) == 1:
        return there[0]
    raise MigrationError(
        f"the models of {app!r} are in {', '.join(sorted(package or 'no package' for package in candidates))}, so that "
        "it is not clear which of them has its migrations; say it in the settings, under [plugins.migrate.modules]: "
        f'{app} = "{sorted(candidates)[0] or "package"}.{PACKAGE}"'
    )


def _folder(package: str, module: str) -> Path:
    """The folder of the migrations of a package that is imported."""
    found: Any = sys.modules.get(package) if package else None
    paths = list(getattr(found, "__path__", ()))
    there = next((Path(path) / PACKAGE for path in paths if (Path(path) / PACKAGE).is_dir()), None)
    if there is not None:
        return there
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        # A prompt, or a package without a file.
        return Path(paths[0]) / PACKAGE if paths else Path.cwd() / PACKAGE
    folder = Path(file).parent
    deeper = len(module.split(".")) - len(package.split(".") if package else ())
    is_package = Path(file).name == "__init__.py"
    for _ in range(deeper - (0 if is_package else 1)):
        folder = folder.parent
    return folder / PACKAGE


def _given(app: str, package: str) -> Location:
    """The place that the settings name."""
    if not package or not all(part.isidentifier() for part in package.split(".")):
        raise MigrationError(
            f"[plugins.migrate.modules] {app} = {package!r}: the path of a package is needed, such as "
            f'"{app or "blog"}.{PACKAGE}"'
        )
    parent, _, name = package.rpartition(".")
    if not parent:
        spec = find_spec(package)
        if spec is not None and spec.submodule_search_locations:
            return Location(app, package, Path(next(iter(spec.submodule_search_locations))))
        return Location(app, package, Path.cwd() / name)
    try:
        outer: ModuleType = importlib.import_module(parent)
    except ImportError as error:
        raise MigrationError(
            f"[plugins.migrate.modules] {app} = {package!r}: {parent!r} cannot be imported: {error}"
        ) from error
    paths = [Path(path) for path in getattr(outer, "__path__", ())]
    if not paths:
        raise MigrationError(f"[plugins.migrate.modules] {app} = {package!r}: {parent!r} is a module and no package")
    return Location(app, package, next((path / name for path in paths if (path / name).is_dir()), paths[0] / name))


@cache
def _installed() -> frozenset[Path]:
    """The folders of the packages that were installed."""
    return frozenset(Path(path).resolve() for path in sysconfig.get_paths().values())
