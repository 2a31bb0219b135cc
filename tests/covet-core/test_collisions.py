"""Two plugins that claim the same thing: an error that names both, unless the settings say which one wins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.synthetic import Site

import covet
from covet import Covet, PluginError, Request, Route, RouteError
from covet.collisions import settle
from covet.storage import StorageBackend
from covet.testing import TestClient, plugin_sandbox

pytestmark = pytest.mark.anyio


class Mood:
    def __init__(self, word: str) -> None:
        self.word = word


class StormError(Exception):
    """Something to handle."""


class Fake:
    """A storage that does nothing."""

    kind = "fake"
    url = "fake://"

    def __init__(self, alias: str, owner: str) -> None:
        self.alias, self.owner = alias, owner

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def check(self) -> None: ...


class FakeSettings(msgspec.Struct):
    url: str


class Claimant:
    """Claims one of everything."""

    def __init__(self, name: str, what: str) -> None:
        self.name, self.what = name, what

    @covet.hookimpl
    def covet_routes(self, app: Covet) -> list[Route]:
        return [Route("/mine", self.show), Route(f"/{self.name}", self.show)] if self.what == "route" else []

    @covet.hookimpl
    def covet_dependencies(self, app: Covet) -> dict[Any, Any]:
        return {Mood: lambda: Mood(self.name)} if self.what == "dependency" else {}

    @covet.hookimpl
    def covet_encoders(self) -> dict[type, Any]:
        return {Mood: lambda mood: self.name} if self.what == "encoder" else {}

    @covet.hookimpl
    def covet_exception_handlers(self, app: Covet) -> dict[Any, Any]:
        if self.what == "error":
            return {StormError: lambda request, error: self.name}
        return {418: lambda request, error: self.name} if self.what == "status" else {}

    @covet.hookimpl
    def covet_secret_providers(self) -> dict[str, Any]:
        return {"vault": lambda path: f"secret of {self.name}"} if self.what == "secret" else {}

    @covet.hookimpl
    def covet_storage_backends(self) -> dict[str, StorageBackend]:
        backend = StorageBackend(lambda alias, settings: Fake(alias, self.name), FakeSettings)
        return {"fake": backend} if self.what == "storage" else {}

    async def show(self) -> str:
        return self.name


NAMED = {
    "route": "the route GET /mine",
    "dependency": "the dependency type <class",
    "encoder": "the encoder of Mood",
    "error": "the exception handler of <class",
    "status": "the exception handler of 418",
    "secret": "the secret provider vault",
    "storage": "the storage scheme fake",
}


@pytest.mark.parametrize("what", NAMED)
def test_a_collision_names_both(what: str) -> None:
    with pytest.raises(PluginError) as raised:
        plugin_sandbox(red=Claimant("red", what), blue=Claimant("blue", what)).build()
    message = str(raised.value)
    assert message.startswith(NAMED[what])
    assert "is claimed by the plugin 'blue' and the plugin 'red'" in message
    assert '`[plugins] prefer = ["red"]`' in message


@pytest.mark.parametrize("prefer", [["red"], ["blue"], ["red", "blue"], ["nobody", "blue", "red"]])
async def test_the_settings_say_who_wins(prefer: list[str]) -> None:
    winner = next(name for name in prefer if name in ("red", "blue"))
    plugins = {f"{name}_{what}": Claimant(name, what) for name in ("red", "blue") for what in NAMED}
    settings = {
        "plugins": {"prefer": [f"{name}_{what}" for name in prefer for what in NAMED]},
        "storage": {"default": {"url": "fake://here"}},
        "app": {"secret_key": "vault:key"},
    }
    app = plugin_sandbox(settings=settings, **plugins)

    @app.get("/mood")
    async def mood(mood: Mood) -> str:
        return mood.word

    @app.get("/encoded")
    async def encoded() -> Any:
        return {"mood": Mood("?")}

    @app.get("/storm")
    async def storm() -> None:
        raise StormError

    @app.get("/teapot")
    async def teapot() -> None:
        raise covet.HTTPError(418)

    async with TestClient(app) as client:
        for path in ("/mine", "/mood", "/storm", "/teapot"):
            assert (await client.get(path)).text == winner, path
        assert (await client.get("/encoded")).json() == {"mood": winner}
        # The other's other route is no collision.
        assert (await client.get("/red")).text == "red"
        assert (await client.get("/blue")).text == "blue"
        storage: Any = app.storage["default"]
        assert storage.owner == winner
    secret = app.settings.app.secret_key
    assert secret is not None
    assert secret.reveal() == f"secret of {winner}"


async def test_the_application_may_collide_and_win_too() -> None:
    def make(prefer: list[str]) -> Covet:
        app = plugin_sandbox(red=Claimant("red", "route"), settings={"plugins": {"prefer": prefer}})

        @app.get("/mine")
        async def mine() -> str:
            return "application"

        return app

    with pytest.raises(PluginError, match="the route GET /mine is claimed by the application and the plugin 'red'"):
        make([]).build()
    for winner in ("application", "red"):
        async with TestClient(make([winner])) as client:
            assert (await client.get("/mine")).text == winner
            assert (await client.get("/red")).text == "red"


async def test_one_method_of_a_path_is_no_collision_with_another() -> None:
    class Posting:
        @covet.hookimpl
        def covet_routes(self, app: Covet) -> list[Route]:
            return [Route("/mine", self.show, ["POST"])]

        async def show(self) -> str:
            return "posted"

    async with TestClient(plugin_sandbox(red=Claimant("red", "route"), posting=Posting())) as client:
        assert (await client.get("/mine")).text == "red"
        assert (await client.post("/mine")).text == "posted"


def test_twice_by_one_owner() -> None:
    class Twice:
        @covet.hookimpl
        def covet_routes(self, app: Covet) -> list[Route]:
            return [Route("/x/{a}", self.show), Route("/x/{b}", self.show)]

        async def show(self) -> None: ...

    with pytest.raises(RouteError, match="can never be reached"):
        plugin_sandbox(twice=Twice(), settings={"plugins": {"prefer": ["twice"]}}).build()
    claims = [("key", "red", 1), ("key", "red", 2)]
    with pytest.raises(PluginError, match="the thing key is claimed by the plugin 'red', twice"):
        settle("the thing", claims, ["red"])


def test_three_claimants_and_keys_apart() -> None:
    claims = [("a", "x", 1), ("b", "y", 2), ("a", "y", 3), ("a", "z", 4)]
    assert settle("the thing", claims, ["z"]) == {"a": ("z", 4), "b": ("y", 2)}
    assert settle("the thing", claims, ["y", "x"]) == {"a": ("y", 3), "b": ("y", 2)}
    with pytest.raises(
        PluginError, match="the thing a is claimed by the plugin 'x', the plugin 'y' and the plugin 'z'"
    ):
        settle("the thing", claims, ["w"])


def test_middleware_of_one_name_in_a_band() -> None:
    async def stamp(request: Request, call_next: Any) -> Any:
        return await call_next(request)

    class Stamping:
        @covet.hookimpl
        def covet_middleware(self, app: Covet) -> list[Any]:
            return [covet.Middleware(stamp, band="edge")]

    with pytest.raises(covet.ConfigurationError, match=r"called 'stamp': .*of one> and .*of two>"):
        plugin_sandbox(one=Stamping(), two=Stamping()).build()


def test_commands(tmp_path: Path) -> None:
    site = Site(tmp_path / "site")
    command = "import click\n@click.command()\ndef greet():\n    click.echo(__name__)\n"
    for name in ("red", "blue"):
        site.add(
            f"acme-{name}", plugins={name: f"{name}_plugin"}, commands={"greet": f"{name}_cli:greet"},
            modules={f"{name}_plugin": "", f"{name}_cli": command},
        )  # fmt: skip
    ran = site.python("-m", "covet", "greet")
    assert ran.returncode == 1
    assert "two plugins bring a command 'greet': acme-blue 1.0 and acme-red 1.0" in ran.stderr
    assert "prefer" in ran.stderr
    ran = site.python("-m", "covet", "greet", environ={"COVET_PLUGINS__PREFER": "red"})
    assert (ran.returncode, ran.stdout.strip()) == (0, "red_cli"), ran.stderr
    found = json.loads(site.python("-m", "covet", "plugins", "check", "--json").stdout)
    assert any(item["subject"] == "command greet" and item["severity"] == "error" for item in found)
