"""How errors look: problem details for programs, a readable page for people, a traceback only in debug."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from covet.responses import Response

if TYPE_CHECKING:
    from collections.abc import Sequence

    from covet.exceptions import HTTPError
    from covet.requests import Request

__all__ = ["prefers_html", "render_error", "render_traceback"]

MAX_ACCEPTED = 32
HIDDEN_HEADERS = frozenset({"authorization", "cookie", "proxy-authorization", "x-api-key", "x-csrf-token"})

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 4rem auto; max-width: {width}; padding: 0 1rem; color: #222; background: #fff; }}
h1 {{ font-size: 1.5rem; }} small {{ color: #666; }}
pre {{ background: #f5f5f5; padding: .6rem; overflow: auto; }} mark {{ background: #ffe08a; }}
th {{ text-align: left; padding-right: 1rem; vertical-align: top; }}
@media (prefers-color-scheme: dark) {{ body {{ color: #ddd; background: #1b1b1b; }} pre {{ background: #262626; }} mark {{ color: #000; }} }}
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
    """The response for an `HTTPError`."""
    if prefers_html(request.headers.getlist("accept")):
        from html import escape

        details = "".join(
            f"<li>{escape(str(fault['in']))} <code>{escape(str(fault['pointer']))}</code>: {escape(str(fault['detail']))}</li>"
            for fault in error.extensions.get("errors", ())
        )
        body = f"<h1>{error.status} {escape(error.title)}</h1>\n<p>{escape(error.detail)}</p>\n"
        if details:
            body += f"<ul>{details}</ul>\n"
        body += f"<p><small>Request {escape(request.id)}</small></p>"
        response = _page(f"{error.status} {error.title}", body, error.status)
    else:
        response = _problem(error.problem(), error.status)
    response.headers.update(error.headers)
    return response


def render_traceback(request: Request, error: BaseException) -> Response:
    """The response for an unhandled error in debug mode: where it happened, and what the request was."""
    import traceback

    if not prefers_html(request.headers.getlist("accept")):
        return _problem(
            {
                "type": "about:blank",
                "title": "Internal Server Error",
                "status": 500,
                "detail": f"{type(error).__name__}: {error}",
                "request_id": request.id,
                "traceback": traceback.format_exception(error),
            },
            500,
        )
    from html import escape

    frames = []
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        frames.append(
            f"<p><b>{escape(frame.name)}</b> <small>{escape(frame.filename)}:{frame.lineno}</small></p>"
            f"<pre>{_source(frame.filename, frame.lineno or 0)}</pre>"
        )
    headers = "".join(
        f"<tr><th>{escape(name)}</th><td>{'(hidden)' if name in HIDDEN_HEADERS else escape(value)}</td></tr>"
        for name, value in request.headers.multi_items()
    )
    body = (
        f"<h1>{escape(type(error).__name__)}: {escape(str(error))}</h1>\n"
        f"<p>{escape(request.method)} {escape(request.path)} <small>Request {escape(request.id)}</small></p>\n"
        f"{''.join(frames)}\n<h2>Headers</h2>\n<table>{headers}</table>\n"
        "<p><small>This page shows because <code>[app] debug</code> is on. Turn it off in production.</small></p>"
    )
    return _page(type(error).__name__, body, 500, width="60rem")


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

    page = _PAGE.format(title=escape(title), body=body, width=width)
    headers = {"cache-control": "no-store", "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}
    return Response(page, status, headers, "text/html; charset=utf-8")


def _problem(document: dict[str, Any], status: int) -> Response:
    import msgspec

    return Response(msgspec.json.encode(document), status, {"cache-control": "no-store"}, "application/problem+json")
