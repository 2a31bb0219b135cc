"""The plugin `openapi`: what the document says of handlers, who may read it, and the page made of it."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import logging
import re
import subprocess
import sys
import uuid
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha256
from html import unescape
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypedDict, TypeVar

import attrs
import hypothesis
import msgspec
import pydantic
import pytest
import schemathesis
from openapi_spec_validator import OpenAPIV31SpecValidator

from covet import (
    Body,
    Converter,
    Cookie,
    Covet,
    CovetError,
    Depends,
    EventSourceResponse,
    FileResponse,
    Form,
    Header,
    HTMLResponse,
    JSONResponse,
    PluginError,
    Query,
    RedirectResponse,
    Request,
    Response,
    Route,
    Router,
    SettingsError,
    StreamingResponse,
    UploadFile,
    ValidationError,
    hookimpl,
)
from covet.builtin.openapi import OpenAPISettings, openapi_document
from covet.builtin.openapi.page import render_page
from covet.testing import TestClient, plugin_sandbox

pytestmark = pytest.mark.anyio

T = TypeVar("T")


def make_app(**settings: Any) -> Covet:
    return plugin_sandbox("openapi", settings={"plugins": {"openapi": settings}})


def valid(app: Covet) -> dict[str, Any]:
    """The document of an application, which a validator that is not ours has found right."""
    document = openapi_document(app)
    OpenAPIV31SpecValidator(document).validate()
    return document


def operation_of(handler: Callable[..., Any], path: str = "/x", method: str = "post", **options: Any) -> dict[str, Any]:
    app = make_app()
    app.route(path, [method.upper()], **options)(handler)
    [item] = valid(app)["paths"].values()
    found: dict[str, Any] = item[method]
    return found


def schema_of(type_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The schema of a type as a body, and the components beside those of problems."""
    app = make_app()

    async def handler(value: Any) -> None: ...

    handler.__annotations__["value"] = Annotated[type_, Body()]
    app.post("/x")(handler)
    document = valid(app)
    components = document["components"]["schemas"]
    schema = document["paths"]["/x"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    return schema, {name: made for name, made in components.items() if not name.startswith("Problem")}


# Schemas


class Colour(enum.Enum):
    """What it looks like."""

    RED = "red"
    GREEN = "green"


class Size(enum.IntEnum):
    SMALL = 1
    LARGE = 3


@pytest.mark.parametrize(
    ("type_", "expected"),
    [
        (Any, {}),
        (bool, {"type": "boolean"}),
        (Annotated[int, msgspec.Meta(ge=1, lt=9, multiple_of=2)],
         {"type": "integer", "minimum": 1, "exclusiveMaximum": 9, "multipleOf": 2}),
        (Annotated[str, msgspec.Meta(min_length=1, max_length=3, pattern="^a", examples=["abc"], title="A")],
         {"type": "string", "minLength": 1, "maxLength": 3, "pattern": "^a", "examples": ["abc"], "title": "A"}),
        (Annotated[list[int], msgspec.Meta(max_length=2)],
         {"type": "array", "items": {"type": "integer"}, "maxItems": 2}),
        (dict[str, float], {"type": "object", "additionalProperties": {"type": "number"}}),
        (dict[Annotated[str, msgspec.Meta(max_length=2)], Any], {"type": "object", "propertyNames": {"maxLength": 2}}),
        (tuple[int, str], {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": False,
                           "minItems": 2, "maxItems": 2}),
        (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        (Literal["a", 1, None], {"type": ["integer", "null", "string"], "enum": ["a", 1, None]}),
        (datetime.datetime, {"type": "string", "format": "date-time"}),
        (datetime.date, {"type": "string", "format": "date"}),
        (uuid.UUID, {"type": "string", "format": "uuid"}),
    ],
)  # fmt: skip
def test_the_schema_of_a_type(type_: Any, expected: dict[str, Any]) -> None:
    schema, components = schema_of(type_)
    # Literals are sorted by msgspec, which makes no difference.
    if "enum" in schema:
        schema["enum"] = sorted(schema["enum"], key=expected["enum"].index)
    assert (schema, components) == (expected, {})


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (datetime.timedelta, datetime.timedelta(days=-1, seconds=5, microseconds=7)),
        (datetime.timedelta, datetime.timedelta(0)),
        (datetime.timedelta, datetime.timedelta(hours=30)),
        (decimal.Decimal, decimal.Decimal("-1.50")),
        (decimal.Decimal, decimal.Decimal("1E+5")),
        (bytes, b"\x00\xffab"),
        (bytes, b""),
        (Annotated[datetime.datetime, msgspec.Meta(tz=False)], datetime.datetime(2026, 1, 31, 12, 0, 0, 5)),
        (Annotated[datetime.time, msgspec.Meta(tz=False)], datetime.time(12)),
    ],
)
def test_the_pattern_of_text_fits_what_is_written(type_: Any, value: Any) -> None:
    schema, _ = schema_of(list[type_])
    pattern = schema["items"]["pattern"]
    assert re.search(pattern, msgspec.to_builtins(value))
    assert not re.search(pattern, "nonsense!")


@attrs.define
class Crate:
    width: int
    lid: bool = True


@dataclasses.dataclass
class Point:
    x: int
    labels: list[str] = dataclasses.field(default_factory=list)


class Options(TypedDict, total=False):
    level: int


class Pair(NamedTuple):
    left: int
    right: str = ""


class Item(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """Something for sale."""

    unit_price: Annotated[float, msgspec.Meta(gt=0, description="In euros.")]
    made_on: datetime.date | None = None
    colour: Colour = Colour.RED
    parent: Item | None = None


def test_classes_with_fields_are_components() -> None:
    schema, components = schema_of(Item)
    assert schema == {"$ref": "#/components/schemas/Item"}
    assert components["Item"] == {
        "title": "Item",
        "description": "Something for sale.",
        "type": "object",
        "properties": {
            "unitPrice": {"type": "number", "exclusiveMinimum": 0, "description": "In euros."},
            "madeOn": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}], "default": None},
            "colour": {"$ref": "#/components/schemas/Colour", "default": "red"},
            "parent": {"anyOf": [{"$ref": "#/components/schemas/Item"}, {"type": "null"}], "default": None},
        },
        "required": ["unitPrice"],
        "additionalProperties": False,
    }
    assert components["Colour"] == {
        "title": "Colour", "type": "string", "enum": ["red", "green"], "description": "What it looks like.",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("type_", "expected"),
    [
        (Crate, {"type": "object", "properties": {"width": {"type": "integer"}, "lid": {
            "type": "boolean", "default": True}}, "required": ["width"]}),
        (Point, {"type": "object", "properties": {"x": {"type": "integer"}, "labels": {
            "type": "array", "items": {"type": "string"}, "default": []}}, "required": ["x"]}),
        (Options, {"type": "object", "properties": {"level": {"type": "integer"}}}),
        (Pair, {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string", "default": ""}],
                "minItems": 1, "maxItems": 2}),
        (Size, {"type": "integer", "enum": [1, 3]}),
    ],
)  # fmt: skip
def test_classes_of_other_kinds(type_: Any, expected: dict[str, Any]) -> None:
    _, components = schema_of(type_)
    assert components == {type_.__name__: {"title": type_.__name__, **expected}}


class Circle(msgspec.Struct, tag="circle"):
    radius: float


class Square(msgspec.Struct, tag="square"):
    side: float


def test_a_union_of_tagged_structs_has_a_discriminator() -> None:
    schema, components = schema_of(Circle | Square)
    assert schema["discriminator"] == {
        "propertyName": "type",
        "mapping": {"circle": "#/components/schemas/Circle", "square": "#/components/schemas/Square"},
    }
    assert components["Circle"]["properties"]["type"] == {"const": "circle"}
    assert components["Circle"]["required"] == ["type", "radius"]


class Page(msgspec.Struct, Generic[T]):
    items: list[T]


def make_namesake(field: str) -> type:
    return msgspec.defstruct("Namesake", [(field, int)], module="shop")


class Address(pydantic.BaseModel):
    street: str


class Person(pydantic.BaseModel):
    name: Annotated[str, pydantic.Field(max_length=9)]
    address: Address | None = None

    @pydantic.computed_field
    def greeting(self) -> str:
        return f"Hello, {self.name}!"


def test_components_of_one_name_are_told_apart_the_same_way_every_time() -> None:
    first, second = make_namesake("a"), make_namesake("b")
    other = msgspec.defstruct("Namesake", [("c", int)], module="stock")
    address = msgspec.defstruct("Address", [("city", str)], module="shop")

    def build() -> dict[str, Any]:
        app = make_app()

        def declare(path: str, type_: Any) -> None:
            async def handler() -> None: ...

            handler.__annotations__["return"] = type_
            app.get(path, name=path)(handler)

        for number, type_ in enumerate((first, second, other, Page[first], Page[second], address, Person)):  # type: ignore[valid-type]
            declare(f"/{number}", type_)
        return valid(app)

    document = build()
    names = {
        path: item["get"]["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        for path, item in document["paths"].items()
    }
    assert names["/0"] == "shop.Namesake"
    assert names["/1"] == "shop.Namesake_2"
    assert names["/2"] == "stock.Namesake"
    assert names["/3"] != names["/4"]
    schemas = document["components"]["schemas"]
    assert schemas[names["/4"]]["properties"]["items"]["items"] == {"$ref": "#/components/schemas/shop.Namesake_2"}
    assert schemas["shop.Namesake_2"]["properties"] == {"b": {"type": "integer"}}
    # The pydantic model keeps clear of the Struct of the same name.
    assert schemas["Address"]["properties"] == {"city": {"type": "string"}}
    assert schemas["Address_2"]["properties"] == {"street": {"title": "Street", "type": "string"}}
    assert "#/components/schemas/Address_2" in str(schemas[names["/6"]])
    assert build() == document


def test_pydantic_models_differ_where_they_are_read_and_written() -> None:
    app = make_app()

    @app.post("/people")
    async def people(person: Person | None = None) -> Person: ...

    document = valid(app)
    operation = document["paths"]["/people"]["post"]
    taken = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    given = operation["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    schemas = document["components"]["schemas"]
    assert "greeting" in schemas[given]["properties"]
    assert "greeting" not in schemas[taken]["properties"]
    assert operation["requestBody"]["required"] is False


def test_a_model_that_pydantic_cannot_describe_is_named() -> None:
    class Odd(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
        call: Annotated[Any, pydantic.PlainValidator(int)] = None
        function: Callable[[], int]

    app = make_app()

    @app.post("/odd")
    async def odd(odd: Odd) -> None: ...

    with pytest.raises(CovetError, match=r"no JSON Schema for one of its models .*Odd"):
        openapi_document(app)


# Parameters


async def test_path_parameters_by_converter_and_type() -> None:
    app = Covet(
        {}, installed_plugins=["openapi"], converters={"hex": Converter("[0-9a-f]+", lambda t: int(t, 16), type=int)}
    )

    @app.get("/{text}/{number:int}/{ratio:float}/{key:uuid}/{day:date}/{slug:slug}/{colour}/{hex:hex}/{rest:path}")
    async def show(
        request: Request,
        text: Annotated[str, msgspec.Meta(max_length=3, description="Some text.")],
        number: Annotated[int, msgspec.Meta(ge=1, le=9)],
        colour: Colour,
    ) -> str:
        return f"{text} {number}"

    [item] = valid(app)["paths"].values()
    found = {parameter["name"]: parameter for parameter in item["get"]["parameters"]}
    assert all(parameter["in"] == "path" and parameter["required"] for parameter in found.values())
    assert {name: parameter["schema"] for name, parameter in found.items()} == {
        "text": {"type": "string", "maxLength": 3, "pattern": "^[^/]+$"},
        "number": {"type": "integer", "minimum": 1, "maximum": 9},
        "ratio": {"type": "number", "minimum": 0},
        "key": {"type": "string", "format": "uuid"},
        "day": {"type": "string", "format": "date"},
        "slug": {"type": "string", "pattern": "^(?:[a-zA-Z0-9_-]+)$"},
        "colour": {"$ref": "#/components/schemas/Colour"},
        "hex": {"type": "string", "pattern": "^(?:[0-9a-f]+)$"},
        "rest": {"type": "string", "minLength": 1},
    }
    assert found["text"]["description"] == "Some text."
    assert item["get"]["responses"].keys() == {"200", "404", "422"}
    rest = f"/1.5/{uuid.UUID(int=1)}/2026-01-31/a-b/red/ff/any/thing"
    async with TestClient(app) as client:
        assert (await client.get("/abc/9" + rest)).text == "abc 9"
        # What the document forbids is refused.
        got = await client.get("/abcd/10" + rest)
        assert [(fault["in"], fault["pointer"]) for fault in got.json()["errors"]] == [
            ("path", "/text"), ("path", "/number"),
        ]  # fmt: skip


class Filters(msgspec.Struct, rename="kebab"):
    """What to look for."""

    max_price: Annotated[float, msgspec.Meta(gt=0, description="In euros.")]
    tags: list[str] = []
    since: datetime.date | None = None


def test_query_header_and_cookie_parameters() -> None:
    async def limit(limit: Annotated[int, Query(description="How many.", examples=(5, 10))] = 20) -> int:
        return limit

    async def find(
        q: str,
        filters: Annotated[Filters, Query()],
        limit: Annotated[int, Depends(limit)],
        x_ids: Annotated[list[int], Header()],
        accept: Annotated[str, Header()] = "",
        colour: Colour | None = None,
        words: Annotated[list[str] | None, Query("word")] = None,
        theme: Annotated[str, Cookie("ui-theme")] = "light",
    ) -> None: ...

    find.__annotations__["limit"] = Annotated[int, Depends(limit)]
    operation = operation_of(find, method="get")
    found = {(p["in"], p["name"]): p for p in operation["parameters"]}
    assert [(key, p["required"], p["schema"]) for key, p in found.items()] == [
        (("query", "q"), True, {"type": "string"}),
        (("query", "max-price"), True, {"type": "number", "exclusiveMinimum": 0}),
        (("query", "tags"), False, {"type": "array", "items": {"type": "string"}, "default": []}),
        (("query", "since"), False, {"type": "string", "format": "date"}),
        (("query", "limit"), False, {"type": "integer", "default": 20}),
        (("header", "x-ids"), True, {"type": "array", "items": {"type": "integer"}}),
        (("query", "colour"), False, {"$ref": "#/components/schemas/Colour"}),
        (("query", "word"), False, {"type": "array", "items": {"type": "string"}}),
        (("cookie", "ui-theme"), False, {"type": "string", "default": "light"}),
    ]
    assert found["query", "limit"]["description"] == "How many."
    assert found["query", "limit"]["examples"] == {"1": {"value": 5}, "2": {"value": 10}}
    assert found["query", "max-price"]["description"] == "In euros."
    assert operation["responses"].keys() == {"204", "400", "422"}


def test_a_pydantic_model_takes_the_query() -> None:
    class Search(pydantic.BaseModel):
        text: str
        size: Size = Size.SMALL

    async def find(search: Annotated[Search, Query()]) -> None: ...

    find.__annotations__["search"] = Annotated[Search, Query()]
    found = {p["name"]: p for p in operation_of(find, method="get")["parameters"]}
    assert (found["text"]["required"], found["size"]["required"]) == (True, False)
    assert found["size"]["schema"]["enum"] == [1, 3]


class Node(pydantic.BaseModel):
    name: str
    inner: Node | None = None


def test_a_model_inside_of_itself_ends() -> None:
    async def find(node: Annotated[Node, Query()]) -> None: ...

    found = {p["name"]: p["schema"] for p in operation_of(find, method="get")["parameters"]}
    assert found["name"] == {"title": "Name", "type": "string"}
    assert found["inner"] == {}


async def test_a_list_in_a_header_is_separated_by_commas_as_the_document_says() -> None:
    app = make_app()

    @app.get("/")
    async def show(x_ids: Annotated[list[int], Header()] = []) -> list[int]:  # noqa: B006 - never changed
        return x_ids

    async with TestClient(app) as client:
        got = await client.get("/", headers=[("x-ids", "1, 2"), ("x-ids", "3")])
        assert got.json() == [1, 2, 3]
        assert (await client.get("/", headers={"x-ids": ""})).json() == []
        assert (await client.get("/", headers={"x-ids": ",".join("1" * 65)})).status_code == 400


# Bodies


def test_json_bodies() -> None:
    async def take(
        item: Annotated[Item | None, Body(description="What to sell.", examples=({"unitPrice": 2},))] = None,
    ) -> None: ...

    operation = operation_of(take)
    assert operation["requestBody"] == {
        "description": "What to sell.",
        "required": False,
        "content": {
            "application/json": {
                "schema": {"anyOf": [{"$ref": "#/components/schemas/Item"}, {"type": "null"}]},
                "examples": {"1": {"value": {"unitPrice": 2}}},
            }
        },
    }
    assert operation["responses"].keys() == {"204", "400", "408", "413", "415", "422"}


def test_bytes_as_a_body() -> None:
    async def take(data: Annotated[bytes, Body()]) -> None: ...

    operation = operation_of(take)
    [(kind, media)] = operation["requestBody"]["content"].items()
    assert (kind, media["schema"]["format"]) == ("application/octet-stream", "binary")
    assert operation["responses"].keys() == {"204", "400", "408", "413"}


def test_forms_without_files_come_in_both_kinds() -> None:
    async def take(
        filters: Annotated[Filters, Form()],
        name: Annotated[str, Form(description="Yours.", examples=("Ada",))],
        ages: Annotated[list[int], Form("age")] = [],  # noqa: B006 - never changed
    ) -> None: ...

    body = operation_of(take)["requestBody"]
    assert body["required"]
    assert body["content"].keys() == {"application/x-www-form-urlencoded", "multipart/form-data"}
    schema = body["content"]["multipart/form-data"]["schema"]
    assert schema["required"] == ["max-price", "name"]
    assert schema["properties"].keys() == {"max-price", "tags", "since", "name", "age"}
    assert schema["properties"]["name"] == {"type": "string", "description": "Yours.", "examples": ["Ada"]}


async def test_files_come_in_multipart_forms() -> None:
    app = make_app()

    @app.post("/x")
    async def take(photo: UploadFile, others: list[UploadFile] = [], title: Annotated[str, Form()] = "") -> int:  # noqa: B006 - never changed
        return len(others)

    body = valid(app)["paths"]["/x"]["post"]["requestBody"]
    [(kind, media)] = body["content"].items()
    assert kind == "multipart/form-data"
    file = {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}
    assert media["schema"]["properties"]["photo"] == file
    assert media["schema"]["properties"]["others"] == {"type": "array", "items": file, "default": []}
    assert media["schema"]["required"] == ["photo"]
    async with TestClient(app) as client:
        got = await client.post("/x", files={"photo": b"p"}, data={"others": "text"})
        assert got.json()["errors"] == [{"in": "form", "pointer": "/others", "detail": "is a file, not text"}]


# Responses


ITEM = {"$ref": "#/components/schemas/Item"}


@pytest.mark.parametrize(
    ("returns", "status", "expected"),
    [
        (None, None, {"204": {}}),
        (None, 202, {"202": {}}),
        (str, None, {"200": {"text/plain": {"schema": {"type": "string"}}}}),
        (bytes, None, {"200": {"application/octet-stream": {"schema": {
            "type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}}}}),
        (Item, 201, {"201": {"application/json": {"schema": ITEM}}}),
        (Item | None, None, {"200": {"application/json": {"schema": ITEM}}, "204": {}}),
        (list[Item], None, {"200": {"application/json": {"schema": {"type": "array", "items": ITEM}}}}),
        (Item | Point, None, {"200": {"application/json": {"schema": {"anyOf": [
            ITEM, {"$ref": "#/components/schemas/Point"}]}}}}),
        (Item | str, None, {"200": {"application/json": {"schema": ITEM},
                                    "text/plain": {"schema": {"type": "string"}}}}),
        (Colour, None, {"200": {"application/json": {"schema": {"$ref": "#/components/schemas/Colour"}}}}),
        (tuple[Item, Literal[200, 201]], None, {"200": {"application/json": {"schema": ITEM}},
                                                "201": {"application/json": {"schema": ITEM}}}),
        (tuple[str, int, dict[str, str]], None, {"default": {"text/plain": {"schema": {"type": "string"}}}}),
        (tuple[int, str], None, {"200": {"application/json": {"schema": {
            "type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": False,
            "minItems": 2, "maxItems": 2}}}}),
        (Response, None, {"default": {}}),
        (Any, None, {"default": {}}),
        (Any, 202, {"202": {}}),
        (HTMLResponse, None, {"200": {"text/html": {"schema": {"type": "string"}}}}),
        (JSONResponse, None, {"200": {"application/json": {}}}),
        (StreamingResponse, None, {"200": {"*/*": {}}}),
        (EventSourceResponse, None, {"200": {"text/event-stream": {}}}),
        (RedirectResponse, None, {"3XX": {}}),
        (object, None, {"200": {"application/json": {}}}),
    ],
)  # fmt: skip
def test_responses_by_return_annotation(returns: Any, status: int | None, expected: dict[str, Any]) -> None:
    async def handler() -> None: ...

    handler.__annotations__["return"] = returns
    found = operation_of(handler, status=status)["responses"]
    assert {key: response.get("content", {}) for key, response in found.items()} == expected
    assert all(response["description"] for response in found.values())
    assert ("headers" in found.get("3XX", {})) is (returns is RedirectResponse)


def test_a_file_has_the_responses_of_ranges_and_conditions() -> None:
    async def handler() -> FileResponse:
        return FileResponse("x")

    responses = operation_of(handler, method="get")["responses"]
    assert responses.keys() == {"200", "206", "304", "404", "412", "416"}
    assert "content" not in responses["304"]


def test_responses_that_a_route_declares() -> None:
    async def handler() -> Item: ...

    responses = operation_of(
        handler,
        responses={
            200: "Here it is.",
            202: Point,
            404: "There is none.",
            409: Item,
            503: {"description": "Later.", "headers": {"retry-after": {"schema": {"type": "integer"}}}},
        },
    )["responses"]
    assert responses["200"]["description"] == "Here it is."
    assert responses["200"]["content"]["application/json"]["schema"] == ITEM
    assert responses["202"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Point"}
    assert "application/problem+json" in responses["404"]["content"]
    assert responses["409"]["content"]["application/json"]["schema"] == ITEM
    assert responses["503"]["headers"]["retry-after"] == {"schema": {"type": "integer"}}


def test_only_problems_that_can_occur_are_listed() -> None:
    app = make_app()

    @app.get("/x")
    async def show() -> str: ...

    document = valid(app)
    assert document["paths"]["/x"]["get"]["responses"].keys() == {"200"}
    assert "components" not in document or document["components"] == {}


async def test_a_problem_is_as_its_component_says() -> None:
    app = make_app()

    @app.post("/x")
    async def take(item: Item) -> None: ...

    document = valid(app)
    assert document["components"]["responses"]["ValidationFailed"]["content"]["application/problem+json"] == {
        "schema": {"$ref": "#/components/schemas/Problem"}
    }
    async with TestClient(app) as client:
        got = await client.post("/x", json={})
    assert got.headers["content-type"] == "application/problem+json"
    schemas = document["components"]["schemas"]
    assert got.json().keys() == schemas["Problem"]["properties"].keys()
    assert got.json()["errors"][0].keys() == schemas["ProblemFault"]["properties"].keys()


def test_problems_that_the_application_answers_in_its_own_way_have_no_schema() -> None:
    app = make_app()

    @app.post("/x")
    async def take(item: Item) -> None: ...

    @app.exception_handler(ValidationError)
    async def own(request: Request, error: ValidationError) -> tuple[str, int]:
        return "no", 400

    components = valid(app)["components"]["responses"]
    assert "content" not in components["ValidationFailed"]
    assert "content" in components["Malformed"]


# The document


def test_everything_is_valid_and_the_same_every_time() -> None:
    from tests import everything

    document = valid(everything.app)
    assert document["openapi"] == "3.1.0"
    assert document["info"] == {"title": "everything", "version": "0.1.0", "description": "All there is."}
    assert document["tags"] == [{"name": "parameters"}, {"name": "things"}]
    assert "/hidden" not in document["paths"]
    assert openapi_document(everything.app) == document


def test_summary_description_tags_and_deprecation() -> None:
    async def handler() -> None:
        """Do `something`.

        In a way that takes
        two lines.
        """

    operation = operation_of(handler, tags=["a", "b", "a"], deprecated=True)
    assert operation["summary"] == "Do `something`."
    assert operation["description"] == "In a way that takes\ntwo lines."
    assert (operation["tags"], operation["deprecated"]) == (["a", "b"], True)
    operation = operation_of(handler, summary="Other.", description="")
    assert operation["summary"] == "Other."
    assert "description" not in operation


def test_what_is_left_out() -> None:
    app = make_app()
    app.route("/x", ["GET", "HEAD", "OPTIONS", "BREW"])(lambda: None)
    app.get("/hidden", in_schema=False)(lambda: None)
    app.mount("/mounted", make_app())

    @app.websocket("/socket")
    async def socket() -> None: ...

    document = valid(app)
    assert {path: list(item) for path, item in document["paths"].items()} == {"/x": ["get"]}


def test_operation_ids_are_unique_and_stay() -> None:
    app = make_app()
    users, shops = Router("/users", name="users"), Router("/shops")

    async def show() -> None: ...

    async def other() -> None: ...

    users.get("/")(show)
    shops.get("/")(show)
    app.include(users)
    app.include(shops)
    app.route("/both", ["GET", "POST"], name="both")(show)
    app.get("/a-b", name="other")(other)
    app.get("/a_b", name="other")(other)
    ids = [operation["operationId"] for item in valid(app)["paths"].values() for operation in item.values()]
    assert ids == ["users.show", "show", "both_get", "both_post", "other_get_a_b", "other_get_a_b_2"]


def test_paths_that_differ_in_names_alone_are_one(caplog: pytest.LogCaptureFixture) -> None:
    app = make_app()

    @app.get("/users/{id:int}")
    async def show(id: int) -> str: ...

    @app.delete("/users/{number}")
    async def delete(number: int) -> None: ...

    @app.get("/users/{name}")
    async def by_name(name: str) -> bytes: ...

    with caplog.at_level(logging.WARNING, "covet.openapi"):
        document = valid(app)
    [(path, item)] = document["paths"].items()
    assert path == "/users/{id}"
    assert item["get"]["operationId"] == "show"
    assert [p["name"] for p in item["delete"]["parameters"]] == ["id"]
    assert "leaves out <Route GET /users/{name}" in caplog.text


# What plugins add


class Guard:
    """A plugin that protects the operations whose handlers ask for a caller."""

    @hookimpl
    def covet_openapi(self, app: Covet, document: dict[str, Any]) -> None:
        document.setdefault("components", {})["securitySchemes"] = {"login": {"type": "http", "scheme": "bearer"}}
        for route in app.routes:
            if isinstance(route, Route) and route.plan and any(step.provider is caller for step in route.plan.steps):
                operation = document["paths"][route.template.display][next(iter(route.methods)).lower()]
                operation["security"] = [{"login": []}]
                operation["responses"]["401"] = {"description": "Nobody is logged in."}


class Late:
    @hookimpl(trylast=True)
    def covet_openapi(self, document: dict[str, Any]) -> None:
        document["tags"] = [{"name": name} for name in document["components"]["securitySchemes"]]


async def caller() -> str:
    return "Ada"


async def test_plugins_change_the_document_in_plugin_order() -> None:
    app = plugin_sandbox("openapi", guard=Guard(), a_late_one=Late())

    @app.get("/me")
    async def me(caller: Annotated[str, Depends(caller)]) -> str: ...

    @app.get("/open")
    async def open_() -> str: ...

    me.__annotations__["caller"] = Annotated[str, Depends(globals()["caller"])]
    document = valid(app)
    assert document["paths"]["/me"]["get"]["security"] == [{"login": []}]
    assert "security" not in document["paths"]["/open"]["get"]
    assert document["tags"] == [{"name": "login"}]
    async with TestClient(app) as client:
        assert "login" in (await client.get("/docs")).text


async def test_a_plugin_that_fails_is_named() -> None:
    class Broken:
        @hookimpl
        def covet_openapi(self, document: dict[str, Any]) -> None:
            raise LookupError("nothing here")

    app = plugin_sandbox("openapi", broken=Broken())
    async with TestClient(app) as client:
        for _ in range(2):
            with pytest.raises(PluginError, match="'broken' failed in covet_openapi: LookupError"):
                await client.get("/openapi.json")


# Serving


async def test_it_is_served_with_a_tag_and_for_head() -> None:
    app = make_app()

    @app.get("/x")
    async def show() -> str: ...

    async with TestClient(app) as client:
        for path, kind in (("/openapi.json", "application/json"), ("/docs", "text/html; charset=utf-8")):
            got = await client.get(path)
            assert (got.status_code, got.headers["content-type"]) == (200, kind)
            assert got.headers["cache-control"] == "private, no-cache"
            again = await client.get(path, headers={"if-none-match": f'"other", W/{got.headers["etag"]}'})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", got.headers["etag"])
            assert (await client.get(path, headers={"if-none-match": '"other"'})).status_code == 200
            head = await client.head(path)
            assert (head.status_code, head.headers["content-length"]) == (200, str(len(got.content)))
        assert (await client.get("/openapi.json")).json() == valid(app)


def test_nothing_is_made_until_it_is_asked_for() -> None:
    code = """
import sys
from covet import Covet
app = Covet({}, installed_plugins=["openapi"])
app.get("/")(lambda: None)
app.build()
wanted = [name for name in sys.modules if name.startswith("covet.builtin.openapi")]
assert sorted(wanted) == ["covet.builtin.openapi", "covet.builtin.openapi.serving"], wanted
assert "pydantic" not in sys.modules and "msgspec.inspect" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


async def test_it_says_where_the_application_is_mounted() -> None:
    inner, outer = make_app(), make_app()
    inner.get("/x")(lambda: None)
    outer.mount("/api", inner)
    async with TestClient(outer) as client:
        assert (await client.get("/api/openapi.json")).json()["servers"] == [{"url": "/api"}]
        assert 'href="/api/openapi.json"' in (await client.get("/api/docs")).text
        assert "servers" not in (await client.get("/openapi.json")).json()
        assert "/x" not in (await client.get("/openapi.json")).json()["paths"]
    async with TestClient(inner) as client:
        assert "servers" not in (await client.get("/openapi.json")).json()


async def test_settings_move_it_and_turn_it_off() -> None:
    app = make_app(path="/api.json", docs="", title="Shop", version="2", description="Buy.")
    async with TestClient(app) as client:
        assert (await client.get("/api.json")).json()["info"] == {
            "title": "Shop",
            "version": "2",
            "description": "Buy.",
        }
        assert (await client.get("/docs")).status_code == 404
        assert (await client.get("/openapi.json")).status_code == 404
    async with TestClient(make_app(path="")) as client:
        page = await client.get("/docs")
        assert page.status_code == 200
        assert "<a href" not in page.text
    assert not [route for route in make_app(path="", docs="").routes if route.owner == "openapi"]


@pytest.mark.parametrize("wrong", [{"path": "openapi.json"}, {"docs": "/docs/{x}"}, {"version": ""}, {"pubic": True}])
def test_wrong_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises((SettingsError, PluginError), match=re.escape(next(iter(wrong)))):
        make_app(**wrong).build()


@pytest.mark.parametrize(
    ("client", "host", "headers", "status"),
    [
        (("127.0.0.1", 1), "localhost", {}, 200),
        (("127.9.9.9", 1), "127.0.0.1:8000", {}, 200),
        (("::1", 1), "[::1]:8000", {}, 200),
        (("::ffff:127.0.0.1", 1), "app.localhost", {}, 200),
        (("192.0.2.1", 1), "localhost", {}, 404),
        (("", 1), "localhost", {}, 404),
        (("127.0.0.1", 1), "shop.example", {}, 404),
        (("127.0.0.1", 1), "localhost.shop.example", {}, 404),
        (("127.0.0.1", 1), "localhost", {"x-forwarded-for": "192.0.2.1"}, 404),
        (("127.0.0.1", 1), "localhost", {"forwarded": "for=192.0.2.1"}, 404),
        (("127.0.0.1", 1), "localhost", {"via": "1.1 proxy"}, 404),
    ],
)
async def test_it_is_shown_to_this_machine_alone_unless_asked(
    client: tuple[str, int], host: str, headers: dict[str, str], status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "covet.openapi")
    app = make_app()
    async with TestClient(app, client=client, base_url=f"http://{host}", headers=headers) as browser:
        for path in ("/docs", "/openapi.json", "/docs"):
            assert (await browser.get(path)).status_code == status
    assert len([record for record in caplog.records if "public = true" in record.message]) == (status == 404)


@pytest.mark.parametrize("settings", [{"plugins": {"openapi": {"public": True}}}, {"app": {"debug": True}}])
async def test_it_is_shown_to_everybody_when_asked(settings: dict[str, Any]) -> None:
    app = plugin_sandbox("openapi", settings=settings)
    async with TestClient(app, client=("192.0.2.1", 1), base_url="http://shop.example") as client:
        for path in ("/docs", "/openapi.json"):
            got = await client.get(path)
            assert got.status_code == 200
            assert got.headers["cache-control"] == ("no-cache" if "plugins" in settings else "private, no-cache")


# The page


async def test_the_page_shows_everything_and_loads_nothing() -> None:
    from tests import everything

    async with TestClient(everything.app) as client:
        got = await client.get("/docs")
    page = got.text
    document = openapi_document(everything.app)
    for path, item in document["paths"].items():
        assert page.count(f"<code>{path}</code>") == 2 * len(item)
    for name in document["components"]["schemas"]:
        assert f"<summary><code>{name}</code></summary>" in page
    targets = set(re.findall(r'href="#([^"]+)"', page))
    anchors = re.findall(r'id="([^"]+)"', page)
    assert len(anchors) == len(set(anchors))
    assert targets <= set(anchors)
    assert not re.search(r"<script|\bsrc=|<link|<img|\son\w+=|\sstyle=|https?://|@import|url\(", page)
    [style] = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    digest = b64encode(sha256(style.encode()).digest()).decode()
    policy = got.headers["content-security-policy"]
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}';")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy


def test_the_page_escapes_everything() -> None:
    evil = '"><script>alert("`1`")</script>'

    def poison(value: Any) -> Any:
        """Append something hostile to every text and every key that authors choose."""
        if isinstance(value, dict):
            return {key: poison(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [poison(inner) for inner in value]
        return value + evil if isinstance(value, str) and not value.startswith("#/") else value

    from tests import everything

    document = openapi_document(everything.app)
    document["servers"] = [{"url": "/api", "description": "here"}]
    document["components"]["securitySchemes"] = {"login": {"type": "http", "scheme": "bearer", "description": "x"}}
    document["security"] = [{"login": ["read"]}]
    document = poison(document)
    document["paths"] = {path + evil: item for path, item in document["paths"].items()}
    for schema in document["components"]["schemas"].values():
        if "properties" in schema:
            schema["properties"] = {name + evil: member for name, member in schema["properties"].items()}
    page = render_page(document, "/openapi.json" + evil)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert 'alert("' in unescape(page)
    assert not re.search(r'="[^"]*<', page)


class Order(msgspec.Struct):
    item: Annotated[str, msgspec.Meta(examples=["pen"])]
    price: Annotated[float, msgspec.Meta(ge=2)]
    colour: Colour
    inner: Order
    when: datetime.date
    tags: list[str] = []


def test_an_example_body_is_made_of_the_schema() -> None:
    app = make_app()

    @app.post("/orders")
    async def order(order: Order) -> None: ...

    page = unescape(render_page(valid(app), ""))
    assert '"item": "pen"' in page
    assert '"price": 2' in page
    assert '"colour": "red"' in page
    assert '"when": "2026-01-31"' in page


def test_a_page_without_operations() -> None:
    assert "There are none yet." in render_page(openapi_document(make_app()), "/openapi.json")


def test_every_setting_is_described() -> None:
    from covet.settings_schema import describe

    assert all(field.description for field in describe(OpenAPISettings))


# A short form of tests/proofs/openapi.py


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE])
def test_requests_made_of_the_document_are_answered_as_it_says(mode: schemathesis.GenerationMode) -> None:
    from tests import everything
    from tests.proofs.openapi import CONFIGURATION, FORMS

    config = schemathesis.Config.from_dict(CONFIGURATION)
    schema = schemathesis.openapi.from_asgi("/openapi.json", everything.app, config=config)
    found = 0
    for result in schema.get_all_operations():
        operation = result.ok()
        if mode is schemathesis.GenerationMode.NEGATIVE and (
            re.match(FORMS, operation.path) or not (list(operation.iter_parameters()) or operation.body)
        ):
            continue
        found += 1

        @hypothesis.settings(
            max_examples=5, database=None, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck)
        )
        @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
        def attempt(case: schemathesis.Case) -> None:
            case.call_and_validate()

        try:
            attempt()
        except hypothesis.errors.Unsatisfiable:
            # Any text is the rest of a path: nothing can be wrong with it.
            assert operation.path == "/path/rest/{rest}"
    assert found > 15


def test_the_settings_of_the_plugin_are_those_of_its_file() -> None:
    assert openapi_document(make_app(title="Shop"))["info"]["title"] == "Shop"
    app = Covet({"app": {"name": "plain"}}, installed_plugins=False)
    assert openapi_document(app)["info"] == {"title": "plain", "version": "0.1.0"}
