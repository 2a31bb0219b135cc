"""What every command has in common: help, exit codes, messages instead of tracebacks, colour, pipes, Ctrl-C."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from covet.cli.groups import make_root

SCRIPT = str(Path(sys.executable).with_name("covet"))


def all_commands() -> Iterator[tuple[str, ...]]:
    """The path of every command of Covet's own, groups included."""

    def walk(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        yield path
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                inner = command.get_command(context, name)
                assert inner is not None
                yield from walk(inner, (*path, name))

    root = make_root()
    root._plugins = False
    return walk(root, ())


@pytest.mark.parametrize("path", list(all_commands()), ids=" ".join)
def test_every_command_explains_itself(cli: Any, path: tuple[str, ...]) -> None:
    result = cli(*path, "--help")
    assert result.exit_code == 0
    assert "Example:\n" in result.output
    assert f"  {' '.join(['covet', *path])}" in result.output
    assert "Exit codes: 0 " in result.output
    assert "--traceback" in result.output
    assert cli(*path, "-h").output == result.output


def test_nothing_to_do_is_wrong_usage(cli: Any) -> None:
    result = cli()
    assert (result.exit_code, "Usage: covet" in result.output) == (2, True)


def test_an_unknown_command_is_told_what_was_meant(cli: Any) -> None:
    result = cli("plugin", "list")
    assert (result.exit_code, "did you mean 'plugins'?" in result.stderr) == (2, True)
    result = cli("plugins", "lits")
    assert (result.exit_code, "did you mean 'list'?" in result.stderr) == (2, True)
    result = cli("xyzzy")
    assert (result.exit_code, "`--help` lists them" in result.stderr) == (2, True)
    assert cli("routes", "--jsno").exit_code == 2


def test_the_version(cli: Any) -> None:
    from importlib.metadata import version

    assert cli("--version").output == f"covet {version('covet-core')}\n"


def test_the_module_is_the_script(covet: Any) -> None:
    script = covet("plugins", "--help")
    module = covet("plugins", "--help", program=[sys.executable, "-m", "covet"])
    assert (module.returncode, module.stdout) == (0, script.stdout)


def test_help_imports_nothing_heavy(covet: Any) -> None:
    code = (
        "import sys; from covet.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print([name for name in ('anyio', 'msgspec', 'rich', 'asyncio', "
        "'covet_timing', 'covet.builtin') if name in sys.modules])"
    )
    done = covet("-c", code, program=[sys.executable])
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", [("routes",), ("check",), ("run",), ("shell", "-c", "1"), ("config", "show")])
def test_a_mistake_is_one_message_without_a_traceback(covet: Any, directory: Path, command: tuple[str, ...]) -> None:
    (directory / "app.py").write_text("from covet import Covet\nimport nothing_of_the_kind\n")
    done = covet(*command)
    printed = done.stdout + done.stderr
    assert "No module named 'nothing_of_the_kind'" in printed
    assert "app.py" in printed
    assert "Traceback" not in printed
    # The settings can be shown without the application.
    assert done.returncode == (0 if command[0] == "config" else 1)


def test_the_traceback_is_there_for_who_asks(covet: Any, directory: Path) -> None:
    (directory / "app.py").write_text("1 / 0\n")
    done = covet("routes", "--traceback")
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr
    assert "ZeroDivisionError: division by zero" in done.stderr
    assert covet("--traceback", "routes").stderr == done.stderr
    done = covet("run", "--traceback")
    assert "ZeroDivisionError: division by zero" in done.stderr


def at_a_terminal(*command: str, **environ: str) -> str:
    """What a command prints to a terminal."""
    terminal, end = pty.openpty()
    with subprocess.Popen(
        command, stdin=end, stdout=end, stderr=end, env={**os.environ, "TERM": "xterm-256color", **environ}
    ) as process:
        os.close(end)
        printed = b""
        while True:
            try:
                piece = os.read(terminal, 65536)
            except OSError:  # Linux says so when the other end is closed
                break
            if not piece:
                break
            printed += piece
    os.close(terminal)
    assert process.returncode in (0, 1)
    return printed.decode()


def test_colour_is_for_terminals(covet: Any, directory: Path) -> None:
    for command in (("plugins", "list"), ("routes",)):
        assert "\x1b[" in at_a_terminal(SCRIPT, *command)
        assert "\x1b[" not in at_a_terminal(SCRIPT, *command, NO_COLOR="1")
        done = covet(*command)
        assert "\x1b[" not in done.stdout + done.stderr


def test_a_closed_pipe_ends_quietly(directory: Path, environment: dict[str, str], site: Any) -> None:
    source = "import click\n@click.command()\ndef command():\n    for n in range(50000): click.echo(n)"
    site.add("acme-hello", commands={"hello": "acme_hello:command"}, modules={"acme_hello": source})
    for command in ("plugins hooks", "plugins list", "plugins list --json", "config show", "hello"):
        done = subprocess.run(
            ["sh", "-c", f"{SCRIPT} {command} | head -1"], env=environment, capture_output=True, text=True, check=True
        )
        assert len(done.stdout.splitlines()) == 1
        assert "Error" not in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [("run",), ("check",)])
def test_ctrl_c_while_the_application_is_imported(
    directory: Path, environment: dict[str, str], command: tuple[str, ...]
) -> None:
    (directory / "app.py").write_text("import pathlib, time\npathlib.Path('here').touch()\ntime.sleep(50)\n")
    with subprocess.Popen(
        [SCRIPT, *command], env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        while not (directory / "here").exists():
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        _, told = process.communicate(timeout=30)
    assert process.returncode == 1
    assert told.strip() == "Aborted!"
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_the_settings_option_is_read_before_the_commands(cli: Any, site: Any, directory: Path) -> None:
    site.add(
        "acme-hello",
        plugins={"hello": "acme_hello"},
        commands={"hello": "acme_hello_commands:command"},
        modules={"acme_hello": "", "acme_hello_commands": "import click\ncommand = click.Command('hello')"},
    )
    (directory / "other.toml").write_text('[plugins]\ndisable = ["hello"]\n')
    assert cli("hello").exit_code == 0
    result = cli("--settings", "other.toml", "hello")
    assert (result.exit_code, "there is no command 'hello'" in result.stderr) == (2, True)


def test_settings_that_cannot_be_read_are_named(cli: Any, directory: Path) -> None:
    for command in (("config", "show"), ("routes",), ("plugins", "list"), ("plugins", "pin"), ("check",)):
        result = cli("--settings", "nowhere.toml", *command)
        assert result.exit_code == 1
        assert re.search(r"nowhere\.toml.*No such file", result.output)
        assert result.exception is None or isinstance(result.exception, SystemExit)


def test_what_others_print_does_not_mix_with_the_result(covet: Any, site: Any, directory: Path) -> None:
    site.add(
        "acme-hello",
        plugins={"hello": "acme_hello"},
        modules={"acme_hello": "import covet\nprint('chatter')\n@covet.hookimpl\ndef covet_setup(app): print('more')"},
    )
    (directory / "app.py").write_text("from covet import Covet\nprint('chatter')\napp = Covet()")
    for command in (("plugins", "list"), ("plugins", "check"), ("plugins", "hooks"), ("routes",), ("config", "show")):
        done = covet(*command, "--json")
        assert done.returncode == 0
        assert isinstance(json.loads(done.stdout), list)
        assert "chatter" in done.stderr
    assert isinstance(json.loads(covet("check", "--json").stdout), list)
