"""From a plan to the function that serves a route.

The function is written out as source and compiled, once, when the application is built: what the signature asks for
becomes straight-line code, and what it does not ask for leaves no trace. `covet routes --source` prints it, and
tracebacks show its lines.

For `async def show(id: int, db: Db) -> User` of `/users/{id:int}` it reads, shortened:

    async def serve(scope, receive, send, values):
        request = Request(scope, receive, app, route, values)
        token = enter_context(request)
        try:
            try:
                step0 = await provider0()
                result = await handler(values[0], step0)
                ... encode the result
            except Exception as error:
                response = await recover(request, error)
            await send(...)
        finally:
            leave_context(token)
"""

from __future__ import annotations

import linecache
import logging
from collections.abc import Awaitable, Callable
from textwrap import indent
from typing import TYPE_CHECKING, Any

from covet.annotations import is_coroutine
from covet.binding import make_reader, read
from covet.bodies import body_lines
from covet.concurrency import in_thread
from covet.context import running
from covet.dependencies import ThreadGenerator, enter, leave
from covet.exceptions import ClientDisconnected
from covet.requests import Request, start_body
from covet.responses import Response
from covet.signatures import Argument, Plan, Step

if TYPE_CHECKING:
    from covet.applications import Covet
    from covet.routing import Route, WebSocketRoute

__all__ = ["Endpoint", "compile_caller", "compile_endpoint", "websocket_endpoint"]

logger = logging.getLogger("covet.request")

Endpoint = Callable[[Any, Any, Any, tuple[Any, ...]], Awaitable[None]]
"""Serves one request of a route: `(scope, receive, send, values)`, the values being those of the path's parameters."""

LENGTHS = tuple((b"content-length", b"%d" % length) for length in range(512))

SERVE = """
async def serve(scope, receive, send, values):
    request = Request(scope, receive, app, route, values)
    token = enter_context(request)
    body = response = None
    try:
        try:
{answer}
        except Exception as error:
            body = None
            response = await recover(request, error)
        if body is not None:
            size = len(body)
            if {special}:
                response = trusted(body, {success}, *headers)
                body = None
        if body is None:
            await deliver(response, request, send)
        else:
            await send({{
                "type": "http.response.start",
                "status": {success},
                "headers": [*headers, {vary}lengths[size] if size < 512 else (b"content-length", b"%d" % size)],
            }})
            await send({{"type": "http.response.body", "body": {content}}})
    except (OSError, ClientDisconnected) as error:
        client_left(request, error)
    finally:
        if request.tasks and (body is not None or response is not None):
            start_tasks(request)
        leave_context(token)
"""

ANSWER = """
{call}
kind = result.__class__
if kind is str:
    body = result.encode()
    headers = text_headers
elif kind in json_types:
    body = encode(result)
    headers = json_headers
else:
    response = render(result, {status})
"""

# With plugins that look at every request as it starts.
STARTED = """
response = await started(request)
if response is None:
{answer}
"""

RESPOND = """
async def respond(request):
    values = request.values
{call}
    return render(result, {status})
"""

CALL = """
async def call(request):
    values = request.values
{call}
    return result
"""


def compile_endpoint(app: Covet, route: Route, plan: Plan, *, head: bool = False) -> Endpoint:
    """The function that serves a route around which there is nothing but, perhaps, `covet_request_started`.

    With `head` it answers HEAD: the same headers, without the body.
    """
    text_headers = [(b"content-type", b"text/plain; charset=utf-8"), *app.response_headers]
    json_headers = [(b"content-type", b"application/json"), *app.response_headers]
    names = {
        "Request": Request, "app": app, "route": route, "enter_context": running.set, "leave_context": running.reset,
        "json_types": app.renderer.json_types, "encode": app.renderer.encode, "render": app.renderer,
        "json_headers": json_headers, "text_headers": text_headers, "lengths": LENGTHS,
        "recover": app.answers.recover, "deliver": app.answers.deliver, "start_tasks": app.start_tasks,
        "client_left": client_left, "ClientDisconnected": ClientDisconnected, "trusted": Response.trusted,
    }  # fmt: skip
    answer = ANSWER.format(call="\n".join(_Call(app, route, plan, names).lines()), status=route.status)
    if app.hooks.request_started is not None:
        names["started"] = app.hooks.request_started
        answer = STARTED.format(answer=indent(answer.strip("\n"), "    "))
    special, vary = "request.finishers", ""
    for number, transform in enumerate(route.transforms):
        names[f"transformed{number}"] = transform.concerns
        special += f" or (size >= {transform.min_bytes} and transformed{number}(scope))"
        if transform.vary:
            names[f"vary{number}"] = transform.vary
            vary += f"*(vary{number} if size >= {transform.min_bytes} else ()), "
    source = SERVE.format(
        answer=indent(answer.strip("\n"), "    " * 3),
        special=special,
        vary=vary,
        success=route.status or 200,
        content='b""' if head else "body",
    )
    endpoint: Endpoint = _compiled(source, "serve", route, names)
    return endpoint


def compile_caller(
    app: Covet, route: Route | WebSocketRoute, plan: Plan, *, render: bool
) -> Callable[[Any], Awaitable[Any]]:
    """A function from a request to the handler's response (`render`), or to what the handler returned."""
    names = {"app": app, "render": app.renderer}
    call = "\n".join("    " + line for line in _Call(app, route, plan, names).lines())
    source = RESPOND.format(call=call, status=getattr(route, "status", None)) if render else CALL.format(call=call)
    caller: Callable[[Any], Awaitable[Any]] = _compiled(source, "respond" if render else "call", route, names)
    return caller


def _compiled(source: str, name: str, route: Route | WebSocketRoute, names: dict[str, Any]) -> Any:
    methods = ",".join(sorted(route.methods)) or "WEBSOCKET"
    filename = f"<{name} {methods} {route.path}>"
    exec(compile(source, filename, "exec"), names)
    # No modification time: linecache then keeps the lines, and tracebacks show them.
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    function = names[name]
    function.source = source
    return function


class _Call:
    """The lines that lead from `request` and `values` to `result`, and the objects they name."""

    def __init__(self, app: Covet, route: Route | WebSocketRoute, plan: Plan, names: dict[str, Any]) -> None:
        self.app = app
        self.path_names = route.param_names
        self.limit = (route.limits or app.settings.limits).max_body
        self.guards = getattr(route, "guards", ())
        self.plan = plan
        self.names = names
        self.out: list[str] = []
        self.loaded: set[str] = set()
        self.readers: dict[int, str] = {}
        self.generators = {step.scope for step in plan.steps if step.call.endswith("generator")}

    def lines(self) -> list[str]:
        self.read_parameters(form=False)
        body: list[str] = []
        before, self.out = self.out, body
        for index, step in enumerate(self.plan.steps):
            self.resolve(index, step)
        self.call("result", self.plan.handler, "handler", self.plan.arguments, threaded=not self.plan.is_async)
        self.out = before
        self.names["leave"] = leave
        if "function" in self.generators:
            body = [
                "exits = []",
                "try:",
                *("    " + line for line in body),
                "except BaseException as error:",
                "    await leave(exits, error)",
                "else:",
                "    await leave(exits)",
            ]
        if "request" in self.generators:
            # Only a response that is being sent needs them longer, and here is none. Whoever makes one of the error
            # does not tell it to them.
            body = [
                "try:",
                *("    " + line for line in body),
                "except BaseException as error:",
                "    await leave(request.cleanups, error)",
            ]
        return self.guarded([*before, *body])

    def guarded(self, lines: list[str]) -> list[str]:
        """`lines` behind the route's guards, each of which may give the result in their place."""
        for number, guard in reversed(list(enumerate(self.guards))):
            name = f"guard{number}"
            self.names[name] = guard
            asked = f"await {name}(request)" if is_coroutine(guard) else f"{name}(request)"
            lines = [f"result = {asked}", "if result is None:", *("    " + line for line in lines)]
        return lines

    def read_parameters(self, *, form: bool) -> None:
        """Read all parameters of the form, or all others, at once, so that their faults are reported together."""
        found = [
            (index, parameter)
            for index, parameter in enumerate(self.plan.parameters)
            if (parameter.source in ("form", "file")) is form
            and not (parameter.source == "path" and parameter.converted)
        ]
        if not found:
            return
        variable = "fields" if form else "found"
        self.names[f"{variable}_readers"] = tuple(make_reader(parameter, self.path_names) for _, parameter in found)
        self.names["read"] = read
        if form:
            self.out.append("form = await request.form()")
        self.out.append(f"{variable} = read({variable}_readers, request{', form' if form else ''})")
        self.readers.update({index: f"{variable}[{position}]" for position, (index, _) in enumerate(found)})

    def resolve(self, index: int, step: Step) -> None:
        """Make the value of a dependency."""
        name, provider = f"step{index}", f"provider{index}"
        if step.scope == "app":
            self.names["app_values"] = self.app.app_values
            self.names[provider] = step.provider
            self.out.append(f"{name} = app_values[{provider}]")
        elif step.call.endswith("generator"):
            exits = "exits" if step.scope == "function" else "request.cleanups"
            self.names[provider] = step.provider
            self.names["enter"] = enter
            made = f"{provider}({self.pass_arguments(step.arguments)})"
            if step.call == "generator":
                self.names["ThreadGenerator"] = ThreadGenerator
                made = f"ThreadGenerator({made})"
            self.out.append(f"{name} = await enter({exits}, {made})")
        else:
            threaded = step.call == "function" and step.thread
            self.call(name, step.provider, provider, step.arguments, threaded=threaded, plain=step.call != "coroutine")

    def call(
        self,
        target: str,
        function: Callable[..., Any],
        name: str,
        arguments: list[Argument],
        *,
        threaded: bool,
        plain: bool = False,
    ) -> None:
        self.names[name] = function
        passed = self.pass_arguments(arguments)
        if threaded:
            self.names["in_thread"] = in_thread
            self.out.append(f"{target} = await in_thread({name}{', ' if passed else ''}{passed})")
        elif plain:
            self.out.append(f"{target} = {name}({passed})")
        else:
            self.out.append(f"{target} = await {name}({passed})")

    def pass_arguments(self, arguments: list[Argument]) -> str:
        return ", ".join(
            f"{argument.name}={self.value(argument)}" if argument.keyword else self.value(argument)
            for argument in arguments
        )

    def value(self, argument: Argument) -> str:
        """An expression for an argument; what it needs that is not read yet is read first."""
        if argument.kind == "connection":
            return "request"
        if argument.kind == "step":
            return f"step{argument.index}"
        if argument.kind == "constant":
            name = f"constant_{argument.name}_{len(self.names)}"
            self.names[name] = argument.value
            return name
        if argument.kind == "body":
            if "body" not in self.loaded:
                self.loaded.add("body")
                assert self.plan.body is not None
                decoding, names = body_lines(self.plan.body)
                self.names |= {"start_body": start_body, **names}
                self.out += [
                    f"data = start_body(request, {self.limit})",
                    "if data.__class__ is not bytes:",
                    "    data = request._body = await data.read()",
                    *decoding,
                ]
            return "data"
        parameter = self.plan.parameters[argument.index]
        if parameter.source == "path" and parameter.converted:
            return f"values[{self.path_names.index(parameter.alias)}]"
        if parameter.source in ("form", "file") and "form" not in self.loaded:
            self.loaded.add("form")
            self.read_parameters(form=True)
        return self.readers[argument.index]


def websocket_endpoint(app: Covet, route: WebSocketRoute, plan: Plan) -> Endpoint:
    """The function that serves the connections of a WebSocket route."""
    from covet.websocket_serving import serve_websocket
    from covet.websockets import WebSocket

    call = compile_caller(app, route, plan, render=False)

    async def serve(scope: Any, receive: Any, send: Any, values: tuple[Any, ...]) -> None:
        await serve_websocket(WebSocket(scope, receive, send, app, route, values), call)

    return serve


def client_left(request: Request, error: Exception) -> None:
    """Note that a response could not be sent: nothing is wrong with the application."""
    logger.debug("the client left before its response was sent: %s %s (%s)", request.method, request.path, error)


def response_source(endpoint: Any) -> str:
    """The generated source of an endpoint, for people who want to see what runs."""
    source: str = endpoint.source
    return source.strip("\n")
