"""What no well-behaved client sends, over real sockets to the real servers.

Much of it the servers answer themselves. Then it has to be a 4xx or a closed connection, never a 5xx, and no handler
may have been called with what was meant as a part of another request. After each, a good request shows that the server
still serves; at the end its log shows that nothing was an error.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

APPLICATION = """
import hashlib

import anyio
import anyio.lowlevel

from covet import Covet, Request, StreamingResponse

app = Covet(
    {"limits": {"body_timeout": 1.0, "max_body": 100_000}, "server": {"shutdown_timeout": 3.0}}, installed_plugins=False
)
called = []


@app.get("/")
async def root() -> str:
    return "ok"


@app.get("/called")
async def show_called() -> str:
    calls, called[:] = " ".join(called), []
    return calls


@app.get("/smuggled")
async def smuggled() -> str:
    called.append("smuggled")
    return "smuggled"


@app.post("/echo")
async def echo(request: Request) -> str:
    data = await request.body()
    called.append(f"echo:{len(data)}:{hashlib.sha256(data).hexdigest()[:8]}")
    return f"echo {len(data)}"


@app.post("/deaf")
async def deaf() -> str:
    called.append("deaf")
    return "deaf"


@app.get("/text/{name}")
async def text(name: str) -> dict:
    return {"name": name}


@app.get("/url")
async def url(request: Request) -> str:
    return str(request.url)


@app.get("/token")
async def token(request: Request) -> str:
    return request.headers.get("x-token", "none")


@app.get("/slow")
async def slow() -> str:
    await anyio.sleep(0.2)
    return "slow"


@app.get("/endless")
async def endless() -> StreamingResponse:
    async def pieces():
        called.append("endless:begun")
        try:
            while True:
                yield b"x" * 65536
                await anyio.lowlevel.checkpoint()
        finally:
            called.append("endless:closed")

    return StreamingResponse(pieces())
"""


class Server(NamedTuple):
    """A running server."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module", params=["granian", "uvicorn"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "app.py").write_text(APPLICATION)
    port = free_port()
    log = folder / "log"
    command = [sys.executable, "-m", "covet", "run", "--server", request.param, "--port", str(port), "app:app"]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment, stderr=output, stdout=output)
    try:
        for _ in range(200):
            if process.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        else:
            raise AssertionError(f"{request.param} does not listen: {log.read_text()}")
        assert process.poll() is None, log.read_text()
        yield Server(request.param, port, process, log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) in (0, -signal.SIGTERM), log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    told = log.read_text()
    assert "Traceback" not in told, told
    assert re.search(r'"level": ?"(error|critical)"|\b(ERROR|CRITICAL)\b', told) is None, told


class Connection:
    """A client's socket."""

    def __init__(self, server: Server) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=5)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            # The server has answered and closed already, which `answers` shows.
            return

    def answers(self, count: int | None = None, *, head: bool = False) -> list[Answer]:
        """What comes until there are `count` final answers, the connection closes, or it is silent."""
        data = b""
        self.socket.settimeout(5 if count else 0.3)
        while True:
            found = parsed(data, head=head)
            if count is not None and len(found) >= count:
                return found
            try:
                piece = self.socket.recv(65536)
            except TimeoutError:
                assert count is None, f"no answer in time, only {data!r}"
                return found
            except ConnectionResetError:
                return found
            if not piece:
                return found
            data += piece


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


def parsed(data: bytes, *, head: bool = False) -> list[Answer]:
    """The complete final answers in what a server has sent."""
    answers = []
    while b"\r\n\r\n" in data:
        top, _, rest = data.partition(b"\r\n\r\n")
        line, *fields = top.decode("latin-1").split("\r\n")
        status = int(line.split(" ")[1])
        headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
        if status < 200:
            data = rest
            continue
        if "content-length" in headers and not head:
            size = int(headers["content-length"])
            if len(rest) < size:
                break
            body, data = rest[:size], rest[size:]
        elif headers.get("transfer-encoding") == "chunked" and not head:
            end = rest.find(b"0\r\n\r\n")
            if end < 0:
                break
            body, data = rest[:end], rest[end + 5 :]
        else:
            body, data = b"", rest
        answers.append(Answer(status, headers, body))
    return answers


def ask(server: Server, data: bytes, count: int | None = None) -> list[Answer]:
    with Connection(server) as connection:
        connection.send(data)
        return connection.answers(count)


def called(server: Server) -> list[str]:
    """Which handlers were called since this was asked last."""
    (answer,) = ask(server, b"GET /called HTTP/1.1\r\nHost: a\r\n\r\n", 1)
    return answer.body.decode().split()


@pytest.fixture(autouse=True)
def still_serves(server: Server) -> Iterator[None]:
    """Before and after each test the server answers a good request."""
    called(server)
    yield
    assert server.process.poll() is None, server.log.read_text()
    (answer,) = ask(server, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 1)
    assert (answer.status, answer.body) == (200, b"ok")


def check_refused(answers: Sequence[Answer]) -> None:
    """Refused with a 4xx, or the connection was closed without an answer. Nothing came after that."""
    assert [answer.status // 100 for answer in answers] in ([], [4]), answers


# Where one request ends and the next begins

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"


def post(*headers: bytes, body: bytes = b"", path: bytes = b"/echo") -> bytes:
    return b"\r\n".join([b"POST " + path + b" HTTP/1.1", b"Host: a", *headers, b"", body])


FRAMINGS = {
    "two different lengths": post(b"Content-Length: 5", b"Content-Length: 0", body=b"hello" + SMUGGLED),
    "two different lengths reversed": post(b"Content-Length: 0", b"Content-Length: 42", body=SMUGGLED),
    "two lengths in one": post(b"Content-Length: 0, 5", body=b"hello" + SMUGGLED),
    "a negative length": post(b"Content-Length: -1", body=SMUGGLED),
    "a length with a sign": post(b"Content-Length: +0", body=SMUGGLED),
    "a hexadecimal length": post(b"Content-Length: 0x0", body=SMUGGLED),
    "a length with an underscore": post(b"Content-Length: 0_0", body=SMUGGLED),
    "a length in another script": post("Content-Length: \u0660".encode(), body=SMUGGLED),
    "a length with a space in it": post(b"Content-Length: 0 0", body=SMUGGLED),
    "a length that is a word": post(b"Content-Length: none", body=SMUGGLED),
    "a length of 30 digits": post(b"Content-Length: " + b"9" * 30, body=SMUGGLED),
    "an unknown transfer coding": post(b"Transfer-Encoding: xchunked", body=SMUGGLED),
    "identity": post(b"Transfer-Encoding: identity", body=SMUGGLED),
    "chunked, then identity": post(b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n" + SMUGGLED),
    "a quoted transfer coding": post(b'Transfer-Encoding: "chunked"', body=b"0\r\n\r\n" + SMUGGLED),
    "a vertical tab before chunked": post(b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n" + SMUGGLED),
    "a space before the colon": post(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n" + SMUGGLED),
    "a space before the colon of the length": post(b"Content-Length : 0", body=SMUGGLED),
    "a NUL in a name": post(b"Content-Length\0: 0", body=SMUGGLED),
    "a NUL in a value": post(b"Content-Length: 0", b"X: a\0b", body=SMUGGLED),
    "a bare carriage return in a value": post(b"X: a\rTransfer-Encoding: chunked", body=b"0\r\n\r\n" + SMUGGLED),
    "a line without a colon": post(b"nonsense", body=SMUGGLED),
    "a line without a name": post(b": x", body=SMUGGLED),
    "a space in a name": post(b"X Y: x", body=SMUGGLED),
    "a folded first line": b"POST /echo HTTP/1.1\r\n Host: a\r\n\r\n" + SMUGGLED,
}


@pytest.mark.parametrize("data", FRAMINGS.values(), ids=FRAMINGS)
def test_a_request_whose_end_is_in_doubt_is_refused(server: Server, data: bytes) -> None:
    check_refused(ask(server, data))
    assert called(server) == []


@pytest.mark.parametrize("lengths", [[b"5"], [b"5", b"5"]], ids=["length", "lengths"])
@pytest.mark.parametrize("order", [1, -1])
def test_a_request_with_a_length_and_chunked_is_chunked_or_refused(
    server: Server, lengths: list[bytes], order: int
) -> None:
    """RFC 9112 section 6.1 lets a server take it as chunked, and then asks it to close the connection.

    Neither h11 nor hyper closes it; a proxy that goes by the length would be deceived, and none in use does.
    """
    headers = [b"Transfer-Encoding: chunked", *[b"Content-Length: " + length for length in lengths]][::order]
    answers = ask(server, post(*headers, body=b"3\r\nabc\r\n0\r\n\r\n" + SMUGGLED))
    calls = called(server)
    if [answer.status for answer in answers[:1]] == [200]:
        assert answers[0].body == b"echo 3"
        assert calls[0].startswith("echo:3:")
    else:
        check_refused(answers)
        assert calls == []


def test_lines_that_end_with_a_bare_line_feed_are_one_request_or_refused(server: Server) -> None:
    answers = ask(server, b"POST /echo HTTP/1.1\nHost: a\nContent-Length: 5\n\nhello")
    calls = called(server)
    if [answer.status for answer in answers] == [200]:
        assert len(calls) == 1
        assert calls[0].startswith("echo:5:")
    else:
        check_refused(answers)
        assert calls == []


def test_a_folded_header_is_one_value_or_refused(server: Server) -> None:
    answers = ask(server, b"GET /token HTTP/1.1\r\nHost: a\r\nX-Token: a\r\n b\r\nX-Evil: 1\r\n\r\n")
    if [answer.status for answer in answers] == [200]:
        assert re.fullmatch(rb"a\s+b", answers[0].body)
    else:
        check_refused(answers)


BAD_CHUNKS = {
    "negative": b"-1\r\nx\r\n0\r\n\r\n",
    "hexadecimal with a prefix": b"0x1\r\nx\r\n0\r\n\r\n",
    "no number": b"g\r\nx\r\n0\r\n\r\n",
    "empty": b"\r\nx\r\n0\r\n\r\n",
    "with an underscore": b"0_1\r\nx\r\n0\r\n\r\n",
    "beyond 64 bits": b"1" + b"0" * 16 + b"\r\nx\r\n0\r\n\r\n",
    "a million digits": b"1" * 1_000_000,
    "too short": b"1\r\nxyz\r\n0\r\n\r\n",
    "without an end of line": b"1\r\nx0\r\n\r\n",
    "a plus": b"+1\r\nx\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("chunks", BAD_CHUNKS.values(), ids=BAD_CHUNKS)
@pytest.mark.parametrize("before", [b"", b"3\r\nabc\r\n"], ids=["first", "second"])
def test_a_malformed_chunk_is_refused_and_no_handler_sees_a_whole_body(
    server: Server, chunks: bytes, before: bytes
) -> None:
    answers = ask(server, post(b"Transfer-Encoding: chunked", body=before + chunks + SMUGGLED))
    assert all(400 <= answer.status < 500 for answer in answers[:1]), answers
    assert len(answers) <= 1
    assert called(server) == []


def test_chunked_bodies_are_read(server: Server) -> None:
    (answer,) = ask(
        server, post(b"Transfer-Encoding: chunked", body=b"3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nX-Trailer: 1\r\n\r\n"), 1
    )
    assert answer.body == b"echo 5"


# Heads


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 100,
        b"\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTX/1.1\r\nHost: a\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / x HTTP/1.1\r\nHost: a\r\n\r\n",
        b"G\0T / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 1_000_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 1_000_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: x\r\n" * 100_000 + b"\r\n",
    ],
    ids=lambda data: ascii(data[:24]),
)
def test_a_head_that_is_none_is_refused(server: Server, data: bytes) -> None:
    check_refused(ask(server, data))


def test_heads_within_the_servers_limits_and_beyond_ours_are_refused_by_us(server: Server) -> None:
    many = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X-%d: x\r\n" % n for n in range(99)) + b"\r\n"
    check_status(server, many + SMUGGLED, [200, 200])
    check_refused(ask(server, many.replace(b"\r\n\r\n", b"\r\nX: x\r\n\r\n")))
    for large in (
        b"GET /token HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 40_000 + b"\r\n\r\n",
        b"GET /text/" + b"x" * 10_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    ):
        check_refused(ask(server, large))


def check_status(server: Server, data: bytes, statuses: list[int]) -> list[Answer]:
    answers = ask(server, data, len(statuses))
    assert [answer.status for answer in answers] == statuses
    return answers


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"/text/%00", 404),
        (b"/text/%FF", 404),
        (b"/text/%ED%A0%80", 404),
        (b"/text/%C0%80", 404),
        (b"/text/%zz", None),
        (b"/text/\xff", None),
        (b"/%FF", None),
        (b"/%00", 404),
        (b"//evil.example", 404),
        (b"//evil.example/", 404),
        (b"/@evil.example", 404),
        (b"/..%2f", 404),
        (b"/..%2f..%2fetc%2fpasswd", 404),
        (b"/text/a%2Fb", 404),
        (b"/text/%2e%2e%2f", None),
        (b"/%0d%0aLocation:%20x/", 404),
        (b"http://evil.example/nothing", 404),
        (b"http://user@evil.example:99999/", None),
        (b"@evil.example", None),
        (b"evil.example:80", None),
        (b"*", None),
        (b"/?%00", None),
        (b"/?%FF", None),
        (b"/#fragment", None),
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"OPTIONS", b"CONNECT", b"BREW"])
def test_odd_targets_lead_nowhere(server: Server, target: bytes, status: int | None, method: bytes) -> None:
    answers = ask(server, method + b" " + target + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    for answer in answers:
        assert answer.status < 500
        assert "evil" not in answer.headers.get("location", "")
        if status is not None and method == b"GET":
            assert 400 <= answer.status < 500
    assert len(answers) <= 1


@pytest.mark.parametrize(
    "hosts",
    [
        [],
        [b"a", b"b"],
        [b""],
        [b"a/b"],
        [b"u@evil.example"],
        [b"a b"],
        [b"evil.example\\"],
        [b"\xff"],
        [b"a:b"],
        [b"a, b"],
    ],
    ids=repr,
)
def test_a_host_that_is_none_makes_no_url(server: Server, hosts: list[bytes]) -> None:
    lines = b"".join(b"Host: " + host + b"\r\n" for host in hosts)
    check_refused(ask(server, b"GET /url HTTP/1.1\r\n" + lines + b"Connection: close\r\n\r\n"))


def test_the_url_is_made_of_the_host_whatever_the_target_says(server: Server) -> None:
    (answer,) = ask(server, b"GET /url?a=1 HTTP/1.1\r\nHost: Good.example:81\r\n\r\n", 1)
    assert answer.body == b"http://good.example:81/url?a=1"
    for answer in ask(
        server, b"GET http://other.example/url HTTP/1.1\r\nHost: good.example\r\nConnection: close\r\n\r\n"
    ):
        assert answer.status == 404 or answer.body.startswith((b"http://good.example/", b"http://other.example/"))


def test_names_with_an_underscore_are_dropped(server: Server) -> None:
    (answer,) = ask(server, b"GET /token HTTP/1.1\r\nHost: a\r\nX_Token: evil\r\n\r\n", 1)
    assert answer.body == b"none"


# Versions, pipelines, half a connection


def test_http_1_0(server: Server) -> None:
    with Connection(server) as connection:
        connection.send(b"GET / HTTP/1.0\r\n\r\n" + SMUGGLED)
        (answer,) = connection.answers()
        assert (answer.status, answer.body) == (200, b"ok")
    assert called(server) == [], "HTTP/1.0 has no second request on a connection"
    check_refused(ask(server, b"GET /url HTTP/1.0\r\n\r\n"))


def test_chunked_in_http_1_0_is_no_second_request(server: Server) -> None:
    answers = ask(server, b"POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED)
    assert len(answers) <= 1
    assert all(answer.status < 500 for answer in answers)
    assert "smuggled" not in called(server)


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    one, two, three = (
        b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n",
        post(b"Content-Length: 3", body=b"abc"),
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    )
    answers = check_status(server, one + two + three + two, [200] * 4)
    assert [answer.body for answer in answers] == [b"slow", b"echo 3", b"ok", b"echo 3"]


def test_what_is_left_of_a_body_that_nobody_read_is_no_request(server: Server) -> None:
    """It is skipped, or the connection closed."""
    body = b"x" * 50_000 + SMUGGLED
    answers = ask(
        server, post(b"Content-Length: %d" % len(body), path=b"/deaf", body=body) + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    )
    assert [(answer.status, answer.body) for answer in answers] in ([(200, b"deaf")], [(200, b"deaf"), (200, b"ok")])
    assert called(server) == ["deaf"]
    body = b"x" * 200_000 + SMUGGLED
    answers = ask(server, post(b"Content-Length: %d" % len(body), body=body) + SMUGGLED)
    assert [answer.status for answer in answers] in ([], [413], [413, 200])
    assert called(server) in ([], ["smuggled"])


def test_a_half_closed_connection_still_gets_its_answer_or_is_closed(server: Server) -> None:
    with Connection(server) as connection:
        connection.send(post(b"Content-Length: 5", body=b"hello"))
        connection.socket.shutdown(socket.SHUT_WR)
        answers = connection.answers()
    assert [answer.status for answer in answers] in ([], [200])
    with Connection(server) as connection:
        connection.send(post(b"Content-Length: 50", body=b"hello"))
        connection.socket.shutdown(socket.SHUT_WR)
        check_refused(connection.answers())
    assert all(call.startswith("echo:5:") for call in called(server))


# Bodies


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_a_413(server: Server, chunked: bool) -> None:
    if chunked:
        data = post(
            b"Transfer-Encoding: chunked",
            body=b"10000\r\n" + b"x" * 65536 + b"\r\n10000\r\n" + b"x" * 65536 + b"\r\n0\r\n\r\n",
        )
    else:
        data = post(b"Content-Length: 999999999", body=b"x" * 150_000)
    with Connection(server) as connection:
        connection.send(data)
        answers = connection.answers()
    assert [answer.status for answer in answers] in ([], [413]), "a reset may overtake the answer"
    assert called(server) == []


def test_continue_is_not_needed_for_a_refusal(server: Server) -> None:
    with Connection(server) as connection:
        connection.send(post(b"Content-Length: 5", b"Expect: 100-continue"))
        time.sleep(0.1)
        connection.send(b"hello")
        (answer,) = connection.answers(1)
        assert answer.body == b"echo 5"
    with Connection(server) as connection:
        connection.send(post(b"Content-Length: 999999999", b"Expect: 100-continue"))
        (answer,) = connection.answers(1)
        assert answer.status in (408, 413), "refused, though none of it was sent"
    (call,) = called(server)
    assert call.startswith("echo:5:")


def test_a_body_that_trickles_or_stops_is_a_408(server: Server) -> None:
    for pause in (0.1, 2.0):
        with Connection(server) as connection:
            connection.send(post(b"Content-Length: 1000"))
            connection.socket.settimeout(0.01)
            began = time.monotonic()
            while time.monotonic() - began < 4 and not peek(connection):
                connection.send(b"x")
                time.sleep(pause)
            (answer,) = connection.answers(1)
            assert answer.status == 408
    assert called(server) == []


def peek(connection: Connection) -> bool:
    """Whether something has come."""
    try:
        return bool(connection.socket.recv(1, socket.MSG_PEEK))
    except TimeoutError:
        return False


def reset(connection: Connection) -> None:
    """Leave without saying goodbye."""
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.socket.close()


@pytest.mark.parametrize("how", ["close", "reset"])
def test_clients_that_leave(server: Server, how: str) -> None:
    for data in (
        b"",
        b"GET / HT",
        post(b"Content-Length: 50")[:-4],
        post(b"Content-Length: 50"),
        post(b"Content-Length: 50", body=b"hello"),
        post(b"Transfer-Encoding: chunked", body=b"5\r\nhel"),
        b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 20,
    ):
        with Connection(server) as connection:
            connection.send(data)
            time.sleep(0.02)
            if how == "reset":
                reset(connection)
    assert called(server) == []


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_client_that_leaves_in_the_middle_of_a_response_ends_the_stream(server: Server, how: str) -> None:
    with Connection(server) as connection:
        connection.send(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
        received = 0
        while received < 300_000:
            received += len(connection.socket.recv(65536))
        if how == "reset":
            reset(connection)
    calls: list[str] = []
    for _ in range(100):
        calls += called(server)
        if "endless:closed" in calls:
            break
        time.sleep(0.05)
    assert calls == ["endless:begun", "endless:closed"]
