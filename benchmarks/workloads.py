"""The five requests that every peer answers, and what a right answer is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from benchmarks.payload import BODY, ROUTES, ROWS


@dataclass(frozen=True)
class Workload:
    """A request.

    Attributes:
        name: how it is chosen on the command line.
        title: how tables call it.
        expected: the answer: text, or what its JSON decodes to.
        goal: the most it may cost, in multiples of the bare ASGI function.
    """

    name: str
    title: str
    method: str
    path: str
    body: bytes
    expected: Any
    goal: float = 1.8

    def check(self, status: int, body: bytes) -> None:
        """Raise ValueError unless the answer is right: a fast wrong answer is no result."""
        text = body.decode()
        got = text if isinstance(self.expected, str) else json.loads(text)
        if status != 200 or got != self.expected:
            raise ValueError(f"{self.method} {self.path} was answered {status} {text[:80]!r}")


LAST = f"/r{ROUTES - 1}/users/42/posts/hello-world"
WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("plain", "plain text", "GET", "/", b"", "Hello, World!"),
        Workload("json", "small JSON", "GET", "/json", b"", {"message": "Hello, World!"}),
        Workload(
            "route",
            f"route {ROUTES - 1} of {ROUTES}, two parameters",
            "GET",
            LAST,
            b"",
            {"id": 42, "slug": "hello-world"},
        ),
        Workload("body", "typed 10-field body, echoed", "POST", "/body", BODY, json.loads(BODY)),
        Workload("list", "100 objects as JSON", "GET", "/list", b"", ROWS, goal=1.15),
    )
}
