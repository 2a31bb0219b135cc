"""Content Security Policy (https://www.w3.org/TR/CSP3/): policies that are checked, and nonces.

    [plugins.security_headers]
    content_security_policy = "default-src 'self'; script-src 'self' 'nonce'"

`'nonce'` stands for the nonce of a response. A page that has an inline script asks for one, `csp_nonce(request)`, and
that response's header allows it; every other response has a constant header that allows none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from covet.exceptions import CovetError

if TYPE_CHECKING:
    from covet.requests import Request
    from covet.responses import Response

__all__ = ["CONTENT_SECURITY_POLICY", "REPORT_ONLY", "ContentSecurityPolicy", "Nonce", "NoncePolicies", "csp_nonce"]

CONTENT_SECURITY_POLICY = "content-security-policy"
"""The header with the policy that browsers enforce."""

REPORT_ONLY = "content-security-policy-report-only"
"""The header with the policy that they only report violations of."""

# 144 bits, which are 24 characters without padding; section 7.1 asks for 128.
NONCE_BYTES = 18
PLACEHOLDER = "'nonce'"

FETCH = frozenset({
    "child-src", "connect-src", "default-src", "fenced-frame-src", "font-src", "frame-src", "img-src", "manifest-src",
    "media-src", "object-src", "prefetch-src", "script-src", "script-src-attr", "script-src-elem", "style-src",
    "style-src-attr", "style-src-elem", "worker-src",
})  # fmt: skip
# Where a nonce means something: sections 6.7.3.1 and 6.1.
NONCED = frozenset({
    "default-src", "script-src", "script-src-elem", "style-src", "style-src-elem",
})  # fmt: skip
DIRECTIVES = FETCH | frozenset({
    "base-uri", "block-all-mixed-content", "form-action", "frame-ancestors", "navigate-to", "plugin-types",
    "report-to", "report-uri", "require-sri-for", "require-trusted-types-for", "sandbox", "trusted-types",
    "upgrade-insecure-requests", "webrtc",
})  # fmt: skip
KEYWORDS = frozenset({
    "none", "self", "unsafe-inline", "unsafe-eval", "strict-dynamic", "unsafe-hashes", "report-sample",
    "wasm-unsafe-eval", "unsafe-allow-redirects", "inline-speculation-rules", "nonce",
})  # fmt: skip


class ContentSecurityPolicy:
    """A policy, checked, with or without a place for nonces.

    Args:
        text: directives as they stand in the header; `'nonce'` stands for a nonce.

    Attributes:
        directives: the values of each directive, by name in lower case.
        constant: the policy of responses that have no nonce.
        nonced: whether it has a place for one.

    Raises:
        ValueError: it would not mean what it says: an unknown directive, one that stands twice (browsers take the
            first), a keyword without its quotes, `'none'` beside others, a nonce where it means nothing.
    """

    __slots__ = ("_text", "constant", "directives", "nonced")

    def __init__(self, text: str) -> None:
        if not text.isascii() or not text.isprintable() or "," in text:
            raise ValueError(f"a policy is printable ASCII on one line, without a comma, not {text!r}")
        self.directives: Mapping[str, tuple[str, ...]] = _parsed(text)
        self.nonced = any(PLACEHOLDER in values for values in self.directives.values())
        self.constant = _written(
            {
                name: tuple(value for value in values if value != PLACEHOLDER) or (("'none'",) if values else ())
                for name, values in self.directives.items()
            }
        )
        self._text = _written(self.directives)

    def with_nonce(self, nonce: str) -> str:
        """The policy of a response that has a nonce."""
        return self._text.replace(PLACEHOLDER, f"'nonce-{nonce}'")

    def __repr__(self) -> str:
        return f"ContentSecurityPolicy({self._text!r})"


def _parsed(text: str) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for directive in text.split(";"):
        words = directive.split()
        if not words:
            continue
        name, values = words[0].lower(), words[1:]
        if name not in DIRECTIVES:
            from difflib import get_close_matches

            near = get_close_matches(name, DIRECTIVES, 1)
            raise ValueError(f"a policy has no directive {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        if name in found:
            raise ValueError(f"{name} stands twice in a policy, and browsers take the first; write one")
        for value in values:
            _check_source(name, value, values)
        found[name] = tuple(values)
    return found


def _check_source(name: str, value: str, values: list[str]) -> None:
    if name not in FETCH and name not in ("base-uri", "form-action", "frame-ancestors"):
        return
    if value.lower() in KEYWORDS:
        raise ValueError(f"{name} has {value}, which would be the name of a host; the keyword is '{value}', in quotes")
    if (
        value.startswith("'")
        and value[1:-1].lower() not in KEYWORDS
        and not value.startswith(("'sha256-", "'sha384-", "'sha512-"))
    ):
        if value.startswith("'nonce-"):
            raise ValueError(f"{name} has a nonce that never changes, which everybody would know; write {PLACEHOLDER}")
        raise ValueError(f"{name} has {value}, which is no keyword")
    if value.lower() == "'none'" and len(values) > 1:
        raise ValueError(f"{name} has 'none' beside others; 'none' stands alone")
    if value == PLACEHOLDER and name not in NONCED:
        raise ValueError(f"{name} has no use for a nonce; it is for {', '.join(sorted(NONCED))}")


def _written(directives: Mapping[str, tuple[str, ...]]) -> str:
    return "; ".join(" ".join((name, *values)) for name, values in directives.items())


class NoncePolicies:
    """The policies of an application that have a place for a nonce, by header; in `app.state`."""

    def __init__(self, policies: Mapping[str, ContentSecurityPolicy]) -> None:
        self._policies = dict(policies)

    def apply(self, response: Response, nonce: str) -> None:
        """Give a response the policies with its nonce. One that sets such a header itself keeps its own."""
        for header, policy in self._policies.items():
            response.headers.setdefault(header, policy.with_nonce(nonce))
        # A browser that keeps the page would show it later under a header with another nonce: after a 304 that is the
        # rule. One that nobody keeps cannot be served to somebody else either.
        response.headers.setdefault("cache-control", "no-store")


class Nonce(str):
    """The nonce of a response, in `request.state`."""

    __slots__ = ()


def csp_nonce(request: Request) -> str:
    """The nonce of the response to a request: `<script nonce="...">`. The same for every call in one request.

    The first call makes it, of 144 random bits, and has the policies of `[plugins.security_headers]` allow it for this
    response, which nobody may store unless it says otherwise. A response that sets a policy itself keeps that.

    Raises:
        CovetError: no policy has a place for a nonce, or the response is on its way already.
    """
    nonce = request.state.get(Nonce)
    if nonce is None:
        policies = request.app.state.get(NoncePolicies)
        if policies is None:
            raise CovetError(
                "no policy has a place for a nonce: write 'nonce', in single quotes, into script-src or style-src of "
                '`content_security_policy` under [plugins.security_headers], or `profile = "strict"`'
            )
        from secrets import token_urlsafe

        nonce = Nonce(token_urlsafe(NONCE_BYTES))
        applied, value = policies, nonce

        def finish(request: Request, response: Response) -> None:
            applied.apply(response, value)

        if request.finishers is None:
            raise CovetError(
                "a nonce stands in a header, and this response's headers are sent; in a template that is streamed, "
                "write {% set nonce = csp_nonce() %} at its top"
            )
        request.on_response(finish)
        request.state[Nonce] = nonce
    return nonce
