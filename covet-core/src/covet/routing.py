"""Routes, routers and the templates of their paths.

A template is literal text with parameters in braces: `/users/{id:int}/posts/{slug}`. The part behind the colon names a
converter; without one it is `str`. How a path finds its route is `covet.lookup`.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from covet.exceptions import RouteError

if TYPE_CHECKING:
    from covet.middleware import Middleware
    from covet.settings import Limits
    from covet.signatures import Plan

__all__ = ["CONVERTERS", "Converter", "Mount", "Route", "Router", "Template", "WebSocketRoute"]

F = TypeVar("F", bound=Callable[..., Any])
ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]


class Converter:
    """How a path parameter is recognised, turned into a value, and turned back into text.

    Args:
        pattern: a regular expression that the text must match as a whole, without groups.
        convert: text to value; a `ValueError` means that the path does not match.
        format: value to text, for `url_for`.
        rank: which of several routes alike but for their converters is tried first: the lowest. The converters that
            accept the least have the lowest rank; `str` has 100.
        type: the type of the value, for the OpenAPI document.
        spans: whether the value may hold slashes: such a parameter takes the rest of the path and comes last.
    """

    __slots__ = ("convert", "format", "pattern", "rank", "spans", "type")

    def __init__(
        self,
        pattern: str,
        convert: Callable[[str], Any],
        *,
        format: Callable[[Any], str] = str,
        rank: int = 50,
        type: Any = str,
        spans: bool = False,
    ) -> None:
        self.pattern = pattern
        self.convert = convert
        self.format = format
        self.rank = rank
        self.type = type
        self.spans = spans


def _str(text: str) -> str:
    if not text:
        raise ValueError("an empty segment is no value")
    if not text.isascii():
        # Bytes that are no UTF-8 stand in the path as this, whichever they were, so that two paths become one; or as
        # lone surrogates, which nothing can encode again: which of the two is up to the server.
        if "\ufffd" in text:
            raise ValueError("the path is no UTF-8")
        text.encode()
    if "\0" in text:
        raise ValueError("a path holds no NUL: many databases and file systems choke on it")
    return text


def _float(text: str) -> float:
    value = float(text)
    if value == float("inf"):
        raise ValueError("too large for a float")
    return value


def _int(text: str) -> int:
    # int() alone takes signs, spaces, underscores and the digits of every script.
    if not (text.isascii() and text.isdecimal()):
        raise ValueError("not a decimal number")
    return int(text)


def _matching(pattern: str, convert: Callable[[str], Any]) -> Callable[[str], Any]:
    fullmatch = re.compile(pattern).fullmatch

    def check(text: str) -> Any:
        if fullmatch(text) is None:
            raise ValueError(f"does not match {pattern}")
        return convert(text)

    return check


_FLOAT = r"[0-9]+(?:\.[0-9]+)?"
_UUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_SLUG = r"[a-zA-Z0-9_-]+"

CONVERTERS: Mapping[str, Converter] = {
    "str": Converter(r"[^/\0\ufffd]+", _str, rank=100),
    "int": Converter(r"[0-9]+", _int, rank=20, type=int),
    "float": Converter(_FLOAT, _matching(_FLOAT, _float), rank=30, type=float),
    "uuid": Converter(_UUID, _matching(_UUID, UUID), rank=10, type=UUID),
    "date": Converter(_DATE, _matching(_DATE, date.fromisoformat), rank=10, format=date.isoformat, type=date),
    "slug": Converter(_SLUG, _matching(_SLUG, str), rank=60),
    "path": Converter(r"[^\0\ufffd]+", _str, rank=200, spans=True),
}
"""The converters every application knows; `Covet(converters={...})` adds others."""


class Template:
    """A parsed path template.

    Attributes:
        path: the text as declared.
        names: the parameters' names, in order.
        converters: their converters, in order.
        segments: the path cut at its slashes; each is literal text, or a `Segment` with parameters.
        tail: whether the last parameter takes the rest of the path, slashes included.

    Raises:
        RouteError: the template is malformed or names an unknown converter.
    """

    __slots__ = ("converter_names", "converters", "names", "path", "segments", "tail")

    _PARAMETER = re.compile(r"\{([^{}]*)\}")

    def __init__(self, path: str, converters: Mapping[str, Converter] = CONVERTERS) -> None:
        if not path.startswith("/"):
            raise RouteError(f"route {path!r}: a path begins with a slash; did you mean {'/' + path!r}?")
        if "?" in path or "#" in path:
            raise RouteError(
                f"route {path!r}: a path holds no query or fragment; declare query parameters by signature"
            )
        self.path = path
        self.names: list[str] = []
        self.converters: list[Converter] = []
        self.converter_names: list[str] = []
        self.segments: list[str | Segment] = []
        self.tail = False
        for text in path.split("/"):
            self.segments.append(self._segment(text, converters))
        for position, segment in enumerate(self.segments):
            if isinstance(segment, Segment) and segment.tail:
                if position != len(self.segments) - 1:
                    raise RouteError(f"route {path!r}: a {{name:path}} parameter takes the rest, so it comes last")
                self.tail = True

    def _segment(self, text: str, converters: Mapping[str, Converter]) -> str | Segment:
        pieces = self._PARAMETER.split(text)
        if any("{" in piece or "}" in piece for piece in pieces[::2]):
            raise RouteError(f"route {self.path!r}: unbalanced braces in {text!r}")
        if len(pieces) == 1:
            return text
        chosen = []
        for piece in pieces[1::2]:
            name, _, kind = piece.partition(":")
            kind = kind or "str"
            if not name.isidentifier():
                raise RouteError(f"route {self.path!r}: {name!r} is no parameter name; use a Python identifier")
            if name in self.names:
                raise RouteError(f"route {self.path!r}: the parameter {name!r} stands twice")
            if kind not in converters:
                known = ", ".join(sorted(converters))
                raise RouteError(f"route {self.path!r}: unknown converter {kind!r}; there are {known}")
            self.names.append(name)
            self.converters.append(converters[kind])
            self.converter_names.append(kind)
            chosen.append(converters[kind])
        return Segment(pieces[::2], chosen, tail=any(converter.spans for converter in chosen))

    def format(self, values: Mapping[str, Any]) -> str:
        """The path with `values` in place of the parameters, percent-encoded.

        Raises:
            RouteError: a parameter is missing, unknown, or its text does not match its converter.
        """
        from urllib.parse import quote

        missing = [name for name in self.names if name not in values]
        unknown = [name for name in values if name not in self.names]
        if missing or unknown:
            told = [f"missing {name!r}" for name in missing] + [f"unknown {name!r}" for name in unknown]
            raise RouteError(f"route {self.path!r}: {', '.join(told)}; its parameters are {self.names}")
        texts = {}
        for name, converter in zip(self.names, self.converters, strict=True):
            try:
                text = converter.format(values[name])
                if re.fullmatch(converter.pattern, text) is None:
                    raise ValueError(f"the text {text[:80]!r} does not match")
                texts[name] = quote(text, safe="/" if converter.spans else "")
            except (TypeError, ValueError) as error:
                kind = type(values[name]).__name__
                raise RouteError(
                    f"route {self.path!r}: a value of type {kind} does not fit the parameter {name!r}: {error}"
                ) from error
        return self._PARAMETER.sub(lambda match: texts[match[1].partition(":")[0]], self.path)

    def shape(self) -> tuple[Any, ...]:
        """What two templates have in common when no path can tell them apart."""
        return tuple(s if isinstance(s, str) else (tuple(s.literals), tuple(s.converters)) for s in self.segments)

    @property
    def display(self) -> str:
        """The path with bare parameter names, as OpenAPI writes it."""
        return self._PARAMETER.sub(lambda match: "{" + match[1].partition(":")[0] + "}", self.path)


class Segment:
    """A segment of a template that holds parameters: literal text around converters."""

    __slots__ = ("converters", "literals", "tail")

    def __init__(self, literals: Sequence[str], converters: Sequence[Converter], *, tail: bool) -> None:
        self.literals = tuple(literals)
        self.converters = tuple(converters)
        self.tail = tail

    @property
    def whole(self) -> bool:
        """Whether the segment is one parameter and nothing else."""
        return self.literals == ("", "")

    def pattern(self) -> re.Pattern[str]:
        """A regular expression with one group per parameter."""
        parts = [re.escape(self.literals[0])]
        for converter, literal in zip(self.converters, self.literals[1:], strict=True):
            parts += ["(", converter.pattern, ")", re.escape(literal)]
        return re.compile("".join(parts), re.DOTALL)


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

    After the application is built, `plan` tells what the handler takes, `owner` who declared the route.
    """

    __slots__ = (
        "deprecated",
        "description",
        "handler",
        "in_schema",
        "limits",
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
    ) -> None:
        if not callable(handler):
            raise RouteError(f"route {path!r}: the handler is {handler!r}, which cannot be called")
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
        self.middleware = tuple(middleware)
        self.limits = limits
        self.owner = "application"
        self.template: Template = Template(path, _AnyConverter())
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
        self.path = path
        self.handler = handler
        self.name: str = name or str(getattr(handler, "__name__", type(handler).__name__))
        self.limits = limits
        self.owner = "application"
        self.template: Template = Template(path, _AnyConverter())
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


class _AnyConverter(dict[str, Converter]):
    """Stands in until the application's own converters are known: routes are declared before it is built."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> Converter:
        return CONVERTERS.get(name, CONVERTERS["str"])


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
            moved.template = Template(moved.path, _AnyConverter())
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
