"""The one error tree.

Everything Covet raises on purpose is a `CovetError`. Those under `ConfigurationError` come while an application is
built, never while it serves; those under `HTTPError` become responses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

__all__ = [
    "ClientDisconnected",
    "ConfigurationError",
    "CovetError",
    "Fault",
    "HTTPError",
    "HandlerError",
    "NoApplicationError",
    "PluginError",
    "RouteError",
    "SettingsError",
    "ValidationError",
    "WebSocketDisconnected",
]


class CovetError(Exception):
    """Root of every error that Covet raises on purpose."""


class ConfigurationError(CovetError):
    """The application cannot be built as it was described. Raised before the first request, never by one."""


class RouteError(ConfigurationError):
    """A route's path is malformed, or two routes can never both be reached."""


class HandlerError(ConfigurationError):
    """A handler or dependency asks for something its signature cannot be given."""


class SettingsError(ConfigurationError):
    """A settings file, environment variable or argument holds an unknown key or an ill-typed value."""


class PluginError(ConfigurationError):
    """An enabled plugin cannot be used: import error, wrong hook signature, incompatible version, a collision."""


class NoApplicationError(CovetError):
    """Something that works on the ambient application was used while none was running."""


class ClientDisconnected(CovetError):  # noqa: N818 - it tells of an event
    """The client went away before its request was read or its response was sent."""


class WebSocketDisconnected(CovetError):  # noqa: N818 - it tells of an event
    """The peer closed the WebSocket.

    `code` is the close code of RFC 6455 section 7.4 (1006 when the connection just broke), `reason` its text.
    """

    def __init__(self, code: int = 1006, reason: str = "") -> None:
        super().__init__(f"the peer closed the WebSocket with code {code}" + (f": {reason}" if reason else ""))
        self.code = code
        self.reason = reason


class HTTPError(CovetError):
    """An error that is a response: raise it anywhere below the router.

    It is rendered as RFC 9457 problem details for API clients and as a readable page for browsers.

    Args:
        status: the HTTP status code, 400 to 599.
        detail: what went wrong with this request, for its sender to read.
        title: a short summary of the kind of problem; the status phrase by default.
        type: a URI that names the kind of problem (RFC 9457 section 3.1.1).
        headers: extra response headers, such as `{"retry-after": "30"}`.
        **extensions: further members of the problem document (RFC 9457 section 3.2).

    Raises:
        ValueError: `status` is not an error status.
    """

    def __init__(
        self,
        status: int,
        detail: str = "",
        *,
        title: str | None = None,
        type: str = "about:blank",
        headers: Mapping[str, str] | None = None,
        **extensions: Any,
    ) -> None:
        if not 400 <= status <= 599:
            raise ValueError(f"HTTPError takes a status from 400 to 599, not {status}")
        super().__init__(status, detail)
        self.status = status
        self.detail = detail
        self.title = title or _phrase(status)
        self.type = type
        self.headers: dict[str, str] = dict(headers or {})
        self.extensions = extensions

    def __str__(self) -> str:
        return f"{self.status} {self.title}" + (f": {self.detail}" if self.detail else "")

    def problem(self) -> dict[str, Any]:
        """The problem document of RFC 9457 section 3, as a JSON-ready dict."""
        document: dict[str, Any] = {"type": self.type, "title": self.title, "status": self.status}
        if self.detail:
            document["detail"] = self.detail
        document.update(self.extensions)
        return document


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a request.

    Attributes:
        location: the part of the request: `path`, `query`, `header`, `cookie`, `form` or `body`.
        pointer: where in that part: a JSON Pointer (RFC 6901), such as `/items/0/price`; empty for the whole.
        detail: what is wrong there.
    """

    location: str
    pointer: str
    detail: str


class ValidationError(HTTPError):
    """The request was understood and does not fit: status 422, with every fault that was found."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__(
            422,
            f"{len(faults)} part{'' if len(faults) == 1 else 's'} of the request did not validate",
            title="Validation failed",
            errors=[{"in": f.location, "pointer": f.pointer, "detail": f.detail} for f in faults],
        )
        self.faults = tuple(faults)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
