"""What becomes of the values that handlers return."""

from __future__ import annotations

import enum
import math
import uuid
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, NamedTuple, TypedDict

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covet import Covet, HTMLResponse, Request, Response, hookimpl
from covet.encoding import Renderer, make_encoder
from covet.testing import TestClient

pytestmark = pytest.mark.anyio


class Item(msgspec.Struct):
    name: str


@dataclass
class Data:
    a: int


@attrs.define
class Attrs:
    a: int


class Typed(TypedDict):
    a: int


class Model(pydantic.BaseModel):
    when: datetime
    a: int = pydantic.Field(serialization_alias="A")


class Colour(enum.Enum):
    RED = "red"


class Pair(NamedTuple):
    left: str
    right: str


WHEN = datetime(2030, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (Item("x"), b'{"name":"x"}'),
        (Data(1), b'{"a":1}'),
        (Attrs(1), b'{"a":1}'),
        (Typed(a=1), b'{"a":1}'),
        (Model(when=WHEN, a=1), b'{"when":"2030-01-02T00:00:00Z","A":1}'),
        ([Model(when=WHEN, a=1)], b'[{"when":"2030-01-02T00:00:00Z","A":1}]'),
        (OrderedDict(b=1, a=2), b'{"b":1,"a":2}'),
        (Pair("l", "r"), b'["l","r"]'),
        (("a", "b", "c"), b'["a","b","c"]'),
        ((), b"[]"),
        ({"a"}, b'["a"]'),
        (frozenset({1}), b"[1]"),
        (Colour.RED, b'"red"'),
        (date(2030, 1, 2), b'"2030-01-02"'),
        (uuid.UUID(int=1), b'"00000000-0000-0000-0000-000000000001"'),
        (Decimal("0.10"), b'"0.10"'),
        (1.5, b"1.5"),
        (math.nan, b"null"),
        (2**63, b"9223372036854775808"),
        (False, b"false"),
        ({1: "a"}, b'{"1":"a"}'),
        ({"a": b"\xff"}, b'{"a":"/w=="}'),
    ],
)
def test_what_becomes_json(value: Any, encoded: bytes) -> None:
    renderer = Renderer({})
    for _ in range(2):
        response = renderer(value)
        assert (response.status, response.headers["content-type"]) == (200, "application/json")
        assert response.body == encoded


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_of_every_kind(kind: Any) -> None:
    response = Renderer({})(kind(b"ab"))
    assert (response.body, response.headers["content-type"]) == (b"ab", "application/octet-stream")
    assert type(response.body) is bytes


def test_nothing_is_204_and_text_is_text() -> None:
    render = Renderer({})
    assert (render(None).status, render(None).body) == (204, b"")
    assert "content-type" not in render(None).headers
    assert render(None, 201).status == 201
    assert (render("é").body, render("é", 404).status) == ("é".encode(), 404)
    assert render("").headers["content-type"] == "text/plain; charset=utf-8"


def test_body_status_and_headers() -> None:
    render = Renderer({})
    response = render(({"a": 1}, 201, {"Location": "/x", "content-type": "application/x+json"}))
    assert (response.status, response.headers["location"]) == (201, "/x")
    assert response.headers.getlist("content-type") == ["application/x+json"]
    assert render((None, 200)).status == 200
    assert render((["a"], 400)).body == b'["a"]'
    assert render((("a", 400), 401)).body == b"a"
    # True is an int, and no status.
    assert render(("a", True)).body == b'["a",true]'


def test_a_response_is_itself() -> None:
    response = HTMLResponse("<p>", 201)
    assert Renderer({})(response) is response
    assert Renderer({})(response, 202).status == 201, "a route's status is for values"


def test_a_status_for_a_response_is_refused_and_not_dropped() -> None:
    with pytest.raises(TypeError, match="give the status to the response"):
        Renderer({})((Response(), 201))


@pytest.mark.parametrize("status", [0, 2, 100, 199, 600, -1, 10**30])
def test_two_numbers_are_no_body_and_status_by_accident(status: int) -> None:
    with pytest.raises(ValueError, match=r"\(body, status\).*return a list for JSON"):
        Renderer({})((1, status))


def test_what_cannot_be_encoded_names_its_type() -> None:
    class Thing:
        pass

    def generator() -> Iterator[int]:
        yield 1

    for value in (Thing(), {"deep": [Thing()]}, Thing, generator(), 1j):
        with pytest.raises(TypeError, match=r"cannot be encoded as JSON; return a Struct.*covet_encoders"):
            Renderer({})(value)


def test_json_types_are_learned_and_tuples_are_not() -> None:
    render = Renderer({})
    for value in (Item("x"), (1, "a"), "text", b"bytes", None, Response()):
        render(value)
    assert render.json_types == {dict, list, Item}


class Money:
    def __init__(self, cents: int) -> None:
        self.cents = cents


class Tip(Money):
    pass


def test_an_encoder_serves_subclasses_and_the_nearest_class_wins() -> None:
    encode = make_encoder({Money: lambda m: {"cents": m.cents}})
    assert encode([Money(1), Tip(2)]) == b'[{"cents":1},{"cents":2}]'
    encode = make_encoder({Money: lambda m: m.cents, Tip: lambda t: [Money(t.cents)]})
    assert encode([Money(1), Tip(2)]) == b"[1,[2]]", "what an encoder returns is encoded in its turn"


class Encoders:
    """A plugin that brings an encoder."""

    @hookimpl
    def covet_encoders(self) -> dict[type, Any]:
        return {Money: lambda money: f"{money.cents / 100:.2f}"}


async def test_an_encoder_of_a_plugin_serves_handlers() -> None:
    app = Covet({}, installed_plugins=False, plugins=[Encoders()])

    @app.get("/{form}")
    async def price(form: str) -> Any:
        return {"plain": Money(250), "deep": {"price": [Tip(1)]}, "pair": (Money(1), 202)}[form]

    async with TestClient(app) as client:
        for _ in range(2):
            assert (await client.get("/plain")).json() == "2.50"
            assert (await client.get("/deep")).json() == {"price": ["0.01"]}
            got = await client.get("/pair")
            assert (got.status_code, got.json()) == (202, "0.01")


async def test_a_mistake_in_a_tuple_is_a_500_that_the_log_explains(caplog: pytest.LogCaptureFixture) -> None:
    app = Covet({}, installed_plugins=False)

    @app.get("/")
    async def point(request: Request) -> Any:
        return 3, 4

    async with TestClient(app, raise_errors=False) as client:
        assert (await client.get("/")).status_code == 500
    assert "4 is no HTTP status" in caplog.text


WORDS = st.text(st.characters(exclude_categories=["Cs"]))
NUMBERS = st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(WORDS, JSON, max_size=4))
def test_json_comes_back_as_it_was(value: dict[str, Any]) -> None:
    assert msgspec.json.decode(Renderer({})(value).body) == value
