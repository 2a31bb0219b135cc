"""Plugins: chosen, ordered, loaded one by one; what becomes of one that fails; what one can do to another."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from tests import synthetic

import covet
from covet import Covet, PluginError, Request, Route, SettingsError
from covet.implementations import unmarked
from covet.plugins import PluginManager, name_plugins
from covet.settings import Settings
from covet.settings_sections import PluginsSettings
from covet.testing import TestClient, plugin_sandbox

GOOD = """
    import covet

    async def hello() -> str:
        return "hello"

    @covet.hookimpl
    def covet_routes(app):
        return [covet.Route("/hello", hello)]
"""

FAILING = {
    "an exception": ("raise RuntimeError('no luck')", "RuntimeError: no luck"),
    "SystemExit": ("raise SystemExit('bye')", "SystemExit: bye"),
    "a bare exit": ("import sys\nsys.exit()", "SystemExit"),
    "a BaseException": ("class Skipped(BaseException): ...\nraise Skipped('here')", "Skipped: here"),
    "a syntax error": ("def (:", "SyntaxError: invalid syntax"),
    "a missing import": (
        "import there_is_no_such_module",
        "ModuleNotFoundError: No module named 'there_is_no_such_module'",
    ),
    "endless recursion": ("def f(): f()\nf()", "RecursionError: maximum recursion depth exceeded"),
}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[synthetic.Site]:
    site = synthetic.Site(tmp_path / "site")
    with synthetic.isolated_path(site):
        yield site


def load(**settings: Any) -> PluginManager:
    manager = PluginManager(PluginsSettings(**settings))
    manager.load()
    return manager


def given(**plugins: object) -> PluginManager:
    manager = PluginManager(PluginsSettings(), extra=plugins, installed=False)
    manager.load()
    return manager


def error_of(plugin: object) -> str:
    record = given(plugin=plugin).records["plugin"]
    assert record.state == "failed", "it was taken"
    assert record.provides == ()
    return str(record.error)


# One that fails


@pytest.mark.parametrize("kind", FAILING)
def test_a_plugin_that_cannot_be_imported_is_recorded_and_hurts_no_other(site: synthetic.Site, kind: str) -> None:
    source, error = FAILING[kind]
    site.add("bad", version="3.1", plugins={"bad": "bad_module"}, modules={"bad_module": source})
    site.add("good", plugins={"good": "good_module"}, modules={"good_module": GOOD})
    manager = load()
    record = manager.records["bad"]
    assert record.state == "failed"
    assert str(record.error).startswith(error)
    assert "bad_module" in str(record.traceback), "the traceback shows the plugin's own line"
    assert record.import_seconds is not None
    assert not manager.manager.has_plugin("bad")
    assert "bad_module" not in sys.modules
    assert manager.records["good"].state == "active"
    assert manager.implementers("covet_routes") == ["good"]
    assert [(f.plugin, f.severity) for f in manager.check()] == [("bad", "error")]


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("bad_module:missing", "AttributeError: module 'bad_module' has no attribute 'missing'"),
        ("nowhere.at.all", "ModuleNotFoundError: No module named 'nowhere'"),
        ("no module name", "its entry point is 'no module name', and `module` or `module:attribute` was expected"),
        (":attribute", "its entry point is ':attribute', and `module` or `module:attribute` was expected"),
        ("bad_module:nothing", "bad_module:nothing is None, which implements no hook"),
    ],
)
def test_an_entry_point_to_nothing(site: synthetic.Site, value: str, error: str) -> None:
    site.add("bad", plugins={"bad": value}, modules={"bad_module": "nothing = None"})
    record = load().records["bad"]
    assert (record.state, record.error) == ("failed", error)


def test_serving_refuses_with_one_message_for_all_that_failed(site: synthetic.Site) -> None:
    site.add("bad-one", version="3.1", plugins={"one": "bad_one"}, modules={"bad_one": "raise ValueError('first')"})
    site.add("bad-two", version="0.2", plugins={"two": "bad_two"}, requires=["covet-core>=9"], modules={"bad_two": ""})
    site.add("good", plugins={"good": "good_module"}, modules={"good_module": GOOD})
    with pytest.raises(PluginError) as raised:
        Covet(Settings.load_only({})).build()
    message = str(raised.value)
    assert "the plugin 'one' (of bad-one 3.1) failed to load: ValueError: first" in message
    assert 'disable = ["one"]' in message
    assert 'optional = ["one"]' in message
    assert "the plugin 'two' (of bad-two 0.2) is incompatible: it requires covet-core>=9, and this is" in message
    assert 'disable = ["two"]' in message
    assert "bad_two" not in sys.modules, "what is incompatible is not imported"
    assert "good" not in message


def test_an_optional_plugin_may_fail_and_that_is_logged(site: synthetic.Site, caplog: pytest.LogCaptureFixture) -> None:
    site.add("bad", version="3.1", plugins={"bad": "bad_module"}, modules={"bad_module": "raise ValueError('first')"})
    site.add("good", plugins={"good": "good_module"}, modules={"good_module": GOOD})
    app = Covet(Settings.load_only({"plugins": {"optional": ["bad"]}}))
    with caplog.at_level(logging.WARNING, "covet.plugins"):
        app.build()
    assert [route.path for route in app.routes] == ["/hello"]
    assert (app.plugins.records["bad"].state, app.plugins.records["bad"].optional) == ("failed", True)
    assert "going on without the optional plugin 'bad' (of bad 3.1): ValueError: first" in caplog.text


def test_a_disabled_plugin_may_be_as_broken_as_it_likes(site: synthetic.Site) -> None:
    site.add("bad", plugins={"bad": "bad_module"}, modules={"bad_module": "raise ValueError"})
    site.add(
        "new", plugins={"new": "new_module"}, requires=["covet-core>=9"], modules={"new_module": "raise ValueError"}
    )
    app = Covet(Settings.load_only({"plugins": {"disable": ["bad", "new"]}}))
    app.build()
    assert {record.state for record in app.plugins.records.values()} == {"disabled"}


def test_keyboard_interrupt_is_not_a_plugins_failure(site: synthetic.Site) -> None:
    site.add("bad", plugins={"bad": "bad_module"}, modules={"bad_module": "raise KeyboardInterrupt"})
    with pytest.raises(KeyboardInterrupt):
        load()


# Choosing


@pytest.mark.parametrize("key", ["enable", "disable", "prefer"])
def test_names_that_are_not_installed(site: synthetic.Site, key: str) -> None:
    site.add("timing", plugins={"timing": "t_module"}, modules={"t_module": GOOD})
    with pytest.raises(PluginError) as raised:
        load(**{key: ["timming", "nowhere"]})
    assert str(raised.value).splitlines() == [
        f"[plugins] {key} names 'timming', which is not installed; did you mean 'timing'?",
        f"[plugins] {key} names 'nowhere', which is not installed; there are timing",
    ]


def test_what_is_optional_may_be_missing_altogether(site: synthetic.Site) -> None:
    site.add("timing", plugins={"timing": "t_module"}, modules={"t_module": GOOD})
    assert list(load(enable=["timing", "later"], optional=["later"]).records) == ["timing"]


def test_an_empty_allow_list_lets_nobody_in(site: synthetic.Site) -> None:
    site.add("timing", plugins={"timing": "t_module"}, modules={"t_module": GOOD})
    assert load(enable=[]).records["timing"].state == "disabled"
    assert load(enable=["timing"], disable=["timing"]).records["timing"].state == "disabled"


def test_what_code_gives_needs_no_allow_list_and_can_be_disabled() -> None:
    class Mine:
        @covet.hookimpl
        def covet_encoders(self) -> dict[type, Any]:
            return {}

    app = Covet({"plugins": {"enable": []}}, plugins=[Mine()], installed_plugins=False)
    app.build()
    assert app.plugins.records["Mine"].state == "active"
    app = Covet({"plugins": {"disable": ["Mine"]}}, plugins=[Mine()], installed_plugins=False)
    app.build()
    assert app.plugins.records["Mine"].state == "disabled"


# Names


def test_a_plugin_given_in_code_does_not_replace_an_installed_one(site: synthetic.Site) -> None:
    site.add("acme", plugins={"timing": "t_module"}, modules={"t_module": GOOD})
    with pytest.raises(
        PluginError, match=r"given a plugin of this name, .*and acme 1\.0 brings one; give .* another name"
    ):
        Covet(Settings.load_only({}), plugins={"timing": Plain()}).build()
    Covet(Settings.load_only({}), plugins={"timing": Plain()}, installed_plugins=False).build()


class Plain:
    @covet.hookimpl
    def covet_encoders(self) -> dict[type, Any]:
        return {}


def test_two_plugins_of_one_class_need_names() -> None:
    with pytest.raises(PluginError, match=r"two plugins given to the application are called 'Plain'"):
        Covet(plugins=[Plain(), Plain()], installed_plugins=False).build()
    app = Covet(Settings.load_only({}), plugins={"one": Plain(), "two": Plain()}, installed_plugins=False)
    app.build()
    assert list(app.plugins.records) == ["one", "two"]
    assert list(name_plugins([sys, Plain()])) == ["sys", "Plain"]


def test_one_object_under_two_names() -> None:
    plugin = Plain()
    manager = given(one=plugin, two=plugin)
    assert sorted(record.state for record in manager.records.values()) == ["active", "failed"]
    assert any("already registered" in str(record.error) for record in manager.records.values())


# Order


def neighbours(**attributes: Any) -> Any:
    return type("Plugin", (Plain,), attributes)()


def test_declared_order() -> None:
    manager = given(
        a=neighbours(covet_after=("c", "not installed")),
        b=neighbours(covet_before="a"),
        c=neighbours(covet_after=["d"]),
        d=neighbours(),
    )
    assert list(manager.records) == ["b", "d", "c", "a"]
    assert [c.plugin for c in manager.call("covet_encoders")] == ["b", "d", "c", "a"]


@pytest.mark.parametrize("wrong", [3, ["a", 5], b"a", {"a": 1}.items()])
def test_order_declared_wrongly(wrong: Any) -> None:
    assert "covet_after is" in error_of(neighbours(covet_after=wrong))


def test_tryfirst_and_trylast_go_before_the_order() -> None:
    class First(Plain):
        @covet.hookimpl(tryfirst=True)
        def covet_encoders(self) -> dict[type, Any]:
            return {}

    class Last(Plain):
        @covet.hookimpl(trylast=True)
        def covet_encoders(self) -> dict[type, Any]:
            return {}

    manager = given(a=Last(), b=Plain(), c=First(), d=Plain())
    assert [c.plugin for c in manager.call("covet_encoders")] == ["c", "b", "d", "a"]
    assert manager.implementers("covet_encoders") == ["c", "b", "d", "a"]


def test_one_that_failed_orders_nobody() -> None:
    class Broken:
        covet_after = ("a",)

        @covet.hookimpl
        def covet_no_such_hook(self) -> None: ...

    manager = given(a=neighbours(covet_after=("broken",)), broken=neighbours(covet_after=7), z=Plain())
    assert [name for name, record in manager.records.items() if record.usable] == ["a", "z"]
    assert manager.records["broken"].state == "failed"
    assert list(manager.records)[-1] == "broken", "those that take no part stand behind"


# Settings of plugins


class TimingSettings(msgspec.Struct, frozen=True):
    slow: float = 0.5


class Timing:
    def __init__(self, schema: Any = TimingSettings) -> None:
        self.schema = schema

    @covet.hookimpl
    def covet_settings(self) -> type:
        found: type = self.schema() if callable(self.schema) and not isinstance(self.schema, type) else self.schema
        return found


def test_invalid_settings_fail_the_plugin() -> None:
    app = plugin_sandbox(timing=Timing(), settings={"plugins": {"timing": {"slow": "very", "fast": 1}}})
    with pytest.raises(PluginError) as raised:
        app.build()
    message = str(raised.value)
    assert "the plugin 'timing' failed to load: 2 settings are wrong:" in message
    assert "plugins.timing.slow: expected `float`, got `str` (it is 'very')" in message
    assert "plugins.timing.fast: there is no key 'fast' in [plugins.timing]; there are slow" in message
    assert 'disable = ["timing"]' in message


def test_an_optional_plugin_with_invalid_settings_leaves_nothing() -> None:
    class Routed(Timing):
        @covet.hookimpl
        def covet_routes(self, app: Covet) -> list[Route]:
            raise AssertionError("it takes no part")

    settings = {"plugins": {"optional": ["timing"], "timing": {"slow": "very"}}}
    app = plugin_sandbox(timing=Routed(), settings=settings)
    app.build()
    assert app.plugins.records["timing"].state == "failed"
    assert app.plugins.implementers("covet_routes") == []
    with pytest.raises(SettingsError, match="no plugin has declared settings of type TimingSettings"):
        app.settings[TimingSettings]


def explode() -> type:
    raise RuntimeError("no schema today")


@pytest.mark.parametrize(
    ("schema", "error"),
    [
        (dict, "settings are declared as a msgspec Struct, and this is <class 'dict'>"),
        (None, "settings are declared as a msgspec Struct, and this is None"),
        (3, "settings are declared as a msgspec Struct, and this is 3"),
        (explode, "RuntimeError: no schema today"),
    ],
)
def test_a_schema_that_is_none(schema: Any, error: str) -> None:
    with pytest.raises(PluginError, match="the plugin 'timing' failed to load") as raised:
        plugin_sandbox(timing=Timing(schema)).build()
    assert error in str(raised.value)


def test_two_plugins_with_the_same_type_of_settings() -> None:
    with pytest.raises(PluginError, match=r"'a' and 'b' declare the same type of settings, TimingSettings"):
        plugin_sandbox(a=Timing(), b=Timing()).build()


def test_tables_of_nobody() -> None:
    with pytest.raises(SettingsError, match=r"plugins\.timin: no plugin is called 'timin'; did you mean 'timing'\?"):
        plugin_sandbox(timing=Timing(), settings={"plugins": {"timin": {"slow": 1.0}}}).build()
    with pytest.raises(SettingsError, match=r"plugins\.plain: the plugin 'plain' takes no settings"):
        plugin_sandbox(plain=Plain(), settings={"plugins": {"plain": {"slow": 1.0}}}).build()
    # That of a disabled plugin stays in the file.
    settings = {"plugins": {"disable": ["timing"], "timing": {"slow": "whatever"}}}
    plugin_sandbox(timing=Timing(), settings=settings).build()


# Per application


@pytest.mark.anyio
async def test_two_applications_with_different_plugins_in_one_process() -> None:
    class Named:
        def __init__(self, name: str) -> None:
            self.name = name
            # One route object for both applications: neither may write on it.
            self.route = Route("/name", self.show)

        async def show(self) -> str:
            return self.name

        @covet.hookimpl
        def covet_routes(self, app: Covet) -> list[Route]:
            return [self.route, shared]

        @covet.hookimpl
        def covet_dependencies(self, app: Covet) -> dict[Any, Any]:
            return {Word: lambda: Word(self.name)}

        @covet.hookimpl
        def covet_response_ready(self, request: Request, response: Any) -> None:
            response.headers["x-plugin"] = self.name

    first, second = plugin_sandbox(plugin=Named("first")), plugin_sandbox(plugin=Named("second"), other=Plain())
    async with TestClient(first) as one, TestClient(second) as two:
        for client, name in ((one, "first"), (two, "second"), (one, "first")):
            got = await client.get("/name")
            assert (got.text, got.headers["x-plugin"]) == (name, name)
            assert (await client.get("/word")).text == name
    assert first.plugins is not second.plugins
    assert list(first.plugins.records) == ["plugin"]
    assert list(second.plugins.records) == ["other", "plugin"]


class Word(str):
    __slots__ = ()


async def say(word: Word) -> str:
    return str(word)


shared = Route("/word", say)


def test_the_records_and_contributions_are_not_handed_out_to_be_changed() -> None:
    manager = given(one=Plain(), two=Plain())
    with pytest.raises(TypeError):
        del manager.records["one"]  # type: ignore[attr-defined]
    manager.call("covet_encoders").clear()
    assert len(manager.call("covet_encoders")) == 2
    mine: dict[type, Any] = {Word: str}
    keeper = type("Keeper", (), {"covet_encoders": staticmethod(covet.hookimpl(lambda: mine))})()
    ((_, contributed),) = given(keeper=keeper).call("covet_encoders")
    mine.clear()
    assert contributed == {Word: str}


@pytest.mark.anyio
async def test_what_a_plugin_contributed_cannot_be_changed_later() -> None:
    class Sly:
        headers = [("x-sly", "1")]
        providers: dict[Any, Any] = {Word: lambda: Word("mine")}

        @covet.hookimpl
        def covet_response_headers(self, app: Covet) -> list[tuple[str, str]]:
            return self.headers

        @covet.hookimpl
        def covet_dependencies(self, app: Covet) -> dict[Any, Any]:
            return self.providers

        @covet.hookimpl
        def covet_routes(self, app: Covet) -> list[Route]:
            self.headers.clear()
            self.providers.clear()
            return [shared]

    app = plugin_sandbox(sly=Sly())
    async with TestClient(app) as client:
        got = await client.get("/word")
    assert (got.text, got.headers["x-sly"]) == ("mine", "1")
    assert isinstance(app.response_headers, tuple)


@pytest.mark.parametrize(
    "header", ["x-name", ("x name", "1"), ("x-name", "1\r\nset-cookie: a=b"), ("x", "€"), ("x", 3)]
)
def test_response_headers_that_cannot_be_sent(header: Any) -> None:
    class Headers:
        @covet.hookimpl
        def covet_response_headers(self, app: Covet) -> list[Any]:
            return [header]

    with pytest.raises(PluginError, match=r"plugin 'headers': covet_response_headers returned"):
        plugin_sandbox(headers=Headers()).build()


# Where plugins are imported and set up

ambient: ContextVar[str] = ContextVar("ambient", default="none")


class Watcher:
    def __init__(self) -> None:
        self.seen: list[tuple[int, str]] = []

    @covet.hookimpl
    def covet_setup(self, app: Covet) -> None:
        self.seen.append((threading.get_ident(), ambient.get()))


@pytest.mark.anyio
async def test_plugins_are_built_in_a_worker_thread_with_the_callers_context() -> None:
    watcher = Watcher()
    ambient.set("caller")
    async with TestClient(plugin_sandbox(watcher=watcher)):
        pass
    ((thread, context),) = watcher.seen
    assert thread != threading.get_ident()
    assert context == "caller"


@pytest.mark.anyio
async def test_so_does_the_first_request_where_no_lifespan_runs_and_only_one_of_many_builds() -> None:
    watcher = Watcher()
    app = plugin_sandbox(watcher=watcher)

    @app.get("/")
    async def index() -> str:
        return "here"

    answers: list[int] = []

    async def ask() -> None:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                answers.append(message["status"])

        scope = {
            "type": "http",
            "method": "GET",
            "path": "/",
            "query_string": b"",
            "headers": [],
            "http_version": "1.1",
        }
        await app(scope, receive, send)

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(ask)
    assert answers == [200] * 5
    assert len(watcher.seen) == 1
    assert watcher.seen[0][0] != threading.get_ident()


@pytest.mark.anyio
async def test_a_failure_in_the_worker_thread_comes_out_as_it_is() -> None:
    class Broken:
        @covet.hookimpl
        def covet_setup(self, app: Covet) -> None:
            raise RuntimeError("not today")

    app = plugin_sandbox(broken=Broken())
    with pytest.raises(PluginError, match="plugin 'broken' failed in covet_setup: RuntimeError: not today") as raised:
        async with app.running():
            raise AssertionError("it must not start")
    assert isinstance(raised.value.__cause__, RuntimeError)


def test_a_build_that_failed_can_be_tried_again() -> None:
    class Flaky:
        tries = 0

        @covet.hookimpl
        def covet_setup(self, app: Covet) -> None:
            app.add(Route("/flaky", say_nothing))
            app.provide(Word, lambda: Word("x"))
            app.exception_handler(418)(say_nothing)
            self.tries += 1
            if self.tries == 1:
                raise RuntimeError("not yet")

    app = plugin_sandbox(flaky=Flaky())
    with pytest.raises(PluginError, match="not yet"):
        app.build()
    app.build()
    assert [route.path for route in app.routes] == ["/flaky"]


async def say_nothing() -> None: ...


def test_a_plugin_may_look_at_the_application_while_it_is_set_up() -> None:
    class Curious:
        @covet.hookimpl
        def covet_setup(self, app: Covet) -> None:
            app.build()
            assert app.plugins.records["curious"].state == "active"
            assert not app.listening
            app.emit(object())
            assert list(app.storage) == []

    plugin_sandbox(curious=Curious()).build()


def test_a_plugin_that_asks_too_early_fails_alone() -> None:
    class Hasty:
        @covet.hookimpl
        def covet_hookspecs(self) -> Any:
            return app.routes

    settings = {"plugins": {"optional": ["hasty"]}}
    app = plugin_sandbox(hasty=Hasty(), settings=settings)
    app.build()
    record = app.plugins.records["hasty"]
    assert record.state == "failed"
    assert "while its plugins were being loaded" in str(record.error)


# What check finds


def test_check_finds_nothing_in_a_good_plugin() -> None:
    assert given(plain=Plain()).check() == []


def test_check_finds_functions_that_nobody_calls() -> None:
    class Forgetful:
        covet_before = ("x",)

        @covet.hookimpl
        def covet_encoders(self) -> dict[type, Any]:
            return {}

        def covet_routes(self, app: Covet) -> list[Any]:
            return []

        def covet_route(self, app: Covet) -> list[Any]:
            return []

    found = given(forgetful=Forgetful()).check()
    assert [(f.plugin, f.severity, f.message) for f in found] == [
        ("forgetful", "warning", "covet_route is no hook; did you mean 'covet_routes'?"),
        ("forgetful", "warning", "covet_routes lacks the mark @covet.hookimpl, so it is never called"),
    ]
    assert repr(found[0]).startswith("<Finding warning forgetful: covet_route is no hook")


def test_an_object_that_cannot_even_be_looked_at() -> None:
    class Hostile:
        def __dir__(self) -> list[str]:
            raise RuntimeError("go away")

        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(f"no {name}")

    manager = given(hostile=Hostile(), plain=Plain())
    assert manager.records["hostile"].state == "failed"
    assert manager.records["plain"].state == "active"
    assert [(f.plugin, f.severity) for f in manager.check()] == [("hostile", "error")]


def test_an_object_that_answers_to_everything() -> None:
    class Eager:
        def __getattr__(self, name: str) -> Any:
            return lambda *arguments: 1 / 0

    manager = given(eager=Eager())
    assert manager.records["eager"].state == "failed", "covet_after is no name there"


def test_a_property_is_not_run_to_find_out() -> None:
    class Lazy:
        @property
        def covet_setup(self) -> Any:
            raise AssertionError("it was run")

    assert list(unmarked(Lazy(), ["covet_setup"])) == []


def test_check_finds_a_plugin_that_does_nothing() -> None:
    (found,) = given(empty=object()).check()
    assert found.message == "it implements no hook, so it does nothing"


def test_check_bears_hooks_that_need_not_exist() -> None:
    class Guest:
        @covet.hookimpl(optionalhook=True)
        def acme_hook_of_another(self) -> None: ...

        @covet.hookimpl
        def covet_encoders(self) -> dict[type, Any]:
            return {}

    manager = given(guest=Guest())
    assert manager.check() == []
    assert manager.records["guest"].provides == ("encoders",)


# The manager itself


def test_asking_too_early_or_for_what_is_not_there() -> None:
    with pytest.raises(PluginError, match="not loaded yet"):
        PluginManager(PluginsSettings(), installed=False).hook_names()
    manager = given(plain=Plain())
    with pytest.raises(PluginError, match="there is no hook 'covet_route'; did you mean 'covet_routes'"):
        manager.call("covet_route")
    with pytest.raises(PluginError, match="no plugin 'plane' is loaded; did you mean 'plain'"):
        manager.object("plane")
    assert isinstance(manager.object("plain"), Plain)
    with pytest.raises(PluginError, match="covet_ready is asynchronous: `compile` it"):
        manager.call("covet_ready", app=None)
    with pytest.raises(PluginError, match="covet_routes is a plain one: `call` it"):
        manager.compile("covet_routes")


# The sandbox


def test_the_sandbox_has_exactly_the_plugins_it_names(site: synthetic.Site) -> None:
    site.add("one", plugins={"one": "s_one"}, modules={"s_one": GOOD})
    site.add("two", plugins={"two": "s_two"}, modules={"s_two": GOOD})
    app = plugin_sandbox("one", Plain(), other=Plain())
    app.build()
    assert list(app.plugins.records) == ["Plain", "one", "other"]
    assert "s_two" not in sys.modules
    with pytest.raises(PluginError, match="no installed plugin is called 'onne'; did you mean 'one'"):
        plugin_sandbox("onne")
    with pytest.raises(PluginError, match="no installed plugin is called 'x'; there are one, two"):
        plugin_sandbox("x")
    with pytest.raises(PluginError, match="two plugins of this sandbox are called 'one'"):
        plugin_sandbox("one", one=Plain())


def test_the_sandbox_reads_neither_file_nor_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "covet.toml").write_text("[server]\nport = 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COVET_SERVER__WORKERS", "7")
    tables = {"app": {"name": "mine"}, "limits.max_body": 5}
    app = plugin_sandbox(settings=tables)
    assert (app.settings.server.port, app.settings.server.workers) == (8000, 1)
    assert (app.settings.app.name, app.settings.limits.max_body) == ("mine", 5)
    assert tables == {"app": {"name": "mine"}, "limits.max_body": 5}
