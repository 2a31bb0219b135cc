"""Which media types are worth compressing."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["COMPRESSIBLE", "TypeSet", "check_pattern"]

COMPRESSIBLE = (
    "text/*",
    "*+json",
    "*+xml",
    "*+yaml",
    "*+text",
    "application/json",
    "application/json-seq",
    "application/jsonl",
    "application/x-ndjson",
    "application/ndjson",
    "application/javascript",
    "application/x-javascript",
    "application/ecmascript",
    "application/xml",
    "application/xml-dtd",
    "application/yaml",
    "application/toml",
    "application/sql",
    "application/graphql",
    "application/rtf",
    "application/postscript",
    "application/x-sh",
    "application/x-www-form-urlencoded",
    "application/wasm",
    "application/vnd.ms-fontobject",
    "font/ttf",
    "font/otf",
    "font/collection",
    "image/bmp",
    "image/x-icon",
    "image/vnd.microsoft.icon",
)
"""Text, and what is binary and not compressed by itself. Images, video, archives and WOFF are; SVG is XML."""

_PATTERN = re.compile(r"[a-z0-9!#$&^_.+-]+/(?:\*|[a-z0-9!#$&^_.+-]+)|\*\+[a-z0-9!#$&^_.-]+")


def check_pattern(pattern: str) -> None:
    """Check the pattern of a media type.

    Raises:
        ValueError: it is none of `type/subtype`, `type/*` and `*+suffix`, in lower case.
    """
    if _PATTERN.fullmatch(pattern) is None:
        raise ValueError(f"{pattern!r} is no media type: write `text/html`, `text/*` or `*+json`, in lower case")


class TypeSet:
    """A set of media types.

    Args:
        patterns: `type/subtype`, `type/*` or `*+suffix`.
    """

    __slots__ = ("_exact", "_prefixes", "_suffixes")

    def __init__(self, patterns: Iterable[str]) -> None:
        raw = [pattern.encode("ascii") for pattern in patterns]
        self._suffixes = tuple(pattern[1:] for pattern in raw if pattern.startswith(b"*"))
        self._prefixes = tuple(pattern[:-1] for pattern in raw if pattern.endswith(b"/*"))
        self._exact = frozenset(raw)

    def __contains__(self, content_type: bytes) -> bool:
        """Whether the value of a `Content-Type`, with its parameters, is of one of the types."""
        media_type = content_type.partition(b";")[0].strip(b" \t").lower()
        return (
            media_type in self._exact
            or media_type.startswith(self._prefixes)
            or (b"/" in media_type and media_type.endswith(self._suffixes))
        )
