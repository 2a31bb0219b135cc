"""Checksums of migration files, chained: each is of a file and of those before it in its application.

So an edit, a file that is put before others, and another order change the checksums of all that come after. A branch
that is merged does not change those of the other branch, nor do line endings, which version control may change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256

from covet_migrate.migrations import Key

__all__ = ["chained", "normalized"]


def chained(
    order: Iterable[Key], parents: Mapping[Key, Iterable[Key]], contents: Mapping[Key, bytes]
) -> dict[Key, str]:
    """The checksums of migrations.

    Args:
        order: the migrations, each after those that it depends on.
        parents: what each directly depends on.
        contents: the bytes of the file of each.

    Returns:
        64 hexadecimal digits each: SHA-256 of the checksums of those before it in its application, of its name, and of
        its content. The length of each stands before it, so that none can be taken for a part of another.
    """
    found: dict[Key, str] = {}
    for key in order:
        before = sorted(found[parent] for parent in parents[key] if parent[0] == key[0] and parent in found)
        digest = sha256()
        for part in (" ".join(before).encode(), key[1].encode("utf-8", "surrogatepass"), normalized(contents[key])):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
        found[key] = digest.hexdigest()
    return found


def normalized(content: bytes) -> bytes:
    """A content with `\\n` at the end of each line, and without a byte order mark."""
    return content.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
