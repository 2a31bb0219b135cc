"""An operation of the document: what a route takes and what it answers, read from its plan and its declaration."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Annotated, Any

import msgspec

from covet.annotations import is_pydantic, without_none
from covet.applications import Covet
from covet.builtin.openapi.schemas import Schema, Schemas
from covet.exceptions import HTTPError, ValidationError
from covet.routing import Route
from covet.signatures import BodyPlan, Parameter, Plan
from covet.templates import CONVERTERS, Converter

__all__ = ["PROBLEM", "Problem", "ProblemFault", "describe_operation", "problem_responses"]

PROBLEM = "application/problem+json"
"""The media type of RFC 9457."""

JSON = "application/json"
BINARY = {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}
URLENCODED, MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"
# OpenAPI 3.1 section 4.8.12.2.1: parameters of these names are ignored; other parts of the document say it.
IGNORED_HEADERS = frozenset({"accept", "content-type", "authorization"})


class ProblemFault(msgspec.Struct, rename={"location": "in"}):
    """One thing that is wrong with the request."""

    location: Annotated[
        str, msgspec.Meta(description="The part of the request: path, query, header, cookie, form or body.")
    ]
    pointer: Annotated[str, msgspec.Meta(description="Where in that part: a JSON Pointer (RFC 6901).")]
    detail: Annotated[str, msgspec.Meta(description="What is wrong there.")]


class Problem(msgspec.Struct):
    """What went wrong, as problem details (RFC 9457)."""

    type: Annotated[str, msgspec.Meta(description="A URI that names the kind of problem.")]
    title: Annotated[str, msgspec.Meta(description="The kind of problem in words.")]
    status: Annotated[int, msgspec.Meta(description="The status code of the response.")]
    detail: Annotated[str | msgspec.UnsetType, msgspec.Meta(description="What is wrong with this request.")] = (
        msgspec.UNSET
    )
    errors: Annotated[
        list[ProblemFault] | msgspec.UnsetType, msgspec.Meta(description="Every fault of a request that does not fit.")
    ] = msgspec.UNSET


PROBLEMS: Mapping[int, tuple[str, str]] = {
    400: ("Malformed", "The request is malformed."),
    404: ("NotFound", "There is nothing at this path."),
    408: ("TooSlow", "The body did not arrive in time."),
    412: ("PreconditionFailed", "The file has another version than the request is for."),
    413: ("TooLarge", "The body, or a part of it, is too large."),
    415: ("UnsupportedMediaType", "The body is sent as something else than this operation takes."),
    416: ("RangeNotSatisfiable", "The file does not have the part that was asked for."),
    422: ("ValidationFailed", "The request does not fit; `errors` lists every fault."),
}
"""The problems that the kernel answers by itself: status to the name of a component and what it says."""


RESPONSES = "#/components/responses/"


def problem_responses(app: Covet, schemas: Schemas, used: set[str]) -> dict[str, Schema]:
    """The components for those of `PROBLEMS` that are used; what the application answers in its own way stays open.

    Args:
        used: the references within the document.
    """
    made: dict[str, Schema] = {}
    for status, (name, description) in PROBLEMS.items():
        if RESPONSES + name not in used:
            continue
        response: Schema = {"description": description}
        made[name] = response
        error = ValidationError([]) if status == 422 else HTTPError(status)
        if app.answers.handler_of(error) is None:
            response["content"] = _problem_content(schemas)
    return made


def _problem_content(schemas: Schemas) -> Schema:
    return {PROBLEM: {"schema": schemas.of(Problem)}, "text/html": {"schema": {"type": "string"}}}


def describe_operation(app: Covet, route: Route, plan: Plan, schemas: Schemas, names: Mapping[str, str]) -> Schema:
    """The operation of a route.

    Args:
        names: what the path's parameters are called in the document, by what the route calls them.
    """
    operation: Schema = {}
    if route.tags:
        operation["tags"] = list(dict.fromkeys(route.tags))
    if route.summary:
        operation["summary"] = route.summary
    if route.description:
        operation["description"] = route.description
    parameters = [*_path_parameters(route, plan, schemas, names), *_other_parameters(plan, schemas)]
    if parameters:
        operation["parameters"] = parameters
    if plan.body is not None:
        operation["requestBody"] = _json_body(plan.body, schemas)
    elif plan.form:
        operation["requestBody"] = _form_body(plan, schemas)
    found = _Responses(route, plan, schemas)
    responses = found.made()
    for status in (*_problem_statuses(route, plan), *found.problems):
        responses.setdefault(str(status), {"$ref": RESPONSES + PROBLEMS[status][0]})
    operation["responses"] = dict(sorted(responses.items()))
    if route.deprecated:
        operation["deprecated"] = True
    return operation


# Parameters


def _path_parameters(route: Route, plan: Plan, schemas: Schemas, names: Mapping[str, str]) -> Iterator[Schema]:
    taken = {parameter.alias: parameter for parameter in plan.parameters if parameter.source == "path"}
    for name, converter in zip(route.template.names, route.template.converters, strict=True):
        schema = _converter_schema(converter)
        parameter = taken.get(name)
        if parameter is not None:
            own = schemas.of(_text_type(parameter.type))
            if own.get("type") == schema["type"]:
                # The type's own constraints go before the converter's, which they may only narrow.
                schema = {**schema, **own}
            elif own and converter is CONVERTERS["str"]:
                schema = own
        yield _parameter("path", names[name], schema, True, parameter)


def _converter_schema(converter: Converter) -> Schema:
    """What text a converter accepts, as the value that a client thinks of."""
    if converter is CONVERTERS["int"]:
        return {"type": "integer", "minimum": 0}
    if converter is CONVERTERS["float"]:
        return {"type": "number", "minimum": 0}
    if converter is CONVERTERS["uuid"]:
        return {"type": "string", "format": "uuid"}
    if converter is CONVERTERS["date"]:
        return {"type": "string", "format": "date"}
    if converter is CONVERTERS["path"]:
        # Its pattern would let no line break pass, and the converter does.
        return {"type": "string", "minLength": 1}
    pattern = "[^/]+" if converter is CONVERTERS["str"] else f"(?:{converter.pattern})"
    return {"type": "string", "pattern": f"^{pattern}$"}


def _other_parameters(plan: Plan, schemas: Schemas) -> Iterator[Schema]:
    seen: set[tuple[str, str]] = set()
    for parameter in plan.parameters:
        if parameter.source not in ("query", "header", "cookie"):
            continue
        for name, schema, required, owner in _members(parameter, schemas):
            key = (parameter.source, name.lower() if parameter.source == "header" else name)
            ignored = parameter.source == "header" and name.lower() in IGNORED_HEADERS
            if key not in seen and not ignored:
                seen.add(key)
                yield _parameter(parameter.source, name, schema, required, owner)


def _members(parameter: Parameter, schemas: Schemas) -> Iterator[tuple[str, Schema, bool, Parameter | None]]:
    """A parameter by its name in the request, or the fields of a class that takes all of them."""
    if not parameter.whole:
        schema = schemas.of(_text_type(parameter.type)) or {"type": "string"}
        yield parameter.alias, schema, parameter.required, parameter
        return
    properties, required = schemas.members(_text_type(parameter.type))
    for name, schema in properties.items():
        yield name, _without_null(schema), name in required and parameter.required, None


def _parameter(source: str, name: str, schema: Schema, required: bool, parameter: Parameter | None) -> Schema:
    made: Schema = {"name": name, "in": source, "required": required, "schema": schema}
    description = schema.pop("description", "") if "$ref" not in schema else ""
    if parameter is not None:
        description = parameter.description or description
        if parameter.default is not None and not parameter.required:
            schema["default"] = parameter.default
        if parameter.examples:
            made["examples"] = _examples(parameter.examples)
    if description:
        made["description"] = description
    return made


def _examples(values: tuple[Any, ...]) -> Schema:
    return {str(number): {"value": value} for number, value in enumerate(values, 1)}


def _text_type(type_: Any) -> Any:
    """The type without None beside it: text never is None."""
    if typing.get_origin(type_) is Annotated:
        base, *metadata = typing.get_args(type_)
        return Annotated[(without_none(base), *metadata)]
    return without_none(type_)


def _without_null(schema: Schema) -> Schema:
    options: list[Schema] = [option for option in schema.get("anyOf", ()) if option.get("type") != "null"]
    if schema.get("default", ...) is None:
        del schema["default"]
    if len(options) == 1:
        del schema["anyOf"]
        # In place, because references are filled in later: the option itself stays the object that is referred to.
        options[0].update(schema)
        return options[0]
    if options:
        schema["anyOf"] = options
    return schema


# Bodies


def _json_body(body: BodyPlan, schemas: Schemas) -> Schema:
    if body.media_type == JSON:
        bare = typing.get_args(body.type)[0] if typing.get_origin(body.type) is Annotated else body.type
        # A pydantic model is asked itself, and None is no model.
        model = without_none(bare)
        schema = schemas.of(model if is_pydantic(model) else body.type)
    else:
        schema = {**BINARY, **({"minLength": 1} if body.required else {})}
    media: Schema = {"schema": schema}
    if body.examples:
        media["examples"] = _examples(body.examples)
    made: Schema = {"content": {body.media_type: media}, "required": body.required}
    return {"description": body.description, **made} if body.description else made


def _form_body(plan: Plan, schemas: Schemas) -> Schema:
    properties: dict[str, Schema] = {}
    required: list[str] = []
    files = False
    for parameter in plan.parameters:
        if parameter.source == "file":
            files = True
            file = dict(BINARY)
            schema = {"type": "array", "items": file} if parameter.multiple else file
            members: Iterator[Any] = iter([(parameter.alias, schema, parameter.required, parameter)])
        elif parameter.source == "form":
            members = _members(parameter, schemas)
        else:
            continue
        for name, schema, needed, owner in members:
            described = _parameter("form", name, schema, needed, owner)
            if "description" in described:
                schema["description"] = described["description"]
            if "examples" in described:
                schema["examples"] = [example["value"] for example in described["examples"].values()]
            properties[name] = schema
            required += [name] if needed else []
    form: Schema = {"type": "object", "properties": properties}
    if required:
        form["required"] = required
    # A file cannot be sent in the other kind of form.
    kinds = (MULTIPART,) if files else (URLENCODED, MULTIPART)
    return {"content": {kind: {"schema": form} for kind in kinds}, "required": True}


# Responses


def _problem_statuses(route: Route, plan: Plan) -> Iterator[int]:
    """The problems that the kernel answers before the handler is called, as far as this operation can have them."""
    body = plan.body is not None or plan.form
    # The query as a whole may be malformed, and a header that is a list.
    if body or any(p.source == "query" or (p.source == "header" and p.multiple) for p in plan.parameters):
        yield 400
    if route.template.names:
        yield 404
    if body:
        yield from (408, 413)
    if plan.form or (plan.body is not None and plan.body.media_type == JSON):
        yield 415
    if (plan.body is not None and plan.body.media_type == JSON) or any(map(_may_not_fit, plan.parameters)):
        yield 422


def _may_not_fit(parameter: Parameter) -> bool:
    if parameter.source == "path":
        return not parameter.converted
    return parameter.required or _text_type(parameter.type) not in (str, Any)


class _Responses:
    """The responses of a handler, by the annotation of what it returns and by what its route declares."""

    def __init__(self, route: Route, plan: Plan, schemas: Schemas) -> None:
        self.route = route
        self.schemas = schemas
        self.contents: dict[str, dict[str, list[Schema]]] = {}
        self.headers: dict[str, Schema] = {}
        self.problems: tuple[int, ...] = ()
        self.returned(plan.returns, None)

    def made(self) -> dict[str, Schema]:
        """The response objects, by status."""
        found = {status: self.response(status, media) for status, media in self.contents.items()}
        for status, declared in self.route.responses.items():
            found[str(status)] = self.declared(status, declared, found.get(str(status)))
        return found

    def response(self, status: str, media: Mapping[str, list[Schema]]) -> Schema:
        made: Schema = {"description": _phrase(status)}
        if status in self.headers:
            made["headers"] = self.headers[status]
        content = {kind: _media(schemas) for kind, schemas in media.items()}
        return {**made, "content": content} if content else made

    def declared(self, status: int, declared: Any, found: Schema | None) -> Schema:
        """What the route says of a status: a description, a type, or a response object as OpenAPI has it."""
        if isinstance(declared, Mapping):
            return dict(declared)
        if isinstance(declared, str):
            made = {**(found or {}), "description": declared}
            if status >= 400 and found is None:
                made["content"] = _problem_content(self.schemas)
            return made
        self.contents.pop(str(status), None)
        self.returned(declared, status)
        return self.response(str(status), self.contents.get(str(status), {}))

    def add(self, status: int | str | None, kind: str | None, schema: Schema | None) -> None:
        media = self.contents.setdefault(str(status or self.route.status or 200), {})
        if kind is not None:
            media.setdefault(kind, []).append({} if schema is None else schema)

    def returned(self, type_: Any, status: int | str | None) -> None:
        """Note what becomes of a return value of the type."""
        bare = typing.get_args(type_)[0] if typing.get_origin(type_) is Annotated else type_
        origin = typing.get_origin(bare) or bare
        if origin in (typing.Union, types.UnionType):
            for option in typing.get_args(bare):
                self.returned(option, status)
        elif bare is Any or bare is inspect.Parameter.empty:
            self.add(status or self.route.status or "default", None, None)
        elif bare in (None, types.NoneType):
            self.add(status or self.route.status or 204, None, None)
        elif _pair(bare):
            self.returned_pair(typing.get_args(bare))
        elif not isinstance(origin, type):
            self.add(status, JSON, self.schemas.of(type_, "serialization"))
        elif issubclass(origin, str) and not hasattr(origin, "__members__"):
            self.add(status, "text/plain", {"type": "string"})
        elif issubclass(origin, bytes | bytearray | memoryview):
            self.add(status, "application/octet-stream", dict(BINARY))
        elif (answer := _answer_of(origin)) is not None:
            self.answered(answer, status)
        else:
            self.add(status, JSON, self.schemas.of(type_, "serialization"))

    def returned_pair(self, parts: tuple[Any, ...]) -> None:
        """A body with its status, which the annotation tells where it is a `Literal`."""
        statuses = typing.get_args(parts[1]) if typing.get_origin(parts[1]) is typing.Literal else ("default",)
        for status in statuses:
            self.returned(parts[0], status)

    def answered(self, answer: _Answer, status: int | str | None) -> None:
        """A response object: it says its status itself, so the route's does not count."""
        self.problems += answer.problems
        for own in answer.statuses:
            key = str(own if status is None else status)
            media = self.contents.setdefault(key, {})
            if answer.media_type and own != 304:
                media.setdefault(answer.media_type, []).append(dict(answer.schema))
            if own == "3XX":
                self.headers[key] = {"location": {"description": "Where to go on.", "schema": {"type": "string"}}}


class _Answer(typing.NamedTuple):
    """What is known of a response class: the statuses it has as a rule, the type of its content, its problems."""

    statuses: tuple[int | str, ...]
    media_type: str = ""
    schema: Schema = {}
    problems: tuple[int, ...] = ()


def _answer_of(cls: type) -> _Answer | None:
    """What a handler answers that returns an object of the class; None for what is no response class."""
    from covet import responses, streaming
    from covet.files import FileResponse

    known: dict[type, _Answer] = {
        responses.HTMLResponse: _Answer((200,), "text/html", {"type": "string"}),
        responses.PlainTextResponse: _Answer((200,), "text/plain", {"type": "string"}),
        responses.JSONResponse: _Answer((200,), JSON),
        responses.RedirectResponse: _Answer(("3XX",)),
        streaming.EventSourceResponse: _Answer((200,), "text/event-stream"),
        streaming.StreamingResponse: _Answer((200,), "*/*"),
        FileResponse: _Answer((200, 206, 304), "*/*", {}, (404, 412, 416)),
        # It may be anything.
        responses.Response: _Answer(("default",)),
    }
    return next((known[base] for base in cls.__mro__ if base in known), None)


def _pair(type_: Any) -> bool:
    """Whether a return value of the type is a body with its status, and perhaps headers."""
    if typing.get_origin(type_) is not tuple or len(typing.get_args(type_)) not in (2, 3):
        return False
    second = typing.get_args(type_)[1]
    if typing.get_origin(second) is typing.Literal:
        return all(type(value) is int for value in typing.get_args(second))
    return second is int


def _media(schemas: list[Schema]) -> Schema:
    schemas = [schema for schema in schemas if schema]
    if not schemas:
        return {}
    return {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}


def _phrase(status: str) -> str:
    if status == "default":
        return "What the handler decides."
    if status == "3XX":
        return "The answer is elsewhere."
    try:
        return HTTPStatus(int(status)).phrase
    except ValueError:
        return f"Status {status}"
