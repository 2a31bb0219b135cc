"""What a style sheet refers to: `url(...)` and `@import`, found as CSS Syntax Level 3 section 4.3 reads them."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from urllib.parse import quote, unquote

__all__ = ["rewrite_references"]

# Comments and other strings are matched first, so that nothing in them is taken for a reference.
_TOKEN = re.compile(
    r"""
    (?P<comment> /\* .*? (?: \*/ | \Z ) )
  | (?P<before> \burl\( [ \t\r\n\f]* | @import [ \t\r\n\f]+ ) (?P<quote> ["'] ) (?P<quoted> [^"'\\\r\n]* ) (?P=quote)
  | (?P<bare_before> \burl\( [ \t\r\n\f]* ) (?P<bare> [^"'()\\ \t\r\n\f]+ ) (?= [ \t\r\n\f]* \) )
  | (?P<string> "(?: [^"\\\r\n] | \\. )*" | '(?: [^'\\\r\n] | \\. )*' )
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
_ELSEWHERE = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:|/|#|\?|\Z")


def rewrite_references(css: str, name: str, renamed: Callable[[str], str | None]) -> str:
    """A style sheet with its references to files of the same directory renamed.

    References with a scheme, a host or a path from the root, those with escapes, and those to files that are not there
    stay as they are.

    Args:
        css: the style sheet.
        name: its path below the directory, which references are relative to.
        renamed: from the path of a file below the directory to its new one, or None to leave it.
    """
    here = posixpath.dirname(name)

    def replace(match: re.Match[str]) -> str:
        reference = match["quoted"] if match["quoted"] is not None else match["bare"]
        if reference is None or _ELSEWHERE.match(reference):
            return match[0]
        path = re.split("[?#]", reference, maxsplit=1)[0]
        target = posixpath.normpath(posixpath.join(here, unquote(path)))
        new = None if target.startswith("../") else renamed(target)
        if new is None:
            return match[0]
        relative = quote(posixpath.relpath(new, here or "."), safe="/") + reference[len(path) :]
        if match["quoted"] is not None:
            return f"{match['before']}{match['quote']}{relative}{match['quote']}"
        return match["bare_before"] + relative

    return _TOKEN.sub(replace, css)
