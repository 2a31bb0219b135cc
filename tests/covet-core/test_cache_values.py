"""What is kept comes back as it was, and no two keys are one: codecs of values, keys and entries."""

from __future__ import annotations

import enum
import math
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import Struct

from covet.cache import CacheKeyError, CacheValueError
from covet.cache.entries import Entry, pack, unpack
from covet.cache.keys import backend_key, canonical, prefix_of
from covet.cache.values import decode, encode

Point = namedtuple("Point", "x y")


class User(Struct):
    name: str
    born: date


@dataclass
class Pair:
    left: int
    right: tuple[str, ...]


class Colour(enum.Enum):
    RED = "red"


ZONES = [UTC, timezone(timedelta(hours=-3, minutes=-30)), ZoneInfo("Europe/Berlin")]
any_text = st.text(st.characters(exclude_categories=()), max_size=20)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    any_text,
    st.binary(max_size=20),
    st.dates(),
    st.times(),
    st.datetimes(),
    st.datetimes(
        timezones=st.sampled_from([UTC, timezone(timedelta(hours=-3, minutes=-30)), ZoneInfo("Europe/Berlin")])
    ),
    st.timedeltas(),
    st.uuids(),
    st.decimals(allow_nan=False),
)
hashable = st.recursive(
    scalars, lambda inner: st.one_of(st.tuples(inner, inner), st.frozensets(inner, max_size=3)), max_leaves=5
)
anything = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.sets(hashable, max_size=4),
        st.dictionaries(hashable, inner, max_size=4),
        st.binary(max_size=4).map(bytearray),
    ),
    max_leaves=12,
)


def same(left: Any, right: Any) -> bool:
    """Equal, and of the same types all through."""
    if type(left) is not type(right):
        return False
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return len(left) == len(right) and all(same(a, b) for a, b in zip(left.items(), right.items(), strict=True))
    if isinstance(left, datetime | time):
        return left == right and left.fold == right.fold and str(left.tzinfo) == str(right.tzinfo)
    if isinstance(left, float):
        return left == right and math.copysign(1, left) == math.copysign(1, right)
    if isinstance(left, Decimal):
        return left.as_tuple() == right.as_tuple()
    return bool(left == right)


@given(anything)
@example("\ud83d\ude00")
@example({1: "a", (1, "b"): [2**70, -(2**65)], None: {"x"}})
@example(datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")))
def test_values_keep_their_types(value: Any) -> None:
    raw = encode(value, "key")
    assert same(decode(raw), value)
    # What an entry with more to it begins with, and what tells a number.
    assert raw[0] != 0xC1
    assert (raw[0] < 0x80) == (type(value) is int)


def test_a_value_is_the_readers_own() -> None:
    kept = {"list": [1]}
    raw = encode(kept, "key")
    decode(raw)["list"].append(2)
    kept["list"].append(3)
    assert decode(raw) == {"list": [1]}


@pytest.mark.parametrize("value", [0, 7, -7, 2**63 - 1, -(2**63), 10**100])
def test_a_whole_number_is_what_backends_count(value: int) -> None:
    assert encode(value, "key") == str(value).encode()


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (User("a", date(2000, 1, 1)), User),
        ([User("a", date(2000, 1, 1))], list[User]),
        (Pair(1, ("a", "b")), Pair),
        (Point(1, 2), Point),
        (Colour.RED, Colour),
        (5, int),
        (True, bool),
        ((1, "a"), tuple[int, str]),
        (None, User | None),
    ],
)
def test_with_a_type_values_have_it(value: Any, kind: Any) -> None:
    assert same(decode(encode(value, "key", kind), kind), value)


@pytest.mark.parametrize(
    ("value", "named", "advice"),
    [
        (User("a", date(2000, 1, 1)), "User", "type=User"),
        ({"users": [User("a", date(2000, 1, 1))]}, "User", "type=User"),
        (Pair(1, ()), "Pair", "type=Pair"),
        (Point(1, 2), "Point", "type=Point"),
        (Colour.RED, "Colour", "type=Colour"),
        (OrderedDict(a=1), "OrderedDict", "keep what it consists of"),
        (object(), "object", "keep what it consists of"),
        (lambda: 1, "function", "keep what it consists of"),
        ((number for number in ()), "generator", "keep what it consists of"),
        ([1, {2: {memoryview(b"")}}], "memoryview", "keep what it consists of"),
        (1j, "complex", "keep what it consists of"),
        (type("Text", (str,), {})("x"), "Text", "keep what it consists of"),
    ],
)
def test_what_cannot_be_encoded_is_named_with_its_key(value: Any, named: str, advice: str) -> None:
    with pytest.raises(CacheValueError, match=f"{named}.* cannot be kept .*'some key'.*{advice}"):
        encode(value, "some key")


def test_with_a_type_what_cannot_be_encoded_is_named_too() -> None:
    with pytest.raises(CacheValueError, match=r"'some key'.*object.*"):
        encode(object(), "some key", User)


def test_what_holds_itself_is_an_error() -> None:
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(CacheValueError, match=r"'k'.* holds itself"):
        encode(circle, "k")


def test_a_number_of_too_many_digits_is_an_error() -> None:
    raw = encode(10**4000, "k")
    assert decode(raw) == 10**4000


@given(st.binary(max_size=60))
def test_foreign_bytes_are_an_error_of_one_kind(raw: bytes) -> None:
    for read in (decode, lambda data: decode(data, User), unpack):
        try:
            read(raw)
        except ValueError:
            continue


@given(
    st.binary(max_size=20),
    st.floats(0, 1e10),
    st.one_of(st.floats(0, 1e10), st.just(math.inf)),
    st.floats(0, 1e5),
    st.dictionaries(st.text(max_size=60), st.binary(min_size=8, max_size=8), max_size=5),
)
def test_entries_come_back(
    payload: bytes, written: float, until: float, seconds: float, tags: dict[str, bytes]
) -> None:
    entry = Entry(payload, written, until, seconds, tags)
    assert unpack(pack(entry)) == entry


def test_an_entry_is_due_at_its_end_and_the_likelier_the_closer() -> None:
    entry = Entry(b"", 0.0, 100.0, 1.0, {})
    assert all(entry.due(100.0, beta) for beta in (0.0, 1.0))
    assert not any(entry.due(99.999, 0.0) for _ in range(1000))

    def early(now: float, beta: float, seconds: float = 1.0) -> int:
        return sum(entry._replace(seconds=seconds).due(now, beta) for _ in range(5000))

    # The share is exp(-left / (seconds * beta)).
    assert 1500 < early(99.0, 1.0) < 2200
    assert early(90.0, 1.0) < 10
    assert 1500 < early(90.0, 10.0) < 2200
    assert 1500 < early(90.0, 1.0, seconds=10.0) < 2200
    assert not Entry(b"", 0.0, math.inf, 1e9, {}).due(1e300, 1.0)


# Keys


@given(any_text, any_text)
@example("\ud83d\ude00", "\U0001f600")
@example("\ud800", "?")
@example("a\0", "a")
@example("x" * 100, "x" * 101)
@example("x" * 1000, "x" * 1001)
@example("x" * 1000 + "\0", "x" * 1000 + "\1")
@example("é", "e\u0301")
def test_any_text_is_a_key_of_its_own(left: str, right: str) -> None:
    keys = [backend_key("p:", "v", text) for text in (left, right)]
    assert (keys[0] == keys[1]) == (left == right)
    for key in keys:
        assert len(key) <= 250
        assert key.isprintable()
        key.encode()


def test_a_hash_is_no_key_that_somebody_could_choose() -> None:
    hashed = backend_key("p:", "v", "x" * 1000)
    assert backend_key("p:", "v", hashed.removeprefix("p:v=").removeprefix("p:v")) != hashed


@pytest.mark.parametrize("key", [None, 5, b"bytes", ("a",), ["a"]])
def test_a_key_is_text(key: Any) -> None:
    with pytest.raises(CacheKeyError, match="is text, not"):
        backend_key("", "v", key)


@given(st.lists(st.tuples(any_text, any_text, st.one_of(st.integers(), any_text)), min_size=2, max_size=2, unique=True))
@example([("a", "b", "c"), ("a/b", "", "c")])
@example([("", "a:1", 2), ("", "a", "1:2")])
def test_no_cache_begins_with_another(places: list[tuple[str, str, int | str]]) -> None:
    left, right = (prefix_of(*place) for place in places)
    one, other = ((shared, namespace, str(version)) for shared, namespace, version in places)
    if one != other:
        assert not left.startswith(right)
        assert not right.startswith(left)
    assert len(left) <= 140


@given(hashable, hashable)
@example(1, True)
@example(1, 1.0)
@example("1", 1)
@example(b"a", "a")
@example((1, (2,)), (1, 2))
@example(("a", "b"), ("ab",))
@example(0.0, -0.0)
@example(date(2000, 1, 1), datetime(2000, 1, 1))
@example(timedelta(1), Decimal(1))
def test_arguments_that_differ_make_keys_that_differ(left: Any, right: Any) -> None:
    assert (canonical(left) == canonical(right)) == same(left, right) or isinstance(left, frozenset | tuple)


def test_arguments_that_are_alike_make_one_key() -> None:
    assert canonical({"a": 1, "b": 2}) == canonical({"b": 2, "a": 1})
    assert canonical({1, 2, 3}) == canonical({3, 2, 1})
    assert canonical(Pair(1, ("a",))) == canonical(Pair(1, ("a",)))
    assert canonical(Pair(1, ("a",))) != canonical(Pair(1, ("b",)))
    assert canonical(Colour.RED) != canonical("red")
    assert canonical(User("a", date(2000, 1, 1))) != canonical(User("a", date(2000, 1, 2)))
    assert canonical(UUID(int=1)) != canonical(UUID(int=2))


@pytest.mark.parametrize("value", [object(), [object()], {"a": {1: object}}, lambda: 1, open, (x for x in ())])
def test_arguments_that_make_no_key(value: Any) -> None:
    with pytest.raises(CacheKeyError, match="makes no key"):
        canonical(value)
