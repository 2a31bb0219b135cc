"""Markers that say where a handler's parameter comes from.

    async def search(q: str, token: Annotated[str, Header("x-token")], db: Annotated[Db, Depends(connect)]): ...

A marker stands in `Annotated[...]` or as the default value. Without one the signature decides: see `covet.signatures`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Body", "Cookie", "Depends", "File", "Form", "Header", "Path", "Query", "Scope"]

Scope = Literal["app", "request", "function"]


@dataclass(frozen=True, slots=True)
class Source:
    """What the markers of request parts share.

    Attributes:
        alias: the name in the request; by default the parameter's own (for a header with `_` turned into `-`).
        description: for the OpenAPI document.
        examples: example values for the OpenAPI document.
        default: the value when the request has none; only where the marker itself is the parameter's default.
    """

    alias: str | None = None
    description: str = ""
    examples: tuple[Any, ...] = ()
    default: Any = ...


class Path(Source):
    """A part of the path, named in the route's template."""


class Query(Source):
    """A member of the query string; a list type takes every occurrence, a Struct or dataclass the query as a whole."""


class Header(Source):
    """A request header; a list type takes the elements of every occurrence, which commas separate."""


class Cookie(Source):
    """A cookie."""


class Form(Source):
    """A field of a form (`application/x-www-form-urlencoded` or `multipart/form-data`); a Struct or dataclass
    takes the form as a whole."""


class File(Source):
    """An uploaded file of a `multipart/form-data` form: the parameter is an `UploadFile` or a list of them."""


class Body(Source):
    """The request body: decoded JSON, or the bytes themselves where the type is `bytes`."""


@dataclass(frozen=True, slots=True)
class Depends:
    """A value that another function provides.

    Args:
        provider: a function, `async` or not, plain or a generator whose part after `yield` cleans up; or a class.
            Its own parameters are resolved like a handler's.
        scope: when it is made and cleaned up. `function` (the default): per request, cleaned up before the response
            is sent, so that a failing clean-up (a commit) still fails the request. `request`: per request, cleaned
            up after the response was sent; what a streaming response needs. `app`: once, at start-up, cleaned up at
            shutdown.
        thread: whether a plain `def` provider runs in a worker thread, so that it may block. Classes never do.
        cache: whether one request that needs it twice makes it once.
    """

    provider: Callable[..., Any]
    scope: Scope = "function"
    thread: bool = True
    cache: bool = True
