"""The conformance kit of cache backends.

    import pytest
    from covet.testing.conformance.cache import CacheBackendConformance

    class TestShelf(CacheBackendConformance):
        @pytest.fixture
        async def backend(self, tmp_path):
            async with open_shelf(tmp_path) as shelf:
                yield shelf

It needs pytest, anyio's pytest plugin and hypothesis, and runs on the event loops that the fixture `anyio_backend`
names.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from covet.cache.backends import CacheBackend, LocalCacheBackend
from covet.testing.conformance.faults import at_every_await
from covet.testing.conformance.kits import first_difference

__all__ = ["CacheBackendConformance"]

LONG = 1000.0
TOGETHER = 20

# What databases, globs and patterns like to treat as one, or as more than itself.
KEYS = [
    "a", "A", "a ", " a", "a:b", "a/b", "a%", "a_", "a*", "a?", "a[b]", "a\\", "a'", 'a"', "a;b", "a--", "a$1", "a.b",
    "\u00e9", "e\u0301", "\u00df", "ss", "SS", "\u0131", "i", "I", "\U0001f600", "\U0001f601", "\u4e2d\u6587", "\ufb01",
    "fi", "0", "00", "+0", "-0", "0.0", "None", "null", "k" * 250, "k" * 249 + "K", "\u00e9" * 250, "\U0001f600" * 250,
]  # fmt: skip

texts = st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=250)
few_keys = st.sampled_from(["a", "A", "b", "a:b", "a:c", "\u00e9", "x" * 250])
values = st.one_of(st.binary(max_size=64), st.integers(-100, 100).map(lambda number: b"%d" % number))
ttls = st.sampled_from([None, LONG])
operations = st.one_of(
    st.tuples(st.just("get"), few_keys),
    st.tuples(st.just("get_many"), st.lists(few_keys, max_size=5)),
    st.tuples(st.just("set"), few_keys, values, ttls),
    st.tuples(st.just("set_many"), st.dictionaries(few_keys, values, max_size=5), ttls),
    st.tuples(st.just("add"), few_keys, values, ttls),
    st.tuples(st.just("compare_and_set"), few_keys, st.one_of(st.none(), values), values, ttls),
    st.tuples(st.just("increment"), few_keys, st.integers(-(10**6), 10**6), ttls),
    st.tuples(st.just("touch"), few_keys, ttls),
    st.tuples(st.just("delete"), st.lists(few_keys, max_size=5, unique=True)),
    st.tuples(st.just("clear"), st.sampled_from(["", "a", "a:", "b", "\u00e9", "z"])),
)
many_examples = settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.differing_executors],
)


def is_number(value: bytes) -> bool:
    """Whether a value is a whole number in decimal digits."""
    return value.removeprefix(b"-").isdigit()


class Model:
    """What a backend is to do, as plainly as can be: a dict. Nothing expires here."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def apply(self, name: str, *arguments: Any) -> Any:
        """Do what the backend's method of that name does, and give what it gives; a ValueError as its class."""
        result: Any = getattr(self, name)(*arguments)
        return result

    def get(self, key: str) -> bytes | None:
        """As the protocol says."""
        return self.kept.get(key)

    def get_many(self, keys: list[str]) -> dict[str, bytes]:
        """As the protocol says."""
        return {key: self.kept[key] for key in keys if key in self.kept}

    def set(self, key: str, value: bytes, ttl: float | None) -> None:
        """As the protocol says."""
        self.kept[key] = value

    def set_many(self, values: dict[str, bytes], ttl: float | None) -> None:
        """As the protocol says."""
        self.kept |= values

    def add(self, key: str, value: bytes, ttl: float | None) -> bool:
        """As the protocol says."""
        return self.compare_and_set(key, None, value, ttl)

    def compare_and_set(self, key: str, expected: bytes | None, value: bytes, ttl: float | None) -> bool:
        """As the protocol says."""
        fits = self.kept.get(key) == expected
        if fits:
            self.kept[key] = value
        return fits

    def increment(self, key: str, by: int, ttl: float | None) -> int | type[ValueError]:
        """As the protocol says."""
        before = self.kept.get(key, b"0")
        if not is_number(before):
            return ValueError
        self.kept[key] = b"%d" % (int(before) + by)
        return int(self.kept[key])

    def touch(self, key: str, ttl: float | None) -> bool:
        """As the protocol says."""
        return key in self.kept

    def delete(self, keys: list[str]) -> int:
        """As the protocol says."""
        return sum(self.kept.pop(key, None) is not None for key in keys)

    def clear(self, prefix: str) -> None:
        """As the protocol says."""
        self.kept = {key: value for key, value in self.kept.items() if not key.startswith(prefix)}


async def together(calls: list[Callable[[], Awaitable[Any]]]) -> list[Any]:
    """What calls give that are made at the same time."""
    found: list[Any] = [None] * len(calls)

    async def run(number: int, call: Callable[[], Awaitable[Any]]) -> None:
        found[number] = await call()

    async with anyio.create_task_group() as group:
        for number, call in enumerate(calls):
            group.start_soon(run, number, call)
    return found


@pytest.mark.anyio
class CacheBackendConformance:
    """Every promise of `covet.cache.CacheBackend`. A subclass gives the fixture `backend`.

    Attributes:
        short: a time to live in seconds that the tests wait for, and twice it.
        largest: bytes of the largest value that the backend is to keep.
    """

    short: ClassVar[float] = 0.3
    largest: ClassVar[int] = 2**20

    @pytest.fixture
    async def backend(self) -> CacheBackend:
        """The backend, empty; to be overridden."""
        raise pytest.UsageError(f"{type(self).__name__} has to give the fixture `backend`: an empty cache backend")

    @pytest.fixture
    async def another(self, backend: CacheBackend) -> CacheBackend:
        """What another process would have of the same values; to be overridden where the backend is shared."""
        return backend

    async def expire(self) -> None:
        """Wait until what has `short` seconds to live is gone."""
        await anyio.sleep(self.short * 2)

    # Values

    async def test_it_is_a_cache_backend(self, backend: CacheBackend) -> None:
        """It has all methods, and says whether it is shared."""
        assert isinstance(backend, CacheBackend)
        assert isinstance(backend.shared, bool)

    @pytest.mark.parametrize("value", [b"", b"0", b"\x00", bytes(range(256)), b"\xc1\xff" * 100, b"caf\xc3\xa9 "])
    async def test_a_value_comes_back_as_it_was(self, backend: CacheBackend, value: bytes) -> None:
        """Every byte, none added, and as bytes."""
        await backend.set("key", value, None)
        found = await backend.get("key")
        assert type(found) is bytes
        assert found == value
        assert await backend.get_many(["key"]) == {"key": value}

    async def test_a_large_value_comes_back(self, backend: CacheBackend) -> None:
        """Up to what the backend is to keep."""
        value = bytes(range(256)) * (self.largest // 256)
        await backend.set("key", value, LONG)
        assert not (difference := first_difference(await backend.get("key"), value)), difference

    async def test_an_empty_value_is_a_value(self, backend: CacheBackend) -> None:
        """And not taken for none."""
        await backend.set("key", b"", None)
        assert not await backend.add("key", b"1", None)
        assert not await backend.compare_and_set("key", None, b"1", None)
        assert await backend.compare_and_set("key", b"", b"1", None)
        await backend.set("key", b"", None)
        assert await backend.touch("key", LONG)
        assert await backend.delete(["key"]) == 1

    async def test_what_is_missing_is_none(self, backend: CacheBackend) -> None:
        """One by one, and among others."""
        await backend.set("there", b"1", None)
        assert await backend.get("missing") is None
        assert await backend.get_many(["missing", "there", "there"]) == {"there": b"1"}
        assert await backend.get_many([]) == {}

    async def test_set_replaces_the_value_and_its_time(self, backend: CacheBackend) -> None:
        """The new time to live counts, whichever is longer."""
        await backend.set("kept", b"1", self.short)
        await backend.set("kept", b"2", None)
        await backend.set("gone", b"1", None)
        await backend.set("gone", b"2", self.short)
        assert await backend.get_many(["kept", "gone"]) == {"kept": b"2", "gone": b"2"}
        await self.expire()
        assert await backend.get_many(["kept", "gone"]) == {"kept": b"2"}

    async def test_set_many_sets_all(self, backend: CacheBackend) -> None:
        """A thousand at once; none of none."""
        many = {f"key {number}": b"%d" % number for number in range(1000)}
        await backend.set_many(many, LONG)
        await backend.set_many({}, None)
        assert await backend.get_many(list(many)) == many

    # Keys

    async def test_keys_that_differ_are_different(self, backend: CacheBackend) -> None:
        """In case, blanks, accents, length, or in what patterns and databases take for the same."""
        kept = {key: key.encode() for key in KEYS}
        for key, value in kept.items():
            assert await backend.add(key, value, LONG), f"{key!r} was taken for another key"
        assert await backend.get_many(KEYS) == kept
        for key in KEYS:
            assert await backend.delete([key]) == 1
            assert await backend.get(key) is None
            del kept[key]
            assert await backend.get_many(KEYS) == kept

    @given(data=st.dictionaries(texts, st.binary(max_size=16), max_size=8))
    @many_examples
    async def test_any_text_is_a_key(self, backend: CacheBackend, data: dict[str, bytes]) -> None:
        """Up to 250 characters without control characters."""
        await backend.clear()
        await backend.set_many(data, LONG)
        assert await backend.get_many(list(data)) == data
        for key, value in data.items():
            assert await backend.get(key) == value

    # Time

    async def test_a_value_lives_until_its_time_is_over(self, backend: CacheBackend) -> None:
        """And no longer, for `get` and `get_many`."""
        await backend.set("set", b"1", self.short)
        await backend.set_many({"many": b"1"}, self.short)
        await backend.add("add", b"1", self.short)
        await backend.compare_and_set("swap", None, b"1", self.short)
        await backend.increment("count", 1, self.short)
        names = ["set", "many", "add", "swap", "count"]
        assert len(await backend.get_many(names)) == 5
        await self.expire()
        assert await backend.get_many(names) == {}
        assert [await backend.get(name) for name in names] == [None] * 5

    async def test_what_is_expired_is_gone_for_every_method(self, backend: CacheBackend) -> None:
        """For those that ask whether there is a value, too."""
        for name in ("add", "swap", "expected", "count", "touch", "delete"):
            await backend.set(name, b"5", self.short)
        await self.expire()
        assert not await backend.touch("touch", LONG)
        assert await backend.delete(["delete"]) == 0
        assert not await backend.compare_and_set("expected", b"5", b"6", None)
        assert await backend.add("add", b"6", None)
        assert await backend.compare_and_set("swap", None, b"6", None)
        assert await backend.increment("count", 1, None) == 1
        assert await backend.get("touch") is None

    async def test_a_value_without_time_stays(self, backend: CacheBackend) -> None:
        """None is for ever, and a fraction of a second is no zero."""
        await backend.set("ever", b"1", None)
        await backend.set("long", b"1", 3600.5)
        await backend.set("fraction", b"1", self.short)
        assert await backend.get("fraction") == b"1"
        await self.expire()
        assert await backend.get_many(["ever", "long", "fraction"]) == {"ever": b"1", "long": b"1"}

    async def test_touch_gives_a_new_time(self, backend: CacheBackend) -> None:
        """Longer, shorter, or for ever; and the value stays."""
        await backend.set_many({"longer": b"1", "ever": b"2"}, self.short)
        await backend.set("shorter", b"3", None)
        assert await backend.touch("longer", LONG)
        assert await backend.touch("ever", None)
        assert await backend.touch("shorter", self.short)
        assert not await backend.touch("missing", LONG)
        await self.expire()
        assert await backend.get_many(["longer", "ever", "shorter", "missing"]) == {"longer": b"1", "ever": b"2"}

    # Conditions

    async def test_add_keeps_only_where_there_is_none(self, backend: CacheBackend) -> None:
        """And leaves value and time of what is there."""
        assert await backend.add("key", b"1", self.short)
        assert not await backend.add("key", b"2", None)
        assert await backend.get("key") == b"1"
        await self.expire()
        assert await backend.get("key") is None

    async def test_compare_and_set_keeps_only_what_was_expected(self, backend: CacheBackend) -> None:
        """None expects that there is none."""
        assert not await backend.compare_and_set("key", b"", b"1", None)
        assert await backend.get("key") is None
        assert await backend.compare_and_set("key", None, b"1", None)
        assert not await backend.compare_and_set("key", None, b"2", None)
        assert not await backend.compare_and_set("key", b"2", b"3", None)
        assert await backend.get("key") == b"1"
        assert await backend.compare_and_set("key", b"1", b"4", self.short)
        assert await backend.get("key") == b"4"
        await self.expire()
        assert await backend.get("key") is None

    async def test_of_many_who_add_one_succeeds(self, backend: CacheBackend, another: CacheBackend) -> None:
        """Also of those in another process."""
        places = [backend, another] * (TOGETHER // 2)

        def add(number: int) -> Callable[[], Awaitable[Any]]:
            return lambda: places[number].add("key", b"%d" % number, LONG)

        done = await together([add(number) for number in range(TOGETHER)])
        assert done.count(True) == 1
        assert await backend.get("key") == b"%d" % done.index(True)

    async def test_compare_and_set_loses_no_update(self, backend: CacheBackend, another: CacheBackend) -> None:
        """However many read, change and write at the same time."""
        await backend.set("key", b"0", None)

        def update(place: CacheBackend) -> Callable[[], Awaitable[Any]]:
            async def call() -> None:
                while True:
                    before = await place.get("key")
                    assert before is not None
                    await checkpoint()
                    if await place.compare_and_set("key", before, b"%d" % (int(before) + 1), None):
                        return

            return call

        await together([update(place) for place in [backend, another] * (TOGETHER // 2)])
        assert await backend.get("key") == b"%d" % TOGETHER

    async def test_a_value_is_never_torn(self, backend: CacheBackend, another: CacheBackend) -> None:
        """Who reads while others write sees what one of them wrote, as a whole."""
        size = min(self.largest, 2**16)

        def write(number: int) -> Callable[[], Awaitable[Any]]:
            return lambda: backend.set("key", bytes([number]) * size, None)

        async def read() -> None:
            for _ in range(5):
                value = await another.get("key")
                assert value is None or (len(value) == size and len(set(value)) == 1)

        await together([*(write(number) for number in range(TOGETHER)), read, read])

    # Counters

    async def test_a_counter_begins_at_zero_and_is_a_number_in_digits(self, backend: CacheBackend) -> None:
        """For `get` and `set`, too; and may be below zero."""
        assert await backend.increment("key", 5, None) == 5
        assert await backend.get("key") == b"5"
        assert await backend.increment("key", -8, None) == -3
        assert await backend.get("key") == b"-3"
        await backend.set("key", b"41", None)
        assert await backend.increment("key", 1, None) == 42
        assert await backend.increment("key", 0, None) == 42

    async def test_the_time_of_a_counter_counts_from_its_beginning(self, backend: CacheBackend) -> None:
        """Later calls change nothing of it, so that a window of time ends."""
        await backend.increment("short", 1, self.short)
        await backend.increment("short", 1, LONG)
        await backend.increment("ever", 1, None)
        await backend.increment("ever", 1, self.short)
        await self.expire()
        assert await backend.get_many(["short", "ever"]) == {"ever": b"2"}

    @pytest.mark.parametrize("value", [b"", b"a", b"1.5", b"0x1", b" 1", b"1 ", b"--1", b"\xff"])
    async def test_what_is_no_number_is_not_counted(self, backend: CacheBackend, value: bytes) -> None:
        """A ValueError, and the value stays."""
        await backend.set("key", value, None)
        with pytest.raises(ValueError):  # noqa: PT011 - its text is the backend's
            await backend.increment("key", 1, None)
        assert await backend.get("key") == value

    async def test_a_counter_has_64_bits(self, backend: CacheBackend) -> None:
        """Both ends can be reached, and none be passed."""
        for end, step in ((2**63 - 1, 1), (-(2**63), -1)):
            await backend.set("key", b"%d" % (end - step), None)
            assert await backend.increment("key", step, None) == end
            with pytest.raises(ValueError):  # noqa: PT011 - its text is the backend's
                await backend.increment("key", step, None)
            assert await backend.get("key") == b"%d" % end

    async def test_counters_count_everyone(self, backend: CacheBackend, another: CacheBackend) -> None:
        """Of many at the same time each gets a number of its own."""

        def count(place: CacheBackend) -> Callable[[], Awaitable[Any]]:
            return lambda: place.increment("key", 1, LONG)

        found = await together([count(place) for place in [backend, another] * (TOGETHER // 2)])
        assert sorted(found) == list(range(1, TOGETHER + 1))

    # Removing

    async def test_delete_removes_and_counts_what_was_there(self, backend: CacheBackend) -> None:
        """And nothing else."""
        await backend.set_many({"a": b"1", "b": b"2", "c": b"3"}, None)
        assert await backend.delete(["a", "missing", "b"]) == 2
        assert await backend.delete(["a"]) == 0
        assert await backend.delete([]) == 0
        assert await backend.get_many(["a", "b", "c"]) == {"c": b"3"}

    async def test_clear_removes_everything(self, backend: CacheBackend) -> None:
        """Without a prefix."""
        await backend.set_many(dict.fromkeys(KEYS, b"1"), None)
        await backend.clear()
        assert await backend.get_many(KEYS) == {}

    @pytest.mark.parametrize("prefix", ["a", "A", "a%", "a_", "a*", "a?", "a[", "a\\", "\u00e9", "e", "k" * 249, "a'"])
    async def test_clear_removes_what_begins_with_a_prefix(self, backend: CacheBackend, prefix: str) -> None:
        """Taken as it is, and no pattern."""
        await backend.set_many(dict.fromkeys(KEYS, b"1"), None)
        await backend.clear(prefix)
        assert set(await backend.get_many(KEYS)) == {key for key in KEYS if not key.startswith(prefix)}

    # Everything together

    @given(steps=st.lists(operations, max_size=30))
    @many_examples
    async def test_it_does_what_a_dict_does(self, backend: CacheBackend, steps: list[tuple[Any, ...]]) -> None:
        """Any calls in any order give what the model gives, and leave what it holds."""
        await backend.clear()
        model = Model()
        for name, *arguments in steps:
            expected = model.apply(name, *arguments)
            try:
                found = await getattr(backend, name)(*arguments)
            except ValueError:
                found = ValueError
            assert found == expected, f"{name}{tuple(arguments)}"
        every = ["a", "A", "b", "a:b", "a:c", "\u00e9", "x" * 250]
        assert await backend.get_many(every) == model.kept

    async def test_what_others_keep_is_seen(self, backend: CacheBackend, another: CacheBackend) -> None:
        """By all who share the backend."""
        if not backend.shared and another is not backend:
            pytest.fail("a backend with `another` has `shared = True`")
        await backend.set("key", b"1", None)
        assert await another.get("key") == b"1"
        assert await another.delete(["key"]) == 1
        assert await backend.get("key") is None

    async def test_a_local_backend_can_be_peeked_into(self, backend: CacheBackend) -> None:
        """What it has at once is what it gives."""
        if not isinstance(backend, LocalCacheBackend):
            return
        assert not backend.shared
        assert backend.peek("key") is None
        await backend.set("key", b"1", self.short)
        assert backend.peek("key") == b"1"
        await self.expire()
        assert backend.peek("key") is None

    @pytest.mark.parametrize(
        "call",
        [
            ("get", "key"),
            ("get_many", ["key", "other"]),
            ("set", "key", b"2", None),
            ("set_many", {"key": b"2"}, None),
            ("add", "new", b"2", None),
            ("compare_and_set", "key", b"1", b"2", None),
            ("increment", "key", 1, None),
            ("touch", "key", LONG),
            ("delete", ["key"]),
            ("clear", ""),
        ],
        ids=lambda call: str(call[0]),
    )
    async def test_a_call_may_be_cancelled_anywhere(self, backend: CacheBackend, call: tuple[Any, ...]) -> None:
        """It has done its work or has not, and the backend goes on working."""
        name, *arguments = call
        model = Model()
        model.kept = {"key": b"1", "other": b"1"}
        before = dict(model.kept)
        model.apply(name, *arguments)
        # Once, and again as often as it was called before it was cancelled at a later place.
        allowed = [before, model.kept]
        every = ["key", "other", "new"]
        await backend.set_many(before, None)

        async def check() -> None:
            assert await backend.get_many(every) in allowed
            await backend.clear()
            await backend.set_many(before, None)
            assert await backend.get_many(every) == before
            assert await backend.increment("count", 1, None) == 1
            assert await backend.delete(["count"]) == 1

        await at_every_await(lambda: getattr(backend, name)(*arguments), check)
