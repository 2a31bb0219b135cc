"""JSON bodies: what is malformed is a 400 with a position, what does not fit is a 422 with every fault."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Generic, NotRequired, TypedDict, TypeVar
from uuid import UUID

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covet.decoding import MAX_FAULTS, decode_json, fault_of, json_decoder
from covet.exceptions import HTTPError, ValidationError

T = TypeVar("T")


class Price(msgspec.Struct):
    amount: Annotated[int, msgspec.Meta(ge=0)]
    currency: str


class Item(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    item_name: str
    prices: list[Price] = []
    note: str | msgspec.UnsetType = msgspec.UNSET


class Order(msgspec.Struct):
    id: int
    items: list[Item]
    by_day: dict[date, int] = {}
    gift: Item | None = None


class Page(msgspec.Struct, Generic[T]):
    content: list[T]


class Tree(msgspec.Struct):
    children: list[Tree] = []
    weight: int = 0


class Cat(msgspec.Struct, tag=True, forbid_unknown_fields=True):
    lives: int


class Dog(msgspec.Struct, tag=True):
    tricks: list[str]


class Pair(msgspec.Struct, array_like=True):
    left: int
    right: int


class Range(msgspec.Struct):
    low: int
    high: int

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low is above high")


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Options(TypedDict):
    name: str
    depth: NotRequired[int]


@attrs.define
class Box:
    width: int
    height: int = 1


def faults(text: str | bytes, type_: Any) -> dict[str, str]:
    data = text.encode() if isinstance(text, str) else text
    with pytest.raises(ValidationError) as refused:
        decode_json(data, msgspec.json.Decoder(type_).decode, type_)
    assert all(fault.location == "body" for fault in refused.value.faults)
    assert refused.value.__cause__ is None
    return {fault.pointer: fault.detail for fault in refused.value.faults}


def refusal(data: bytes, type_: Any = Any) -> HTTPError:
    with pytest.raises(HTTPError) as refused:
        decode_json(data, msgspec.json.Decoder(type_).decode, type_)
    return refused.value


def test_what_fits_is_decoded() -> None:
    decoder = msgspec.json.Decoder(Point)
    assert decode_json(b'{"x": 1}', decoder.decode, Point) == Point(1)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"nope", "invalid character (byte "),
        (b'{"a": 1 "b"}', "(byte 8)"),
        (b'{"a": ', "truncated (byte 6)"),
        (b"NaN", "(byte 0)"),
        (b"[Infinity]", "(byte 1)"),
        (b"{} {}", "trailing characters (byte "),
        (b"\xef\xbb\xbf{}", "(byte 0)"),
        (b"'a'", "(byte 0)"),
        (b'"a\nb"', "(byte 2)"),
        (b'"\\ud800"', "not JSON"),
        (b'["ok", "\xff"]', "not UTF-8, as JSON is: invalid start byte (byte 8)"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"\0", "(byte 0)"),
    ],
)
def test_what_is_no_json_is_a_400_with_its_position(data: bytes, told: str) -> None:
    error = refusal(data)
    assert error.status == 400
    assert told in error.detail


@pytest.mark.parametrize(
    "data",
    [
        b'{"x": "wrong", "y": nope}',
        b'{"x": "wrong", "y": "\xff"}',
        b'{"x": "wrong", "y": ' + b"[" * 100_000,
        b'{"x": "wrong"',
    ],
)
def test_what_is_no_json_behind_a_fault_is_a_400_too(data: bytes) -> None:
    assert refusal(data, Point).status == 400


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1" + "0" * 5000])
def test_numbers_beyond_any_type_are_faults(number: str) -> None:
    assert list(faults(f'{{"a": [1, {number}]}}', Any)) == ["/a/1"]
    assert list(faults(f'{{"a": [1, {number}]}}', dict)) == ["/a/1"]


def test_every_fault_is_found() -> None:
    body = {
        "id": "x",
        "items": [
            {"itemName": 1, "prices": [{"amount": -1}, {"amount": 2, "currency": "EUR"}, 7]},
            {"itemName": "ok"},
            {"item_name": "ok", "a/b~c": 1},
        ],
        "gift": {"itemName": None, "note": 5},
    }
    assert faults(json.dumps(body), Order) == {
        "/id": "Expected `int`, got `str`",
        "/items/0/itemName": "Expected `str`, got `int`",
        "/items/0/prices/0/currency": "is required",
        "/items/0/prices/0/amount": "Expected `int` >= 0",
        "/items/0/prices/2": "Expected `object`, got `int`",
        "/items/2/itemName": "is required",
        "/items/2/item_name": "is not known here",
        "/items/2/a~1b~0c": "is not known here",
        "/gift/itemName": "Expected `str`, got `null`",
        "/gift/note": "Expected `str`, got `int`",
    }


@pytest.mark.parametrize(
    ("text", "type_", "expected"),
    [
        ('{"y": "b"}', Point, {"/x": "is required", "/y": "Expected `int`, got `str`"}),
        ('{"depth": "b"}', Options, {"/name": "is required", "/depth": "Expected `int`, got `str`"}),
        ('{"height": "b"}', Box, {"/width": "is required", "/height": "Expected `int`, got `str`"}),
        ('{"content": [{"x": 1}, {}]}', Page[Point], {"/content/1/x": "is required"}),
        ('{"a": 1, "c/d": null}', dict[str, int], {"/c~1d": "Expected `int`, got `null`"}),
        ('{"a": "x"}', Mapping[str, int], {"/a": "Expected `int`, got `str`"}),
        ('["a", 1, "b"]', list[int], {"/0": "Expected `int`, got `str`", "/2": "Expected `int`, got `str`"}),
        ('["a", 1]', Sequence[int], {"/0": "Expected `int`, got `str`"}),
        ('["a", 1]', set[int], {"/0": "Expected `int`, got `str`"}),
        ('["a", 1]', tuple[int, ...], {"/0": "Expected `int`, got `str`"}),
        ('["a", 1]', tuple[int, str], {"/0": "Expected `int`, got `str`", "/1": "Expected `str`, got `int`"}),
        ('[1]', tuple[int, str], {"": "Expected `array` of length 2"}),
        ('["a", 1]', list[int] | None, {"/0": "Expected `int`, got `str`"}),
        ("[]", Annotated[list[int], msgspec.Meta(min_length=1)], {"": "Expected `array` of length >= 1"}),
        ('["a"]', Annotated[list[int], msgspec.Meta(min_length=1)], {"/0": "Expected `int`, got `str`"}),
        ('"x"', Point, {"": "Expected `object`, got `str`"}),
        ("[1]", Point, {"": "Expected `object`, got `array`"}),
        ('{"x": 1}', list[int], {"": "Expected `array`, got `object`"}),
        ('{"x": 1}', int, {"": "Expected `int`, got `object`"}),
        ('["a", 2]', Pair, {"/0": "Expected `int`, got `str`"}),
        ('{"low": 2, "high": 1}', Range, {"": "low is above high"}),
        ('[{"low": 2, "high": 1}]', list[Range], {"/0": "low is above high"}),
        ('{"type": "Cat", "odd": 1}', Cat, {"/lives": "is required", "/odd": "is not known here"}),
        ('{"type": 5}', Cat, {"/lives": "is required", "/type": "Expected `str`"}),
        ('{"type": "Cow"}', Cat | Dog, {"/type": "Invalid value 'Cow'"}),
        ('{"type": "Dog", "tricks": [1]}', Cat | Dog, {"/tricks/0": "Expected `str`, got `int`"}),
        ('{"2020-13-01": 1}', dict[date, int], {"": "Invalid RFC3339 encoded date"}),
        ('["x"]', list[UUID], {"/0": "Invalid UUID"}),
        ('["x"]', list[Decimal], {"/0": "Invalid decimal string"}),
    ],
)  # fmt: skip
def test_faults_of_every_kind_of_type(text: str, type_: Any, expected: dict[str, str]) -> None:
    assert faults(text, type_) == expected


def test_a_recursive_type_is_followed_as_deep_as_is_cheap() -> None:
    text = '{"children": [' * 10 + '{"weight": "x"}' + "]}" * 10
    assert list(faults(text, Tree)) == ["/children/0" * 10 + "/weight"]
    text = '{"children": [' * 100 + '{"weight": "x"}' + "]}" * 100
    assert list(faults(text, Tree)) == ["/children/0" * 100 + "/weight"]


def test_the_number_of_faults_is_bounded() -> None:
    assert len(faults(json.dumps(["x"] * 10_000), list[int])) == MAX_FAULTS


def test_the_errors_of_msgspec_are_read() -> None:
    def fault(message: str) -> tuple[str, str]:
        found = fault_of("body", "/in", msgspec.ValidationError(message))
        return found.pointer, found.detail

    assert fault("Wrong") == ("/in", "Wrong")
    assert fault("Wrong - at `$`") == ("/in", "Wrong")
    assert fault("Wrong - at `$.a[0].b`") == ("/in/a/0/b", "Wrong")
    assert fault("Wrong - at `$.a[...].b`") == ("/in/a", "Wrong")
    assert fault("Wrong - at `key` in `$.a`") == ("/in/a", "Wrong")
    assert fault("Object missing required field `x/y` - at `$.a`") == ("/in/a/x~1y", "is required")
    assert fault("Object contains unknown field `x`") == ("/in/x", "is not known here")


TYPES: list[Any] = [
    Order, Page[Item], Tree, Cat | Dog, Cat, Pair, Range, Point, Options, Box, Any, dict, list, int, str, None,
    dict[str, Price], dict[int, list[str]], list[Order | None], tuple[int, Price], Decimal | None, list[UUID],
]  # fmt: skip
NAMES = ["id", "items", "itemName", "prices", "amount", "currency", "type", "x", "lives", "content"]
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(NAMES), inner),
)


@given(values, st.sampled_from(TYPES))
def test_a_body_fits_or_has_faults(value: Any, type_: Any) -> None:
    data = json.dumps(value).encode()
    decode = msgspec.json.Decoder(type_).decode
    try:
        expected = decode(data)
    except msgspec.ValidationError as first:
        found = faults(data, type_)
        assert found
        # The fault that msgspec stops at is among them, unless it is about a whole of which parts are told.
        pointer = fault_of("body", "", first).pointer
        assert any(other.startswith(pointer) for other in found)
    else:
        assert decode_json(data, decode, type_) == expected


@given(st.binary() | st.text(alphabet='[]{}",:0123456789.eE+-\\untrfalse \n').map(str.encode), st.sampled_from(TYPES))
def test_any_bytes_are_decoded_or_refused(data: bytes, type_: Any) -> None:
    try:
        decode_json(data, msgspec.json.Decoder(type_).decode, type_)
    except HTTPError as refused:
        assert refused.status in (400, 422)  # noqa: PT017 - or nothing is refused


# Defaults of dataclasses


@dataclasses.dataclass
class Line:
    text: str
    points: list[Point] = dataclasses.field(default_factory=list)
    colour: str = "black"


@dataclasses.dataclass(frozen=True)
class Drawing:
    lines: dict[str, Line]
    origin: Point | None = None
    scale: float = 1.0


@dataclasses.dataclass(slots=True)
class Slotted:
    inner: tuple[Point, ...] = ()
    size: int = 3


class Holder(msgspec.Struct):
    drawing: Drawing
    slotted: Slotted


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (Point, Point(1)),
        (list[Point], [Point(1), Point(2, 3)]),
        (Line, Line("a", [Point(1)])),
        (Drawing, Drawing({"a": Line("a")}, Point(5))),
        (Slotted, Slotted((Point(1),))),
        (Holder, Holder(Drawing({}), Slotted())),
        (Point | None, Point(7)),
    ],
)
def test_a_decoded_dataclass_has_its_defaults_and_keeps_them_when_encoded(type_: Any, value: Any) -> None:
    """msgspec by itself leaves them to the class, and out of the JSON that is made of the instance."""
    everything = json.loads(msgspec.json.encode(value))
    sparse = msgspec.json.encode(value).replace(b',"y":0', b"").replace(b',"colour":"black"', b"")
    for data in (sparse, sparse.replace(b',"scale":1.0', b""), msgspec.json.encode(value)):
        decoded = json_decoder(type_)(data)
        assert decoded == value
        assert json.loads(msgspec.json.encode(decoded)) == everything


def test_a_type_without_such_defaults_is_decoded_by_msgspec_alone() -> None:
    for type_ in (Order, Tree, Options, Box, int):
        assert isinstance(json_decoder(type_).__self__, msgspec.json.Decoder)  # type: ignore[attr-defined]
