"""Building an application: everything that can be decided before the first request is decided here."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from covet.annotations import is_coroutine
from covet.answers import Answers
from covet.backends import HOOKS, Backends
from covet.background import Tasks
from covet.collisions import APPLICATION, KERNEL, settle
from covet.encoding import Renderer
from covet.endpoints import compile_caller, compile_endpoint, websocket_endpoint
from covet.exceptions import HTTPError, PluginError, RouteError
from covet.lifespan import Drain
from covet.lookup import RouteTable
from covet.middleware import ASGIMiddleware, Middleware, in_order
from covet.pipeline import Pipeline
from covet.plugins import PluginManager, name_plugins
from covet.responses import Response
from covet.routing import Mount, Route, Router, WebSocketRoute
from covet.secrets import BUILTIN_PROVIDERS
from covet.settings import Settings
from covet.signatures import analyse
from covet.storage import StorageRegistry
from covet.templates import Template
from covet.transforms import ResponseTransform

if TYPE_CHECKING:
    from covet.applications import Covet
    from covet.requests import Request

__all__ = ["Build", "CompiledHooks", "build", "compile_routes", "load_settings"]

logger = logging.getLogger("covet.application")

Entry = Route | WebSocketRoute | Mount
ANY = "*"
# RFC 9110 sections 5.1 and 5.5: a header's name is a token; its value has no control characters.
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
UNSENDABLE = re.compile(r"[^\t -~\x80-\xff]")


class CompiledHooks:
    """The asynchronous hooks and `covet_event` as one callable each, or None where nobody implements one."""

    def __init__(self, plugins: PluginManager) -> None:
        self.ready = plugins.compile("covet_ready")
        self.draining = plugins.compile("covet_draining")
        self.request_started = plugins.compile("covet_request_started")
        self.response_ready = plugins.compile("covet_response_ready")
        self.request_failed = plugins.compile("covet_request_failed")
        self.request_finished = plugins.compile("covet_request_finished")
        self.event = plugins.compile("covet_event")


class Build:
    """What was decided when an application was built."""

    def __init__(self, app: Covet, settings: Settings, plugins: PluginManager) -> None:
        self.app = app
        self.settings = settings
        self.plugins = plugins
        self.tasks = Tasks()
        self.drain = Drain()
        self.routes: tuple[Entry, ...] = ()
        self.names: dict[str, Entry] = {}
        self.providers: dict[Any, Any] = {}
        self.tables: dict[str, RouteTable[Any]] = {}
        self.websockets: RouteTable[Any] = RouteTable()
        self.hooks: CompiledHooks
        self.storage: StorageRegistry
        self.backends: Backends
        self.renderer: Renderer
        self.answers: Answers
        self.pipeline: Pipeline
        self.outer: list[ASGIMiddleware] = []
        self.entry: Callable[[Any, Any, Any], Awaitable[None]] = self.dispatch
        self.websocket_entry: Callable[[Any, Any, Any], Awaitable[None]] = self.dispatch_websocket
        self.missed: Any

    async def dispatch(self, scope: Any, receive: Any, send: Any) -> None:
        """Find the route of a request or WebSocket and serve it."""
        if scope["type"] == "websocket":
            await self.websocket_entry(scope, receive, send)
            return
        path = route_path(scope)
        limits = self.settings.limits
        if len(scope["headers"]) > limits.max_headers or len(path) > limits.max_target_bytes:
            found = None
        else:
            found = (self.tables.get(scope["method"]) or self.tables[ANY]).find(path)
        endpoint, values = (self.missed, ()) if found is None else found
        await endpoint(scope, receive, send, values)

    async def dispatch_websocket(self, scope: Any, receive: Any, send: Any) -> None:
        """Find the route of a WebSocket and serve it."""
        path = route_path(scope)
        found = self.websockets.find(path) if len(path) <= self.settings.limits.max_target_bytes else None
        if found is None:
            from covet.websocket_serving import refuse_unknown
            from covet.websockets import WebSocket

            await refuse_unknown(WebSocket(scope, receive, send, self.app))
        else:
            endpoint, values = found
            await endpoint(scope, receive, send, values)

    def miss(self, request: Request) -> Response:
        """What no route answers.

        Raises:
            HTTPError: 404, 405 with `Allow`, 414 or 431.
        """
        limits = self.settings.limits
        path = route_path(request.scope)
        if len(request.scope["headers"]) > limits.max_headers:
            raise HTTPError(431, f"a request may have at most {limits.max_headers} headers")
        if len(path) > limits.max_target_bytes:
            raise HTTPError(414, f"a path may have at most {limits.max_target_bytes} bytes")
        allowed = self.allowed(path)
        if allowed:
            allow = ", ".join(sorted(allowed | {"OPTIONS"}))
            if request.method == "OPTIONS":
                return Response(status=204, headers={"allow": allow})
            raise HTTPError(405, f"{request.path} answers {allow}", headers={"allow": allow})
        other = path[:-1] if path.endswith("/") else path + "/"
        # Never towards "//host": a browser would take that for another server.
        if other and not path.startswith("//") and request.method in self.allowed(other):
            return Response(status=308, headers={"location": _target(request.scope, other)})
        raise HTTPError(404, f"nothing answers {request.path}")

    def allowed(self, path: str) -> set[str]:
        """The methods that a path answers."""
        return {method for method, table in self.tables.items() if method != ANY and table.find(path) is not None}


def route_path(scope: Any) -> str:
    """The path as the application's routes see it: without the `root_path` it is mounted at."""
    path: str = scope["path"]
    root = scope.get("root_path", "")
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/"):
        return path[len(root) :] or "/"
    return path


def _target(scope: Any, path: str) -> str:
    """A redirect target on the same server: the path percent-encoded, with the query as it came."""
    from urllib.parse import quote

    target = quote(scope.get("root_path", "") + path, safe="/:@!$&'()*+,;=~-._")
    query = scope.get("query_string", b"").decode("latin-1")
    return target + ("?" + quote(query, safe="%/:@!$&'()*+,;=~-._?") if query else "")


def load_settings(given: Settings | Mapping[str, Any] | Any) -> Settings:
    """The settings an application was given: ready-made, a mapping, a path, or nothing."""
    if isinstance(given, Settings):
        return given
    if given is None or isinstance(given, Mapping):
        return Settings.load(overrides=given)
    return Settings.load(given)


def build(app: Covet) -> None:
    """Build an application. See `Covet.build`."""
    settings = app.settings
    manager = PluginManager(
        settings.plugins,
        names=None if isinstance(app._installed_plugins, bool) else app._installed_plugins,
        extra=name_plugins(app._given_plugins),
        installed=app._installed_plugins is not False,
    )
    manager.load()
    made = Build(app, settings, manager)
    app._build = made
    forget = _forgetting(app)
    try:
        _configure(app, made)
        app._closed = True
        _compose(app, made)
        compile_routes(app, made)
    except BaseException:
        app._build = None
        app._closed = False
        app._tables = {}
        forget()
        raise


def _forgetting(app: Covet) -> Callable[[], None]:
    """A function that takes back what plugins declare from now on, so that a build that failed can be tried again."""
    declared = (app._router._entries, app._layers, app._lifespans)
    provided = (app._providers, app._error_handlers)
    before = [list(entries) for entries in declared], [dict(entries) for entries in provided]

    def forget() -> None:
        for entries, kept in zip(declared, before[0], strict=True):
            entries[:] = kept  # type: ignore[index]
        for mapping, kept_mapping in zip(provided, before[1], strict=True):
            mapping.clear()
            mapping.update(kept_mapping)

    return forget


def _configure(app: Covet, made: Build) -> None:
    """Give each plugin and storage its settings, then let the plugins set themselves up."""
    settings, manager = made.settings, made.plugins
    manager.configure(settings)
    manager.require_usable()
    settings.finish(
        [name for name, record in manager.records.items() if record.usable],
        [name for name, record in manager.records.items() if not record.usable],
    )
    made.hooks = CompiledHooks(manager)
    providers = [(scheme, KERNEL, function) for scheme, function in BUILTIN_PROVIDERS.items()]
    for c in manager.call("covet_secret_providers"):
        providers += [(scheme, c.plugin, function) for scheme, function in c.value.items()]
    settled = settle("the secret provider", providers, settings.plugins.prefer)
    settings.resolve_secrets({scheme: function for scheme, (_, function) in settled.items()})
    backends = manager.call("covet_storage_backends")
    made.storage = StorageRegistry.build(
        settings, [(scheme, c.plugin, backend) for c in backends for scheme, backend in c.value.items()]
    )
    made.backends = Backends.build(
        app,
        {
            section: [(name, c.plugin, backend) for c in manager.call(hook) for name, backend in c.value.items()]
            for section, hook in HOOKS.items()
        },
    )
    manager.call("covet_setup", app=app)


def _compose(app: Covet, made: Build) -> None:
    """Collect what the application and the plugins contribute, check it, and freeze it."""
    manager, prefer = made.plugins, made.settings.plugins.prefer
    made.renderer = Renderer(
        _settled("the encoder of", made, "covet_encoders", {}, name=lambda type_: type_.__qualname__)
    )
    made.providers = _settled("the dependency type", made, "covet_dependencies", app._providers, app=app)
    handlers = _settled("the exception handler of", made, "covet_exception_handlers", app._error_handlers, app=app)
    headers = [_header(c.plugin, header) for c in manager.call("covet_response_headers", app=app) for header in c.value]
    transforms = [
        _transform(c.plugin, each) for c in manager.call("covet_response_transforms", app=app) for each in c.value
    ]
    awaitable = {error: _awaitable(handler) for error, handler in handlers.items()}
    made.answers = Answers(app, headers, awaitable, transforms)

    layers = list(app._layers)
    for c in manager.call("covet_middleware", app=app):
        for layer in c.value:
            if not isinstance(layer, Middleware | ASGIMiddleware):
                raise PluginError(f"plugin {c.plugin!r}: covet_middleware returned {layer!r}, which is no middleware")
            layer.owner = c.plugin
            layers.append(layer)
    ordered = in_order(layers)
    while ordered and isinstance(ordered[0], ASGIMiddleware):
        made.outer.append(ordered.pop(0))  # type: ignore[arg-type]
    made.pipeline = Pipeline(app, ordered)
    made.routes = _routes(app, made, prefer)
    for route in made.routes:
        made.names.setdefault(route.name, route)


def _transform(plugin: str, transform: Any) -> ResponseTransform:
    if not isinstance(transform, ResponseTransform):
        raise PluginError(f"plugin {plugin!r}: covet_response_transforms returned {transform!r}, which is no transform")
    return transform


def _guards(app: Covet, made: Build, route: Route) -> tuple[Callable[[Request], Any], ...]:
    """What may refuse a request of a route, in plugin order."""
    found: list[Callable[[Request], Any]] = []
    for c in made.plugins.call("covet_route_guards", app=app, route=route):
        for guard in c.value:
            if not callable(guard):
                raise PluginError(
                    f"plugin {c.plugin!r}: covet_route_guards returned {guard!r}, and a function of the request was "
                    "expected"
                )
            found.append(guard)
    return tuple(found)


def _header(plugin: str, header: Any) -> tuple[bytes, bytes]:
    """A constant response header that a plugin contributes, as it is sent."""
    match header:
        case (str(name), str(value)) if TOKEN.fullmatch(name) and not UNSENDABLE.search(value):
            return name.lower().encode("ascii"), value.encode("latin-1")
    raise PluginError(
        f"plugin {plugin!r}: covet_response_headers returned {header!r}, and a name and a value of one line of Latin-1 "
        "text were expected"
    )


def _settled(
    what: str, made: Build, hook: str, own: Mapping[Any, Any], *, name: Callable[[Any], str] = repr, **arguments: Any
) -> dict[Any, Any]:
    """A mapping that plugins contribute to through `hook`, beside the application's own; collisions settled."""
    claims = [(key, APPLICATION, value) for key, value in own.items()]
    for c in made.plugins.call(hook, **arguments):
        claims += [(key, c.plugin, value) for key, value in c.value.items()]
    settled = settle(what, claims, made.settings.plugins.prefer, name)
    return {key: value for key, (_, value) in settled.items()}


def _awaitable(function: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    if is_coroutine(function):
        return function

    async def call(*args: Any) -> Any:
        return function(*args)

    return call


def _routes(app: Covet, made: Build, prefer: list[str]) -> tuple[Entry, ...]:
    """All routes, with their templates parsed by the application's converters, collisions settled."""
    entries = app._router.resolve()
    for c in made.plugins.call("covet_routes", app=app):
        found = Router()
        for entry in c.value:
            if not isinstance(entry, Route | WebSocketRoute | Mount | Router):
                raise PluginError(f"plugin {c.plugin!r}: covet_routes returned {entry!r}, which is no route")
            found.add(entry)
        for route in found.resolve():
            route.owner = c.plugin
            entries.append(route)
    for entry in entries:
        if not isinstance(entry, Mount):
            entry.template = Template(entry.path, app.converters)
    claims: list[Any] = []
    for entry in entries:
        if isinstance(entry, Mount):
            claims.append((("MOUNT", entry.path), entry.owner, entry))
        else:
            shape = entry.template.shape()
            claims += [((method, shape), entry.owner, entry) for method in (entry.methods or ("WEBSOCKET",))]
    return _without_losers(entries, claims, prefer)


def _without_losers(entries: list[Entry], claims: list[Any], prefer: list[str]) -> tuple[Entry, ...]:
    """Drop the routes that another owner's route beats by the settings."""
    by_key: dict[Any, list[tuple[str, Entry]]] = {}
    for key, owner, entry in claims:
        by_key.setdefault(key, []).append((owner, entry))
    losers: set[int] = set()
    for (method, _), claimants in by_key.items():
        if len({owner for owner, _ in claimants}) > 1:
            path = claimants[0][1].path
            key = f"{method} {path}"
            winner, _ = settle("the route", [(key, owner, entry) for owner, entry in claimants], prefer)[key]
            losers |= {id(entry) for owner, entry in claimants if owner != winner}
        elif len(claimants) > 1:
            first, second = claimants[:2]
            raise RouteError(f"{second[1]!r} can never be reached: {first[1]!r} answers the same paths")
    return tuple(entry for entry in entries if id(entry) not in losers)


def compile_routes(app: Covet, made: Build) -> None:
    """Make the endpoint of every route and the tables that find them; again when dependencies are overridden."""
    constants = {type(app): app, type(made.settings): made.settings, **made.settings.instances}
    tables: dict[str, RouteTable[Any]] = {ANY: RouteTable()}
    websockets: RouteTable[Any] = RouteTable()
    declared = {method for route in made.routes if isinstance(route, Route) for method in route.methods}
    for method in declared | {"GET", "HEAD", "POST"}:
        tables[method] = RouteTable()
    own_heads = {r.template.shape() for r in made.routes if isinstance(r, Route) and "HEAD" in r.methods}
    for route in made.routes:
        if isinstance(route, Mount):
            continue
        route.plan = plan = analyse(route, made.providers, constants, app._overrides)
        if isinstance(route, WebSocketRoute):
            websockets.add(route.template, websocket_endpoint(app, route, plan))
            continue
        if not made.tables:
            # With its plan, which tells a plugin what the route takes; and once, whatever is overridden later.
            route.guards = (*_guards(app, made, route), *route.guards)
            route.transforms = tuple(each for each in made.answers.transforms if each.is_for(route))
        direct = made.pipeline.direct and not route.middleware and not any(s.scope == "request" for s in plan.steps)
        for method in route.methods:
            tables[method].add(route.template, _endpoint(app, made, route, direct))
        if "GET" in route.methods and route.template.shape() not in own_heads:
            tables["HEAD"].add(route.template, _endpoint(app, made, route, direct, head=True))
    for mount in made.routes:
        if isinstance(mount, Mount):
            _mount(app, made, mount, tables, websockets)
    for table in (*tables.values(), websockets):
        table.freeze()
    made.tables, made.websockets = tables, websockets
    made.missed = _missed(made)
    entry: Callable[[Any, Any, Any], Awaitable[None]] = made.dispatch
    for layer in reversed(made.outer):
        entry = layer.factory(entry, **layer.options)
    made.entry = entry
    if made.pipeline.asgi:
        from covet.bridging import chained

        made.websocket_entry = chained(made.pipeline.asgi.values(), made.dispatch_websocket)
    app._tables = {} if made.outer else {method: table for method, table in tables.items() if method != ANY}
    app._max_path = made.settings.limits.max_target_bytes
    app._max_headers = made.settings.limits.max_headers


def _endpoint(app: Covet, made: Build, route: Route, direct: bool, *, head: bool = False) -> Any:
    assert route.plan is not None
    if direct:
        return compile_endpoint(app, route, route.plan, head=head)
    call = compile_caller(app, route, route.plan, render=True)
    return made.pipeline.endpoint(route, call, route.middleware)


def _missed(made: Build) -> Any:
    async def call(request: Request) -> Response:
        return made.miss(request)

    return made.pipeline.endpoint(None, call)


def _mount(
    app: Covet, made: Build, mount: Mount, tables: dict[str, RouteTable[Any]], websockets: RouteTable[Any]
) -> None:
    """Let a mounted application answer everything below its path, whatever the method."""

    def child_scope(scope: Any) -> Any:
        child = {**scope, "root_path": scope.get("root_path", "") + mount.path}
        if mount.path in app.mount_states:
            child["state"] = {**scope.get("state", {}), **app.mount_states[mount.path]}
        return child

    async def pass_on(scope: Any, receive: Any, send: Any, values: tuple[Any, ...]) -> None:
        if made.answers.headers and scope["type"] == "http":
            send = _with_headers(send, made.answers.headers)
        await mount.app(child_scope(scope), receive, send)

    endpoint: Any = pass_on
    if not made.pipeline.empty:
        from covet.bridging import mounted

        endpoint = made.pipeline.endpoint(None, mounted(mount.app, child_scope), bridge=True)
    for path in {mount.path or "/", mount.path + "/", mount.path + "/{path:path}"}:
        for table in tables.values():
            table.add_fallback(Template(path), endpoint)
        websockets.add_fallback(Template(path), pass_on)


def _with_headers(send: Any, constant: Sequence[tuple[bytes, bytes]]) -> Any:
    """A send that adds the constant headers which a mounted application does not set itself."""

    async def send_with_headers(message: Any) -> None:
        if message["type"] == "http.response.start":
            own = [(bytes(name), bytes(value)) for name, value in message.get("headers", ())]
            names = {name.lower() for name, _ in own}
            message = {**message, "headers": [*own, *(pair for pair in constant if pair[0] not in names)]}
        await send(message)

    return send_with_headers
