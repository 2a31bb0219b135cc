"""The sessions of an application: finding them, keeping them, listing and ending them."""

from __future__ import annotations

import logging
import time
from asyncio import _get_running_loop
from collections.abc import Awaitable, Callable, Sequence
from sys import modules
from types import CoroutineType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from msgspec.structs import replace

from covet.connections import Connection
from covet.receiving import resumed
from covet.sessions.cookies import SessionCookie
from covet.sessions.encoding import Encoded, decode, decode_all, encode_all, key_name
from covet.sessions.errors import SessionError, SessionStoreError, SessionTooLargeError, SessionValueError
from covet.sessions.ids import ID_LENGTH, checked_user, key_of
from covet.sessions.session import Session
from covet.sessions.stores import Ready, SealedSessions, SessionStore, StoredSession

if TYPE_CHECKING:
    from covet.applications import Covet
    from covet.settings_sections import SessionsSettings

__all__ = ["SessionInfo", "Sessions"]

T = TypeVar("T")

Found = tuple[bytes, StoredSession, Encoded]
"""A session that was found: its key, itself, and its values."""

logger = logging.getLogger("covet.sessions")

# A session's use is noted when this share of its idle time has passed, not with every request.
REFRESH = 0.1


class SessionInfo(NamedTuple):
    """A session as its user sees it in a list of all of them. Times are in seconds since the epoch.

    Attributes:
        handle: names the session in `Sessions.end(user, only=handle)`. It gives no access to it.
        user: whose it is.
        created: when it began.
        seen: when it was last used, give or take a tenth of the idle time.
        expires: when it ends unless it is used before.
        current: whether it is the one that was given to `Sessions.list`.
        stored: its values, encoded; `get` reads one.
    """

    handle: str
    user: str
    created: float
    seen: float
    expires: float
    current: bool
    stored: bytes

    def get(self, key: str | type[Any], default: Any = None) -> Any:
        """One of its values, or `default`.

        Raises:
            SessionValueError: what is stored does not fit the type that is the key.
        """
        values = decode_all(self.stored)
        name = key_name(key)
        return decode(key, values[name]) if name in values else default

    def __repr__(self) -> str:
        # Values may be personal; a repr ends up in logs.
        return f"<SessionInfo {self.handle[:8]}… of {self.user!r}>"


class Sessions:
    """The sessions of an application: `app.sessions`.

    Args:
        app: the application, built.

    Attributes:
        settings: `[sessions]`.
        store: what keeps the sessions.
        cookie: the cookie that tells which one a browser has.
        clock: gives the time, in seconds since the epoch; a test may put another in its place.

    Raises:
        ConfigurationError: the settings name a store that no plugin brings, or that does not fit them.
    """

    def __init__(self, app: Covet) -> None:
        configured = app.backends.configured("sessions")
        self.settings: SessionsSettings = configured.settings
        self.store: SessionStore | SealedSessions = configured.backend
        self.cookie = SessionCookie(app, self.settings)
        self.clock: Callable[[], float] = time.time
        self._name = configured.name
        self._workers = app.settings.server.workers
        sealed = isinstance(configured.backend, SealedSessions)
        self._sealed: SealedSessions | None = configured.backend if sealed else None
        self._store: SessionStore | None = None if sealed else configured.backend
        self._idle: float = self.settings.idle_seconds
        self._lifetime: float = self.settings.lifetime_seconds
        self._refresh: float = REFRESH * self._idle
        self._warned = False

    def __repr__(self) -> str:
        return f"<Sessions in {self._name!r}>"

    # For administration

    @property
    def stored(self) -> SessionStore:
        """The store, where there is one.

        Raises:
            SessionError: sessions are sealed in cookies, so nobody knows them all.
        """
        if self._store is None:
            raise SessionError(
                f"the session store {self._name!r} leaves the sessions to the browsers: they cannot be listed or ended "
                "from here; choose another [sessions] store, such as 'memory'"
            )
        return self._store

    async def list(self, user: str, *, current: Session | None = None) -> Sequence[SessionInfo]:
        """The sessions of a user, the last used first.

        Args:
            current: the session whose entry is marked, loaded.

        Raises:
            SessionError: sessions are sealed in cookies.
            SessionStoreError: the store is down.
        """
        now = self.clock()
        found = await self.ask(self.stored.list_user(checked_user(user), now))
        here = current.handle if current is not None else None
        infos = [
            SessionInfo(key.hex(), user, one.created, one.seen, one.expires, key.hex() == here, one.values)
            for key, one in found
            if self.alive(one, now)
        ]
        return sorted(infos, key=lambda info: info.seen, reverse=True)

    async def end(self, user: str, *, except_: Session | None = None, only: str | None = None) -> int:
        """End sessions of a user at once: all of them, all but one, or one.

        Args:
            except_: a session that goes on, loaded.
            only: the handle of the one that ends. That of another user's session ends nothing.

        Returns:
            How many were ended.

        Raises:
            SessionError: sessions are sealed in cookies.
            SessionStoreError: the store is down.
        """
        store = self.stored
        checked_user(user)
        if only is None:
            keep = bytes.fromhex(except_.handle) if except_ is not None and except_.handle else None
            return await self.ask(store.end_user(user, keep))
        now = self.clock()
        keys = [key for key, _ in await self.ask(store.list_user(user, now)) if key.hex() == only]
        return sum([await self.ask(store.delete(key)) for key in keys])

    async def end_all(self) -> int:
        """End every session at once; how many there were. Raises as `end`."""
        return await self.ask(self.stored.end_all())

    async def purge(self) -> int:
        """Remove the sessions that have expired; how many. Raises as `end`."""
        return await self.ask(self.stored.purge(self.clock()))

    # For `Session`

    def of(self, connection: Connection) -> Session:
        """A session for a request or WebSocket, not loaded yet; `Request.session` keeps it."""
        return Session(self, connection)

    @property
    def sealed(self) -> bool:
        """Whether the browsers have the sessions."""
        return self._sealed is not None

    def start_finding(self, connection: Connection) -> Found | Awaitable[Found | None] | None:
        """The session that a connection's cookie names; to be awaited where the store has to wait. Malformed, forged,
        ended or expired: it makes no difference, there is none then.

        Raises:
            SessionStoreError: the store is down.
        """
        text = self.cookie.sent(connection)
        if text is None:
            return None
        if self._store is None:
            return self._opened(text)
        # What no id looks like need not be looked for.
        if len(text) != ID_LENGTH:
            return None
        key, now = key_of(text), self.clock()
        asked = self._start_loading(self._store, key, now)
        if not isinstance(asked, Ready):
            return self._found_later(key, asked, now)
        found = asked.value
        return None if found is None else self._usable(key, found, now)

    def _opened(self, text: bytes) -> Found | None:
        assert self._sealed is not None
        opened = self._sealed.open(self.cookie.name, text.decode("latin-1"))
        return None if opened is None else self._usable(*opened, self.clock())

    async def _found_later(self, key: bytes, asked: Awaitable[StoredSession | None], now: float) -> Found | None:
        found = await asked
        return None if found is None else self._usable(key, found, now)

    def _start_loading(
        self, store: SessionStore, key: bytes, now: float
    ) -> Ready[StoredSession | None] | Awaitable[StoredSession | None]:
        """What a store has under a key, as `_start_asking` gives it. A store may have a plain method for this."""
        try:
            asked = store.load(key, now)
        except Exception as error:
            raise self._failed(error) from error
        return asked if isinstance(asked, Ready) else self._start_asking(asked)

    async def reload(self, key: bytes) -> Found | None:
        """The session of a key as it is in the store now.

        Raises:
            SessionStoreError: the store is down.
        """
        now = self.clock()
        found = await self._start_loading(self.stored, key, now)
        return None if found is None else self._usable(key, found, now)

    def _usable(self, key: bytes, found: StoredSession, now: float) -> Found | None:
        if not self.alive(found, now):
            return None
        try:
            return key, found, decode_all(found.values)
        except SessionValueError:
            logger.warning("the session %s… is not readable, and taken for none", key.hex()[:8])
            return None

    def alive(self, session: StoredSession, now: float) -> bool:
        """Whether a session has not expired, by what it says and by what the settings say today."""
        return now < session.expires and now - session.seen < self._idle and now - session.created < self._lifetime

    def expiry(self, created: float, now: float) -> float:
        """When a session that is used now ends unless it is used again."""
        return min(now + self._idle, created + self._lifetime)

    def stale(self, session: StoredSession, now: float) -> bool:
        """Whether it is time to note that a session is used."""
        return now - session.seen >= self._refresh

    def refreshed(self, session: StoredSession, now: float) -> StoredSession:
        """A session as it is when it is used now."""
        return replace(session, seen=now, expires=self.expiry(session.created, now))

    def max_age(self, session: StoredSession) -> int | None:
        """How many seconds a browser keeps the cookie; None for as long as it runs."""
        if not self.settings.persistent:
            return None
        return max(1, int(session.created + self._lifetime - self.clock()))

    def encode(self, values: Encoded) -> bytes:
        """The values of a session for the store.

        Raises:
            SessionTooLargeError: they have more than `[sessions] max_bytes` bytes.
        """
        data = encode_all(values)
        if len(data) > self.settings.max_bytes:
            largest = sorted(values, key=lambda name: len(bytes(values[name])), reverse=True)[:3]
            told = ", ".join(f"{name.lstrip(chr(0))!r} ({len(bytes(values[name]))})" for name in largest)
            raise SessionTooLargeError(
                f"the session has {len(data)} bytes, and [sessions] max_bytes is {self.settings.max_bytes}; the "
                f"largest of its values are {told}: keep such data elsewhere, and its key in the session"
            )
        return data

    def seal(self, key: bytes, session: StoredSession) -> str:
        """The cookie of a sealed session.

        Raises:
            SessionTooLargeError: no browser would keep it.
        """
        assert self._sealed is not None
        text = self._sealed.seal(self.cookie.name, key, session)
        size = len(self.cookie.name) + len(text)
        if size > 4096:
            raise SessionTooLargeError(
                f"the session's cookie would have {size} bytes, and browsers keep 4096: its values have "
                f"{len(session.values)} bytes, of which about 2900 fit; keep the data elsewhere, or choose another "
                "[sessions] store"
            )
        return text

    def warn_if_unshared(self) -> None:
        """Log, once, that a session would be unknown to the other worker processes."""
        if self._warned or self._store is None or self._store.shared or self._workers == 1:
            return
        self._warned = True
        logger.warning(
            "[sessions] store = %r keeps sessions in each process, and [server] workers = %d: a visitor would be known "
            "to one of them and not to the others; choose a store that is shared",
            self._name,
            self._workers,
        )

    async def ask(self, call: Awaitable[T]) -> T:
        """Wait for the store, for `[sessions] timeout_seconds` at most.

        Raises:
            SessionStoreError: it is down, or did not answer in time.
        """
        return await self._start_asking(call)

    def _start_asking(self, call: Awaitable[T]) -> Ready[T] | Awaitable[T]:
        """What the store answers if it does so without waiting; else what is to be awaited.

        A store in memory answers at once: then there is no need for a timer, nor for a coroutine. It raises what `ask`
        raises.
        """
        # A cancel scope of trio's has to be entered before those in the call.
        if "trio" in modules and _get_running_loop() is None:
            return self._ask_on_trio(call)
        try:
            steps: Any = call
            if call.__class__ is CoroutineType:
                trap = steps.send(None)
            else:
                steps = call.__await__()
                trap = next(steps)
        except StopIteration as done:
            return Ready(done.value)
        except Exception as error:
            raise self._failed(error) from error
        return self._ask_on(steps, trap)

    async def _ask_on_trio(self, call: Awaitable[T]) -> T:
        from anyio import fail_after

        try:
            with fail_after(self.settings.timeout_seconds):
                return await call
        except Exception as error:
            raise self._failed(error) from error

    async def _ask_on(self, steps: Any, trap: Any) -> Any:
        from asyncio import timeout

        try:
            # Unlike anyio's, this may be entered inside of what the call has entered, and left after it.
            async with timeout(self.settings.timeout_seconds):
                return await resumed(steps, trap)
        except Exception as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> SessionStoreError:
        told = "did not answer in time" if isinstance(error, TimeoutError) else "failed"
        logger.error("the session store %r %s", self._name, told, exc_info=error)
        return SessionStoreError()
