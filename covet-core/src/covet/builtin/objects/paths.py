"""Keys of objects as paths of files: each key has one path and each path one key, on every file system.

A key is cut at its slashes into segments. Within a segment, lower-case letters, digits, `-`, `_` and inner dots stay;
every other byte is written as `%` and two lower-case hexadecimal digits, so that no two paths differ in case alone, and
none holds anything that a shell, a terminal or Windows takes for something else. An empty segment is `%`. A file's name
ends with `=` and a directory's does not, so that `a` may be an object beside `a/b`. A segment that is too long for a
name is cut; the directory of such a piece ends with `+`. What is behind the fortieth slash is one segment, since tools
that go through directories by recursion fail at some depth.
"""

from __future__ import annotations

import re

__all__ = ["from_parts", "to_parts"]

# Most file systems take names of 255 bytes.
MAX_NAME = 200
MAX_DEPTH = 40
PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_")
# Names that are devices on Windows, whatever follows their first dot.
RESERVED = re.compile(rb"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)")
ESCAPE = re.compile(rb"%([0-9a-f]{2})")


def to_parts(key: bytes) -> tuple[str, ...]:
    """The path of a key below the store's directory: directories, then the file."""
    parts: list[str] = []
    segments = key.split(b"/", MAX_DEPTH)
    for number, segment in enumerate(segments):
        pieces = _pieces(segment)
        parts += [piece + "+" for piece in pieces[:-1]]
        parts.append(pieces[-1] + ("=" if number == len(segments) - 1 else ""))
    return tuple(parts)


def from_parts(parts: tuple[str, ...]) -> bytes | None:
    """What a path stands for: a file's key, or how all keys in a directory begin; None where it is no path of a key."""
    text = b""
    for part in parts:
        name = part.removesuffix("=").removesuffix("+")
        try:
            text += ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), b"" if name == "%" else name.encode("ascii"))
        except UnicodeEncodeError:
            return None
        if not part.endswith(("=", "+")):
            text += b"/"
    # Another spelling of the same key would be a second object for it.
    if parts[-1].endswith("="):
        return text if to_parts(text) == parts and _is_text(text) else None
    return text


def _is_text(key: bytes) -> bool:
    try:
        key.decode()
    except UnicodeDecodeError:
        return False
    return True


def _pieces(segment: bytes) -> list[str]:
    """A segment, escaped, in pieces of at most `MAX_NAME`."""
    if not segment:
        return ["%"]
    reserved = RESERVED.match(segment) is not None
    pieces = [""]
    for position, byte in enumerate(segment):
        # A dot leads no piece, and ends none: Windows drops it there.
        plain = byte in PLAIN or (byte == 0x2E and pieces[-1] and position + 1 < len(segment))
        written = chr(byte) if plain and not (reserved and position == 0) else f"%{byte:02x}"
        if len(pieces[-1]) + len(written) > MAX_NAME:
            pieces.append("")
            written = written if written != "." else "%2e"
        pieces[-1] += written
    return pieces
