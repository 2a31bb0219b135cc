"""Which file a path names: one inside of its directory, or none.

Three steps, each of which would do alone. The path of a request is taken apart, and every segment that could mean
something else than a name is refused. What the remaining names lead to, symbolic links followed, must lie inside of
the directory. And the file is opened name by name from the directory on, without following any link, so that one that
is put in place between the second step and the third leads nowhere.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Sequence
from pathlib import PurePath

__all__ = ["locate", "open_beneath", "split_path"]

# A path that leads nowhere, as opposed to one that leads to what cannot be read.
_NOWHERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL})

_BENEATH = os.open in os.supports_dir_fd and hasattr(os, "O_NOFOLLOW") and hasattr(os, "O_DIRECTORY")


def split_path(path: str, dotfiles: Collection[str] = (), *, windows: bool = os.name == "nt") -> tuple[str, ...] | None:
    """The names that a path consists of, or None for one that no file is served for.

    Refused are empty segments, `.` and `..`, names that begin with a dot, backslashes, control characters, and text
    that is no UTF-8; on Windows also colons (drives, alternate streams), and dots and spaces at the end of a name,
    which Windows leaves away. What is percent-encoded here was encoded twice, and stands for itself.

    Args:
        path: a decoded path, without a slash at its beginning.
        dotfiles: names that are served although they begin with a dot, such as `.well-known`.
        windows: whether to refuse what is special on Windows.
    """
    names = path.split("/")
    for name in names:
        if not name or "\\" in name or (name[0] == "." and name not in dotfiles) or not _is_text(name):
            return None
        if windows and (":" in name or name[-1] in ". "):
            return None
    # `.` and `..` are refused whatever `dotfiles` holds.
    return None if "." in names or ".." in names else tuple(names)


def _is_text(name: str) -> bool:
    return not any(c < " " or c == "\x7f" or "\ud800" <= c <= "\udfff" for c in name)


def locate(directory: str, names: Sequence[str], dotfiles: Collection[str] = ()) -> tuple[str, ...] | None:
    """Where a path leads inside of a directory, symbolic links followed.

    Blocks: it asks the file system.

    Args:
        directory: an absolute path without symbolic links.
        names: what `split_path` gives.
        dotfiles: as there; a link to a dotfile is refused like the dotfile.

    Returns:
        The names from the directory on, none of which is a link; none at all for the directory itself. None when
        there is nothing, or it lies outside.

    Raises:
        OSError: it cannot be told: a directory on the way cannot be read.
    """
    try:
        # Not os.path.join: on Windows it begins anew at a name with a drive.
        found = PurePath(os.path.realpath(os.sep.join((directory, *names)), strict=True))
    except ValueError:
        return None
    except OSError as error:
        if error.errno in _NOWHERE:
            return None
        raise
    # Compared name by name: of "/srv/static" and "/srv/static-private", one does not contain the other.
    if not found.is_relative_to(directory):
        return None
    inside = found.relative_to(directory).parts
    return None if any(name[0] == "." and name not in dotfiles for name in inside) else inside


def open_beneath(directory: str, names: Sequence[str], flags: int) -> int:
    """Open a file below a directory without following a symbolic link on the way.

    Where the system cannot open relative to a directory (Windows), the path is opened as a whole.

    Returns:
        The file descriptor.

    Raises:
        OSError: there is no such file, or a link is on the way to it.
    """
    # A pipe would wait for a writer; a terminal could become the process's own.
    flags |= getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
    if not _BENEATH:
        return os.open(os.sep.join((directory, *names)), flags)
    within = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    here = os.open(directory, within)
    try:
        for name in names[:-1]:
            inner = os.open(name, within | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = inner
        return os.open(names[-1], flags | os.O_NOFOLLOW, dir_fd=here)
    finally:
        os.close(here)
