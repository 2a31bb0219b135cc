"""The builtin plugin `request_id`: the id of a request in the headers of its response.

A request has an id whether this plugin takes part or not: `request.id`, in log records and error responses, made when
it is first asked for. A response that succeeds does not carry it unless `[plugins.request_id] response_header` asks for
that: the header differs with every response, so it takes a middleware around every request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from msgspec import Meta, Struct

from covet.hooks import hookimpl
from covet.middleware import Middleware

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from covet.applications import Covet
    from covet.requests import Request
    from covet.responses import Response

__all__ = ["RequestIdSettings", "covet_middleware", "covet_settings"]

HEADER = b"x-request-id"


class RequestIdSettings(Struct, frozen=True, kw_only=True):
    """`[plugins.request_id]`: where the id of a request shows."""

    response_header: Annotated[
        bool,
        Meta(
            description="Send `X-Request-ID` with every response, not with errors alone. It costs every request a "
            "middleware."
        ),
    ] = False


async def request_id(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """The middleware: the response has the request's id, unless it has one already."""
    response = await call_next(request)
    # An id is a valid value, so that the header can be written as it goes over the wire: half the cost of `setdefault`.
    raw = response.headers.raw
    for name, _ in raw:
        if name == HEADER:
            return response
    raw.append((HEADER, request.id.encode()))
    return response


@hookimpl
def covet_settings() -> type:
    """The settings: one switch."""
    return RequestIdSettings


@hookimpl
def covet_middleware(app: Covet) -> Iterable[Middleware]:
    """The middleware, outermost, if the settings ask for it."""
    if not app.settings[RequestIdSettings].response_header:
        return ()
    return (Middleware(request_id, band="edge"),)
