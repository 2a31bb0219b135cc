"""`covet static build`: files under names that hold a hash of their contents, compressed beside, and a manifest.

A build is deterministic: the same files give the same names and the same bytes, wherever and whenever.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from covet.static.manifest import MANIFEST, SUFFIXES, Manifest, StaticFilesError, StoredFile, write_atomically
from covet.static.paths import locate, split_path
from covet.static.references import rewrite_references
from covet.static.serving import StaticFiles

__all__ = ["Built", "build", "source_files"]

# Hexadecimal digits of the SHA-256 in a name: 64 bits, so that two versions of a file never meet.
DIGITS = 16
# Larger files are copied without being read as a whole, and not compressed.
MAX_IN_MEMORY = 64 * 2**20
# What saves less than a tenth is not worth decoding.
WORTHWHILE = 0.9
GZIP_LEVEL, ZSTD_LEVEL = 9, 19
# Formats that are compressed themselves.
COMPRESSED = frozenset({
    ".7z", ".avif", ".br", ".bz2", ".flac", ".gif", ".gz", ".jpeg", ".jpg", ".m4a", ".m4v", ".mkv", ".mov", ".mp3",
    ".mp4", ".ogg", ".ogv", ".opus", ".png", ".rar", ".webm", ".webp", ".woff", ".woff2", ".xz", ".zip", ".zst",
})  # fmt: skip


class Built(NamedTuple):
    """What a build did.

    Attributes:
        files: how many files there are.
        written: the names of those that were written, or would be, below the directory of the build.
        removed: the names of those that were removed, or would be.
        current: whether the manifest says what it said before.
    """

    files: int
    written: list[str]
    removed: list[str]
    current: bool


def source_files(files: StaticFiles) -> Iterator[str]:
    """The names of the files of a directory that are served, with slashes. Symbolic links to files inside of
    the directory are followed, those to directories are not."""
    for here, directories, names in os.walk(files.directory):
        directories[:] = [name for name in directories if not name.startswith(".") or name in files.dotfiles]
        for name in names:
            path = Path(here, name).relative_to(files.directory).as_posix()
            parts = split_path(path, files.dotfiles)
            found = None if parts is None else locate(files.directory, parts, files.dotfiles)
            if found and Path(files.directory, *found).is_file() and not _is_sibling(path, files):
                yield path


def _is_sibling(path: str, files: StaticFiles) -> bool:
    """Whether a file is another one, compressed: a build makes its own."""
    return any(path.endswith(suffix) and files.exists(path.removesuffix(suffix)) for suffix in SUFFIXES.values())


def build(
    files: StaticFiles,
    *,
    write: bool = True,
    prune: bool = False,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> Built:
    """Build a directory of static files into `files.build`.

    What is there already is not written again. The manifest comes last and is replaced at once, so that a build that
    breaks off changes nothing for who serves meanwhile.

    Args:
        files: the directory.
        write: whether to write; without, only what would be done is told.
        prune: whether to remove what earlier builds made and this one does not. Pages of an earlier release may still
            ask for it.
        progress: called before each file with its name, how many were done, and how many there are.

    Raises:
        StaticFilesError: nothing says where to build, or a file cannot be read or written, or changed meanwhile.
    """
    if files.build is None:
        raise StaticFilesError(f"nothing says where {files.directory} is built: `StaticFiles(..., build=...)`")
    try:
        return _Build(files, Path(files.build), write).run(prune, progress)
    except OSError as error:
        raise StaticFilesError(f"the static files in {files.directory} cannot be built: {error}") from error


class _Build:
    def __init__(self, files: StaticFiles, target: Path, write: bool) -> None:
        self.source = Path(files.directory)
        self.target = target
        self.write = write
        self.names = sorted(source_files(files))
        self.known = frozenset(self.names)
        try:
            self.before = Manifest.load(target)
            self.broken = False
        except StaticFilesError:
            # Written anew: a build is what repairs it.
            self.before, self.broken = Manifest(), True
        self.hashes: dict[str, str] = {}
        self.sheets: dict[str, bytes] = {}
        self.reading: list[str] = []
        self.written: list[str] = []

    def run(self, prune: bool, progress: Callable[[str, int, int], None]) -> Built:
        if self.write:
            self.target.mkdir(parents=True, exist_ok=True)
        stored: dict[str, StoredFile] = {}
        for number, name in enumerate(self.names):
            progress(name, number, len(self.names))
            stored[self.new_name(name)] = self.store(name)
        progress("", len(self.names), len(self.names))
        kept = {}
        removed = []
        for name, entry in self.before.stored.items():
            if name in stored or not Path(self.target, name).exists():
                continue
            if prune:
                removed += self.remove(name, entry)
            else:
                kept[name] = entry
        made = Manifest(files={name: self.new_name(name) for name in self.names}, stored={**kept, **stored})
        current = made == self.before and not self.broken
        if self.write:
            made.save(self.target)
        return Built(len(self.names), self.written, removed, current)

    # Names

    def new_name(self, name: str) -> str:
        """The name with the hash in it: `css/app.css` becomes `css/app.9b2e4c60d1f3a857.css`."""
        path = PurePosixPath(name)
        return str(path.with_name(f"{path.stem}.{self.sha256(name)[:DIGITS]}{path.suffix}"))

    def sha256(self, name: str) -> str:
        """The hash of a file as it will be served, style sheets with their references renamed."""
        found = self.hashes.get(name)
        if found is None:
            if name.endswith(".css"):
                self.sheets[name] = self.sheet(name)
                found = hashlib.sha256(self.sheets[name]).hexdigest()
            else:
                with Path(self.source, name).open("rb") as file:
                    found = hashlib.file_digest(file, "sha256").hexdigest()
            self.hashes[name] = found
        return found

    def sheet(self, name: str) -> bytes:
        data = Path(self.source, name).read_bytes()
        try:
            css = data.decode("utf-8")
        except UnicodeDecodeError:
            # In another charset; what it refers to is found under the plain names too.
            return data

        def renamed(target: str) -> str | None:
            # In a circle of imports no name can hold a hash of all; one of them keeps the plain names.
            return self.new_name(target) if target in self.known and target not in self.reading else None

        self.reading.append(name)
        try:
            return rewrite_references(css, name, renamed).encode()
        finally:
            self.reading.pop()

    # Files

    def store(self, name: str) -> StoredFile:
        """Write a file under its new name, and compressed beside, unless it is there."""
        new, sha256 = self.new_name(name), self.sha256(name)
        before = self.before.stored.get(new)
        if before is not None and before.sha256 == sha256 and self.is_there(new, before):
            return before
        source, target = Path(self.source, name), Path(self.target, new)
        if name not in self.sheets and source.stat().st_size > MAX_IN_MEMORY:
            size = self.copy(name, source, target, sha256)
            return StoredFile(source=name, size=size, sha256=sha256)
        data = self.sheets.get(name)
        if data is None:
            data = source.read_bytes()
            if hashlib.sha256(data).hexdigest() != sha256:
                raise _changed(source)
        self.put(target, data)
        encodings = {}
        if PurePosixPath(name).suffix.lower() not in COMPRESSED:
            for coding, compress in compressors().items():
                compressed = compress(data)
                if len(compressed) <= len(data) * WORTHWHILE:
                    self.put(target.with_name(target.name + SUFFIXES[coding]), compressed)
                    encodings[coding] = len(compressed)
        return StoredFile(source=name, size=len(data), sha256=sha256, encodings=encodings)

    def is_there(self, new: str, entry: StoredFile) -> bool:
        sizes = {new: entry.size} | {new + SUFFIXES.get(coding, ""): size for coding, size in entry.encodings.items()}
        return all(_size(Path(self.target, name)) == size for name, size in sizes.items())

    def put(self, target: Path, data: bytes) -> None:
        self.written.append(target.relative_to(self.target).as_posix())
        if self.write:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(target, data)

    def copy(self, name: str, source: Path, target: Path, sha256: str) -> int:
        self.written.append(target.relative_to(self.target).as_posix())
        if not self.write:
            return source.stat().st_size
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".covet-{target.name}")
        try:
            shutil.copyfile(source, temporary)
            with temporary.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                    raise _changed(source)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
        return target.stat().st_size

    def remove(self, name: str, entry: StoredFile) -> list[str]:
        # A manifest that somebody else wrote must not make this remove anything outside.
        if name == MANIFEST or split_path(name) is None or locate(str(self.target), name.split("/")) is None:
            return []
        names = [name, *(name + SUFFIXES[coding] for coding in entry.encodings if coding in SUFFIXES)]
        if self.write:
            for each in names:
                Path(self.target, each).unlink(missing_ok=True)
        return names


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _changed(path: Path) -> StaticFilesError:
    return StaticFilesError(f"{path} changed while it was built; run `covet static build` again")


def compressors() -> dict[str, Callable[[bytes], bytes]]:
    """What there is to compress with, by coding. Zstandard takes Python 3.14 or the extra `covet-core[zstd]`."""
    found: dict[str, Callable[[bytes], bytes]] = {
        # No time and no name in the header, so that the same contents give the same bytes.
        "gzip": lambda data: gzip.compress(data, GZIP_LEVEL, mtime=0)
    }
    for module in ("compression.zstd", "backports.zstd"):
        try:
            zstd = import_module(module)
        except ImportError:
            continue
        return {**found, "zstd": partial(_zstd, zstd)}
    return found


def _zstd(module: Any, data: bytes) -> bytes:
    compressed: bytes = module.compress(data, ZSTD_LEVEL)
    return compressed
