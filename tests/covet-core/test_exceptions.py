"""Errors that are responses: what their problem documents say."""

from __future__ import annotations

import pytest

from covet import exceptions
from covet.exceptions import CovetError, Fault, HTTPError, ValidationError, WebSocketDisconnected


def test_every_error_is_in_the_one_tree() -> None:
    for name in exceptions.__all__:
        thing = getattr(exceptions, name)
        if name != "Fault":
            assert issubclass(thing, CovetError), name


def test_a_problem_says_what_it_is() -> None:
    error = HTTPError(404, "no such user", headers={"x-a": "1"}, user=7)
    assert str(error) == "404 Not Found: no such user"
    assert error.headers == {"x-a": "1"}
    assert error.problem() == {
        "type": "about:blank", "title": "Not Found", "status": 404, "detail": "no such user", "user": 7,
    }  # fmt: skip


def test_what_is_not_given_is_left_out_or_the_phrase_of_the_status() -> None:
    assert HTTPError(418).problem() == {"type": "about:blank", "title": "I'm a Teapot", "status": 418}
    assert HTTPError(499).title == "Error"
    assert str(HTTPError(499)) == "499 Error"
    named = HTTPError(402, title="Out of credit", type="https://example.com/credit")
    assert named.problem() == {"type": "https://example.com/credit", "title": "Out of credit", "status": 402}


def test_two_errors_share_no_headers() -> None:
    headers = {"x-a": "1"}
    error = HTTPError(400, headers=headers)
    error.headers["x-b"] = "2"
    assert headers == {"x-a": "1"}
    assert HTTPError(400).headers == {}


@pytest.mark.parametrize("status", [0, 200, 302, 399, 600, 1000, -1])
def test_only_error_statuses_are_errors(status: int) -> None:
    with pytest.raises(ValueError, match=str(status)):
        HTTPError(status)


@pytest.mark.parametrize("count", [1, 2])
def test_a_validation_error_lists_its_faults(count: int) -> None:
    faults = [Fault("query", "/a", "is required"), Fault("body", "", "is no object")][:count]
    error = ValidationError(faults)
    assert error.status == 422
    assert error.faults == tuple(faults)
    assert error.problem()["errors"][0] == {"in": "query", "pointer": "/a", "detail": "is required"}
    assert error.detail == f"{count} part{'s' if count > 1 else ''} of the request did not validate"


def test_a_closed_websocket_says_why() -> None:
    assert str(WebSocketDisconnected()) == "the peer closed the WebSocket with code 1006"
    error = WebSocketDisconnected(1000, "bye")
    assert (error.code, error.reason, str(error)) == (1000, "bye", "the peer closed the WebSocket with code 1000: bye")
