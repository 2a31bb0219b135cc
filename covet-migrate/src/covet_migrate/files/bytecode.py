"""Compiled files, kept beside them as Python keeps modules, and known by the hash of what they were compiled of.

Python itself goes by the time and the size of a file: one that is edited twice in a second would run as it was. (PEP
552, checked hash-based pycs; the import system takes these files for its own.)
"""

from __future__ import annotations

import contextlib
import logging
import marshal
import os
import sys
import tempfile
from importlib.util import MAGIC_NUMBER, cache_from_source, source_hash
from pathlib import Path
from types import CodeType

__all__ = ["code_of"]

logger = logging.getLogger("covet.migrate")

CHECKED_HASH = (0b11).to_bytes(4, "little")


def code_of(content: bytes, path: Path) -> CodeType:
    """The code of a file.

    Args:
        content: what is in the file.
        path: where it is.

    Raises:
        SyntaxError, ValueError: it is no Python.
    """
    if sys.implementation.cache_tag is None:
        return _compiled(content, path)
    kept = Path(cache_from_source(str(path)))
    head = MAGIC_NUMBER + CHECKED_HASH + source_hash(content)
    try:
        found = kept.read_bytes()
    except OSError:
        found = b""
    if found.startswith(head):
        try:
            code = marshal.loads(found[len(head) :])
        except (EOFError, TypeError, ValueError):
            # A disk was full when it was written.
            code = None
        # In a folder that was moved, errors would name the old place.
        if isinstance(code, CodeType) and code.co_filename == str(path):
            return code
    code = _compiled(content, path)
    if not sys.dont_write_bytecode:
        _keep(kept, head + marshal.dumps(code))
    return code


def _compiled(content: bytes, path: Path) -> CodeType:
    code: CodeType = compile(content, str(path), "exec", dont_inherit=True)
    return code


def _keep(path: Path, content: bytes) -> None:
    """Write a file as a whole, if that can be; without it, all is done as well, and takes longer."""
    try:
        path.parent.mkdir(exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent)
    except OSError as error:
        logger.debug("%s is not written: %s", path, error)
        return
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.replace(name, path)
    except OSError as error:
        logger.debug("%s is not written: %s", path, error)
        with contextlib.suppress(OSError):
            os.unlink(name)
