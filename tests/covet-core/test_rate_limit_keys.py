"""Whom a limit counts: addresses, users, sessions, API keys."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covet import ConfigurationError, Request
from covet.ratelimit import Caller, api_key, client_address, named_key, session, user
from covet.ratelimit.keys import UNKNOWN, _warn_of_unknown
from covet.testing import plugin_sandbox

APP = plugin_sandbox()


def request(client: Any = ("192.0.2.1", 1), headers: tuple[tuple[bytes, bytes], ...] = ()) -> Request:
    async def receive() -> Any:
        raise AssertionError("nothing is received")

    APP.build()
    return Request({"type": "http", "method": "GET", "path": "/", "headers": headers, "client": client}, receive, APP)


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_counts_as_it_is_also_inside_of_an_ipv6_one(address: IPv4Address) -> None:
    key = client_address(request((str(address), 1)))
    assert key == f"address:{address}"
    assert client_address(request((f"::ffff:{address}", 1))) == key


@given(st.ip_addresses(v=6))
def test_an_ipv6_address_counts_with_all_of_its_network(address: IPv6Address) -> None:
    if address.ipv4_mapped is not None:
        return
    key = client_address(request((str(address), 1)))
    network = ip_network((int(address) >> 64 << 64, 64))
    assert key == f"address:{network}"
    for other in (network[0], network[-1]):
        assert client_address(request((str(other), 1))) == key
    assert client_address(request((f"{address.exploded}%eth0", 1))) == key


@given(st.text(min_size=1))
def test_whatever_a_server_says_is_some_key(address: str) -> None:
    assert client_address(request((address, 1))).startswith("address:")


@pytest.mark.parametrize("client", [None, ("", 0)])
def test_without_an_address_all_count_together_and_one_warning_is_logged(
    client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    _warn_of_unknown.cache_clear()
    assert client_address(request(client)) == client_address(request(client)) == UNKNOWN
    assert [record.name for record in caplog.records] == ["covet.ratelimit"]
    assert "proxy_headers" in caplog.text


def test_what_a_client_says_of_its_own_address_is_not_believed() -> None:
    headers = ((b"x-forwarded-for", b"203.0.113.9"), (b"forwarded", b"for=203.0.113.9"), (b"x-real-ip", b"203.0.113.9"))
    assert client_address(request(headers=headers)) == "address:192.0.2.1"


def test_a_user_is_who_is_attached_and_the_address_otherwise() -> None:
    made = request()
    assert user(made) == client_address(made)
    made.state[Caller] = Caller("7")
    assert user(made) == "user:7"


def test_an_api_key_is_hashed_and_the_address_counts_without_one() -> None:
    key = api_key("X-Key")
    first, second = (key(request(headers=((b"x-key", value),))) for value in (b"secret", b"other"))
    assert first != second
    assert "secret" not in first
    assert first == key(request(headers=((b"x-key", b"secret"),)))
    for headers in ((), ((b"x-key", b""),)):
        assert key(request(headers=headers)) == "address:192.0.2.1"


def test_settings_name_keys() -> None:
    assert (named_key("address"), named_key("user"), named_key("session")) == (client_address, user, session)
    made = request(headers=((b"x-key", b"secret"),))
    assert named_key("header: X-Key")(made) == api_key("x-key")(made)
    for wrong in ("", "adress", "header", "header:", "header:a b", "header:a\nb"):
        with pytest.raises(ConfigurationError):
            named_key(wrong)
