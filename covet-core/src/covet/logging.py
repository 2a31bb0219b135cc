"""Logging: loggers of the standard library, every record with the request it belongs to.

`covet run` calls `configure`: one handler on the root logger writes to standard error, lines for people in debug mode
and JSON for machines otherwise. Who configures logging without it adds `RequestContextFilter` to a handler, and may use
the formatters:

    handler = logging.StreamHandler()
    handler.addFilter(RequestContextFilter())
    handler.setFormatter(JSONFormatter())
    logging.getLogger().addHandler(handler)

The filter belongs on a handler, not on a logger: a logger's filters do not see what its children log.
"""

from __future__ import annotations

import datetime
import logging
import math
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Set
from typing import TYPE_CHECKING, Any, TextIO
from uuid import UUID

from covet.context import current_request

if TYPE_CHECKING:
    from covet.settings_sections import LoggingSettings

__all__ = ["HumanFormatter", "JSONFormatter", "RequestContextFilter", "configure"]

CONTEXT = ("request_id", "trace_id", "span_id")
ABSENT = "-"
# What a LogRecord has of itself; everything else was given with `extra`. uvicorn repeats its messages in the last one.
STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
RESERVED = frozenset({"time", "level", "logger", "message", "exception", "stack"})
MAX_DEPTH = 8

_COLOURS = {"DEBUG": "2", "INFO": "32", "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}
# C0 and C1 controls, line and paragraph separators, and what changes the direction of text; surrogates, which no
# encoding takes.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_SURROGATES = re.compile("[\ud800-\udfff]")


class RequestContextFilter(logging.Filter):
    """Gives every record `request_id`, `trace_id` and `span_id`: those of the request or WebSocket being served.

    It lets every record pass. Ids that a record has already, from `extra` or from another filter, stay. The trace is
    that of the W3C Trace Context headers, or a new one.

    Args:
        absent: what a record has outside of requests, so that `%(request_id)s` can stand in any format.
    """

    def __init__(self, absent: str = ABSENT) -> None:
        super().__init__()
        self.absent = absent

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the ids to a record. Runs where the record is logged, which is where the request is known."""
        fields = vars(record)
        request = current_request()
        if request is None:
            for name in CONTEXT:
                fields.setdefault(name, self.absent)
            return True
        fields.setdefault("request_id", request.id)
        if "trace_id" not in fields or "span_id" not in fields:
            trace = request.trace
            fields.setdefault("trace_id", trace.trace_id)
            fields.setdefault("span_id", trace.span_id)
        return True


class HumanFormatter(logging.Formatter):
    """One line a record, for people; the traceback of an exception stands indented below it.

    What would break the line, move the cursor or turn the text around is written as an escape, so that no message can
    look like another record.

    Args:
        colour: whether the level is coloured, for a terminal.
    """

    def __init__(self, *, colour: bool = False) -> None:
        super().__init__()
        self.colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """The record as text. Never raises."""
        level = f"{record.levelname:<8}"
        if self.colour and record.levelname in _COLOURS:
            level = f"\x1b[{_COLOURS[record.levelname]}m{level}\x1b[0m"
        parts = [_local_time(record.created), level, f"{_one_line(str(record.name))}:", _one_line(_message(record))]
        parts += [f"{_one_line(name)}={_one_line(_text(value))}" for name, value in _extra(record)]
        request_id = getattr(record, "request_id", ABSENT)
        if request_id != ABSENT:
            parts.append(f"[{_one_line(_text(request_id))}]")
        lines = [" ".join(parts)]
        for text in (_exception_text(record), _text(record.stack_info) if record.stack_info else None):
            if text:
                # Only real line breaks end a line here: those of `str.splitlines` that remain are escaped.
                lines += [f"    {_one_line(line)}" for line in text.rstrip("\n").split("\n")]
        return "\n".join(lines)


class JSONFormatter(logging.Formatter):
    """One JSON object a line, for machines.

    Its members: `time` (RFC 3339, UTC, milliseconds), `level`, `logger`, `message`; `request_id`, `trace_id` and
    `span_id` while a request is served; `exception` with `type`, `message` and `traceback`; `stack`; and whatever was
    given with `extra`, with `_` behind a name that is taken. A value that JSON does not know is its `repr`, in which a
    `covet.Secret` shows as asterisks.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON, without a line break. Never raises."""
        import msgspec

        members: dict[str, Any] = {
            "time": _utc_time(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        for name in CONTEXT:
            value = getattr(record, name, ABSENT)
            if value != ABSENT:
                members[name] = value
        exception = _exception_text(record)
        if exception:
            error = _error(record)
            members["exception"] = {
                "type": _qualified(type(error)) if error is not None else "",
                "message": _text(error) if error is not None else "",
                "traceback": exception,
            }
        if record.stack_info:
            members["stack"] = record.stack_info
        for name, value in _extra(record):
            members[f"{name}_" if name in RESERVED else name] = value
        # JSON escapes C0 controls itself; of the others no reader should have to know which of them end a line.
        return _UNSAFE.sub(_json_escape, msgspec.json.encode(_plain(members, MAX_DEPTH)).decode())


class _StandardError(logging.Handler):
    """Writes lines to standard error, JSON in UTF-8 whatever the locale says."""

    def __init__(self, stream: TextIO, *, utf8: bool) -> None:
        super().__init__()
        self.stream = stream
        self.buffer = getattr(stream, "buffer", None) if utf8 else None

    def emit(self, record: logging.LogRecord) -> None:
        # As in the standard library: what goes wrong with logging is told on standard error and harms nothing else.
        try:
            line = self.format(record) + "\n"
            if self.buffer is not None:
                self.stream.flush()
                self.buffer.write(line.encode())
                self.buffer.flush()
            else:
                encoding = self.stream.encoding or "utf-8"
                self.stream.write(line.encode(encoding, "backslashreplace").decode(encoding))
                self.stream.flush()
        except Exception:  # noqa: BLE001
            self.handleError(record)


def configure(settings: LoggingSettings, *, debug: bool) -> None:
    """Let every record of at least the level go to standard error, in the format that the settings name.

    Puts one handler on the root logger, in the place of one that it put there before; handlers of others stay. What the
    module `warnings` shows is logged as well, by the logger `py.warnings`. With the format `none` it does nothing: the
    application configures logging itself.

    Args:
        settings: `[logging]`.
        debug: whether the application is in debug mode: `auto` is then `human`, else `json`.
    """
    if settings.format == "none":
        return
    human = settings.format == "human" or (settings.format == "auto" and debug)
    handler = _StandardError(sys.stderr, utf8=not human)
    handler.setFormatter(HumanFormatter(colour=_wants_colour(sys.stderr)) if human else JSONFormatter())
    handler.addFilter(RequestContextFilter())
    root = logging.getLogger()
    for other in [other for other in root.handlers if isinstance(other, _StandardError)]:
        root.removeHandler(other)
    root.addHandler(handler)
    root.setLevel(settings.level.upper())
    logging.captureWarnings(True)


def _wants_colour(stream: TextIO) -> bool:
    """Whether to colour: at a terminal that can, unless `NO_COLOR` (https://no-color.org) says otherwise."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:  # noqa: BLE001
        # The arguments do not fit the format, or cannot be shown. The record still says something.
        return f"{_text(record.msg)} (its arguments {_repr(record.args)} do not fit: {type(error).__name__})"


def _error(record: logging.LogRecord) -> BaseException | None:
    return record.exc_info[1] if isinstance(record.exc_info, tuple) else None


def _exception_text(record: logging.LogRecord) -> str | None:
    error = _error(record)
    if error is not None:
        try:
            return "".join(traceback.format_exception(error)).rstrip("\n")
        except Exception as failed:  # noqa: BLE001
            return f"{_qualified(type(error))} (its traceback cannot be shown: {type(failed).__name__})"
    # Set where the record comes from another process, or was formatted before.
    return _text(record.exc_text) if record.exc_text else None


def _extra(record: logging.LogRecord) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in vars(record).items() if name not in STANDARD and name not in CONTEXT]


def _plain(value: Any, depth: int) -> Any:
    """A value that JSON knows: `value`, or what stands for it."""
    kind = type(value)
    if kind is str:
        return _SURROGATES.sub(_escape, value)
    if value is None or kind is bool or kind is int:
        return value
    if kind is float:
        return value if math.isfinite(value) else repr(value)
    if isinstance(value, Mapping | list | tuple | Set):
        if depth == 0:
            return "..."
        try:
            if isinstance(value, Mapping):
                return {_SURROGATES.sub(_escape, _text(key)): _plain(item, depth - 1) for key, item in value.items()}
            return [_plain(item, depth - 1) for item in value]
        except Exception:  # noqa: BLE001
            # It changed meanwhile, or is no real container.
            return _repr(value)
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    return str(value) if kind is UUID else _repr(value)


def _text(value: Any) -> str:
    return _shown(str, value)


def _repr(value: Any) -> str:
    return _SURROGATES.sub(_escape, _shown(repr, value))


def _shown(show: Callable[[Any], str], value: Any) -> str:
    try:
        return show(value)
    except Exception as error:  # noqa: BLE001
        return f"<a {_qualified(type(value))} that cannot be shown: {type(error).__name__}>"


def _qualified(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _one_line(text: str) -> str:
    return _UNSAFE.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def _json_escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def _local_time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds).isoformat(" ", "milliseconds")


def _utc_time(seconds: float) -> str:
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
