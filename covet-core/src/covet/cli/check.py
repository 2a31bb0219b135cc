"""`covet check`."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, NamedTuple

import click

from covet.cli.groups import command
from covet.cli.reporting import Failure, aside, print_json, print_table
from covet.cli.targets import load_application, target_argument

if TYPE_CHECKING:
    from covet.applications import Covet
    from covet.settings import Settings

__all__ = ["Found", "broken_commands", "check", "command_collisions", "report"]


class Found(NamedTuple):
    """Something a check found: how serious it is, what it concerns, and what it is."""

    severity: Literal["error", "warning", "advice"]
    subject: str
    message: str


@command(
    "check",
    example="covet check\ncovet check --strict --json",
    exit_codes="Exit codes: 0 no error (with --strict: no warning either), 1 a finding, 2 wrong usage.",
)
@target_argument
@click.option("--strict", is_flag=True, help="Let warnings fail the check, too.")
@click.option("--json", "as_json", is_flag=True, help="Print an array of objects.")
def check(target: str | None, strict: bool, as_json: bool) -> None:
    """Find what can be wrong before serving: settings, plugins, routes, handlers, commands, the server.

    The application is imported and built; nothing is started.
    """
    with aside():
        found = list(_everything(target))
    report(found, as_json=as_json, failing=("error", "warning") if strict else ("error",))


def report(found: list[Found], *, as_json: bool, failing: tuple[str, ...]) -> None:
    """Print what was found; exit with 1 when any of it is of a failing severity."""
    if as_json:
        print_json([item._asdict() for item in found])
    elif found:
        print_table(["severity", "subject", "message"], found)
    else:
        click.echo("Nothing is wrong.")
    if any(item.severity in failing for item in found):
        raise click.exceptions.Exit(1)


def _everything(target: str | None) -> Iterator[Found]:
    from covet.exceptions import SettingsError
    from covet.settings import Settings

    try:
        settings = Settings.load()
    except SettingsError as error:
        yield Found("error", "settings", str(error))
        return
    try:
        app = load_application(target if target is not None else settings.app.target)
    except Failure as failure:
        yield Found("error", "application", failure.message)
        yield from command_collisions()
        return
    for finding in app.plugins.check():
        optional = app.plugins.records[finding.plugin].optional
        yield Found("warning" if optional else finding.severity, f"plugin {finding.plugin}", finding.message)
    yield from command_collisions()
    yield from _settings(app.settings)
    yield from _production(app)


def _settings(settings: Settings) -> Iterator[Found]:
    server = settings.server.server
    if find_spec(server) is None:
        extra = "server" if server == "granian" else server
        yield Found(
            "warning", "server", f"{server} is not installed: `covet run` needs `pip install 'covet-core[{extra}]'`"
        )
    if settings.app.debug:
        yield Found("warning", "[app] debug", "error pages show tracebacks; set it to false in production")
    elif settings.app.secret_key is None:
        yield Found(
            "advice",
            "[app] secret_key",
            'none is set, so that nothing can be signed: write `secret_key = "env:COVET_SECRET_KEY"` under [app]',
        )


def _production(app: Covet) -> Iterator[Found]:
    others = [name for name, record in app.plugins.records.items() if record.state == "active" and record.distribution]
    if others and app.settings.plugins.enable is None:
        yield Found(
            "advice",
            "[plugins] enable",
            "whatever is installed takes part; in production, write down what is meant to: `covet plugins pin`",
        )


def command_collisions() -> Iterator[Found]:
    """The commands that two plugins claim, or that Covet has itself."""
    from covet.cli.groups import COMMANDS, available_commands, owner

    for name, claims in available_commands()[0].items():
        owners = " and ".join(sorted(owner(claim) for claim in claims))
        if name in COMMANDS:
            yield Found("warning", f"command {name}", f"{owners}: Covet has a command of that name, so it is never run")
        elif len(claims) > 1:
            yield Found("error", f"command {name}", f"{owners} both bring it; say who wins: `[plugins] prefer`")


def broken_commands() -> Iterator[Found]:
    """The commands of plugins that cannot be imported."""
    from covet.cli.groups import COMMANDS, available_commands, load_command

    for name, claims in available_commands()[0].items():
        if name not in COMMANDS and len(claims) == 1:
            try:
                load_command(name, claims)
            except Failure as failure:
                yield Found("error", f"command {name}", failure.message.partition("\n")[0])
