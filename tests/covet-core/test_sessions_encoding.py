"""The values of sessions: they come back as the types they were, and what cannot be kept says so."""

from __future__ import annotations

import enum
import math
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import attrs
import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from covet.sessions import SessionValueError
from covet.sessions.encoding import decode, decode_all, encode, encode_all, key_name
from covet.sessions.values import MISSING, Values

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.binary(),
    st.datetimes(),
    st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-3, minutes=-30))])),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.uuids(),
    st.decimals(allow_nan=False),
)
KEYS = st.one_of(st.text(st.characters(exclude_categories=["Cs"])), st.integers(), st.uuids(), st.dates(), st.none())
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(KEYS, inner, max_size=4),
        st.sets(SCALARS, max_size=4),
        st.frozensets(SCALARS, max_size=4),
    ),
    max_leaves=12,
)


def types(value: Any) -> Any:
    """The types of a value and of all that is in it."""
    if isinstance(value, dict):
        return dict, [(types(key), types(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [types(item) for item in value]
    if isinstance(value, set | frozenset):
        return type(value), sorted(str(types(item)) for item in value)
    return type(value)


@given(VALUES)
def test_values_come_back_as_the_types_they_were(value: Any) -> None:
    data = encode("key", value)
    found = decode("key", data)
    assert found == value
    assert types(found) == types(value)
    # What did not change is recognised by its bytes.
    assert encode("key", found) == data


def test_what_is_no_number_comes_back_too() -> None:
    assert math.isnan(decode("key", encode("key", float("nan"))))
    assert decode("key", encode("key", Decimal("sNaN"))).is_snan()
    assert str(decode("key", encode("key", -0.0))) == "-0.0"


def test_true_and_one_stay_apart() -> None:
    assert [type(each) for each in decode("key", encode("key", [True, 1, 1.0, "1", b"1"]))] == [
        bool, int, float, str, bytes,
    ]  # fmt: skip


def test_equal_sets_are_equal_bytes() -> None:
    names = [f"name {number}" for number in range(50)]
    other: set[str] = set()
    for name in reversed(names):
        other.add(name)
    assert encode("key", set(names)) == encode("key", other)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), SCALARS, max_size=5))
def test_a_session_is_split_into_its_values(values: dict[str, Any]) -> None:
    stored = decode_all(encode_all({key: encode(key, value) for key, value in values.items()}))
    assert {key: decode(key, data) for key, data in stored.items()} == values


@given(st.binary(max_size=60))
@example(b"\x81\xa4\x00\x00\x00\x80")  # a name that is no UTF-8
def test_bytes_that_are_no_session_are_an_error_of_ours(data: bytes) -> None:
    for read in (lambda: decode_all(data), lambda: decode("key", data), lambda: decode(Cart, data)):
        try:
            read()
        except SessionValueError:
            continue


class Colour(enum.Enum):
    RED = 1


class Text(str):
    """No plain str."""


endless: list[Any] = []
endless.append(endless)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (object(), "builtins.object"),
        ({"a": [1, {object}]}, "builtins.type"),
        (Colour.RED, "Colour"),
        (Text("x"), "Text"),
        (OrderedDict(), "collections.OrderedDict"),
        (1j, "complex"),
        (lambda: None, "function"),
        ("\ud800", "surrogates"),
        ({"\ud800": 1}, "surrogates"),
        (endless, "nested deeper than 32"),
        (bytearray(b"x"), "bytearray"),
    ],
    # Not `str`: of an object that is its address, and runs side by side have to agree on the names of tests.
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_cannot_be_kept_is_refused_with_key_and_type(value: Any, told: str) -> None:
    with pytest.raises(SessionValueError, match="'basket'") as caught:
        encode("basket", value)
    assert type(value).__qualname__ in str(caught.value)
    assert told in str(caught.value)


@pytest.mark.parametrize("key", ["\0name", "\ud800", 1, None, ("a",), b"a", Text("x")])
def test_what_is_no_key(key: Any) -> None:
    with pytest.raises(SessionValueError, match="key"):
        key_name(key)


# Values under their type


class Line(msgspec.Struct):
    article: UUID
    price: Decimal


class Cart(msgspec.Struct):
    lines: list[Line] = []
    begun: datetime | None = None


@dataclass
class Place:
    name: str
    visited: set[date]


@attrs.define
class Wish:
    at: time
    tags: tuple[str, ...] = ()


class Plain:
    """Nothing that msgspec knows."""


@pytest.mark.parametrize(
    "value",
    [
        Cart([Line(UUID(int=5), Decimal("1.10"))], datetime(2026, 1, 1, tzinfo=UTC)),
        Place("Rome", {date(2026, 1, 1), date(2025, 1, 1)}),
        Wish(time(12, 30), ("a", "b")),
    ],
)
def test_a_value_under_its_type_comes_back_as_such(value: Any) -> None:
    found = decode(type(value), encode(type(value), value))
    assert type(found) is type(value)
    assert found == value


def test_a_type_takes_its_own_values_and_only_what_comes_back() -> None:
    with pytest.raises(SessionValueError, match=r"session\[Cart\].*Place.*a Cart was expected"):
        encode(Cart, Place("x", set()))
    with pytest.raises(SessionValueError, match=r"session\[Plain\]"):
        encode(Plain, Plain())
    # Without the check of types at runtime, this would break the next request.
    with pytest.raises(SessionValueError, match=r"session\[Place\].*not come back"):
        encode(Place, Place(5, set()))  # type: ignore[arg-type]


# What became of them in a request


def stored(**values: Any) -> dict[str, bytes]:
    return {key: encode(key, value) for key, value in values.items()}


def test_reading_changes_nothing() -> None:
    values = Values(stored(a=1, b=[1, {"x": {2}}], c={"k": "v"}))
    assert [values.get(key, key) for key in "abcd"] == [1, [1, {"x": {2}}], {"k": "v"}, MISSING]
    assert values.changes() == {}


def test_what_is_changed_in_place_is_noticed() -> None:
    values = Values(stored(a=[1], b={"x": [1]}, c=({1}, 2), d=[1]))
    values.get("a", "a").append(2)
    values.get("b", "b")["x"].append(2)
    values.get("c", "c")[0].add(3)
    values.get("d", "d")
    assert values.changes() == stored(a=[1, 2], b={"x": [1, 2]}, c=({1, 3}, 2))
    new: list[Any] = []
    values.set("e", "e", new)
    new.append(1)
    assert values.changes()["e"] == encode("e", [1])
    new.append(object())
    with pytest.raises(SessionValueError, match="'e'"):
        values.changes()


def test_a_value_under_its_type_is_watched_and_a_new_field_is_no_change() -> None:
    name = key_name(Cart)
    # As it was stored by a release whose Cart had no `begun`.
    values = Values({name: msgspec.msgpack.encode({"lines": []})})
    cart = values.get(Cart, name)
    assert cart == Cart()
    assert values.changes() == {}
    cart.lines.append(Line(UUID(int=1), Decimal(1)))
    assert values.changes() == {name: encode(Cart, cart)}


def test_the_same_value_again_is_no_change() -> None:
    values = Values(stored(a=1))
    values.set("a", "a", 2)
    values.set("a", "a", 1)
    values.set("b", "b", 1)
    values.delete("b")
    assert values.changes() == {}


def test_rebasing_keeps_what_others_did() -> None:
    values = Values(stored(ours=1, theirs=1, both=1, gone=1, count=10, read=[1]))
    values.set("ours", "ours", 2)
    values.set("both", "both", 2)
    values.get("read", "read")
    values.get("theirs", "theirs")
    values.delete("gone")
    assert values.transform("count", "count", lambda number: number + 1, 0) == 11
    assert values.transform("count", "count", lambda number: number + 1, 0) == 12
    assert values.transform("fresh", "fresh", lambda number: number + 1, 0) == 1
    fresh = stored(ours=1, theirs=7, both=7, count=100, read=[1, 2], more=5, fresh=41)
    assert values.rebase(fresh) == {
        "ours": encode("", 2), "both": encode("", 2), "count": encode("", 102), "fresh": encode("", 42),
    }  # fmt: skip
    assert {name: values.get(name, name) for name in values.names()} == {
        "ours": 2, "theirs": 7, "both": 2, "count": 102, "read": [1, 2], "more": 5, "fresh": 42,
    }  # fmt: skip


def test_what_was_assigned_and_then_transformed_is_assigned() -> None:
    values = Values(stored(count=10))
    values.set("count", "count", 0)
    values.transform("count", "count", lambda number: number + 1, 0)
    assert values.rebase(stored(count=50)) == {"count": encode("", 1)}


def test_what_was_transformed_and_then_changed_in_place_is_assigned() -> None:
    values = Values(stored(items=[1]))
    values.transform("items", "items", lambda items: [*items, 2], []).append(3)
    values.changes()
    assert values.rebase(stored(items=[9])) == {"items": encode("", [1, 2, 3])}


# A model: sessions of two requests at once, key by key

CHANGE = st.one_of(
    st.tuples(st.just("set"), st.sampled_from("abc"), st.integers(0, 9)),
    st.tuples(st.just("add"), st.sampled_from("abc"), st.integers(1, 9)),
    st.tuples(st.just("delete"), st.sampled_from("abc"), st.just(0)),
    st.tuples(st.just("get"), st.sampled_from("abc"), st.just(0)),
)


def apply(values: Values, change: tuple[str, str, int]) -> None:
    what, key, number = change
    if what == "set":
        values.set(key, key, number)
    elif what == "add":
        values.transform(key, key, lambda before: before + number, 0)
    elif what == "delete" and key in values:
        values.delete(key)
    elif what == "get":
        values.get(key, key)


def test_values_that_nobody_has_changed_can_be_changed_in_every_way() -> None:
    base = stored(a=1, b=[2])
    for first in ("set", "transform", "delete", "look", "rebase", "forget_stored", "settle", "revert"):
        values = Values(base)
        assert (values.get("a", "a"), values.touched, values.changes()) == (1, False, {})
        if first == "set":
            values.set("a", "a", 3)
        elif first == "transform":
            assert values.transform("a", "a", lambda before: before + 2, 0) == 3
        elif first == "delete":
            values.delete("a")
        elif first == "look":
            values.get("b", "b").append(3)
        elif first == "rebase":
            assert values.rebase(stored(a=7)) == {}
        elif first == "settle":
            values.settle(stored(a=8))
        else:
            getattr(values, first)()
        expected = {
            "set": ([3, [2]], {"a": encode("a", 3)}), "transform": ([3, [2]], {"a": encode("a", 3)}),
            "delete": ([MISSING, [2]], {"a": None}), "look": ([1, [2, 3]], {"b": encode("b", [2, 3])}),
            "rebase": ([7, MISSING], {}), "forget_stored": ([MISSING, MISSING], {}), "settle": ([8, MISSING], {}),
            "revert": ([1, [2]], {}),
        }  # fmt: skip
        assert ([values.get(key, key) for key in "ab"], values.changes()) == expected[first]
    assert Values(base).changes() == {}, "no two have their changes in common"


@given(
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 9)),
    st.lists(CHANGE, max_size=6),
    st.lists(CHANGE, max_size=6),
)
def test_of_two_at_once_nothing_is_lost_but_to_the_last_who_assigns(
    first: dict[str, int], ours: list[tuple[str, str, int]], theirs: list[tuple[str, str, int]]
) -> None:
    base = stored(**first)
    mine, other = Values(base), Values(base)
    for change in theirs:
        apply(other, change)
    for change in ours:
        apply(mine, change)
    changed = other.merged(other.changes())
    touched = mine.changes().keys()
    final = {key: decode(key, data) for key, data in mine.merged(mine.rebase(changed)).items()}
    seen = {key: decode(key, data) for key, data in changed.items()}
    for key in "abc":
        mine_alone = [change for change in ours if change[1] == key and change[0] != "get"]
        if key not in touched:
            assert final.get(key) == seen.get(key)
        elif all(what == "add" for what, _, _ in mine_alone):
            assert final[key] == seen.get(key, 0) + sum(number for _, _, number in mine_alone)
    assert {key: mine.get(key, key) for key in mine.names()} == final
