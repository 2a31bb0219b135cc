"""The conformance kit of session stores: a store in a database passes it, and one that breaks a promise does not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from msgspec.structs import replace
from tests.kits import failed_tests
from tests.sqlite_sessions import SQLiteSessions

from covet.builtin.sessions import MemorySessionStore
from covet.sessions import SessionStore, StoredSession
from covet.testing.conformance.sessions import SessionStoreConformance


class TestSQLiteSessions(SessionStoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> SQLiteSessions:
        return SQLiteSessions(tmp_path / "sessions.db")


class KeepsTheExpired(MemorySessionStore):
    async def load(self, key: bytes, now: float) -> StoredSession | None:
        return await super().load(key, 0)


class ExpiresLate(MemorySessionStore):
    """Gone after its last second, not with it."""

    async def load(self, key: bytes, now: float) -> StoredSession | None:
        return await super().load(key, now - 1)


class OverwritesTakenKeys(MemorySessionStore):
    async def create(self, key: bytes, session: StoredSession, now: float) -> bool:
        await self.delete(key)
        return await super().create(key, session, now)


class IgnoresVersions(MemorySessionStore):
    async def replace(self, key: bytes, session: StoredSession, expected: int, now: float) -> bool:
        found = await self.load(key, now)
        return found is not None and await super().replace(key, session, found.version, now)


class ChecksThenWrites(MemorySessionStore):
    """Compares, lets others in, and sets."""

    async def replace(self, key: bytes, session: StoredSession, expected: int, now: float) -> bool:
        found = await self.load(key, now)
        await anyio.lowlevel.checkpoint()
        if found is None or found.version != expected:
            return False
        await self.delete(key)
        return await self.create(key, session, now)


class BringsBackWhatEnded(MemorySessionStore):
    async def replace(self, key: bytes, session: StoredSession, expected: int, now: float) -> bool:
        if await self.load(key, now) is None:
            return await self.create(key, session, now)
        return await super().replace(key, session, expected, now)


class KeepsTheOldKey(MemorySessionStore):
    async def rotate(self, old: bytes, new: bytes, session: StoredSession, expected: int, now: float) -> bool:
        found = await self.load(old, now)
        return found is not None and found.version == expected and await self.create(new, session, now)


class RotatesInTwoSteps(MemorySessionStore):
    """May be cancelled between the two."""

    async def rotate(self, old: bytes, new: bytes, session: StoredSession, expected: int, now: float) -> bool:
        found = await self.load(old, now)
        if found is None or found.version != expected or not await self.create(new, session, now):
            return False
        await anyio.lowlevel.checkpoint()
        return await self.delete(old)


class RotatesAnyVersion(MemorySessionStore):
    async def rotate(self, old: bytes, new: bytes, session: StoredSession, expected: int, now: float) -> bool:
        found = await self.load(old, now)
        return found is not None and await super().rotate(old, new, session, found.version, now)


class TouchingIsAWrite(MemorySessionStore):
    async def touch(self, key: bytes, seen: float, expires: float, now: float) -> bool:
        found = await self.load(key, now)
        if found is None:
            return False
        changed = replace(found, seen=seen, expires=expires, version=found.version + 1)
        return await self.replace(key, changed, found.version, now)


class TouchingDoesNothing(MemorySessionStore):
    async def touch(self, key: bytes, seen: float, expires: float, now: float) -> bool:
        return await self.load(key, now) is not None


class TouchingRevives(MemorySessionStore):
    async def touch(self, key: bytes, seen: float, expires: float, now: float) -> bool:
        return await super().touch(key, seen, expires, 0)


class IgnoresCase(MemorySessionStore):
    """As a database does whose collation says so."""

    async def list_user(self, user: str, now: float) -> Sequence[tuple[bytes, StoredSession]]:
        users = [each for each in self._users if each.casefold() == user.casefold()]
        return [found for each in users for found in await super(IgnoresCase, self).list_user(each, now)]


class TrimsUsers(MemorySessionStore):
    async def create(self, key: bytes, session: StoredSession, now: float) -> bool:
        user = None if session.user is None else session.user.rstrip()
        return await super().create(key, replace(session, user=user), now)


class CutsUsersShort(MemorySessionStore):
    async def create(self, key: bytes, session: StoredSession, now: float) -> bool:
        user = None if session.user is None else session.user[:200]
        return await super().create(key, replace(session, user=user), now)


class ForgetsTheIndexOfReplaced(MemorySessionStore):
    async def replace(self, key: bytes, session: StoredSession, expected: int, now: float) -> bool:
        found = await self.load(key, now)
        if found is None or found.version != expected:
            return False
        self._sessions[key] = session
        return True


class ListsTheExpired(MemorySessionStore):
    async def list_user(self, user: str, now: float) -> Sequence[tuple[bytes, StoredSession]]:
        return await super().list_user(user, 0)


class EndsAllButForgetsOne(MemorySessionStore):
    async def end_user(self, user: str, keep: bytes | None) -> int:
        keys = [key for key in self._users.get(user, ()) if key != keep]
        return sum([await self.delete(key) for key in keys[1:]])


class EndsTheKeptToo(MemorySessionStore):
    async def end_user(self, user: str, keep: bytes | None) -> int:
        return await super().end_user(user, None)


class EndsOnlyTheSignedIn(MemorySessionStore):
    async def end_all(self) -> int:
        return sum([await self.end_user(user, None) for user in list(self._users)])


class PurgesNothing(MemorySessionStore):
    async def purge(self, now: float) -> int:
        return 0


class PurgesTooMuch(MemorySessionStore):
    async def purge(self, now: float) -> int:
        return await super().purge(now + 60)


class CutsValuesShort(MemorySessionStore):
    """As a BLOB of MariaDB does: 65,535 bytes."""

    async def create(self, key: bytes, session: StoredSession, now: float) -> bool:
        return await super().create(key, replace(session, values=session.values[:65535]), now)


class RoundsTimes(MemorySessionStore):
    async def create(self, key: bytes, session: StoredSession, now: float) -> bool:
        return await super().create(key, replace(session, created=float(int(session.created))), now)


class KeysAreText(MemorySessionStore):
    """As a column of text does that ends at a NUL."""

    async def create(self, key: bytes, session: StoredSession, now: float) -> bool:
        return await super().create(key.rstrip(b"\0"), session, now)

    async def load(self, key: bytes, now: float) -> StoredSession | None:
        return await super().load(key.lower().rstrip(b"\0"), now)


class StaysLocked(MemorySessionStore):
    """A call that is cancelled while it holds the lock never gives it back."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = anyio.Semaphore(1)

    async def load(self, key: bytes, now: float) -> StoredSession | None:
        await self.lock.acquire()
        await anyio.lowlevel.checkpoint()
        self.lock.release()
        return await super().load(key, now)

    async def create(self, key: bytes, session: StoredSession, now: float) -> bool:
        async with self.lock:
            return await super().create(key, session, now)


# Each with the test of the kit that is to catch it.
WRONG: list[tuple[type[MemorySessionStore], str]] = [
    (KeepsTheExpired, "test_an_expired_session_is_gone_for_every_method"),
    (ExpiresLate, "test_an_expired_session_is_gone_for_every_method"),
    (OverwritesTakenKeys, "test_a_key_that_is_taken_is_not_kept_again"),
    (IgnoresVersions, "test_a_session_of_another_version_is_not_replaced"),
    (ChecksThenWrites, "test_of_many_who_replace_one_version_one_succeeds"),
    (BringsBackWhatEnded, "test_an_ended_session_is_not_brought_back"),
    (KeepsTheOldKey, "test_after_a_rotation_the_old_key_is_worthless"),
    (RotatesInTwoSteps, "test_a_cancelled_call_has_done_all_of_its_work_or_none"),
    (RotatesAnyVersion, "test_a_session_of_another_version_is_not_rotated"),
    (TouchingIsAWrite, "test_whoever_touches_is_in_nobodys_way"),
    (TouchingDoesNothing, "test_a_touched_session_lives_longer_and_is_the_same"),
    (TouchingRevives, "test_an_expired_session_is_gone_for_every_method"),
    (IgnoresCase, "test_users_that_look_alike_are_not_the_same"),
    (TrimsUsers, "test_users_that_look_alike_are_not_the_same"),
    (CutsUsersShort, "test_a_user_may_have_the_longest_text"),
    (ForgetsTheIndexOfReplaced, "test_a_session_that_gets_another_user_is_listed_there_alone"),
    (ListsTheExpired, "test_an_expired_session_is_gone_for_every_method"),
    (EndsAllButForgetsOne, "test_ending_a_users_sessions_ends_all_of_them_and_no_other"),
    (EndsTheKeptToo, "test_ending_a_users_other_sessions_keeps_the_one"),
    (EndsOnlyTheSignedIn, "test_ending_everybodys_sessions"),
    (PurgesNothing, "test_purging_removes_the_expired_and_no_other"),
    (PurgesTooMuch, "test_purging_removes_the_expired_and_no_other"),
    (CutsValuesShort, "test_large_values_are_kept_whole"),
    (RoundsTimes, "test_a_session_is_there_as_it_was_kept"),
    (KeysAreText, "test_keys_differ_in_every_byte"),
    (StaysLocked, "test_a_store_works_after_a_call_was_cancelled"),
]


@pytest.mark.parametrize(("wrong", "caught_by"), WRONG, ids=lambda value: getattr(value, "__name__", ""))
def test_a_store_that_breaks_a_promise_fails_the_kit(wrong: type[MemorySessionStore], caught_by: str) -> None:
    class Kit(SessionStoreConformance):
        @pytest.fixture
        def store(self) -> SessionStore:
            return wrong()

    assert caught_by in failed_tests(Kit, only=caught_by)
