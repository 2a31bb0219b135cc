"""What a handler's signature asks for, decided when the application is built.

Without a marker (`covet.parameters`) a parameter is, in this order: a part of the path when the route's template names
it; what the kernel or a plugin provides for its type; an upload for `UploadFile`; a member of the query for a simple
type or a list of one; the request body for a Struct, dataclass, TypedDict, attrs class, pydantic model, dict or list of
these. Anything else is an error that names handler, parameter and reason.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from covet.annotations import (
    call_kind,
    element_of,
    has_fields,
    is_constrained,
    is_coroutine,
    is_filled,
    is_pydantic,
    is_simple,
    is_structured,
    marker_of,
    plain,
    type_name,
    unknown_type,
    without_none,
)
from covet.connections import Connection
from covet.exceptions import HandlerError
from covet.parameters import Body, Cookie, Depends, File, Form, Header, Path, Query, Scope, Source
from covet.routing import Route, WebSocketRoute, handler_name

__all__ = ["Argument", "BodyPlan", "Parameter", "Plan", "Step", "analyse", "requested_by"]

SourceName = Literal["path", "query", "header", "cookie", "form", "file", "body"]
SOURCES: dict[type[Source], SourceName] = {
    Path: "path", Query: "query", Header: "header", Cookie: "cookie", Form: "form", File: "file", Body: "body",
}  # fmt: skip
NO_BODY = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "DELETE"})
REQUIRED: Any = ...


@dataclass(slots=True)
class Parameter:
    """A part of the request that a handler or one of its dependencies takes.

    Attributes:
        name: the parameter's name in the signature.
        source: the part of the request it comes from.
        alias: its name there.
        type: its annotation without the marker; `Annotated` constraints are kept.
        required: whether the request must have it.
        default: its value when the request does not.
        multiple: whether it takes every occurrence, as a list.
        whole: whether it takes all members of its source at once, as the fields of a class.
        converted: whether the route's converter has already made it a value.
    """

    name: str
    source: SourceName
    alias: str
    type: Any
    required: bool
    default: Any
    description: str = ""
    examples: tuple[Any, ...] = ()
    multiple: bool = False
    whole: bool = False
    converted: bool = False


@dataclass(slots=True)
class BodyPlan:
    """The request body that a handler takes: JSON decoded to `type`, or the bytes themselves."""

    type: Any
    required: bool
    media_type: str = "application/json"
    default: Any = None
    examples: tuple[Any, ...] = ()
    description: str = ""


@dataclass(slots=True)
class Argument:
    """One argument of a call: its name, whether it must be passed by keyword, and where its value comes from.

    `kind` is `parameter` (with its index in the plan), `step` (with its index), `body`, `connection` or `constant`.
    """

    name: str
    keyword: bool
    kind: Literal["parameter", "step", "body", "connection", "constant"]
    index: int = 0
    value: Any = None


@dataclass(slots=True)
class Step:
    """A dependency, resolved before the handler is called."""

    provider: Callable[..., Any]
    call: Literal["function", "coroutine", "generator", "async generator", "class"]
    scope: Scope
    thread: bool
    arguments: list[Argument]


@dataclass(slots=True)
class Plan:
    """All that a handler's signature asks for, in the order in which it is resolved."""

    handler: Callable[..., Any]
    is_async: bool
    arguments: list[Argument] = field(default_factory=list)
    parameters: list[Parameter] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    body: BodyPlan | None = None
    returns: Any = inspect.Parameter.empty

    @property
    def form(self) -> bool:
        """Whether any parameter comes from a form."""
        return any(parameter.source in ("form", "file") for parameter in self.parameters)


Providers = Mapping[Any, Callable[..., Any] | Depends]


def analyse(
    route: Route | WebSocketRoute, providers: Providers, constants: Mapping[Any, Any], overrides: Mapping[Any, Any]
) -> Plan:
    """The plan of a route's handler.

    Args:
        route: the route; its template says which parameters are parts of the path.
        providers: what a handler may ask for by type.
        constants: values that a handler may ask for by type, such as the application.
        overrides: what stands in for a provider, in tests.

    Raises:
        HandlerError: the signature asks for something that it cannot be given.
    """
    return _Analysis(route, providers, constants, overrides).plan()


class _Analysis:
    def __init__(
        self,
        route: Route | WebSocketRoute,
        providers: Providers,
        constants: Mapping[Any, Any],
        overrides: Mapping[Any, Any],
    ) -> None:
        from covet.requests import Request
        from covet.websockets import WebSocket

        self.route = route
        self.providers = providers
        self.constants = constants
        self.overrides = overrides
        self.connection = WebSocket if isinstance(route, WebSocketRoute) else Request
        self.foreign = Request if isinstance(route, WebSocketRoute) else WebSocket
        self.result = Plan(route.handler, is_coroutine(route.handler))
        self.steps: dict[Any, int] = {}
        self.body_of: str | None = None

    def plan(self) -> Plan:
        plan = self.result
        plan.arguments, plan.returns = self.arguments(self.route.handler, ())
        used = {parameter.alias for parameter in plan.parameters if parameter.source == "path"}
        unused = [name for name in self.route.param_names if name not in used]
        lists = [plan.arguments, *(step.arguments for step in plan.steps)]
        takes_request = any(argument.kind == "connection" for arguments in lists for argument in arguments)
        if unused and not takes_request:
            raise HandlerError(
                f"{self.where(self.route.handler)}: the path's parameter {unused[0]!r} is not taken by any parameter; "
                f"add `{unused[0]}` to the signature, or take the request and read `request.path_params`"
            )
        if plan.form and plan.body is not None:
            raise HandlerError(
                f"{self.where(self.route.handler)}: it takes both a form and a body ({self.body_of!r}), "
                "and a request has one"
            )
        return plan

    def where(self, function: Callable[..., Any], name: str | None = None) -> str:
        text = f"handler {handler_name(self.route.handler)!r} of {self.route.path!r}"
        if function is not self.route.handler:
            text += f", dependency {handler_name(function)!r}"
        return text + (f", parameter {name!r}" if name else "")

    def arguments(self, function: Callable[..., Any], above: tuple[Any, ...]) -> tuple[list[Argument], Any]:
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError) as error:
            raise HandlerError(f"{self.where(function)}: it has no signature to read: {error}") from error
        hints = self.hints(function)
        arguments = []
        for name, parameter in signature.parameters.items():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise HandlerError(
                    f"{self.where(function, name)}: `*{name}` cannot be filled from a request; "
                    "name the parameters, or take the request"
                )
            argument = self.argument(function, parameter, hints.get(name, parameter.annotation), above)
            argument.keyword = parameter.kind is parameter.KEYWORD_ONLY
            arguments.append(argument)
        return arguments, hints.get("return", inspect.Parameter.empty)

    def hints(self, function: Callable[..., Any]) -> dict[str, Any]:
        target: Any = function
        while hasattr(target, "func"):  # functools.partial
            target = target.func
        if inspect.isclass(target):
            target = target if has_fields(target) else target.__init__
        elif not inspect.isroutine(target):
            target = type(target).__call__
        target = inspect.unwrap(target)
        cells = getattr(target, "__closure__", None) or ()
        names = getattr(getattr(target, "__code__", None), "co_freevars", ())
        closure = {name: cell.cell_contents for name, cell in zip(names, cells, strict=False) if is_filled(cell)}
        try:
            return typing.get_type_hints(target, localns={**self.route.namespace, **closure}, include_extras=True)
        except NameError as error:
            raise HandlerError(
                f"{self.where(function)}: the annotation {error.name!r} cannot be resolved; import it at module level, "
                "outside `if TYPE_CHECKING:`, since the signature decides what the handler is given"
            ) from error
        except Exception as error:
            raise HandlerError(f"{self.where(function)}: its annotations cannot be read: {error}") from error

    def argument(
        self, function: Callable[..., Any], parameter: inspect.Parameter, annotation: Any, above: tuple[Any, ...]
    ) -> Argument:
        name = parameter.name
        default = REQUIRED if parameter.default is parameter.empty else parameter.default
        annotation = Any if annotation is parameter.empty else annotation
        annotation, marker = marker_of(annotation)
        if isinstance(default, Source | Depends):
            marker = default
            default = getattr(default, "default", REQUIRED)
        elif isinstance(marker, Source) and default is REQUIRED:
            default = marker.default
        bare = without_none(plain(annotation))

        if isinstance(marker, Depends):
            return Argument(name, False, "step", self.step(marker, function, name, above))
        if marker is None:
            found = self.provided(function, name, bare, above)
            if found is not None:
                return found
        source = self.source(function, name, bare, marker, parameter)
        if source == "body":
            return self.body(function, name, annotation, default, marker)
        return self.parameter(function, name, annotation, default, marker, source)

    def provided(self, function: Callable[..., Any], name: str, bare: Any, above: tuple[Any, ...]) -> Argument | None:
        """What the kernel or a plugin gives for a type."""
        if name in self.route.param_names and function is self.route.handler:
            return None
        if bare is self.connection or bare is Connection:
            return Argument(name, False, "connection")
        if bare is self.foreign:
            raise HandlerError(
                f"{self.where(function, name)}: this route serves a {self.connection.__name__}, "
                f"so there is no {bare.__name__}"
            )
        try:
            provider = self.providers.get(bare)
            if provider is not None:
                depends = provider if isinstance(provider, Depends) else Depends(provider)
                if bare in self.overrides:
                    depends = replace(depends, provider=self.overrides[bare])
                return Argument(name, False, "step", self.step(depends, function, name, above))
            if bare in self.constants:
                return Argument(name, False, "constant", value=self.constants[bare])
        except TypeError:  # an annotation that cannot be a dictionary key is no type that anyone provides
            return None
        return None

    def step(self, depends: Depends, function: Callable[..., Any], name: str, above: tuple[Any, ...]) -> int:
        provider = self.overrides.get(depends.provider, depends.provider)
        if not callable(provider):
            raise HandlerError(f"{self.where(function, name)}: the provider {provider!r} cannot be called")
        if provider in above:
            cycle = " -> ".join(handler_name(p) for p in (*above[above.index(provider) :], provider))
            raise HandlerError(f"{self.where(function, name)}: the dependencies form a cycle: {cycle}")
        key = (provider, depends.scope)
        if depends.cache and key in self.steps:
            return self.steps[key]
        before = len(self.result.parameters)
        arguments, _ = self.arguments(provider, (*above, provider))
        made = Step(provider, call_kind(provider), depends.scope, depends.thread, arguments)
        self.check_scope(made, function, name, taken=len(self.result.parameters) > before)
        self.result.steps.append(made)
        self.steps[key] = len(self.result.steps) - 1
        return self.steps[key]

    def check_scope(self, step: Step, function: Callable[..., Any], name: str, *, taken: bool) -> None:
        """A dependency may only use what lives at least as long as itself."""
        lives = {"function": 0, "request": 1, "app": 2}
        for argument in step.arguments:
            if argument.kind == "step":
                used = self.result.steps[argument.index]
                if lives[used.scope] < lives[step.scope]:
                    raise HandlerError(
                        f"{self.where(function, name)}: {handler_name(step.provider)!r} has scope {step.scope!r} and "
                        f"uses {handler_name(used.provider)!r} of scope {used.scope!r}, which is cleaned up before it"
                    )
            elif step.scope == "app" and argument.kind in ("connection", "body", "parameter"):
                raise HandlerError(
                    f"{self.where(function, name)}: {handler_name(step.provider)!r} has scope 'app', so its parameter "
                    f"{argument.name!r} cannot come from a request"
                )

    def source(
        self, function: Callable[..., Any], name: str, bare: Any, marker: Source | None, parameter: inspect.Parameter
    ) -> SourceName:
        from covet.forms import UploadFile

        if marker is not None:
            return SOURCES[type(marker)]
        if name in self.route.param_names:
            return "path"
        if parameter.annotation is parameter.empty:
            raise HandlerError(
                f"{self.where(function, name)}: it has no annotation and the path names no such parameter; "
                f"annotate it (`{name}: str` takes it from the query), or add `{{{name}}}` to the path"
            )
        if bare is UploadFile or element_of(bare) is UploadFile:
            return "file"
        if is_simple(bare) or is_simple(element_of(bare)):
            return "query"
        if is_structured(bare):
            if isinstance(self.route, WebSocketRoute) or not self.route.methods - NO_BODY:
                what = "a WebSocket handshake" if isinstance(self.route, WebSocketRoute) else "this request"
                raise HandlerError(
                    f"{self.where(function, name)}: {type_name(bare)} would be read from the body, which {what} does "
                    f"not have; write `Annotated[{type_name(bare)}, Query()]` to read it from the query"
                )
            return "body"
        raise HandlerError(
            f"{self.where(function, name)}: nothing provides {type_name(bare)}; register it with "
            "`app.provide(...)`, install the plugin that brings it, or mark it with `Annotated[..., Depends(...)]`"
        )

    def body(
        self, function: Callable[..., Any], name: str, annotation: Any, default: Any, marker: Source | None
    ) -> Argument:
        if isinstance(self.route, WebSocketRoute):
            raise HandlerError(f"{self.where(function, name)}: a WebSocket handshake has no body")
        if self.body_of not in (None, name):
            raise HandlerError(
                f"{self.where(function, name)}: the body is already taken by {self.body_of!r}; "
                "put both into one class with two fields"
            )
        self.body_of = name
        bare = without_none(plain(annotation))
        self.check_decodable(function, name, annotation)
        self.result.body = BodyPlan(
            annotation,
            default is REQUIRED,
            "application/octet-stream" if bare is bytes else "application/json",
            None if default is REQUIRED else default,
            marker.examples if marker else (),
            marker.description if marker else "",
        )
        return Argument(name, False, "body")

    def parameter(
        self,
        function: Callable[..., Any],
        name: str,
        annotation: Any,
        default: Any,
        marker: Source | None,
        source: SourceName,
    ) -> Argument:
        alias = (marker.alias if marker else None) or (name.replace("_", "-") if source == "header" else name)
        if source == "header" and "_" in alias:
            raise HandlerError(
                f"{self.where(function, name)}: headers whose name has an underscore are dropped, since gateways take "
                f"{alias!r} and {alias.replace('_', '-')!r} for the same; name it {alias.replace('_', '-')!r}"
            )
        bare = without_none(plain(annotation))
        converted = False
        if source == "path":
            if alias not in self.route.param_names:
                raise HandlerError(f"{self.where(function, name)}: the path {self.route.path!r} has no `{{{alias}}}`")
            converter = self.route.template.converters[self.route.param_names.index(alias)]
            kind = self.route.template.converter_names[self.route.param_names.index(alias)]
            converted = kind != "str" or bare in (str, Any)
            if converted and bare not in (Any, converter.type) and converter.type is not str:
                raise HandlerError(
                    f"{self.where(function, name)}: the converter `{kind}` gives {type_name(converter.type)}, "
                    f"the annotation says {type_name(bare)}"
                )
            converted = converted and not is_constrained(annotation)
            default = REQUIRED
        # A union of simple types is as structured as it is simple: then it is one piece of text.
        structured = is_structured(bare) and not is_simple(bare) and not element_of(bare)
        whole = structured and source in ("query", "form", "header", "cookie")
        multiple = not whole and element_of(bare) is not None and source not in ("path", "cookie")
        if source != "file" and not converted:
            self.check_decodable(function, name, annotation)
        made = Parameter(
            name, source, alias, annotation, default is REQUIRED, None if default is REQUIRED else default,
            marker.description if marker else "", marker.examples if marker else (), multiple, whole, converted,
        )  # fmt: skip
        for index, other in enumerate(self.result.parameters):
            if other == made:
                return Argument(name, False, "parameter", index)
        self.result.parameters.append(made)
        return Argument(name, False, "parameter", len(self.result.parameters) - 1)

    def check_decodable(self, function: Callable[..., Any], name: str, annotation: Any) -> None:
        import msgspec

        if is_pydantic(without_none(plain(annotation))):
            return
        try:
            unknown = unknown_type(msgspec.inspect.type_info(annotation), set())
        except TypeError as error:
            raise HandlerError(f"{self.where(function, name)}: its type cannot be decoded: {error}") from error
        if unknown is not None:
            raise HandlerError(
                f"{self.where(function, name)}: its type cannot be decoded: {type_name(unknown)} is unknown"
            )


def requested_by(plan: Plan) -> Iterator[Callable[..., Any]]:
    """The handler and every provider of a plan."""
    yield plan.handler
    for step in plan.steps:
        yield step.provider
