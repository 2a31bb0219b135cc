"""From `module:name` to the application, with every mistake on the way told in the user's own terms."""

from __future__ import annotations

import os
import re
import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

import click

from covet.cli.reporting import Failure, describe_error

if TYPE_CHECKING:
    from covet.applications import Covet

__all__ = ["load_application", "target_argument"]

TARGET = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")

target_argument = click.argument("target", required=False, metavar="[MODULE:NAME]")
"""The argument of commands that work on the application: which one; `[app] target` by default."""


def load_application(target: str | None = None, *, build: bool = True) -> Covet:
    """Import the application and build it.

    Args:
        target: `module:name`; by default what `[app] target` says, which is `app:app` by default.
        build: whether to build it too.

    Raises:
        Failure: it is not there, cannot be imported or cannot be built; the message says where and why.
    """
    module_name, name = split(target if target is not None else settings_target())
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    module = _import(module_name)
    app = _find(module, name)
    if build:
        build_application(app, f"{module_name}:{name}")
    return app


def settings_target() -> str:
    """What `[app] target` says.

    Raises:
        Failure: the settings are wrong.
    """
    from covet.exceptions import SettingsError
    from covet.settings import Settings

    try:
        return Settings.load().app.target
    except SettingsError as error:
        raise Failure(str(error)) from error


def split(target: str) -> tuple[str, str]:
    """The module's name and the application's name in it.

    Raises:
        click.UsageError: the target has another form.
    """
    if not TARGET.fullmatch(target):
        guess = target.removesuffix(".py").strip("./").replace("/", ".")
        hint = f"; did you mean {guess}:app?" if TARGET.fullmatch(f"{guess}:app") else ""
        raise click.UsageError(f"{target!r} names no application: it has the form module:name, such as app:app{hint}")
    module, _, name = target.partition(":")
    return module, name


def build_application(app: Covet, called: str) -> None:
    """Build an application.

    Raises:
        Failure: it cannot be built; the message says why.
    """
    from covet.exceptions import ConfigurationError

    try:
        app.build()
    except ConfigurationError as error:
        raise Failure(str(error)) from error
    except Exception as error:
        raise Failure(f"the application {called} cannot be built: {describe_error(error)}") from error


def _import(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise Failure(
                f"there is no module {name!r} in {os.getcwd()}, nor is one installed\n"
                "  Say where the application is: as an argument (`covet run package.module:name`), or in covet.toml as "
                '`target = "package.module:name"` under [app]. `covet new NAME` writes a new project.'
            ) from error
        raise Failure(
            f"{name} cannot be imported: {describe_error(error)}\n"
            f"  Install what brings {error.name!r} into this environment ({sys.prefix}), or correct the name."
        ) from error
    except (Exception, SystemExit) as error:
        raise Failure(f"{name} cannot be imported: {describe_error(error)}") from error


def _find(module: ModuleType, name: str) -> Covet:
    from covet.applications import Covet

    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if isinstance(found, Covet):
        return found
    if found is None:
        said = f"{module.__name__} has no {name!r}"
    else:
        said = f"{module.__name__}:{name} is {_described(found)}, not an application (an instance of covet.Covet)"
    others = [other for other, value in vars(module).items() if isinstance(value, Covet)]
    if others:
        hint = f"It has one that is called {others[0]!r}: {module.__name__}:{others[0]}"
    else:
        hint = f"Write `{name} = Covet()` into {_file_of(module)}, or name another target."
    raise Failure(f"{said}\n  {hint}")


def _described(value: object) -> str:
    if isinstance(value, ModuleType):
        return f"the module {value.__name__}"
    return f"the class {value.__qualname__}" if isinstance(value, type) else f"a {type(value).__name__}"


def _file_of(module: ModuleType) -> str:
    file = getattr(module, "__file__", None)
    if file is None:
        return f"the module {module.__name__}"
    near: str = os.path.relpath(file)
    return str(file) if near.startswith(os.pardir) else near
