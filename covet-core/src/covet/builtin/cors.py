"""The builtin plugin `cors`: which pages of other origins may read what is answered (the Fetch standard, section 3.3).

Without a list of origins it adds nothing. `["*"]` is a constant header. Otherwise a middleware at the edge, so that
errors carry the headers too, answers for each origin, and says so with `Vary: Origin`.

No origin is ever passed back that is not in the list, and `*` together with credentials is refused when the application
is built.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta, Struct

from covet.exceptions import HTTPError
from covet.hooks import hookimpl
from covet.middleware import ASGIMiddleware
from covet.origins import Origins
from covet.routing import Mount

if TYPE_CHECKING:
    from collections.abc import Iterable

    from covet.applications import Covet

__all__ = ["CORSMiddleware", "CORSSettings", "covet_middleware", "covet_response_headers", "covet_settings"]

logger = logging.getLogger("covet.security")

ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]
Pairs = list[tuple[bytes, bytes]]

TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
MAX_REQUESTED = 64
# What no list can permit: the methods that browsers refuse to send (the Fetch standard, section 2.2.1).
FORBIDDEN_METHODS = frozenset({"CONNECT", "TRACE", "TRACK"})
# What a preflight request's answer depends on.
PREFLIGHT_VARY = b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"


class CORSSettings(Struct, frozen=True, kw_only=True):
    """`[plugins.cors]`: pages of which origins may read answers, and send what takes a preflight request."""

    allow_origins: Annotated[
        tuple[str, ...],
        Meta(
            description="The origins, such as `https://app.example.com`, or `https://*.example.com` for everything "
            'below `example.com`; `["*"]` for all. Empty for none.'
        ),
    ] = ()
    allow_methods: Annotated[
        tuple[str, ...],
        Meta(description="The methods they may use, of those that a path answers; `*` for all of these."),
    ] = ("*",)
    allow_headers: Annotated[
        tuple[str, ...],
        Meta(description="The request headers they may set beside those that need no permission; `*` for all."),
    ] = ("authorization", "content-type")
    allow_credentials: Annotated[
        bool,
        Meta(description="Whether browsers send cookies along and let the page read what is answered to them."),
    ] = False
    expose_headers: Annotated[
        tuple[str, ...],
        Meta(description="The response headers that they may read beside those that need no permission."),
    ] = ()
    max_age: Annotated[
        int,
        Meta(
            ge=0,
            le=86400,
            description="For how many seconds browsers keep the answer to a preflight request; they have limits of "
            "their own, from 7200 on.",
        ),
    ] = 600

    def __post_init__(self) -> None:
        origins = Origins(self.allow_origins)
        if origins.everybody and len(self.allow_origins) > 1:
            raise ValueError("allow_origins holds '*' beside others, which say nothing then; keep one or the other")
        if origins.everybody and self.allow_credentials:
            raise ValueError(
                "allow_credentials with allow_origins = ['*'] would let every page on the web act as the user who "
                "visits it; list the origins that may"
            )
        for name in ("allow_methods", "allow_headers", "expose_headers"):
            for value in getattr(self, name):
                if TOKEN.fullmatch(value) is None:
                    raise ValueError(f"{name} holds {value!r}, which is no name")
        for method in self.allow_methods:
            if method.upper() in FORBIDDEN_METHODS:
                raise ValueError(f"allow_methods holds {method!r}, which no browser sends for a page")


class CORSMiddleware:
    """Answers preflight requests, and tells browsers which pages may read a response.

    Args:
        app: the ASGI application inside.
        covet: the application that it is of, which knows what a path answers.
        settings: the permissions.
    """

    def __init__(self, app: ASGIApp, *, covet: Covet, settings: CORSSettings) -> None:
        self.app = app
        self.covet = covet
        self.settings = settings
        self.origins = Origins(settings.allow_origins)
        self.methods = frozenset(method.upper() for method in settings.allow_methods)
        self.headers = ", ".join(settings.allow_headers).lower()
        # With the same headers for everybody, there is nothing to add to a response.
        self.constant = self.origins.everybody
        self.permissions: Pairs = []
        if settings.allow_credentials:
            self.permissions.append((b"access-control-allow-credentials", b"true"))
        self.exposed: Pairs = []
        if settings.expose_headers:
            self.exposed.append((b"access-control-expose-headers", ", ".join(settings.expose_headers).encode()))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["method"] == "OPTIONS":
            wanted = [value for name, value in scope["headers"] if name == b"access-control-request-method"]
            origins = _origins(scope)
            if wanted and origins:
                methods = self._methods_of(scope)
                if methods:
                    await self._preflight(scope, receive, send, origins, methods)
                    return
        if not self.constant:
            send = self._telling(send, _origins(scope))
        await self.app(scope, receive, send)

    def _telling(self, send: Any, origins: list[str]) -> Any:
        """A send that adds the headers for an origin. A response that has some of its own keeps them."""
        own: Pairs = []
        if len(origins) == 1 and origins[0] in self.origins:
            own = [(b"access-control-allow-origin", origins[0].encode("ascii")), *self.permissions, *self.exposed]

        async def tell(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": _extended(message.get("headers", ()), own)}
            await send(message)

        return tell

    def _methods_of(self, scope: Any) -> frozenset[str]:
        """The methods that a path answers; empty where nothing is there."""
        path: str = scope["path"]
        root: str = scope.get("root_path", "")
        if root and path.startswith(root):
            path = path[len(root) :] or "/"
        if len(path) > self.covet.settings.limits.max_target_bytes:
            return frozenset()
        for mount in self.covet.routes:
            # What is mounted answers whatever it likes.
            if isinstance(mount, Mount) and (path == mount.path or path.startswith(mount.path + "/")):
                return frozenset({"DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"}) | self.methods - {"*"}
        return frozenset(self.covet.built.allowed(path)) - FORBIDDEN_METHODS

    async def _preflight(
        self, scope: Any, receive: Any, send: Any, origins: list[str], methods: frozenset[str]
    ) -> None:
        """Answer a preflight request with what is permitted; the browser compares that with what it wants."""
        if len(origins) != 1 or origins[0] not in self.origins:
            shown = ", ".join(origins)[:200]
            logger.info("preflight request refused: %s is not in allow_origins", shown)
            error = HTTPError(
                403,
                f"pages of {shown} may not send this: the origin is not in `[plugins.cors] allow_origins`",
                headers={"vary": PREFLIGHT_VARY.decode()},
            )
            await self.covet.answers.refuse(scope, receive, send, error)
            return
        headers = self.headers
        if "*" in self.settings.allow_headers:
            headers = _requested_headers(scope)
        permitted = methods if "*" in self.methods else methods & self.methods
        origin = b"*" if self.constant else origins[0].encode("ascii")
        answer: Pairs = [
            (b"vary", PREFLIGHT_VARY),
            (b"access-control-allow-origin", origin),
            (b"access-control-allow-methods", ", ".join(sorted(permitted)).encode("ascii")),
            (b"access-control-allow-headers", headers.encode("ascii")),
            (b"access-control-max-age", b"%d" % self.settings.max_age),
            *self.permissions,
        ]
        names = {name for name, _ in answer}
        answer += [pair for pair in self.covet.response_headers if pair[0] not in names]
        await send({"type": "http.response.start", "status": 204, "headers": answer})
        await send({"type": "http.response.body", "body": b""})


def _origins(scope: Any) -> list[str]:
    return [value.decode("latin-1") for name, value in scope["headers"] if name == b"origin"]


def _extended(headers: Iterable[tuple[bytes, bytes]], own: Pairs) -> Pairs:
    """The headers of a response with what says who may read it, and `Vary: Origin`."""
    found: Pairs = []
    vary: list[bytes] = []
    for name, value in headers:
        if name.lower() == b"access-control-allow-origin":
            own = []
        if name.lower() == b"vary":
            vary.append(bytes(value))
        else:
            found.append((name, value))
    listed = {element.strip().lower() for line in vary for element in line.split(b",")}
    if b"*" not in listed and b"origin" not in listed:
        vary.append(b"Origin")
    return [*found, (b"vary", b", ".join(vary)), *own]


def _requested_headers(scope: Any) -> str:
    """The names of the request headers that a page wants to set, as far as they are names."""
    lines = [value for name, value in scope["headers"] if name == b"access-control-request-headers"]
    names = [name.strip(" \t").lower() for name in b",".join(lines).decode("latin-1").split(",", MAX_REQUESTED)]
    return ", ".join(name for name in names[:MAX_REQUESTED] if TOKEN.fullmatch(name))


@hookimpl
def covet_settings() -> type:
    """The settings: who may do what."""
    return CORSSettings


@hookimpl
def covet_response_headers(app: Covet) -> Iterable[tuple[str, str]]:
    """What every response says where everybody may read it."""
    settings = app.settings[CORSSettings]
    if "*" not in settings.allow_origins:
        return []
    exposed = [("access-control-expose-headers", ", ".join(settings.expose_headers))] if settings.expose_headers else []
    return [("access-control-allow-origin", "*"), *exposed]


@hookimpl
def covet_middleware(app: Covet) -> Iterable[ASGIMiddleware]:
    """The middleware at the edge, if there is anybody to permit something."""
    settings = app.settings[CORSSettings]
    if not settings.allow_origins:
        return ()
    return (
        ASGIMiddleware(
            CORSMiddleware,
            band="edge",
            name="cors",
            after=("proxy_headers", "trusted_hosts"),
            before=("request_id",),
            covet=app,
            settings=settings,
        ),
    )
