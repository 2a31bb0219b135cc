"""The kernel's events, for whoever implements `covet_event`.

An event is built only when somebody listens: `if app.listening: app.emit(RequestDone(...))`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from covet.requests import Request
    from covet.responses import Response

__all__ = ["RequestDone"]


@dataclass(frozen=True, slots=True)
class RequestDone:
    """A request was served, or ended without a response.

    Attributes:
        method: its method.
        route: the template of its route, such as `/users/{id}`; empty where no route answers.
        status: of the response; None when it was cancelled before there was one.
        seconds: from its start until the response was sent.
        error: the class name of what ended it early.
        request_id: its id.
    """

    method: str
    route: str
    status: int | None
    seconds: float
    error: str | None
    request_id: str

    @classmethod
    def of(
        cls, request: Request, response: Response | None, seconds: float, error: BaseException | None
    ) -> RequestDone:
        """The event of a request."""
        return cls(
            request.method,
            request.route.path if request.route is not None else "",
            response.status if response is not None else None,
            seconds,
            type(error).__name__ if error is not None else None,
            request.id,
        )
