"""Commands that plugins bring: known without an import, run without the other plugins, and no danger to the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.synthetic import Site

REPORT = """
import json, sys
import click

@click.command()
@click.option("--json", "as_json", is_flag=True)
def command(as_json):
    click.echo(json.dumps(sorted(sys.modules)))
"""

PLUGIN = "import covet\n@covet.hookimpl\ndef covet_setup(app): ..."

ZETA = "import click\ncommand = click.Command('hello', help='Of zeta.')"


@pytest.fixture
def greeting(site: Site) -> Site:
    """Two plugins, one of which brings a command in a module of its own."""
    site.add(
        "acme-hello",
        plugins={"hello": "acme_hello.plugin"},
        commands={"hello": "acme_hello.commands:command"},
        modules={"acme_hello.plugin": PLUGIN, "acme_hello.commands": REPORT},
    )
    site.add("acme-other", plugins={"other": "acme_other"}, modules={"acme_other": PLUGIN})
    return site


def test_a_command_runs_without_any_plugin(greeting: Site, covet: Any) -> None:
    done = covet("hello", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    modules = set(json.loads(done.stdout))
    assert "acme_hello.commands" in modules
    assert not modules & {"acme_hello.plugin", "acme_other", "covet_timing", "covet.builtin"}
    assert not modules & {"msgspec", "anyio", "asyncio", "rich"}, "a command pays for what it needs alone"


def test_help_names_who_brings_a_command_and_imports_none(greeting: Site, cli: Any) -> None:
    greeting.write_module("acme_hello.commands", "raise RuntimeError('imported')")
    result = cli("--help")
    assert result.exit_code == 0
    assert "Commands of plugins:" in result.output
    assert any(line.split() == ["hello", "Brought", "by", "acme-hello", "1.0."] for line in result.output.splitlines())


def test_a_command_that_cannot_be_imported(greeting: Site, cli: Any, covet: Any) -> None:
    greeting.write_module("acme_hello.commands", "raise RuntimeError('no battery')")
    result = cli("hello")
    assert result.exit_code == 1
    assert result.stderr.startswith(
        "Error: the command 'hello' of acme-hello 1.0 cannot be loaded: RuntimeError: no battery"
    )
    done = covet("--traceback", "hello")
    assert (done.returncode, "commands.py" in done.stderr, "Traceback" in done.stderr) == (1, True, True)
    assert cli("config", "show").exit_code == 0
    assert cli("plugins", "list").exit_code == 0


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("acme_nothing:command", "No module named 'acme_nothing'"),
        ("acme_hello.commands:missing", "missing"),
        ("acme_hello.commands:json", "is no click command: acme_hello.commands:json is module"),
    ],
)
def test_an_entry_point_to_nothing(site: Site, cli: Any, value: str, told: str) -> None:
    site.add("acme-hello", commands={"hello": value}, modules={"acme_hello.commands": REPORT})
    result = cli("hello")
    assert (result.exit_code, told in result.stderr) == (1, True)
    assert "acme-hello 1.0" in result.stderr


def test_check_imports_the_commands_too(greeting: Site, cli: Any) -> None:
    greeting.write_module("acme_hello.commands", "raise RuntimeError('no battery')")
    result = cli("plugins", "check", "--json")
    (found,) = json.loads(result.stdout)
    assert (result.exit_code, found["severity"], found["subject"]) == (1, "error", "command hello")
    assert "RuntimeError: no battery" in found["message"]


def test_what_a_command_may_rely_on() -> None:
    import covet.cli

    for name in covet.cli.__all__:
        assert callable(getattr(covet.cli, name))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = covet.cli.nothing


def test_a_command_that_ends_the_import(greeting: Site, cli: Any) -> None:
    greeting.write_module("acme_hello.commands", "raise SystemExit(3)")
    result = cli("hello")
    assert (result.exit_code, "SystemExit: 3" in result.stderr) == (1, True)


def test_a_command_that_fails(greeting: Site, covet: Any) -> None:
    greeting.write_module("acme_hello.commands", "import click\n@click.command()\ndef command():\n    {}['missing']\n")
    done = covet("hello")
    assert done.returncode == 1
    assert done.stderr == (
        "Error: the command 'hello' of acme-hello 1.0 failed: KeyError: 'missing'\n"
        "  `covet --traceback hello ...` shows where\n"
    )
    assert "{}['missing']" in covet("--traceback", "hello").stderr


def test_a_command_may_fail_in_its_own_words(greeting: Site, cli: Any) -> None:
    greeting.write_module(
        "acme_hello.commands",
        """
        import click
        from covet import SettingsError
        from covet.cli import Failure

        @click.group()
        def command(): ...

        @command.command()
        def fail(): raise Failure("nothing to greet")

        @command.command()
        def usage(): raise click.UsageError("greet whom?")

        @command.command()
        def settings(): raise SettingsError("no greeting is set")

        @command.command()
        def four(): raise SystemExit(4)

        @command.command()
        def interrupt(): raise KeyboardInterrupt
        """,
    )
    for name, code, told in [
        ("fail", 1, "Error: nothing to greet\n"),
        ("settings", 1, "Error: no greeting is set\n"),
        ("four", 4, ""),
        ("interrupt", 1, "Aborted!\n"),
    ]:
        result = cli("hello", name)
        assert (result.exit_code, result.stderr.lstrip()) == (code, told)
    result = cli("hello", "usage")
    assert (result.exit_code, "greet whom?" in result.stderr) == (2, True)


def test_two_commands_of_one_name(greeting: Site, cli: Any, directory: Path) -> None:
    greeting.add(
        "zeta-hello",
        plugins={"zeta": "zeta_hello"},
        commands={"hello": "zeta_commands:command"},
        modules={"zeta_hello": PLUGIN, "zeta_commands": ZETA},
    )
    result = cli("hello")
    assert result.exit_code == 1
    assert "two plugins bring a command 'hello': acme-hello 1.0 and zeta-hello 1.0" in result.stderr
    assert "prefer" in result.stderr
    result = cli("plugins", "check", "--json")
    assert result.exit_code == 1
    assert [found["subject"] for found in json.loads(result.stdout)] == ["command hello"]
    assert cli("config", "show").exit_code == 0

    (directory / "covet.toml").write_text('[plugins]\nprefer = ["zeta"]\n')
    assert "Of zeta." in cli("hello", "--help").output
    (directory / "covet.toml").write_text('[plugins]\ndisable = ["zeta"]\n')
    assert "Of zeta." not in cli("hello", "--help").output
    assert cli("hello").exit_code == 0


def test_a_command_that_covet_has_itself(greeting: Site, cli: Any) -> None:
    greeting.add("acme-run", commands={"routes": "acme_nowhere:command"})
    assert cli("routes", "--help").exit_code == 0
    assert "List the routes of the application" in cli("routes", "--help").output
    result = cli("plugins", "check", "--json")
    assert (result.exit_code, json.loads(result.stdout)[0]["subject"]) == (1, "command routes")
    assert "never run" in json.loads(result.stdout)[0]["message"]


def test_the_commands_of_a_disabled_plugin_are_not_there(greeting: Site, cli: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("COVET_PLUGINS", "other")
    assert cli("hello").exit_code == 2
    assert "hello" not in cli("--help").output
    monkeypatch.setenv("COVET_PLUGINS", "other, hello")
    assert cli("hello").exit_code == 0
    monkeypatch.delenv("COVET_PLUGINS")
    monkeypatch.setenv("COVET_PLUGINS__DISABLE", "hello")
    assert cli("hello").exit_code == 2


def test_a_distribution_that_brings_a_command_alone(site: Site, cli: Any, monkeypatch: Any) -> None:
    site.add("acme-tool", commands={"tool": "acme_tool:command"}, modules={"acme_tool": REPORT})
    monkeypatch.setenv("COVET_PLUGINS", "")
    assert cli("tool").exit_code == 0


def test_settings_that_cannot_be_read_do_not_stop_a_command(greeting: Site, cli: Any, directory: Path) -> None:
    (directory / "covet.toml").write_text("[plugins\n")
    result = cli("hello")
    assert result.exit_code == 0
    assert result.stderr.startswith("Note: the settings cannot be read: covet.toml: ")
