"""Everything that stands around a handler when something does: middleware, request hooks, events.

What a request meets is decided when the application is built; a route that meets nothing is served without a pipeline,
by `covet.endpoints`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

from covet.context import running
from covet.dependencies import leave
from covet.endpoints import client_left
from covet.events import RequestDone
from covet.exceptions import ClientDisconnected, CovetError
from covet.middleware import BANDS, ASGIMiddleware, Middleware
from covet.requests import Request
from covet.responses import Response

if TYPE_CHECKING:
    from covet.applications import Covet
    from covet.endpoints import Endpoint
    from covet.routing import Route

__all__ = ["Pipeline"]

Call = Callable[[Request], Awaitable[Response]]

logger = logging.getLogger("covet.request")


class Pipeline:
    """What stands around every handler of an application.

    Args:
        app: the application, with its hooks compiled.
        layers: the middleware, outermost first.
    """

    def __init__(self, app: Covet, layers: Sequence[Middleware | ASGIMiddleware]) -> None:
        self.app = app
        self.layers = tuple(layers)
        self.asgi = {}
        if any(isinstance(layer, ASGIMiddleware) for layer in layers):
            from covet.bridging import terminal

            for layer in layers:
                if isinstance(layer, ASGIMiddleware):
                    self.asgi[layer] = layer.factory(terminal, **layer.options)

    @property
    def empty(self) -> bool:
        """Whether nothing stands around the handlers: no middleware, no request hook, nobody listens to events."""
        hooks = self.app.hooks
        return self.direct and not (hooks.request_started or hooks.request_failed)

    @property
    def direct(self) -> bool:
        """Whether an endpoint can do without this: it calls `covet_request_started` itself."""
        hooks = self.app.hooks
        return not self.layers and not any((hooks.response_ready, hooks.request_finished, hooks.event))

    def wrap(self, call: Call, layers: Sequence[Middleware | ASGIMiddleware] = ()) -> tuple[Call, bool]:
        """`call` with the application's layers and a route's own around it; and whether any needs a bridge.

        What a layer in a band inside of `errors` is given is a response; one in `edge` is spared even their errors.
        """
        inside = BANDS.index("errors")
        bridge = caught = False
        for number, layer in enumerate(reversed((*self.layers, *layers))):
            if not number:
                call = self._guarded(call)
            if not caught and BANDS.index(layer.band) < inside:
                call, caught = self._final(call), True
            if isinstance(layer, ASGIMiddleware):
                from covet.bridging import bridged, terminal

                bridge = True
                app = self.asgi.get(layer) or layer.factory(terminal, **layer.options)
                call = self._guarded(bridged(app, call))
            else:
                call = self._linked(layer, call)
        return call, bridge

    def _guarded(self, inner: Call) -> Call:
        """Errors with a handler, and every HTTPError, become responses; the others go on outwards."""
        answer = self.app.answers.answer

        async def guarded(request: Request) -> Response:
            try:
                return await inner(request)
            except Exception as error:  # noqa: BLE001 - it becomes a response
                return await answer(request, error)

        return guarded

    def _linked(self, layer: Middleware, inner: Call) -> Call:
        answer, function = self.app.answers.answer, layer.function

        async def linked(request: Request) -> Response:
            try:
                response = await function(request, inner)
            except Exception as error:  # noqa: BLE001 - it becomes a response
                return await answer(request, error)
            if not isinstance(response, Response):
                raise CovetError(f"{layer!r} returned {response!r}; a middleware returns a Response")
            return response

        return linked

    def _final(self, inner: Call) -> Call:
        """Every error becomes a response."""
        recover = self.app.answers.recover

        async def final(request: Request) -> Response:
            try:
                return await inner(request)
            except Exception as error:  # noqa: BLE001 - it becomes a response
                return await recover(request, error)

        return final

    def endpoint(
        self,
        route: Route | None,
        call: Call,
        layers: Sequence[Middleware | ASGIMiddleware] = (),
        *,
        bridge: bool = False,
    ) -> Endpoint:
        """The function that serves `route` through all of this; `bridge` when `call` itself needs one."""
        app, hooks = self.app, self.app.hooks
        wrapped, bridged = self.wrap(call, layers)
        answer = self._answer(wrapped)
        if bridge or bridged:
            answer = _with_bridge(answer)

        async def serve(scope: Any, receive: Any, send: Any, values: tuple[Any, ...]) -> None:
            request = Request(scope, receive, app, route, values)
            token = running.set(request)
            began = perf_counter()
            response: Response | None = None
            error: BaseException | None = None
            try:
                response = await answer(request, send)
            except BaseException as raised:
                error = raised
                raise
            finally:
                try:
                    if request.cleanups:
                        await _clean_up(request, error)
                    if hooks.request_finished is not None and error is None:
                        await hooks.request_finished(request, response, perf_counter() - began)
                finally:
                    if hooks.event is not None:
                        hooks.event(RequestDone.of(request, response, perf_counter() - began, error))
                    if request.tasks and response is not None:
                        app.start_tasks(request)
                    running.reset(token)

        return serve

    def _answer(self, call: Call) -> Callable[[Request, Any], Awaitable[Response]]:
        """Make the response, with the hooks before and after, and send it."""
        app, hooks = self.app, self.app.hooks
        started, ready = hooks.request_started, hooks.response_ready
        recover, deliver = app.answers.recover, app.answers.deliver
        if ready is not None:
            # It sees the responses to errors, too.
            call = self._final(call)

        async def answer(request: Request, send: Any) -> Response:
            response: Response
            try:
                early = None if started is None else await started(request)
                response = await call(request) if early is None else early
                if ready is not None:
                    response = await ready(request, response) or response
            except Exception as error:  # noqa: BLE001 - it becomes a response
                response = await recover(request, error)
            try:
                response = await deliver(response, request, send)
            except ClientDisconnected as left:
                client_left(request, left)
            except BaseException:
                # The response was made, and what is to be done after it is no part of it.
                if request.tasks:
                    app.start_tasks(request)
                    request.tasks = ()
                raise
            return response

        return answer


def _with_bridge(
    answer: Callable[[Request, Any], Awaitable[Response]],
) -> Callable[[Request, Any], Awaitable[Response]]:
    from covet.bridging import Bridge

    async def bridged_answer(request: Request, send: Any) -> Response:
        async with Bridge.over(request):
            return await answer(request, send)

    return bridged_answer


async def _clean_up(request: Request, error: BaseException | None) -> None:
    """Clean up the request-scoped dependencies. The response is gone: an error can only be logged."""
    try:
        await leave(request.cleanups, error)
    except Exception:
        if error is None:
            logger.exception("a request-scoped dependency failed to clean up after the response was sent")
