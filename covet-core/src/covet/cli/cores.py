"""Pinning workers to processor cores.

Each worker locks one file of a directory that they share: the file's number is its core. The operating system releases
the lock when the worker ends, however it ends, so the worker that is started in its place gets the core that became
free, and nobody has to keep count.
"""

from __future__ import annotations

import logging
import os
import sys

__all__ = ["can_pin", "pin_worker"]

logger = logging.getLogger("covet.cli")

# Kept open, for the lock lasts as long as the file is open.
_locks: list[int] = []


def can_pin() -> bool:
    """Whether this system lets a process choose its cores."""
    return hasattr(os, "sched_setaffinity")


def pin_worker(directory: str, workers: int) -> int | None:
    """Pin the calling thread, and all threads it starts, to a core that no other worker has.

    Args:
        directory: where the lock files are; the same for all workers of a server.
        workers: how many there are; with more workers than cores, cores are shared evenly.

    Returns:
        The core, or None when every place is taken: while workers are replaced, a new one runs beside the old one's
        end, and is then left to the scheduler.
    """
    if sys.platform == "linux":
        import fcntl

        cores = sorted(os.sched_getaffinity(0))
        for place in range(max(workers, 1)):
            descriptor = os.open(os.path.join(directory, str(place)), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                continue
            _locks.append(descriptor)
            core = cores[place % len(cores)]
            os.sched_setaffinity(0, {core})
            return core
    logger.info("worker %d found no core to be pinned to", os.getpid())
    return None
