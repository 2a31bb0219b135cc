"""What every request ends in: errors become responses, and responses are sent."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from covet.exceptions import ClientDisconnected, CovetError, HTTPError
from covet.problems import render_error, render_traceback
from covet.responses import Response

if TYPE_CHECKING:
    from covet.applications import Covet
    from covet.requests import Request
    from covet.transforms import ResponseTransform

__all__ = ["Answers"]

logger = logging.getLogger("covet.application")

Handlers = Mapping[type[BaseException] | int, Callable[..., Awaitable[Any]]]


class Answers:
    """How an application answers errors and sends responses.

    Args:
        app: the application, with its hooks compiled.
        headers: what every response has unless it sets them itself.
        handlers: what answers an exception class, or the status of an `HTTPError`.
        transforms: what is done to bodies before they are sent. A route has its own of them.
    """

    def __init__(
        self,
        app: Covet,
        headers: Sequence[tuple[bytes, bytes]],
        handlers: Handlers,
        transforms: Sequence[ResponseTransform] = (),
    ) -> None:
        self.app = app
        self.headers = tuple(headers)
        self.handlers = handlers
        self.transforms = tuple(transforms)

    # Errors

    def handler_of(self, error: Exception) -> Callable[..., Awaitable[Any]] | None:
        """What the application or a plugin declared for an error, the closest class first, then its status."""
        if not self.handlers:
            return None
        for class_ in type(error).__mro__:
            if class_ is HTTPError and isinstance(error, HTTPError) and error.status in self.handlers:
                return self.handlers[error.status]
            if class_ in self.handlers:
                return self.handlers[class_]
        return None

    async def answer(self, request: Request, error: Exception) -> Response:
        """The response for an error that somebody handles, or that is an `HTTPError`.

        Raises:
            Exception: the error itself, when nobody handles it.
        """
        handler = self.handler_of(error)
        if handler is not None:
            made: Response = self.app.renderer(await handler(request, error), getattr(error, "status", 500))
            return made
        if isinstance(error, HTTPError):
            return render_error(request, error, self.app.debug)
        raise error

    async def recover(self, request: Request, error: Exception) -> Response:
        """The response for any error: the last resort is a 500, which is logged and told to the plugins."""
        request.tasks = ()
        try:
            return await self.answer(request, error)
        except Exception as unhandled:  # noqa: BLE001 - it becomes a response
            return await self._fail(request, unhandled)

    async def _fail(self, request: Request, error: Exception) -> Response:
        if isinstance(error, ClientDisconnected):
            logger.debug("the client left: %s %s", request.method, request.path)
            return Response(status=400)
        logger.error("%s %s failed", request.method, request.path, exc_info=error)
        # The test client puts a list here, to raise the error in the test.
        request.scope.get("covet.failures", []).append(error)
        if self.app.hooks.request_failed is not None:
            await self.app.hooks.request_failed(request, error)
        if self.app.debug:
            return render_traceback(request, error)
        shown = HTTPError(500, "the server failed to answer this request; it has been logged", request_id=request.id)
        return render_error(request, shown, debug=False)

    async def refuse(self, scope: Any, receive: Any, send: Any, error: HTTPError) -> None:
        """Answer a request or a WebSocket handshake with an error: for ASGI middleware that lets it no further.

        The response is that of a handler which raises `error`: exception handlers and constant headers apply.

        Raises:
            WebSocketDisconnected: the peer of the handshake has left.
        """
        from covet.context import running

        if scope["type"] == "websocket":
            from covet.websockets import WebSocket

            await WebSocket(scope, receive, send, self.app).refuse(error)
            return
        from covet.requests import Request

        request = Request(scope, receive, self.app)
        token = running.set(request)
        try:
            await self.deliver(await self.recover(request, error), request, send)
        except ClientDisconnected:
            logger.debug("the client left before it was refused: %s %s", request.method, request.path)
        finally:
            running.reset(token)

    # Sending

    async def deliver(self, response: Response, request: Request, send: Any) -> Response:
        """Send a response, with the constant headers that it does not set itself.

        Returns:
            The response that was sent: what a deferred one turned out to be, or the error in its place.

        Raises:
            ClientDisconnected: the client has left.
            Exception: what the response raised while it was sent; too late to answer anything else.
        """
        if request.finishers:
            response = await self._finish(response, request)
        request.finishers = None
        self._complete(response)
        if response.deferred:
            response = await self._resolve(response, request)
        for transform in self.transforms if request.route is None else request.route.transforms:
            if not transform.is_too_small(request, response):
                response = await self._transform(transform, response, request)
        if response.__class__.__call__ is Response.__call__:
            # It is there as a whole, so that only sending it can fail.
            try:
                await response(request.scope, request.receive, send)
            except OSError as error:
                raise _left() from error
            return response

        async def checked_send(message: Any) -> None:
            # What the response itself raises as OSError, a missing file for example, is something else.
            try:
                await send(message)
            except OSError as error:
                raise _left() from error

        try:
            await response(request.scope, request.receive, checked_send)
        except OSError as error:
            raise CovetError(f"{response!r} failed while it was sent: {type(error).__name__}: {error}") from error
        return response

    async def _finish(self, response: Response, request: Request) -> Response:
        """Call what the request was given for its response, also what is added meanwhile."""
        while request.finishers:
            finisher, request.finishers = request.finishers[0], request.finishers[1:]
            try:
                found = finisher(request, response)
                if found is not None and not isinstance(found, Response):
                    found = await found
            except Exception as error:  # noqa: BLE001 - it becomes a response
                response = await self.recover(request, error)
            else:
                if found is not None:
                    response = found
        return response

    async def _transform(self, transform: ResponseTransform, response: Response, request: Request) -> Response:
        try:
            return await transform.function(request, response)
        except Exception as error:  # noqa: BLE001 - it becomes a response
            return await self._instead(response, request, error)

    def _complete(self, response: Response) -> None:
        raw = response.headers.raw
        own = dict(raw)
        for header in self.headers:
            if header[0] not in own:
                raw.append(header)

    async def _resolve(self, response: Response, request: Request) -> Response:
        try:
            return await response.resolve(request.scope)
        except Exception as error:  # noqa: BLE001 - it becomes a response
            return await self._instead(response, request, error)

    async def _instead(self, response: Response, request: Request, error: Exception) -> Response:
        """The answer to an error of sending a response, in its place."""
        from covet.files import carry_over

        tasks = request.tasks
        refusal = await self.recover(request, error)
        # The handler has done its work, and this is not its error: what it left to do is done.
        request.tasks = tasks
        carry_over(response.headers, refusal)
        self._complete(refusal)
        return refusal


def _left() -> ClientDisconnected:
    return ClientDisconnected("the client left before its response was sent")
