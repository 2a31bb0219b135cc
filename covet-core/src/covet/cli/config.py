"""`covet config`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from covet.cli.groups import EXIT_CODES, Group, command
from covet.cli.reporting import Failure, aside, note, print_json, print_table
from covet.cli.targets import load_application, target_argument

if TYPE_CHECKING:
    from covet.settings import Settings

__all__ = ["config"]


@click.command(
    "config",
    cls=Group,
    example="covet config show\ncovet config check",
    table={
        "show": ("covet.cli.config:show", "Show every setting and where it comes from."),
        "check": ("covet.cli.config:check_settings", "Check the settings, those of plugins included."),
    },
)
def config() -> None:
    """Show or check the settings: covet.toml, then the environment, then the application's arguments."""


@command("show", example="covet config show\ncovet config show --json")
@target_argument
@click.option("--json", "as_json", is_flag=True, help="Print an array of objects.")
def show(target: str | None, as_json: bool) -> None:
    """Show every setting, its value and where that comes from. Secrets and passwords are hidden.

    The application is loaded, for it may bring settings of its own and its plugins theirs; when it cannot be, file and
    environment are shown alone.
    """
    with aside():
        rows = _settings(target).rows()
    if as_json:
        print_json([{"key": row.key, "value": row.value, "origin": row.origin} for row in rows])
    else:
        print_table(["key", "value", "origin"], [[row.key, row.value, row.origin] for row in rows])


def _settings(target: str | None) -> Settings:
    from covet.settings import Settings

    settings = Settings.load()
    try:
        return load_application(target if target is not None else settings.app.target).settings
    except Failure as failure:
        if target is not None:
            raise
        note(f"these are the settings without the application, which cannot be loaded: {failure.message}")
        return settings


@command("check", example="covet config check", exit_codes=EXIT_CODES)
def check_settings() -> None:
    """Check the settings of the working directory and the environment, those of the installed plugins included.

    The application itself is not imported; `covet check` does that.
    """
    from covet.applications import Covet
    from covet.settings import Settings

    settings = Settings.load()
    with aside():
        Covet(settings).build()
    click.echo(f"{settings.source or 'the environment'}: nothing is wrong")
