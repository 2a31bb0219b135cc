"""What log records look like, and which request they belong to."""

from __future__ import annotations

import datetime
import io
import json
import logging
import os
import pty
import subprocess
import sys
import uuid
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covet import Covet, HTTPError, Request, Secret, WebSocket
from covet.logging import HumanFormatter, JSONFormatter, RequestContextFilter, configure
from covet.settings_sections import LoggingSettings
from covet.testing import TestClient

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


def record(message: Any = "hello", *args: Any, error: BaseException | None = None, **extra: Any) -> logging.LogRecord:
    exc_info = (type(error), error, error.__traceback__) if error is not None else None
    return logging.getLogger().makeRecord("shop.cart", logging.INFO, __file__, 1, message, args, exc_info, "f", extra)


def as_json(made: logging.LogRecord) -> dict[str, Any]:
    line = JSONFormatter().format(made)
    assert "\n" not in line
    members: dict[str, Any] = json.loads(line)
    return members


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> Iterator[logging.Logger]:
    """The root logger, afterwards as it was before."""
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    monkeypatch.delenv("NO_COLOR", raising=False)
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)
    logging.captureWarnings(False)


# JSON


def test_a_record_as_json() -> None:
    made = record("%d items", 3, cart="c1", total=2.5)
    made.created = 1_700_000_000.0456
    assert as_json(made) == {
        "time": "2023-11-14T22:13:20.045Z", "level": "info", "logger": "shop.cart", "message": "3 items",
        "cart": "c1", "total": 2.5,
    }  # fmt: skip


def test_an_exception_as_json_has_type_message_and_traceback() -> None:
    exception = as_json(record(error=raised(ValueError("odd"))))["exception"]
    assert (exception["type"], exception["message"]) == ("ValueError", "odd")
    assert exception["traceback"].startswith("Traceback (most recent call last):\n")
    assert exception["traceback"].endswith("ValueError: odd")
    inner = as_json(record(error=raised(HTTPError(404))))["exception"]
    assert inner["type"] == "covet.exceptions.HTTPError"


def test_what_json_does_not_know_is_its_repr_and_a_secret_stays_one() -> None:
    @dataclass
    class Account:
        name: str
        password: str = field(default="hunter2", repr=False)

    identifier = uuid.UUID(int=7)
    members = as_json(
        record(
            "the key is %s, in full %r", Secret("hunter2"), Secret("hunter2"),
            key=Secret("hunter2"), inside={"keys": [Secret("hunter2")], 3: (1, {2})}, account=Account("ann"),
            raw=b"\xff", at=datetime.date(2026, 1, 2), id=identifier, no=None, yes=True, huge=2**100,
            nan=float("nan"), odd="\ud800", bad=Unshowable(), badly={Unshowable(): Unshowable()},
        )
    )  # fmt: skip
    assert "hunter2" not in json.dumps(members)
    assert members["message"] == "the key is Secret('********'), in full Secret('********')"
    assert members["inside"] == {"keys": ["Secret('********')"], "3": [1, [2]]}
    assert members["account"].endswith("Account(name='ann')")
    assert (members["raw"], members["at"], members["id"]) == (repr(b"\xff"), "2026-01-02", str(identifier))
    assert (members["no"], members["yes"], members["huge"], members["nan"]) == (None, True, 2**100, "nan")
    assert members["odd"] == "\\ud800"
    shown = "Unshowable that cannot be shown: RuntimeError>"
    assert members["bad"].endswith(shown)
    assert next(iter(members["badly"])).endswith(shown)


def test_a_value_that_holds_itself_ends_somewhere() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert as_json(record(endless=endless))["message"] == "hello"


def test_extra_does_not_take_the_place_of_what_a_record_is() -> None:
    members = as_json(record(level="fatal", time="never", logger="other", exception="none"))
    assert (members["level"], members["logger"]) == ("info", "shop.cart")
    assert (members["level_"], members["time_"], members["exception_"]) == ("fatal", "never", "none")


@pytest.mark.parametrize("formatter", [JSONFormatter(), HumanFormatter()])
def test_a_record_that_cannot_be_formatted_is_not_lost(formatter: logging.Formatter) -> None:
    for made in (
        record("%d items", "three"),
        record("%s %s", 1),
        record("%s", Unshowable()),
        record(Unshowable()),
        record("see", error=raised(ValueError(Unshowable()))),
    ):
        line = formatter.format(made)
        assert line
    assert "three" in formatter.format(record("%d items", "three"))
    copied = logging.makeLogRecord({"msg": "from elsewhere", "exc_info": True, "exc_text": "Traceback: far away"})
    assert "far away" in formatter.format(copied)


# For people


def test_a_record_for_people() -> None:
    made = record("3 items", cart="c1", error=raised(ValueError("odd")))
    lines = HumanFormatter().format(made).split("\n")
    assert lines[0].endswith(" INFO     shop.cart: 3 items cart=c1")
    assert datetime.datetime.fromisoformat(lines[0][:23])
    assert lines[1] == "    Traceback (most recent call last):"
    assert lines[-1] == "    ValueError: odd"


FORGED = "x\n2026-01-01 00:00:00.000 CRITICAL root: forged\r\x1b[2J\x85\u2028\u202e"


def test_nothing_in_a_message_can_look_like_another_record() -> None:
    """Log injection: CWE-117."""
    made = record(FORGED, more=FORGED, error=raised(ValueError(FORGED)))
    made.name = FORGED
    first, *others = HumanFormatter().format(made).split("\n")
    assert "\\n2026-01-01" in first
    assert all(line.startswith("    ") for line in others), (
        "only a traceback has lines of its own, and they are indented"
    )
    everything = "".join([first, *others])
    assert everything.isprintable()
    assert len(JSONFormatter().format(made).splitlines()) == 1


@given(st.text(), st.text(), st.recursive(st.none() | st.floats() | st.text() | st.binary(), st.lists))
def test_any_record_is_one_line(message: str, name: str, value: Any) -> None:
    made = record(message, value=value)
    made.name = name
    members = as_json(made)
    assert members["message"].isprintable() or members["message"] == message
    assert len(HumanFormatter().format(made).splitlines()) == 1


# configure


def run(code: str, **environment: str) -> str:
    """What a program writes to standard error, in a locale that knows nothing but ASCII."""
    before = (
        "import logging, sys, warnings\nfrom covet.logging import configure\n"
        "from covet.settings_sections import LoggingSettings as Settings\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", before + code],
        env={**os.environ, "PYTHONIOENCODING": "ascii", **environment},
        capture_output=True,
        check=True,
    )
    return done.stderr.decode()


def test_production_writes_json_in_utf8_whatever_the_locale() -> None:
    output = run(
        "configure(Settings(), debug=False)\n"
        "logging.getLogger('somebody.else').warning('é 中')\n"
        "logging.getLogger('quiet').debug('hidden')\n"
        "warnings.warn('old')\n"
    )
    first, second = map(json.loads, output.splitlines())
    assert (first["logger"], first["level"], first["message"]) == ("somebody.else", "warning", "é 中")
    assert second["logger"] == "py.warnings"
    assert "old" in second["message"]


def test_debug_mode_writes_lines_for_people_without_colour_into_a_pipe() -> None:
    output = run("configure(Settings(level='debug'), debug=True)\nlogging.getLogger('a').debug('é')")
    assert output.endswith("DEBUG    a: \\xe9\n")
    assert "\x1b" not in output
    assert "{" in run("configure(Settings(format='json'), debug=True)\nlogging.error('x')")
    assert "ERROR    root: x" in run("configure(Settings(format='human'), debug=False)\nlogging.error('x')")


@pytest.mark.parametrize(
    ("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_colour_at_a_terminal_unless_told_otherwise(environment: dict[str, str], coloured: bool) -> None:
    master, slave = pty.openpty()
    code = (
        "import logging\nfrom covet.logging import configure\nfrom covet.settings_sections import LoggingSettings\n"
        "configure(LoggingSettings(), debug=True)\nlogging.error('broken')"
    )
    inherited = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    try:
        subprocess.run(
            [sys.executable, "-c", code], env={**inherited, "TERM": "xterm", **environment}, stderr=slave, check=True
        )
        output = os.read(master, 10_000).decode()
    finally:
        os.close(master)
        os.close(slave)
    assert "broken" in output
    assert ("\x1b[31m" in output) is coloured


def test_configuring_again_replaces_the_handler_and_leaves_those_of_others(root: logging.Logger) -> None:
    before = root.handlers[:]
    other = logging.NullHandler()
    root.addHandler(other)
    configure(LoggingSettings(), debug=True)
    configure(LoggingSettings(level="error"), debug=True)
    assert len(root.handlers) == len(before) + 2
    assert other in root.handlers
    assert root.level == logging.ERROR


def test_the_format_none_changes_nothing(root: logging.Logger) -> None:
    before = root.handlers[:], root.level
    configure(LoggingSettings(format="none", level="critical"), debug=False)
    assert (root.handlers, root.level) == before


def test_a_stream_that_fails_harms_nobody(root: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError("disk full")

    monkeypatch.setattr(sys, "stderr", Broken())
    configure(LoggingSettings(format="human"), debug=False)
    logging.getLogger("any").error("lost on the way, not in the program")


def test_warnings_are_logged(root: logging.Logger, capfd: pytest.CaptureFixture[str]) -> None:
    configure(LoggingSettings(format="json"), debug=False)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("ancient", stacklevel=1)
    assert "ancient" in capfd.readouterr().err


# The request a record belongs to


class Records(logging.Handler):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.addFilter(RequestContextFilter())
        self.seen: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(record)

    def ids(self, name: str) -> list[tuple[str, str, str]]:
        return [(r.request_id, r.trace_id, r.span_id) for r in self.seen if r.name == name]  # type: ignore[attr-defined]


@pytest.fixture
def records(root: logging.Logger) -> Records:
    handler = Records()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    return handler


@pytest.mark.anyio
async def test_records_carry_the_ids_of_their_request_whoever_logs(records: Records) -> None:
    app = Covet({}, installed_plugins=False)
    library = logging.getLogger("some.library")

    async def later() -> None:
        library.info("after the response")

    @app.get("/async")
    async def asynchronous(request: Request) -> str:
        library.info("in the handler")
        request.after(later)
        return request.id

    @app.get("/thread")
    def threaded(request: Request) -> str:
        library.info("in a thread")
        return request.id

    async with TestClient(app) as client:
        headers = {"x-request-id": "from-the-proxy", "traceparent": TRACEPARENT}
        assert (await client.get("/async", headers=headers)).text == "from-the-proxy"
        own = (await client.get("/thread")).text
    first, after, thread = records.ids("some.library")
    assert first[:2] == ("from-the-proxy", TRACE)
    assert len(first[2]) == 16
    assert after == first, "one span for the whole request"
    assert thread[0] == own
    assert thread[1] not in ("-", TRACE)


@pytest.mark.anyio
async def test_records_outside_of_requests_have_no_ids(records: Records) -> None:
    app = Covet({}, installed_plugins=False)
    logging.getLogger("outside").info("before")
    async with app.running():
        logging.getLogger("outside").info("while it runs")
    assert records.ids("outside") == [("-", "-", "-")] * 2
    line = logging.Formatter("%(request_id)s %(message)s").format(records.seen[0])
    assert line == "- before"


@pytest.mark.anyio
async def test_records_of_a_websocket_carry_its_ids(records: Records) -> None:
    app = Covet({}, installed_plugins=False)

    @app.websocket("/ws")
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        logging.getLogger("talk").info("open")

    async with TestClient(app) as client, client.websocket("/ws", headers={"x-request-id": "socket-1"}):
        pass
    assert [ids[0] for ids in records.ids("talk")] == ["socket-1"]


@pytest.mark.anyio
async def test_failures_are_logged_with_their_request(records: Records) -> None:
    app = Covet({}, installed_plugins=False)

    async def fails() -> None:
        raise RuntimeError("later")

    @app.get("/")
    async def index(request: Request) -> str:
        request.after(fails)
        app.tasks.start_soon(fails)
        return "sent"

    @app.get("/broken")
    async def broken() -> str:
        raise RuntimeError("now")

    async with TestClient(app, raise_errors=False) as client:
        await client.get("/", headers={"x-request-id": "one"})
        await client.get("/broken", headers={"x-request-id": "two"})
    assert [ids[0] for ids in records.ids("covet.tasks")] == ["one", "one"]
    assert [ids[0] for ids in records.ids("covet.application")] == ["two"]


def test_ids_that_a_record_has_already_stay() -> None:
    made = record(request_id="theirs")
    assert RequestContextFilter().filter(made)
    assert made.request_id == "theirs"  # type: ignore[attr-defined]
    assert as_json(made)["request_id"] == "theirs"
    assert HumanFormatter().format(made).endswith("[theirs]")
    assert "trace_id" not in as_json(made)
