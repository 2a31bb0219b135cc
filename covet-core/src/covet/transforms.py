"""Transforms: what is done to response bodies last of all, such as compressing them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from covet.connections import Scope
    from covet.requests import Request
    from covet.responses import Response

__all__ = ["ResponseTransform"]


class ResponseTransform:
    """A transform of response bodies, contributed through the hook `covet_response_transforms`.

    It sees a response as it would be sent: resolved, with all headers. It is called for one that is complete in memory
    and has at least `min_bytes` bytes, and for every other one, whose `__call__` it may wrap. Text and JSON that go out
    to a client which did not send `request_header` are not even made a response: they are sent as they are, with
    `Vary`, at next to no cost.

    Args:
        function: `async def transform(request, response) -> Response`. It gives the same response or another.
        min_bytes: smaller responses are not looked at.
        request_header: the request header that it depends on, such as `Accept-Encoding`; without that header it must
            leave every body as it is. None if it depends on none.

    Raises:
        ValueError: `min_bytes` is negative.
    """

    __slots__ = ("_header", "function", "min_bytes", "request_header")

    def __init__(
        self,
        function: Callable[[Request, Response], Awaitable[Response]],
        *,
        min_bytes: int = 0,
        request_header: str | None = None,
    ) -> None:
        if min_bytes < 0:
            raise ValueError(f"min_bytes is at least 0, not {min_bytes}")
        self.function = function
        self.min_bytes = min_bytes
        self.request_header = request_header
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

    def __repr__(self) -> str:
        return (
            f"<ResponseTransform {getattr(self.function, '__qualname__', self.function)} from {self.min_bytes} bytes>"
        )
