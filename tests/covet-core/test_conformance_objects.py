"""The conformance kit of object stores: the builtin ones keep every promise, and wrong ones are caught."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from tests.kits import run_kit

from covet.builtin.objects.files import FileStore
from covet.builtin.objects.memory import MemoryReader, MemoryStore
from covet.objects import ObjectInfo, ObjectPage, chunks_of
from covet.testing.conformance.kits import first_difference
from covet.testing.conformance.objects import ObjectStoreConformance


class TestMemory(ObjectStoreConformance):
    constant_memory = False

    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()

    @pytest.fixture
    def small(self) -> MemoryStore:
        return MemoryStore(100_000)


class TestFile(ObjectStoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> FileStore:
        return FileStore(tmp_path / "store")

    @pytest.fixture
    def other(self, tmp_path: Path) -> FileStore:
        return FileStore(tmp_path / "store")


# Wrong ones, one for each promise


class Wrong(MemoryStore):
    """A memory store whose content can be got at."""

    async def raw(self, key: str) -> bytes:
        async with super().get(key) as found:
            return await found.read()


class Text(Wrong):
    async def put(self, key: str, data: Any, **options: Any) -> ObjectInfo:
        content = b"".join([chunk async for chunk in chunks_of(data)])
        return await super().put(key, content.replace(b"\n", b"\r\n"), **options)


class LosesMetadata(Wrong):
    async def put(self, key: str, data: Any, **options: Any) -> ObjectInfo:
        options["metadata"] = {name.lower(): value for name, value in (options.get("metadata") or {}).items()}
        return await super().put(key, data, **options)


class StopsAtEmpty(Wrong):
    """Takes an empty chunk for the end."""

    async def put(self, key: str, data: Any, **options: Any) -> ObjectInfo:
        content = b""
        async for chunk in chunks_of(data):
            if not chunk:
                break
            content += chunk
        return await super().put(key, content, **options)


class KeepsType(Wrong):
    async def put(self, key: str, data: Any, **options: Any) -> ObjectInfo:
        if key in self._objects:
            options.setdefault("content_type", self._objects[key][0].content_type)
        return await super().put(key, data, **options)


class OffByOne(Wrong):
    @asynccontextmanager
    async def get(self, key: str, *, offset: int = 0, length: int | None = None) -> AsyncIterator[MemoryReader]:
        async with super().get(key, offset=offset, length=None if length is None else length + 1) as found:
            yield found


class Raises(Wrong):
    """Deleting what is not there is an error."""

    async def delete(self, key: str) -> None:
        await super().head(key)
        await super().delete(key)


class Renamed(Wrong):
    """Maps keys to other keys before it uses them."""

    @staticmethod
    def path(key: str) -> str:
        return key

    async def put(self, key: str, data: Any, **options: Any) -> ObjectInfo:
        return await super().put(self.path(key), data, **options)

    def get(self, key: str, **options: Any) -> Any:
        return super().get(self.path(key), **options)

    async def head(self, key: str) -> ObjectInfo:
        return await super().head(self.path(key))

    async def delete(self, key: str) -> None:
        await super().delete(self.path(key))


class IgnoresCase(Renamed):
    @staticmethod
    def path(key: str) -> str:
        return key.lower()


class Normalises(Renamed):
    @staticmethod
    def path(key: str) -> str:
        import posixpath

        return posixpath.normpath(key)


class Latin(Renamed):
    @staticmethod
    def path(key: str) -> str:
        return key.encode("latin-1", "replace").decode("latin-1")


class TakesAnyKey(Renamed):
    @staticmethod
    def path(key: str) -> str:
        return key[:1000].encode("utf-8", "replace").decode() or "empty"


class CutsMetadata(Wrong):
    async def put(self, key: str, data: Any, **options: Any) -> ObjectInfo:
        metadata = {name: value[:1000] for name, value in (options.pop("metadata", None) or {}).items()}
        return await super().put(key, data, metadata=metadata, **options)


class SortedAsText(Wrong):
    async def list(self, prefix: str = "", *, after: str | None = None, limit: int = 1000) -> ObjectPage:
        page = await super().list(prefix, after=after, limit=10**6)
        found = sorted(page.objects, key=lambda info: info.key.lower())[:limit]
        return ObjectPage(found, found[-1].key if len(page.objects) > limit else None)


class PagesByNumber(Wrong):
    """Goes on at a position, which moves."""

    async def list(self, prefix: str = "", *, after: str | None = None, limit: int = 1000) -> ObjectPage:
        await anyio.lowlevel.checkpoint()
        begin = int(after) if after is not None and after.isdecimal() else 0
        page = await super().list(prefix, limit=10**6)
        more = begin + limit < len(page.objects)
        return ObjectPage(page.objects[begin : begin + limit], str(begin + limit) if more else None)


class InPlace(Wrong):
    """Writes an object where it is read, chunk by chunk."""

    async def put(self, key: str, data: bytes | AsyncIterable[bytes], **options: Any) -> ObjectInfo:
        content = b""
        info = None
        async for chunk in chunks_of(data):
            content += chunk
            info = await super().put(key, content, **options)
            options.pop("if_absent", None)
            options.pop("if_match", None)
            await anyio.lowlevel.checkpoint()
        return info or await super().put(key, b"", **options)


class Leaves(Wrong):
    """Leaves what it has begun under another key."""

    async def put(self, key: str, data: bytes | AsyncIterable[bytes], **options: Any) -> ObjectInfo:
        await super().put(f"{key}.part", b"")
        info = await super().put(key, data, **options)
        await super().delete(f"{key}.part")
        return info


class Locks(Wrong):
    """A lock that a cancelled reader keeps."""

    busy = False

    @asynccontextmanager
    async def get(self, key: str, *, offset: int = 0, length: int | None = None) -> AsyncIterator[MemoryReader]:
        if self.busy:
            raise RuntimeError("busy")
        self.busy = True
        async with super().get(key, offset=offset, length=length) as found:
            yield found
        self.busy = False


class Live(Wrong):
    """A reader sees what is put meanwhile."""

    @asynccontextmanager
    async def get(self, key: str, *, offset: int = 0, length: int | None = None) -> AsyncIterator[Any]:
        async with super().get(key, offset=offset, length=length) as found:
            store = self

            class Reader:
                info = found.info

                async def __aiter__(self) -> AsyncIterator[bytes]:
                    for begin in range(0, self.info.size, 100_000):
                        await anyio.lowlevel.checkpoint()
                        yield store._objects[key][1][begin : begin + 100_000]

                async def read(self) -> bytes:
                    return await found.read()

            yield Reader()


class LooksBefore(Wrong):
    """Checks a condition, then puts."""

    async def put(self, key: str, data: Any, **options: Any) -> ObjectInfo:
        from covet.builtin.objects.memory import check_conditions

        before = self._objects.get(key)
        check_conditions(key, before and before[0].etag, options.pop("if_absent", False), options.pop("if_match", None))
        await anyio.lowlevel.checkpoint()
        return await super().put(key, data, **options)


class NoRoom(Wrong):
    """Removes what is there to make room."""

    async def put(self, key: str, data: Any, **options: Any) -> ObjectInfo:
        if not isinstance(data, bytes):
            await super().delete(key)
        return await super().put(key, data, **options)


class Deletes(Wrong):
    async def delete(self, key: str) -> None:
        for each in [each for each in self._objects if each == key or each.startswith(key + "/")]:
            await super().delete(each)


class InMemory(FileStore):
    async def put(self, key: str, data: Any, **options: Any) -> ObjectInfo:
        return await super().put(key, b"".join([chunk async for chunk in chunks_of(data)]), **options)


class Cached(FileStore):
    """Remembers what it has seen."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.seen: dict[str, ObjectInfo] = {}

    async def head(self, key: str) -> ObjectInfo:
        if key not in self.seen:
            self.seen[key] = await super().head(key)
        return self.seen[key]

    async def put(self, key: str, data: Any, **options: Any) -> ObjectInfo:
        self.seen[key] = await super().put(key, data, **options)
        return self.seen[key]


WRONG: list[tuple[type[Any], str]] = [
    (Text, "test_what_is_put_is_there"),
    (LosesMetadata, "test_what_is_put_is_there"),
    (StopsAtEmpty, "test_a_stream_is_put"),
    (InMemory, "test_large_objects_take_constant_memory"),
    (KeepsType, "test_put_replaces"),
    (OffByOne, "test_ranges"),
    (Raises, "test_what_is_not_there"),
    (IgnoresCase, "test_keys_are_told_apart"),
    (Normalises, "test_keys_are_told_apart"),
    (Latin, "test_any_key"),
    (TakesAnyKey, "test_what_is_no_key"),
    (CutsMetadata, "test_metadata_is_bounded"),
    (SortedAsText, "test_pages"),
    (PagesByNumber, "test_a_listing_while_objects_come_and_go"),
    (InPlace, "test_a_stream_that_fails"),
    (InPlace, "test_put_is_cancelled_anywhere"),
    (Leaves, "test_put_is_cancelled_anywhere"),
    (Locks, "test_get_is_cancelled_anywhere"),
    (InPlace, "test_readers_see_whole_objects"),
    (Live, "test_a_reader_keeps_its_version"),
    (LooksBefore, "test_only_one_creates"),
    (LooksBefore, "test_no_update_is_lost"),
    (NoRoom, "test_a_store_that_is_full"),
    (Cached, "test_other_processes_see_it"),
    (Deletes, "test_it_behaves_like_the_model"),
]


def kit_of(wrong: type[Any]) -> type[ObjectStoreConformance]:
    class Kit(ObjectStoreConformance):
        large = 8 * 2**20

        @pytest.fixture
        def store(self, tmp_path: Path) -> Any:
            return wrong(tmp_path) if issubclass(wrong, FileStore) else wrong()

        @pytest.fixture
        def other(self, tmp_path: Path) -> Any:
            return wrong(tmp_path) if issubclass(wrong, FileStore) else None

        @pytest.fixture
        def small(self) -> Any:
            return None if issubclass(wrong, FileStore) else wrong(100_000)

    return Kit


@pytest.mark.parametrize(("wrong", "test"), WRONG, ids=lambda value: getattr(value, "__name__", value))
def test_a_wrong_store_is_caught(wrong: type[Any], test: str) -> None:
    outcome = run_kit(kit_of(wrong), only=test)
    assert set(outcome.failed) == {test}, (outcome.passed, outcome.failed)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (b"ab" * 500, ""),
        (b"ab" * 400, "800 bytes, of which 800 are right: then b'' instead of b'abababababababab' (of 1,000 bytes)"),
        (b"ab" * 499 + b"aX", "1,000 bytes, of which 999 are right: then b'X' instead of b'b' (of 1,000 bytes)"),
        (None, "nothing, instead of 1,000 bytes"),
    ],
)
def test_where_payloads_differ(found: bytes | None, said: str) -> None:
    assert first_difference(found, b"ab" * 500) == said


def test_every_promise_has_a_store_that_breaks_it() -> None:
    promises = {name for name in vars(ObjectStoreConformance) if name.startswith("test_")}
    assert {test for _, test in WRONG} == promises


def test_what_cannot_be_tested_is_said() -> None:
    class Kit(ObjectStoreConformance):
        constant_memory = False

        @pytest.fixture
        def store(self) -> MemoryStore:
            return MemoryStore()

    outcome = run_kit(Kit, only="full or other_processes or constant")
    assert (outcome.failed, outcome.passed) == ({}, set())
    assert len(outcome.skipped) == 3
    told = run_kit(ObjectStoreConformance, only="test_put_replaces").failed["test_put_replaces"]
    assert "override the fixture `store`" in told
