"""Hooks: how implementations are checked, called, compiled; wrappers; hooks that plugins bring."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import warnings
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec
import pytest

import covet
from covet import Covet, HTTPError, PluginError, Request, Response, hookspecs
from covet.endpoints import response_source
from covet.hooks import Contribution
from covet.plugins import PluginManager
from covet.settings_sections import PluginsSettings
from covet.testing import TestClient, plugin_sandbox

SPECIFICATIONS = {name: function for name, function in vars(hookspecs).items() if name.startswith("covet_")}
ASYNC_HOOKS = sorted(name for name, function in SPECIFICATIONS.items() if inspect.iscoroutinefunction(function))
SYNC_HOOKS = sorted(set(SPECIFICATIONS) - set(ASYNC_HOOKS))
KIND_OF = {name: str(function.__annotations__["return"]).partition("[")[0] for name, function in SPECIFICATIONS.items()}
CONTRIBUTING = [name for name in SYNC_HOOKS if KIND_OF[name] in ("Iterable", "Mapping") and name != "covet_hookspecs"]
REQUEST_HOOKS = [name for name in ASYNC_HOOKS if "request" in name or "response" in name]


def load(**plugins: object) -> PluginManager:
    manager = PluginManager(PluginsSettings(), extra=plugins, installed=False)
    manager.load()
    return manager


def error_of(plugin: object) -> str:
    manager = load(plugin=plugin)
    record = manager.records["plugin"]
    assert record.state == "failed", "it was taken"
    assert not manager.manager.has_plugin("plugin")
    return str(record.error)


def plugin(**implementations: Any) -> Any:
    """A plugin object of these functions, which take no `self`."""
    functions = {name: f if isinstance(f, staticmethod) else staticmethod(f) for name, f in implementations.items()}
    return type("Plugin", (), functions)()


def kinds_of(hook: str, note: Callable[[str], Any]) -> dict[str, Any]:
    """Implementations of an asynchronous hook in every form that Python has; each notes that it ran to its end."""
    parameters = list(inspect.signature(SPECIFICATIONS[hook]).parameters)
    signature = ", ".join(parameters)
    space: dict[str, Any] = {"note": note, "functools": functools, "checkpoint": checkpoint}
    exec(  # the forms differ in their parameters alone
        f"""
def plain({signature}): note("plain")
async def asynchronous({signature}):
    await checkpoint()
    note("asynchronous")
def without_arguments(): note("without arguments")
async def last_alone({parameters[-1]}):
    await checkpoint()
    note("last alone")
class Called:
    def __call__(self, {signature}): note("object")
class CalledAsynchronously:
    async def __call__(self, {signature}):
        await checkpoint()
        note("asynchronous object")
def with_more(word, {signature}): note(word)
async def asynchronous_with_more(word, {signature}):
    await checkpoint()
    note(word)
@functools.wraps(asynchronous)
def decorated(*arguments):
    return asynchronous_with_more("decorated", *arguments)
""",
        space,
    )
    return {
        "plain": space["plain"],
        "asynchronous": space["asynchronous"],
        "without arguments": space["without_arguments"],
        "last alone": space["last_alone"],
        "object": space["Called"](),
        "asynchronous object": space["CalledAsynchronously"](),
        "partial": functools.partial(space["with_more"], "partial"),
        "asynchronous partial": functools.partial(space["asynchronous_with_more"], "asynchronous partial"),
        "decorated": space["decorated"],
    }


async def checkpoint() -> None:
    import anyio.lowlevel

    await anyio.lowlevel.checkpoint()


KINDS = sorted(kinds_of("covet_ready", lambda word: None))


# Both kinds, everywhere


@pytest.mark.anyio
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hook", ASYNC_HOOKS)
async def test_every_asynchronous_hook_takes_every_kind_of_callable(hook: str, kind: str) -> None:
    heard: list[str] = []
    implementation = covet.hookimpl(kinds_of(hook, heard.append)[kind])
    manager = load(it=plugin(**{hook: implementation}))
    assert manager.records["it"].state == "active", manager.records["it"].error
    assert manager.records["it"].provides == (hook.removeprefix("covet_"),)
    compiled = manager.compile(hook)
    assert compiled is not None
    await compiled(*range(len(inspect.signature(SPECIFICATIONS[hook]).parameters)))
    assert heard == [kind]


@pytest.mark.anyio
@pytest.mark.parametrize("kind", KINDS)
async def test_they_are_called_in_the_life_of_an_application(kind: str) -> None:
    heard: list[str] = []

    def noting(hook: str) -> Callable[[str], None]:
        return lambda word: heard.append(hook)

    implementations = {hook: covet.hookimpl(kinds_of(hook, noting(hook))[kind]) for hook in ASYNC_HOOKS}
    app = plugin_sandbox(it=plugin(**implementations))

    @app.get("/fails")
    async def fails() -> None:
        raise RuntimeError("on purpose")

    async with TestClient(app, raise_errors=False) as client:
        assert (await client.get("/fails")).status_code == 500
    assert sorted(set(heard)) == ASYNC_HOOKS


@pytest.mark.parametrize("hook", [name for name in SYNC_HOOKS if name != "covet_hookspecs"])
def test_a_plain_hook_takes_no_async_def(hook: str) -> None:
    async def implementation() -> None: ...

    async def generator() -> AsyncIterator[None]:
        yield

    for wrong in (implementation, generator):
        told = error_of(plugin(**{hook: covet.hookimpl(wrong)}))
        assert hook in told
        if hook == "covet_lifespan":
            assert "mark an asynchronous generator with @contextlib.asynccontextmanager" in told
        else:
            assert "must be a plain `def`" in told


def test_neither_does_covet_hookspecs() -> None:
    async def covet_hookspecs() -> list[Any]:
        return []

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        assert "covet_hookspecs" in error_of(plugin(covet_hookspecs=covet.hookimpl(covet_hookspecs)))


def test_a_plain_function_that_gives_a_coroutine_is_found_out_when_called() -> None:
    async def inner(app: Covet) -> list[Any]:
        return []

    manager = load(it=plugin(covet_routes=covet.hookimpl(lambda app: inner(app))))
    with pytest.raises(PluginError, match=r"plugin 'it' failed in covet_routes: it must be a plain `def`"):
        manager.call("covet_routes", app=None)


@pytest.mark.parametrize("hook", ASYNC_HOOKS)
def test_an_asynchronous_hook_takes_no_generator_and_no_wrapper(hook: str) -> None:
    def generator() -> Iterator[None]:
        yield

    async def async_generator() -> AsyncIterator[None]:
        yield

    for wrong in (generator, async_generator):
        assert error_of(plugin(**{hook: covet.hookimpl(wrong)})) == (
            f"{hook} must not `yield`: it is called and awaited, not iterated"
        )
    told = error_of(plugin(**{hook: covet.hookimpl(wrapper=True)(generator)}))
    assert told == f"{hook} is asynchronous, so it takes no wrapper; use a middleware instead"


# Wrong implementations


def implementations_that_are_wrong() -> Iterator[Any]:
    def case(told: str, hook: str = "covet_routes", **options: Any) -> Callable[[Any], Any]:
        def mark(function: Any) -> Any:
            marked = covet.hookimpl(**options)(function) if options else covet.hookimpl(function)
            return pytest.param(hook, marked, told, id=function.__name__)

        return mark

    @case("Argument(s) {'application'} are declared in the hookimpl but can not be found in the hookspec")
    def unknown_argument(application: Any) -> list[Any]:
        return []

    yield unknown_argument

    @case("covet_routes asks for 'app' behind a `*`; a hook's arguments are given by position")
    def keyword_only(*, app: Any) -> list[Any]:
        return []

    yield keyword_only

    @case("there is no hook 'covet_rutes'; did you mean 'covet_routes'?", "covet_rutes")
    def unknown_hook() -> None: ...

    yield unknown_hook

    @case("there is no hook 'covet_rutes'; did you mean 'covet_routes'?", specname="covet_rutes")
    def unknown_name() -> None: ...

    yield unknown_name

    @case("covet_setup must not `yield`: it returns nothing, so nobody would iterate it", "covet_setup")
    def setup_that_yields(app: Any) -> Iterator[None]:
        yield

    yield setup_that_yields

    @case("covet_lifespan must return an asynchronous context manager", "covet_lifespan")
    def unmarked_lifespan(app: Any) -> Iterator[None]:
        yield

    yield unmarked_lifespan

    @case("function is not a generator function", wrapper=True)
    def wrapper_that_does_not_yield(app: Any) -> None: ...

    yield wrapper_that_does_not_yield

    @case("covet_event takes no wrapper: listeners are told one by one", "covet_event", wrapper=True)
    def event_wrapper(event: Any) -> Iterator[None]:
        yield

    yield event_wrapper


@pytest.mark.parametrize(("hook", "implementation", "told"), list(implementations_that_are_wrong()))
def test_wrong_implementations_fail_their_plugin(hook: str, implementation: Any, told: str) -> None:
    found = error_of(plugin(**{hook: implementation}))
    assert told in found
    assert "\n" not in found


def test_pluggys_old_wrappers_are_refused() -> None:
    import pluggy

    @pluggy.HookimplMarker("covet")(hookwrapper=True)
    def covet_routes(app: Any) -> Iterator[None]:
        yield

    assert "write it with `wrapper=True`" in error_of(plugin(covet_routes=covet_routes))


def test_a_class_in_place_of_an_object() -> None:
    class Forgot:
        @covet.hookimpl
        def covet_routes(self, app: Any) -> list[Any]:
            return []

    assert error_of(Forgot).endswith("Forgot, so that there is no `self`; let it be an instance, "
                                     "test_a_class_in_place_of_an_object.<locals>.Forgot()")  # fmt: skip

    class Static:
        @staticmethod
        @covet.hookimpl
        def covet_encoders() -> dict[Any, Any]:
            return {}

        @classmethod
        @covet.hookimpl
        def covet_routes(cls, app: Any) -> list[Any]:
            return []

    assert load(it=Static).records["it"].provides == ("encoders", "routes")


def test_a_mark_on_what_pluggy_does_not_see() -> None:
    class Hidden:
        def __init__(self) -> None:
            self.covet_routes = covet.hookimpl(functools.partial(list))

    manager = load(hidden=Hidden())
    if manager.records["hidden"].state == "failed":
        assert "covet_routes carries the mark @covet.hookimpl and is nothing that" in str(
            manager.records["hidden"].error
        )
    else:  # by the version of pluggy, it may be seen; then it is called
        assert manager.implementers("covet_routes") == ["hidden"]


def test_adding_an_argument_breaks_nobody() -> None:
    """A plugin asks for a part of the arguments, in any order."""

    class Specifications:
        @covet.hookspec
        def shop_sum(self, a: int, b: int, c: int) -> int:
            """Add."""
            return 0

    owner = plugin(covet_hookspecs=covet.hookimpl(lambda: [Specifications]))
    manager = load(
        owner=owner,
        none=plugin(shop_sum=covet.hookimpl(lambda: "none")),
        one=plugin(shop_sum=covet.hookimpl(lambda b: b)),
        turned=plugin(shop_sum=covet.hookimpl(lambda c, a: (c, a))),
    )
    assert manager.call("shop_sum", a=1, b=2, c=3) == [("none", "none"), ("one", 2), ("turned", (3, 1))]
    with pytest.raises(PluginError, match="the hook shop_sum takes a, b, c, and was called with a, b"):
        manager.call("shop_sum", a=1, b=2)
    with pytest.raises(PluginError, match="the hook shop_sum takes a, b, c, and was called with a, b, c, d"):
        manager.call("shop_sum", a=1, b=2, c=3, d=4)


# What is contributed


@pytest.mark.parametrize("hook", CONTRIBUTING)
def test_contributions_of_the_wrong_kind_name_plugin_and_hook(hook: str) -> None:
    kind = KIND_OF[hook]
    arguments = dict.fromkeys(inspect.signature(SPECIFICATIONS[hook]).parameters)
    for wrong in (5, "text", [1] if kind == "Mapping" else {1: 1}):
        manager = load(it=plugin(**{hook: covet.hookimpl(lambda wrong=wrong: wrong)}))
        expected = "a mapping" if kind == "Mapping" else "a list"
        with pytest.raises(PluginError) as raised:
            manager.call(hook, **arguments)
        assert str(raised.value) == f"plugin 'it' failed in {hook}: it returned {wrong!r}, and {expected} was expected"


def test_a_generator_fails_in_the_name_of_its_plugin() -> None:
    def covet_routes(app: Covet) -> Iterator[Any]:
        yield covet.Route("/first", checkpoint)
        raise RuntimeError("half-way")

    manager = load(it=plugin(covet_routes=covet.hookimpl(covet_routes)))
    with pytest.raises(PluginError, match="plugin 'it' failed in covet_routes: RuntimeError: half-way"):
        manager.call("covet_routes", app=None)


@pytest.mark.parametrize(("hook", "value", "what"), [
    ("covet_routes", [5], "covet_routes returned 5, which is no route"),
    ("covet_middleware", [5], "covet_middleware returned 5, which is no middleware"),
])  # fmt: skip
def test_wrong_members_name_the_plugin(hook: str, value: Any, what: str) -> None:
    with pytest.raises(PluginError, match=f"plugin 'it': {what}"):
        plugin_sandbox(it=plugin(**{hook: covet.hookimpl(lambda: value)})).build()


# Wrappers


def contributing(value: Any) -> Any:
    return plugin(covet_encoders=covet.hookimpl(lambda: {int: value}))


def wrapping(function: Callable[[], Iterator[Any]]) -> Any:
    return plugin(covet_encoders=covet.hookimpl(wrapper=True)(function))


def values(contributions: Iterable[Contribution]) -> list[tuple[str, Any]]:
    return [(plugin, value[int]) for plugin, value in contributions]


def test_a_wrapper_sees_what_is_inside_it_and_may_leave_or_change_it() -> None:
    seen: list[Any] = []

    def watch() -> Iterator[None]:
        seen.append("before")
        found = yield
        assert isinstance(found, tuple)
        seen.append(values(found))

    def add() -> Any:
        found = yield
        return [*found, Contribution("b_adds", {int: 99})]

    manager = load(a_watches=wrapping(watch), b_adds=wrapping(add), c=contributing(1), d=contributing(2))
    assert values(manager.call("covet_encoders")) == [("c", 1), ("d", 2), ("b_adds", 99)]
    assert seen == ["before", [("c", 1), ("d", 2), ("b_adds", 99)]], "the first in plugin order is the outermost"


def test_a_wrapper_cannot_drop_what_another_plugin_contributed() -> None:
    def drop() -> Any:
        found = yield
        return [item for item in found if item.plugin != "b"]

    manager = load(greedy=wrapping(drop), a=contributing(1), b=contributing(2))
    with pytest.raises(
        PluginError, match="plugin 'greedy': its wrapper of covet_encoders dropped what 'b' contributed"
    ):
        manager.call("covet_encoders")


def test_errors_and_wrappers() -> None:
    def failing() -> dict[Any, Any]:
        raise RuntimeError("inside")

    inside = plugin(covet_encoders=covet.hookimpl(failing))
    heard: list[str] = []

    def hear() -> Iterator[None]:
        try:
            yield
        except PluginError as error:
            heard.append(str(error))
            raise

    def swallow() -> Iterator[None]:
        with contextlib.suppress(PluginError):
            yield

    def replace() -> Any:
        try:
            found = yield
        except PluginError:
            found = [Contribution("outer", {int: 0})]
        return found

    told = "plugin 'z' failed in covet_encoders: RuntimeError: inside"
    for wrapper in (hear, swallow):
        with pytest.raises(PluginError) as raised:
            load(outer=wrapping(wrapper), z=inside).call("covet_encoders")
        assert str(raised.value) == told
        assert isinstance(raised.value.__cause__, RuntimeError)
    assert heard == [told]
    assert values(load(outer=wrapping(replace), z=inside).call("covet_encoders")) == [("outer", 0)]
    # The wrappers inside another wrapper that fails are ended as well.
    heard.clear()

    def fail_behind() -> Iterator[None]:
        yield
        raise KeyError("behind")

    with pytest.raises(PluginError, match="plugin 'inner' failed in covet_encoders: KeyError: 'behind'"):
        load(a_hears=wrapping(hear), inner=wrapping(fail_behind), z=contributing(1)).call("covet_encoders")
    assert heard == ["plugin 'inner' failed in covet_encoders: KeyError: 'behind'"]


def test_wrappers_that_are_wrong() -> None:
    def before() -> Iterator[None]:
        raise RuntimeError("early")
        yield

    def never() -> Iterator[None]:
        if heard:
            yield

    def twice() -> Iterator[None]:
        yield
        yield

    def text() -> Any:
        yield
        return "text"

    heard: list[str] = []
    for function, told in [
        (before, "plugin 'it' failed in covet_encoders: RuntimeError: early"),
        (never, "plugin 'it': its wrapper of covet_encoders did not yield"),
        (twice, "plugin 'it': its wrapper of covet_encoders yielded more than once"),
        (text, "plugin 'it': its wrapper of covet_encoders returned 'text'; it returns a list of Contribution"),
    ]:
        with pytest.raises(PluginError) as raised:
            load(it=wrapping(function), z=contributing(1)).call("covet_encoders")
        assert str(raised.value).startswith(told)


# Compiled hooks


@pytest.mark.anyio
async def test_the_first_response_answers() -> None:
    asked: list[str] = []

    class Answering:
        def __init__(self, name: str, answers: bool) -> None:
            self.name, self.answers = name, answers

        @covet.hookimpl
        async def covet_request_started(self, request: Request) -> Response | None:
            asked.append(self.name)
            return Response(self.name) if self.answers else None

    app = plugin_sandbox(a=Answering("a", False), b=Answering("b", True), c=Answering("c", True))
    async with TestClient(app) as client:
        assert (await client.get("/")).text == "b"
    assert asked == ["a", "b"]


@pytest.mark.anyio
async def test_each_sees_the_response_of_the_one_before() -> None:
    class Appending:
        def __init__(self, name: str) -> None:
            self.name = name

        @covet.hookimpl
        def covet_response_ready(self, response: Response) -> Response:
            return Response(bytes(response.body) + self.name.encode())

    class Watching:
        @covet.hookimpl
        async def covet_response_ready(self, request: Request) -> None: ...

    app = plugin_sandbox(a=Appending("a"), b=Watching(), c=Appending("c"))

    @app.get("/")
    async def index() -> str:
        return "index-"

    async with TestClient(app) as client:
        assert (await client.get("/")).text == "index-ac"


@pytest.mark.anyio
@pytest.mark.parametrize("hook", ["covet_draining", "covet_request_failed", "covet_request_finished"])
async def test_one_listener_that_fails_keeps_no_other_from_hearing(hook: str, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[str] = []

    def failing() -> None:
        raise RuntimeError("deaf")

    def hearing() -> None:
        heard.append(hook)

    app = plugin_sandbox(a=plugin(**{hook: covet.hookimpl(failing)}), b=plugin(**{hook: covet.hookimpl(hearing)}))

    @app.get("/")
    async def index() -> None:
        raise RuntimeError("on purpose")

    with caplog.at_level(logging.ERROR, "covet.hooks"):
        async with TestClient(app, raise_errors=False) as client:
            assert (await client.get("/")).status_code == 500
    assert heard == [hook]
    assert f"the plugin 'a' failed in the hook {hook}" in caplog.text
    assert "RuntimeError: deaf" in caplog.text


@pytest.mark.anyio
@pytest.mark.parametrize("hook", ["covet_ready", "covet_request_started", "covet_response_ready"])
async def test_an_error_has_a_note_with_the_plugins_name(hook: str) -> None:
    def failing() -> None:
        raise RuntimeError("here")

    compiled = load(
        good=plugin(**{hook: covet.hookimpl(lambda: None)}), it=plugin(**{hook: covet.hookimpl(failing)})
    ).compile(hook)
    assert compiled is not None
    with pytest.raises(RuntimeError) as raised:
        await compiled(*range(len(inspect.signature(SPECIFICATIONS[hook]).parameters)))
    assert raised.value.__notes__ == [f"raised by the plugin 'it' in {hook}"]


@pytest.mark.anyio
async def test_an_error_in_a_request_hook_is_handled_like_the_handlers() -> None:
    def refuse() -> None:
        raise HTTPError(403, "not you")

    app = plugin_sandbox(it=plugin(covet_request_started=covet.hookimpl(refuse)))
    async with TestClient(app) as client:
        assert (await client.get("/")).status_code == 403


def test_listeners_of_events(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Any] = []

    def failing(event: Any) -> None:
        raise RuntimeError("deaf")

    manager = load(
        a=plugin(covet_event=covet.hookimpl(failing)),
        b=plugin(covet_event=covet.hookimpl(lambda event: heard.append(event))),
    )
    emit = manager.compile("covet_event")
    assert emit is not None
    emit("something")
    assert heard == ["something"]
    assert "plugin 'a' failed to handle the event 'something'" in caplog.text


# What nobody implements


@pytest.mark.parametrize("hook", [*ASYNC_HOOKS, "covet_event"])
def test_what_nobody_implements_compiles_to_nothing(hook: str) -> None:
    assert load(it=contributing(1)).compile(hook) is None


def test_an_endpoint_has_no_trace_of_plugins_that_implement_no_request_hook() -> None:
    def endpoint_of(app: Covet) -> Any:
        @app.get("/user/{id:int}")
        async def show(id: int) -> str:
            return str(id)

        app.build()
        endpoint, _ = app.built.tables["GET"].find("/user/3") or (None, ())
        return endpoint

    bare = endpoint_of(plugin_sandbox())
    loaded = endpoint_of(
        plugin_sandbox(
            **{f"p{number}": plugin(covet_ready=covet.hookimpl(lambda: None)) for number in range(20)},
        )
    )
    assert response_source(bare) == response_source(loaded)
    assert "hook" not in response_source(bare)
    for hook in REQUEST_HOOKS:
        if hook == "covet_request_failed":
            continue  # an error is off the path, wherever it is handled
        hooked = endpoint_of(plugin_sandbox(it=plugin(**{hook: covet.hookimpl(lambda: None)})))
        assert getattr(hooked, "source", "") != bare.source, "one that is implemented does leave its trace"


# Hooks that plugins bring


class ShopSpecifications:
    @covet.hookspec
    def shop_methods(self, country: str) -> Iterable[str]:
        """Name ways to pay."""
        return ()

    @covet.hookspec(firstresult=True)
    def shop_price(self, thing: str, currency: str = "EUR") -> float | None:
        """Tell the price of a thing."""

    @covet.hookspec
    async def shop_sold(self, thing: str) -> str | None:
        """Hear that a thing was sold."""

    @covet.hookspec(firstresult=True)
    async def shop_reserve(self, thing: str) -> str | None:
        """Put a thing aside."""


def shop(*specifications: Any) -> Any:
    return plugin(covet_hookspecs=covet.hookimpl(lambda: specifications or [ShopSpecifications]))


@pytest.mark.anyio
@pytest.mark.parametrize("owner", ["aaa_shop", "zzz_shop"])
async def test_plugins_of_plugins(owner: str) -> None:
    """Specifications arrive before any implementation is checked, wherever their plugin stands in the order."""

    async def reserve(thing: str) -> str | None:
        return f"reserved {thing}"

    manager = load(
        **{owner: shop()},
        card=plugin(
            shop_methods=covet.hookimpl(lambda country: [f"card {country}"]),
            shop_price=covet.hookimpl(lambda: None),
            shop_sold=covet.hookimpl(lambda thing: f"card heard of {thing}"),
        ),
        cash=plugin(
            shop_methods=covet.hookimpl(lambda: ["cash"]),
            shop_price=covet.hookimpl(lambda thing: 3.0),
            shop_sold=covet.hookimpl(lambda: None),
            shop_reserve=covet.hookimpl(reserve),
        ),
        later=plugin(
            shop_price=covet.hookimpl(lambda: 1 / 0),
            shop_reserve=covet.hookimpl(lambda: 1 / 0),
        ),
    )
    assert {name: record.error for name, record in manager.records.items() if record.error} == {}
    assert manager.call("shop_methods", country="AT") == [("card", ("card AT",)), ("cash", ("cash",))]
    assert manager.call("shop_price", thing="hat") == [("cash", 3.0)]
    sold, reserved = manager.compile("shop_sold"), manager.compile("shop_reserve")
    assert sold is not None
    assert reserved is not None
    assert await sold("hat") == ["card heard of hat"]
    assert await reserved("hat") == "reserved hat"
    assert "shop_methods" in manager.hook_names()
    assert manager.records["card"].provides == ("shop_methods", "shop_price", "shop_sold")
    assert manager.check() == []


def test_an_implementation_of_a_plugins_hook_is_checked_like_any() -> None:
    manager = load(
        shop=shop(),
        typo=plugin(shop_prices=covet.hookimpl(lambda: 1.0)),
        wrong=plugin(shop_price=covet.hookimpl(lambda price: 1.0)),
        good=plugin(shop_price=covet.hookimpl(lambda thing: 1.0)),
    )
    assert manager.records["typo"].error == "there is no hook 'shop_prices'; did you mean 'shop_price'?"
    assert "Argument(s) {'price'}" in str(manager.records["wrong"].error)
    assert manager.records["good"].state == "active"


def test_historic_specifications_work_as_any_other() -> None:
    """Everything is registered before the first call, so there is no history to hear of."""

    class Historic:
        @covet.hookspec(historic=True)
        def shop_opened(self, day: str) -> str:
            """Hear that the shop opened."""
            return ""

    manager = load(a=plugin(shop_opened=covet.hookimpl(lambda day: day)), shop=shop(Historic))
    assert manager.call("shop_opened", day="Monday") == [("a", "Monday")]


@pytest.mark.parametrize(
    ("brought", "told"),
    [
        ([object()], "carries the mark @covet.hookspec"),
        (5, "covet_hookspecs returned 5, and a list of modules or objects was expected"),
        (
            [ShopSpecifications, ShopSpecifications],
            "it specifies the hook shop_methods, which the plugin 'it' has already",
        ),
        ([hookspecs], "it specifies the hook covet_cache_backends, which Covet itself has already"),
    ],
)
def test_specifications_that_are_wrong_leave_nothing(brought: Any, told: str) -> None:
    manager = load(it=plugin(covet_hookspecs=covet.hookimpl(lambda: brought)))
    assert manager.records["it"].state == "failed"
    assert told in str(manager.records["it"].error)
    assert manager.hook_names() == sorted(SPECIFICATIONS)


def test_two_plugins_that_specify_one_hook() -> None:
    manager = load(first=shop(), second=shop())
    assert manager.records["first"].state == "active"
    assert manager.records["second"].error == "it specifies the hook shop_methods, which the plugin 'first' has already"


def test_hooks_of_a_plugin_that_fails() -> None:
    class Broken:
        @covet.hookimpl
        def covet_hookspecs(self) -> list[Any]:
            return [ShopSpecifications]

        @covet.hookimpl
        def covet_no_such(self) -> None: ...

    manager = load(broken=Broken(), card=plugin(shop_price=covet.hookimpl(lambda: 1.0)))
    assert (manager.records["broken"].state, manager.records["card"].state) == ("failed", "active")
    assert "shop_price" in manager.hook_names()
    assert "shop_methods" not in manager.hook_names()


# Deprecation


class OldSpecifications:
    @covet.hookspec(warn_on_impl=DeprecationWarning("shop_old goes in 2.0; use shop_new"))
    def shop_old(self) -> None:
        """Do it the old way."""

    @covet.hookspec(warn_on_impl_args={"request": DeprecationWarning("request goes in 2.0; use connection")})
    def shop_new(self, request: Any, connection: Any) -> None:
        """Do it the new way."""


@pytest.mark.filterwarnings("ignore:shop_old goes:DeprecationWarning", "ignore:request goes:DeprecationWarning")
def test_check_shows_deprecated_hooks_and_arguments() -> None:
    manager = load(
        shop=shop(OldSpecifications),
        old=plugin(shop_old=covet.hookimpl(lambda: None), shop_new=covet.hookimpl(lambda request: None)),
        new=plugin(shop_new=covet.hookimpl(lambda connection: None)),
    )
    assert sorted((f.plugin, f.severity, f.message) for f in manager.check()) == [
        ("old", "warning", "shop_new(request): request goes in 2.0; use connection"),
        ("old", "warning", "shop_old: shop_old goes in 2.0; use shop_new"),
    ]


def test_loading_warns_of_them_too() -> None:
    with pytest.warns(DeprecationWarning, match="shop_old goes"):
        load(shop=shop(OldSpecifications), old=plugin(shop_old=covet.hookimpl(lambda: None)))


# The specifications themselves


@pytest.mark.parametrize("name", SPECIFICATIONS)
def test_every_hook_is_documented(name: str) -> None:
    documentation = inspect.getdoc(SPECIFICATIONS[name]) or ""
    for part in ("When:", "By whom:", "Returns:", "On failure:", "Example:"):
        assert part in documentation, f"{name} does not say {part}"
    assert "@covet.hookimpl" in documentation
    assert f"def {name}(" in documentation


def test_the_hooks_are_those_of_the_kernel() -> None:
    assert load().hook_names() == sorted(SPECIFICATIONS)


@pytest.mark.anyio
async def test_settings_are_there_for_every_other_hook() -> None:
    class Config(msgspec.Struct):
        word: str = "default"

    seen: dict[str, str] = {}

    class Reading:
        @covet.hookimpl
        def covet_settings(self) -> type:
            return Config

        @covet.hookimpl
        def covet_setup(self, app: Covet) -> None:
            seen["setup"] = app.settings[Config].word

        @covet.hookimpl
        def covet_dependencies(self, app: Covet) -> Mapping[type, Any]:
            seen["dependencies"] = app.settings[Config].word
            return {}

        @covet.hookimpl
        @contextlib.asynccontextmanager
        async def covet_lifespan(self, app: Covet) -> AsyncIterator[None]:
            seen["lifespan"] = app.settings[Config].word
            yield

    app = plugin_sandbox(reading=Reading(), settings={"plugins": {"reading": {"word": "given"}}})

    @app.get("/")
    async def index(config: Config) -> str:
        return config.word

    async with TestClient(app) as client:
        assert (await client.get("/")).text == "given"
    assert seen == {"setup": "given", "dependencies": "given", "lifespan": "given"}
