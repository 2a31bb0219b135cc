"""Object stores: files and other blobs under a key, written whole or not at all.

    info = await store.put("invoices/7.pdf", data, content_type="application/pdf")

    async with store.get("invoices/7.pdf") as found:
        async for chunk in found:
            ...

What is promised, whatever the backend:

- A key is any text of 1 to 1024 bytes as UTF-8, compared as a whole. `/` means nothing but what a prefix makes of it in
  `list`; `..` and a leading slash mean nothing at all.
- `put` is atomic. Whoever reads sees the object before or the object after; when `put` raises, is cancelled, or its
  process is killed, what was there before is there still.
- What `put` has returned is there for every `get`, `head` and `list` that begins afterwards.
- `get` gives one version of the object, whatever is put meanwhile.
- Neither holds an object in memory: both work chunk by chunk.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import anyio
import msgspec

from covet.exceptions import CovetError

if TYPE_CHECKING:
    from covet.applications import Covet

__all__ = [
    "MAX_KEY",
    "MAX_METADATA",
    "InvalidKey",
    "ObjectConflict",
    "ObjectCorrupt",
    "ObjectInfo",
    "ObjectNotFound",
    "ObjectPage",
    "ObjectReader",
    "ObjectStore",
    "ObjectStoreError",
    "ObjectStoreFull",
    "Presigning",
    "RangeNotSatisfiable",
    "check_key",
    "check_metadata",
    "check_range",
    "chunks_of",
    "get_object_store",
]

MAX_KEY = 1024
"""Bytes of a key, as UTF-8."""
MAX_METADATA = 2048
"""Bytes of an object's metadata, names and values together, as UTF-8."""


class ObjectStoreError(CovetError):
    """Something about an object store failed: it cannot be reached, refuses access, or what the subclasses say."""


class ObjectNotFound(ObjectStoreError):  # noqa: N818 - it tells of a state
    """There is no object under the key."""


class ObjectConflict(ObjectStoreError):  # noqa: N818 - it tells of a state
    """A condition of `put` does not hold: there is an object already, or another version than the one expected."""


class ObjectStoreFull(ObjectStoreError):  # noqa: N818 - it tells of a state
    """There is no room for the object, on disk or within a quota. What was there before is untouched."""


class ObjectCorrupt(ObjectStoreError):  # noqa: N818 - it tells of a state
    """What is stored under the key is not what was put there."""


class InvalidKey(ObjectStoreError):  # noqa: N818 - it tells of a state
    """The key is empty, too long, or cannot be written as UTF-8; or metadata that cannot be stored."""


class RangeNotSatisfiable(ObjectStoreError):  # noqa: N818 - it tells of a state
    """The range begins behind the object's end."""


class ObjectInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about an object.

    Attributes:
        key: its key.
        size: its bytes.
        etag: its version, without quotes: another one whenever its content is another.
        content_type: the media type that it was put with.
        modified: when it was put, in UTC.
        metadata: what else it was put with.
    """

    key: str
    size: int
    etag: str
    content_type: str
    modified: datetime
    metadata: dict[str, str]


class ObjectPage(msgspec.Struct, frozen=True):
    """A part of a listing.

    Attributes:
        objects: in the order of their keys, as UTF-8.
        after: what to pass as `after` for the next page; None when this is the last.
    """

    objects: list[ObjectInfo]
    after: str | None


class ObjectReader(Protocol):
    """An object that is being read: an asynchronous iterator over its chunks, once.

    Attributes:
        info: what is known about the object; its size is the whole object's, also for a range.
    """

    info: ObjectInfo

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def read(self) -> bytes:
        """All that is left, in memory."""
        ...


@runtime_checkable
class ObjectStore(Protocol):
    """A place for objects. All methods may be called concurrently."""

    async def put(
        self,
        key: str,
        data: bytes | AsyncIterable[bytes],
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> ObjectInfo:
        """Store an object under a key, in place of what is there.

        Args:
            key: its key.
            data: its content, or an asynchronous iterable of chunks of any size. What that raises is passed on.
            content_type: its media type.
            metadata: names and values of at most 2048 bytes together.
            if_absent: only if there is no object under the key.
            if_match: only if the object that is there has this etag.

        Cancelled, it has stored the object whole or not at all, and leaves nothing else behind.

        Raises:
            InvalidKey: the key or the metadata cannot be stored.
            ObjectConflict: a condition does not hold when the object would be in place.
            ObjectStoreFull: there is no room.
            ObjectStoreError: the store cannot be used.
        """
        ...

    def get(self, key: str, *, offset: int = 0, length: int | None = None) -> AbstractAsyncContextManager[ObjectReader]:
        """Read an object, or `length` bytes of it from `offset`; fewer where it ends before.

        Raises, when it is entered:
            ObjectNotFound: there is none.
            RangeNotSatisfiable: `offset` is above its size.
            ValueError: `offset` or `length` is below 0.
            ObjectStoreError: the store cannot be used.
        """
        ...

    async def head(self, key: str) -> ObjectInfo:
        """What is known about an object.

        Raises:
            ObjectNotFound: there is none.
            ObjectStoreError: the store cannot be used.
        """
        ...

    async def delete(self, key: str) -> None:
        """Remove an object; does nothing where there is none.

        Raises:
            ObjectStoreError: the store cannot be used.
        """

    async def list(self, prefix: str = "", *, after: str | None = None, limit: int = 1000) -> ObjectPage:
        """The objects whose keys begin with `prefix`, in the order of their keys as UTF-8.

        Args:
            prefix: what the keys begin with; compared as text, not by path.
            after: only keys behind this one: what the page before gave.
            limit: how many at most, from 1.

        Objects that are put or deleted meanwhile may be in it or not; the others are, each once.

        Raises:
            ValueError: `limit` is below 1.
            ObjectStoreError: the store cannot be used.
        """
        ...


@runtime_checkable
class Presigning(Protocol):
    """What a store that can hand out URLs has beside `ObjectStore`; ask with `isinstance(store, Presigning)`."""

    async def presign(self, key: str, *, method: Literal["GET", "PUT"] = "GET", expires_in: float = 3600.0) -> str:
        """A URL with which whoever has it may read or put one object, for so many seconds.

        Raises:
            ObjectStoreError: the store cannot be used.
        """
        ...


def get_object_store(alias: str = "default", app: Covet | None = None) -> ObjectStore:
    """The object store of `[objects.ALIAS]`.

    Args:
        alias: its name in the settings.
        app: the application; the one that is running here by default.

    Raises:
        ConfigurationError: there is no such table, or nobody brings its backend.
        NoApplicationError: no application is running here, and none was given.
    """
    from covet.context import current_app

    app = current_app() if app is None else app
    store: ObjectStore = app.backends.configured("objects", alias).backend
    return store


# For those who write a store


def check_key(key: str) -> bytes:
    """A key as UTF-8.

    Raises:
        InvalidKey: it is empty, too long, or cannot be written as UTF-8.
    """
    try:
        encoded = key.encode()
    except UnicodeEncodeError:
        raise InvalidKey(f"a key is text that can be written as UTF-8, not {key!r}") from None
    if not 0 < len(encoded) <= MAX_KEY:
        raise InvalidKey(f"a key has 1 to {MAX_KEY} bytes as UTF-8, not {len(encoded)}")
    return encoded


def check_metadata(content_type: str, metadata: Mapping[str, str] | None) -> dict[str, str]:
    """An object's metadata, as it is stored.

    Raises:
        InvalidKey: it is larger than allowed, cannot be written as UTF-8, or the media type is no line of ASCII.
    """
    found = dict(metadata or {})
    if not content_type or not content_type.isascii() or not content_type.isprintable():
        raise InvalidKey(f"a content type is a line of ASCII such as 'image/png', not {content_type!r}")
    try:
        size = sum(len(name.encode()) + len(value.encode()) for name, value in found.items())
    except UnicodeEncodeError:
        raise InvalidKey("metadata is text that can be written as UTF-8") from None
    if size > MAX_METADATA:
        raise InvalidKey(f"metadata has at most {MAX_METADATA} bytes, names and values together, not {size}")
    return found


def check_range(offset: int, length: int | None, size: int, key: str) -> int:
    """How many bytes a range of an object has.

    Raises:
        ValueError: `offset` or `length` is below 0.
        RangeNotSatisfiable: `offset` is above the size.
    """
    if offset < 0 or (length is not None and length < 0):
        raise ValueError(f"offset and length are bytes from 0, not {offset} and {length}")
    if offset > size:
        raise RangeNotSatisfiable(f"{key!r} has {size} bytes, and was asked for those from {offset}")
    return size - offset if length is None else min(length, size - offset)


async def chunks_of(data: bytes | AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
    """The chunks of what `put` was given. Closing it closes a generator that was given, too."""
    if isinstance(data, bytes | bytearray | memoryview):
        yield bytes(data)
        return
    try:
        async for chunk in data:
            yield chunk
    finally:
        if isinstance(data, AsyncGenerator):
            with anyio.CancelScope(shield=True):
                await data.aclose()
