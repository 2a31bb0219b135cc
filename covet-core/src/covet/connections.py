"""What requests and WebSockets have in common: the handshake, read when it is asked for.

Everything here comes from the ASGI scope, so nothing waits. What is malformed or beyond `[limits]` is refused when it
is first read, with the status that says why.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from itertools import chain
from typing import TYPE_CHECKING, Any

from covet.datastructures import URL, Headers, QueryParams, State, parse_cookies, parse_host
from covet.exceptions import HTTPError

if TYPE_CHECKING:
    from covet.applications import Covet
    from covet.routing import Route, WebSocketRoute
    from covet.sessions import Session
    from covet.settings_sections import Limits
    from covet.tracing import TraceContext

__all__ = ["Connection", "Message", "Receive", "Scope"]

# What an ASGI server hands over. The values are of many types, so `Any` is all that can be said.
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

_STRAY_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")


class Connection:
    """The base of `Request` and `WebSocket`.

    Attributes:
        scope: the ASGI scope.
        receive: the ASGI callable that gives the next message.
        app: the application.
        route: the route that answers, or None where none does.
        values: the converted parameters of the path, in order; `path_params` has them by name.
    """

    __slots__ = (
        "_cleanups",
        "_cookies",
        "_headers",
        "_id",
        "_query",
        "_session",
        "_state",
        "_trace",
        "app",
        "receive",
        "route",
        "scope",
        "values",
    )

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        app: Covet,
        route: Route | WebSocketRoute | None = None,
        values: tuple[Any, ...] = (),
    ) -> None:
        self.scope = scope
        self.receive = receive
        self.app = app
        self.route = route
        self.values = values
        self._headers: Headers | None = None
        self._query: QueryParams | None = None
        self._cookies: dict[str, str] | None = None
        self._state: State | None = None
        self._session: Session | None = None
        self._id: str | None = None
        self._trace: TraceContext | None = None
        self._cleanups: list[Any] | None = None

    def rebind(self, scope: Scope, receive: Receive) -> None:
        """Go on with another scope and receive callable: those that an ASGI middleware passed on.

        What was read from the old scope is read again from the new one; the state, the id and the body stay.
        """
        self.scope = scope
        self.receive = receive
        self._headers = self._query = self._cookies = None

    @property
    def cleanups(self) -> list[Any]:
        """The dependencies that are cleaned up after the response, in the order in which they were made."""
        if self._cleanups is None:
            self._cleanups = []
        return self._cleanups

    @property
    def limits(self) -> Limits:
        """The limits that hold here: the route's own, or the application's."""
        route = self.route
        if route is not None and route.limits is not None:
            return route.limits
        return self.app.settings.limits

    @property
    def path(self) -> str:
        """The path, percent-decoded once by the server: the one value that routes and policies look at."""
        path: str = self.scope["path"]
        return path

    @property
    def path_params(self) -> dict[str, Any]:
        """The converted parameters of the path, by name."""
        return {} if self.route is None else dict(zip(self.route.param_names, self.values, strict=True))

    @property
    def headers(self) -> Headers:
        """The headers.

        Raises:
            HTTPError: 431: more than `max_headers` of them, or more than `max_header_bytes` bytes in all; 400: one
                holds a line break or a NUL, which RFC 9110 section 5.5 forbids. Once they were refused there are
                none, so that the error page can be made by what looks at headers.
        """
        if self._headers is None:
            raw = self.scope["headers"]
            refusal = _refusal(raw, self.limits)
            if refusal is not None:
                self._headers = Headers()
                raise refusal
            self._headers = Headers(raw)
        return self._headers

    @property
    def query(self) -> QueryParams:
        """The parameters of the query string.

        Raises:
            HTTPError: 414: path and query together have more than `max_target_bytes` bytes; 400: there are more than
                `max_query_fields` parameters, one is not UTF-8, or one holds a NUL.
        """
        if self._query is None:
            raw: bytes = self.scope.get("query_string", b"")
            limits = self.limits
            size = len(raw) + len(self.scope.get("raw_path") or self.path)
            if size > limits.max_target_bytes:
                raise HTTPError(
                    414, f"the request's target has {size} bytes; {limits.max_target_bytes} are accepted here"
                )
            self._query = QueryParams(raw, limits.max_query_fields)
        return self._query

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies, by name; values are as they were sent. Of two with one name the first counts.

        Raises:
            HTTPError: as `headers`.
        """
        if self._cookies is None:
            self._cookies = parse_cookies(self.headers.get("cookie", ""))
        return self._cookies

    @property
    def state(self) -> State:
        """Values that middleware, hooks and dependencies attach here, each under its type."""
        if self._state is None:
            self._state = State()
        return self._state

    @property
    def session(self) -> Session:
        """The visitor's session, which is loaded when it is awaited: `session = await request.session`.

        Raises:
            ConfigurationError: no plugin that takes part brings the store that `[sessions]` names.
        """
        session = self._session
        if session is None:
            session = self._session = self.app.sessions.of(self)
        return session

    @property
    def client(self) -> tuple[str, int] | None:
        """The peer's address and port as the server knows them, or None where it does not (a Unix socket)."""
        client = self.scope.get("client")
        return (client[0], client[1]) if client else None

    @property
    def scheme(self) -> str:
        """`http` or `https`, for a WebSocket `ws` or `wss`."""
        scheme: str = self.scope.get("scheme", "http")
        return scheme

    @property
    def host(self) -> str:
        """The host that the client asked for, in lower case, with the port where it named one.

        Raises:
            HTTPError: 400: the `Host` header is missing, stands more than once, or is no host (RFC 9112 section 3.2);
                and as `headers`.
        """
        lines = self.headers.getlist("host")
        host = parse_host(lines[0]) if len(lines) == 1 else None
        if host is None:
            raise HTTPError(400, "a request has exactly one Host header, and it names a host and optionally a port")
        return host

    @property
    def url(self) -> URL:
        """The URL that was asked for, made of its components.

        Raises:
            HTTPError: 400: as `host`.
        """
        from urllib.parse import quote

        query = _STRAY_PERCENT.sub(b"%25", self.scope.get("query_string", b""))
        return URL(self.scheme, self.host, _quoted_path(self.path), quote(query, safe="!$&'()*+,;=:@/?%-._~"))

    @property
    def base_url(self) -> URL:
        """The URL of the application, where it is mounted: `base_url.replace(path=app.url_for(…))` is a whole link.

        Raises:
            HTTPError: 400: as `host`.
        """
        return URL(self.scheme, self.host, _quoted_path(self.scope.get("root_path", "")))

    @property
    def id(self) -> str:
        """The request's id: that of the `X-Request-ID` header if it is 1 to 128 letters, digits, `.`, `_` or `-`,
        otherwise a new one.
        """
        if self._id is None:
            from covet.tracing import new_request_id, valid_request_id

            sent = self._single(b"x-request-id")
            self._id = sent if sent is not None and valid_request_id(sent) else new_request_id()
        return self._id

    @property
    def trace(self) -> TraceContext:
        """Where the request stands in a distributed trace: read from `traceparent`, or the beginning of a new one."""
        if self._trace is None:
            from covet.tracing import TraceContext

            self._trace = TraceContext.of(self._single(b"traceparent"))
        return self._trace

    def _single(self, name: bytes) -> str | None:
        """The value of a header that stands exactly once.

        Logs and error pages need id and trace of every request, even of one whose headers are refused.
        """
        values = [value for header, value in self.scope["headers"] if header == name]
        return values[0].decode("latin-1") if len(values) == 1 else None


def _refusal(raw: Collection[tuple[bytes, bytes]], limits: Limits) -> HTTPError | None:
    """Why headers are refused, if they are."""
    if len(raw) > limits.max_headers:
        return HTTPError(431, f"the request has {len(raw)} headers; {limits.max_headers} are accepted here")
    content = b"".join(chain.from_iterable(raw))
    if len(content) > limits.max_header_bytes:
        return HTTPError(
            431, f"the request's headers have {len(content)} bytes; {limits.max_header_bytes} are accepted here"
        )
    if b"\0" in content or b"\r" in content or b"\n" in content:
        return HTTPError(400, "a header of the request holds a line break or a NUL character")
    return None


def _quoted_path(path: str) -> str:
    from urllib.parse import quote

    # A target such as `@evil` has no slash, and would become a part of the host.
    return ("" if path.startswith("/") else "/") + quote(path, safe="/!$&'()*+,;=:@-._~", errors="surrogatepass")
