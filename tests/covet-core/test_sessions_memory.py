"""The session store `memory`: what every store promises, and its bounds."""

from __future__ import annotations

import logging
import time

import pytest

from covet.builtin.sessions import MemorySessionSettings, MemorySessionStore
from covet.sessions import StoredSession
from covet.testing.conformance.sessions import SessionStoreConformance

pytestmark = pytest.mark.anyio


class TestMemorySessionStore(SessionStoreConformance):
    @pytest.fixture
    def store(self) -> MemorySessionStore:
        return MemorySessionStore()


def session(seen: float, values: bytes = b"\x80", user: str | None = None) -> StoredSession:
    return StoredSession(
        values=values, version=1, user=user, created=seen, authenticated=None, seen=seen, expires=seen + 1000
    )


async def test_beyond_its_number_those_go_that_were_not_used_for_longest(caplog: pytest.LogCaptureFixture) -> None:
    store = MemorySessionStore(MemorySessionSettings(max_sessions=3))
    now = time.time()
    for key in (b"a", b"b", b"c"):
        await store.create(key, session(now, user="u"), now)
    await store.touch(b"a", now, now + 1000, now)
    assert caplog.records == []
    await store.create(b"d", session(now), now)
    assert [await store.load(key, now) is not None for key in (b"a", b"b", b"c", b"d")] == [True, False, True, True]
    assert {key for key, _ in await store.list_user("u", now)} == {b"a", b"c"}
    assert "max_sessions" in caplog.text
    caplog.clear()
    await store.create(b"e", session(now), now + 1)
    assert caplog.text == ""  # once a minute is enough
    await store.create(b"f", session(now), now + 61)
    assert "no room" in caplog.text


async def test_the_expired_go_first_and_without_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    store = MemorySessionStore(MemorySessionSettings(max_sessions=1))
    now = time.time()
    await store.create(b"a", session(now - 2000), now - 2000)
    with caplog.at_level(logging.DEBUG):
        await store.create(b"b", session(now), now)
    assert (len(store), caplog.text) == (1, "")


async def test_it_is_bounded_in_bytes() -> None:
    store = MemorySessionStore(MemorySessionSettings(max_total_bytes=100_000))
    now = time.time()
    for number in range(100):
        await store.create(b"%d" % number, session(now, b"x" * 10_000, user=f"user {number}"), now)
    assert len(store) == 9
    assert await store.load(b"99", now) is not None
    # What is counted goes back to nothing, and the index with it.
    assert await store.end_all() == 9
    assert repr(store) == "<MemorySessionStore of 0 sessions, 0 bytes>"


async def test_what_is_removed_is_no_longer_counted() -> None:
    store = MemorySessionStore()
    now = time.time()
    await store.create(b"a", session(now, b"x" * 100, user="u"), now)
    await store.replace(b"a", session(now, b"x" * 50, user="v"), 1, now)
    await store.rotate(b"a", b"b", session(now, b"x" * 20), 1, now)
    await store.create(b"c", session(now, b"x", user="u"), now)
    await store.delete(b"b")
    await store.end_user("u", None)
    assert repr(store) == "<MemorySessionStore of 0 sessions, 0 bytes>"


async def test_one_that_is_larger_than_all_the_room_is_kept_alone() -> None:
    store = MemorySessionStore(MemorySessionSettings(max_total_bytes=1000))
    now = time.time()
    await store.create(b"a", session(now), now)
    assert await store.create(b"b", session(now, b"x" * 5000), now) is True
    assert (len(store), await store.load(b"b", now) is not None) == (1, True)
