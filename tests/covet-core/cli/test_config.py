"""`covet config`: what is set, where it comes from, and what is wrong with it. Secrets stay secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.synthetic import Site

from covet import Settings, SettingsError
from covet.cli.selection import Selection


@pytest.fixture
def project(directory: Path) -> Path:
    app = "from covet import Covet\napp = Covet({'server.port': 9000}, installed_plugins=False)"
    (directory / "app.py").write_text(app)
    (directory / "covet.toml").write_text('[app]\nname = "shop"\nsecret_key = "a-secret-that-stands-in-the-file-0"\n')
    return directory


def rows(result: Any) -> dict[str, tuple[str, str]]:
    return {row["key"]: (row["value"], row["origin"]) for row in json.loads(result.stdout)}


def test_show_has_value_and_origin_of_every_key(cli: Any, project: Path) -> None:
    result = cli("config", "show", "--json", env={"COVET_SERVER__WORKERS": "3"})
    assert result.exit_code == 0
    shown = rows(result)
    assert shown["app.name"] == ("shop", "covet.toml")
    assert shown["server.workers"] == ("3", "environment COVET_SERVER__WORKERS")
    assert shown["server.port"] == ("9000", "argument")
    assert shown["server.host"] == ("127.0.0.1", "default")
    assert shown["app.secret_key"] == ("********", "covet.toml")
    assert "a-secret" not in result.output
    lines = cli("config", "show").output.splitlines()
    assert lines[0].split() == ["key", "value", "origin"]
    assert len(lines) == len(shown) + 1


def test_show_has_the_settings_of_plugins(cli: Any, project: Path) -> None:
    (project / "app.py").write_text("from covet import Covet\napp = Covet()")
    (project / "covet.toml").write_text('[plugins.timing]\npath = "/times"\n')
    assert rows(cli("config", "show", "--json"))["plugins.timing.path"] == ("/times", "covet.toml")


def test_secrets_are_never_shown(cli: Any, site: Site, project: Path) -> None:
    site.add(
        "acme-mail",
        plugins={"mail": "acme_mail"},
        modules={
            "acme_mail": """
            import covet, msgspec
            from covet import Secret

            class MailSettings(msgspec.Struct, frozen=True):
                url: str = ""
                password: Secret | None = None
                tokens: list[Secret] = []

            @covet.hookimpl
            def covet_settings():
                return MailSettings
            """
        },
    )
    (project / "app.py").write_text("from covet import Covet\napp = Covet()")
    (project / "covet.toml").write_text(
        '[plugins.mail]\nurl = "smtp://me:swordfish@host/"\npassword = "env:MAIL"\ntokens = ["swordfish"]\n'
    )
    for command in (("config", "show"), ("config", "show", "--json"), ("check",), ("plugins", "show", "mail")):
        result = cli(*command, env={"MAIL": "swordfish"})
        assert result.exit_code == 0
        assert "swordfish" not in result.output
    assert "smtp://me:********@host/" in cli("config", "show", env={"MAIL": "swordfish"}).output


def test_show_without_an_application(cli: Any, directory: Path) -> None:
    result = cli("config", "show", "--json")
    assert result.exit_code == 0
    assert "there is no module 'app'" in result.stderr
    assert rows(result)["server.port"] == ("8000", "default")
    assert cli("config", "show", "shop:app").exit_code == 1


@pytest.mark.parametrize("command", [("show",), ("check",)])
def test_every_fault_is_told_at_once(cli: Any, directory: Path, command: tuple[str, ...]) -> None:
    (directory / "covet.toml").write_text('[server]\nprot = 1\nworkers = "many"\n[serve]\n')
    result = cli("config", *command, env={"COVET_APP__NAME": ""})
    assert result.exit_code == 1
    for told in (
        "covet.toml: serve: there is no section [serve]",
        "covet.toml: server.prot: there is no key 'prot'",
        "covet.toml: server.workers: ",
        "environment COVET_APP__NAME: app.name: ",
    ):
        assert told in result.stderr


def test_check_includes_the_plugins(cli: Any, directory: Path) -> None:
    (directory / "covet.toml").write_text("[plugins.timing]\nslow = 1.0\n")
    result = cli("config", "check")
    assert (result.exit_code, result.output) == (0, "covet.toml: nothing is wrong\n")
    (directory / "covet.toml").write_text("[plugins.timing]\nslw = 1.0\n")
    result = cli("config", "check")
    assert (result.exit_code, "did you mean 'slow'?" in result.stderr) == (1, True)


def test_check_of_a_secret_that_is_missing(cli: Any, directory: Path) -> None:
    (directory / "covet.toml").write_text('[app]\nsecret_key = "env:NOTHING_OF_THE_KIND"\n')
    result = cli("config", "check")
    assert (result.exit_code, "NOTHING_OF_THE_KIND" in result.stderr) == (1, True)


# The commands read `[plugins]` in haste; what they find is what the settings say.

names = st.lists(st.sampled_from(["alpha", "beta", "gamma-x", "x y"]), max_size=3)
tables = st.dictionaries(st.sampled_from(["enable", "disable", "optional", "prefer"]), names)
variables = st.dictionaries(
    st.sampled_from(["COVET_PLUGINS", "COVET_PLUGINS__ENABLE", "COVET_PLUGINS__DISABLE", "COVET_PLUGINS__PREFER"]),
    st.sampled_from(["", "alpha", "beta, alpha", ",", "gamma-x,,x y "]),
)


@given(table=tables, environ=variables, file=st.sampled_from(["covet.toml", "pyproject.toml", "other.toml", None]))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_selection_is_what_the_settings_say(
    directory: Path, table: dict[str, list[str]], environ: dict[str, str], file: str | None
) -> None:
    for path in directory.iterdir():
        path.unlink()
    head = "[tool.covet.plugins]" if file == "pyproject.toml" else "[plugins]"
    if file is not None:
        lines = [head, *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
        (directory / file).write_text("\n".join(lines) + "\n")
    if file == "other.toml":
        environ = {**environ, "COVET_SETTINGS": file}
    selection = Selection.read(environ)
    assert selection.problem is None
    said = Settings.load(environ=environ).plugins
    assert (selection.enable, selection.disable) == (said.enable, said.disable)
    assert (selection.optional, selection.prefer) == (said.optional, said.prefer)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("covet.toml", "[plugins"),
        ("covet.toml", "plugins = 1"),
        ("covet.toml", "[plugins]\nenable = 'x'"),
        ("covet.toml", "[plugins]\ndisable = [1]"),
        ("pyproject.toml", "[tool.covet]\nplugins = []"),
        ("pyproject.toml", "[tool]\ncovet = 1"),
    ],
)
def test_what_the_selection_cannot_read_the_settings_refuse(directory: Path, file: str, text: str) -> None:
    (directory / file).write_text(text)
    selection = Selection.read({})
    assert selection.problem is not None
    assert (selection.enable, selection.disable) == (None, [])
    with pytest.raises(SettingsError):
        Settings.load(environ={})
