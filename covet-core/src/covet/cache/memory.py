"""A cache in this process's memory, bounded by bytes and by entries.

What goes when there is no room is decided by S3-FIFO (Yang, Zhang, Qiu, Yue, Vigfusson: FIFO queues are all you need
for cache eviction, SOSP 2023): new entries stand in a small queue of a tenth of the room; those that were read there at
least twice go on to the main queue, the others leave, and are remembered by a hash for a while: if such a one comes
back, it enters the main queue at once. An entry that was read since is put back at the end of the main queue instead
of leaving it. A hit changes a number of two bits and moves nothing.
"""

from __future__ import annotations

import re
import time
from array import array
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from heapq import heappop, heappush

from msgspec import Struct

__all__ = ["ENTRY_BYTES", "MemoryCache"]

ENTRY_BYTES = 250
"""What an entry takes beside its key and value, about: objects, and places in tables and queues."""

READS, MAIN, TIMED = 3, 4, 8
"""The parts of an entry's mark: how often it was read, up to 3; whether in the main queue; whether in a bucket."""

SWEPT = 32
"""How many entries whose time is over one write removes at most: what is left waits for the next."""

SMALL = 0.1
_NUMBER = re.compile(rb"-?[0-9]{1,19}")


class _Entry(Struct, gc=False, weakref=False):
    """A value and its key. Without one, it has left the table, and queues drop it when they come to it."""

    key: str
    value: bytes | None
    expires: float | None
    mark: int


class MemoryCache:
    """A cache backend in memory: fast, this process's own, gone when it ends.

    It belongs to one event loop and is not to be used from several threads: no method waits, so each is atomic.
    Memory of expired entries is given back when something is written, a few at a time, or when they are asked for.

    Args:
        max_bytes: of all entries, keys and what they take in tables included.
        max_entries: how many entries; None for as many as there is room for.
        clock: gives the time in seconds.

    Raises:
        ValueError: a bound is not above 0.
    """

    shared = False

    def __init__(
        self,
        *,
        max_bytes: int = 64 * 2**20,
        max_entries: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if max_bytes < 1 or (max_entries is not None and max_entries < 1):
            raise ValueError(f"max_bytes and max_entries are above 0, not {max_bytes} and {max_entries}")
        self.max_bytes = max_bytes
        self.max_entries = max_entries
        self._clock = clock
        self._most = float("inf") if max_entries is None else max_entries
        self._reset()

    def _reset(self) -> None:
        self._table: dict[str, _Entry] = {}
        self._small: deque[_Entry] = deque()
        self._main: deque[_Entry] = deque()
        self._bytes = self._small_bytes = self._small_count = 0
        # How many references to entries that are gone may be in queues and buckets.
        self._stale = 0
        # Hashes of keys that have left the small queue, each in the place that the hash itself says.
        self._ghosts = array("I", bytes(4 * 1024))
        # Entries by the second in which their time is over, and those seconds in order.
        self._buckets: dict[int, list[_Entry]] = {}
        self._seconds: list[int] = []

    def __len__(self) -> int:
        """How many entries there are, expired ones that nobody has asked for included."""
        return len(self._table)

    def __repr__(self) -> str:
        return f"<MemoryCache {len(self._table)} entries, {self._bytes} bytes>"

    @property
    def size(self) -> int:
        """The bytes that the entries take, as they are counted against `max_bytes`."""
        return self._bytes

    # The protocol

    def peek(self, key: str) -> bytes | None:
        """The value, or None; at once."""
        entry = self._table.get(key)
        if entry is None:
            return None
        expires = entry.expires
        if expires is not None and expires <= self._clock():
            self._remove(entry)
            return None
        mark = entry.mark
        if mark & READS != READS:
            entry.mark = mark + 1
        return entry.value

    async def get(self, key: str) -> bytes | None:
        """The value, or None."""
        return self.peek(key)

    async def get_many(self, keys: Sequence[str]) -> dict[str, bytes]:
        """The values that are there, by key."""
        return {key: value for key in keys if (value := self.peek(key)) is not None}

    async def set(self, key: str, value: bytes, ttl: float | None) -> None:
        """Keep a value, in place of any other."""
        self._put(key, value, ttl)

    async def set_many(self, values: Mapping[str, bytes], ttl: float | None) -> None:
        """Keep values, in place of any others."""
        for key, value in values.items():
            self._put(key, value, ttl)

    async def add(self, key: str, value: bytes, ttl: float | None) -> bool:
        """Keep a value unless there is one; whether it was kept."""
        return await self.compare_and_set(key, None, value, ttl)

    async def compare_and_set(self, key: str, expected: bytes | None, value: bytes, ttl: float | None) -> bool:
        """Keep a value if the present one is `expected`, None being none; whether it was kept."""
        if self.peek(key) != expected:
            return False
        self._put(key, value, ttl)
        return True

    async def increment(self, key: str, by: int, ttl: float | None) -> int:
        """Add to a counter, which begins at 0, and return it. `ttl` counts when it begins; later it stays.

        Raises:
            ValueError: the value that is there is no number, or would leave the range of 64 bits.
        """
        found = self.peek(key)
        if found is not None and not _NUMBER.fullmatch(found):
            raise ValueError(f"the value of {key!r} is no number: {found[:40]!r}")
        number = by if found is None else int(found) + by
        if not -(2**63) <= number < 2**63:
            raise ValueError(f"{key!r} would be {number}, which has more than 64 bits")
        if found is None:
            self._put(key, b"%d" % number, ttl)
        else:
            entry = self._table[key]
            self._resize(entry, b"%d" % number)
            self._make_room()
        return number

    async def touch(self, key: str, ttl: float | None) -> bool:
        """Give a value a new time to live; whether there is one."""
        if self.peek(key) is None:
            return False
        self._schedule(self._table[key], ttl)
        return True

    async def delete(self, keys: Sequence[str]) -> int:
        """Remove values; how many there were."""
        count = 0
        for key in keys:
            if self.peek(key) is not None:
                self._remove(self._table[key])
                count += 1
        return count

    async def clear(self, prefix: str = "") -> None:
        """Remove every value whose key begins with `prefix`. Takes time in proportion to the entries there are."""
        if not prefix:
            self._reset()
            return
        for entry in [entry for key, entry in self._table.items() if key.startswith(prefix)]:
            self._remove(entry)

    # Room

    def _put(self, key: str, value: bytes, ttl: float | None) -> None:
        self._sweep()
        entry = self._table.get(key)
        if _size(key, value) > self.max_bytes:
            if entry is not None:
                self._remove(entry)
            return
        if entry is not None:
            self._resize(entry, value)
        else:
            entry = self._table[key] = _Entry(key, value, None, 0)
            size = _size(key, value)
            self._bytes += size
            if self._was_here(key):
                entry.mark = MAIN
                self._main.append(entry)
            else:
                self._small.append(entry)
                self._small_bytes += size
                self._small_count += 1
        self._schedule(entry, ttl)
        self._make_room()

    def _resize(self, entry: _Entry, value: bytes) -> None:
        """Give an entry another value."""
        assert entry.value is not None
        more = len(value) - len(entry.value)
        entry.value = value
        self._bytes += more
        if not entry.mark & MAIN:
            self._small_bytes += more

    def _make_room(self) -> None:
        while self._bytes > self.max_bytes or len(self._table) > self._most:
            full = self._small_bytes > SMALL * self.max_bytes or self._small_count > SMALL * self._most
            # The main queue may hold nothing but entries that are gone.
            if full or self._small_count == len(self._table):
                self._leave_small()
            else:
                self._leave_main()

    def _leave_small(self) -> None:
        entry = self._small.popleft()
        if entry.value is None:
            return
        if entry.mark & READS > 1:
            size = _size(entry.key, entry.value)
            self._small_bytes -= size
            self._small_count -= 1
            entry.mark = MAIN | (entry.mark & TIMED)
            self._main.append(entry)
        else:
            self._remember(entry.key)
            self._remove(entry, queued=False)

    def _leave_main(self) -> None:
        entry = self._main.popleft()
        if entry.value is None:
            return
        if entry.mark & READS:
            entry.mark -= 1
            self._main.append(entry)
        else:
            self._remove(entry, queued=False)

    def _remove(self, entry: _Entry, *, queued: bool = True) -> None:
        """Take an entry out of the table. Where it stands in a queue or bucket, it stays as one that is gone."""
        assert entry.value is not None
        size = _size(entry.key, entry.value)
        del self._table[entry.key]
        self._bytes -= size
        if not entry.mark & MAIN:
            self._small_bytes -= size
            self._small_count -= 1
        entry.value = None
        if queued or entry.mark & TIMED:
            self._stale += 1
            if self._stale > 1024 + len(self._table):
                self._compact()

    def _compact(self) -> None:
        """Drop all references to entries that are gone: after so many that it costs each of them little."""
        self._stale = 0
        self._small = deque(entry for entry in self._small if entry.value is not None)
        self._main = deque(entry for entry in self._main if entry.value is not None)
        for bucket in self._buckets.values():
            bucket[:] = [entry for entry in bucket if entry.value is not None]

    # Ghosts

    def _remember(self, key: str) -> None:
        if len(self._table) > len(self._ghosts):
            self._ghosts = array("I", bytes(8 * len(self._ghosts)))
        code = hash(key)
        self._ghosts[code & (len(self._ghosts) - 1)] = _fingerprint(code)

    def _was_here(self, key: str) -> bool:
        code = hash(key)
        place = code & (len(self._ghosts) - 1)
        if self._ghosts[place] != _fingerprint(code):
            return False
        self._ghosts[place] = 0
        return True

    # Time

    def _schedule(self, entry: _Entry, ttl: float | None) -> None:
        if ttl is None:
            entry.expires = None
            return
        entry.expires = self._clock() + ttl
        # One that is in a bucket already stays there, and moves on when that bucket's time has come.
        if not entry.mark & TIMED:
            self._bucket(entry)

    def _bucket(self, entry: _Entry) -> None:
        assert entry.expires is not None
        second = int(entry.expires) + 1
        bucket = self._buckets.get(second)
        if bucket is None:
            bucket = self._buckets[second] = []
            heappush(self._seconds, second)
        bucket.append(entry)
        entry.mark |= TIMED

    def _sweep(self) -> None:
        """Remove a few of those whose time is over."""
        if not self._seconds:
            return
        now = self._clock()
        left = SWEPT
        while self._seconds and self._seconds[0] <= now:
            bucket = self._buckets[self._seconds[0]]
            while bucket and left:
                left -= 1
                entry = bucket.pop()
                if entry.value is None:
                    continue
                entry.mark &= ~TIMED
                if entry.expires is None:
                    continue
                if entry.expires <= now:
                    self._remove(entry)
                else:
                    self._bucket(entry)
            if bucket:
                return
            del self._buckets[heappop(self._seconds)]


def _size(key: str, value: bytes) -> int:
    """What an entry is counted for. Its length decides, as the same must come out whenever it is asked for."""
    return ENTRY_BYTES + (len(key) if key.isascii() else 4 * len(key)) + len(value)


def _fingerprint(code: int) -> int:
    """The part of a hash that its place does not tell; never 0, which is an empty place."""
    return (code >> 24) & 0xFFFFFFFF | 1
