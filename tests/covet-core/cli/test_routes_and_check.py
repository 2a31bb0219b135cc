"""`covet routes` and `covet check`, and how they and the others find the application."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.synthetic import Site

APP = """
from functools import partial
from covet import Covet, WebSocket

app = Covet(installed_plugins=False)

@app.get("/items/{id:int}")
async def item(id: int) -> int:
    return id

@app.route("/items", methods=("POST", "PUT"))
def change() -> None: ...

@app.websocket("/live")
async def live(socket: WebSocket) -> None: ...

class Deep:
    def __call__(self) -> str: return ""

app.get("/deep", name="deep")(Deep())
app.get("/partly", name="partly")(partial(change))
app.mount("/static", Covet(installed_plugins=False))
"""


@pytest.fixture
def app(directory: Path) -> Path:
    path = directory / "app.py"
    path.write_text(APP)
    return path


def findings(result: Any) -> list[tuple[str, str]]:
    return [(found["severity"], found["subject"]) for found in json.loads(result.stdout)]


# routes


def test_routes_lists_all(cli: Any, app: Path) -> None:
    result = cli("routes", "--json")
    assert result.exit_code == 0
    rows = {row["path"]: row for row in json.loads(result.stdout)}
    assert rows["/items/{id:int}"] == {
        "methods": ["GET"],
        "path": "/items/{id:int}",
        "name": "item",
        "handler": "app.item",
        "owner": "application",
        "source": "app.py:7",
    }
    assert rows["/items"]["methods"] == ["POST", "PUT"]
    assert (rows["/live"]["methods"], rows["/static/..."]["methods"]) == (["WS"], ["ANY"])
    assert (rows["/deep"]["source"], rows["/partly"]["source"]) == ("app.py:18", "app.py:11")
    lines = cli("routes").output.splitlines()
    assert lines[0].split() == ["methods", "path", "name", "handler", "owner"]
    assert len(lines) == len(rows) + 1
    assert "app.py:7" in cli("routes", "--source").output


def test_routes_of_plugins_are_told_apart(cli: Any, site: Site, directory: Path) -> None:
    site.add(
        "acme-hello",
        plugins={"hello": "acme_hello"},
        modules={
            "acme_hello": """
            import covet
            async def hello() -> str: return ""
            @covet.hookimpl
            def covet_routes(app): return [covet.Route("/hello", hello)]
            """
        },
    )
    (directory / "app.py").write_text("from covet import Covet\napp = Covet()")
    rows = {row["path"]: row for row in json.loads(cli("routes", "--json").stdout)}
    assert rows["/hello"]["owner"] == "hello"
    assert rows["/hello"]["source"].endswith("acme_hello.py:3")


def test_an_application_without_routes(cli: Any, directory: Path) -> None:
    (directory / "app.py").write_text("from covet import Covet\napp = Covet(installed_plugins=False)")
    assert cli("routes").output == "The application has no routes.\n"
    assert cli("routes", "--json").output == "[]\n"


# Finding the application


@pytest.mark.parametrize(
    ("source", "target", "told"),
    [
        (None, [], "there is no module 'app'"),
        (None, ["shop.web:app"], "there is no module 'shop.web'"),
        ("import nothing_of_the_kind", [], "Install what brings 'nothing_of_the_kind'"),
        ("app = 1", [], "app:app is a int, not an application"),
        ("from covet import Covet as app", [], "app:app is the class Covet, not an application"),
        ("from covet import Covet\nservice = Covet()", [], "It has one that is called 'service': app:service"),
        ("", [], "Write `app = Covet()` into app.py"),
        ("raise SystemExit(3)", [], "app cannot be imported: SystemExit: 3"),
        ("def", [], "SyntaxError"),
        ("def f():\n    1 / 0\nf()", [], 'File "app.py", line 2, in f'),
        (
            "from covet import Covet\napp = Covet(installed_plugins=False)\n@app.get('/')\ndef f(x: bytes): ...",
            [],
            "app.f",
        ),
    ],
)
def test_an_application_that_cannot_be_had(
    cli: Any, directory: Path, source: str | None, target: list[str], told: str
) -> None:
    if source is not None:
        (directory / "app.py").write_text(source)
    result = cli("routes", *target)
    assert (result.exit_code, told in result.stderr) == (1, True), result.stderr
    assert "Traceback" not in result.output
    result = cli("check", *target, "--json")
    assert (result.exit_code, findings(result)) == (1, [("error", "application")])


@pytest.mark.parametrize(
    ("target", "told"),
    [("app.py", "did you mean app:app?"), ("./shop/web.py", "shop.web:app?"), ("a b", "module:name")],
)
def test_a_target_of_another_form_is_wrong_usage(cli: Any, directory: Path, target: str, told: str) -> None:
    for command in ("routes", "shell", "run"):
        result = cli(command, target)
        assert (result.exit_code, told in result.stderr) == (2, True)


def test_the_target_is_an_argument_or_a_setting(cli: Any, directory: Path) -> None:
    (directory / "shop").mkdir()
    (directory / "shop" / "web.py").write_text(
        "from covet import Covet\nclass Holder:\n    app = Covet(installed_plugins=False)\n"
        "other = Covet(installed_plugins=False)\n@other.get('/other')\ndef other_index(): ..."
    )
    (directory / "covet.toml").write_text('[app]\ntarget = "shop.web:other"\n')
    assert "/other" in cli("routes").output
    assert "no routes" in cli("routes", "shop.web:Holder.app").output


# check


def test_check_finds_nothing(cli: Any, app: Path, directory: Path) -> None:
    (directory / "covet.toml").write_text('[app]\nsecret_key = "env:KEY"\n')
    result = cli("check", env={"KEY": "x" * 32})
    assert (result.exit_code, result.output) == (0, "Nothing is wrong.\n")


def test_check_advises_what_production_wants(cli: Any, directory: Path) -> None:
    (directory / "app.py").write_text("from covet import Covet\napp = Covet()")
    result = cli("check", "--json")
    assert result.exit_code == 0
    # covet-timing is installed where the tests run.
    assert findings(result) == [("advice", "[app] secret_key"), ("advice", "[plugins] enable")]
    assert "covet plugins pin" in result.stdout
    assert cli("check", "--strict").exit_code == 0


def test_check_warns_of_debug(cli: Any, app: Path) -> None:
    result = cli("check", "--json", env={"COVET_APP__DEBUG": "true"})
    assert (result.exit_code, findings(result)) == (0, [("warning", "[app] debug")])
    assert cli("check", "--strict", env={"COVET_APP__DEBUG": "true"}).exit_code == 1


@pytest.mark.parametrize(
    ("settings", "subject", "told"),
    [
        ("[server]\nprot = 1\n", "settings", "did you mean 'port'?"),
        ("[server]\nport = 'x'\n[app]\nname = 1\n", "settings", "2 settings are wrong"),
        ("[server\n", "settings", "is not TOML"),
        ('[app]\nsecret_key = "env:NOTHING_OF_THE_KIND"\n', "application", "NOTHING_OF_THE_KIND"),
        ('[storage.default]\nurl = "oracle://x"\n', "application", "oracle"),
        ("[plugins.nobody]\nx = 1\n", "application", "nobody"),
        ('[plugins]\ndisable = ["nobody"]\n', "application", "nobody"),
    ],
)
def test_check_finds_wrong_settings(
    cli: Any, app: Path, directory: Path, settings: str, subject: str, told: str
) -> None:
    app.write_text("from covet import Covet\napp = Covet()")
    (directory / "covet.toml").write_text(settings)
    result = cli("check", "--json")
    assert (result.exit_code, findings(result)) == (1, [("error", subject)])
    assert told in json.loads(result.stdout)[0]["message"]


def test_check_tells_of_a_plugin_that_failed(cli: Any, site: Site, directory: Path) -> None:
    site.add("acme-bad", plugins={"bad": "acme_bad"}, modules={"acme_bad": "raise RuntimeError('no battery')"})
    (directory / "app.py").write_text("from covet import Covet\napp = Covet()")
    result = cli("check", "--json")
    assert (result.exit_code, findings(result)) == (1, [("error", "application")])
    assert "RuntimeError: no battery" in result.stdout
    (directory / "covet.toml").write_text('[plugins]\noptional = ["bad"]\n')
    result = cli("check", "--json")
    assert result.exit_code == 0
    assert ("warning", "plugin bad") in findings(result)


def test_check_tells_that_the_server_is_missing(cli: Any, app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from covet.cli import check

    monkeypatch.setattr(check, "find_spec", lambda name: None)
    result = cli("check", "--json")
    assert ("warning", "server") in findings(result)
    assert "covet-core[server]" in result.stdout
