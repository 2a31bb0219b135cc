"""Serving WebSocket connections: from the handshake to the close, and all of them away when the application stops."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import anyio

from covet.context import running
from covet.dependencies import leave
from covet.exceptions import HTTPError, WebSocketDisconnected
from covet.websockets import WebSocket, stopping

if TYPE_CHECKING:
    from covet.applications import Covet

__all__ = ["OpenSockets", "refuse_unknown", "serve_websocket"]

logger = logging.getLogger("covet.request")


class OpenSockets:
    """The connections that an application serves, so that it can end them when it is about to stop."""

    def __init__(self) -> None:
        self._open: dict[WebSocket, anyio.CancelScope] = {}
        self._watched = False
        self._changed: anyio.Event | None = None

    def __len__(self) -> int:
        return len(self._open)

    @classmethod
    def of(cls, app: Covet) -> OpenSockets:
        """Those of an application."""
        found = app.state.get(cls)
        if found is None:
            found = app.state[cls] = cls()
        return found

    def add(self, socket: WebSocket, scope: anyio.CancelScope) -> None:
        """Note a connection, and the cancel scope that its handler runs in."""
        self._open[socket] = scope
        # One task for all of them; without the application's lifespan nobody tells when it stops.
        if not self._watched and socket.app.tasks.running:
            self._watched = True
            socket.app.tasks.start_soon(self._end_all, socket.app, name="closing WebSockets")

    def discard(self, socket: WebSocket) -> None:
        """Forget a connection that has ended."""
        del self._open[socket]
        if self._changed is not None:
            self._changed.set()

    async def _end_all(self, app: Covet) -> None:
        try:
            await app.drain.wait()
            async with anyio.create_task_group() as group:
                for socket in tuple(self._open):
                    group.start_soon(_send_away, socket)
                with anyio.move_on_after(app.settings.server.shutdown_timeout):
                    while self._open:
                        self._changed = changed = anyio.Event()
                        await changed.wait()
                group.cancel_scope.cancel()
        finally:
            self._watched = False
            # Also when the wait itself is cancelled, as the application gives its tasks no longer than that.
            for socket, scope in self._open.items():
                logger.warning("cancelled at shutdown: the handler of the WebSocket %s", socket.path)
                scope.cancel()


async def _send_away(socket: WebSocket) -> None:
    try:
        await socket.go_away()
    except WebSocketDisconnected:
        logger.debug("the peer of the WebSocket %s has left", socket.path)
    except Exception:
        logger.exception("the WebSocket %s could not be closed", socket.path)


async def serve_websocket(socket: WebSocket, call: Callable[[WebSocket], Awaitable[Any]]) -> None:
    """Let a handler serve a connection, and end the connection as the handler ends.

    What the handshake lacks refuses it before it is accepted. An error of the handler is logged, and closes the
    connection with 1011.
    """
    open_sockets = OpenSockets.of(socket.app)
    token = running.set(socket)
    error: BaseException | None = None
    async with anyio.create_task_group() as group:
        socket._group = group
        open_sockets.add(socket, group.cancel_scope)
        try:
            try:
                _check_handshake(socket)
                await call(socket)
                await socket.close()
            except Exception as raised:  # noqa: BLE001 - it is logged, or told to the peer
                error = raised
                await _end(socket, raised)
            await socket.gone()
        except BaseException as cancelled:
            error = cancelled
            raise
        finally:
            try:
                if socket.cleanups:
                    await leave(socket.cleanups, error)
            except Exception as raised:
                if raised is not error:
                    logger.exception("a request-scoped dependency of the WebSocket %s failed to clean up", socket.path)
            finally:
                open_sockets.discard(socket)
                running.reset(token)
                group.cancel_scope.cancel()


def _check_handshake(socket: WebSocket) -> None:
    if socket.app.drain.started:
        raise stopping()
    # Reading them is what refuses those beyond the limits.
    _ = socket.headers


async def _end(socket: WebSocket, raised: Exception) -> None:
    """End a connection after an error."""
    cause = _cause(raised)
    try:
        if isinstance(cause, WebSocketDisconnected):
            logger.debug("the peer closed the WebSocket %s", socket.path)
        elif isinstance(cause, HTTPError):
            await socket.refuse(cause)
        else:
            logger.error("the WebSocket handler of %s failed", socket.path, exc_info=raised)
            await socket.fail(raised)
    except WebSocketDisconnected:
        logger.debug("the peer of the WebSocket %s has left", socket.path)


def _cause(raised: Exception) -> Exception:
    """What an error says to the peer. Of the group that a handler's own tasks raised, an HTTPError or the peer's
    leaving, if nothing else is in it."""
    if not isinstance(raised, ExceptionGroup):
        return raised
    leaves = [_cause(inner) for inner in raised.exceptions]
    if all(isinstance(leaf, HTTPError | WebSocketDisconnected) for leaf in leaves):
        return next((leaf for leaf in leaves if isinstance(leaf, HTTPError)), leaves[0])
    return raised


async def refuse_unknown(socket: WebSocket) -> None:
    """Refuse a handshake that no route answers, with status 404."""

    async def missing(socket: WebSocket) -> None:
        if len(socket.path) > socket.limits.max_target_bytes:
            raise HTTPError(414, f"a path may have at most {socket.limits.max_target_bytes} bytes")
        raise HTTPError(404, f"no WebSocket is served at {socket.path}")

    await serve_websocket(socket, missing)
