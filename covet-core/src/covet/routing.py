"""Routes, and what declares them. The templates of their paths are `covet.templates`; how a path finds its route is
`covet.lookup`."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from covet.datastructures import State
from covet.exceptions import RouteError
from covet.templates import AnyConverter, Template

if TYPE_CHECKING:
    from covet.middleware import Middleware
    from covet.requests import Request
    from covet.settings_sections import Limits
    from covet.signatures import Plan
    from covet.transforms import ResponseTransform

__all__ = [
    "Declarations",
    "Mount",
    "Route",
    "RouteOptions",
    "Router",
    "WebSocketRoute",
    "handler_name",
    "route_options",
]

F = TypeVar("F", bound=Callable[..., Any])
ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]


OPTIONS = "__covet_route_options__"
ROUTED = "__covet_routed__"


@dataclass(frozen=True, slots=True)
class RouteOptions:
    """What decorators below that of a route have to say about it; see `route_options`.

    Attributes:
        middleware: added to the route's, inside.
        marks: added to the route's; those of the route itself go before.
        handler: what the route calls in place of the decorated function; None for that itself.
        guards: may refuse the route's requests, behind those that plugins contribute.
        replaced: the decorated function in whose place `handler` is called.
    """

    middleware: tuple[Middleware, ...] = ()
    marks: tuple[object, ...] = ()
    handler: Callable[..., Any] | None = None
    guards: tuple[Callable[[Request], Any], ...] = ()
    replaced: Callable[..., Any] | None = None


def route_options(
    handler: F,
    *,
    middleware: Iterable[Middleware] = (),
    marks: Iterable[object] = (),
    call: Callable[..., Any] | None = None,
    guards: Iterable[Callable[[Request], Any]] = (),
) -> F:
    """Say something about every route that `handler` will serve; for decorators that stand below that of the route.

        class Internal:
            "For machines of our own."

        def internal(handler):
            return route_options(handler, marks=[Internal()])

        @app.get("/metrics")
        @internal
        async def metrics() -> str: ...

    What was said before stays; the function itself is not changed otherwise.

    Args:
        handler: the function.
        middleware: added to the routes', inside.
        marks: what plugins understand; of two of one type the later counts.
        call: what the routes call in place of `handler`, for a decorator whose wrapper is for other callers.
        guards: functions of the request that may refuse it, as those of the hook `covet_route_guards`; called behind
            these, and before the guards that were said before.

    Returns:
        `handler`.

    Raises:
        RouteError: a decorator has made a route of it already, for which this would not hold.
    """
    if getattr(handler, ROUTED, False):
        raise RouteError(
            f"what is said of {handler_name(handler)} comes after its route was declared, and would not hold for it; "
            "put the decorator below those of all routes"
        )
    before: RouteOptions = getattr(handler, OPTIONS, RouteOptions())
    options = RouteOptions(
        (*middleware, *before.middleware),
        (*before.marks, *marks),
        call or before.handler,
        (*guards, *before.guards),
        before.replaced if call is None else handler,
    )
    setattr(handler, OPTIONS, options)
    return handler


class Route:
    """A path, its methods and the handler that answers.

    Args:
        path: the template, such as `/users/{id:int}`.
        handler: what is called; its signature says what it needs.
        methods: the HTTP methods; HEAD comes with GET, OPTIONS with any.
        name: for `url_for`; the handler's name by default.
        status: of a response whose handler returns a plain value; 200 by default, 204 for None.
        summary, description: for the OpenAPI document; by default the first line and the rest of the handler's
            docstring.
        tags: for the OpenAPI document.
        responses: further responses for the OpenAPI document: status to a type or a description.
        deprecated: marks the operation in the OpenAPI document.
        in_schema: whether the OpenAPI document lists it.
        middleware: applied to this route alone, inside the application's.
        limits: other limits than the application's.
        marks: what plugins understand, one of a type: `route.marks.get(TheirType)` finds it.

    A decorator below that of the route may add to marks and middleware: see `route_options`. After the application is
    built, `plan` tells what the handler takes, `owner` who declared the route, `guards` what may refuse its requests,
    `transforms` what is done to the bodies of its responses.
    """

    __slots__ = (
        "deprecated",
        "description",
        "guards",
        "handler",
        "in_schema",
        "limits",
        "marks",
        "methods",
        "middleware",
        "name",
        "namespace",
        "owner",
        "path",
        "plan",
        "responses",
        "status",
        "summary",
        "tags",
        "template",
        "transforms",
    )

    def __init__(
        self,
        path: str,
        handler: Callable[..., Any],
        methods: Iterable[str] = ("GET",),
        *,
        name: str | None = None,
        status: int | None = None,
        summary: str | None = None,
        description: str | None = None,
        tags: Iterable[str] = (),
        responses: Mapping[int, Any] | None = None,
        deprecated: bool = False,
        in_schema: bool = True,
        middleware: Iterable[Middleware] = (),
        limits: Limits | None = None,
        marks: Iterable[object] = (),
    ) -> None:
        if not callable(handler):
            raise RouteError(f"route {path!r}: the handler is {handler!r}, which cannot be called")
        options: RouteOptions = getattr(handler, OPTIONS, RouteOptions())
        if options.handler is not None:
            # A wrapper has taken over the attributes of what it wraps, and would be left out: a check of access, say.
            if options.replaced is not handler:
                raise RouteError(
                    f"route {path!r}: a decorator stands between that of the route and one of {handler_name(handler)} "
                    "which has to be right below it, such as `cached`: change their order"
                )
            handler = options.handler
        self.path = path
        self.handler = handler
        self.methods = frozenset(_method(path, method) for method in methods)
        self.name: str = name or str(getattr(handler, "__name__", type(handler).__name__))
        self.status = status
        first, _, rest = (getattr(handler, "__doc__", None) or "").strip().partition("\n")
        self.summary = first.strip() if summary is None else summary
        self.description = _dedent(rest) if description is None else description
        self.tags = tuple(tags)
        self.responses = dict(responses or {})
        self.deprecated = deprecated
        self.in_schema = in_schema
        self.middleware = (*middleware, *options.middleware)
        self.limits = limits
        self.marks = State()
        for mark in (*options.marks, *marks):
            self.marks[type(mark)] = mark
        self.guards = options.guards
        self.transforms: tuple[ResponseTransform, ...] = ()
        self.owner = "application"
        self.template: Template = Template(path, AnyConverter())
        self.plan: Plan | None = None
        self.namespace = _namespace(handler)
        if not self.methods:
            raise RouteError(f"route {path!r}: no method given; say methods=['GET'] or what it answers")

    @property
    def param_names(self) -> tuple[str, ...]:
        """The names of the path's parameters, in order."""
        return tuple(self.template.names)

    def __repr__(self) -> str:
        return f"<Route {'|'.join(sorted(self.methods))} {self.path} -> {handler_name(self.handler)}>"


class WebSocketRoute:
    """A path whose WebSocket connections a handler serves."""

    __slots__ = ("handler", "limits", "name", "namespace", "owner", "path", "plan", "template")

    methods: frozenset[str] = frozenset()

    def __init__(
        self, path: str, handler: Callable[..., Any], *, name: str | None = None, limits: Limits | None = None
    ) -> None:
        if not callable(handler):
            raise RouteError(f"WebSocket route {path!r}: the handler is {handler!r}, which cannot be called")
        options: RouteOptions = getattr(handler, OPTIONS, RouteOptions())
        if options.guards or options.middleware:
            raise RouteError(
                f"WebSocket route {path!r}: a decorator of {handler_name(handler)} guards HTTP requests alone, and "
                "would not guard this; check in the handler, before it accepts the connection"
            )
        self.path = path
        self.handler = handler
        self.name: str = name or str(getattr(handler, "__name__", type(handler).__name__))
        self.limits = limits
        self.owner = "application"
        self.template: Template = Template(path, AnyConverter())
        self.plan: Plan | None = None
        self.namespace = _namespace(handler)

    @property
    def param_names(self) -> tuple[str, ...]:
        """The names of the path's parameters, in order."""
        return tuple(self.template.names)

    def __repr__(self) -> str:
        return f"<WebSocketRoute {self.path} -> {handler_name(self.handler)}>"


class Mount:
    """An ASGI application that answers everything below a path; its lifespan runs with the application's.

    Raises:
        RouteError: the path has parameters or ends with a slash.
    """

    __slots__ = ("app", "name", "owner", "path")

    def __init__(self, path: str, app: ASGIApp, *, name: str | None = None) -> None:
        path = path.rstrip("/")
        if "{" in path:
            raise RouteError(f"mount {path!r}: an application is mounted at a plain path, without parameters")
        if path and not path.startswith("/"):
            raise RouteError(f"mount {path!r}: a path begins with a slash; did you mean {'/' + path!r}?")
        if not callable(app):
            raise RouteError(f"mount {path!r}: {app!r} is no ASGI application: it cannot be called")
        self.path = path
        self.app = app
        self.name = name or (path.strip("/").replace("/", ".") or "root")
        self.owner = "application"

    def __repr__(self) -> str:
        return f"<Mount {self.path or '/'} -> {type(self.app).__name__}>"


class Declarations:
    """How routes are declared: what an application and a router have in common."""

    def add(self, entry: Route | WebSocketRoute | Mount | Router, prefix: str = "") -> None:
        """Take in a route, a mount or the routes of a router, below `prefix`."""
        raise AssertionError("unreachable: applications and routers have their own")

    def include(self, router: Router, prefix: str = "") -> None:
        """Take in the routes of a router, below `prefix`."""
        self.add(router, prefix)

    def mount(self, path: str, app: ASGIApp, *, name: str | None = None) -> None:
        """Let an ASGI application answer everything below `path`. Its lifespan runs with that of the whole."""
        self.add(Mount(path, app, name=name))

    def route(self, path: str, methods: Iterable[str] = ("GET",), **options: Any) -> Callable[[F], F]:
        """Declare a route for several methods; `options` are those of `Route`."""

        def declare(handler: F) -> F:
            self.add(Route(path, handler, methods, **options))
            if hasattr(handler, "__dict__"):
                handler.__dict__[ROUTED] = True
            return handler

        return declare

    def get(self, path: str, **options: Any) -> Callable[[F], F]:
        """Declare a GET route (it answers HEAD too); `options` are those of `Route`."""
        return self.route(path, ("GET",), **options)

    def post(self, path: str, **options: Any) -> Callable[[F], F]:
        """Declare a POST route; `options` are those of `Route`."""
        return self.route(path, ("POST",), **options)

    def put(self, path: str, **options: Any) -> Callable[[F], F]:
        """Declare a PUT route; `options` are those of `Route`."""
        return self.route(path, ("PUT",), **options)

    def patch(self, path: str, **options: Any) -> Callable[[F], F]:
        """Declare a PATCH route; `options` are those of `Route`."""
        return self.route(path, ("PATCH",), **options)

    def delete(self, path: str, **options: Any) -> Callable[[F], F]:
        """Declare a DELETE route; `options` are those of `Route`."""
        return self.route(path, ("DELETE",), **options)

    def websocket(self, path: str, **options: Any) -> Callable[[F], F]:
        """Declare a WebSocket route; `options` are those of `WebSocketRoute`."""

        def declare(handler: F) -> F:
            self.add(WebSocketRoute(path, handler, **options))
            return handler

        return declare


class Router(Declarations):
    """A group of routes with a common prefix, tags and middleware, to be included in an application or another router.

    Args:
        prefix: put before each path, such as `/users`; no slash at its end.
        name: put before each route's name with a dot, so that `url_for("users.show")` finds it.
        tags: added to each route's.
        middleware: applied to each route, outside its own. WebSocket routes and mounts cannot be in a router with one:
            nobody shall think that it guards them.
    """

    def __init__(
        self, prefix: str = "", *, name: str = "", tags: Iterable[str] = (), middleware: Iterable[Middleware] = ()
    ) -> None:
        self.prefix = _prefix(prefix)
        self.name = name
        self.tags = tuple(tags)
        self.middleware = tuple(middleware)
        self._entries: list[Route | WebSocketRoute | Mount] = []

    def add(self, entry: Route | WebSocketRoute | Mount | Router, prefix: str = "") -> None:
        """Take in a route, a mount or the routes of another router, below `prefix`."""
        if isinstance(entry, Router):
            for route in entry.resolve():
                self._entries.append(_moved(route, _prefix(prefix)))
        else:
            self._entries.append(_moved(entry, _prefix(prefix)))

    def resolve(self) -> list[Route | WebSocketRoute | Mount]:
        """The routes as they are seen from outside: with the prefix, name, tags and middleware of this router."""
        return [
            _moved(entry, self.prefix, name=self.name, tags=self.tags, middleware=self.middleware)
            for entry in self._entries
        ]


def handler_name(handler: Callable[..., Any]) -> str:
    """The name by which messages call a handler: module and qualified name."""
    name = getattr(handler, "__qualname__", None) or type(handler).__qualname__
    return f"{getattr(handler, '__module__', '?')}.{name}"


def _namespace(handler: Callable[..., Any]) -> Mapping[str, Any]:
    """The local names where a handler is declared inside of a function, such as one that makes an application.

    Annotations are text under `from __future__ import annotations`, and may name what is local there.
    """
    import sys

    if "<locals>" not in getattr(handler, "__qualname__", ""):
        return {}
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "covet":
        frame = frame.f_back
    return {} if frame.f_code.co_name == "<module>" else dict(frame.f_locals)


def _moved(
    entry: Route | WebSocketRoute | Mount,
    prefix: str,
    *,
    name: str = "",
    tags: tuple[str, ...] = (),
    middleware: tuple[Middleware, ...] = (),
) -> Route | WebSocketRoute | Mount:
    from copy import copy

    moved = copy(entry)
    if prefix:
        moved.path = prefix if entry.path == "/" else prefix + entry.path
        if not isinstance(moved, Mount):
            moved.template = Template(moved.path, AnyConverter())
    if name:
        moved.name = f"{name}.{entry.name}"
    if isinstance(moved, Route):
        moved.tags = tags + moved.tags
        moved.middleware = middleware + moved.middleware
    elif middleware:
        raise RouteError(
            f"{entry!r} is in a router with middleware, which sees HTTP requests alone and would not guard it; put it "
            "into a router without, and guard it with a dependency or an ASGI middleware of the application"
        )
    return moved


def _prefix(prefix: str) -> str:
    if prefix and (not prefix.startswith("/") or prefix.endswith("/")):
        raise RouteError(f"prefix {prefix!r}: a prefix begins with a slash and does not end with one, such as '/users'")
    return prefix


def _method(path: str, method: str) -> str:
    # RFC 9110 section 5.6.2: a method is a token; by convention in capitals.
    if not method or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", method):
        raise RouteError(f"route {path!r}: {method!r} is no HTTP method")
    return method.upper()


def _dedent(text: str) -> str:
    from textwrap import dedent

    return dedent(text).strip()
