"""Writing projects from the templates beside this module.

A template is a file whose name ends in `.template`; what stands in it as `$name` is replaced. In paths, `__package__`
is replaced by the package's name and a leading `dot-` by a dot.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template
from typing import Literal

import click

from covet.cli.reporting import Failure

__all__ = ["Names", "last_part", "write_scaffold"]

# A distribution's name (https://packaging.python.org/specifications/name-normalization/), begun with a letter so that a
# module may have it.
NAME = re.compile(r"[a-z]([a-z0-9._-]*[a-z0-9])?", re.IGNORECASE)
SUFFIX = ".template"


class Names:
    """The names in a project, made of the one the user gave.

    Attributes:
        distribution: as it is installed: `acme-hello`.
        package: as it is imported: `acme_hello`.
        plugin: as the settings call the plugin: `acme_hello`, but `hello` for `covet-hello`.
        title: for people: `Acme hello`.
    """

    def __init__(self, given: str, plugin: str) -> None:
        self.distribution = given
        self.package = _identifier(given)
        self.plugin = _identifier(plugin)
        self.title = re.sub(r"[-_.]+", " ", plugin).strip().capitalize()

    @classmethod
    def of_project(cls, given: str) -> Names:
        """The names of an application's project.

        Raises:
            click.UsageError: no project can be called so.
        """
        return cls(_checked(given), given)

    @classmethod
    def of_plugin(cls, given: str) -> Names:
        """The names of a plugin's project.

        Raises:
            click.UsageError: no plugin can be called so.
        """
        short = re.sub(r"^covet[-_.]+", "", _checked(given), flags=re.IGNORECASE)
        names = cls(given, short if _plugin_fault(short, given) is None else given)
        fault = _plugin_fault(names.plugin, given) or _package_fault(names.package, given)
        if fault is not None:
            raise click.UsageError(f"a plugin cannot be called {given!r}: {fault}")
        return names

    def values(self) -> dict[str, str]:
        """What the templates put in place."""
        from covet import __version__

        major, minor = __version__.split(".")[:2]
        return {
            "distribution": self.distribution,
            "package": self.package,
            "plugin": self.plugin,
            "path": self.plugin.replace("_", "-"),
            "class_name": "".join(part.capitalize() for part in self.plugin.split("_")),
            "title": self.title,
            "kernel": f"{major}.{minor}",
            "next_kernel": f"{major}.{int(minor) + 1}" if major == "0" else f"{int(major) + 1}",
        }


# The keys of [plugins] beside the tables of plugins, and what `plugin_sandbox` has a parameter for.
RESERVED = frozenset({"enable", "disable", "optional", "prefer", "settings"})


def _plugin_fault(plugin: str, distribution: str) -> str | None:
    """Why a plugin cannot have this name in the settings and on the command line; None when it can."""
    from importlib.metadata import entry_points
    from keyword import iskeyword

    from covet.cli.groups import COMMANDS

    name = _identifier(plugin)
    if not name.isidentifier() or iskeyword(name):
        return "that is no name for a module of Python"
    if name in RESERVED:
        return "the settings use that name"
    if name in COMMANDS:
        return f"Covet has a command `{name}` of its own"
    for entry_point in entry_points(group="covet.plugins", name=name):
        if entry_point.dist is not None and _identifier(entry_point.dist.name) != _identifier(distribution):
            return f"{entry_point.dist.name}, which is installed, brings a plugin of that name"
    return None


def _package_fault(package: str, distribution: str) -> str | None:
    """Why a package cannot have this name; None when it can."""
    from importlib.metadata import entry_points
    from importlib.util import find_spec

    if package in sys.stdlib_module_names:
        return f"Python has a module {package!r} of its own"
    found = find_spec(package)
    # A directory without a module in it, or a plugin of the same name that is to be written anew, is no obstacle.
    plugins = {_identifier(entry.dist.name) for entry in entry_points(group="covet.plugins") if entry.dist is not None}
    if found is None or found.origin is None or _identifier(distribution) in plugins:
        return None
    return f"there is a module {package!r} already: {found.origin}"


def _checked(given: str) -> str:
    if not NAME.fullmatch(given):
        raise click.UsageError(
            f"{given!r} cannot be a project's name: take letters, digits and hyphens, with a letter first, "
            "such as acme-hello"
        )
    return given


def _identifier(name: str) -> str:
    return re.sub(r"[-_.]+", "_", name).lower()


def last_part(path: str) -> str:
    """The name of the directory that a path leads to; `.` has one, too."""
    return Path(os.path.abspath(path)).name if path else ""


def write_scaffold(kind: Literal["project", "plugin"], directory: Path, names: Names) -> list[Path]:
    """Write a project into a directory that does not exist yet, or is empty.

    Returns:
        The files, relative to the directory.

    Raises:
        Failure: there is something already, or it cannot be written.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise Failure(f"{directory} exists already and is not empty; choose another name, or remove it first")
    values = names.values()
    written = []
    try:
        for path, template in _templates(files("covet.cli") / "templates" / kind, Path()):
            target = directory / _renamed(path, names)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(Template(template.read_text("utf-8")).substitute(values), encoding="utf-8", newline="\n")
            written.append(target.relative_to(directory))
    except OSError as error:
        raise Failure(f"{error.filename or directory} cannot be written: {error.strerror}") from error
    return sorted(written)


def _templates(directory: Traversable, path: Path) -> Iterator[tuple[Path, Traversable]]:
    for entry in sorted(directory.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _templates(entry, path / entry.name)
        elif entry.name.endswith(SUFFIX):
            yield path / entry.name, entry


def _renamed(path: Path, names: Names) -> Path:
    parts = [re.sub(r"^dot-", ".", part).replace("__package__", names.package) for part in path.parts]
    return Path(*parts).with_suffix("") if parts[-1].endswith(SUFFIX) else Path(*parts)
