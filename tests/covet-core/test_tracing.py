"""Request ids and W3C Trace Context of whole requests; `test_datastructures.py` shows what the parser takes."""

from __future__ import annotations

import re
from typing import Any

import pytest

from covet import Covet, Request
from covet.testing import TestClient

TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-0[01]")


@pytest.mark.anyio
async def test_a_request_has_one_id_and_one_span_and_two_requests_share_neither() -> None:
    app = Covet({}, installed_plugins=False)

    @app.get("/")
    async def index(request: Request) -> Any:
        assert request.trace is request.trace
        return [request.id, request.id, request.trace.traceparent]

    async with TestClient(app) as client:
        first = (await client.get("/")).json()
        second = (await client.get("/")).json()
    assert first[0] == first[1] != second[0]
    assert TRACEPARENT.fullmatch(first[2])
    assert not set(first[2].split("-")[1:3]) & set(second[2].split("-")[1:3])


@pytest.mark.anyio
async def test_the_caller_s_trace_goes_on_unless_its_headers_are_doubtful() -> None:
    app = Covet({}, installed_plugins=False)

    @app.get("/")
    async def index(request: Request) -> Any:
        return request.trace

    sent = f"00-{'a' * 32}-{'b' * 16}-01"
    async with TestClient(app) as client:
        trace_id, span_id, parent_id, sampled = (await client.get("/", headers={"traceparent": sent})).json()
        assert (trace_id, parent_id, sampled) == ("a" * 32, "b" * 16, True)
        assert span_id != parent_id
        twice = [("traceparent", sent), ("traceparent", sent)]
        assert (await client.get("/", headers=twice)).json()[0] != "a" * 32
