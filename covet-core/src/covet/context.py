"""The ambient application and the current request.

One context variable holds what is running: a request (or WebSocket) while it is served, the application itself during
its lifespan, commands and tests. What people use at module level resolves through it at the moment of use, never at
import, so that nothing is global and two applications live in one process.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from covet.exceptions import NoApplicationError

if TYPE_CHECKING:
    from covet.applications import Covet
    from covet.requests import Request
    from covet.websockets import WebSocket

__all__ = ["current_app", "current_request", "running"]

# A Request, a WebSocket or a Covet: whatever it is, its `.app` is the application.
running: ContextVar[Any] = ContextVar("covet.running")


def current_app() -> Covet:
    """The application that is running here.

    Raises:
        NoApplicationError: none is: the call is outside a request, a command, a task or a test of an application.
    """
    try:
        app: Covet = running.get().app
    except LookupError:
        raise NoApplicationError(
            "no application is running here: call this from a handler, a command or a task of the application, "
            "or enter one with `async with app.running():`"
        ) from None
    return app


def current_request() -> Request | WebSocket | None:
    """The request or WebSocket being served here, or None outside of one."""
    holder = running.get(None)
    return None if holder is None or holder.app is holder else holder
