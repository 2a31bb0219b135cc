"""The conformance kit of object stores.

class TestBucket(ObjectStoreConformance):
    @pytest.fixture
    def store(self, bucket):
        return BucketStore(bucket)
"""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covet.objects import (
    MAX_KEY,
    MAX_METADATA,
    InvalidKey,
    ObjectConflict,
    ObjectNotFound,
    ObjectStore,
    ObjectStoreFull,
    RangeNotSatisfiable,
)
from covet.testing.conformance.faults import at_every_await
from covet.testing.conformance.kits import EXAMPLES, ConformanceKit, first_difference

__all__ = ["ObjectStoreConformance"]

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
segments = st.sampled_from(
    ["", ".", "..", "a", "A", "b", "con", "a.b", "a.", " ", "%", "%61", "x" * 120, "=", "+", "\0"]
)
keys = st.one_of(texts, st.lists(segments, min_size=2, max_size=6).map("/".join).filter(bool))
# Keys that a careless mapping to paths takes for one another, or for a way out.
ALIKE = [
    "a", "A", "a.", "a ", " a", "a/", "a//", "/a", "//a", "./a", "a/.", "a/b", "a/./b", "a/x/../b", "../a", "../../a",
    "..",
    ".", "/", "a\\b", "a%2fb", "a%2Fb", "%61", "a\0", "a\n", "a:b", "a*", "a?", "con", "CON", "con.txt", "nul", "~",
    "~/a",
    "-rf", "a=", "a+", "=new", "\u00e9", "e\u0301", "\u0130", "\U0001f600", "x" * 300, "x" * 300 + "/y", "x" * 301,
    "a/" * 511 + "a", "\u00e9" * 512, "A" * 1024, "/" * 1024,
]  # fmt: skip


class ObjectStoreConformance(ConformanceKit):
    """The promises of an object store. A subclass overrides `store`, and `other` and `small` if it can.

    Attributes:
        constant_memory: whether the store keeps its objects elsewhere than in memory.
        large: bytes of the object that shows it.
    """

    constant_memory = True
    large = 48 * 2**20

    @pytest.fixture
    def store(self) -> ObjectStore:
        """An empty store. Override it."""
        raise pytest.UsageError("override the fixture `store` to give the object store that is tested")

    @pytest.fixture
    def other(self) -> ObjectStore | None:
        """The same store, as another process has it; None where there are no others."""
        return None

    @pytest.fixture
    def small(self) -> ObjectStore | None:
        """A store with room for 100,000 bytes and not for 10 million; None where that cannot be had."""
        return None

    # Content

    @pytest.mark.parametrize("size", [0, 1, 1000, 2**16, 2**18 - 1, 2**18, 2**18 + 1, 3 * 2**20 + 7])
    async def test_what_is_put_is_there(self, store: ObjectStore, size: int) -> None:
        """Promise: an object is read as it was put, whatever its size."""
        data = (bytes(range(256)) * (size // 256 + 1))[:size]
        info = await store.put("a/b.bin", data, content_type="image/png", metadata={"Name": "\u00e9 = 1\n", "x": ""})
        assert (info.key, info.size, info.content_type) == ("a/b.bin", size, "image/png")
        assert info.metadata == {"Name": "\u00e9 = 1\n", "x": ""}
        assert info.modified.tzinfo is not None
        await check_content(store, "a/b.bin", data)
        assert await store.head("a/b.bin") == info
        assert (await store.list()).objects == [info]

    async def test_a_stream_is_put(self, store: ObjectStore) -> None:
        """Promise: content may come in chunks of any size."""
        chunks = [b"a", b"", b"bc" * 1000, b"d" * 300_000, b"e"]
        info = await store.put("stream", stream(*chunks))
        assert info.size == sum(map(len, chunks))
        await check_content(store, "stream", b"".join(chunks))
        assert (await store.put("empty", stream())).size == 0
        assert await read(store, "empty") == b""

    async def test_large_objects_take_constant_memory(self, store: ObjectStore) -> None:
        """Promise: neither `put` nor `get` holds an object in memory."""
        if not self.constant_memory:
            pytest.skip("the store keeps its objects in memory")
        chunk = b"x" * 2**18

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(self.large // len(chunk)):
                yield chunk

        tracemalloc.start()
        try:
            await store.put("large", chunks())
            total = 0
            async with store.get("large") as found:
                async for piece in found:
                    total += len(piece)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert total == self.large
        assert peak < self.large / 3, f"{peak} bytes for an object of {self.large}"

    async def test_put_replaces(self, store: ObjectStore) -> None:
        """Promise: a second `put` replaces content, type and metadata; the etag tells that the content is another."""
        first = await store.put("k", b"first", content_type="text/plain", metadata={"a": "1"})
        second = await store.put("k", b"2nd")
        assert (second.content_type, second.metadata) == ("application/octet-stream", {})
        assert first.etag != second.etag
        assert await read(store, "k") == b"2nd"
        assert (await store.list()).objects == [second]

    async def test_ranges(self, store: ObjectStore) -> None:
        """Promise: a range is exactly the bytes that were asked for, and what cannot be is refused."""
        data = bytes(range(256)) * 1200
        await store.put("k", data)
        for offset, length in [(0, 0), (0, 1), (5, 10), (0, None), (307_199, None), (307_200, None), (262_100, 100),
                               (300_000, 10**9)]:  # fmt: skip
            end = None if length is None else offset + length
            async with store.get("k", offset=offset, length=length) as found:
                difference = first_difference(await found.read(), data[offset:end])
                assert not difference, (offset, length, difference)
                assert found.info.size == len(data)
        with pytest.raises(RangeNotSatisfiable):
            await read(store, "k", offset=len(data) + 1)
        for wrong in ({"offset": -1}, {"length": -1}):
            with pytest.raises(ValueError):  # noqa: PT011 - the text is the store's own
                await read(store, "k", **wrong)

    async def test_what_is_not_there(self, store: ObjectStore) -> None:
        """Promise: reading what is not there is `ObjectNotFound`; deleting it does nothing."""
        await store.put("a/b", b"")
        for key in ("a", "a/", "a/b/c", "nothing", "a/c"):
            with pytest.raises(ObjectNotFound):
                await store.head(key)
            with pytest.raises(ObjectNotFound):
                await read(store, key)
            await store.delete(key)
        await store.delete("a/b")
        with pytest.raises(ObjectNotFound):
            await store.head("a/b")
        assert (await store.list()).objects == []

    # Keys

    async def test_keys_are_told_apart(self, store: ObjectStore) -> None:
        """Promise: a key is compared as a whole, exactly; none leads out of the store, or hides another."""
        for key in ALIKE:
            await store.put(key, key.encode())
        for key in ALIKE:
            assert await read(store, key) == key.encode()
        assert [info.key for info in await everything(store)] == sorted(ALIKE, key=str.encode)
        for key in ALIKE[::2]:
            await store.delete(key)
        for key in ALIKE[1::2]:
            assert await read(store, key) == key.encode()
        assert [info.key for info in await everything(store)] == sorted(ALIKE[1::2], key=str.encode)

    @EXAMPLES
    @given(found=st.lists(keys, min_size=1, max_size=6, unique=True), prefix=texts)
    async def test_any_key(self, store: ObjectStore, found: list[str], prefix: str) -> None:
        """Promise: a key is any text."""
        for key in found:
            await store.put(key, key.encode())
        for key in found:
            assert await read(store, key) == key.encode()
        for beginning in {prefix, found[0][:1], found[-1][:3]}:
            listed = [info.key for info in await everything(store, beginning)]
            assert listed == sorted((key for key in found if key.startswith(beginning)), key=str.encode)
        for key in found:
            await store.delete(key)
        assert await everything(store) == []

    @pytest.mark.parametrize("key", ["", "\ud800", "x" * (MAX_KEY + 1), "\u00e9" * (MAX_KEY // 2 + 1)])
    async def test_what_is_no_key(self, store: ObjectStore, key: str) -> None:
        """Promise: what is no key is refused with `InvalidKey`, everywhere."""
        for call in (lambda: store.put(key, b""), lambda: read(store, key), lambda: store.head(key),
                     lambda: store.delete(key)):  # fmt: skip
            with pytest.raises(InvalidKey):
                await call()

    async def test_metadata_is_bounded(self, store: ObjectStore) -> None:
        """Promise: as much metadata as is allowed is kept, more is refused; so is a content type of several lines."""
        most = {"n": "\u00e9" * ((MAX_METADATA - 1) // 2)}
        await store.put("k", b"", metadata=most)
        assert (await store.head("k")).metadata == most
        refused: list[dict[str, Any]] = [
            {"metadata": {"n": "x" * MAX_METADATA}}, {"metadata": {"n": "\ud800"}},
            {"content_type": "text/plain\r\nx: y"}, {"content_type": ""},
        ]  # fmt: skip
        for wrong in refused:
            with pytest.raises(InvalidKey):
                await store.put("k", b"other", **wrong)
        assert await read(store, "k") == b""

    # Listing

    async def test_pages(self, store: ObjectStore) -> None:
        """Promise: pages of any size give each key once, in the order of UTF-8; a prefix is text."""
        expected = sorted(
            [
                "a",
                "a-b",
                "a.b",
                "a/",
                "a/b",
                "a/c/d",
                "a/c/e",
                "a0",
                "aa",
                "b/1",
                "b/2",
                "B",
                "\u00e9",
                "\uffff",
                "\U00010000",
            ],
            key=str.encode,
        )
        for key in expected:
            await store.put(key, b"")
        for limit in (1, 2, 3, len(expected), 100):
            assert [info.key for info in await everything(store, limit=limit)] == expected
        for prefix in ("a", "a/", "a/c", "a/c/", "b/1", "c", "\u00e9"):
            listed = [info.key for info in await everything(store, prefix, limit=2)]
            assert listed == [key for key in expected if key.startswith(prefix)]
        for after in ("a/b", "a/bb", "\0", "zzz"):
            page = await store.list(after=after)
            assert [info.key for info in page.objects] == [key for key in expected if key.encode() > after.encode()]
        assert (await store.list(limit=len(expected))).after is None
        with pytest.raises(ValueError):  # noqa: PT011 - the text is the store's own
            await store.list(limit=0)

    async def test_a_listing_while_objects_come_and_go(self, store: ObjectStore) -> None:
        """Promise: what stays is listed once, whatever is put and deleted meanwhile."""
        stay = [f"stay/{number:03}" for number in range(30)]
        for key in stay:
            await store.put(key, b"")

        async def disturb() -> None:
            for number in range(30):
                await store.put(f"stay/{number:03}-new", b"")
                await store.delete(f"stay/{number:03}-new")

        async with anyio.create_task_group() as group:
            group.start_soon(disturb)
            for _ in range(3):
                listed = [info.key for info in await everything(store, limit=4)]
                assert [key for key in listed if key in stay] == stay

    # Atomicity

    async def test_a_stream_that_fails(self, store: ObjectStore) -> None:
        """Promise: when the content's source fails, its error is raised and what was there is there still."""
        await store.put("k", b"before")

        async def broken() -> AsyncIterator[bytes]:
            yield b"x" * 2_000_000
            raise ConnectionResetError("the client left")

        for key in ("k", "new"):
            with pytest.raises(ConnectionResetError, match="the client left"):
                await store.put(key, broken())
        assert await read(store, "k") == b"before"
        assert [info.key for info in await everything(store)] == ["k"]

    async def test_put_is_cancelled_anywhere(self, store: ObjectStore) -> None:
        """Promise: `put`, cancelled at any await, has stored the object whole or not at all."""
        before, after = b"before" * 1000, b"after" * 100_000

        async def put() -> None:
            await store.put("k", stream(after[:1], after[1:300_000], after[300_000:]))

        async def check() -> None:
            assert await read(store, "k") in (before, after)
            assert [info.key for info in await everything(store)] == ["k"]
            await store.put("k", before)

        await check_before(store, before)
        assert await at_every_await(put, check) > 0

    async def test_get_is_cancelled_anywhere(self, store: ObjectStore) -> None:
        """Promise: reading, cancelled at any await, leaves the store as it was."""
        await store.put("k", b"x" * 600_000)

        async def get() -> None:
            async with store.get("k") as found:
                async for _ in found:
                    await anyio.lowlevel.checkpoint()

        async def check() -> None:
            await check_content(store, "k", b"x" * 600_000)

        assert await at_every_await(get, check) > 0

    async def test_readers_see_whole_objects(self, store: ObjectStore) -> None:
        """Promise: of concurrent puts one wins whole, and a reader sees one version from beginning to end."""
        versions = [bytes([65 + number]) * 400_000 for number in range(6)]
        await store.put("k", versions[0])

        def check_version(found: bytes) -> None:
            closest = next((version for version in versions if version[:1] == found[:1]), versions[0])
            assert not (difference := first_difference(found, closest)), difference

        async def write(version: bytes) -> None:
            for _ in range(3):
                await store.put("k", stream(version[:1000], version[1000:]))

        async def look() -> None:
            for _ in range(12):
                check_version(await read(store, "k"))

        async with anyio.create_task_group() as group:
            for version in versions:
                group.start_soon(write, version)
            group.start_soon(look)
        check_version(await read(store, "k"))
        assert [info.key for info in await everything(store)] == ["k"]

    async def test_a_reader_keeps_its_version(self, store: ObjectStore) -> None:
        """Promise: what is put or deleted meanwhile does not change what a reader reads."""
        old = b"old" * 400_000
        for change in (lambda: store.put("k", b"new" * 400_000), lambda: store.delete("k")):
            await store.put("k", old)
            async with store.get("k") as found:
                chunks = aiter(found)
                first = await anext(chunks)
                await change()
                rest = [chunk async for chunk in chunks]
            assert not (difference := first_difference(b"".join([first, *rest]), old)), difference

    async def test_only_one_creates(self, store: ObjectStore) -> None:
        """Promise: of any number of puts with `if_absent`, one succeeds."""
        won: list[int] = []

        async def create(number: int) -> None:
            try:
                await store.put("k", b"%d" % number, if_absent=True)
                won.append(number)
            except ObjectConflict:
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as group:
            for number in range(10):
                group.start_soon(create, number)
        assert len(won) == 1
        assert await read(store, "k") == b"%d" % won[0]
        await store.delete("k")
        await store.put("k", b"again", if_absent=True)

    async def test_no_update_is_lost(self, store: ObjectStore) -> None:
        """Promise: with `if_match`, a put succeeds only on the version that it was made from."""
        await store.put("n", b"0")

        async def add() -> None:
            for _ in range(4):
                while True:
                    async with store.get("n") as found:
                        number = int(await found.read())
                    try:
                        await store.put("n", b"%d" % (number + 1), if_match=found.info.etag)
                        break
                    except ObjectConflict:
                        await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(add)
        assert await read(store, "n") == b"20"
        with pytest.raises(ObjectConflict):
            await store.put("nothing", b"", if_match="anything")
        with pytest.raises(ObjectNotFound):
            await store.head("nothing")

    async def test_a_store_that_is_full(self, small: ObjectStore | None) -> None:
        """Promise: what has no room is refused with `ObjectStoreFull`, and leaves what was there and nothing else."""
        if small is None:
            pytest.skip("no store with little room was given")
        await small.put("k", b"before")
        for key in ("k", "new"):
            with pytest.raises(ObjectStoreFull):
                await small.put(key, stream(*[b"x" * 100_000] * 100))
        assert await read(small, "k") == b"before"
        assert [info.key for info in await everything(small)] == ["k"]
        await small.put("k", b"after" * 1000)
        assert await read(small, "k") == b"after" * 1000

    async def test_other_processes_see_it(self, store: ObjectStore, other: ObjectStore | None) -> None:
        """Promise: what `put` has returned is there for every other process."""
        if other is None:
            pytest.skip("the store belongs to one process")
        info = await store.put("k", b"here", metadata={"a": "b"})
        assert await other.head("k") == info
        assert await read(other, "k") == b"here"
        with pytest.raises(ObjectConflict):
            await other.put("k", b"there", if_absent=True)
        await other.delete("k")
        with pytest.raises(ObjectNotFound):
            await store.head("k")

    # A model

    @EXAMPLES
    @given(
        steps=st.lists(
            st.tuples(
                st.sampled_from(["put", "create", "update", "delete", "head", "list"]),
                st.sampled_from(["a", "a/b", "a/c", "b", "a/b/c"]),
                st.binary(max_size=5),
            ),
            max_size=20,
        )
    )
    async def test_it_behaves_like_the_model(self, store: ObjectStore, steps: list[tuple[str, str, bytes]]) -> None:
        """Promise: a sequence of calls has the effect that it has on a dict."""
        model: dict[str, bytes] = {}
        etags: dict[str, str] = {}
        async with AsyncExitStack() as stack:
            for key in ("a", "a/b", "a/c", "b", "a/b/c"):
                stack.push_async_callback(store.delete, key)
            for what, key, data in steps:
                if what in ("put", "create", "update"):
                    options: dict[str, Any] = {}
                    if what == "create":
                        options["if_absent"] = True
                    elif what == "update":
                        options["if_match"] = etags.get(key, "none")
                    allowed = what == "put" or (key in model) == (what == "update")
                    try:
                        etags[key] = (await store.put(key, data, **options)).etag
                        assert allowed, f"{what} of {key!r} was to be refused"
                        model[key] = data
                    except ObjectConflict:
                        assert not allowed, f"{what} of {key!r} was refused"
                elif what == "delete":
                    await store.delete(key)
                    model.pop(key, None)
                    etags.pop(key, None)
                elif what == "head":
                    try:
                        assert (await store.head(key)).size == len(model[key])
                    except ObjectNotFound:
                        assert key not in model
                else:
                    assert [info.key for info in await everything(store, key)] == sorted(
                        each for each in model if each.startswith(key)
                    )
            for key, data in model.items():
                assert await read(store, key) == data


async def read(store: ObjectStore, key: str, **options: Any) -> bytes:
    """An object's content."""
    async with store.get(key, **options) as found:
        return await found.read()


async def everything(store: ObjectStore, prefix: str = "", limit: int = 7) -> list[Any]:
    """All pages of a listing."""
    found: list[Any] = []
    after = None
    while True:
        page = await store.list(prefix, after=after, limit=limit)
        assert len(page.objects) <= limit
        found += page.objects
        if page.after is None:
            return found
        assert page.objects, "a page with more behind it is not empty"
        after = page.after


async def stream(*chunks: bytes) -> AsyncIterator[bytes]:
    """Chunks, with awaits between."""
    for chunk in chunks:
        await anyio.lowlevel.checkpoint()
        yield chunk


async def check_before(store: ObjectStore, content: bytes) -> None:
    """Put what a test begins with."""
    await store.put("k", content)
    await check_content(store, "k", content)


async def check_content(store: ObjectStore, key: str, content: bytes) -> None:
    """An object holds what it should."""
    assert not (difference := first_difference(await read(store, key), content)), difference
