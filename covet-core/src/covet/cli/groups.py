"""The tree of commands: which there are is known without importing them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from covet.cli.reporting import Failure, note

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from covet.cli.selection import Selection

__all__ = ["Group", "command", "make_root"]

COMMANDS: Mapping[str, tuple[str, str]] = {
    "new": ("covet.cli.new:new", "Write a new project."),
    "run": ("covet.cli.run:run", "Serve the application."),
    "routes": ("covet.cli.routes:routes", "List the routes of the application."),
    "check": ("covet.cli.check:check", "Find what is wrong before serving does."),
    "config": ("covet.cli.config:config", "Show or check the settings."),
    "shell": ("covet.cli.shell:shell", "Open a Python prompt with the application running."),
    "plugins": ("covet.cli.plugins:plugins", "List, check, pin and write plugins."),
}

EXIT_CODES = "Exit codes: 0 all went well, 1 a failure or a finding, 2 wrong usage."
TRACEBACK = "covet.traceback"
CONTEXT: Mapping[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
"""Of every command by itself: click keeps the option of `--help` that a command had when it was first asked for it."""


def epilog(example: str, exit_codes: str = EXIT_CODES) -> str:
    """The end of a command's `--help`: lines to type at a prompt, and what the exit codes mean."""
    lines = "\n".join(f"  {line}" for line in example.strip().splitlines())
    return f"\b\nExample:\n{lines}\n\n{exit_codes}"


def _remember_traceback(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        context.meta[TRACEBACK] = True


def _traceback_option() -> click.Option:
    return click.Option(
        ["--traceback"],
        is_flag=True,
        expose_value=False,
        callback=_remember_traceback,
        help="Show the whole traceback of an error.",
    )


class _Command(click.Command):
    """A command with `--traceback`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(context_settings=dict(CONTEXT), **options)
        self.params.append(_traceback_option())


def command(name: str, *, example: str, exit_codes: str = EXIT_CODES) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a function a command of Covet's: with `--traceback`, an example and the exit codes in its `--help`.

    Args:
        example: lines to type at a prompt.
    """
    return click.command(name, cls=_Command, epilog=epilog(example, exit_codes))


class Group(click.Group):
    """A group whose commands are imported when they are called.

    Args:
        table: name to where a command is (`module:attribute`) and its line in the group's help.
        example: lines to type at a prompt, for the group's help.
        plugins: whether plugins add commands to this group.
    """

    def __init__(
        self,
        *args: Any,
        table: Mapping[str, tuple[str, str]],
        example: str,
        plugins: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(*args, epilog=epilog(example), context_settings=dict(CONTEXT), **options)
        self.params.append(_traceback_option())
        self._table = table
        self._plugins = plugins
        self._offered: dict[str, list[EntryPoint]] | None = None

    # Which commands there are

    @property
    def offered(self) -> dict[str, list[EntryPoint]]:
        """The commands of plugins that take part, by name, without importing any. One name may be claimed twice."""
        if self._offered is None:
            self._offered, problem = available_commands() if self._plugins else ({}, None)
            if problem:
                note(problem)
        return self._offered

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands."""
        return [*self._table, *sorted(name for name in self.offered if name not in self._table)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command.

        Raises:
            Failure: it is a plugin's, and cannot be imported, or two plugins claim its name.
        """
        if cmd_name in self._table:
            module, _, attribute = self._table[cmd_name][0].partition(":")
            found: click.Command = getattr(import_module(module), attribute)
            return found
        claims = self.offered.get(cmd_name)
        return None if claims is None else load_command(cmd_name, claims)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the arguments name; suggest the nearest when there is none."""
        name = args[0]
        if (
            not name.startswith("-")
            and name not in self._table
            and name not in self.offered
            and not ctx.resilient_parsing
        ):
            raise click.UsageError(_no_such_command(name, self.list_commands(ctx)), ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands into the group's help; those of plugins with who brings them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_) for name, (_, help_) in self._table.items()])
        brought = [
            (name, f"Brought by {', '.join(owner(claim) for claim in self.offered[name])}.")
            for name in self.list_commands(ctx)
            if name not in self._table
        ]
        if brought:
            with formatter.section("Commands of plugins"):
                formatter.write_dl(brought)

    # Errors

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. A user's mistake becomes one message; with `--traceback`, it stays what it was."""
        try:
            return super().invoke(ctx)
        except Failure as failure:
            if ctx.meta.get(TRACEBACK) and failure.__cause__ is not None:
                raise failure.__cause__ from None
            raise
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            # A closed pipe is no failure; click ends the program quietly.
            if ctx.meta.get(TRACEBACK) or isinstance(error, BrokenPipeError):
                raise
            from covet.exceptions import CovetError

            if isinstance(error, CovetError):
                raise Failure(str(error)) from error
            name = ctx.invoked_subcommand
            if name is not None and name not in self._table and name in self.offered:
                raise Failure(
                    f"the command {name!r} of {owner(self.offered[name][0])} failed: {type(error).__name__}: {error}\n"
                    f"  `covet --traceback {name} ...` shows where"
                ) from error
            raise


def _no_such_command(name: str, known: list[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, known, 1)
    return f"there is no command {name!r}" + (f"; did you mean {near[0]!r}?" if near else "; `--help` lists them")


def available_commands() -> tuple[dict[str, list[EntryPoint]], str | None]:
    """The commands of installed plugins by name; those of disabled plugins are left out, and of two claims the one
    that `[plugins] prefer` names first wins.

    Returns:
        The commands, and why the settings that choose among them could not be read, or None.
    """
    from covet.plugins import discover_commands

    found = discover_commands()
    if not found:
        return found, None
    from covet.cli.selection import Selection

    selection = Selection.read()
    offered = {}
    brought = Brought()
    for name, claims in found.items():
        active = [claim for claim in claims if _takes_part(brought.plugins_of(claim), selection)]
        if active:
            offered[name] = _preferred(active, selection.prefer, brought)
    return offered, selection.problem


class Brought:
    """Which plugins bring which commands, by what is installed; that is read once, as reading it takes long."""

    def __init__(self) -> None:
        from importlib.metadata import entry_points

        self._names: dict[int, tuple[object, str]] = {}
        self._plugins: dict[str, list[EntryPoint]] = {}
        for entry_point in entry_points(group="covet.plugins"):
            self._plugins.setdefault(self._distribution(entry_point), []).append(entry_point)

    def plugins_of(self, command: EntryPoint) -> list[str]:
        """The names of the plugins that bring a command: the one whose module holds it, else all of its
        distribution."""
        found = self._plugins.get(self._distribution(command), [])
        inside = [plugin.name for plugin in found if f"{command.module}.".startswith(f"{plugin.module}.")]
        return inside or [plugin.name for plugin in found]

    def _distribution(self, entry_point: EntryPoint) -> str:
        """The name of the distribution of an entry point, whose metadata is read for the first one of it."""
        from covet.discovery import describe

        found = entry_point.dist
        kept = self._names.get(id(found))
        if kept is None:
            # With the object, whose id would be another's when it is gone.
            kept = self._names[id(found)] = found, "".join(describe(found).get("name", [])[:1])
        return kept[1]


def _takes_part(names: list[str], selection: Selection) -> bool:
    """Whether any plugin that brings a command takes part; a distribution that brings commands alone always does."""
    return not names or any(
        name not in selection.disable and (selection.enable is None or name in selection.enable) for name in names
    )


def _preferred(claims: list[EntryPoint], prefer: list[str], brought: Brought) -> list[EntryPoint]:
    if len(claims) > 1:
        for name in prefer:
            for claim in claims:
                if name in brought.plugins_of(claim):
                    return [claim]
    return claims


def load_command(name: str, claims: list[EntryPoint]) -> click.Command:
    """Import the command of a plugin.

    Raises:
        Failure: it cannot be imported, is none, or is claimed twice.
    """
    if len(claims) > 1:
        owners = " and ".join(sorted(owner(claim) for claim in claims))
        raise Failure(
            f"two plugins bring a command {name!r}: {owners}\n"
            "  Uninstall one, or name the plugin that wins under [plugins] in covet.toml: `prefer = [...]`"
        )
    (claim,) = claims
    try:
        loaded = claim.load()
    except (Exception, SystemExit) as error:
        raise Failure(
            f"the command {name!r} of {owner(claim)} cannot be loaded: {type(error).__name__}: {error}\n"
            f"  `covet --traceback {name}` shows where; other commands work as ever"
        ) from error
    if not isinstance(loaded, click.Command):
        raise Failure(
            f"the command {name!r} of {owner(claim)} is no click command: {claim.value} is {type(loaded).__name__}"
        )
    return loaded


def owner(entry_point: EntryPoint) -> str:
    """The distribution that brings a command, for messages."""
    if entry_point.dist is None:
        return entry_point.module
    return f"{entry_point.dist.name} {entry_point.dist.version}"


def _choose_settings(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        # In the environment, where the processes that serve find it too.
        os.environ["COVET_SETTINGS"] = value


def make_root() -> Group:
    """The root of the tree: `covet`."""

    @click.command(
        "covet",
        cls=Group,
        table=COMMANDS,
        plugins=True,
        example="covet new shop\ncovet run --reload\ncovet plugins list",
    )
    @click.option(
        "--settings",
        metavar="FILE",
        is_eager=True,
        expose_value=False,
        # While the options are read: the settings decide which commands there are.
        callback=_choose_settings,
        help="The settings file; by default covet.toml, then pyproject.toml.",
    )
    @click.version_option(_version(), message="%(prog)s %(version)s")
    @click.pass_context
    def root(context: click.Context) -> None:
        """Covet: a plugin-based microkernel for asynchronous Python services.

        The application is `app:app` in the working directory, unless an argument or `[app] target` in covet.toml says
        otherwise.
        """
        if os.environ.get("NO_COLOR"):
            context.color = False

    assert isinstance(root, Group)
    return root


def _version() -> str:
    from covet import __version__

    return __version__
