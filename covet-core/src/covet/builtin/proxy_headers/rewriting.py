"""The middleware: a request as the client made it, of what a trusted proxy tells."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Any

from covet.builtin.proxy_headers.forwarded import Node, canonical_address, elements_of, parse_forwarded, parse_node
from covet.exceptions import HTTPError
from covet.origins import DEFAULT_PORTS, split_host

if TYPE_CHECKING:
    from covet.applications import Covet

__all__ = ["ProxyHeaders", "parse_trusted"]

logger = logging.getLogger("covet.security")

ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]

UNIX = "unix"
PREFIX = b"x-forwarded-"
OTHERS = frozenset({b"forwarded", b"x-real-ip"})
# What this plugin can read, or stands in for; the rest, such as `X-Forwarded-User`, is between a proxy and handlers.
KNOWN = frozenset({*OTHERS, *(PREFIX + name for name in (b"for", b"proto", b"host", b"port", b"prefix"))})
SCHEMES = {"http": ("http", "ws"), "https": ("https", "wss"), "ws": ("http", "ws"), "wss": ("https", "wss")}
# Segments of unreserved characters that mean the same decoded and encoded, and none of dots alone.
PATH_PREFIX = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~-]{1,255}){0,16}")
MAX_REMEMBERED = 1024


def parse_trusted(text: str) -> IPv4Network | IPv6Network | None:
    """A network of the settings; None for `unix`, a Unix socket.

    Raises:
        ValueError: it is neither.
    """
    if text == UNIX:
        return None
    try:
        return ip_network(text)
    except ValueError as error:
        raise ValueError(
            f"trusted holds {text!r}, which is no network ({error}); write an address, a network such as 10.0.0.0/8, "
            "or unix. Names are not looked up"
        ) from None


class ProxyHeaders:
    """Rewrites what a trusted proxy tells about a request; takes out what others claim.

    A header of a trusted proxy that makes no sense is answered with status 400: the request is not the proxy's own, and
    must not get what the proxy's address may do.

    Args:
        app: the ASGI application inside.
        covet: the application that it is of.
        trusted: the networks of the proxies.
        family: `x-forwarded` or `forwarded`.
        use: what to take: `for`, `proto`, `host`, `port`, `prefix`.
        hops: how many proxies there are at most.

    Raises:
        ValueError: what is in `trusted` is no network.
    """

    def __init__(
        self, app: ASGIApp, *, covet: Covet, trusted: Sequence[str], family: str, use: Sequence[str], hops: int
    ) -> None:
        self.app = app
        self.covet = covet
        self.networks = [network for text in trusted if (network := parse_trusted(text)) is not None]
        self.family = family
        self.use = frozenset(use)
        self.hops = hops
        honoured = {b"forwarded"} if family == "forwarded" else {PREFIX + name.encode() for name in use}
        self.dropped = KNOWN - honoured
        # Whether an address is trusted: a proxy has one, and is asked about with every request.
        self._remembered: dict[str, bool] = {UNIX: UNIX in trusted}
        self._told = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection."""
        if scope["type"] in ("http", "websocket") and _tells(scope["headers"]):
            client = scope.get("client")
            peer = client[0] if client else UNIX
            if self._trusts(peer):
                try:
                    scope = self._rewritten(scope, peer)
                except ValueError as error:
                    await self._refuse(scope, receive, send, error)
                    return
            else:
                self._tell(peer)
                kept = [pair for pair in scope["headers"] if not _is_told(pair[0])]
                scope = {**scope, "headers": kept}
        await self.app(scope, receive, send)

    def _trusts(self, address: str) -> bool:
        known = self._remembered.get(address)
        if known is None:
            try:
                found = ip_address(canonical_address(address))
                known = any(found in network for network in self.networks)
            except ValueError:
                known = False
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered = {UNIX: self._remembered[UNIX]}
            self._remembered[address] = known
        return known

    def _tell(self, peer: str) -> None:
        """Say once that somebody sends such headers who is not trusted: a client, or a proxy that was forgotten."""
        if not self._told:
            self._told = True
            logger.warning(
                "%s sends proxy headers and is not in [plugins.proxy_headers] trusted: they are ignored. If it is a "
                "proxy of yours, list its address; this is told once",
                peer,
            )

    async def _refuse(self, scope: Any, receive: Any, send: Any, error: ValueError) -> None:
        logger.warning(
            "refused for its proxy headers: %s: %s",
            scope["path"],
            error,
            extra={"security_event": "proxy_headers_refused"},
        )
        refusal = HTTPError(400, f"the request's proxy headers make no sense: {error}")
        await self.covet.answers.refuse(scope, receive, send, refusal)

    # What is told

    def _rewritten(self, scope: Any, peer: str) -> Any:
        """The scope as the client's request would have it.

        Raises:
            ValueError: what the proxy tells makes no sense.
        """
        told = self._of_forwarded(scope, peer) if self.family == "forwarded" else self._of_x_forwarded(scope, peer)
        node, proto, host, port, prefix = told
        made = {**scope, "headers": [pair for pair in scope["headers"] if pair[0] not in self.dropped]}
        if node is not None:
            made["client"] = None if node.address is None else (node.address, node.port)
        if proto is not None:
            if proto.lower() not in SCHEMES:
                raise ValueError(f"{proto[:60]!r} is no scheme")
            made["scheme"] = SCHEMES[proto.lower()][scope["type"] == "websocket"]
        if host is not None or port is not None:
            _set_host(made, host, port)
        if prefix is not None:
            _set_prefix(made, prefix)
        return made

    def _of_x_forwarded(
        self, scope: Any, peer: str
    ) -> tuple[Node | None, str | None, str | None, str | None, str | None]:
        node = None
        if "for" in self.use and (told := _value(scope, b"x-forwarded-for")):
            entries = elements_of(told)
            for node, _ in self._walk(peer, entries, bare=True):  # noqa: B007 - the last one counts
                continue
        # Of a list the last element, which is the nearest proxy's own: those before it may be anybody's.
        proto, host, port, prefix = (
            _last(scope, PREFIX + name.encode()) if name in self.use else None
            for name in ("proto", "host", "port", "prefix")
        )
        return node, proto, host, port, prefix

    def _of_forwarded(self, scope: Any, peer: str) -> tuple[Node | None, str | None, str | None, None, None]:
        elements = parse_forwarded(_value(scope, b"forwarded"))
        if not elements:
            return None, None, None, None, None
        node, position = None, len(elements) - 1
        # Who is not told is not known.
        for node, position in self._walk(peer, [element.get("for", "unknown") for element in elements]):  # noqa: B007
            continue
        # Of the element that tells of the client, since its proxy has seen both.
        element = elements[position]
        return (
            node if "for" in self.use else None,
            element.get("proto") if "proto" in self.use else None,
            element.get("host") if "host" in self.use else None,
            None,
            None,
        )

    def _walk(self, peer: str, entries: list[str], *, bare: bool = False) -> Any:
        """Every hop from the peer towards the client, as its node and position, until one is not trusted."""
        address: str | None = peer
        for position in range(len(entries) - 1, max(-1, len(entries) - 1 - self.hops), -1):
            if address is None or not self._trusts(address):
                return
            node = parse_node(entries[position], bare=bare)
            address = node.address
            yield node, position


def _is_told(name: bytes) -> bool:
    """Whether a header is one that only a proxy should send."""
    return name in OTHERS or name.startswith(PREFIX)


def _tells(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    # `any` with a generator costs three times as much.
    for name, _ in headers:  # noqa: SIM110
        if _is_told(name):
            return True
    return False


def _value(scope: Any, wanted: bytes) -> str:
    return b", ".join(value for name, value in scope["headers"] if name == wanted).decode("latin-1")


def _last(scope: Any, name: bytes) -> str | None:
    elements = elements_of(_value(scope, name))
    return elements[-1] if elements else None


def _set_host(made: dict[str, Any], host: str | None, port: str | None) -> None:
    """Put another host, or the host with another port, in the place of what the proxy asked for."""
    headers = made["headers"]
    sent = [value.decode("latin-1") for name, value in headers if name == b"host"]
    text: str = host if host is not None else sent[0] if len(sent) == 1 else ""
    found = split_host(text)
    if found is None:
        raise ValueError(f"{text[:60]!r} is no host")
    name, number = found
    if port is not None:
        if not port.isascii() or not port.isdigit() or len(port) > 5 or not 0 < int(port) <= 65535:
            raise ValueError(f"{port[:60]!r} is no port")
        number = int(port)
    default = DEFAULT_PORTS.get(made.get("scheme", "http"), 80)
    shown = name if number in (None, default) else f"{name}:{number}"
    made["headers"] = [(b"host", shown.encode("ascii")), *(pair for pair in headers if pair[0] != b"host")]
    made["server"] = (name.strip("[]"), number or default)


def _set_prefix(made: dict[str, Any], prefix: str) -> None:
    """Put the path that the proxy has removed back before what is left."""
    prefix = prefix.rstrip("/")
    if PATH_PREFIX.fullmatch(prefix) is None:
        raise ValueError(f"{prefix[:60]!r} is no plain path")
    made["root_path"] = prefix + made.get("root_path", "")
    made["path"] = prefix + made["path"]
    if made.get("raw_path") is not None:
        made["raw_path"] = prefix.encode("ascii") + made["raw_path"]
