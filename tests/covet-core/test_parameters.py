"""Markers and what they make of a signature: where each parameter comes from, and what cannot be."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal

import msgspec
import pytest

from covet import Cookie, Covet, File, Form, HandlerError, Header, Query, UploadFile
from covet.testing import TestClient

pytestmark = pytest.mark.anyio


def make_app() -> Covet:
    return Covet(installed_plugins=False)


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


async def test_a_union_of_simple_types_is_one_piece_of_text() -> None:
    app = make_app()

    @app.get("/")
    async def show(
        a: int | float = 0,
        b: int | Literal["all"] = "all",
        c: float | None = None,
        d: Annotated[int | bool | None, Header("x-d")] = None,
        e: Annotated[Colour | int, Cookie()] = 0,
    ) -> Any:
        return [a, b, c, d, e]

    async with TestClient(app, cookies={"e": "red"}) as client:
        assert (await client.get("/")).json() == [0, "all", None, None, "red"]
        got = await client.get("/?a=1.5&b=7&c=2", headers={"x-d": "true"})
        assert got.json() == [1.5, 7, 2.0, True, "red"]
        got = await client.get("/?a=x&b=none", headers={"x-d": "?"})
        assert [(fault["in"], fault["pointer"]) for fault in got.json()["errors"]] == [
            ("query", "/a"), ("query", "/b"), ("header", "/x-d"),
        ]  # fmt: skip


async def test_a_marker_may_be_the_default_and_have_one() -> None:
    app = make_app()

    @app.get("/")
    async def show(a: str = Query("q"), b: int = Query("n", default=3), c: str | None = Header(default=None)) -> Any:  # type: ignore[assignment]
        return [a, b, c]

    async with TestClient(app) as client:
        assert (await client.get("/?q=x")).json() == ["x", 3, None]
        assert (await client.get("/")).json()["errors"] == [{"in": "query", "pointer": "/q", "detail": "is required"}]


def with_alias() -> Callable[..., Any]:
    async def handler(token: Annotated[str, Header("x_token")]) -> None: ...

    return handler


def with_default() -> Callable[..., Any]:
    async def handler(token: str = Header("X_Token")) -> None: ...  # type: ignore[assignment]

    return handler


@pytest.mark.parametrize("make", [with_alias, with_default])
def test_a_header_that_is_always_dropped_is_an_error_when_the_application_is_built(make: Callable[[], Any]) -> None:
    app = make_app()
    app.get("/")(make())
    with pytest.raises(HandlerError, match=r"'token'.*underscore.*'[xX]-[tT]oken'"):
        app.build()


async def test_text_and_files_of_a_form_are_not_taken_for_each_other() -> None:
    app = make_app()

    class Profile(msgspec.Struct):
        name: str
        age: int = 0

    @app.post("/text")
    async def text(a: Annotated[str, Form()], n: Annotated[int, Form()] = 0) -> Any:
        return a

    @app.post("/texts")
    async def texts(a: Annotated[list[str], Form()]) -> Any:
        return a

    @app.post("/optional")
    async def optional(a: Annotated[str | None, Form()] = None) -> Any:
        return [a]

    @app.post("/file")
    async def file(a: Annotated[UploadFile | None, File()] = None) -> Any:
        return a is not None

    async def whole(form: Any) -> Any:
        return form

    whole.__annotations__ = {"form": Annotated[Profile, Form()]}
    app.post("/whole")(whole)

    async with TestClient(app) as client:
        sent_file = {"a": ("x.txt", b"1")}
        for path in ("/text", "/texts", "/optional"):
            got = await client.post(path, files=sent_file)
            assert got.status_code == 422, path
            assert got.json()["errors"][0]["pointer"].startswith("/a")
        assert (await client.post("/text", data={"a": "1"})).text == "1"
        assert (await client.post("/text", files={"a": (None, b"1"), "n": ("x", b"1")})).status_code == 422
        assert (await client.post("/file", files={"a": (None, b"text")})).status_code == 422
        assert (await client.post("/file", files=sent_file)).json() is True
        got = await client.post("/whole", files={"name": ("x", b"1")})
        assert got.status_code == 422


async def test_numbers_that_are_none_name_the_field() -> None:
    app = make_app()

    class Range(msgspec.Struct, rename="kebab"):
        low_end: float = 0.0
        high_end: Decimal = Decimal(1)
        name: str = ""

    async def show(found: Any) -> Any:
        return found

    show.__annotations__ = {"found": Annotated[Range, Query()]}
    app.get("/")(show)

    @app.get("/one")
    async def one(x: Annotated[float, msgspec.Meta(ge=0)] = 0.0) -> Any:
        return x

    async with TestClient(app) as client:
        assert (await client.get("/?low-end=1.5&high-end=2&name=nan")).json() == {
            "low-end": 1.5, "high-end": "2", "name": "nan",
        }  # fmt: skip
        got = await client.get("/?low-end=nan&high-end=sNaN&name=inf")
        assert got.json()["errors"] == [
            {"in": "query", "pointer": "/low-end", "detail": "'nan' is not a finite number"},
            {"in": "query", "pointer": "/high-end", "detail": "'sNaN' is not a finite number"},
        ]
        for text in ("nan", "inf", "-1", "1e999"):
            assert (await client.get(f"/one?x={text}")).status_code == 422
        assert (await client.get("/one?x=2")).json() == 2.0
