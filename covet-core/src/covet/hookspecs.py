"""Every hook of the kernel.

A plugin implements the ones it needs, with `@covet.hookimpl`, and takes only the arguments it needs: arguments may be
added to a hook without breaking anyone. A hook that is `async def` here may be implemented by `def` and `async def`
alike; one that is `def` here by `def` alone.

Each docstring says when the hook is called, by whom, what it may return, and what happens when it fails.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from covet.hooks import hookspec

if TYPE_CHECKING:
    from covet.applications import Covet
    from covet.backends import Backend
    from covet.health import HealthCheck
    from covet.middleware import ASGIMiddleware, Middleware
    from covet.parameters import Depends
    from covet.requests import Request
    from covet.responses import Response
    from covet.routing import Mount, Route, Router, WebSocketRoute
    from covet.secrets import Provider
    from covet.storage import StorageBackend
    from covet.transforms import ResponseTransform

# Composition: once, while the application is built


@hookspec
def covet_settings() -> type:
    """Declare the plugin's own settings.

    When: while the application is built, before any other hook of the plugin.
    By whom: the kernel, which then checks the table `[plugins.NAME]` against the type.
    Returns: a msgspec Struct; every field with a default makes the table optional.
    On failure: the plugin is recorded as failed, and the application does not start.

    Example:

        class TimingSettings(msgspec.Struct, frozen=True):
            slow: float = 0.5

        @covet.hookimpl
        def covet_settings():
            return TimingSettings
    """
    raise AssertionError("a specification is not called")


@hookspec
def covet_hookspecs() -> Iterable[object]:
    """Bring hook specifications of the plugin's own, for plugins of the plugin.

    When: while plugins are loaded, before any implementation is checked, wherever the plugin stands in the order.
    By whom: the kernel.
    Returns: modules or objects with functions marked `@covet.hookspec`.
    On failure: the plugin is recorded as failed; so is one that specifies a hook that there is already. A plugin that
    implements such a hook and works without its owner marks it with `@covet.hookimpl(optionalhook=True)`.

    Example:

        class Specifications:
            @covet.hookspec
            def shop_payment_methods(self):
                "Return the payment methods that a plugin offers."

        @covet.hookimpl
        def covet_hookspecs():
            return [Specifications]
    """
    raise AssertionError("a specification is not called")


@hookspec
def covet_setup(app: Covet) -> None:
    """Set the plugin up for an application: what no other hook has a place for.

    When: while the application is built, after all settings were checked and secrets resolved; `app.storage` is there,
    not open yet.
    By whom: the kernel, in plugin order.
    Returns: nothing. The application may still be added to: `app.state`, `app.provide`, routes.
    On failure: the application does not start; the error names the plugin. What was added is taken back.

    Example:

        @covet.hookimpl
        def covet_setup(app):
            app.state[Registry] = Registry()
    """


@hookspec
def covet_routes(app: Covet) -> Iterable[Route | WebSocketRoute | Mount | Router]:
    """Contribute routes.

    When: while the application is built.
    By whom: the kernel, in plugin order.
    Returns: routes, WebSocket routes, mounts or routers.
    On failure: the application does not start. Two owners of one route are an error that names both, unless
    `[plugins] prefer` says which one wins.

    Example:

        async def version() -> dict[str, str]:
            return {"version": "1.0"}

        @covet.hookimpl
        def covet_routes(app):
            return [covet.Route("/version", version)]
    """
    raise AssertionError("a specification is not called")


@hookspec
def covet_middleware(app: Covet) -> Iterable[Middleware | ASGIMiddleware]:
    """Contribute middleware, each in a named band.

    When: while the application is built.
    By whom: the kernel.
    Returns: middleware of Covet's own kind or pure ASGI middleware.
    On failure: the application does not start; so do two of one name in a band, and contradictory neighbours.

    Example:

        async def stamp(request, call_next):
            response = await call_next(request)
            response.headers["x-stamp"] = "1"
            return response

        @covet.hookimpl
        def covet_middleware(app):
            return [covet.Middleware(stamp, band="transport")]
    """
    raise AssertionError("a specification is not called")


@hookspec
def covet_route_guards(
    app: Covet, route: Route
) -> Iterable[Callable[[Request], Response | Awaitable[Response | None] | None]]:
    """Contribute guards of a route: what may refuse a request before anything of it is read.

    When: while the application is built, for every HTTP route. A route without guards pays nothing.
    By whom: the kernel. The guards are called for every request of the route, in plugin order, behind all middleware
    and before parameters are read and dependencies made.
    Returns: functions of the request, plain or asynchronous, that return None to let it pass, or a response; what they
    raise is answered like an error of the handler's. `route.marks` tells what was declared for the route, `route.plan`
    what its handler takes.
    On failure: the application does not start.

    Example:

        class Internal:
            "Marks the routes for machines of our own: `@app.get(..., marks=[Internal()])`."

        def only_from_here(request):
            if request.client is None or request.client[0] != "127.0.0.1":
                raise covet.HTTPError(403)

        @covet.hookimpl
        def covet_route_guards(app, route):
            return [only_from_here] if Internal in route.marks else []
    """
    raise AssertionError("a specification is not called")


@hookspec
def covet_response_transforms(app: Covet) -> Iterable[ResponseTransform]:
    """Contribute transforms of response bodies: what encodes them for the way, such as compression.

    When: while the application is built.
    By whom: the kernel. A transform is called last of all, behind every middleware, for responses that are large
    enough for it or whose size is not known; the others pay nothing.
    Returns: transforms, applied in plugin order.
    On failure: the application does not start. A transform that raises makes the request a 500.

    Example:

        async def shout(request, response):
            if response.headers.get("content-type", "").startswith("text/plain"):
                response.body = response.body.upper()
            return response

        @covet.hookimpl
        def covet_response_transforms(app):
            return [covet.transforms.ResponseTransform(shout, min_bytes=1000)]
    """
    raise AssertionError("a specification is not called")


@hookspec
def covet_dependencies(app: Covet) -> Mapping[type, Callable[..., Any] | Depends]:
    """Contribute what a handler may ask for by annotation.

    When: while the application is built.
    By whom: the kernel.
    Returns: type to provider; a `Depends` as provider sets the scope.
    On failure: the application does not start. Two owners of one type are an error that names both, unless
    `[plugins] prefer` says which one wins.

    Example:

        class Clock:
            def now(self):
                return time.time()

        @covet.hookimpl
        def covet_dependencies(app):
            return {Clock: covet.Depends(Clock, scope="app")}
    """
    raise AssertionError("a specification is not called")


@hookspec
def covet_encoders() -> Mapping[type, Callable[[Any], Any]]:
    """Contribute encoders for return values that JSON does not know.

    When: while the application is built.
    By whom: the kernel.
    Returns: type to a function from a value to something that can be encoded. It serves subclasses too.
    On failure: the application does not start. An encoder that raises makes the request a 500.

    Example:

        class Money:
            amount, currency = 5, "EUR"

        @covet.hookimpl
        def covet_encoders():
            return {Money: lambda money: f"{money.amount} {money.currency}"}
    """
    raise AssertionError("a specification is not called")


@hookspec
def covet_exception_handlers(app: Covet) -> Mapping[type[Exception] | int, Callable[..., Any]]:
    """Contribute responses to exceptions.

    When: while the application is built.
    By whom: the kernel.
    Returns: exception class, or status of an `HTTPError`, to a function of request and error, plain or asynchronous,
    which returns what a handler may return.
    On failure: the application does not start. A handler that raises makes the request a 500.

    Example:

        class OutOfStock(Exception):
            "There is none left."

        @covet.hookimpl
        def covet_exception_handlers(app):
            return {OutOfStock: lambda request, error: ({"sold": "out"}, 409)}
    """
    raise AssertionError("a specification is not called")


@hookspec
def covet_response_headers(app: Covet) -> Iterable[tuple[str, str]]:
    """Contribute headers that every response has unless it sets them itself.

    When: while the application is built. The headers are constant, so they cost a request nothing.
    By whom: the kernel.
    Returns: names and values.
    On failure: the application does not start.

    Example:

        @covet.hookimpl
        def covet_response_headers(app):
            return [("x-content-type-options", "nosniff")]
    """
    raise AssertionError("a specification is not called")


@hookspec
def covet_openapi(app: Covet, document: dict[str, Any]) -> None:
    """Change the OpenAPI document: security schemes, servers, tags.

    When: when the document is first asked for.
    By whom: the plugin that makes the document, in plugin order.
    Returns: nothing; the document is changed in place.
    On failure: the request for the document fails.

    Example:

        @covet.hookimpl
        def covet_openapi(app, document):
            document.setdefault("tags", []).append({"name": "shop"})
    """


@hookspec
def covet_storage_backends() -> Mapping[str, StorageBackend]:
    """Contribute storage backends.

    When: while the application is built.
    By whom: the kernel, to open what `[storage.ALIAS]` names.
    Returns: URL scheme to backend.
    On failure: the application does not start. Two owners of one scheme are an error that names both, unless
    `[plugins] prefer` says which one wins.

    Example:

        @covet.hookimpl
        def covet_storage_backends():
            return {"shelf": covet.storage.StorageBackend(open_shelf, ShelfSettings)}
    """
    raise AssertionError("a specification is not called")


@hookspec
def covet_session_stores() -> Mapping[str, Backend]:
    """Contribute session stores.

    When: while the application is built.
    By whom: the kernel, to make what `[sessions] store` names. A backend that has to connect does so in a lifespan: its
    factory is given the application, and may call `app.add_lifespan`.
    Returns: name to `covet.backends.Backend`, whose factory makes a `covet.sessions.SessionStore`.
    On failure: the application does not start. Two owners of one name are an error that names both, unless
    `[plugins] prefer` says which one wins.

    Example:

        @covet.hookimpl
        def covet_session_stores():
            return {"shelf": covet.backends.Backend(lambda app, alias, settings: Shelf(settings.path), ShelfSettings)}
    """
    raise AssertionError("a specification is not called")


@hookspec
def covet_cache_backends() -> Mapping[str, Backend]:
    """Contribute cache backends.

    When: while the application is built.
    By whom: the kernel, to make what `[cache.ALIAS] backend` names. A backend that has to connect does so in a
    lifespan: its factory is given the application, and may call `app.add_lifespan`.
    Returns: name to `covet.backends.Backend`, whose factory makes a `covet.cache.CacheBackend`.
    On failure: the application does not start. Two owners of one name are an error that names both, unless
    `[plugins] prefer` says which one wins.

    Example:

        @covet.hookimpl
        def covet_cache_backends():
            return {"shelf": covet.backends.Backend(lambda app, alias, settings: Shelf(settings.path), ShelfSettings)}
    """
    raise AssertionError("a specification is not called")


@hookspec
def covet_pubsub_backends() -> Mapping[str, Backend]:
    """Contribute pub/sub backends.

    When: while the application is built.
    By whom: the kernel, to make what `[pubsub.ALIAS] backend` names. A backend that has to connect does so in a
    lifespan: its factory is given the application, and may call `app.add_lifespan`.
    Returns: name to `covet.backends.Backend`, whose factory makes a `covet.pubsub.PubSubBackend`.
    On failure: the application does not start. Two owners of one name are an error that names both, unless
    `[plugins] prefer` says which one wins.

    Example:

        @covet.hookimpl
        def covet_pubsub_backends():
            return {"shelf": covet.backends.Backend(lambda app, alias, settings: Shelf(settings.path), ShelfSettings)}
    """
    raise AssertionError("a specification is not called")


@hookspec
def covet_object_stores() -> Mapping[str, Backend]:
    """Contribute object stores.

    When: while the application is built.
    By whom: the kernel, to make what `[objects.ALIAS] backend` names. A backend that has to connect does so in a
    lifespan: its factory is given the application, and may call `app.add_lifespan`.
    Returns: name to `covet.backends.Backend`, whose factory makes a `covet.objects.ObjectStore`.
    On failure: the application does not start. Two owners of one name are an error that names both, unless
    `[plugins] prefer` says which one wins.

    Example:

        @covet.hookimpl
        def covet_object_stores():
            return {"shelf": covet.backends.Backend(lambda app, alias, settings: Shelf(settings.path), ShelfSettings)}
    """
    raise AssertionError("a specification is not called")


@hookspec
def covet_secret_providers() -> Mapping[str, Provider]:
    """Contribute ways to resolve references to secrets, beside `env:` and `file:`.

    When: while the application is built, before storages are made and `covet_setup` is called.
    By whom: the kernel.
    Returns: scheme to a plain function from what stands behind the colon to the secret. A scheme is lower-case letters,
    digits, `_` and `-`, at least two. A function that returns a `covet.secrets.SecretValue` is called again, in a
    worker thread, before the value expires.
    On failure: the application does not start; the message names the key and the reference, not the value. Two owners
    of one scheme, Covet being that of `env` and `file`, are an error that names both, unless `[plugins] prefer` says
    which one wins.

    Example:

        @covet.hookimpl
        def covet_secret_providers():
            return {"keyring": lambda name: keyring.get_password("shop", name)}
    """
    raise AssertionError("a specification is not called")


# Lifecycle


@hookspec
def covet_lifespan(app: Covet) -> AbstractAsyncContextManager[Any]:
    """Run something for as long as the application runs.

    When: at start-up, in plugin order; left in reverse order at shutdown, also when a later part fails to start.
    By whom: the kernel.
    Returns: an asynchronous context manager, such as a function marked `@asynccontextmanager` makes.
    On failure: what had started is stopped, and the application does not start.

    Example:

        @covet.hookimpl
        @contextlib.asynccontextmanager
        async def covet_lifespan(app):
            async with connect() as connection:
                app.state[Connection] = connection
                yield
    """
    raise AssertionError("a specification is not called")


@hookspec
async def covet_ready(app: Covet) -> None:
    """Do something once everything has started.

    When: after the last lifespan was entered, before the first request.
    By whom: the kernel.
    Returns: nothing.
    On failure: the application stops again and does not start.

    Example:

        @covet.hookimpl
        async def covet_ready(app):
            print("ready:", len(app.routes), "routes")
    """


@hookspec
async def covet_draining(app: Covet) -> None:
    """Hear that the application is about to stop, before connections are asked to end.

    When: at the beginning of shutdown.
    By whom: the kernel.
    Returns: nothing.
    On failure: the error is logged; other plugins hear of it all the same, and shutdown goes on.

    Example:

        @covet.hookimpl
        async def covet_draining(app):
            await tell_load_balancer("leaving")
    """


# Requests


@hookspec
async def covet_request_started(request: Request) -> Response | None:
    """Look at a request before any middleware of Covet's own kind, and perhaps answer it.

    When: for every HTTP request, after its route was found (`request.route` is None where none was).
    By whom: the kernel, in plugin order.
    Returns: None, or a response: then neither later plugins nor middleware and handler see the request.
    On failure: the error is handled like one of the handler's.

    Example:

        @covet.hookimpl
        async def covet_request_started(request):
            if request.path.startswith("/old"):
                return covet.RedirectResponse("/new")
    """


@hookspec
async def covet_response_ready(request: Request, response: Response) -> Response | None:
    """Look at a response before it is sent, and perhaps replace it.

    When: for every HTTP request, after all middleware.
    By whom: the kernel, in plugin order; each sees what the one before returned.
    Returns: None to leave it, changed in place perhaps; or another response.
    On failure: the error is handled like one of the handler's.

    Example:

        @covet.hookimpl
        def covet_response_ready(request, response):
            response.headers["x-request-id"] = request.id
    """


@hookspec
async def covet_request_failed(request: Request, error: Exception) -> None:
    """Hear of an error that nobody handled, which makes the request a 500.

    When: after it was logged, before the response is sent.
    By whom: the kernel, in plugin order.
    Returns: nothing.
    On failure: the error of the hook is logged; other plugins hear of it all the same.

    Example:

        @covet.hookimpl
        async def covet_request_failed(request, error):
            await report(error, request_id=request.id)
    """


@hookspec
async def covet_request_finished(request: Request, response: Response, duration: float) -> None:
    """Hear that a response was sent.

    When: after its last byte was handed to the server; not when the request was cancelled.
    By whom: the kernel, in plugin order.
    Returns: nothing. `duration` is in seconds.
    On failure: the error of the hook is logged; other plugins hear of it all the same.

    Example:

        @covet.hookimpl
        def covet_request_finished(request, response, duration):
            histogram.observe(duration, route=request.route.path if request.route else "")
    """


# Operation


@hookspec
def covet_health_checks(app: Covet) -> Mapping[str, HealthCheck]:
    """Contribute checks of whether the application can do its work.

    When: while the application is built.
    By whom: whoever answers health requests; the storages are checked without being named here.
    Returns: name to `covet.health.HealthCheck`.
    On failure: the application does not start. Two owners of one name are an error that names both, unless
    `[plugins] prefer` says which one wins. A check that fails makes the application not ready, or is shown alone.

    Example:

        async def queue_is_short():
            if (length := await queue.length()) > 1000:
                raise RuntimeError(f"{length} jobs are waiting")

        @covet.hookimpl
        def covet_health_checks(app):
            return {"queue": covet.health.HealthCheck(queue_is_short)}
    """
    raise AssertionError("a specification is not called")


@hookspec
def covet_event(event: object) -> None:
    """Hear of an event: a request was served, a circuit breaker opened, and what plugins emit.

    When: as it happens. Without any implementation no event is even built.
    By whom: the kernel and plugins, through `app.emit`.
    Returns: nothing. It is a plain `def` that does not block.
    On failure: the error is logged; other plugins hear of it all the same.

    Example:

        @covet.hookimpl
        def covet_event(event):
            if isinstance(event, covet.events.RequestDone):
                counter[event.status] += 1
    """
