"""Object stores: in an application, on a disk that is full, and when the process that writes is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covet import ConfigurationError
from covet.builtin.objects.files import FileStore
from covet.builtin.objects.memory import MemoryStore
from covet.builtin.objects.paths import from_parts, to_parts
from covet.objects import ObjectCorrupt, ObjectNotFound, ObjectStore, ObjectStoreError, Presigning, get_object_store
from covet.testing import TestClient, plugin_sandbox

pytestmark = pytest.mark.anyio

parts = st.sampled_from(["", ".", "..", "a", "A", "con", "%", "=", "+", "x" * 199, "x" * 201])
keys = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40),
    st.lists(parts, min_size=1).map("/".join),
).filter(bool)  # fmt: skip


# Keys and paths


@given(keys, keys)
def test_paths_are_safe_and_tell_keys_apart(one: str, other: str) -> None:
    """On file systems that ignore case, too; no part is one that leads elsewhere or is a device on Windows."""
    first, second = (to_parts(key.encode()) for key in (one, other))
    assert (tuple(map(str.casefold, first)) == tuple(map(str.casefold, second))) == (one == other)
    assert from_parts(first) == one.encode()
    for part in first:
        assert part not in ("", ".", "..")
        assert len(part) <= 201
        assert part == part.lower()
        assert all(character in "abcdefghijklmnopqrstuvwxyz0123456789-_.%=+" for character in part)
        assert part.rstrip("=+").partition(".")[0] not in ("con", "nul", "aux", "prn", "com1", "lpt1")
        assert not part.rstrip("=+").endswith(".")
    assert all(not part.endswith("=") for part in first[:-1])
    assert first[-1].endswith("=")
    assert len(first) < 120


@pytest.mark.parametrize("parts", [("A=",), ("%41%42=",), ("b%61=",), ("\u00e9=",), ("%ff=",), ("x" * 201 + "=",)])
def test_what_is_no_path_of_a_key(parts: tuple[str, ...]) -> None:
    if parts != ("%41%42=",):
        assert from_parts(parts) is None
    else:
        assert from_parts(parts) == b"AB"


# In an application


async def test_a_handler_asks_for_it(tmp_path: Path) -> None:
    settings = {
        "objects": {"default": {"backend": "file", "path": str(tmp_path / "o"), "fsync": False}, "temporary": {}}
    }
    app = plugin_sandbox("objects", settings=settings)

    @app.put("/{key}")
    async def put(key: str, store: ObjectStore) -> str:
        return (await store.put(key, b"content")).etag

    async with TestClient(app) as client:
        etag = (await client.put("/a")).text
        assert (await get_object_store(app=app).head("a")).etag == etag
        assert isinstance(get_object_store(), FileStore)
        temporary = get_object_store("temporary")
        assert isinstance(temporary, MemoryStore)
        assert isinstance(temporary, ObjectStore)
        assert not isinstance(temporary, Presigning)
        with pytest.raises(ObjectNotFound, match="there is no object 'a'"):
            await temporary.head("a")
        with pytest.raises(ConfigurationError, match=r"there is no \[objects.mail\]"):
            get_object_store("mail")
    with pytest.raises(ConfigurationError, match="path"):
        plugin_sandbox("objects", settings={"objects": {"default": {"backend": "file"}}}).build()


# The directory


async def test_a_store_leaves_nothing_else_in_its_directory(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "o")
    assert (await store.list()).objects == []
    await store.delete("a")
    assert not (tmp_path / "o").exists()
    await store.put("a/b/c", b"")
    await store.put("a/d", b"")
    await store.delete("a/b/c")
    found = sorted(str(path.relative_to(tmp_path / "o")) for path in (tmp_path / "o").rglob("*"))
    assert found == ["=lock", "=new", "a", "a/d="]
    await store.delete("a/d")
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["=lock", "=new"]


@pytest.mark.parametrize(
    "damage", [b"", b"short", b"x" * 100, b"covet object v1\n", b"\xff\xff\xff\xffcovet object v1\n"]
)
async def test_a_file_that_is_damaged_is_told(tmp_path: Path, damage: bytes) -> None:
    store = FileStore(tmp_path)
    await store.put("k", b"content")
    (tmp_path / "k=").write_bytes(damage)
    with pytest.raises(ObjectCorrupt, match="the file of 'k' is not what was put there"):
        await store.head("k")
    await store.put("k", b"again")
    (tmp_path / "k=").rename(tmp_path / "other=")
    with pytest.raises(ObjectCorrupt):
        await store.head("other")


async def test_a_directory_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ObjectStoreError, match="the directory of 'k' cannot be used: "):
        await FileStore(tmp_path / "file").put("k", b"")


FULL = """
import resource, sys, anyio
from covet.builtin.objects.files import FileStore
from covet.objects import ObjectStoreFull

async def main():
    store = FileStore(sys.argv[1])
    await store.put("k", b"before")
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    for key in ("k", "new"):
        try:
            await store.put(key, b"x" * 3_000_000)
        except ObjectStoreFull as error:
            print(error)
    async with store.get("k") as found:
        print(await found.read(), [info.key for info in (await store.list()).objects])

anyio.run(main)
"""


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == [
        "there is no room for 'k': File too large",
        "there is no room for 'new': File too large",
        "b'before' ['k']",
    ], done.stderr
    assert list((tmp_path / "=new").iterdir()) == []


WRITER = """
import sys, anyio
from covet.builtin.objects.files import FileStore

async def main():
    store = FileStore(sys.argv[1], fsync=False)
    number = 0
    while True:
        number += 1
        await store.put("k", bytes([number % 256]) * 3_000_000)
        if number == 1:
            print("begun", flush=True)

anyio.run(main)
"""


async def whole(store: FileStore) -> bytes:
    async with store.get("k") as found:
        content = await found.read()
    await store.put("other", b"")
    return content


def test_a_writer_that_is_killed(tmp_path: Path) -> None:
    """Whenever it is killed, the object is whole; what it leaves is removed by the next one."""
    for attempt in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            time.sleep(0.007 * attempt)
            os.kill(process.pid, signal.SIGKILL)
        content = anyio.run(whole, FileStore(tmp_path))
        assert len(content) == 3_000_000
        assert len(set(content)) == 1
        leftovers = [path for path in (tmp_path / "=new").iterdir() if path.stat().st_size]
        assert leftovers == []


async def test_what_is_being_written_is_no_leftover(tmp_path: Path) -> None:
    begun, go = anyio.Event(), anyio.Event()

    async def chunks() -> Any:
        yield b"x" * 2_000_000
        begun.set()
        await go.wait()
        yield b"y"

    async with anyio.create_task_group() as group:

        async def put() -> None:
            await FileStore(tmp_path).put("slow", chunks())

        group.start_soon(put)
        await begun.wait()
        await FileStore(tmp_path).put("quick", b"")
        go.set()
    assert (await FileStore(tmp_path).head("slow")).size == 2_000_001
