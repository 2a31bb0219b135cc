"""How long a connection waits for a machine that says nothing any more.

A server that dies says so; a machine that loses its power, or a network that passes nothing, does not, and whoever
waits for an answer waits for ever. The kernel asks the other machine's kernel now and then, which answers whatever its
server is doing (tcp(7): SO_KEEPALIVE, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_USER_TIMEOUT).
"""

from __future__ import annotations

import socket
from typing import Any

__all__ = ["PROBES", "give_up_after"]

PROBES = 3
"""How many questions in a row stay without an answer before the connection is given up."""


def give_up_after(transport: Any, seconds: float) -> None:
    """Have the kernel end a connection whose other side was silent for so long.

    Args:
        transport: of asyncio, TLS or not.
        seconds: 0 for what the system does by itself. What the system does not know is left out.
    """
    found: Any = transport.get_extra_info("socket")
    if not seconds or found is None or found.family not in (socket.AF_INET, socket.AF_INET6):
        return
    # Half of the time without a word, and the other half for the questions.
    idle, pause = max(1, round(seconds / 2)), max(1, round(seconds / 2 / PROBES))
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", idle),
        ("TCP_KEEPINTVL", pause),
        ("TCP_KEEPCNT", PROBES),
        # What was sent and nobody has acknowledged.
        ("TCP_USER_TIMEOUT", round(seconds * 1000)),
    ):
        option = getattr(socket, name, None)
        if option is not None:
            found.setsockopt(socket.IPPROTO_TCP, option, value)
