"""Transforms: what is done to response bodies last of all, such as compressing them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from covet.responses import Response

if TYPE_CHECKING:
    from covet.connections import Scope
    from covet.requests import Request
    from covet.routing import Route

__all__ = ["ResponseTransform"]

COMPLETE = Response.__call__
"""How a response is sent that has all of its body in `body`."""


class ResponseTransform:
    """A transform of response bodies, contributed through the hook `covet_response_transforms`.

    It sees a response as it would be sent: resolved, with all headers. It is called for one that is complete in memory
    and has at least `min_bytes` bytes, and for every one whose size does not show that way: one that is sent by its own
    `__call__`, which the transform may wrap; the answer to a HEAD request; 206 and 304, whose headers are to be those
    of the whole. Text and JSON that go out to a client which did not send `request_header` are not even made a
    response: they are sent as they are, with `Vary`, at next to no cost.

    Until the response that it gives is sent, nothing else closes what the given one holds, such as an open file: a
    transform that wraps a `__call__` awaits nothing.

    Args:
        function: `async def transform(request, response) -> Response`. It gives the same response or another.
        min_bytes: smaller responses are not looked at.
        request_header: the request header that it depends on, such as `Accept-Encoding`; without that header it must
            leave every body as it is. None if it depends on none.
        routes: whether a route's responses are looked at, asked once, when the application is built; all by default.
            Where no route was found, they are.

    Raises:
        ValueError: `min_bytes` is negative.
    """

    __slots__ = ("_header", "_routes", "function", "min_bytes", "request_header")

    def __init__(
        self,
        function: Callable[[Request, Response], Awaitable[Response]],
        *,
        min_bytes: int = 0,
        request_header: str | None = None,
        routes: Callable[[Route], bool] | None = None,
    ) -> None:
        if min_bytes < 0:
            raise ValueError(f"min_bytes is at least 0, not {min_bytes}")
        self.function = function
        self.min_bytes = min_bytes
        self.request_header = request_header
        self._routes = routes
        self._header = None if request_header is None else request_header.lower().encode("latin-1")

    @property
    def vary(self) -> tuple[tuple[bytes, bytes], ...]:
        """The header that says what the response depends on, as it is sent; empty if it depends on nothing."""
        return () if self.request_header is None else ((b"vary", self.request_header.encode("latin-1")),)

    def concerns(self, scope: Scope) -> bool:
        """Whether a request has the header that the transform depends on, if it depends on one."""
        if self._header is None:
            return True
        for name, _ in scope["headers"]:  # noqa: SIM110 - `any` with a generator takes three times as long
            if name == self._header:
                return True
        return False

    def is_for(self, route: Route) -> bool:
        """Whether the responses of a route are looked at."""
        return self._routes is None or self._routes(route)

    def is_too_small(self, request: Request, response: Response) -> bool:
        """Whether a response shows that it has fewer than `min_bytes` bytes."""
        if len(response.body) >= self.min_bytes or response.__class__.__call__ is not COMPLETE:
            return False
        if response.status in (206, 304):
            return False
        return bool(response.body) or request.method != "HEAD"

    def __repr__(self) -> str:
        return (
            f"<ResponseTransform {getattr(self.function, '__qualname__', self.function)} from {self.min_bytes} bytes>"
        )
