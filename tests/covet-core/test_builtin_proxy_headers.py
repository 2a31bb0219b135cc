"""The builtin plugin proxy_headers: who is believed, how far, and what becomes of all the rest."""

from __future__ import annotations

import contextlib
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covet import Covet, CovetError, Request, WebSocket
from covet.builtin.proxy_headers import ProxyHeadersSettings
from covet.builtin.proxy_headers.forwarded import MAX_ELEMENTS, Node, elements_of, parse_forwarded, parse_node
from covet.settings_schema import describe
from covet.testing import TestClient, plugin_sandbox

pytestmark = pytest.mark.anyio

EVERYTHING = ["for", "proto", "host", "port", "prefix"]


def make_app(**settings: Any) -> Covet:
    app = plugin_sandbox("proxy_headers", settings={"plugins": {"proxy_headers": settings}})

    @app.get("/seen")
    async def seen(request: Request) -> dict[str, Any]:
        return {
            "client": request.client,
            "url": str(request.url),
            "server": request.scope.get("server"),
            "root": request.scope.get("root_path", ""),
            "raw": (request.scope.get("raw_path") or b"").decode(),
            "headers": sorted(name for name in request.headers if "forward" in name or name == "x-real-ip"),
        }

    @app.websocket("/socket")
    async def socket(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_json({"client": socket.client, "url": str(socket.url)})

    return app


async def seen(app: Covet, headers: Any, peer: str = "127.0.0.1", path: str = "/seen") -> Any:
    async with TestClient(app, client=(peer, 4000), base_url="http://inner:8000") as client:
        got = await client.get(path, headers=headers)
        return got.json() if got.status_code == 200 else got.status_code


async def client_seen(sent: Any, peer: str = "127.0.0.1", **settings: Any) -> Any:
    told = await seen(make_app(**{"trusted": ["127.0.0.1", "10.0.0.0/8", "fd00::/8"], **settings}), sent, peer)
    return told if isinstance(told, int) else told["client"] and tuple(told["client"])


# Whom to believe


async def test_without_a_network_nothing_is_added_and_nobody_believed() -> None:
    app = make_app()
    assert app.built.pipeline.empty
    assert app.built.outer == []
    told = await seen(app, {"x-forwarded-for": "192.0.2.1", "x-forwarded-proto": "https", "forwarded": "for=192.0.2.1"})
    assert (told["client"], told["url"]) == (["127.0.0.1", 4000], "http://inner:8000/seen")


@pytest.mark.parametrize(
    ("peer", "believed"),
    [
        ("127.0.0.1", True),
        ("127.0.0.2", False),
        ("10.1.2.3", True),
        ("11.0.0.1", False),
        ("::ffff:10.1.2.3", True),
        ("::ffff:11.1.2.3", False),
        ("fd00::1", True),
        ("fe80::1%eth0", False),
        ("::1", False),
        ("testclient", False),
        ("", False),
        ("10.1.2.3 ", False),
        ("010.1.2.3", False),
    ],
)
async def test_only_listed_networks_are_believed(peer: str, believed: bool) -> None:
    """CVE-2025-59152 of Litestar: a limit by address, passed by a header."""
    got = await client_seen({"x-forwarded-for": "192.0.2.1"}, peer)
    assert got == (("192.0.2.1", 0) if believed else (peer, 4000))


async def test_what_others_claim_is_taken_out_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    claims = {
        "x-forwarded-for": "10.0.0.1", "x-forwarded-proto": "https", "x-forwarded-host": "evil.example",
        "forwarded": "for=10.0.0.1", "x-real-ip": "10.0.0.1", "x-forwarded-user": "root",
    }  # fmt: skip
    app = make_app(trusted=["10.0.0.0/8"], use=EVERYTHING)
    with caplog.at_level(logging.WARNING, "covet.security"):
        for _ in range(3):
            told = await seen(app, claims, "192.0.2.7")
            assert told == {
                "client": ["192.0.2.7", 4000], "url": "http://inner:8000/seen", "server": ["inner", 8000], "root": "",
                "raw": "/seen", "headers": [],
            }  # fmt: skip
    (record,) = caplog.records
    assert "192.0.2.7" in record.getMessage()


async def test_of_a_trusted_proxy_what_is_not_used_is_taken_out_since_clients_may_have_written_it() -> None:
    claims = {"x-forwarded-for": "192.0.2.1", "x-forwarded-host": "evil.example", "forwarded": "host=evil.example",
              "x-real-ip": "10.9.9.9", "x-forwarded-user": "ada"}  # fmt: skip
    told = await seen(make_app(trusted=["127.0.0.1"]), claims)
    assert told["url"] == "http://inner:8000/seen"
    assert told["headers"] == ["x-forwarded-for", "x-forwarded-user"]


async def test_a_unix_socket_has_no_address() -> None:
    async def ask(app: Covet, client: Any) -> Any:
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": "/seen", "query_string": b"", "client": client,
                 "headers": [(b"host", b"a"), (b"x-forwarded-for", b"192.0.2.1")]}  # fmt: skip
        await app(scope, receive, send)
        return sent[1]["body"]

    assert b"192.0.2.1" in await ask(make_app(trusted=["unix"]), None)
    assert b"192.0.2.1" not in await ask(make_app(trusted=["unix"]), ("127.0.0.1", 1))
    assert b"192.0.2.1" not in await ask(make_app(trusted=["127.0.0.1"]), None)


# How far


@pytest.mark.parametrize(
    ("told", "hops", "client"),
    [
        ("192.0.2.1", 1, "192.0.2.1"),
        ("6.6.6.6, 192.0.2.1", 1, "192.0.2.1"),
        ("6.6.6.6, 192.0.2.1", 5, "192.0.2.1"),
        ("6.6.6.6, 192.0.2.1, 10.0.0.2", 1, "10.0.0.2"),
        ("6.6.6.6, 192.0.2.1, 10.0.0.2", 2, "192.0.2.1"),
        ("6.6.6.6, 192.0.2.1, 10.0.0.2", 5, "192.0.2.1"),
        ("192.0.2.1, 10.0.0.3, 10.0.0.2", 2, "10.0.0.3"),
        ("10.0.0.4, 10.0.0.3", 5, "10.0.0.4"),
        ("<script>, garbage, 192.0.2.1", 1, "192.0.2.1"),
        (",, 192.0.2.1 ,,", 1, "192.0.2.1"),
    ],
)
async def test_the_walk_goes_from_the_nearest_proxy_to_the_first_stranger(told: str, hops: int, client: str) -> None:
    assert await client_seen({"x-forwarded-for": told}, hops=hops) == (client, 0)
    lines = [("x-forwarded-for", line) for line in told.split(", ")]
    assert await client_seen(lines, hops=hops) == (client, 0), "one line each is the same"
    if "<" not in told:
        forwarded = ", ".join(f"for={entry.strip(' ,')}" for entry in told.split(", ") if entry.strip(" ,"))
        assert await client_seen({"forwarded": forwarded}, hops=hops, headers="forwarded") == (client, 0)


@pytest.mark.parametrize(
    ("entry", "client"),
    [
        ("192.0.2.1:4711", ("192.0.2.1", 4711)),
        ("2001:DB8::1", ("2001:db8::1", 0)),
        ("[2001:db8:0::1]", ("2001:db8::1", 0)),
        ("[2001:db8::1]:4711", ("2001:db8::1", 4711)),
        ("::ffff:192.0.2.1", ("192.0.2.1", 0)),
        ("unknown", None),
        ("_hidden", None),
    ],
)
async def test_addresses_have_one_form_and_what_is_not_told_is_nobody(entry: str, client: Any) -> None:
    """Nobody, and not the proxy: its address may do what a stranger's may not."""
    assert await client_seen({"x-forwarded-for": entry}) == client


MALFORMED = [
    "localhost", "192.0.2.256", "192.0.2.1:99999", "192.0.2.1:", "192.0.2", "010.0.0.1", "[192.0.2.1]", "[::1", "::1]",
    "fe80::1%eth0", "[fe80::1%25eth0]", '"192.0.2.1"', "192.0.2.1 192.0.2.2", "192.0.2.1;", "for=192.0.2.1", "-",
    "1" * 5000, ":" * 5000, "_", "0x7f.1", "2130706433", "::ffff:999.1.1.1",
]  # fmt: skip


@pytest.mark.parametrize("entry", MALFORMED, ids=lambda entry: entry[:20])
async def test_an_entry_of_a_trusted_proxy_that_makes_no_sense_is_a_400(
    entry: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "covet.security"):
        assert await client_seen({"x-forwarded-for": f"192.0.2.1, {entry}"}) == 400
    assert {vars(record)["security_event"] for record in caplog.records} == {"proxy_headers_refused"}
    assert max(len(record.getMessage()) for record in caplog.records) < 300
    assert await client_seen({"x-forwarded-for": f"{entry}, 192.0.2.1"}) == ("192.0.2.1", 0), "nobody looks at it"


async def test_without_the_header_the_request_is_the_proxys_own() -> None:
    assert await client_seen({}) == ("127.0.0.1", 4000)
    assert await client_seen({"x-forwarded-for": ""}) == ("127.0.0.1", 4000)
    assert await client_seen({"x-forwarded-proto": "https"}) == ("127.0.0.1", 4000)


async def test_the_number_of_elements_is_bounded() -> None:
    for family, element in (("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=192.0.2.1")):
        headers = "forwarded" if family == "forwarded" else "x-forwarded"
        assert await client_seen({family: ",".join([element] * MAX_ELEMENTS)}, headers=headers) == ("192.0.2.1", 0)
        assert await client_seen({family: ",".join([element] * (MAX_ELEMENTS + 1))}, headers=headers) == 400


# Scheme, host, port, prefix


async def test_scheme_and_by_request_host_port_and_prefix() -> None:
    headers = {
        "x-forwarded-for": "192.0.2.1", "x-forwarded-proto": "https", "x-forwarded-host": "Shop.example",
        "x-forwarded-port": "8443", "x-forwarded-prefix": "/shop/",
    }  # fmt: skip
    told = await seen(make_app(trusted=["127.0.0.1"]), headers)
    assert told["url"] == "https://inner:8000/seen"
    told = await seen(make_app(trusted=["127.0.0.1"], use=EVERYTHING), headers)
    assert told["url"] == "https://shop.example:8443/shop/seen"
    assert told["server"] == ["shop.example", 8443]
    assert (told["root"], told["raw"]) == ("/shop", "/shop/seen")
    told = await seen(
        make_app(trusted=["127.0.0.1"], use=["host", "proto", "port"]), {**headers, "x-forwarded-port": "443"}
    )
    assert (told["url"], told["server"]) == ("https://shop.example/seen", ["shop.example", 443])
    told = await seen(make_app(trusted=["127.0.0.1"], use=["port"]), headers)
    assert told["url"] == "http://inner:8443/seen"
    told = await seen(make_app(trusted=["127.0.0.1"], use=["host"]), {"x-forwarded-host": "[2001:DB8::1]:99"})
    assert (told["url"], told["server"]) == ("http://[2001:db8::1]:99/seen", ["2001:db8::1", 99])


async def test_of_a_list_the_nearest_proxys_word_counts() -> None:
    headers = {"x-forwarded-proto": "http, https", "x-forwarded-host": "evil.example, shop.example"}
    told = await seen(make_app(trusted=["127.0.0.1"], use=["proto", "host"]), headers)
    assert told["url"] == "https://shop.example/seen"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("proto", "ftp"),
        ("proto", "https://"),
        ("proto", "javascript"),
        ("host", "a/b"),
        ("host", "user@a"),
        ("host", "a b"),
        ("host", "a:99999"),
        ("host", "[::1"),
        ("port", "0"),
        ("port", "-1"),
        ("port", "65536"),
        ("port", "1e3"),
        ("port", "80" * 1000),
        ("prefix", "shop"),
        ("prefix", "/../admin"),
        ("prefix", "/./a"),
        ("prefix", "/a/.."),
        ("prefix", "//evil.example"),
        ("prefix", "/a%2fb"),
        ("prefix", "/a b"),
        ("prefix", "/a?b"),
        ("prefix", "/a" * 17),
    ],
)
async def test_what_makes_no_sense_is_a_400(name: str, value: str) -> None:
    assert await seen(make_app(trusted=["127.0.0.1"], use=EVERYTHING), {f"x-forwarded-{name}": value}) == 400


async def test_websockets_have_the_same_and_their_own_schemes() -> None:
    app = make_app(trusted=["127.0.0.1"], use=["for", "proto", "host"])
    async with TestClient(app) as client:
        for proto, scheme in (("https", "wss"), ("http", "ws"), ("wss", "wss"), ("ws", "ws")):
            headers = {"x-forwarded-for": "192.0.2.1", "x-forwarded-proto": proto, "x-forwarded-host": "shop.example"}
            async with client.websocket("/socket", headers=headers) as socket:
                assert await socket.receive_json() == {
                    "client": ["192.0.2.1", 0],
                    "url": f"{scheme}://shop.example/socket",
                }
        from covet.testing import WebSocketDenied

        with pytest.raises(WebSocketDenied):
            async with client.websocket("/socket", headers={"x-forwarded-for": "garbage"}):
                pass


# Forwarded


@pytest.mark.parametrize(
    ("told", "client", "url"),
    [
        ('for=192.0.2.1;proto=https;host="shop.example:444"', ("192.0.2.1", 0), "https://shop.example:444/seen"),
        ('For="[2001:db8::1]:4711"', ("2001:db8::1", 4711), "http://inner:8000/seen"),
        ("FOR=192.0.2.1; Proto=https ; by=10.0.0.1", ("192.0.2.1", 0), "https://inner:8000/seen"),
        ("for=6.6.6.6;proto=ftp;host=evil.example, for=192.0.2.1", ("192.0.2.1", 0), "http://inner:8000/seen"),
        ('for="192.0.2.1";secret="a, for=6.6.6.6;\\""', ("192.0.2.1", 0), "http://inner:8000/seen"),
        ("for=_SEVKISEK;proto=https", None, "https://inner:8000/seen"),
        ("for=unknown", None, "http://inner:8000/seen"),
        ("proto=https", None, "https://inner:8000/seen"),
        (",, for=192.0.2.1 ,;", ("192.0.2.1", 0), "http://inner:8000/seen"),
        ("", ("127.0.0.1", 4000), "http://inner:8000/seen"),
    ],
)
async def test_forwarded(told: str, client: Any, url: str) -> None:
    app = make_app(trusted=["127.0.0.1"], headers="forwarded", use=["for", "proto", "host"])
    got = await seen(app, {"forwarded": told, "x-forwarded-for": "6.6.6.6", "x-forwarded-proto": "wss"})
    assert (got["client"] and tuple(got["client"]), got["url"]) == (client, url)
    assert got["headers"] == ["forwarded"]


async def test_scheme_and_host_are_those_of_the_element_that_tells_of_the_client() -> None:
    chain = (
        "for=6.6.6.6;host=evil.example, for=192.0.2.1;proto=https;host=shop.example, for=10.0.0.2;proto=http;host=mid"
    )
    app = make_app(trusted=["127.0.0.1", "10.0.0.0/8"], headers="forwarded", use=["for", "proto", "host"], hops=4)
    got = await seen(app, {"forwarded": chain})
    assert (got["client"], got["url"]) == (["192.0.2.1", 0], "https://shop.example/seen")


@pytest.mark.parametrize(
    "told",
    [
        "for", "for=", "=192.0.2.1", "for =192.0.2.1", "for= 192.0.2.1", "for=192.0.2.1 for=192.0.2.2",
        'for="192.0.2.1', "for=192.0.2.1:80", "for=[2001:db8::1]", "for=2001:db8::1", 'for="2001:db8::1"',
        "for=192.0.2.1;for=192.0.2.2", "for=192.0.2.1;FOR=192.0.2.2", 'for="192.0.2.1"x', "for=192.0.2.1;proto=ftp",
        'for=192.0.2.1;host="a/b"', "192.0.2.1", 'for="' + '\\"' * 4000, "for=" + "a" * 8000, ";" * 8000 + "x",
        '"' * 8000,
        # What a client wrote into it opens a quotation that swallows what the proxy appended.
        'for="6.6.6.6, for=192.0.2.1', 'for="6.6.6.6, for="[2001:db8::1]"',
        'for=6.6.6.6;x=", for=192.0.2.1;host="shop.example"',
    ],
    ids=lambda told: told[:40],
)  # fmt: skip
async def test_a_forwarded_header_that_makes_no_sense_is_a_400(told: str) -> None:
    app = make_app(trusted=["127.0.0.1"], headers="forwarded", use=["for", "proto", "host"])
    assert await seen(app, {"forwarded": told}) == 400


TOKENS = st.text("!#$%&'*+-.^_`|~0123456789abcxyzABC", min_size=1, max_size=12)
TEXTS = st.text(
    st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f", exclude_categories=["Cc"])
)


@given(st.lists(st.dictionaries(TOKENS.map(str.lower), TEXTS, min_size=1, max_size=4), max_size=MAX_ELEMENTS // 4))
def test_what_is_written_by_the_grammar_is_read_back(elements: list[dict[str, str]]) -> None:
    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    text = ", ".join(";".join(f"{name.upper()}={quoted(value)}" for name, value in each.items()) for each in elements)
    assert parse_forwarded(text) == elements


@given(st.text(st.characters(codec="latin-1"), max_size=200))
def test_no_header_raises_anything_but_a_value_error(text: str) -> None:
    for read in (parse_forwarded, parse_node, elements_of, lambda text: parse_node(text, bare=True)):
        with contextlib.suppress(ValueError):
            read(text)


@given(
    st.one_of(st.text(st.characters(codec="latin-1"), max_size=60), st.text('",;=\\ for1.', max_size=30)), st.booleans()
)
def test_nothing_that_a_client_writes_before_it_changes_what_the_proxy_appends(prefix: str, new: bool) -> None:
    """It is read, or the whole is refused."""
    own = '"[2001:db8::7]"' if new else "192.0.2.7"
    try:
        elements = parse_forwarded(f"{prefix}, for={own};proto=https")
    except ValueError:
        return
    assert elements[-1] == {"for": own.strip('"'), "proto": "https"}


@given(st.ip_addresses(), st.one_of(st.none(), st.integers(1, 65535)))
def test_every_address_is_read(address: Any, port: int | None) -> None:
    text = f"[{address}]" if address.version == 6 else str(address)
    expected = str(getattr(address, "ipv4_mapped", None) or address)
    assert parse_node(text if port is None else f"{text}:{port}") == Node(expected, port or 0)
    assert parse_node(str(address), bare=True) == Node(expected)


# Settings


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"trusted": ["*"]}, "is no network"),
        ({"trusted": ["proxy.internal"]}, "Names are not looked up"),
        ({"trusted": ["10.0.0.1/8"]}, "host bits"),
        ({"trusted": ["10.0.0.0/33"]}, "is no network"),
        ({"trusted": [""]}, "is no network"),
        ({"headers": "both"}, "headers"),
        ({"headers": "forwarded", "use": ["for", "port"]}, "which `Forwarded` does not tell"),
        ({"use": ["server"]}, "use"),
        ({"hops": 0}, "hops"),
        ({"hops": 17}, "hops"),
    ],
)
def test_settings_that_make_no_sense_stop_the_start(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(CovetError, match=told):
        make_app(**settings).build()


async def test_thousands_of_peers_are_not_remembered_for_ever() -> None:
    app = make_app(trusted=["127.0.0.1"])
    entry = app.built.entry
    for number in range(3000):
        await seen_by(entry, f"192.0.{number // 256}.{number % 256}")
    assert len(entry._remembered) <= 1024  # type: ignore[attr-defined]
    assert (await seen(app, {"x-forwarded-for": "192.0.2.1"}))["client"] == ["192.0.2.1", 0]


async def seen_by(entry: Any, peer: str) -> None:
    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        assert message

    scope = {"type": "http", "method": "GET", "path": "/seen", "query_string": b"", "client": (peer, 1),
             "headers": [(b"host", b"a"), (b"x-forwarded-for", b"10.0.0.1")]}  # fmt: skip
    await entry(scope, receive, send)


def test_every_setting_says_what_it_is() -> None:
    assert [field.name for field in describe(ProxyHeadersSettings) if not field.description] == []
