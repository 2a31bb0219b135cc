"""Storages: made of the settings by the backends that plugins bring, opened and closed with the application."""

from __future__ import annotations

import logging
from typing import Annotated, Any

import anyio
import msgspec
import pytest

import covet
from covet import ConfigurationError, Covet, PluginError, Secret
from covet.settings import Settings
from covet.storage import Storage, StorageBackend, StorageRegistry
from covet.testing import TestClient, plugin_sandbox

pytestmark = pytest.mark.anyio


class Shelf:
    """A storage that writes down what happens to it."""

    kind = "shelf"

    def __init__(self, alias: str, settings: Any, log: list[str], fails: str = "") -> None:
        self.alias, self.settings, self.log, self.fails = alias, settings, log, fails
        self.url = "shelf://hidden"

    async def open(self) -> None:
        await anyio.lowlevel.checkpoint()
        self._do("open")

    async def close(self) -> None:
        await anyio.lowlevel.checkpoint()
        self._do("close")

    async def check(self) -> None:
        self._do("check")

    def _do(self, what: str) -> None:
        self.log.append(f"{what} {self.alias}")
        if self.fails == what:
            raise OSError("no shelf at shelf://me:pa55word@here")


class ShelfSettings(msgspec.Struct, frozen=True):
    url: str
    boards: Annotated[int, msgspec.Meta(ge=1)] = 3
    key: Secret | None = None


class PoolBase(msgspec.Struct, frozen=True):
    url: Secret
    pool_max: int = 10


class PoolSettings(PoolBase, frozen=True):
    schema: str = "public"


class Backends:
    def __init__(self, **backends: Any) -> None:
        self.backends = backends

    @covet.hookimpl
    def covet_storage_backends(self) -> dict[str, StorageBackend]:
        return self.backends


def sandbox(storage: Any, log: list[str] | None = None, fails: dict[str, str] | None = None, **more: Any) -> Covet:
    """An application with the schemes `shelf` and `pool`, whose storages write into `log`."""
    entries = log if log is not None else []

    def make(alias: str, settings: Any) -> Shelf:
        return Shelf(alias, settings, entries, (fails or {}).get(alias, ""))

    plugin = Backends(shelf=StorageBackend(make, ShelfSettings), pool=StorageBackend(make, PoolSettings))
    return plugin_sandbox(backends=plugin, settings={"storage": storage}, **more)


def told(storage: Any, **more: Any) -> str:
    with pytest.raises(ConfigurationError) as raised:
        sandbox(storage, **more).build()
    return str(raised.value)


# Made of the settings


async def test_storages_by_alias() -> None:
    app = sandbox({"default": {"url": "shelf://a", "boards": 5}, "other": {"url": "pool://b"}})
    app.build()
    assert list(app.storage) == ["default", "other"]
    assert len(app.storage) == 2
    assert ("default" in app.storage, "nowhere" in app.storage) == (True, False)
    made: Any = app.storage["default"]
    assert made.settings == ShelfSettings("shelf://a", 5)
    assert isinstance(made, Storage)
    pooled: Any = app.storage["other"]
    assert pooled.settings.url.reveal() == "pool://b"
    with pytest.raises(
        ConfigurationError, match=r"no storage is called 'nowhere' \(there are: default, other\); add a table"
    ):
        app.storage["nowhere"]


def test_without_any_there_is_none() -> None:
    app = plugin_sandbox()
    app.build()
    assert list(app.storage) == []
    with pytest.raises(ConfigurationError, match=r"no storage is called 'default' \(there are: none\)"):
        app.storage["default"]


def test_an_option_of_another_backend_says_whose_it_is() -> None:
    message = told({"default": {"url": "shelf://a", "pool_max": 5, "borads": 1}})
    assert (
        "storage.default.pool_max: there is no key 'pool_max' in [storage.default]; there are boards, key, url; "
        "pool has an option of that name"
    ) in message
    assert "storage.default.borads: there is no key 'borads' in [storage.default]; did you mean 'boards'?" in message
    assert "borads" in message
    assert "boards'?; " not in message


def test_all_storages_are_told_of_at_once() -> None:
    message = told(
        {
            "one": {"url": "nowhere://a"},
            "two": {},
            "three": {"url": 5},
            "four": {"url": "shelf://a", "boards": 0},
            "five": {"url": "env:COVET_NOT_SET"},
            "six": {"url": "shelf://a", "key": "env:COVET_NOT_SET"},
        }
    )
    for expected in (
        "[storage.one] url: nothing knows the scheme 'nowhere' (there are pool, shelf); install the plugin for it",
        'storage.two.url: is required: a URL such as "sqlite:///app.db"',
        'storage.three.url: is required: a URL such as "sqlite:///app.db"',
        "storage.four.boards: expected `int` >= 1 (it is 0)",
        "storage.five.url: the environment variable COVET_NOT_SET is not set, and the settings refer to it",
        "storage.six.key: the environment variable COVET_NOT_SET is not set, and the settings refer to it",
    ):
        assert expected in message


def test_without_any_backend() -> None:
    with pytest.raises(
        ConfigurationError, match=r"nothing knows the scheme 'shelf' \(no installed plugin brings any\)"
    ):
        plugin_sandbox(settings={"storage": {"default": {"url": "shelf://a"}}}).build()


@pytest.mark.parametrize(("alias", "url"), [("default", "env:SHELF_URL"), ("default", "vault:shelf")])
def test_the_url_may_be_a_secret(alias: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Vault:
        @covet.hookimpl
        def covet_secret_providers(self) -> dict[str, Any]:
            return {"vault": lambda path: f"{path}://me:pa55word@here"}

    monkeypatch.setenv("SHELF_URL", "shelf://me:pa55word@here")
    for target, scheme in ((url, "shelf"), (url.replace("shelf", "pool"), "pool")):
        monkeypatch.setenv("SHELF_URL", f"{scheme}://me:pa55word@here")
        app = sandbox({alias: {"url": target}}, vault=Vault())
        app.build()
        made: Any = app.storage[alias]
        found = made.settings.url
        assert (found.reveal() if isinstance(found, Secret) else found) == f"{scheme}://me:pa55word@here"
        rows = {row.key: row.value for row in app.settings.rows()}
        assert "pa55word" not in rows[f"storage.{alias}.url"]


async def test_a_url_that_only_looks_like_a_reference() -> None:
    app = sandbox({"default": {"url": "shelf:memory"}, "other": {"url": "pool:memory"}})
    app.build()
    first: Any = app.storage["default"]
    second: Any = app.storage["other"]
    assert (first.settings.url, second.settings.url.reveal()) == ("shelf:memory", "pool:memory")


def test_secrets_of_a_storage_are_resolved_before_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELF_KEY", "the key")
    app = sandbox({"default": {"url": "shelf://a", "key": "env:SHELF_KEY"}})
    app.build()
    made: Any = app.storage["default"]
    assert made.settings.key == Secret("the key")


def test_storages_are_there_when_plugins_are_set_up() -> None:
    class Curious:
        @covet.hookimpl
        def covet_setup(self, app: Covet) -> None:
            assert list(app.storage) == ["default"]

    sandbox({"default": {"url": "shelf://a"}}, curious=Curious()).build()


def test_the_environment_sets_a_storage() -> None:
    settings = Settings.load(
        environ={"COVET_STORAGE__DEFAULT__URL": "shelf://a", "COVET_STORAGE__DEFAULT__BOARDS": "7"}
    )
    backend = StorageBackend(lambda alias, made: Shelf(alias, made, []), ShelfSettings)
    registry = StorageRegistry.build(settings, [("shelf", "backends", backend)])
    made: Any = registry["default"]
    assert made.settings == ShelfSettings("shelf://a", 7)


def test_a_backend_that_breaks() -> None:
    def broken(alias: str, settings: Any) -> Any:
        raise ValueError("cannot parse shelf://me:pa55word@here")

    for factory, expected in (
        (broken, "[storage.x]: its backend for 'broken' failed: ValueError: cannot parse shelf://me:********@here"),
        (
            lambda alias, settings: object(),
            "[storage.x]: its backend for 'broken' gave a object, and a Storage has alias",
        ),
    ):
        plugin = Backends(broken=StorageBackend(factory, ShelfSettings))  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError) as raised:
            plugin_sandbox(it=plugin, settings={"storage": {"x": {"url": "broken://a"}}}).build()
        assert str(raised.value).startswith(expected)


def test_a_backend_whose_schema_is_none() -> None:
    plugin = Backends(broken=StorageBackend(lambda alias, settings: Shelf(alias, settings, []), dict))
    with pytest.raises(
        ConfigurationError, match="settings are declared as a msgspec Struct, and this is <class 'dict'>"
    ):
        plugin_sandbox(it=plugin, settings={"storage": {"x": {"url": "broken://a"}}}).build()


# Opened and closed


async def test_opened_in_order_and_closed_in_reverse() -> None:
    log: list[str] = []
    app = sandbox({"b": {"url": "shelf://b"}, "a": {"url": "shelf://a"}, "c": {"url": "pool://c"}}, log)

    @app.get("/")
    async def index() -> list[str]:
        for storage in app.storage.values():
            await storage.check()
        return list(log)

    async with TestClient(app) as client:
        got = (await client.get("/")).json()
        assert got == ["open b", "open a", "open c", "check b", "check a", "check c"]
        log.clear()
    assert log == ["close c", "close a", "close b"]


async def test_one_that_does_not_open_stops_the_start_and_closes_the_others() -> None:
    log: list[str] = []
    app = sandbox({"a": {"url": "shelf://a"}, "b": {"url": "shelf://b"}, "c": {"url": "shelf://c"}}, log, {"b": "open"})
    with pytest.raises(ConfigurationError) as raised:
        async with app.running():
            raise AssertionError("it must not start")
    assert str(raised.value) == (
        "the storage 'b' (shelf) cannot be opened: OSError: no shelf at shelf://me:********@here"
    )
    assert log == ["open a", "open b", "close a"]


async def test_one_that_does_not_close_keeps_no_other_open(caplog: pytest.LogCaptureFixture) -> None:
    log: list[str] = []
    app = sandbox({"a": {"url": "shelf://a"}, "b": {"url": "shelf://b"}}, log, {"b": "close"})
    with caplog.at_level(logging.ERROR, "covet.storage"):
        async with app.running():
            log.clear()
    assert log == ["close b", "close a"]
    assert "the storage 'b' failed to close" in caplog.text


async def test_cancelled_while_opening_it_closes_what_is_open() -> None:
    log: list[str] = []
    app = sandbox({"a": {"url": "shelf://a"}, "b": {"url": "shelf://b"}}, log)
    app.build()

    class Waiting(Shelf):
        async def open(self) -> None:
            scope.cancel()
            await anyio.sleep_forever()

    registry = StorageRegistry({"a": app.storage["a"], "w": Waiting("w", None, log)})
    with anyio.CancelScope() as scope:
        async with registry:
            raise AssertionError("it must not open")
    assert scope.cancelled_caught
    assert log == ["open a", "close a"]


async def test_closing_is_shielded_from_cancellation() -> None:
    log: list[str] = []
    app = sandbox({"a": {"url": "shelf://a"}, "b": {"url": "shelf://b"}}, log)
    app.build()
    with anyio.CancelScope() as scope:
        async with app.storage:
            scope.cancel()
            await anyio.sleep_forever()
    assert log[-2:] == ["close b", "close a"]


def test_contributions_that_are_no_mapping() -> None:
    class Wrong:
        @covet.hookimpl
        def covet_storage_backends(self) -> Any:
            return [1]

    with pytest.raises(PluginError, match=r"plugin 'wrong' failed in covet_storage_backends: it returned \[1\]"):
        plugin_sandbox(wrong=Wrong()).build()
