"""Whom a limit counts: functions from a request to the key of a limiter."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import lru_cache
from hashlib import blake2b
from socket import AF_INET6, inet_ntop, inet_pton
from typing import TYPE_CHECKING

from msgspec import Struct

from covet.exceptions import ConfigurationError

if TYPE_CHECKING:
    from covet.connections import Connection
    from covet.requests import Request

__all__ = ["Caller", "api_key", "client_address", "named_key", "session", "user"]

logger = logging.getLogger("covet.ratelimit")

# RFC 4291 section 2.5.5.2: an IPv4 address in an IPv6 one.
MAPPED = bytes(10) + b"\xff\xff"
UNKNOWN = "address:unknown"


class Caller(Struct, frozen=True):
    """Who is calling, for limits by user. What knows it attaches it: `request.state[Caller] = Caller("7")`.

    Attributes:
        id: any text that is different for different users.
    """

    id: str


def client_address(request: Connection) -> str:
    """The client's address as the server knows it; of an IPv6 address the first 64 bits.

    An IPv6 customer has 2^64 addresses at least, and would have as many limits. Behind a proxy the server knows the
    proxy's address alone unless the plugin `proxy_headers` is told to trust it. Where it knows none, behind a Unix
    socket, all requests are counted together, and a warning is logged once.
    """
    client = request.scope.get("client")
    if not client or not client[0]:
        _warn_of_unknown()
        return UNKNOWN
    address: str = client[0]
    return f"address:{_network(address) if ':' in address else address}"


@lru_cache(maxsize=1)
def _warn_of_unknown() -> None:
    logger.warning(
        "the server does not know its clients' addresses, so that rate limits by address count all of them together; "
        "behind a proxy let the plugin proxy_headers trust it: [plugins.proxy_headers]"
    )


@lru_cache(maxsize=4096)
def _network(address: str) -> str:
    """The first 64 bits of an IPv6 address, or the IPv4 address in it; anything else as it is."""
    try:
        packed = inet_pton(AF_INET6, address.partition("%")[0])
    except (OSError, ValueError):
        return address
    if packed.startswith(MAPPED):
        return ".".join(str(byte) for byte in packed[12:])
    return inet_ntop(AF_INET6, packed[:8] + bytes(8)) + "/64"


def user(request: Connection) -> str:
    """The user, as the `Caller` in the request's state; without one, the client's address."""
    caller = request.state.get(Caller)
    return client_address(request) if caller is None else f"user:{caller.id}"


def api_key(header: str = "x-api-key") -> Callable[[Connection], str]:
    """A function that gives the API key in a header, hashed; without one, the client's address.

    Whoever sends another made-up key with each request is limited by nothing: use it for routes that refuse unknown
    keys, and limit those refusals by address.

    Raises:
        ConfigurationError: `header` is no header's name.
    """
    name = header.lower()
    if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
        raise ConfigurationError(f"{header!r} is no header name")

    def key(request: Connection) -> str:
        sent = request.headers.get(name)
        if not sent:
            return client_address(request)
        # It is a secret, and what a limiter counts by may be kept in a database.
        return "key:" + blake2b(sent.encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()

    return key


async def session(request: Request) -> str:
    """The session; for a visitor who has none yet, the client's address. The response becomes private by it.

    Raises what loading a session raises.
    """
    handle = (await request.session).handle
    return client_address(request) if handle is None else f"session:{handle}"


def named_key(name: str) -> Callable[[Request], str | Awaitable[str]]:
    """The function that settings name: `address`, `user`, `session`, or `header:NAME`.

    Raises:
        ConfigurationError: they name none.
    """
    kind, _, header = name.partition(":")
    if kind == "header" and header:
        return api_key(header.strip())
    known: dict[str, Callable[[Request], str | Awaitable[str]]] = {
        "address": client_address, "user": user, "session": session,
    }  # fmt: skip
    if name not in known:
        raise ConfigurationError(
            f"the key of a rate limit is 'address', 'user', 'session', or 'header:NAME' for an API key, not {name!r}"
        )
    return known[name]
