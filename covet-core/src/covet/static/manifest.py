"""The manifest: what `covet static build` made of a directory, and by which name each file is served."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from covet.exceptions import ConfigurationError

__all__ = ["MANIFEST", "SUFFIXES", "Manifest", "StaticFilesError", "StoredFile", "write_atomically"]

MANIFEST = "manifest.json"
"""The name of the manifest in the directory that was built."""

SUFFIXES = {"br": ".br", "zstd": ".zst", "gzip": ".gz"}
"""The ending of a file that holds another in a coding (RFC 9110 section 8.4.1), by coding, the smallest first."""

VERSION = 1


class StaticFilesError(ConfigurationError):
    """A directory of static files, or what was built of it, cannot be used."""


class StoredFile(Struct, frozen=True, kw_only=True):
    """A file that was built.

    Attributes:
        source: the name of the file that it was made of.
        size: its size in bytes.
        sha256: the hash of its contents, in hexadecimal; the beginning of it stands in its name.
        encodings: coding to size in bytes, of the compressed files beside it.
    """

    source: str
    size: Annotated[int, Meta(ge=0)]
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    encodings: dict[str, int] = {}


class Manifest(Struct, frozen=True, kw_only=True):
    """What was built of a directory.

    Attributes:
        version: the format's version.
        files: the name of a file to its name with the hash in it.
        stored: the latter to what it is; of earlier builds too, since pages of an earlier release still ask for them.
    """

    version: int = VERSION
    files: dict[str, str] = {}
    stored: dict[str, StoredFile] = {}

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> Manifest:
        """The manifest of a directory that was built; an empty one where nothing was.

        Raises:
            StaticFilesError: it cannot be read, or is none.
        """
        path = Path(directory, MANIFEST)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return cls()
        except OSError as error:
            raise StaticFilesError(f"the manifest {path} cannot be read: {error}") from error
        try:
            found = msgspec.json.decode(data, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise StaticFilesError(f"{path} is no manifest: {error}; `covet static build` writes it anew") from error
        if found.version != VERSION:
            raise StaticFilesError(
                f"the manifest {path} has version {found.version}, and this Covet knows {VERSION}; "
                "`covet static build` writes it anew"
            )
        return found

    def save(self, directory: str | os.PathLike[str]) -> bool:
        """Write the manifest, unless it is there as it is. Returns whether it was written.

        It is replaced at once: whoever reads it finds the old one or the new one.

        Raises:
            OSError: it cannot be written.
        """
        path = Path(directory, MANIFEST)
        data = msgspec.json.format(msgspec.json.encode(self, order="sorted"), indent=1) + b"\n"
        if path.exists() and path.read_bytes() == data:
            return False
        write_atomically(path, data)
        return True

    def check(self, directory: str | os.PathLike[str]) -> None:
        """Look whether every file that was built is there, in its size.

        Raises:
            StaticFilesError: one is not: what was deployed is not what was built.
        """
        for name, stored in self.stored.items():
            expected = {name: stored.size}
            expected |= {name + SUFFIXES.get(coding, ""): size for coding, size in stored.encodings.items()}
            for each, size in expected.items():
                path = Path(directory, each)
                try:
                    found = path.stat().st_size
                except OSError as error:
                    raise StaticFilesError(
                        f"the manifest names {path}, which cannot be read: {error.strerror}; "
                        "run `covet static build`, and deploy its directory as a whole"
                    ) from error
                if found != size:
                    raise StaticFilesError(
                        f"{path} has {found} bytes and not {size}, as the manifest says; run `covet static build`, "
                        "and deploy its directory as a whole"
                    )


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that nobody ever sees a part of it, also after a crash.

    Raises:
        OSError: it cannot be written; nothing is left behind then.
    """
    from tempfile import NamedTemporaryFile

    # The name begins with a dot: it is never served, and no build takes it for a file.
    with NamedTemporaryFile(dir=path.parent, prefix=".covet-", delete=False) as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            # Made readable like any other file: temporary ones are for their owner alone.
            os.chmod(file.name, 0o644)
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise
