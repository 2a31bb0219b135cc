"""The builtin plugin `compression`: bodies go out as zstd (RFC 8878) or gzip (RFC 1952), and may come in as such.

What is compressed, and how, is decided per response, by `covet.builtin.compression.bodies`. A response that is too
small is not looked at, and JSON or text for a client that accepts no coding is sent as if there were no such plugin,
with `Vary`. zstd takes Python 3.14 or the extra `covet-core[zstd]`; without either there is gzip.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from msgspec import Meta, Struct

from covet.builtin.compression.codings import has_zstd
from covet.builtin.compression.types import COMPRESSIBLE, check_pattern
from covet.hooks import hookimpl
from covet.middleware import ASGIMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from covet.applications import Covet
    from covet.routing import Route
    from covet.transforms import ResponseTransform

__all__ = [
    "CompressionSettings",
    "Uncompressed",
    "covet_middleware",
    "covet_response_transforms",
    "covet_settings",
    "uncompressed",
]

F = TypeVar("F", bound="Callable[..., object]")

logger = logging.getLogger("covet.compression")


class CompressionSettings(Struct, frozen=True, kw_only=True):
    """`[plugins.compression]`: what is compressed, with what, and how hard."""

    codings: Annotated[
        tuple[Literal["zstd", "gzip"], ...],
        Meta(description="The codings that are used, the favourite first where a client likes several as well."),
    ] = ("zstd", "gzip")
    min_bytes: Annotated[
        int, Meta(ge=0, description="Bytes from which a body is compressed; a packet of a network holds about 1,400.")
    ] = 1024
    gzip_level: Annotated[int, Meta(ge=1, le=9, description="How hard gzip tries, from 1, the fastest, to 9.")] = 4
    zstd_level: Annotated[
        int,
        Meta(
            ge=-7,
            le=19,
            description="How hard zstd tries, from -7, the fastest, to 19; beyond that browsers could not decode it.",
        ),
    ] = 3
    types: Annotated[
        tuple[str, ...],
        Meta(
            description="The media types that are compressed: `type/subtype`, `type/*`, or a suffix such as `*+json`. "
            "They take the place of the default ones."
        ),
    ] = COMPRESSIBLE
    requests: Annotated[
        bool,
        Meta(
            description="Whether requests may have compressed bodies: `Content-Encoding` gzip or zstd. It costs every "
            "request a look at its headers. Limits hold for what a body is inflated to."
        ),
    ] = False

    def __post_init__(self) -> None:
        if len(set(self.codings)) != len(self.codings):
            raise ValueError(f"codings names one twice: {', '.join(self.codings)}")
        for pattern in self.types:
            check_pattern(pattern)


class Uncompressed(Struct, frozen=True):
    """The mark of a route whose responses are never compressed: `Route(..., marks=[Uncompressed()])`."""


def uncompressed(handler: F) -> F:
    """Never compress what a handler answers.

        @app.get("/account")
        @uncompressed
        async def account(q: str) -> covet.HTMLResponse: ...

    For pages that hold a secret beside what a stranger may put into the request: the length of the compressed page
    tells how alike the two are, and so, request by request, the secret (BREACH, CVE-2013-3587). It stands below the
    route's decorator.
    """
    from covet.routing import route_options

    return route_options(handler, marks=[Uncompressed()])


@hookimpl
def covet_settings() -> type:
    """The settings."""
    return CompressionSettings


@hookimpl
def covet_response_transforms(app: Covet) -> Iterable[ResponseTransform]:
    """The transform that compresses, for all routes that are not marked."""
    from covet.builtin.compression.bodies import Compression
    from covet.transforms import ResponseTransform

    settings = app.settings[CompressionSettings]
    codings = available(settings)
    if not codings:
        return ()
    compression = Compression(
        codings,
        min_bytes=settings.min_bytes,
        types=settings.types,
        levels={"gzip": settings.gzip_level, "zstd": settings.zstd_level},
    )
    return (
        ResponseTransform(
            compression.transform,
            min_bytes=settings.min_bytes,
            request_header="Accept-Encoding",
            routes=is_compressed,
        ),
    )


def is_compressed(route: Route) -> bool:
    """Whether the responses of a route may be compressed."""
    return route.marks.get(Uncompressed) is None


@hookimpl
def covet_middleware(app: Covet) -> Iterable[ASGIMiddleware]:
    """What inflates the bodies of requests, outside of everything, if the settings ask for it."""
    settings = app.settings[CompressionSettings]
    if not settings.requests:
        return ()
    from covet.builtin.compression.requests import InflatedRequests

    return (ASGIMiddleware(InflatedRequests, band="edge", name="compression", codings=decodable()),)


def available(settings: CompressionSettings) -> tuple[str, ...]:
    """The codings that the settings ask for and that there are."""
    if "zstd" in settings.codings and not has_zstd():
        logger.info(
            "no zstd here, so that gzip alone is used: install `covet-core[zstd]`, or leave zstd out of "
            "`[plugins.compression] codings`"
        )
        return tuple(coding for coding in settings.codings if coding != "zstd")
    return settings.codings


def decodable() -> tuple[str, ...]:
    """The codings in which a request's body may come."""
    return ("zstd", "gzip") if has_zstd() else ("gzip",)
