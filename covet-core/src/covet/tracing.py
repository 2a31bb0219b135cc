"""Which request this is: its id, and its place in a distributed trace."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

__all__ = ["TraceContext", "new_request_id", "valid_request_id"]

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
# W3C Trace Context section 3.2; a version later than 00 may append fields behind another dash.
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 0x01


def new_request_id() -> str:
    """A random request id: 32 hexadecimal digits."""
    return os.urandom(16).hex()


def valid_request_id(text: str) -> bool:
    """Whether `text` can be taken over as a request id: 1 to 128 letters, digits, dots, underscores or dashes.

    Such a text is harmless in logs, headers and file names.
    """
    return _REQUEST_ID.fullmatch(text) is not None


class TraceContext(NamedTuple):
    """Where a request stands in a distributed trace (W3C Trace Context, https://www.w3.org/TR/trace-context/).

    Attributes:
        trace_id: the whole trace: 32 hexadecimal digits, the caller's or fresh.
        span_id: this request: 16 hexadecimal digits, always fresh.
        parent_id: the caller's span, or None when the trace begins here.
        sampled: whether the caller records the trace.
    """

    trace_id: str
    span_id: str
    parent_id: str | None = None
    sampled: bool = False

    @classmethod
    def of(cls, traceparent: str | None) -> TraceContext:
        """The context of a request with that `traceparent` header; a new trace without one, or when it is invalid.

        Section 4.3 asks for the latter: an invalid header is never an error.
        """
        data = os.urandom(24)
        # Ids of nothing but zeros are invalid; one bit rules them out.
        span_id = (data[:7] + bytes([data[7] | 1])).hex()
        found = _TRACEPARENT.fullmatch(traceparent) if traceparent is not None else None
        if found is not None:
            version, trace_id, parent_id, flags, more = found.groups()
            known = version != "ff" and (version != "00" or more is None)
            if known and trace_id.strip("0") and parent_id.strip("0"):
                return cls(trace_id, span_id, parent_id, bool(int(flags, 16) & _SAMPLED))
        return cls((data[8:23] + bytes([data[23] | 1])).hex(), span_id)

    @property
    def traceparent(self) -> str:
        """The header that hands the trace on to what this request calls."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"
