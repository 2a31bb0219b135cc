"""The builtin plugin `proxy_headers`: who asks, and by which URL, as a reverse proxy in front tells.

Anybody can write these headers. They are believed when the connection itself comes from a listed network, and then as
far as the listed proxies go and no further. What is not believed is taken out of the request, so that nothing further
in can believe it (CVE-2025-59152 of Litestar was a limit by address that trusted whoever sent the header).

Without a list nothing is added, and every request seems to come from the proxy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta, Struct

from covet.hooks import hookimpl
from covet.middleware import ASGIMiddleware

if TYPE_CHECKING:
    from collections.abc import Iterable

    from covet.applications import Covet

__all__ = ["ProxyHeadersSettings", "covet_middleware", "covet_settings"]


class ProxyHeadersSettings(Struct, frozen=True, kw_only=True):
    """`[plugins.proxy_headers]`: which proxies stand in front, and what they tell."""

    trusted: Annotated[
        tuple[str, ...],
        Meta(
            description="The networks of the proxies: `127.0.0.1`, `10.0.0.0/8`, `fd00::/8`, or `unix` for a Unix "
            "socket. Empty if there is none."
        ),
    ] = ()
    headers: Annotated[
        Literal["x-forwarded", "forwarded"],
        Meta(
            description="Which headers they write: `X-Forwarded-For`, `X-Forwarded-Proto` and so on, or `Forwarded` of "
            "RFC 7239. Never both: a proxy that writes the one passes on what clients wrote into the other."
        ),
    ] = "x-forwarded"
    use: Annotated[
        tuple[Literal["for", "proto", "host", "port", "prefix"], ...],
        Meta(
            description="What to take from them: the client's address, the scheme, the host, the port, and the path "
            "that the proxy has removed. List only what the proxy writes itself in every request."
        ),
    ] = ("for", "proto")
    hops: Annotated[
        int,
        Meta(
            ge=1,
            le=16,
            description="How many proxies a request passes through at most. The walk from the last one to the client "
            "ends there, or at the first address that is not in `trusted`.",
        ),
    ] = 1

    def __post_init__(self) -> None:
        if self.trusted:
            from covet.builtin.proxy_headers.rewriting import parse_trusted

            for text in self.trusted:
                parse_trusted(text)
        beyond = [name for name in self.use if name in ("port", "prefix")]
        if self.headers == "forwarded" and beyond:
            raise ValueError(f"use holds {beyond[0]!r}, which `Forwarded` does not tell")


@hookimpl
def covet_settings() -> type:
    """The settings: the networks, and what to take from them."""
    return ProxyHeadersSettings


@hookimpl
def covet_middleware(app: Covet) -> Iterable[ASGIMiddleware]:
    """The outermost middleware, if there is a proxy."""
    settings = app.settings[ProxyHeadersSettings]
    if not settings.trusted:
        return ()
    from covet.builtin.proxy_headers.rewriting import ProxyHeaders

    return (
        ASGIMiddleware(
            ProxyHeaders,
            band="edge",
            name="proxy_headers",
            before=("cors", "request_id", "trusted_hosts"),
            covet=app,
            trusted=settings.trusted,
            family=settings.headers,
            use=settings.use,
            hops=settings.hops,
        ),
    )
