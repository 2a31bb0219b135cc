"""The request: what came, read when it is asked for.

Creating a `Request` stores references. Headers, query, cookies, body and the rest are read at first use, within
`[limits]`, and refused with the status that says why: 400 malformed, 408 too slow, 413 too large, 414 target too long,
415 another content type, 431 too many headers.
"""

from __future__ import annotations

from asyncio import _get_running_loop
from collections.abc import Awaitable, Callable
from sys import modules
from types import CoroutineType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from covet.connections import Connection, Message, Receive, Scope
from covet.exceptions import ClientDisconnected, CovetError, HTTPError
from covet.receiving import BodyStream, declared_length, resumed

if TYPE_CHECKING:
    from covet.applications import Covet
    from covet.datastructures import FormData
    from covet.responses import Response
    from covet.routing import Route

__all__ = ["Connection", "Request", "content_type", "read_body", "require_json", "start_body"]

T = TypeVar("T")

Finisher = Callable[["Request", "Response"], "Awaitable[Response | None] | Response | None"]
"""What `Request.on_response` takes."""


class Request(Connection):
    """An HTTP request.

    A plugin adds no attribute: what it has to say goes into `state`, under a type of its own.

    Attributes:
        tasks: what `after` was given, in order.
        finishers: what `on_response` was given, in order; None once the response is on its way.
    """

    __slots__ = ("_body", "_form", "_stream", "finishers", "tasks")

    route: Route | None

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        app: Covet,
        route: Route | None = None,
        values: tuple[Any, ...] = (),
    ) -> None:
        # Written out instead of calling the base: this runs for every request.
        self.scope = scope
        self.receive = receive
        self.app = app
        self.route = route
        self.values = values
        self.tasks: tuple[Callable[[], Any], ...] = ()
        self.finishers: tuple[Finisher, ...] | None = ()
        self._headers = None
        self._query = None
        self._cookies = None
        self._state = None
        self._session = None
        self._id = None
        self._trace = None
        self._cleanups = None
        self._body: bytes | None = None
        self._stream: BodyStream | None = None
        self._form: FormData | None = None

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.path}>"

    @property
    def method(self) -> str:
        """The method, in capitals as it came."""
        method: str = self.scope["method"]
        return method

    @property
    def content_length(self) -> int | None:
        """How many bytes the request says its body has, or None. What comes is counted nevertheless.

        Raises:
            HTTPError: 400: the header is no number, or stands twice with different values (RFC 9112 section 6.3).
        """
        return declared_length(self.scope["headers"])

    def after(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Run a function after the response was sent, even when the client has left by then.

        Plain functions run in a worker thread. Nothing runs when the request fails; shutdown waits for what does.
        """
        from functools import partial

        self.tasks = (*self.tasks, partial(function, *args, **kwargs))

    def on_response(self, function: Finisher) -> None:
        """Have `function(request, response)` called when there is a response, before it is sent.

        It is called for the response to an error, too, in the order of these calls, behind all middleware and before
        the body is compressed. It may be plain or asynchronous, and returns None, having changed the response perhaps,
        or another response. What it raises is answered like an error of the handler's. A request that nobody asks this
        for pays nothing.

        Raises:
            CovetError: the response is on its way already.
        """
        if self.finishers is None:
            raise CovetError(
                "this request's response is on its way: what changes it has to be done before the handler returns"
            )
        self.finishers += (function,)

    async def body(self) -> bytes:
        """The whole body, kept for further calls.

        When the wait for it is cancelled, what has come is lost, and so is the body.

        Raises:
            HTTPError: 413: it has more than `max_body` bytes; 408: waiting for it took longer than `body_timeout`
                seconds in all; 400: the `Content-Length` is no number.
            ClientDisconnected: the client left before the body was complete.
            CovetError: it was already read through `stream` or `form`, or such a read was cut short.
        """
        return await read_body(self)

    @overload
    async def json(self) -> Any: ...
    @overload
    async def json(self, type: type[T]) -> T: ...
    async def json(self, type: Any = Any) -> Any:
        """The body as JSON, decoded into `type`: anything msgspec knows. By default dicts, lists and scalars.

        Raises:
            HTTPError: 415: the request does not say that its body is JSON; 400: it is none; and as `body`.
            ValidationError: it is JSON that does not fit `type`.
            ClientDisconnected, CovetError: as `body`.
        """
        require_json(self)
        data = await read_body(self)
        from covet.decoding import decode_json, json_decoder

        return decode_json(data, json_decoder(type), type)

    async def form(self) -> FormData:
        """The body as a form: `application/x-www-form-urlencoded` or `multipart/form-data`; kept for further calls.

        Files larger than `spool_bytes` are on disk. Each is closed when the last reference to it goes. When the wait
        is cancelled, what has come is closed and lost.

        Raises:
            HTTPError: 415: it is sent as something else; 400: it is malformed, or has more than `max_form_fields`
                fields or `max_files` files; 413: a field has more than `max_field_bytes` bytes, a file more than
                `max_file_bytes`, the whole more than `max_form_bytes` (not multipart: `max_body`); 408 as `body`.
            ClientDisconnected, CovetError: as `body`.
        """
        if self._form is None:
            from covet.forms import read_form

            self._form = await read_form(self)
        return self._form

    def stream(self, limit: int | None = None) -> BodyStream:
        """The body in chunks as they come: `async for chunk in request.stream()`. It can be read once.

        Args:
            limit: how many bytes to accept; by default `max_body`.

        Raises:
            CovetError: the body is being read, or has been read, other than by `body`.

        What iterating raises: see `BodyStream`.
        """
        limits = self.limits
        limit = limits.max_body if limit is None else limit
        if self._body is not None:
            return BodyStream(
                self.receive, limit, limits.body_timeout, first={"type": "http.request", "body": self._body}
            )
        return _start_stream(self, limit)

    async def disconnected(self) -> None:
        """Return when the client has gone. A body that nobody has read is read first, and kept.

        Use it where nothing else reads the body. It may be cancelled at any time.

        Raises:
            HTTPError: as `body`, for a body that nobody has read.
        """
        try:
            if self._body is None and self._stream is None:
                await read_body(self)
            while True:
                message = await self.receive()
                if message["type"] == "http.disconnect":
                    return
        except ClientDisconnected:
            return


async def read_body(request: Request, limit: int | None = None) -> bytes:
    """The body of a request: what `Request.body` calls.

    Args:
        request: the request.
        limit: how many bytes are accepted; by default `max_body` of its limits.

    Raises what `Request.body` raises.
    """
    body = start_body(request, limit)
    if not isinstance(body, bytes):
        request._body = body = await body.read()
    return body


def start_body(request: Request, limit: int | None = None) -> bytes | BodyStream:
    """The body of a request if it arrived with the request, in one message; else a stream to read it from.

    A function of its own, and no coroutine, because it is all that most bodies need: the receive is stepped by hand
    (see `covet.receiving`), so that neither a timer nor a suspension is paid for what is already there.
    """
    if (body := request._body) is not None:
        return body
    if request._stream is not None:
        raise _read_before()
    # Asking which event loop this is takes longer than seeing that it can only be asyncio's.
    if "trio" in modules and _get_running_loop() is None:
        # trio's cancel scopes nest: the one that times the wait must be entered before the receive begins.
        return _start_stream(request, limit)
    steps: Any = request.receive()
    try:
        if steps.__class__ is CoroutineType:
            trap = steps.send(None)
        else:
            steps = steps.__await__()
            trap = next(steps)
    except StopIteration as done:
        message: Message = done.value
        if message["type"] == "http.request" and not message.get("more_body"):
            data: bytes = message.get("body", b"")
            if len(data) <= (request.limits.max_body if limit is None else limit):
                request._body = data
                return data
        return _start_stream(request, limit, first=message)
    return _start_stream(request, limit, started=resumed(steps, trap))


def _start_stream(
    request: Request, limit: int | None, *, first: Message | None = None, started: Awaitable[Message] | None = None
) -> BodyStream:
    if request._stream is not None:
        raise _read_before()
    limits = request.limits
    limit = limits.max_body if limit is None else limit
    request._stream = BodyStream(
        request.receive, limit, limits.body_timeout, request.scope["headers"], first=first, started=started
    )
    return request._stream


def _read_before() -> CovetError:
    return CovetError(
        "the body of this request was already read, as a stream or a form, or reading it was cut short; "
        "call `await request.body()` first where several need it: it keeps the body"
    )


def content_type(request: Connection) -> str:
    """The media type of the body, in lower case without parameters; empty when the request does not say one.

    Raises:
        HTTPError: 415: the request says two.
    """
    sent = [value for name, value in request.scope["headers"] if name == b"content-type"]
    if len(sent) > 1:
        raise HTTPError(415, "the request has two Content-Type headers")
    return sent[0].partition(b";")[0].strip(b" \t").lower().decode("latin-1") if sent else ""


def require_json(request: Connection) -> None:
    """Refuse a body that is not sent as `application/json` or `application/…+json`.

    A page of another site can make a browser send `text/plain` without asking; JSON takes a preflight request, which
    fails (CVE-2021-32677 of FastAPI).

    Raises:
        HTTPError: 415.
    """
    found = content_type(request)
    if found != "application/json" and not (found.startswith("application/") and found.endswith("+json")):
        what = f"not {found!r}" if found else "and the request does not say what it sends"
        raise HTTPError(
            415, f"this takes `Content-Type: application/json`, {what}", headers={"accept": "application/json"}
        )
