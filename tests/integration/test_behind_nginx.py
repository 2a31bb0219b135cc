"""Behind a real reverse proxy: nginx in front of the real servers, clients with addresses of their own.

All of 127.0.0.0/8 is this machine, so that a client may come from 127.0.0.2, nginx from 127.0.0.1, and a stranger who
goes past nginx from 127.0.0.3.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.services.browser import Certificate
from tests.services.nginx import Nginx, Site, run
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

# Only so that a test that hangs fails.
PATIENCE = 60.0
CLIENT, STRANGER = "127.0.0.2", "127.0.0.3"
FORGED = {
    "X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example",
    "Forwarded": 'for=6.6.6.6;proto=https;host="evil.example"', "X-Real-IP": "6.6.6.6",
}  # fmt: skip

APPLICATION = """
from covet import Covet, Request, Response, WebSocket


def make(**plugins):
    settings = {
        "app": {"debug": True},
        "limits": {"body_timeout": 1.0},
        "server": {"shutdown_timeout": 2.0},
        "plugins": {"enable": ["csrf", "proxy_headers", "trusted_hosts"], **plugins},
    }
    app = Covet(settings)
    sent = []

    @app.get("/seen")
    async def seen(request: Request) -> dict:
        told = [name for name in request.headers if "forwarded" in name or name == "x-real-ip"]
        return {"client": request.client and request.client[0], "url": str(request.url), "told": sorted(told)}

    @app.post("/save")
    async def save(request: Request) -> dict:
        return {"bytes": len(await request.body())}

    @app.get("/large")
    async def large(request: Request) -> Response:
        request.after(sent.append, "large")
        return Response(b"x" * 3_000_000)

    @app.get("/sent")
    async def show_sent() -> list:
        return sent

    @app.websocket("/socket")
    async def socket(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_json({"client": socket.client and socket.client[0], "url": str(socket.url)})
        async for text in socket.iter_text():
            await socket.send_text(text)

    return app


hosts = {"allow": ["shop.example", "127.0.0.1", "inner"]}
app = make(proxy_headers={"trusted": ["127.0.0.1"]}, trusted_hosts=hosts)
hosted = make(proxy_headers={"trusted": ["127.0.0.1"], "use": ["for", "proto", "host"]}, trusted_hosts=hosts)
forwarded = make(
    proxy_headers={"trusted": ["127.0.0.1"], "headers": "forwarded", "use": ["for", "proto", "host"]},
    trusted_hosts=hosts,
)
plain = make()
"""
PAGE = Path(__file__).parent.parent.parent / "docs" / "concepts" / "proxies.md"
TARGETS = ("app", "hosted", "forwarded", "plain")

# As https://www.nginx.com/resources/wiki/start/topics/examples/forwarded/ has it, without its check of what clients
# sent: what they wrote is passed on whatever it is.
FORWARDED = r"""
map $remote_addr $element {
    ~^[0-9.]+$ "for=$remote_addr";
    ~^[0-9A-Fa-f:.]+$ "for=\"[$remote_addr]\"";
    default "for=unknown";
}
map $http_forwarded $before { "" ""; default "$http_forwarded, "; }
"""
COMMON = """
proxy_http_version 1.1;
proxy_set_header Upgrade $http_upgrade;
proxy_set_header Connection $hop;
"""
X_FORWARDED = """
proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
proxy_set_header X-Forwarded-Proto $scheme;
"""


class Stage(NamedTuple):
    """The applications by name, each with its port, and nginx with a port for each way to stand in front."""

    servers: Mapping[str, int]
    proxies: Mapping[str, int]
    logs: Mapping[str, Path]


@contextlib.contextmanager
def serving(server: str, target: str, folder: Path) -> Iterator[tuple[int, Path]]:
    """`covet run` of an application."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
    log = folder / f"{target}.log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVET_")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "covet", "run", "--server", server, "--port", str(port), f"app:{target}"],
            cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
        yield port, log
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) in (0, -signal.SIGTERM), log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert "Traceback" not in log.read_text(), log.read_text()


@pytest.fixture(scope="module", params=["granian", "uvicorn"])
def servers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The applications, without anything in front."""
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "app.py").write_text(APPLICATION)
    with contextlib.ExitStack() as stack:
        found = {target: stack.enter_context(serving(request.param, target, folder)) for target in TARGETS}
        yield Stage(
            {name: port for name, (port, _) in found.items()}, {}, {name: log for name, (_, log) in found.items()}
        )


@pytest.fixture(scope="module")
def stage(servers: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The applications, and nginx in front."""
    folder = tmp_path_factory.mktemp("nginx")
    certificate = Certificate.make(tmp_path_factory.mktemp("certificate"))

    def to(target: str, directives: str, **options: Any) -> Site:
        upstream = f"proxy_pass http://127.0.0.1:{servers.servers[target]};"
        return Site(f"location / {{ {upstream} {COMMON} {directives} }}", **options)

    # The page's own lines, with the port of an application here.
    indented = [line[4:] for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("    ")]
    begin = indented.index("location / {")
    documented = "\n".join(indented[begin : indented.index("}", begin) + 1])
    (hop,) = [line for line in indented if line.startswith("map ")]
    sites = {
        "documented": Site(documented.replace(":8000", f":{servers.servers['app']}"), certificate),
        "http": to("app", X_FORWARDED + "proxy_set_header Host shop.example;"),
        "https": to("app", X_FORWARDED + "proxy_set_header Host shop.example;", certificate=certificate),
        # The host that nginx asks for is its own name for the server, as without any directive.
        "inner": to("app", X_FORWARDED + "proxy_set_header Host inner;"),
        "hosted": to(
            "hosted", X_FORWARDED + "proxy_set_header Host inner; proxy_set_header X-Forwarded-Host $http_host;"
        ),
        "forwarded": to(
            "forwarded", 'proxy_set_header Forwarded "$before$element;proto=$scheme;host=\\"$http_host\\"";',
            certificate=certificate,
        ),
        "silent": to("app", "proxy_set_header Host shop.example;"),
        "unbuffered": to(
            "app", "proxy_request_buffering off; proxy_buffering off; proxy_set_header Host shop.example;"
        ),
    }  # fmt: skip
    with run(folder, list(sites.values()), FORWARDED + hop) as nginx:
        assert isinstance(nginx, Nginx)
        yield servers._replace(proxies=dict(zip(sites, nginx.ports, strict=True)))


class Answer(NamedTuple):
    """What came back."""

    status: int
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def untrusting() -> ssl.SSLContext:
    """For certificates that nobody signed."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def ask(
    port: int,
    path: str = "/seen",
    headers: Mapping[str, str] | None = None,
    *,
    method: str = "GET",
    body: bytes | None = None,
    source: str = CLIENT,
    tls: bool = False,
) -> Answer:
    """A request from an address of this machine."""
    source_address = (source, 0)
    connection: http.client.HTTPConnection
    if tls:
        connection = http.client.HTTPSConnection(
            "127.0.0.1", port, timeout=PATIENCE, source_address=source_address, context=untrusting()
        )
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE, source_address=source_address)
    with contextlib.closing(connection):
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return Answer(response.status, response.read())


# What nginx tells


def test_the_client_is_the_one_that_nginx_saw_whatever_it_claims(stage: Stage) -> None:
    for headers in ({}, FORGED, {"X-Forwarded-For": "127.0.0.1, 10.0.0.1"}, {"X-Forwarded-For": "garbage,,\t"}):
        told = ask(stage.proxies["http"], headers=headers).json
        assert told == {
            "client": CLIENT, "url": "http://shop.example/seen", "told": ["x-forwarded-for", "x-forwarded-proto"],
        }  # fmt: skip


def test_the_scheme_is_that_of_the_connection_to_nginx(stage: Stage) -> None:
    for headers in ({}, FORGED, {"X-Forwarded-Proto": "http"}):
        told = ask(stage.proxies["https"], headers=headers, tls=True).json
        assert (told["client"], told["url"]) == (CLIENT, "https://shop.example/seen")


def test_the_documented_configuration_does_what_the_page_says(stage: Stage) -> None:
    told = ask(stage.proxies["documented"], headers={"Host": "shop.example", **FORGED}, tls=True).json
    assert told == {
        "client": CLIENT, "url": "https://shop.example/seen", "told": ["x-forwarded-for", "x-forwarded-proto"],
    }  # fmt: skip
    assert ask(stage.proxies["documented"], headers={"Host": "evil.example"}, tls=True).status == 400


def test_the_host_only_where_it_is_asked_for(stage: Stage) -> None:
    assert ask(stage.proxies["inner"], headers={"Host": "shop.example", **FORGED}).json["url"] == "http://inner/seen"
    told = ask(stage.proxies["hosted"], headers={"Host": "Shop.example:8000", **FORGED}).json
    assert told["url"] == "http://shop.example:8000/seen"
    assert ask(stage.proxies["hosted"], headers={"Host": "evil.example"}).status == 400


def test_forwarded_and_nothing_else_is_read_there(stage: Stage) -> None:
    for headers in ({}, FORGED, {"Forwarded": "for=127.0.0.1, for=unknown;x=y"}):
        told = ask(stage.proxies["forwarded"], headers={"Host": "shop.example", **headers}, tls=True).json
        assert told == {"client": CLIENT, "url": "https://shop.example/seen", "told": ["forwarded"]}


@pytest.mark.parametrize("opening", ['for="', 'for=6.6.6.6;x="', '"', "for", ";;=", 'for="\\'])
def test_a_quotation_that_swallows_what_nginx_appends_is_refused(stage: Stage, opening: str) -> None:
    got = ask(stage.proxies["forwarded"], headers={"Host": "shop.example", "Forwarded": opening}, tls=True)
    assert got.status == 400
    assert b"proxy headers make no sense" in got.body


def test_an_origin_is_compared_with_what_the_client_asked_for(stage: Stage) -> None:
    """An old browser, which sends no Sec-Fetch-Site."""
    for origin, status in (("https://shop.example", 200), ("http://shop.example", 403), ("https://evil.example", 403)):
        headers = {"Origin": origin, "Cookie": "session=1"}
        assert ask(stage.proxies["https"], "/save", headers, method="POST", body=b"x", tls=True).status == status


def test_a_proxy_that_tells_nothing_is_taken_for_the_client(stage: Stage) -> None:
    """The opposite error: to limits by address, all the world is one client."""
    assert ask(stage.proxies["silent"]).json["client"] == "127.0.0.1"


# Past nginx


@pytest.mark.parametrize("target", ["app", "hosted", "forwarded"])
def test_who_goes_past_nginx_is_not_believed(servers: Stage, target: str) -> None:
    port = servers.servers[target]
    told = ask(port, headers={"Host": "shop.example", **FORGED}, source=STRANGER).json
    assert told == {"client": STRANGER, "url": "http://shop.example/seen", "told": []}
    assert b"is not in [plugins.proxy_headers] trusted" in servers.logs[target].read_bytes()


def test_the_servers_believe_nobody_behind_our_back(servers: Stage) -> None:
    """uvicorn by itself believes whoever comes from 127.0.0.1."""
    told = ask(servers.servers["plain"], headers={"Host": "shop.example", **FORGED}, source="127.0.0.1").json
    assert (told["client"], told["url"]) == ("127.0.0.1", "http://shop.example/seen")


@pytest.mark.parametrize(
    "head",
    [
        b"GET http://evil.example/seen HTTP/1.1\r\nHost: shop.example\r\n",
        b"GET http://shop.example/seen HTTP/1.1\r\nHost: evil.example\r\n",
        b"GET //evil.example/seen HTTP/1.1\r\nHost: shop.example\r\n",
        b"GET /seen HTTP/1.1\r\nHost: shop.example\r\nHost: evil.example\r\n",
        b"GET /seen HTTP/1.1\r\nHost: evil.example\r\nHost: shop.example\r\n",
        b"GET /seen HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-Host: shop.example\r\n",
        b"GET /seen HTTP/1.1\r\nHost: shop.example@evil.example\r\n",
        b"GET /seen HTTP/1.1\r\nHost:\r\n",
        b"GET /seen HTTP/1.1\r\n",
        b"GET /seen HTTP/1.0\r\n",
    ],
    ids=lambda head: head[:60].decode(),
)
def test_no_way_to_write_it_makes_another_host_the_applications(servers: Stage, head: bytes) -> None:
    with socket.create_connection(("127.0.0.1", servers.servers["app"]), PATIENCE, (STRANGER, 0)) as connection:
        connection.sendall(head + b"Connection: close\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    status, _, rest = answer.partition(b"\r\n")
    # A target in absolute form goes before the Host header (RFC 9112 section 3.2.2); a server may refuse it.
    assert b" 200 " not in status or b'"url":"http://shop.example/seen"' in rest, answer
    assert b'"url":"http://evil' not in rest


# Slow clients


def test_nginx_takes_a_slow_body_and_hands_it_over_whole(stage: Stage) -> None:
    """The application gives a body one second in all, which this client exceeds."""
    for name, status in (("http", 200), ("unbuffered", 408)):
        with socket.create_connection(("127.0.0.1", stage.proxies[name]), PATIENCE, (CLIENT, 0)) as connection:
            connection.sendall(b"POST /save HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\nConnection: close\r\n\r\n")
            for _ in range(8):
                with contextlib.suppress(OSError):
                    connection.sendall(b"x")
                time.sleep(0.25)
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 %d " % status), answer
        assert (b'{"bytes":8}' in answer) is (status == 200)


def test_nginx_takes_a_response_that_nobody_reads(stage: Stage) -> None:
    before = len(ask(stage.servers["app"], "/sent", {"Host": "inner"}).json)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", stage.proxies["http"]))
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        deadline = time.monotonic() + PATIENCE
        while len(ask(stage.servers["app"], "/sent", {"Host": "inner"}).json) == before:
            assert time.monotonic() < deadline, "the application still waits for a client that reads nothing"
            time.sleep(0.05)
        received = sum(len(piece) for piece in iter(lambda: connection.recv(65536), b""))
    assert received > 3_000_000


# WebSockets


def open_socket(port: int, url: str, **options: Any) -> contextlib.AbstractContextManager[ClientConnection]:
    """A WebSocket of a client who believes that the name in the URL is this machine's."""
    connection = socket.create_connection(("127.0.0.1", port), PATIENCE, (CLIENT, 0))
    if url.startswith("wss:"):
        options["ssl"] = untrusting()
    return connect(url, sock=connection, proxy=None, open_timeout=PATIENCE, **options)


@pytest.mark.parametrize("site", ["https", "documented"])
def test_websockets_pass_with_address_scheme_and_origin(stage: Stage, site: str) -> None:
    port = stage.proxies[site]
    host = "shop.example" if site == "https" else f"shop.example:{port}"
    url = f"wss://shop.example:{port}/socket"
    with open_socket(port, url, origin=f"https://{host}", additional_headers=FORGED) as connection:
        assert json.loads(connection.recv(PATIENCE)) == {"client": CLIENT, "url": f"wss://{host}/socket"}
        connection.send("hello")
        assert connection.recv(PATIENCE) == "hello"
    with pytest.raises(InvalidStatus) as refused, open_socket(port, url, origin="https://evil.example"):
        pass
    assert refused.value.response.status_code == 403


def test_a_websocket_for_another_host_is_refused(stage: Stage) -> None:
    port = stage.proxies["hosted"]
    with open_socket(port, "ws://shop.example/socket") as connection:
        assert json.loads(connection.recv(PATIENCE)) == {"client": CLIENT, "url": "ws://shop.example/socket"}
    with pytest.raises(InvalidStatus) as refused, open_socket(port, "ws://evil.example/socket"):
        pass
    assert refused.value.response.status_code in (400, 403)
    assert "nginx" not in refused.value.response.body.decode(), "the application refuses it"
