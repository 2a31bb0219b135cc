"""Handlers are called by their signature."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, TypedDict
from uuid import UUID

import attrs
import msgspec
import pydantic
import pytest

from covet import (
    Body,
    Cookie,
    Covet,
    Depends,
    File,
    Form,
    HandlerError,
    Header,
    Query,
    Request,
    UploadFile,
    WebSocket,
)
from covet.testing import TestClient

pytestmark = pytest.mark.anyio


class User(msgspec.Struct):
    name: str
    age: Annotated[int, msgspec.Meta(ge=0)]


@dataclass
class Point:
    x: int
    y: int = 0


class Options(TypedDict):
    deep: bool


@attrs.define
class Tag:
    label: str


class Model(pydantic.BaseModel):
    id: int
    label: str = pydantic.Field(min_length=2)


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Filters(msgspec.Struct):
    q: str
    limit: int = 10
    tags: list[str] = []


def make_app() -> Covet:
    return Covet({}, installed_plugins=False)


async def test_parts_of_the_path_are_converted_by_template_or_annotation() -> None:
    app = make_app()

    @app.get("/a/{id:int}/{when:date}/{key:uuid}")
    async def by_template(id: int, when: date, key: UUID) -> Any:
        return [type(id).__name__, when.year, key.int]

    @app.get("/b/{id}")
    async def by_annotation(id: int) -> Any:
        return id

    async with TestClient(app) as client:
        got = await client.get(f"/a/7/2026-11-24/{UUID(int=5)}")
        assert got.json() == ["int", 2026, 5]
        assert (await client.get("/a/seven/2026-11-24/x")).status_code == 404
        assert (await client.get("/b/7")).json() == 7
        refused = await client.get("/b/seven")
        assert refused.status_code == 422
        assert refused.json()["errors"] == [{"in": "path", "pointer": "/id", "detail": "'seven' is not an integer"}]


async def test_query_members_of_every_simple_type() -> None:
    app = make_app()

    @app.get("/")
    async def search(
        q: str,
        n: int = 1,
        ratio: float | None = None,
        on: bool = False,
        when: datetime | None = None,
        price: Decimal = Decimal(0),
        colour: Colour = Colour.RED,
        mode: Literal["fast", "slow"] = "fast",
        ids: list[int] = [],  # noqa: B006 - never changed
    ) -> Any:
        return {
            "q": q, "n": n, "ratio": ratio, "on": on, "when": when, "price": price, "colour": colour, "mode": mode,
            "ids": ids,
        }  # fmt: skip

    async with TestClient(app) as client:
        got = await client.get("/", params={
            "q": "x", "n": "-3", "ratio": "0.5", "on": "true", "when": "2026-11-24T10:00:00Z", "price": "1.50",
            "colour": "blue", "mode": "slow", "ids": ["1", "2"],
        })  # fmt: skip
        assert got.json() == {
            "q": "x", "n": -3, "ratio": 0.5, "on": True, "when": "2026-11-24T10:00:00Z", "price": "1.50",
            "colour": "blue", "mode": "slow", "ids": [1, 2],
        }  # fmt: skip
        assert (await client.get("/?q=x")).json()["n"] == 1


async def test_all_faults_of_path_query_headers_and_cookies_are_reported_together() -> None:
    app = make_app()

    @app.get("/{id}")
    async def show(
        id: int, q: str, n: int, on: bool, x_rate: Annotated[float, Header()], visits: Annotated[int, Cookie()]
    ) -> None: ...

    async with TestClient(app) as client:
        got = await client.get(
            "/x", params={"n": "many", "on": "perhaps"}, headers={"x-rate": "nan", "cookie": "visits=many"}
        )
        assert got.status_code == 422
        assert got.headers["content-type"] == "application/problem+json"
        document = got.json()
        assert document["title"] == "Validation failed"
        assert [(fault["in"], fault["pointer"]) for fault in document["errors"]] == [
            ("path", "/id"), ("query", "/q"), ("query", "/n"), ("query", "/on"), ("header", "/x-rate"),
            ("cookie", "/visits"),
        ]  # fmt: skip
        assert document["errors"][1]["detail"] == "is required"


async def test_the_text_null_is_no_none() -> None:
    app = make_app()

    @app.get("/")
    async def show(name: str | None = None, n: int | None = None) -> Any:
        return [name, n]

    async with TestClient(app) as client:
        assert (await client.get("/?name=null")).json() == ["null", None]
        assert (await client.get("/?n=null")).status_code == 422


async def test_constraints_of_msgspec_hold_for_the_query() -> None:
    app = make_app()

    @app.get("/")
    async def show(limit: Annotated[int, msgspec.Meta(ge=1, le=100)] = 10) -> Any:
        return limit

    async with TestClient(app) as client:
        assert (await client.get("/?limit=100")).json() == 100
        got = await client.get("/?limit=101")
        assert got.status_code == 422
        assert "<= 100" in got.json()["errors"][0]["detail"]


async def test_headers_and_cookies_by_alias_and_by_name() -> None:
    app = make_app()

    @app.get("/")
    async def show(
        user_agent: Annotated[str, Header()],
        tokens: Annotated[list[str], Header("x-token")],
        theme: Annotated[str, Cookie("ui-theme")] = "light",
    ) -> Any:
        return [user_agent, tokens, theme]

    async with TestClient(app) as client:
        got = await client.get("/", headers=[("user-agent", "t"), ("x-token", "a"), ("x-token", "b")])
        assert got.json() == ["t", ["a", "b"], "light"]
        got = await client.get("/", headers={"user-agent": "t", "x-token": "a", "cookie": "ui-theme=dark"})
        assert got.json()[2] == "dark"


async def test_a_class_takes_the_query_as_a_whole() -> None:
    app = make_app()

    @app.get("/")
    async def search(filters: Annotated[Filters, Query()]) -> Filters:
        return filters

    async with TestClient(app) as client:
        got = await client.get("/?q=x&limit=3&tags=a&tags=b")
        assert got.json() == {"q": "x", "limit": 3, "tags": ["a", "b"]}
        got = await client.get("/?limit=3")
        assert got.json()["errors"] == [{"in": "query", "pointer": "/q", "detail": "is required"}]


@pytest.mark.parametrize(
    ("type_", "good", "bad"),
    [
        (User, {"name": "Ada", "age": 36}, {"name": "Ada", "age": -1}),
        (Point, {"x": 1, "y": 2}, {"x": "1"}),
        (Options, {"deep": True}, {"deep": 1}),
        (Tag, {"label": "a"}, {"label": None}),
        (Model, {"id": 1, "label": "ab"}, {"id": 1, "label": "a"}),
        (list[User], [{"name": "Ada", "age": 1}], [{"name": "Ada"}]),
        (dict[str, int], {"a": 1}, {"a": "b"}),
    ],
)
async def test_a_body_of_every_kind_of_class(type_: Any, good: Any, bad: Any) -> None:
    app = make_app()

    async def echo(item: Any) -> Any:
        return item

    echo.__annotations__ = {"item": type_, "return": Any}
    app.post("/")(echo)

    async with TestClient(app) as client:
        got = await client.post("/", json=good)
        assert (got.status_code, got.json()) == (200, good)
        got = await client.post("/", json=bad)
        assert got.status_code == 422
        assert got.json()["errors"][0]["in"] == "body"
        assert got.json()["errors"][0]["pointer"]


async def test_a_body_may_be_optional_raw_or_marked() -> None:
    app = make_app()

    @app.post("/optional")
    async def optional(user: User | None = None) -> Any:
        return user.name if user else "nobody"

    @app.post("/raw")
    async def raw(data: Annotated[bytes, Body()]) -> bytes:
        return data[::-1]

    @app.post("/number")
    async def number(n: Annotated[int, Body()]) -> Any:
        return n + 1

    async with TestClient(app) as client:
        assert (await client.post("/optional")).text == "nobody"
        assert (await client.post("/optional", json={"name": "Ada", "age": 1})).text == "Ada"
        got = await client.post("/raw", content=b"abc")
        assert (got.content, got.headers["content-type"]) == (b"cba", "application/octet-stream")
        assert (await client.post("/number", json=1)).json() == 2


async def test_json_is_not_read_from_another_content_type() -> None:
    app = make_app()

    @app.post("/")
    async def echo(user: User) -> User:
        return user

    async with TestClient(app) as client:
        data = b'{"name":"Ada","age":1}'
        for content_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
            got = await client.post("/", content=data, headers={"content-type": content_type})
            assert got.status_code == 415
        for content_type in ("application/json; charset=utf-8", "application/vnd.api+json"):
            assert (await client.post("/", content=data, headers={"content-type": content_type})).status_code == 200


async def test_form_fields_and_files() -> None:
    app = make_app()

    class Login(msgspec.Struct):
        user: str
        remember: bool = False

    @app.post("/fields")
    async def fields(user: Annotated[str, Form()], age: Annotated[int, Form()] = 0) -> Any:
        return [user, age]

    app.post("/whole")(_annotated(Login))

    @app.post("/files")
    async def files(photo: UploadFile, others: Annotated[list[UploadFile], File()] = []) -> Any:  # noqa: B006
        return [photo.filename, (await photo.read()).decode(), len(others)]

    async with TestClient(app) as client:
        assert (await client.post("/fields", data={"user": "ada", "age": "36"})).json() == ["ada", 36]
        got = await client.post("/fields", data={"age": "x"})
        assert [fault["pointer"] for fault in got.json()["errors"]] == ["/user", "/age"]
        assert (await client.post("/whole", data={"user": "ada", "remember": "true"})).json() == {
            "user": "ada",
            "remember": True,
        }
        files = [("photo", ("a.txt", b"hi")), ("others", ("b", b"1")), ("others", ("c", b""))]
        got = await client.post("/files", files=files)
        assert got.json() == ["a.txt", "hi", 2]
        got = await client.post("/files", files=[("other", ("a.txt", b"hi"))])
        assert got.json()["errors"] == [{"in": "file", "pointer": "/photo", "detail": "is required"}]


def _annotated(login: Any) -> Any:
    async def whole(form: Any) -> Any:
        return form

    whole.__annotations__ = {"form": Annotated[login, Form()], "return": Any}
    return whole


async def test_a_plain_function_runs_in_a_worker_thread() -> None:
    app = make_app()
    here = threading.get_ident()

    @app.get("/")
    def blocking(n: int = 1) -> Any:
        return [threading.get_ident() != here, n]

    async with TestClient(app) as client:
        assert (await client.get("/?n=3")).json() == [True, 3]


async def test_keyword_only_parameters_callable_objects_and_partials() -> None:
    from functools import partial

    app = make_app()

    class Handler:
        async def __call__(self, n: int) -> Any:
            return n

    async def add(n: int, *, m: int) -> Any:
        return n + m

    app.get("/object", name="object")(Handler())
    app.get("/keyword")(add)
    app.get("/partial", name="partial")(partial(add, m=10))
    async with TestClient(app) as client:
        assert (await client.get("/object?n=1")).json() == 1
        assert (await client.get("/keyword?n=1&m=2")).json() == 3
        assert (await client.get("/partial?n=1")).json() == 11


class Unknown:
    pass


async def _no_annotation(x): ...  # type: ignore[no-untyped-def]
async def _unknown_type(thing: Unknown) -> None: ...
async def _var(*args: int) -> None: ...
async def _two_bodies(a: User, b: User) -> None: ...
async def _form_and_body(a: User, b: Annotated[str, Form()]) -> None: ...
async def _websocket(socket: WebSocket) -> None: ...
async def _not_in_path(id: Annotated[int, Query()]) -> None: ...
async def _undecodable(x: Annotated[complex, Query()]) -> None: ...
async def _unresolved(x: Missing) -> None: ...  # type: ignore[name-defined] # noqa: F821
async def _no_provider(x: Annotated[int, Depends(None)]) -> None: ...  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("handler", "path", "method", "told"),
    [
        (_no_annotation, "/", "GET", ["parameter 'x'", "no annotation", "`x: str` takes it from the query"]),
        (_unknown_type, "/", "GET", ["parameter 'thing'", "nothing provides Unknown", "app.provide"]),
        (_var, "/", "GET", ["parameter 'args'", "cannot be filled"]),
        (_two_bodies, "/", "POST", ["parameter 'b'", "already taken by 'a'"]),
        (_form_and_body, "/", "POST", ["both a form and a body"]),
        (_two_bodies, "/", "GET", ["parameter 'a'", "does not have", "Annotated[User, Query()]"]),
        (_websocket, "/", "GET", ["serves a Request, so there is no WebSocket"]),
        (_not_in_path, "/{id}", "GET", ["'id' is not taken"]),
        (_undecodable, "/", "GET", ["parameter 'x'", "cannot be decoded"]),
        (_unresolved, "/", "GET", ["'Missing' cannot be resolved", "module level"]),
        (_no_provider, "/", "GET", ["parameter 'x'", "cannot be called"]),
    ],
)
def test_what_a_signature_cannot_be_given_is_an_error_when_the_application_is_built(
    handler: Any, path: str, method: str, told: list[str]
) -> None:
    app = make_app()
    app.route(path, [method])(handler)
    with pytest.raises(HandlerError) as caught:
        app.build()
    assert handler.__qualname__ in str(caught.value)
    for text in told:
        assert text in str(caught.value)


async def test_an_annotation_against_the_converter_is_an_error() -> None:
    app = make_app()

    @app.get("/{id:int}")
    async def show(id: UUID) -> None: ...

    with pytest.raises(HandlerError, match="the converter `int` gives int, the annotation says UUID"):
        app.build()


async def test_the_request_may_be_taken_whole() -> None:
    app = make_app()

    @app.get("/{a}/{b:int}")
    async def show(request: Request) -> Any:
        return request.path_params

    async with TestClient(app) as client:
        assert (await client.get("/x/2")).json() == {"a": "x", "b": 2}
