"""The conformance kit of session stores."""

from __future__ import annotations

import time
from itertools import count
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from covet.sessions import SessionStore, StoredSession
from covet.testing.conformance.faults import at_every_await
from covet.testing.conformance.kits import EXAMPLES, ConformanceKit, first_difference

__all__ = ["SessionStoreConformance"]

_numbers = count(1)

# Texts that databases like to take for each other, or for something else.
TWINS = [
    "user", "User", "USER", "user ", " user", "üser", "u\u0308ser", "user\n", "u%", "u_", "'; --", "1", "01",
    "\U0001d7d9",
]  # fmt: skip

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40)

# What is called, with which key, new key and user, of which version; what is kept; and how long it lasts.
ACTIONS = ["create", "replace", "rotate", "touch", "delete", "end_user", "list_user", "purge", "wait", "end_all"]
STEPS = st.tuples(
    st.sampled_from(ACTIONS), st.integers(0, 3), st.integers(0, 3), st.integers(0, 1), st.integers(1, 3),
    st.binary(max_size=3), st.integers(0, 2), st.integers(1, 30), st.integers(1, 20),
)  # fmt: skip


class SessionStoreConformance(ConformanceKit):
    """What every session store promises. Subclass it, and give the fixture `store`:

        class TestShelf(SessionStoreConformance):
            @pytest.fixture
            def store(self, tmp_path):
                return Shelf(tmp_path / "sessions")

    A test gets a store that may hold sessions of other tests, as long as it makes no difference to them: keys and users
    are new in every test. What removes everybody's sessions is called, too. Time comes with the calls, so that no test
    waits for anything to expire; it begins with the present, for stores that have a clock beside.

    Attributes:
        many: how many tasks write at once in the tests of concurrency.
        largest: how many bytes of values a store must at least take.
    """

    many = 20
    largest = 2**20

    @pytest.fixture
    def store(self) -> SessionStore:
        """The store that is tested."""
        raise AssertionError("override the fixture `store`: it gives the session store that is tested")

    # What the tests make

    def key(self) -> bytes:
        """A key that no other test has."""
        return next(_numbers).to_bytes(8, "big") + b"\x00\xff'\"\x80 \n\x7f" + bytes(16)

    def user(self, name: str = "user") -> str:
        """A user that no other test has."""
        return f"{next(_numbers)}-{name}"

    def session(self, **fields: Any) -> StoredSession:
        """A session that lives for a thousand seconds, unless the fields say otherwise."""
        now = time.time()
        made: dict[str, Any] = {
            "values": b"\x80",
            "version": 1,
            "user": None,
            "created": now,
            "authenticated": None,
            "seen": now,
            "expires": now + 1000.0,
        }
        return StoredSession(**(made | fields))

    # Keeping

    async def test_a_session_is_there_as_it_was_kept(self, store: SessionStore) -> None:
        """Every field comes back: all bytes, the user, and times to the microsecond."""
        now = time.time()
        key, user = self.key(), self.user()
        kept = self.session(values=bytes(range(256)), user=user, created=now - 2.25, authenticated=now - 1.5, seen=now)
        assert await store.create(key, kept, now) is True
        assert await store.load(key, now) == kept

    async def test_a_session_without_user_and_values_is_there(self, store: SessionStore) -> None:
        """Neither is required."""
        now = time.time()
        key, kept = self.key(), self.session(values=b"")
        await store.create(key, kept, now)
        assert await store.load(key, now) == kept

    async def test_a_key_that_was_never_kept_is_nothing(self, store: SessionStore) -> None:
        """No method finds it, and none makes it."""
        now, key = time.time(), self.key()
        assert await store.load(key, now) is None
        assert await store.replace(key, self.session(version=2), 1, now) is False
        assert await store.touch(key, now, now + 10, now) is False
        assert await store.delete(key) is False
        assert await store.rotate(key, self.key(), self.session(version=2), 1, now) is False
        assert await store.load(key, now) is None

    async def test_a_key_that_is_taken_is_not_kept_again(self, store: SessionStore) -> None:
        """`create` overwrites nothing."""
        now, key = time.time(), self.key()
        first = self.session(values=b"\x01")
        assert await store.create(key, first, now) is True
        assert await store.create(key, self.session(values=b"\x02"), now) is False
        assert await store.load(key, now) == first

    async def test_keys_differ_in_every_byte(self, store: SessionStore) -> None:
        """Keys are bytes: nothing is text, ignores case or ends at a NUL."""
        now = time.time()
        key = self.key()
        others = [key[:31] + b"\x01", b"\x41" + key[1:], b"\x61" + key[1:], key[:20] + b" " + key[21:]]
        for number, each in enumerate([key, *others]):
            assert await store.create(each, self.session(values=b"%d" % number), now) is True
        for number, each in enumerate([key, *others]):
            found = await store.load(each, now)
            assert found is not None
            assert found.values == b"%d" % number

    async def test_large_values_are_kept_whole(self, store: SessionStore) -> None:
        """What is too large for a column is not cut off."""
        now, key = time.time(), self.key()
        values = bytes(range(256)) * (self.largest // 256)
        await store.create(key, self.session(values=values), now)
        found = await store.load(key, now)
        assert found is not None
        assert not (difference := first_difference(found.values, values)), difference

    async def test_a_deleted_session_is_gone(self, store: SessionStore) -> None:
        """From the store and from its user's sessions."""
        now, key, user = time.time(), self.key(), self.user()
        await store.create(key, self.session(user=user), now)
        assert await store.delete(key) is True
        assert await store.load(key, now) is None
        assert list(await store.list_user(user, now)) == []
        assert await store.delete(key) is False
        assert await store.replace(key, self.session(version=2), 1, now) is False

    # Changing

    async def test_a_session_is_replaced_by_who_knows_its_version(self, store: SessionStore) -> None:
        """All of its fields, and whose it is."""
        now, key, user = time.time(), self.key(), self.user()
        await store.create(key, self.session(), now)
        second = self.session(values=b"\x02", version=2, user=user, authenticated=now, expires=now + 50.5)
        assert await store.replace(key, second, 1, now) is True
        assert await store.load(key, now) == second
        assert [each for each, _ in await store.list_user(user, now)] == [key]

    async def test_a_session_of_another_version_is_not_replaced(self, store: SessionStore) -> None:
        """Who has read an older one hears of it."""
        now, key = time.time(), self.key()
        await store.create(key, self.session(), now)
        second = self.session(values=b"\x02", version=2)
        assert await store.replace(key, second, 1, now) is True
        assert await store.replace(key, self.session(values=b"\x03", version=2), 1, now) is False
        assert await store.replace(key, self.session(values=b"\x03", version=4), 3, now) is False
        assert await store.load(key, now) == second

    async def test_of_many_who_replace_one_version_one_succeeds(self, store: SessionStore) -> None:
        """Comparing and setting is one step."""
        now, key = time.time(), self.key()
        await store.create(key, self.session(), now)
        done: list[int] = []

        async def replace(number: int) -> None:
            if await store.replace(key, self.session(values=b"%d" % number, version=2), 1, now):
                done.append(number)

        async with anyio.create_task_group() as group:
            for number in range(self.many):
                group.start_soon(replace, number)
        assert len(done) == 1
        found = await store.load(key, now)
        assert found is not None
        assert found.values == b"%d" % done[0]

    async def test_nothing_is_lost_by_those_who_try_again(self, store: SessionStore) -> None:
        """A counter in a session counts them all."""
        now, key = time.time(), self.key()
        await store.create(key, self.session(values=b"0"), now)

        async def add() -> None:
            while True:
                found = await store.load(key, now)
                assert found is not None
                made = self.session(values=b"%d" % (int(found.values) + 1), version=found.version + 1)
                if await store.replace(key, made, found.version, now):
                    return
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as group:
            for _ in range(self.many):
                group.start_soon(add)
        found = await store.load(key, now)
        assert found is not None
        assert (found.values, found.version) == (b"%d" % self.many, self.many + 1)

    async def test_of_many_who_create_one_key_one_succeeds(self, store: SessionStore) -> None:
        """Looking and keeping is one step."""
        now, key = time.time(), self.key()
        done: list[int] = []

        async def create(number: int) -> None:
            if await store.create(key, self.session(values=b"%d" % number), now):
                done.append(number)

        async with anyio.create_task_group() as group:
            for number in range(self.many):
                group.start_soon(create, number)
        assert len(done) == 1

    # Rotation

    async def test_after_a_rotation_the_old_key_is_worthless(self, store: SessionStore) -> None:
        """It is gone for every method, and the new one has all."""
        now, old, new, user = time.time(), self.key(), self.key(), self.user()
        await store.create(old, self.session(), now)
        second = self.session(values=b"\x02", version=2, user=user, authenticated=now)
        assert await store.rotate(old, new, second, 1, now) is True
        assert await store.load(old, now) is None
        assert await store.load(new, now) == second
        assert [key for key, _ in await store.list_user(user, now)] == [new]
        assert await store.replace(old, self.session(version=2), 1, now) is False
        assert await store.touch(old, now, now + 10, now) is False

    async def test_a_session_of_another_version_is_not_rotated(self, store: SessionStore) -> None:
        """Nothing changes then, under either key."""
        now, old, new = time.time(), self.key(), self.key()
        first = self.session(version=7)
        await store.create(old, first, now)
        assert await store.rotate(old, new, self.session(version=7), 6, now) is False
        assert await store.load(old, now) == first
        assert await store.load(new, now) is None

    async def test_of_many_who_rotate_a_session_one_succeeds(self, store: SessionStore) -> None:
        """A session never becomes two."""
        now, old, user = time.time(), self.key(), self.user()
        await store.create(old, self.session(user=user), now)
        keys = [self.key() for _ in range(self.many)]
        done: list[bytes] = []

        async def rotate(key: bytes) -> None:
            if await store.rotate(old, key, self.session(version=2, user=user), 1, now):
                done.append(key)

        async with anyio.create_task_group() as group:
            for key in keys:
                group.start_soon(rotate, key)
        assert len(done) == 1
        assert [key for key, _ in await store.list_user(user, now)] == done

    # Time

    async def test_an_expired_session_is_gone_for_every_method(self, store: SessionStore) -> None:
        """From the very second that it says, and it is not revived."""
        now, key, user = time.time(), self.key(), self.user()
        await store.create(key, self.session(user=user, expires=now + 100), now)
        assert await store.load(key, now + 99.9) is not None
        later = now + 100
        assert await store.load(key, later) is None
        assert list(await store.list_user(user, later)) == []
        assert await store.touch(key, later, later + 100, later) is False
        assert await store.replace(key, self.session(version=2, expires=later + 100), 1, later) is False
        assert await store.rotate(key, self.key(), self.session(version=2, expires=later + 100), 1, later) is False
        assert await store.load(key, later) is None

    async def test_the_key_of_an_expired_session_is_free(self, store: SessionStore) -> None:
        """What has expired is in nobody's way."""
        now, key = time.time(), self.key()
        await store.create(key, self.session(expires=now + 100), now)
        second = self.session(values=b"\x02", expires=now + 300)
        assert await store.create(key, second, now + 200) is True
        assert await store.load(key, now + 200) == second

    async def test_a_touched_session_lives_longer_and_is_the_same(self, store: SessionStore) -> None:
        """Only the two times change."""
        now, key, user = time.time(), self.key(), self.user()
        first = self.session(values=b"\x05", user=user, authenticated=now, expires=now + 100)
        await store.create(key, first, now)
        assert await store.touch(key, now + 50, now + 150, now + 50) is True
        found = await store.load(key, now + 120)
        assert found is not None
        assert (found.seen, found.expires) == (now + 50, now + 150)
        assert (found.values, found.version, found.user) == (first.values, first.version, first.user)
        assert (found.created, found.authenticated) == (first.created, first.authenticated)
        assert await store.load(key, now + 150) is None

    async def test_whoever_touches_is_in_nobodys_way(self, store: SessionStore) -> None:
        """Touching is no change that a writer has to hear of."""
        now, key = time.time(), self.key()
        await store.create(key, self.session(), now)
        await store.touch(key, now + 1, now + 500, now + 1)
        assert await store.replace(key, self.session(version=2), 1, now + 1) is True

    async def test_purging_removes_the_expired_and_no_other(self, store: SessionStore) -> None:
        """And tells how many."""
        now = time.time()
        await store.purge(now)
        short, long = [self.key() for _ in range(3)], [self.key() for _ in range(2)]
        user = self.user()
        for key in short:
            await store.create(key, self.session(user=user, expires=now + 10), now)
        for key in long:
            await store.create(key, self.session(user=user, expires=now + 100), now)
        assert await store.purge(now + 9) == 0
        assert await store.purge(now + 10) == len(short)
        assert await store.purge(now + 10) == 0
        for key in long:
            assert await store.load(key, now + 10) is not None
        for key in short:
            # Nothing is left of it, even for who believes that it is earlier.
            assert await store.load(key, now) is None
        assert sorted(key for key, _ in await store.list_user(user, now)) == sorted(long)

    # Users

    async def test_the_sessions_of_a_user_are_listed(self, store: SessionStore) -> None:
        """Those and no others."""
        now, user = time.time(), self.user()
        kept = {self.key(): self.session(user=user, values=b"%d" % number) for number in range(3)}
        for key, session in kept.items():
            await store.create(key, session, now)
        await store.create(self.key(), self.session(user=self.user()), now)
        await store.create(self.key(), self.session(), now)
        assert dict(await store.list_user(user, now)) == kept
        assert list(await store.list_user(self.user(), now)) == []

    async def test_a_session_that_gets_another_user_is_listed_there_alone(self, store: SessionStore) -> None:
        """The index follows."""
        now, key, before, after = time.time(), self.key(), self.user(), self.user()
        await store.create(key, self.session(user=before), now)
        await store.replace(key, self.session(user=after, version=2), 1, now)
        assert list(await store.list_user(before, now)) == []
        assert [each for each, _ in await store.list_user(after, now)] == [key]
        assert await store.end_user(before, None) == 0
        assert await store.load(key, now) is not None

    async def test_ending_a_users_sessions_ends_all_of_them_and_no_other(self, store: SessionStore) -> None:
        """At once, and it tells how many."""
        now, user, other = time.time(), self.user(), self.user()
        ours, theirs = [self.key() for _ in range(3)], [self.key(), self.key()]
        for key in ours:
            await store.create(key, self.session(user=user), now)
        await store.create(theirs[0], self.session(user=other), now)
        await store.create(theirs[1], self.session(), now)
        assert await store.end_user(user, None) == len(ours)
        assert [await store.load(key, now) for key in ours] == [None] * len(ours)
        assert None not in [await store.load(key, now) for key in theirs]
        assert list(await store.list_user(user, now)) == []
        assert await store.end_user(user, None) == 0

    async def test_ending_a_users_other_sessions_keeps_the_one(self, store: SessionStore) -> None:
        """The one that is named."""
        now, user = time.time(), self.user()
        keys = [self.key() for _ in range(3)]
        for key in keys:
            await store.create(key, self.session(user=user), now)
        assert await store.end_user(user, keys[1]) == 2
        assert [key for key, _ in await store.list_user(user, now)] == [keys[1]]
        # The key of another's session keeps nothing.
        assert await store.end_user(user, self.key()) == 1

    async def test_ending_everybodys_sessions(self, store: SessionStore) -> None:
        """Those that have no user, too."""
        now, user = time.time(), self.user()
        await store.end_all()
        keys = [self.key() for _ in range(4)]
        for number, key in enumerate(keys):
            await store.create(key, self.session(user=user if number % 2 else None), now)
        assert await store.end_all() == len(keys)
        assert [await store.load(key, now) for key in keys] == [None] * len(keys)
        assert list(await store.list_user(user, now)) == []
        assert await store.end_all() == 0

    async def test_an_ended_session_is_not_brought_back(self, store: SessionStore) -> None:
        """Not by who has read it before."""
        now, key, user = time.time(), self.key(), self.user()
        await store.create(key, self.session(user=user), now)
        await store.end_user(user, None)
        assert await store.replace(key, self.session(user=user, version=2), 1, now) is False
        assert await store.rotate(key, self.key(), self.session(user=user, version=2), 1, now) is False
        assert await store.touch(key, now, now + 10, now) is False
        assert list(await store.list_user(user, now)) == []

    async def test_users_that_look_alike_are_not_the_same(self, store: SessionStore) -> None:
        """Whatever a database thinks of case, accents, spaces and wildcards."""
        now, prefix = time.time(), self.user("")
        keys = {prefix + twin: self.key() for twin in TWINS}
        for user, key in keys.items():
            await store.create(key, self.session(user=user), now)
        for user, key in keys.items():
            assert [(each, one.user) for each, one in await store.list_user(user, now)] == [(key, user)]
        for user in keys:
            assert await store.end_user(user, None) == 1

    async def test_a_user_may_have_the_longest_text(self, store: SessionStore) -> None:
        """255 characters of any size, of which the last one counts."""
        now, first, second = time.time(), self.key(), self.key()
        start = self.user("").ljust(254, "\U0001f36a")
        await store.create(first, self.session(user=start + "a"), now)
        await store.create(second, self.session(user=start + "b"), now)
        assert [key for key, _ in await store.list_user(start + "a", now)] == [first]
        assert await store.end_user(start + "b", None) == 1

    @EXAMPLES
    @given(name=TEXTS, values=st.binary(max_size=200))
    async def test_any_text_may_be_a_user_and_any_bytes_values(
        self, store: SessionStore, name: str, values: bytes
    ) -> None:
        """With hypothesis."""
        now, key, user = time.time(), self.key(), self.user(name)
        kept = self.session(user=user, values=values)
        assert await store.create(key, kept, now) is True
        assert list(await store.list_user(user, now)) == [(key, kept)]
        assert await store.end_user(user, None) == 1

    # Concurrency and cancellation

    async def test_ending_and_rotating_at_once_leaves_no_session(self, store: SessionStore) -> None:
        """One that escapes being ended was rotated by somebody who was told so."""
        now, user = time.time(), self.user()
        olds = [self.key() for _ in range(self.many)]
        for old in olds:
            await store.create(old, self.session(user=user), now)
        rotated: dict[bytes, bool] = {}

        async def rotate(old: bytes) -> None:
            new = self.key()
            rotated[new] = await store.rotate(old, new, self.session(user=user, version=2), 1, now)

        async with anyio.create_task_group() as group:
            for number, old in enumerate(olds):
                group.start_soon(rotate, old)
                if number == self.many // 2:
                    group.start_soon(store.end_user, user, None)
        # Each was rotated before everything was ended, or was not there any more, or came after.
        alive = {key for key, _ in await store.list_user(user, now)}
        assert alive <= {key for key, done in rotated.items() if done}
        for old in olds:
            assert await store.load(old, now) is None

    async def test_a_cancelled_call_has_done_all_of_its_work_or_none(self, store: SessionStore) -> None:
        """Wherever it waits."""
        now, user = time.time(), self.user()
        old, new = self.key(), self.key()
        first = self.session(user=user)
        second = self.session(values=b"\x02", user=user, version=2)

        async def begin() -> None:
            await store.delete(old)
            await store.delete(new)
            await store.create(old, first, now)
            await store.rotate(old, new, second, 1, now)

        async def check() -> None:
            there = {await store.load(old, now), await store.load(new, now)} - {None}
            assert there in (set(), {first}, {second}), "a rotation was done by half"
            assert {one for _, one in await store.list_user(user, now)} == there, (
                "the index is not that of the sessions"
            )

        await at_every_await(begin, check)

    async def test_a_store_works_after_a_call_was_cancelled(self, store: SessionStore) -> None:
        """It holds on to nothing, such as a lock or a connection."""
        now, user = time.time(), self.user()
        key = self.key()

        async def call() -> None:
            await store.create(key, self.session(user=user), now)
            await store.load(key, now)
            await store.touch(key, now, now + 500, now)
            await store.replace(key, self.session(user=user, version=2), 1, now)
            await store.list_user(user, now)
            await store.end_user(user, None)
            await store.purge(now)

        async def check() -> None:
            await store.end_user(user, None)
            other = self.key()
            with anyio.fail_after(10):
                assert await store.create(other, self.session(user=user), now) is True
                assert [each for each, _ in await store.list_user(user, now)] == [other]
                assert await store.end_user(user, None) == 1

        await at_every_await(call, check)

    # A model

    # Drawn before the test begins: what hypothesis raises inside of it would end the task that all fixtures live in.
    @EXAMPLES
    @given(steps=st.lists(STEPS, min_size=1, max_size=25))
    async def test_it_behaves_as_a_dictionary_would(self, store: SessionStore, steps: list[tuple[Any, ...]]) -> None:
        """Random calls, each compared with what a dictionary of sessions says."""
        await store.end_all()
        now = time.time()
        keys, users = [self.key() for _ in range(4)], [self.user(), self.user()]
        model: dict[bytes, StoredSession] = {}
        for action, first, second, whose, version, values, owner, lifetime, pause in steps:
            key, new, user = keys[first], keys[second], users[whose]
            found = model.get(key)
            alive = found if found is not None and found.expires > now else None
            fits = alive is not None and alive.version == version
            made = self.session(
                values=values,
                version=version + 1,
                user=[*users, None][owner],
                expires=now + lifetime,
            )
            if action == "wait":
                now += pause
            elif action == "create":
                assert await store.create(key, made, now) is (alive is None)
                model |= {key: made} if alive is None else {}
            elif action == "replace":
                assert await store.replace(key, made, version, now) is fits
                model |= {key: made} if fits else {}
            elif action == "rotate":
                other = model.get(new)
                if key == new or (other is not None and other.expires > now):
                    continue  # the new key is random: it is never that of another session
                assert await store.rotate(key, new, made, version, now) is fits
                if fits:
                    del model[key]
                    model[new] = made
            elif action == "touch":
                assert await store.touch(key, now, made.expires, now) is (alive is not None)
                if alive is not None:
                    model[key] = replace(alive, seen=now, expires=made.expires)
            elif action == "delete":
                # Whether one that has expired is still there is the store's affair.
                gone = await store.delete(key)
                assert gone is True if alive is not None else gone in (True, False)
                model.pop(key, None)
            elif action == "end_user":
                mine = {each for each, one in model.items() if one.user == user and each != key}
                ended = await store.end_user(user, key)
                assert len([each for each in mine if model[each].expires > now]) <= ended <= len(mine)
                for each in mine:
                    del model[each]
            elif action == "purge":
                await store.purge(now)
                model = {each: one for each, one in model.items() if one.expires > now}
            elif action == "end_all":
                await store.end_all()
                model.clear()
            living = {each: one for each, one in model.items() if one.expires > now}
            for each in keys:
                assert await store.load(each, now) == living.get(each)
            for each_user in users:
                expected = {each: one for each, one in living.items() if one.user == each_user}
                assert dict(await store.list_user(each_user, now)) == expected
