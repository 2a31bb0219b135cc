"""`covet plugins`: what is installed, what it does, what is wrong with it.

These commands load the plugins themselves and not the application, so that they work whatever is broken.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from covet.cli.groups import Group, command
from covet.cli.reporting import Failure, aside, note, print_json, print_table

if TYPE_CHECKING:
    from covet.plugins import PluginManager, PluginRecord
    from covet.settings_sections import PluginsSettings

__all__ = ["plugins"]


@click.command(
    "plugins",
    cls=Group,
    example="covet plugins list\ncovet plugins new acme-hello",
    table={
        "list": ("covet.cli.plugins:list_plugins", "List the installed plugins."),
        "show": ("covet.cli.plugins:show", "Show one plugin, with the traceback when it failed."),
        "check": ("covet.cli.plugins:check", "Load all plugins and find what is wrong with them."),
        "hooks": ("covet.cli.plugins:hooks", "List the hooks and who implements them."),
        "new": ("covet.cli.plugins:new", "Write a new plugin, with tests."),
        "pin": ("covet.cli.plugins:pin", "Write the list of allowed plugins into the settings."),
    },
)
def plugins() -> None:
    """List, check, pin and write plugins."""


class Loaded:
    """The plugins, loaded as far as they can be.

    Attributes:
        manager: they are in its `records`, whatever happened.
        problem: why they could not be chosen or put in order, or why the settings could not be read; or None.
        ready: whether the hooks can be asked for.
    """

    def __init__(self) -> None:
        from covet.cli.selection import Selection
        from covet.exceptions import PluginError
        from covet.plugins import PluginManager

        selection = Selection.read()
        self.problem = selection.problem
        self.ready = False
        self._commands = _commands_by_plugin()
        # A Selection has what the manager reads of PluginsSettings, and costs no import of msgspec.
        self.manager = PluginManager(cast("PluginsSettings", selection))
        try:
            self.manager.discover()
        except PluginError as error:
            self.problem = self.problem or str(error)
            self.manager = PluginManager(cast("PluginsSettings", selection.only(self.manager.records)))
            self.manager.discover()
        if selection.problem:
            # Who knows which plugins the settings were to disable; those are never imported.
            self.problem = f"{self.problem}; until they can be, no plugin is imported here"
            return
        try:
            with aside():
                self.manager.load()
                self.ready = True
                self._check_settings()
        except PluginError as error:
            self.problem = self.problem or str(error)

    def _check_settings(self) -> None:
        """Let a plugin fail whose settings do not fit, as it does when an application is built."""
        if not self.manager.implementers("covet_settings") or self.problem:
            return
        from covet.exceptions import SettingsError
        from covet.settings import Settings

        try:
            settings = Settings.load()
        except SettingsError as error:
            self.problem = str(error)
            return
        self.manager.configure(settings)

    def provides(self, record: PluginRecord) -> list[str]:
        """The hooks and the commands of a plugin."""
        commands = self._commands.get(record.name, []) if record.usable else []
        return [*record.provides, *(f"command {name}" for name in commands)]

    def find(self, name: str) -> PluginRecord:
        """The record of a plugin.

        Raises:
            Failure: none is called so.
        """
        record = self.manager.records.get(name)
        if record is None:
            from difflib import get_close_matches

            near = get_close_matches(name, self.manager.records, 1)
            hint = f"did you mean {near[0]!r}?" if near else "`covet plugins list` lists those that are installed"
            raise Failure(f"no plugin is called {name!r}; {hint}")
        return record

    def remark(self) -> None:
        """Tell of the problem, if there is one, and go on."""
        if self.problem is not None:
            note(self.problem)

    def end(self) -> None:
        """Tell of the problem, if there is one, and exit with 1 then."""
        if self.problem is not None:
            note(self.problem, label="Error")
            raise click.exceptions.Exit(1)


def _commands_by_plugin() -> dict[str, list[str]]:
    from covet.cli.groups import Brought
    from covet.plugins import discover_commands

    found: dict[str, list[str]] = {}
    brought = Brought()
    for name, claims in discover_commands().items():
        for claim in claims:
            for plugin in brought.plugins_of(claim):
                found.setdefault(plugin, []).append(name)
    return found


def _as_json(record: PluginRecord, provides: list[str]) -> dict[str, Any]:
    return {
        "name": record.name,
        "version": record.version,
        "distribution": record.distribution,
        "state": record.state,
        "provides": provides,
        "error": record.error,
        "optional": record.optional,
        "summary": record.summary,
        "entry_point": record.entry_point,
        "import_seconds": record.import_seconds,
    }


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.1f} ms"


@command("list", example="covet plugins list\ncovet plugins list --json")
@click.option("--json", "as_json", is_flag=True, help="Print an array of objects.")
def list_plugins(as_json: bool) -> None:
    """List the installed plugins, whether they take part, and what they provide.

    The state is `builtin` (active, of Covet's own), `active`, `disabled` (never imported), `failed` or `incompatible`
    (not imported). Nothing is started. The exit code is 0 whatever the states are; it is 1 when the settings make no
    sense.
    """
    loaded = Loaded()
    records = list(loaded.manager.records.values())
    if as_json:
        print_json([_as_json(record, loaded.provides(record)) for record in records])
    elif not records:
        click.echo("No plugins are installed.")
    else:
        print_table(
            ["name", "version", "distribution", "state", "provides", "import time"],
            [
                [
                    record.name,
                    record.version,
                    record.distribution,
                    record.state,
                    ", ".join(loaded.provides(record)) or record.error or "-",
                    _milliseconds(record.import_seconds),
                ]
                for record in records
            ],
        )
        if any(record.error for record in records):
            click.echo("\n`covet plugins show NAME` says why one failed.")
    loaded.end()


@command("show", example="covet plugins show openapi")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print an object.")
def show(name: str, as_json: bool) -> None:
    """Show a plugin: where it comes from, what it provides, why it failed."""
    loaded = Loaded()
    record = loaded.find(name)
    loaded.remark()
    provides = loaded.provides(record)
    if as_json:
        requires = list(record.requires)
        print_json({**_as_json(record, provides), "requires": requires, "traceback": record.traceback})
        return
    facts = [
        ("name", record.name),
        ("summary", record.summary),
        ("distribution", f"{record.distribution} {record.version}".strip()),
        ("state", record.state + (", optional" if record.optional else "")),
        ("entry point", record.entry_point),
        ("provides", ", ".join(provides)),
        ("requires", ", ".join(requirement for requirement in record.requires if "extra ==" not in requirement)),
        ("import time", _milliseconds(record.import_seconds)),
        ("error", record.error or ""),
    ]
    width = max(len(label) for label, _ in facts)
    for label, value in facts:
        if value:
            click.echo(f"{label.ljust(width)}  {value}")
    if record.traceback:
        click.echo(f"\n{record.traceback.rstrip()}")


@command(
    "check",
    example="covet plugins check\ncovet plugins check --json",
    exit_codes="Exit codes: 0 nothing was found, 1 a finding, 2 wrong usage.",
)
@click.option("--json", "as_json", is_flag=True, help="Print an array of objects.")
def check(as_json: bool) -> None:
    """Load all plugins and find what is wrong: failed imports, hooks that do not fit, deprecated hooks, settings,
    collisions of routes, commands, dependencies and backends."""
    from covet.cli.check import Found, broken_commands, command_collisions, report

    loaded = Loaded()
    found = [Found("error", "plugins", loaded.problem)] if loaded.problem else []
    if loaded.ready:
        found += [Found(item.severity, f"plugin {item.plugin}", item.message) for item in loaded.manager.check()]
    found += command_collisions()
    with aside():
        if not any(item.severity == "error" for item in found):
            found += _when_composed()
        if loaded.ready:
            found += broken_commands()
    report(found, as_json=as_json, failing=("error", "warning"))


def _when_composed() -> list[Any]:
    """What comes out only when the plugins are put together in an application."""
    from covet.applications import Covet
    from covet.cli.check import Found
    from covet.cli.targets import build_application
    from covet.exceptions import SettingsError

    try:
        build_application(Covet(), "of the installed plugins alone")
    except Failure as failure:
        subject = "settings" if isinstance(failure.__cause__, SettingsError) else "plugins"
        return [Found("error", subject, failure.message)]
    return []


@command("hooks", example="covet plugins hooks\ncovet plugins hooks covet_routes")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print an array of objects.")
def hooks(name: str | None, as_json: bool) -> None:
    """List every hook with who implements it; with a NAME, show one hook's documentation.

    Hooks that plugins bring for their own plugins are among them.
    """
    loaded = Loaded()
    if not loaded.ready:
        loaded.end()
    loaded.remark()
    rows = [_hook(loaded.manager, hook) for hook in loaded.manager.hook_names()]
    if name is not None:
        rows = [row for row in rows if row["name"] in (name, f"covet_{name}")]
        if not rows:
            raise Failure(f"there is no hook {name!r}; `covet plugins hooks` lists them")
    if as_json:
        print_json(rows)
    elif name is not None:
        row = rows[0]
        click.echo(f"{row['name']}({', '.join(row['arguments'])}), {row['kind']}\n\n{row['documentation']}\n")
        click.echo(f"Implemented by: {', '.join(row['implemented_by']) or 'nobody'}")
    else:
        print_table(
            ["hook", "kind", "implemented by", "what it is for"],
            [
                [row["name"], row["kind"], ", ".join(row["implemented_by"]) or "-", row["documentation"].split("\n")[0]]
                for row in rows
            ],
        )


def _hook(manager: PluginManager, name: str) -> dict[str, Any]:
    from inspect import getdoc, iscoroutinefunction

    caller = getattr(manager.manager.hook, name)
    return {
        "name": name,
        "kind": "async" if iscoroutinefunction(caller.spec.function) else "sync",
        "arguments": list(caller.spec.argnames),
        "implemented_by": manager.implementers(name),
        "documentation": getdoc(caller.spec.function) or "",
    }


@command("new", example="covet plugins new acme-hello\ncd acme-hello && python -m pytest")
@click.argument("path", metavar="NAME")
def new(path: str) -> None:
    """Write a plugin: a project of its own, with a route, a command, settings, and tests that pass.

    NAME is the distribution's name, or a path whose last part is.
    """
    from covet.cli.scaffolding import Names, last_part, write_scaffold

    target = Path(path)
    names = Names.of_plugin(last_part(path))
    written = write_scaffold("plugin", target, names)
    click.echo(f"Wrote {names.distribution}, with the plugin {names.plugin!r}:")
    for file in written:
        click.echo(f"  {target / file}")
    click.echo(
        f"\nNext:\n  cd {target}\n  python -m pytest\n  pip install -e .        # installed plugins take part at once\n"
        f"  covet plugins show {names.plugin}"
    )


@command("pin", example="covet plugins pin")
def pin() -> None:
    """Write the list of allowed plugins (`enable` under [plugins]) into the settings file: all that are installed now
    and not disabled.

    What is installed later takes no part until it is pinned, too. The rest of the file stays as it is.
    """
    from covet.cli.allowlist import write_allow_list
    from covet.cli.selection import Selection, settings_file
    from covet.plugins import PluginManager

    selection = Selection.read()
    if selection.problem:
        raise Failure(selection.problem)
    before = selection.enable
    everything = Selection({"disable": selection.disable})
    manager = PluginManager(cast("PluginsSettings", everything))
    manager.discover()
    names = [name for name, record in manager.records.items() if record.state != "disabled"]
    path = settings_file() or Path("covet.toml")
    if path.name == "pyproject.toml" and not _has_settings(path):
        path = Path("covet.toml")
    write_allow_list(path, names)
    click.echo(f"{path}: {len(names)} plugins may take part: {', '.join(names) or 'none'}")
    for variable in ("COVET_PLUGINS", "COVET_PLUGINS__ENABLE"):
        if variable in os.environ:
            note(f"{variable} is set in the environment, and goes before the file")
    for name in names:
        if before is not None and name not in before:
            click.echo(f"  + {name}")
    for name in before or ():
        if name not in names:
            click.echo(f"  - {name}")


def _has_settings(path: Path) -> bool:
    import tomllib

    return "covet" in tomllib.loads(path.read_text("utf-8")).get("tool", {})
