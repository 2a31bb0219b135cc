"""How errors look: problem details for programs, a readable page for people, a traceback only in debug."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from covet.exceptions import HTTPError, ValidationError
from covet.responses import Response

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from covet.requests import Request

__all__ = ["prefers_html", "render_error", "render_traceback"]

MAX_ACCEPTED = 32
# Headers that say who somebody is, by a part of their name: the page may be sent on in a chat or an issue.
HIDDEN_HEADERS = re.compile(
    "auth|cookie|token|secret|key|csrf|xsrf|session|password|credential|signature|assertion|jwt"
)
MAX_FRAMES = 50

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 4rem auto; max-width: {width}; padding: 0 1rem; }}
body {{ color: #222; background: #fff; }}
h1 {{ font-size: 1.5rem; }} small {{ color: #666; }}
pre {{ background: #f5f5f5; padding: .6rem; overflow: auto; }} mark {{ background: #ffe08a; }}
th {{ text-align: left; padding-right: 1rem; vertical-align: top; }}
@media (prefers-color-scheme: dark) {{
body {{ color: #ddd; background: #1b1b1b; }} pre {{ background: #262626; }} mark {{ color: #000; }}
}}
</style>
</head>
<body>
{body}
</body>
</html>
"""


def prefers_html(accept: Sequence[str]) -> bool:
    """Whether a client that sent these `Accept` headers would rather read a page than a problem document.

    Quality values count (RFC 9110 section 12.5.1); of equal ones JSON wins, so that a program with `*/*` gets it. Only
    the first 32 media ranges are looked at.
    """
    best = {"html": 0.0, "json": 0.0}
    for part in ",".join(accept).split(",", MAX_ACCEPTED)[:MAX_ACCEPTED]:
        range_, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    quality = min(1.0, max(0.0, float(parameter[2:])))
                except ValueError:
                    quality = 0.0
        if range_ in ("text/html", "application/xhtml+xml"):
            best["html"] = max(best["html"], quality)
        elif range_ == "application/json" or range_.endswith("+json") or range_ in ("*/*", "application/*"):
            best["json"] = max(best["json"], quality)
    return best["html"] > best["json"] or (best["html"] == best["json"] > 0 and "text/html" in ",".join(accept)[:9])


def render_error(request: Request, error: HTTPError, debug: bool) -> Response:
    """The response for an `HTTPError`. Its header `X-Request-ID` says under which id the log has more."""
    if _wants_page(request):
        from html import escape

        details = "".join(
            f"<li>{escape(fault.location)} <code>{escape(fault.pointer)}</code>: {escape(fault.detail)}</li>"
            for fault in (error.faults if isinstance(error, ValidationError) else ())
        )
        body = f"<h1>{error.status} {escape(error.title)}</h1>\n<p>{escape(error.detail)}</p>\n"
        if details:
            body += f"<ul>{details}</ul>\n"
        body += f"<p><small>Request {escape(request.id)}</small></p>"
        response = _page(f"{error.status} {error.title}", body, error.status)
    else:
        response = _problem(error.problem(), error.status)
    response.headers.update(error.headers)
    response.headers.setdefault("x-request-id", request.id)
    return response


def render_traceback(request: Request, error: BaseException) -> Response:
    """The response for an unhandled error in debug mode: where it happened, what led to it, and what the request was.

    Local variables are not shown: they hold what nobody meant to show.
    """
    response = _traceback_page(request, error) if _wants_page(request) else _traceback_problem(request, error)
    response.headers["x-request-id"] = request.id
    return response


def _traceback_problem(request: Request, error: BaseException) -> Response:
    import traceback

    return _problem(
        {
            "type": "about:blank",
            "title": "Internal Server Error",
            "status": 500,
            "detail": _described(error),
            "request_id": request.id,
            "traceback": traceback.format_exception(error),
        },
        500,
    )


def _traceback_page(request: Request, error: BaseException) -> Response:
    from html import escape

    parts = [f"<h1>{escape(_described(error))}</h1>"]
    parts.append(f"<p>{escape(request.method)} {escape(request.path)} <small>Request {escape(request.id)}</small></p>")
    for why, link in _chain(error):
        if why:
            parts.append(f"<h2>{why} {escape(_described(link))}</h2>")
        parts += _frames(link)
    headers = "".join(
        f"<tr><th>{escape(name)}</th><td>{'(hidden)' if HIDDEN_HEADERS.search(name) else escape(value)}</td></tr>"
        for name, value in request.headers.multi_items()
    )
    parts.append(f"<h2>Headers</h2>\n<table>{headers}</table>")
    parts.append(
        "<p><small>This page shows because <code>[app] debug</code> is on. Turn it off in production.</small></p>"
    )
    return _page(type(error).__name__, "\n".join(parts), 500, width="60rem")


def _chain(error: BaseException) -> Iterator[tuple[str, BaseException]]:
    """An error and those it came from, each with the words between them."""
    why, link, seen = "", error, {id(error)}
    while True:
        yield why, link
        if link.__cause__ is not None:
            why, link = "Caused by", link.__cause__
        elif link.__context__ is not None and not link.__suppress_context__:
            why, link = "While handling", link.__context__
        else:
            return
        if id(link) in seen:
            return
        seen.add(id(link))


def _frames(error: BaseException) -> list[str]:
    """The frames of an error, the innermost first."""
    import traceback
    from html import escape

    found = traceback.extract_tb(error.__traceback__)
    frames = [
        f"<p><b>{escape(frame.name)}</b> <small>{escape(frame.filename)}:{frame.lineno}</small></p>"
        f"<pre>{_source(frame.filename, frame.lineno or 0)}</pre>"
        for frame in reversed(found[-MAX_FRAMES:])
    ]
    if len(found) > MAX_FRAMES:
        frames.append(f"<p>and {len(found) - MAX_FRAMES} more above</p>")
    return frames


def _described(error: BaseException) -> str:
    """An error in one line. Its own text may fail: that is no reason to show nothing."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception as failed:  # noqa: BLE001
        return f"{type(error).__name__} (its text cannot be shown: {type(failed).__name__})"


def _wants_page(request: Request) -> bool:
    try:
        return prefers_html(request.headers.getlist("accept"))
    except HTTPError:
        # The headers themselves are what is wrong, and this is where they are looked at first.
        return False


def _source(filename: str, line: int, around: int = 4) -> str:
    import linecache
    from html import escape

    lines = []
    for number in range(max(1, line - around), line + around + 1):
        text = linecache.getline(filename, number).rstrip("\n")
        if text or number == line:
            shown = f"{number:5} {escape(text)}"
            lines.append(f"<mark>{shown}</mark>" if number == line else shown)
    return "\n".join(lines)


def _page(title: str, body: str, status: int, width: str = "40rem") -> Response:
    from html import escape

    page = _encodable(_PAGE.format(title=escape(title), body=body, width=width))
    headers = {"cache-control": "no-store", "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}
    return Response(page, status, headers, "text/html; charset=utf-8")


def _problem(document: dict[str, Any], status: int) -> Response:
    import msgspec

    try:
        body = msgspec.json.encode(document)
    except UnicodeEncodeError:
        body = msgspec.json.encode(
            {name: _encodable(value) if isinstance(value, str) else value for name, value in document.items()}
        )
    return Response(body, status, {"cache-control": "no-store"}, "application/problem+json")


def _encodable(text: str) -> str:
    """Text without surrogates, which a request can smuggle into an error's words and UTF-8 cannot hold."""
    return text.encode("utf-8", "replace").decode()
