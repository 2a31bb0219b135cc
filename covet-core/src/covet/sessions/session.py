"""A session: what a service remembers of one visitor from request to request."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Generator
from contextlib import asynccontextmanager
from random import random
from typing import TYPE_CHECKING, Any

import anyio

from covet.exceptions import HTTPError
from covet.requests import Request
from covet.responses import make_private
from covet.sessions.contents import Contents
from covet.sessions.encoding import Encoded
from covet.sessions.errors import SessionError
from covet.sessions.ids import checked_user, key_of, new_id
from covet.sessions.stores import StoredSession
from covet.sessions.values import Values

if TYPE_CHECKING:
    from covet.connections import Connection
    from covet.responses import Response
    from covet.sessions.manager import Sessions

__all__ = ["Session"]

logger = logging.getLogger("covet.sessions")

# Another's write is only ever in the way when it succeeded, so that many of these take very many requests at once.
ATTEMPTS = 100


class Session(Contents):
    """The session of a request or WebSocket: a mapping from text to values, and from a type to a value of that type.

        session = await request.session
        session["visits"] = session.get("visits", 0) + 1
        session[Cart] = Cart(items=[3])

    It is loaded from its store first: by awaiting it, or by a handler that asks for `session: Session`. What changed is
    saved before the response is sent, unless the response is an error of the server (5xx). Two requests of one session
    at a time change it key by key: of two that change the same key the last one wins, unless they `transform` it; other
    keys are not lost. A session that was ended or rotated meanwhile is not brought back: what else changes it is
    dropped.

    Values are None, bool, int, float, str, bytes, list, tuple, dict, set, frozenset, datetime, date, time, timedelta,
    UUID and Decimal, of exactly these types. Others are kept under their type, as far as msgspec knows it: a Struct,
    dataclass, attrs class, NamedTuple.
    """

    __slots__ = ("_connection", "_cookie", "_ended", "_finished", "_key", "_manager", "_open", "_record")

    def __init__(self, manager: Sessions, connection: Connection) -> None:
        # Written out instead of calling the base: this runs for every request that looks at its session.
        self._values = None
        self._manager = manager
        self._connection = connection
        self._key: bytes | None = None
        self._record: StoredSession | None = None
        # The text of the cookie that is still to be set; empty to delete it.
        self._cookie: str | None = None
        # Whether somebody else ended it.
        self._ended = False
        # Whether it had its turn at the response.
        self._finished = False
        # How many blocks of `saving` are open.
        self._open = 0

    def __repr__(self) -> str:
        # Values may be personal; a repr ends up in logs.
        if self._values is None:
            return "<Session, not loaded>"
        return f"<Session {'new' if self._key is None else self._key.hex()[:8] + '…'}>"

    # Loading

    def __await__(self) -> Generator[Any, Any, Session]:
        if self._values is None:
            connection = self._connection
            request = connection if isinstance(connection, Request) else None
            if request is not None:
                request.on_response(self._finish)
            # No coroutine where none has to wait: what is in memory or in the cookie is there.
            found = self._manager.start_finding(connection)
            if found is not None and not isinstance(found, tuple):
                found = yield from found.__await__()
            # Another task of this request may have been faster.
            if self._values is None:
                self._adopt(found)
                if request is None and self._record is not None:
                    # No response will note that it was used.
                    yield from self._touch(self._record).__await__()
        return self

    async def load(self) -> Session:
        """Load the session, once; what `await session` does. The response becomes private, with `Vary: Cookie`.

        A cancelled call leaves it as it was.

        Raises:
            SessionStoreError: the store is down, or took longer than `[sessions] timeout_seconds`: 503.
            CovetError: the response is on its way already.
        """
        return await self

    async def reload(self) -> Session:
        """Load it again: what other requests have made of it. Changes that are not saved are given up.

        A WebSocket that is open for hours learns that way that its session has ended: it is empty then, without user.

        Raises:
            SessionNotLoadedError: it was never loaded.
            SessionStoreError: the store is down.
        """
        self._loaded()
        if self._manager.sealed:
            self._loaded().revert()
        elif self._key is not None:
            self._adopt(await self._manager.reload(self._key))
            self._ended = self._key is None
        return self

    def _adopt(self, found: tuple[bytes, StoredSession, Encoded] | None) -> None:
        if found is None:
            self._key = self._record = None
            self._values = Values({})
        else:
            self._key, self._record, stored = found
            self._values = Values(stored)

    # Changing it

    def _writable(self) -> Values:
        values = self._loaded()
        if self._open:
            return values
        connection = self._connection
        if not isinstance(connection, Request):
            raise SessionError(
                "a WebSocket has no response with which its session is saved: change it within "
                "`async with session.saving():`"
            )
        if connection.finishers is None:
            raise SessionError(
                "the response is on its way, and the session was saved before it: change it earlier, or within "
                "`async with session.saving():`"
            )
        if self._finished:
            # By something else that finishes the response.
            self._finished = False
            connection.on_response(self._finish)
        return values

    @asynccontextmanager
    async def saving(self) -> AsyncIterator[Session]:
        """Change the session where no response saves it, in a WebSocket or a stream, and save it at the end.

            async with session.saving():
                session["progress"] = 50

        If the block raises, or they cannot be saved, all changes that are not saved are given up.

        Raises:
            SessionError: the session is new, and there is no response any more that could set its cookie.
            SessionStoreError: the store is down.
        """
        self._loaded()
        self._open += 1
        try:
            yield self
            await self._commit()
        except BaseException:
            self._loaded().revert()
            raise
        finally:
            self._open -= 1

    async def save(self) -> None:
        """Save the changes now, instead of before the response is sent; they stay saved whatever the response is.

        Cancelled, it has saved all of them or none.

        Raises:
            SessionTooLargeError: it has more than `[sessions] max_bytes` bytes, or does not fit into a cookie.
            SessionValueError: a value was changed in place to something that cannot be encoded.
            SessionError: as `saving`.
            SessionStoreError: the store is down.
        """
        self._loaded()
        await self._commit()

    # Who it is

    @property
    def user(self) -> str | None:
        """Whose session it is: what `bind` was given."""
        self._loaded()
        return None if self._record is None else self._record.user

    @property
    def handle(self) -> str | None:
        """A name for the session that gives no access to it, 64 hexadecimal digits; None while it is not stored.

        It changes when the session is rotated. In a log or a list, and to tie something to the session.
        """
        self._loaded()
        return None if self._key is None else self._key.hex()

    @property
    def is_new(self) -> bool:
        """Whether nothing is stored of it: the visitor has none, or one that has ended."""
        self._loaded()
        return self._record is None

    def fresh(self, max_age: float) -> bool:
        """Whether the user has proved within the last `max_age` seconds who it is: `bind` was called.

        For what should not be left to whoever finds an unlocked computer, such as changing the password (ASVS 7.5.3).
        """
        self._loaded()
        proved = None if self._record is None else self._record.authenticated
        return proved is not None and self._manager.clock() - proved <= max_age

    async def bind(self, user: str) -> None:
        """Make it the session of a user who has just proved who it is; called again, the user has proved it again.

        It gets a new id, and the old one is worthless from now on, so that nobody is signed in by an id that somebody
        else knows (session fixation). Values stay, unless the session was another user's: then only those that this
        request has assigned. Where it was ended meanwhile, a new one begins. All changes are saved at once.

        Args:
            user: 1 to 255 characters, such as `str(user.id)`; the same for `app.sessions.end(user)`.

        Raises:
            SessionValueError: `user` is no such text.
            SessionError: there is no response any more that could set the cookie.
            SessionTooLargeError, SessionStoreError: as `save`.
        """
        self._loaded()
        await self._commit(rotate=True, user=checked_user(user))

    async def rotate(self) -> None:
        """Give it a new id; the old one is worthless from now on. After every change of what the visitor may do.

        All changes are saved at once. A session that is not stored has no id yet, and needs no new one.

        Raises: as `bind`.
        """
        self._loaded()
        await self._commit(rotate=True)

    async def destroy(self) -> None:
        """End it: it is removed from the store at once, and the browser forgets its cookie.

        What is assigned afterwards begins a new one. A session that is sealed in its cookie is forgotten by the browser
        alone: a copy of the cookie lives until it expires.

        Raises:
            SessionNotLoadedError: it is not loaded.
            SessionStoreError: the store is down; the session goes on.
        """
        self._loaded()
        key = self._key
        if key is not None and not self._manager.sealed:
            await self._manager.ask(self._manager.stored.delete(key))
        if self._cookie is not None or self._manager.cookie.sent(self._connection) is not None:
            self._cookie = ""
        self._ended = False
        self._adopt(None)
        self._expect_response()

    # Saving it

    def _finish(self, request: Request, response: Response) -> Awaitable[None] | None:
        """What is done to the response; to be awaited where there is something to store."""
        self._finished = True
        values = self._values
        if values is not None and response.status < 500:
            record = self._record
            if values.touched or (record is not None and self._manager.stale(record, self._manager.clock())):
                return self._finish_later(request, response)
        elif values is not None and values.changes():
            logger.debug("the changes of %r are given up: the response is a %d", self, response.status)
        self._mark(request, response)
        return None

    async def _finish_later(self, request: Request, response: Response) -> None:
        try:
            await self._commit(refresh=True)
        except Exception:
            # Another response takes the place of this one, and is no less private.
            request.on_response(self._mark)
            raise
        self._mark(request, response)

    def _mark(self, request: Request, response: Response) -> None:
        make_private(response)
        if self._cookie is not None:
            age = None if self._record is None else self._manager.max_age(self._record)
            self._manager.cookie.set(response, request, self._cookie, age)
            self._cookie = None

    def _expect_response(self) -> None:
        """Have the cookie set, also where the session had its turn at the response already."""
        connection = self._connection
        if self._finished and isinstance(connection, Request) and connection.finishers is not None:
            self._finished = False
            connection.on_response(self._finish)

    async def _commit(self, *, rotate: bool = False, user: str | None = None, refresh: bool = False) -> None:
        """Store what changed, with a new id or user if that is asked for."""
        manager, values = self._manager, self._loaded()
        changes = values.changes()
        if self._ended and user is None:
            if changes:
                logger.debug("the changes of a session that has ended meanwhile are dropped")
            return
        record = self._record
        if record is None or self._ended:
            if changes or user is not None:
                await self._create(user)
        elif changes or rotate:
            await (self._reseal(rotate, user) if manager.sealed else self._replace(rotate, user))
        elif refresh:
            await self._touch(record)

    async def _create(self, user: str | None) -> None:
        """Store a session that is new: its id comes from here, never from a request."""
        manager, values = self._manager, self._loaded()
        self._require_cookie()
        if self._ended:
            values.forget_stored()
        merged = values.merged(values.changes())
        now = manager.clock()
        record = StoredSession(
            values=manager.encode(merged),
            version=1,
            user=user,
            created=now,
            authenticated=None if user is None else now,
            seen=now,
            expires=manager.expiry(now, now),
        )
        id = new_id()
        key = key_of(id.encode())
        if manager.sealed:
            cookie = manager.seal(key, record)
        else:
            manager.warn_if_unshared()
            cookie = id
            if not await manager.ask(manager.stored.create(key, record, now)):
                raise SessionError("the session store says that a random id of 256 bits is taken: it is broken")
        self._ended = False
        self._stored_as(key, record, merged, cookie)

    async def _replace(self, rotate: bool, user: str | None) -> None:
        """Store the changes over what is stored, and again over what others have stored meanwhile."""
        manager, values = self._manager, self._loaded()
        store = manager.stored
        if rotate:
            self._require_cookie()
        for attempt in range(ATTEMPTS):
            record, key = self._record, self._key
            assert record is not None
            assert key is not None
            made, merged = self._changed(record, user)
            now = manager.clock()
            if rotate:
                id = new_id()
                new = key_of(id.encode())
                done = await manager.ask(store.rotate(key, new, made, record.version, now))
                if done:
                    self._stored_as(new, made, merged, id)
            else:
                done = await manager.ask(store.replace(key, made, record.version, now))
                if done:
                    self._stored_as(key, made, merged, None)
            if done:
                return
            found = await manager.reload(key)
            if found is None:
                logger.debug("the session %s… has ended meanwhile; the changes are dropped", key.hex()[:8])
                self._ended = True
                self._record = self._key = None
                if user is not None:
                    await self._create(user)
                return
            _, self._record, stored = found
            values.rebase(stored)
            if attempt:
                # They come in step otherwise, and all but one in vain.
                await anyio.sleep(random() * 0.002 * min(attempt, 25))
        raise SessionError(f"{ATTEMPTS} others have changed this session while it was to be saved")

    async def _reseal(self, rotate: bool, user: str | None) -> None:
        """Seal the session anew: whatever response the browser sees last is the one that counts."""
        record, key = self._record, self._key
        assert record is not None
        assert key is not None
        self._require_cookie()
        made, merged = self._changed(record, user)
        key = key_of(new_id().encode()) if rotate else key
        self._stored_as(key, made, merged, self._manager.seal(key, made))

    def _changed(self, record: StoredSession, user: str | None) -> tuple[StoredSession, Encoded]:
        """The session as it is to be stored, and its values."""
        manager, values = self._manager, self._loaded()
        now = manager.clock()
        if user is not None and record.user not in (None, user):
            values.forget_stored()
        merged = values.merged(values.changes())
        created = record.created if user is None else now
        made = StoredSession(
            values=manager.encode(merged),
            version=record.version + 1,
            user=record.user if user is None else user,
            created=created,
            authenticated=record.authenticated if user is None else now,
            seen=now,
            expires=manager.expiry(created, now),
        )
        return made, merged

    def _stored_as(self, key: bytes, record: StoredSession, stored: Encoded, cookie: str | None) -> None:
        self._key, self._record = key, record
        self._loaded().settle(stored)
        if cookie is not None:
            self._cookie = cookie
            self._expect_response()

    async def _touch(self, record: StoredSession) -> None:
        """Note that it was used, if that was not done lately. That this fails ends nothing yet."""
        manager, key = self._manager, self._key
        assert key is not None
        now = manager.clock()
        if not manager.stale(record, now):
            return
        refreshed = manager.refreshed(record, now)
        if manager.sealed:
            if isinstance(self._connection, Request):
                self._record = refreshed
                self._cookie = manager.seal(key, refreshed)
            return
        try:
            if await manager.ask(manager.stored.touch(key, refreshed.seen, refreshed.expires, now)):
                self._record = refreshed
        except HTTPError:
            logger.warning("the use of the session %s… was not noted; it may end early", key.hex()[:8])

    def _require_cookie(self) -> None:
        connection = self._connection
        if not isinstance(connection, Request) or connection.finishers is None:
            raise SessionError(
                "a session gets its id with a response, which sets the cookie, and here is none to come: begin, bind "
                "or rotate it in an HTTP request, before its response is sent"
            )
