"""`Covet`: the one application class."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import cached_property
from threading import RLock
from typing import TYPE_CHECKING, Any, TypeVar

from covet.exceptions import ConfigurationError, RouteError
from covet.routing import Declarations, Mount, Route, Router, WebSocketRoute
from covet.templates import CONVERTERS, Converter

if TYPE_CHECKING:
    import os

    from covet.answers import Answers
    from covet.backends import Backends
    from covet.background import Tasks
    from covet.builder import Build, CompiledHooks
    from covet.datastructures import State
    from covet.lifespan import Drain
    from covet.lookup import RouteTable
    from covet.middleware import ASGIMiddleware, Band, Middleware
    from covet.plugins import PluginManager
    from covet.requests import Request
    from covet.sessions import Sessions
    from covet.settings import Settings
    from covet.signatures import Plan
    from covet.storage import StorageRegistry

__all__ = ["Covet"]

F = TypeVar("F", bound=Callable[..., Any])
Lifespan = Callable[["Covet"], AbstractAsyncContextManager[Any]]
ErrorHandler = Callable[["Request", Any], Any]


class Covet(Declarations):
    """An application: routes, middleware, dependencies and plugins, served as an ASGI 3 application.

        app = Covet()

        @app.get("/hello/{name}")
        async def hello(name: str) -> str:
            return f"Hello, {name}!"

    What it consists of is declared first and built once: at start-up, by `build()`, or by the first request.

    Args:
        settings: a `Settings`, a path to a settings file, or a mapping of settings that goes before file and
            environment; by default what `covet.toml` and the environment say.
        plugins: objects or modules with hook implementations, beside the installed plugins.
        installed_plugins: whether the installed plugins take part; the builtin ones always may.
        lifespan: an asynchronous context manager over the application's running time, called with the application.
        converters: path converters beside `covet.templates.CONVERTERS`, by name.
    """

    def __init__(
        self,
        settings: Settings | Mapping[str, Any] | str | os.PathLike[str] | None = None,
        *,
        plugins: Sequence[object] | Mapping[str, object] = (),
        installed_plugins: bool | Sequence[str] = True,
        lifespan: Lifespan | None = None,
        converters: Mapping[str, Converter] | None = None,
    ) -> None:
        self._given_settings = settings
        self._given_plugins = plugins
        self._installed_plugins = installed_plugins
        self._router = Router()
        self._layers: list[Middleware | ASGIMiddleware] = []
        self._providers: dict[Any, Any] = {}
        self._error_handlers: dict[type[BaseException] | int, ErrorHandler] = {}
        self._overrides: dict[Any, Any] = {}
        self._build: Build | None = None
        self._building = RLock()
        self._loading = False
        self._ready = False
        self._closed = False
        self._settings: Settings | None = None
        self._state: State | None = None
        # Method to route table; empty until built, and where ASGI middleware stands outside of everything.
        self._tables: dict[str | None, RouteTable[Any]] = {}
        self._max_path = self._max_headers = 0
        self.converters: Mapping[str, Converter] = {**CONVERTERS, **(converters or {})}
        self._lifespans: list[Lifespan] = [lifespan] if lifespan else []
        self.mount_states: dict[str, dict[str, Any]] = {}
        self.app_values: dict[Any, Any] = {}

    # Declaring

    def _check_open(self, what: str) -> None:
        if self._closed:
            raise ConfigurationError(f"{what} was declared after the application was built; declare it at import time")

    def add(self, entry: Route | WebSocketRoute | Mount | Router, prefix: str = "") -> None:
        """Take in a route, a mount, or all routes of a router below `prefix`.

        Raises:
            ConfigurationError: the application is built already.
        """
        self._check_open(f"the route {entry!r}")
        self._router.add(entry, prefix)

    def add_middleware(self, layer: Middleware | ASGIMiddleware) -> None:
        """Put a middleware around every request, in its band."""
        self._check_open(f"the middleware {layer!r}")
        self._layers.append(layer)

    def middleware(self, band: Band = "application", **options: Any) -> Callable[[F], F]:
        """Declare a function `async def mw(request, call_next)` as middleware; `options` are those of `Middleware`."""
        from covet.middleware import Middleware

        def declare(function: F) -> F:
            self.add_middleware(Middleware(function, band=band, **options))
            return function

        return declare

    def provide(self, type_: Any, provider: Any) -> None:
        """Give handlers that ask for `type_` by annotation what `provider` (a callable or a `Depends`) makes.

        Raises:
            ConfigurationError: the application already provides that type, or is built.
        """
        self._check_open(f"the provider of {type_!r}")
        if type_ in self._providers:
            raise ConfigurationError(f"the application provides {type_!r} twice; keep one")
        self._providers[type_] = provider

    def exception_handler(self, error: type[BaseException] | int) -> Callable[[F], F]:
        """Declare what answers an exception class (and its subclasses) or the status of an `HTTPError`.

        The function takes the request and the error, and returns what a handler may return.
        """

        def declare(function: F) -> F:
            self._check_open(f"the exception handler {function!r}")
            self._error_handlers[error] = function
            return function

        return declare

    def lifespan(self, function: Callable[[Covet], AsyncIterator[None]]) -> Callable[[Covet], AsyncIterator[None]]:
        """Declare an asynchronous generator that runs around the application: start-up, `yield`, shutdown."""
        self.add_lifespan(asynccontextmanager(function))
        return function

    def add_lifespan(self, lifespan: Lifespan) -> None:
        """Enter an asynchronous context manager, made by `lifespan(app)`, at start-up, inside those declared before."""
        self._check_open(f"the lifespan {lifespan!r}")
        self._lifespans.append(lifespan)

    # What it consists of

    @property
    def app(self) -> Covet:
        """The application itself: whatever `covet.context.running` holds has this."""
        return self

    @property
    def settings(self) -> Settings:
        """The settings, read at first use.

        Raises:
            SettingsError: they hold an unknown key or an ill-typed value.
        """
        if self._settings is None:
            from covet.builder import load_settings

            self._settings = load_settings(self._given_settings)
        return self._settings

    @property
    def debug(self) -> bool:
        """Whether error pages show tracebacks: `[app] debug`."""
        return self.settings.app.debug

    @property
    def state(self) -> State:
        """Values that belong to the application, by type."""
        if self._state is None:
            from covet.datastructures import State

            self._state = State()
        return self._state

    @property
    def built(self) -> Build:
        """What was decided when the application was built; builds it first if need be."""
        if self._build is None:
            self.build()
        assert self._build is not None
        return self._build

    @property
    def routes(self) -> tuple[Route | WebSocketRoute | Mount, ...]:
        """Every route, those of plugins included."""
        return self.built.routes

    @property
    def lifespans(self) -> tuple[Lifespan, ...]:
        """What is entered at start-up, in order, after the plugins' own."""
        return tuple(self._lifespans)

    @property
    def plans(self) -> tuple[Plan, ...]:
        """What each handler takes."""
        return tuple(route.plan for route in self.routes if not isinstance(route, Mount) and route.plan is not None)

    @property
    def plugins(self) -> PluginManager:
        """The plugins and their state."""
        return self.built.plugins

    @property
    def hooks(self) -> CompiledHooks:
        """The hooks of the request path and the lifespan, compiled; None where nobody implements one."""
        return self.built.hooks

    @property
    def storage(self) -> StorageRegistry:
        """The storage backends by alias: `[storage.NAME]`."""
        return self.built.storage

    @property
    def backends(self) -> Backends:
        """The session store, caches, pub/sub backends and object stores, by section and alias."""
        return self.built.backends

    @cached_property
    def sessions(self) -> Sessions:
        """The sessions of all visitors: `await app.sessions.end(user)` and the like.

        Raises:
            ConfigurationError: no plugin that takes part brings the store that `[sessions]` names.
        """
        from covet.sessions import Sessions

        return Sessions(self)

    @property
    def tasks(self) -> Tasks:
        """The supervised tasks: `app.tasks.start_soon(function, ...)`."""
        return self.built.tasks

    @property
    def drain(self) -> Drain:
        """Tells when the application is about to stop: `await app.drain.wait()`."""
        return self.built.drain

    @drain.setter
    def drain(self, drain: Drain) -> None:
        self.built.drain = drain

    @property
    def renderer(self) -> Any:
        """Turns return values into responses."""
        return self.built.renderer

    @property
    def response_headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """The constant headers that plugins add to every response."""
        return self.built.answers.headers

    @property
    def answers(self) -> Answers:
        """How errors become responses, and responses are sent."""
        return self.built.answers

    @property
    def listening(self) -> bool:
        """Whether anybody listens to events; build none when not."""
        return self._build is not None and self._build.hooks.event is not None

    def emit(self, event: Any) -> None:
        """Tell the listeners of an event."""
        if self._build is not None and self._build.hooks.event is not None:
            self._build.hooks.event(event)

    def url_for(self, name: str, /, **values: Any) -> str:
        """The path of the route called `name`, its parameters filled in and percent-encoded.

        Raises:
            RouteError: no route has that name, or the values do not fit its parameters.
        """
        route = self.built.names.get(name)
        if route is None:
            from difflib import get_close_matches

            near = get_close_matches(name, self.built.names, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise RouteError(f"no route is called {name!r}{hint}")
        if isinstance(route, Mount):
            return route.path + "/" + str(values.get("path", "")).lstrip("/")
        return route.template.format(values)

    def signing_key(self, purpose: str, *context: str) -> bytes:
        """A 32-byte key derived from `[app] secret_key` for one purpose; other purposes have unrelated keys.

        Raises:
            ConfigurationError: no secret key is set and the application is not in debug mode.
        """
        from covet.secrets import application_key, derive_key

        return derive_key(application_key(self.settings), purpose, *context)

    def signing_keys(self, purpose: str, *context: str) -> tuple[bytes, ...]:
        """The keys to verify with: that of `signing_key`, then those derived from `[app] previous_secret_keys`.

        Raises:
            ConfigurationError: as `signing_key`, for any of them.
        """
        from covet.secrets import derive_key, previous_keys

        previous = (derive_key(key, purpose, *context) for key in previous_keys(self.settings))
        return (self.signing_key(purpose, *context), *previous)

    # Building and running

    def build(self) -> None:
        """Load the plugins, check everything, compile the request path. Does nothing the second time.

        Safe to call from several threads: one of them builds, the others wait for it.

        Raises:
            ConfigurationError: of the kind that says what is wrong: settings, a plugin, a route, a handler.
        """
        if self._ready:
            return
        from covet.builder import build

        # Reentrant, for a plugin may ask for `app.built` while it is set up.
        with self._building:
            if self._build is not None:
                return
            if self._loading:
                raise ConfigurationError(
                    "the application was asked what it consists of while its plugins were being loaded; a plugin asks "
                    "in covet_setup or later"
                )
            self._loading = True
            try:
                build(self)
                self._ready = True
            finally:
                self._loading = False

    def running(self) -> AbstractAsyncContextManager[None]:
        """Run the application without a server: its lifespan, with this application as the ambient one."""
        from covet.lifespan import run_application

        return run_application(self)

    @contextmanager
    def override(self, replacements: Mapping[Any, Any]) -> Iterator[None]:
        """Let other functions stand in for providers while the context lasts: `{provider_or_type: replacement}`.

        Raises:
            HandlerError: a replacement asks for something that it cannot be given.
        """
        from covet.builder import compile_routes

        before = dict(self._overrides)
        self._overrides.update(replacements)
        try:
            if self._build is not None:
                compile_routes(self, self._build)
            yield
        finally:
            self._overrides.clear()
            self._overrides.update(before)
            if self._build is not None:
                compile_routes(self, self._build)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection, as the ASGI specification (version 3) says.

        Cancellation cancels the handler; its dependencies are cleaned up.
        """
        try:
            table = self._tables[scope["method"]]
        except KeyError:
            table = None
        # Where the application is mounted, the path begins with what is not its own.
        if table is not None and len(scope["headers"]) <= self._max_headers and not scope.get("root_path"):
            path = scope["path"]
            endpoint = table.static.get(path)
            if endpoint is not None:
                await endpoint(scope, receive, send, ())
                return
            if len(path) <= self._max_path:
                segments = path.split("/")
                for pick, bucket in table.shapes.get(len(segments), table.deep):
                    for match, endpoint in bucket.get(pick(segments), ()):
                        try:
                            values = match(segments)
                        except ValueError:
                            continue
                        await endpoint(scope, receive, send, values)
                        return
        # Everything else: the first request, lifespan, WebSockets, what no route answers, what is refused.
        if scope["type"] == "lifespan":
            from covet.lifespan import serve_lifespan

            await serve_lifespan(self, receive, send)
            return
        if not self._ready:
            from covet.concurrency import in_thread

            # The server ran no lifespan. Building imports plugins, which blocks, and the loop has others to serve.
            await in_thread(self.build)
        await self.built.entry(scope, receive, send)

    # Called by the compiled request path

    def start_tasks(self, request: Request) -> None:
        """Start what a request left to do after its response."""
        request.finishers = None
        self.built.tasks.start_after(request)
