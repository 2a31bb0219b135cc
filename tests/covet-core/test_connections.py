"""Host and cookies, against what other implementations make of the same bytes."""

from __future__ import annotations

from http.cookies import CookieError, SimpleCookie
from ipaddress import IPv6Address
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from covet.connections import Connection
from covet.exceptions import HTTPError
from covet.settings import Limits


def connection(*headers: tuple[bytes, bytes], **scope: Any) -> Connection:
    async def receive() -> Any:
        raise AssertionError("nothing here waits")

    full = {"type": "http", "method": "GET", "path": "/", "headers": list(headers), "scheme": "https", **scope}
    return Connection(full, receive, SimpleNamespace(settings=SimpleNamespace(limits=Limits())))  # type: ignore[arg-type]


labels = st.from_regex(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,10}[A-Za-z0-9_])?", fullmatch=True)
domains = st.lists(labels, min_size=1, max_size=5).map(".".join)
addresses = st.ip_addresses(v=4).map(str)
addresses_6 = st.ip_addresses(v=6).map(lambda address: f"[{address}]")
ports = st.just("") | st.integers(0, 65535).map(lambda port: f":{port}")
good_hosts = st.builds(str.__add__, domains | addresses | addresses_6, ports)


@given(good_hosts)
def test_every_host_of_the_grammar_is_accepted_and_is_the_host_of_the_url(host: str) -> None:
    made = connection((b"host", host.encode()))
    assert made.host == host.lower()
    parts = urlsplit(str(made.url))
    assert parts.netloc == host.lower()
    assert parts.username is None


@given(good_hosts, st.integers(0, 300), st.characters(codec="latin-1"))
@example("a.example", 9, "\n")
@example("a.example", 9, "\x85")
@example("a", 1, "@")
def test_a_host_with_any_other_character_is_refused(host: str, position: int, character: str) -> None:
    changed = host[:position] + character + host[position:]
    try:
        found = connection((b"host", changed.encode("latin-1"))).host
    except HTTPError as error:
        assert error.status == 400  # noqa: PT017 - or it is a host as well
        return
    assert set(changed) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:[]")
    parts = urlsplit(f"//{changed}")
    assert parts.netloc == changed
    name, port = parts.hostname, parts.port
    assert name
    assert found in (changed.lower(), changed.lower().rstrip(":"))
    assert port is None or 0 <= port <= 65535
    if ":" in name:
        IPv6Address(name)


@pytest.mark.parametrize("name", [b"host", b"x-forwarded-host"])
def test_a_forwarded_host_is_nobodys_word(name: bytes) -> None:
    """Whoever sends it may be the client itself: trusting proxies is a plugin's business."""
    made = connection((b"host", b"good.example"), (b"x-forwarded-host", b"evil.example"), (b"forwarded", b"host=evil"))
    assert made.host == "good.example"
    assert str(made.url) == "https://good.example/"


tokens = st.from_regex(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,10}", fullmatch=True)
values = st.from_regex(r"[!#-+\--:<-\[\]-~]{0,10}", fullmatch=True)
reserved = {
    "expires",
    "path",
    "comment",
    "domain",
    "max-age",
    "secure",
    "httponly",
    "version",
    "samesite",
    "partitioned",
}


@given(st.dictionaries(tokens.filter(lambda name: name.lower() not in reserved and name[0] != "$"), values, max_size=5))
def test_cookies_are_what_the_standard_library_reads(sent: dict[str, str]) -> None:
    header = "; ".join(f"{name}={value}" for name, value in sent.items())
    assert connection((b"cookie", header.encode())).cookies == sent
    other: SimpleCookie = SimpleCookie()
    try:
        other.load(header)
    except CookieError:
        return
    if len(other) == len(sent):  # it gives up silently at what it does not know
        assert {name: morsel.coded_value for name, morsel in other.items()} == sent
