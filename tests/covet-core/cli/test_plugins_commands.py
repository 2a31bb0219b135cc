"""`covet plugins`: what is installed, what it does, what is wrong with it."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from tests.synthetic import Site

from covet.cli.reporting import Failure

GOOD = """
import covet

@covet.hookimpl
def covet_routes(app):
    return [covet.Route("/hello", hello)]

async def hello() -> str:
    return "hello"
"""


@pytest.fixture
def hello(site: Site) -> Site:
    """A plugin that works."""
    site.add(
        "acme-hello",
        version="1.2",
        summary="Greets.",
        requires=["covet-core>=0.1", "pytest; extra == 'test'"],
        plugins={"hello": "acme_hello"},
        commands={"hello": "acme_hello_commands:command"},
        modules={"acme_hello": GOOD, "acme_hello_commands": "import click\ncommand = click.Command('hello')"},
    )
    return site


def listed(result: Any) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in json.loads(result.stdout)}


def findings(result: Any) -> list[tuple[str, str]]:
    return [(found["severity"], found["subject"]) for found in json.loads(result.stdout)]


# list


def test_list_says_what_is_installed(hello: Site, cli: Any) -> None:
    result = cli("plugins", "list", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    rows = listed(result)
    seconds = rows["hello"].pop("import_seconds")
    assert seconds > 0
    assert rows["hello"] == {
        "name": "hello",
        "version": "1.2",
        "distribution": "acme-hello",
        "state": "active",
        "provides": ["routes", "command hello"],
        "error": None,
        "optional": False,
        "summary": "Greets.",
        "entry_point": "acme_hello",
    }
    assert {row["state"] for row in rows.values() if row["distribution"] == "covet-core"} == {"builtin"}


def test_list_is_a_table_for_people(hello: Site, cli: Any) -> None:
    lines = cli("plugins", "list").output.splitlines()
    assert lines[0].split("  ")[0] == "name"
    (line,) = [line for line in lines if line.startswith("hello ")]
    assert line.split()[:4] == ["hello", "1.2", "acme-hello", "active"]


def test_list_starts_nothing(hello: Site, covet: Any, directory: Path) -> None:
    """Neither the application nor any hook but the one for settings is called; a command's module is not imported."""
    hello.write_module(
        "acme_hello",
        """
        import covet

        def refuse(*_):
            raise AssertionError("called")

        @covet.hookimpl
        def covet_setup(app): refuse()

        @covet.hookimpl
        def covet_routes(app): refuse()

        @covet.hookimpl
        def covet_lifespan(app): refuse()
        """,
    )
    (directory / "app.py").write_text("raise AssertionError('imported')")
    code = (
        "import sys; from covet.cli import main\n"
        "try: main(['plugins', 'list', '--json'])\n"
        "finally:\n"
        "    unwanted = {'app', 'acme_hello_commands', 'covet.applications'}\n"
        "    print(*unwanted & set(sys.modules), file=sys.stderr)"
    )
    done = covet("-c", code, program=[sys.executable], COVET_PLUGINS="hello")
    assert (done.returncode, done.stderr.strip()) == (0, "")
    assert listed(done)["hello"]["provides"] == ["lifespan", "routes", "setup", "command hello"]


def test_list_shows_every_state(hello: Site, cli: Any, directory: Path) -> None:
    hello.add("acme-off", plugins={"off": "acme_off"}, modules={"acme_off": "raise RuntimeError('imported')"})
    hello.add("acme-bad", plugins={"bad": "acme_bad"}, modules={"acme_bad": "raise RuntimeError('no battery')"})
    hello.add(
        "acme-next",
        requires=["covet-core>=99"],
        plugins={"next": "acme_next"},
        modules={"acme_next": "raise RuntimeError('imported')"},
    )
    (directory / "covet.toml").write_text('[plugins]\ndisable = ["off"]\noptional = ["bad"]\n')
    result = cli("plugins", "list", "--json")
    assert result.exit_code == 0
    rows = listed(result)
    assert {name: rows[name]["state"] for name in ("hello", "off", "bad", "next")} == {
        "hello": "active",
        "off": "disabled",
        "bad": "failed",
        "next": "incompatible",
    }
    assert (rows["bad"]["error"], rows["bad"]["optional"]) == ("RuntimeError: no battery", True)
    assert "covet-core>=99" in rows["next"]["error"]
    assert rows["off"]["error"] is None
    assert (rows["off"]["import_seconds"], rows["next"]["import_seconds"]) == (None, None)
    assert not {"acme_off", "acme_next"} & set(sys.modules)
    table = cli("plugins", "list").output
    assert "RuntimeError: no battery" in table
    assert "`covet plugins show NAME` says why" in table


def test_list_finds_settings_that_do_not_fit(hello: Site, cli: Any, directory: Path) -> None:
    hello.write_module(
        "acme_hello",
        """
        import covet, msgspec

        class Wanted(msgspec.Struct):
            greeting: str = "Hello"

        @covet.hookimpl
        def covet_settings():
            return Wanted
        """,
    )
    (directory / "covet.toml").write_text('[plugins.hello]\ngreting = "Hi"\n')
    row = listed(cli("plugins", "list", "--json"))["hello"]
    assert row["state"] == "failed"
    assert "did you mean 'greeting'?" in row["error"]


# Settings that make no sense


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("[plugins\n", "covet.toml: "),
        ("plugins = 1\n", "a table [plugins] was expected"),
        ("[plugins]\ndisable = 'hello'\n", "[plugins] disable: a list of names was expected"),
        (b"\xff", "covet.toml: "),
    ],
)
def test_with_unreadable_settings_the_commands_work_and_nothing_is_imported(
    hello: Site, cli: Any, directory: Path, settings: str | bytes, told: str
) -> None:
    """What the settings were to disable, nobody can know; it must not be imported for that."""
    hello.write_module("acme_hello", "raise RuntimeError('imported')")
    (directory / "covet.toml").write_bytes(settings if isinstance(settings, bytes) else settings.encode())
    result = cli("plugins", "list", "--json")
    assert (result.exit_code, told in result.stderr) == (1, True)
    assert "no plugin is imported" in result.stderr
    assert result.stderr.count("\n") == 1
    assert listed(result)["hello"]["version"] == "1.2"
    result = cli("plugins", "show", "hello")
    assert (result.exit_code, told in result.stderr, "acme-hello 1.2" in result.stdout) == (0, True, True)
    result = cli("plugins", "check", "--json")
    assert (result.exit_code, findings(result)) == (1, [("error", "plugins")])
    result = cli("plugins", "hooks")
    assert (result.exit_code, told in result.stderr) == (1, True)
    result = cli("plugins", "pin")
    assert (result.exit_code, told in result.stderr) == (1, True)
    assert "acme_hello" not in sys.modules


def test_a_settings_file_that_is_a_directory(hello: Site, cli: Any, directory: Path) -> None:
    (directory / "covet.toml").mkdir()
    result = cli("plugins", "list")
    assert (result.exit_code, "covet.toml: Is a directory" in result.stderr) == (1, True)


def test_a_name_that_is_not_installed_leaves_the_rest_as_they_were(hello: Site, cli: Any, directory: Path) -> None:
    hello.add("acme-off", plugins={"off": "acme_off"}, modules={"acme_off": "raise RuntimeError('imported')"})
    (directory / "covet.toml").write_text('[plugins]\ndisable = ["off", "helo"]\n')
    result = cli("plugins", "list", "--json")
    assert (result.exit_code, "did you mean 'hello'?" in result.stderr) == (1, True)
    rows = listed(result)
    assert (rows["hello"]["state"], rows["off"]["state"]) == ("active", "disabled")
    assert rows["hello"]["provides"] == ["routes", "command hello"]
    assert cli("plugins", "check").exit_code == 1


# show


def test_show(hello: Site, cli: Any) -> None:
    result = cli("plugins", "show", "hello")
    assert result.exit_code == 0
    facts = dict(line.split(None, 1) for line in result.output.splitlines() if line)
    assert facts["distribution"] == "acme-hello 1.2"
    assert facts["provides"] == "routes, command hello"
    assert facts["requires"] == "covet-core>=0.1"
    assert json.loads(cli("plugins", "show", "hello", "--json").stdout)["summary"] == "Greets."


def test_show_has_the_traceback_of_a_failure(hello: Site, cli: Any) -> None:
    hello.write_module("acme_hello", "def start():\n    raise RuntimeError('no battery')\n\nstart()\n")
    result = cli("plugins", "show", "hello")
    assert result.exit_code == 0
    assert "Traceback (most recent call last)" in result.stdout
    assert 'acme_hello.py", line 2, in start' in result.stdout
    shown = json.loads(cli("plugins", "show", "hello", "--json").stdout)
    assert (shown["state"], "line 2, in start" in shown["traceback"]) == ("failed", True)


def test_show_of_a_plugin_that_is_not_there(hello: Site, cli: Any) -> None:
    result = cli("plugins", "show", "helo")
    assert (result.exit_code, "did you mean 'hello'?" in result.stderr) == (1, True)
    result = cli("plugins", "show", "xyzzy")
    assert (result.exit_code, "`covet plugins list`" in result.stderr) == (1, True)


# check


def test_check_finds_nothing_where_nothing_is_wrong(hello: Site, cli: Any) -> None:
    result = cli("plugins", "check")
    assert (result.exit_code, result.output) == (0, "Nothing is wrong.\n")
    assert json.loads(cli("plugins", "check", "--json").stdout) == []


@pytest.mark.parametrize(
    ("source", "severity", "told"),
    [
        ("raise RuntimeError('no battery')", "error", "RuntimeError: no battery"),
        ("raise SystemExit(3)", "error", "SystemExit"),
        ("def", "error", "SyntaxError"),
        ("import covet\n@covet.hookimpl\ndef covet_routs(app): ...", "error", "did you mean 'covet_routes'?"),
        ("import covet\n@covet.hookimpl\ndef covet_routes(application): ...", "error", "application"),
        ("import covet\n@covet.hookimpl\nasync def covet_routes(app): ...", "error", "def"),
        ("def covet_routes(app): ...", "warning", "@covet.hookimpl"),
    ],
)
def test_check_finds_what_does_not_fit(hello: Site, cli: Any, source: str, severity: str, told: str) -> None:
    hello.write_module("acme_hello", source)
    result = cli("plugins", "check", "--json")
    assert result.exit_code == 1
    assert (severity, "plugin hello") in findings(result)
    assert any(told in found["message"] for found in json.loads(result.stdout))
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("@covet.hookimpl\ndef covet_setup(app): {}['missing']", "failed in covet_setup: KeyError: 'missing'"),
        ("@covet.hookimpl\ndef covet_routes(app): return [1]", "'hello'"),
        ("@covet.hookimpl\ndef covet_routes(app): return 1", "'hello'"),
        (
            "async def show() -> str: return ''\n"
            "@covet.hookimpl\ndef covet_routes(app): return [covet.Route('/openapi.json', show)]",
            "GET /openapi.json is claimed by",
        ),
    ],
)
def test_check_finds_what_comes_out_when_plugins_are_put_together(
    hello: Site, cli: Any, source: str, told: str
) -> None:
    hello.write_module("acme_hello", f"import covet\n{source}\n")
    result = cli("plugins", "check", "--json")
    assert (result.exit_code, "Traceback" in result.output) == (1, False)
    assert any(told in found["message"] for found in json.loads(result.stdout)), result.output


# hooks


def test_hooks_lists_all_with_who_implements_them(hello: Site, cli: Any) -> None:
    result = cli("plugins", "hooks", "--json")
    assert result.exit_code == 0
    hooks = {row["name"]: row for row in json.loads(result.stdout)}
    assert "hello" in hooks["covet_routes"]["implemented_by"]
    assert (hooks["covet_routes"]["kind"], hooks["covet_ready"]["kind"]) == ("sync", "async")
    assert hooks["covet_routes"]["arguments"] == ["app"]
    assert all(row["documentation"] for row in hooks.values())
    assert len(cli("plugins", "hooks").output.splitlines()) == len(hooks) + 1


def test_hooks_shows_one(hello: Site, cli: Any) -> None:
    result = cli("plugins", "hooks", "routes")
    assert result.output == cli("plugins", "hooks", "covet_routes").output
    assert result.output.startswith("covet_routes(app), sync\n\n")
    assert "hello" in result.output.splitlines()[-1]
    result = cli("plugins", "hooks", "covet_routs")
    assert (result.exit_code, "there is no hook 'covet_routs'" in result.stderr) == (1, True)


def test_hooks_has_those_that_plugins_bring(hello: Site, cli: Any) -> None:
    hello.write_module(
        "acme_hello",
        '''
        import covet

        class Specifications:
            @covet.hookspec
            def covet_hello_words(self, app):
                """Words to greet with."""

        @covet.hookimpl
        def covet_hookspecs():
            return [Specifications]
        ''',
    )
    result = cli("plugins", "hooks", "covet_hello_words")
    assert (result.exit_code, "Words to greet with." in result.output) == (0, True)


# pin


def test_pin_writes_what_is_installed(hello: Site, cli: Any, directory: Path) -> None:
    (directory / "covet.toml").write_text('# Ours\n[plugins]\ndisable = ["timing"]  # not here\n[app]\nname = "shop"\n')
    result = cli("plugins", "pin")
    assert result.exit_code == 0
    text = (directory / "covet.toml").read_text()
    assert text.startswith("# Ours\n")
    settings = tomllib.loads(text)
    assert settings["app"] == {"name": "shop"}
    assert {"hello", "openapi"} <= set(settings["plugins"]["enable"])
    assert "timing" not in settings["plugins"]["enable"]
    hello.add("acme-late", plugins={"late": "acme_late"}, modules={"acme_late": "raise RuntimeError('imported')"})
    assert listed(cli("plugins", "list", "--json"))["late"]["state"] == "disabled"
    result = cli("plugins", "pin")
    assert "\n  + late\n" in result.output
    assert "acme_late" not in sys.modules


def test_pin_tells_that_the_environment_goes_first(hello: Site, cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVET_PLUGINS", "hello")
    result = cli("plugins", "pin")
    assert (result.exit_code, "COVET_PLUGINS is set" in result.stderr) == (0, True)


def test_pin_makes_the_settings_file(hello: Site, cli: Any, directory: Path) -> None:
    (directory / "pyproject.toml").write_text('[project]\nname = "shop"\n')
    assert cli("plugins", "pin").exit_code == 0
    assert "hello" in tomllib.loads((directory / "covet.toml").read_text())["plugins"]["enable"]
    assert (directory / "pyproject.toml").read_text() == '[project]\nname = "shop"\n'


def test_pin_keeps_to_the_file_that_holds_the_settings(hello: Site, cli: Any, directory: Path) -> None:
    (directory / "pyproject.toml").write_text('[tool.covet.app]\nname = "shop"\n')
    assert cli("plugins", "pin").exit_code == 0
    settings = tomllib.loads((directory / "pyproject.toml").read_text())["tool"]["covet"]
    assert (settings["app"], "hello" in settings["plugins"]["enable"]) == ({"name": "shop"}, True)
    assert not (directory / "covet.toml").exists()
    assert cli("config", "check").exit_code == 0


@pytest.mark.parametrize(
    "before",
    [
        "",
        "[plugins]",
        "[plugins]\n",
        "[plugins] # which\nprefer = []\n",
        '[plugins]\nenable = ["x"] # why\n',
        '[plugins]\nenable = [\n  "x",\n  "y", # z\n]\nprefer = []\n',
        '[app]\nname = "a"',
        '[plugins.timing]\nslow = 1.0\n[app]\nname = "a"\n',
        "[ plugins ]\r\nprefer = []\r\n",
    ],
)
def test_the_list_is_written_and_nothing_else(directory: Path, before: str) -> None:
    from covet.cli.allowlist import write_allow_list

    path = directory / "covet.toml"
    path.write_bytes(before.encode())
    expected = tomllib.loads(before)
    write_allow_list(path, ["a", "b-ü"])
    expected.setdefault("plugins", {})["enable"] = ["a", "b-ü"]
    after = path.read_bytes().decode()
    assert tomllib.loads(after) == expected
    assert [line for line in before.splitlines() if "#" in line and "which" in line] == [
        line for line in after.splitlines() if "which" in line
    ]
    assert ("\r\n" in after) == ("\r\n" in before)
    assert "# why" in after or "# why" not in before


@pytest.mark.parametrize(
    "before",
    [
        "plugins = {prefer = []}\n",
        "plugins.prefer = []\n",
        "[plugins\n",
        "plugins = 1\n",
        'x = """\n[plugins]\nenable = [1]\n"""\n[plugins]\nprefer = []\n',
    ],
)
def test_what_cannot_be_edited_is_left_as_it_is(directory: Path, before: str) -> None:
    from covet.cli.allowlist import write_allow_list

    path = directory / "covet.toml"
    path.write_text(before)
    with pytest.raises(Failure, match=r"covet\.toml"):
        write_allow_list(path, ["a"])
    assert path.read_text() == before


def test_a_settings_file_that_cannot_be_had(directory: Path) -> None:
    from covet.cli.allowlist import write_allow_list

    (directory / "covet.toml").mkdir()
    with pytest.raises(Failure, match=r"covet\.toml cannot be read: Is a directory"):
        write_allow_list(directory / "covet.toml", ["a"])
    with pytest.raises(Failure, match=r'nowhere/covet\.toml cannot be written: .*\n  enable = \["a"\]'):
        write_allow_list(directory / "nowhere" / "covet.toml", ["a"])
