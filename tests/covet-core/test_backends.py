"""Backends that the settings choose by name: session stores, caches, pub/sub, object stores."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import pytest

import covet
from covet import ConfigurationError, Covet, PluginError, Secret, SettingsError
from covet.backends import Backend, Configured
from covet.settings import Settings
from covet.testing import plugin_sandbox


class ShelfSettings(msgspec.Struct, frozen=True):
    boards: Annotated[int, msgspec.Meta(ge=1)] = 3
    key: Secret | None = None


class RackSettings(msgspec.Struct, frozen=True):
    height: int


class Shelf:
    def __init__(self, app: Covet, alias: str, settings: Any) -> None:
        self.app, self.alias, self.settings = app, alias, settings


def failing(app: Covet, alias: str, settings: Any) -> Any:
    raise OSError("no rack at rack://me:pa55word@here")


class Shelves:
    @covet.hookimpl
    def covet_cache_backends(self) -> dict[str, Backend]:
        return {"shelf": Backend(Shelf, ShelfSettings), "rack": Backend(failing, RackSettings)}

    @covet.hookimpl
    def covet_session_stores(self) -> dict[str, Backend]:
        return {"shelf": Backend(Shelf, ShelfSettings), "memory": Backend(Shelf)}


def shelves(**settings: Any) -> Covet:
    return plugin_sandbox(Shelves(), settings=settings)


def test_a_table_chooses_a_backend_and_each_key_goes_to_its_owner() -> None:
    app = shelves(cache={"pages": {"backend": "shelf", "namespace": "p", "boards": 5}})
    found = app.backends.configured("cache", "pages")
    assert isinstance(found, Configured)
    assert (found.alias, found.name, found.settings.namespace) == ("pages", "shelf", "p")
    assert isinstance(found.backend, Shelf)
    assert (found.backend.app, found.backend.alias, found.backend.settings.boards) == (app, "pages", 5)
    assert app.backends.configured("cache", "pages") is found


def test_sessions_have_one_table_and_the_default_needs_none() -> None:
    assert (
        shelves(sessions={"store": "shelf", "boards": 2}).backends.configured("sessions").backend.settings.boards == 2
    )
    found = shelves().backends.configured("sessions")
    assert (found.alias, found.name, found.settings.cookie) == ("default", "memory", "")


def test_by_name_whatever_the_settings_say() -> None:
    app = shelves(cache={"default": {"backend": "shelf", "boards": 9}})
    assert app.backends.named("cache", "shelf").settings.boards == 3
    assert app.backends.named("cache", "shelf") is app.backends.named("cache", "shelf")
    assert app.backends.names("cache") == ["rack", "shelf"]
    with pytest.raises(
        ConfigurationError, match=r"'rack' does not work without settings .*add a table \[cache.ALIAS\]"
    ):
        app.backends.named("cache", "rack")
    with pytest.raises(ConfigurationError, match=r"the cache backend 'shelv': no plugin .* did you mean 'shelf'\?"):
        app.backends.named("cache", "shelv")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"cache": {"a": {"backend": "cupboard"}}}, r"\[cache.a\] backend: no plugin .* brings 'cupboard'"),
        ({"cache": {"a": {}}}, r"\[cache.a\] backend: no plugin that takes part brings 'memory'"),
        ({"cache": {"a": {"backend": 5}}}, r"cache.a.backend: the name of a backend was expected"),
        ({"cache": {"a": {"backend": "shelf", "bords": 1}}}, r"no key 'bords' in \[cache.a\]; did you mean 'boards'\?"),
        ({"cache": {"a": {"backend": "shelf", "height": 1}}}, r"cache.a.height: .*; rack has an option of that name"),
        ({"cache": {"a": {"backend": "shelf", "boards": 0}}}, r"cache.a.boards: expected `int` >= 1"),
        ({"cache": {"a": {"backend": "shelf", "jitter": 2}}}, r"cache.a.jitter: expected `float` < 1"),
        ({"cache": {"a": {"backend": "rack"}}}, r"cache.a.height: is required"),
        ({"cache": {"a": {"backend": "rack", "height": 1}}}, r"\[cache.a\]: its backend failed: OSError: no rack at rack://me:\*+@here"),
        ({"cache": {"a": {"backend": "shelf", "key": "env:NOT_THERE"}}}, r"a.key: the environment variable NOT_THERE"),
        ({"sessions": {"store": "shelf", "bords": 1}}, r"no key 'bords' in \[sessions\]; did you mean 'boards'\?"),
    ],
)  # fmt: skip
def test_what_does_not_fit_stops_the_start(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        shelves(**settings).build()


@pytest.mark.parametrize("section", ["cache", "pubsub", "objects", "sessions"])
def test_a_section_that_is_no_table(section: str) -> None:
    with pytest.raises(SettingsError, match=rf"{section}: the settings of a backend are in a table of their own"):
        Settings.load_only({section: 5})


def test_every_fault_of_every_table_is_told_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        shelves(cache={"a": {"backend": "none"}, "b": {"backend": "shelf", "boards": 0}}).build()
    assert "[cache.a]" in str(caught.value)
    assert "cache.b.boards" in str(caught.value)


def test_an_unknown_alias_says_which_there_are() -> None:
    app = shelves(cache={"pages": {"backend": "shelf"}})
    with pytest.raises(
        ConfigurationError, match=r"there is no \[cache.page\] in the settings \(there are: default, pages\)"
    ):
        app.backends.configured("cache", "page")


def test_two_plugins_of_one_backend() -> None:
    with pytest.raises(PluginError, match="the sessions backend shelf is claimed by the plugin 'a' and the plugin 'b'"):
        plugin_sandbox(a=Shelves(), b=Shelves()).build()
    plugin_sandbox(a=Shelves(), b=Shelves(), settings={"plugins": {"prefer": ["b"]}}).build()


def test_secrets_are_resolved_and_shown_as_references(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELF_KEY", "canary-value")
    app = shelves(cache={"a": {"backend": "shelf", "key": "env:SHELF_KEY"}})
    unchecked = {row.key: row.value for row in app.settings.rows()}
    assert unchecked["cache.a.key"] == "env:SHELF_KEY"
    assert app.backends.configured("cache", "a").backend.settings.key.reveal() == "canary-value"
    shown = {row.key: row.value for row in app.settings.rows()}
    assert (shown["cache.a.key"], shown["cache.a.boards"], shown["cache.a.backend"]) == ("env:SHELF_KEY", "3", "shelf")
    assert "canary-value" not in str(app.settings.rows())


def test_former_keys_are_accepted_after_the_present_one() -> None:
    old, new = "o" * 20, "n" * 20
    before = plugin_sandbox(settings={"app": {"secret_key": old}})
    after = plugin_sandbox(settings={"app": {"secret_key": new, "previous_secret_keys": [old]}})
    for app in (before, after):
        app.build()
    assert after.signing_keys("cookie", "a") == (after.signing_key("cookie", "a"), before.signing_key("cookie", "a"))
    assert before.signing_keys("cookie") == (before.signing_key("cookie"),)
    short = plugin_sandbox(settings={"app": {"secret_key": new, "previous_secret_keys": ["short"]}})
    short.build()
    with pytest.raises(ConfigurationError, match="previous_secret_keys has fewer than 16 characters"):
        short.signing_keys("cookie")
