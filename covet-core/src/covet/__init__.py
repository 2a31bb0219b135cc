"""Covet: a plugin-based microkernel for asynchronous Python services.

Every public name of everyday use is here. Each is imported when it is first used, so that `import covet` costs next to
nothing and a program pays only for what it touches.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_HOMES = {
    "covet.applications": ("Covet",),
    "covet.context": ("current_app", "current_request"),
    "covet.datastructures": ("FormData", "Headers", "QueryParams", "State"),
    "covet.exceptions": (
        "ClientDisconnected", "ConfigurationError", "CovetError", "Fault", "HTTPError", "HandlerError",
        "NoApplicationError", "PluginError", "RouteError", "SettingsError", "ValidationError", "WebSocketDisconnected",
    ),
    "covet.files": ("FileResponse",),
    "covet.forms": ("UploadFile",),
    "covet.hooks": ("hookimpl", "hookspec"),
    "covet.middleware": ("ASGIMiddleware", "Middleware"),
    "covet.parameters": ("Body", "Cookie", "Depends", "File", "Form", "Header", "Path", "Query"),
    "covet.requests": ("Request",),
    "covet.responses": ("HTMLResponse", "JSONResponse", "PlainTextResponse", "RedirectResponse", "Response"),
    "covet.routing": ("Mount", "Route", "Router", "WebSocketRoute"),
    "covet.secrets": ("Secret",),
    "covet.settings": ("Limits", "Settings"),
    "covet.streaming": ("EventSourceResponse", "ServerSentEvent", "StreamingResponse"),
    "covet.templates": ("Converter",),
    "covet.websockets": ("WebSocket",),
}  # fmt: skip
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME_OF)]

if TYPE_CHECKING:
    from covet.applications import Covet as Covet
    from covet.context import current_app as current_app
    from covet.context import current_request as current_request
    from covet.datastructures import FormData as FormData
    from covet.datastructures import Headers as Headers
    from covet.datastructures import QueryParams as QueryParams
    from covet.datastructures import State as State
    from covet.exceptions import ClientDisconnected as ClientDisconnected
    from covet.exceptions import ConfigurationError as ConfigurationError
    from covet.exceptions import CovetError as CovetError
    from covet.exceptions import Fault as Fault
    from covet.exceptions import HandlerError as HandlerError
    from covet.exceptions import HTTPError as HTTPError
    from covet.exceptions import NoApplicationError as NoApplicationError
    from covet.exceptions import PluginError as PluginError
    from covet.exceptions import RouteError as RouteError
    from covet.exceptions import SettingsError as SettingsError
    from covet.exceptions import ValidationError as ValidationError
    from covet.exceptions import WebSocketDisconnected as WebSocketDisconnected
    from covet.files import FileResponse as FileResponse
    from covet.forms import UploadFile as UploadFile
    from covet.hooks import hookimpl as hookimpl
    from covet.hooks import hookspec as hookspec
    from covet.middleware import ASGIMiddleware as ASGIMiddleware
    from covet.middleware import Middleware as Middleware
    from covet.parameters import Body as Body
    from covet.parameters import Cookie as Cookie
    from covet.parameters import Depends as Depends
    from covet.parameters import File as File
    from covet.parameters import Form as Form
    from covet.parameters import Header as Header
    from covet.parameters import Path as Path
    from covet.parameters import Query as Query
    from covet.requests import Request as Request
    from covet.responses import HTMLResponse as HTMLResponse
    from covet.responses import JSONResponse as JSONResponse
    from covet.responses import PlainTextResponse as PlainTextResponse
    from covet.responses import RedirectResponse as RedirectResponse
    from covet.responses import Response as Response
    from covet.routing import Mount as Mount
    from covet.routing import Route as Route
    from covet.routing import Router as Router
    from covet.routing import WebSocketRoute as WebSocketRoute
    from covet.secrets import Secret as Secret
    from covet.settings import Limits as Limits
    from covet.settings import Settings as Settings
    from covet.streaming import EventSourceResponse as EventSourceResponse
    from covet.streaming import ServerSentEvent as ServerSentEvent
    from covet.streaming import StreamingResponse as StreamingResponse
    from covet.templates import Converter as Converter
    from covet.websockets import WebSocket as WebSocket


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'covet' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
