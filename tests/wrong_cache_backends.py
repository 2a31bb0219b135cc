"""Cache backends each of which breaks one promise, and the test of the conformance kit that has to notice.

`tests/covet-core/test_cache_conformance.py` runs the kit on each, as somebody who writes a backend would.
"""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import pytest
from anyio.lowlevel import checkpoint

from covet.cache import CacheBackend
from covet.testing.conformance.cache import CacheBackendConformance

Kept = tuple[bytes, float | None]


class Right:
    """A backend that keeps every promise, and waits once in every method, as one behind a network does."""

    shared = True

    def __init__(self) -> None:
        self.kept: dict[str, Kept] = {}

    def now(self) -> float:
        return time.monotonic()

    def name(self, key: str) -> str:
        return key

    def expires(self, ttl: float | None) -> float | None:
        return None if ttl is None else self.now() + ttl

    def peeked(self, key: str) -> bytes | None:
        value, expires = self.kept.get(self.name(key), (None, None))
        return value if expires is None or expires > self.now() else None

    def put(self, key: str, value: bytes, ttl: float | None) -> None:
        self.kept[self.name(key)] = (value, self.expires(ttl))

    async def get(self, key: str) -> bytes | None:
        await checkpoint()
        return self.peeked(key)

    async def get_many(self, keys: Sequence[str]) -> dict[str, bytes]:
        await checkpoint()
        return {key: value for key in keys if (value := self.peeked(key)) is not None}

    async def set(self, key: str, value: bytes, ttl: float | None) -> None:
        await checkpoint()
        self.put(key, value, ttl)

    async def set_many(self, values: Mapping[str, bytes], ttl: float | None) -> None:
        await checkpoint()
        for key, value in values.items():
            self.put(key, value, ttl)

    async def add(self, key: str, value: bytes, ttl: float | None) -> bool:
        return await self.compare_and_set(key, None, value, ttl)

    async def compare_and_set(self, key: str, expected: bytes | None, value: bytes, ttl: float | None) -> bool:
        await checkpoint()
        fits = self.peeked(key) == expected
        if fits:
            self.put(key, value, ttl)
        return fits

    async def increment(self, key: str, by: int, ttl: float | None) -> int:
        await checkpoint()
        found = self.peeked(key)
        if found is not None and not found.removeprefix(b"-").isdigit():
            raise ValueError("no number")
        number = int(found or b"0") + by
        if not -(2**63) <= number < 2**63:
            raise ValueError("too large")
        expires = self.expires(ttl) if found is None else self.kept[self.name(key)][1]
        self.kept[self.name(key)] = (b"%d" % number, expires)
        return number

    async def touch(self, key: str, ttl: float | None) -> bool:
        await checkpoint()
        found = self.peeked(key)
        if found is not None:
            self.put(key, found, ttl)
        return found is not None

    async def delete(self, keys: Sequence[str]) -> int:
        await checkpoint()
        there = [key for key in keys if self.peeked(key) is not None]
        for key in there:
            del self.kept[self.name(key)]
        return len(there)

    async def clear(self, prefix: str = "") -> None:
        await checkpoint()
        self.kept = {key: kept for key, kept in self.kept.items() if not key.startswith(prefix)}


class NotSaying(Right):
    shared = "no"  # type: ignore[assignment]


class Stripping(Right):
    def put(self, key: str, value: bytes, ttl: float | None) -> None:
        super().put(key, value.rstrip(b" \x00"), ttl)


class Text(Right):
    def put(self, key: str, value: bytes, ttl: float | None) -> None:
        super().put(key, value.decode("latin-1").encode("ascii", "replace"), ttl)


class Array(Right):
    async def get(self, key: str) -> bytes | None:
        found = await super().get(key)
        return None if found is None else bytearray(found)  # type: ignore[return-value]


class Truncating(Right):
    def put(self, key: str, value: bytes, ttl: float | None) -> None:
        super().put(key, value[:65535], ttl)


class EmptyIsNone(Right):
    async def compare_and_set(self, key: str, expected: bytes | None, value: bytes, ttl: float | None) -> bool:
        await checkpoint()
        fits = (self.peeked(key) or None) == (expected or None)
        if fits:
            self.put(key, value, ttl)
        return fits


class NoneForMissing(Right):
    async def get_many(self, keys: Sequence[str]) -> dict[str, bytes]:
        await checkpoint()
        return {key: self.peeked(key) for key in keys}  # type: ignore[misc]


class KeepingTheTime(Right):
    async def set(self, key: str, value: bytes, ttl: float | None) -> None:
        await checkpoint()
        before = self.kept.get(key)
        self.put(key, value, ttl)
        if before is not None and self.peeked(key) is not None:
            self.kept[key] = (value, before[1])


class SettingAHundred(Right):
    async def set_many(self, values: Mapping[str, bytes], ttl: float | None) -> None:
        await super().set_many(dict(list(values.items())[:100]), ttl)


class LowerCase(Right):
    def name(self, key: str) -> str:
        return key.lower()


class NoBlanks(Right):
    def name(self, key: str) -> str:
        return key.strip()


class Normalising(Right):
    def name(self, key: str) -> str:
        return unicodedata.normalize("NFC", key)


class NoEmptyKey(Right):
    def peeked(self, key: str) -> bytes | None:
        return super().peeked(key) if key else None


class NeverExpiring(Right):
    def expires(self, ttl: float | None) -> float | None:
        return None


class WholeSeconds(Right):
    def expires(self, ttl: float | None) -> float | None:
        return super().expires(None if ttl is None else int(ttl))


class NoneIsBrief(Right):
    def expires(self, ttl: float | None) -> float | None:
        return super().expires(0.2 if ttl is None else ttl)


class AddingBesideTheDead(Right):
    async def add(self, key: str, value: bytes, ttl: float | None) -> bool:
        await checkpoint()
        if key in self.kept:
            return False
        self.put(key, value, ttl)
        return True


class TouchingTheDead(Right):
    async def touch(self, key: str, ttl: float | None) -> bool:
        await checkpoint()
        if key not in self.kept:
            return False
        self.put(key, self.kept[key][0], ttl)
        return True


class TouchingForLongAlone(Right):
    async def touch(self, key: str, ttl: float | None) -> bool:
        await checkpoint()
        found = self.peeked(key)
        if found is not None and ttl is not None and ttl > 1:
            self.put(key, found, ttl)
        return found is not None


class AddRenewing(Right):
    async def add(self, key: str, value: bytes, ttl: float | None) -> bool:
        if await super().add(key, value, ttl):
            return True
        await self.touch(key, ttl)
        return False


class SettingUnlessDifferent(Right):
    async def compare_and_set(self, key: str, expected: bytes | None, value: bytes, ttl: float | None) -> bool:
        await checkpoint()
        found = self.peeked(key)
        fits = found is None or found == expected
        if fits:
            self.put(key, value, ttl)
        return fits


class AddInTwoSteps(Right):
    async def add(self, key: str, value: bytes, ttl: float | None) -> bool:
        if await self.get(key) is not None:
            return False
        await self.set(key, value, ttl)
        return True


class SwapInTwoSteps(Right):
    async def compare_and_set(self, key: str, expected: bytes | None, value: bytes, ttl: float | None) -> bool:
        if await self.get(key) != expected:
            return False
        await self.set(key, value, ttl)
        return True

    async def add(self, key: str, value: bytes, ttl: float | None) -> bool:
        await checkpoint()
        return self.peeked(key) is None and self.put(key, value, ttl) is None


class Tearing(Right):
    async def set(self, key: str, value: bytes, ttl: float | None) -> None:
        await checkpoint()
        half = len(value) // 2
        before = self.peeked(key) or bytes(len(value))
        self.put(key, value[:half] + before[half : len(value)], ttl)
        await checkpoint()
        self.put(key, value, ttl)


class CountingInItsOwnWay(Right):
    async def increment(self, key: str, by: int, ttl: float | None) -> int:
        number = await super().increment(key, by, ttl)
        value, expires = self.kept[key]
        self.kept[key] = (b"+" + value if number > 0 else value, expires)
        return number


class CountersRenewed(Right):
    async def increment(self, key: str, by: int, ttl: float | None) -> int:
        number = await super().increment(key, by, ttl)
        await self.touch(key, ttl)
        return number


class CountingAnything(Right):
    async def increment(self, key: str, by: int, ttl: float | None) -> int:
        if not (self.peeked(key) or b"0").removeprefix(b"-").isdigit():
            self.put(key, b"0", ttl)
        return await super().increment(key, by, ttl)


class CountingOn(Right):
    async def increment(self, key: str, by: int, ttl: float | None) -> int:
        await checkpoint()
        found = self.peeked(key)
        if found is not None and not found.removeprefix(b"-").isdigit():
            raise ValueError("no number")
        number = int(found or b"0") + by
        expires = self.expires(ttl) if found is None else self.kept[key][1]
        self.kept[key] = (b"%d" % number, expires)
        return number


class CountingInTwoSteps(Right):
    async def increment(self, key: str, by: int, ttl: float | None) -> int:
        number = int(await self.get(key) or b"0") + by
        await self.set(key, b"%d" % number, ttl)
        return number


class DeletingAskedFor(Right):
    async def delete(self, keys: Sequence[str]) -> int:
        await super().delete(keys)
        return len(keys)


class NeverClearing(Right):
    async def clear(self, prefix: str = "") -> None:
        await checkpoint()
        if prefix:
            await super().clear(prefix)


class ClearingPatterns(Right):
    async def clear(self, prefix: str = "") -> None:
        await checkpoint()
        self.kept = {key: kept for key, kept in self.kept.items() if not fnmatchcase(key, prefix + "*")}


class ClearingAnyCase(Right):
    async def clear(self, prefix: str = "") -> None:
        await checkpoint()
        self.kept = {key: kept for key, kept in self.kept.items() if not key.lower().startswith(prefix.lower())}


class ForgettingUnderLoad(Right):
    async def set(self, key: str, value: bytes, ttl: float | None) -> None:
        await super().set(key, value, ttl)
        if len(self.kept) > 3:
            self.kept.pop(next(iter(self.kept)))


class OfOneProcess(Right):
    """Says that it is shared; what another process would see is another one."""


class PeekingAtTheDead(Right):
    shared = False

    def peek(self, key: str) -> bytes | None:
        found = self.kept.get(key)
        return None if found is None else found[0]


class HalfDone(Right):
    async def set_many(self, values: Mapping[str, bytes], ttl: float | None) -> None:
        for key, value in values.items():
            self.kept.pop(key, None)
            await checkpoint()
            self.put(key, value, ttl)


class LockedForEver(Right):
    def __init__(self) -> None:
        super().__init__()
        self.locked = False

    async def increment(self, key: str, by: int, ttl: float | None) -> int:
        if self.locked:
            raise RuntimeError("locked")
        self.locked = True
        number = await super().increment(key, by, ttl)
        self.locked = False
        return number


WRONG = {
    NotSaying: "test_it_is_a_cache_backend",
    Stripping: "test_a_value_comes_back_as_it_was",
    Text: "test_a_value_comes_back_as_it_was",
    Array: "test_a_value_comes_back_as_it_was",
    Truncating: "test_a_large_value_comes_back",
    EmptyIsNone: "test_an_empty_value_is_a_value",
    NoneForMissing: "test_what_is_missing_is_none",
    KeepingTheTime: "test_set_replaces_the_value_and_its_time",
    SettingAHundred: "test_set_many_sets_all",
    LowerCase: "test_keys_that_differ_are_different",
    NoBlanks: "test_keys_that_differ_are_different",
    Normalising: "test_keys_that_differ_are_different",
    NoEmptyKey: "test_any_text_is_a_key",
    NeverExpiring: "test_a_value_lives_until_its_time_is_over",
    WholeSeconds: "test_a_value_without_time_stays",
    NoneIsBrief: "test_a_value_without_time_stays",
    AddingBesideTheDead: "test_what_is_expired_is_gone_for_every_method",
    TouchingTheDead: "test_what_is_expired_is_gone_for_every_method",
    TouchingForLongAlone: "test_touch_gives_a_new_time",
    AddRenewing: "test_add_keeps_only_where_there_is_none",
    SettingUnlessDifferent: "test_compare_and_set_keeps_only_what_was_expected",
    AddInTwoSteps: "test_of_many_who_add_one_succeeds",
    SwapInTwoSteps: "test_compare_and_set_loses_no_update",
    Tearing: "test_a_value_is_never_torn",
    CountingInItsOwnWay: "test_a_counter_begins_at_zero_and_is_a_number_in_digits",
    CountersRenewed: "test_the_time_of_a_counter_counts_from_its_beginning",
    CountingAnything: "test_what_is_no_number_is_not_counted",
    CountingOn: "test_a_counter_has_64_bits",
    CountingInTwoSteps: "test_counters_count_everyone",
    DeletingAskedFor: "test_delete_removes_and_counts_what_was_there",
    NeverClearing: "test_clear_removes_everything",
    ClearingPatterns: "test_clear_removes_what_begins_with_a_prefix",
    ClearingAnyCase: "test_clear_removes_what_begins_with_a_prefix",
    ForgettingUnderLoad: "test_it_does_what_a_dict_does",
    OfOneProcess: "test_what_others_keep_is_seen",
    PeekingAtTheDead: "test_a_local_backend_can_be_peeked_into",
    HalfDone: "test_a_call_may_be_cancelled_anywhere",
    LockedForEver: "test_a_call_may_be_cancelled_anywhere",
}
"""A wrong backend, and the test that has to fail for it."""


def kit(kind: type[Right]) -> type:
    """The kit for a backend."""

    class Kit(CacheBackendConformance):
        short = 0.1

        @pytest.fixture
        async def backend(self) -> CacheBackend:
            return kind()

        if kind is OfOneProcess:

            @pytest.fixture
            async def another(self, backend: CacheBackend) -> CacheBackend:
                return kind()

    return Kit


for _kind in (Right, *WRONG):
    globals()[f"Test{_kind.__name__}"] = kit(_kind)


@pytest.fixture
def anyio_backend() -> str:
    """One event loop is enough to be wrong on."""
    return "asyncio"
