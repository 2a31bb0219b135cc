"""The builtin plugin `trusted_hosts`: requests for hosts that are not this application's are refused.

Whatever a client writes into `Host` ends up in links that an application sends by e-mail, in caches, and in redirects.
With a list of hosts, only requests for these come further than the edge. Without one, nothing is added.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta, Struct

from covet.exceptions import HTTPError
from covet.hooks import hookimpl
from covet.middleware import ASGIMiddleware
from covet.origins import DEFAULT_PORTS, HostPattern, split_host

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from covet.applications import Covet

__all__ = ["TrustedHosts", "TrustedHostsSettings", "covet_middleware", "covet_settings"]

logger = logging.getLogger("covet.security")

ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]


class TrustedHostsSettings(Struct, frozen=True, kw_only=True):
    """`[plugins.trusted_hosts]`: the names that this application goes by."""

    allow: Annotated[
        tuple[str, ...],
        Meta(
            description="The hosts: `example.com`, `*.example.com` for everything below it, `[::1]`; with a port if "
            "only that one is meant. Empty for any."
        ),
    ] = ()

    def __post_init__(self) -> None:
        for text in self.allow:
            if text == "*":
                raise ValueError("allow holds '*', which is every host; leave it empty instead")
            HostPattern.parse(text)


class TrustedHosts:
    """Refuses requests and WebSocket handshakes for other hosts, with status 400.

    Args:
        app: the ASGI application inside.
        covet: the application that it is of.
        allow: the hosts.

    Raises:
        ValueError: what is in `allow` is no host.
    """

    def __init__(self, app: ASGIApp, *, covet: Covet, allow: Sequence[str]) -> None:
        self.app = app
        self.covet = covet
        self.patterns = tuple(HostPattern.parse(text) for text in allow)
        # As nearly every client writes them, so that nothing needs to be taken apart.
        self.usual = tuple([text.encode("ascii")] for text in allow if text == text.lower() and text[0] != "*")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection."""
        if scope["type"] in ("http", "websocket"):
            hosts = [value for name, value in scope["headers"] if name == b"host"]
            if hosts not in self.usual and not self._trusts(hosts, scope):
                shown = ", ".join(host.decode("latin-1") for host in hosts)[:200]
                logger.warning(
                    "refused for its host: %s %s: %s",
                    scope.get("method", "WebSocket"),
                    scope["path"],
                    shown or "no Host header",
                    extra={"security_event": "host_refused"},
                )
                error = HTTPError(400, "this server does not answer for the host that the request names")
                await self.covet.answers.refuse(scope, receive, send, error)
                return
        await self.app(scope, receive, send)

    def _trusts(self, hosts: list[bytes], scope: Any) -> bool:
        found = split_host(hosts[0].decode("latin-1")) if len(hosts) == 1 else None
        if found is None:
            return False
        name, port = found
        if port is None:
            port = DEFAULT_PORTS.get(scope.get("scheme", "http"))
        return any(pattern.fits(name, port) for pattern in self.patterns)


@hookimpl
def covet_settings() -> type:
    """The settings: the hosts."""
    return TrustedHostsSettings


@hookimpl
def covet_middleware(app: Covet) -> Iterable[ASGIMiddleware]:
    """The middleware at the edge, behind what may tell another host, if there is a list."""
    allow = app.settings[TrustedHostsSettings].allow
    if not allow:
        return ()
    return (
        ASGIMiddleware(
            TrustedHosts,
            band="edge",
            name="trusted_hosts",
            after=("proxy_headers",),
            before=("request_id",),
            covet=app,
            allow=allow,
        ),
    )
