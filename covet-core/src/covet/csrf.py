"""Cross-site request forgery: what tells a request of our own pages from one that another site made a browser send.

Browsers say where a request comes from (`Sec-Fetch-Site`, `Origin`), and that is what counts. Only old browsers and
clients that are none say nothing; those that send cookies need a token: `csrf_token(request)` in a form's field
`csrf_token`, or in the header `X-CSRF-Token`.

The plugin `csrf` asks for this on every route that changes something and that a page of another site could reach.
"""

from __future__ import annotations

import hmac
import logging
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from covet.exceptions import ConfigurationError, CovetError, HTTPError
from covet.origins import Origins, parse_origin
from covet.requests import content_type, require_json
from covet.responses import make_private
from covet.routing import route_options

if TYPE_CHECKING:
    from collections.abc import Iterable

    from covet.applications import Covet
    from covet.requests import Request
    from covet.responses import Response
    from covet.routing import Route

__all__ = ["FIELD", "HEADER", "CSRFExempt", "CSRFProtection", "csrf_exempt", "csrf_token"]

F = TypeVar("F", bound=Callable[..., Any])

logger = logging.getLogger("covet.security")

FIELD = "csrf_token"
"""The form field that a token is sent in."""

HEADER = "x-csrf-token"
"""The header that a token is sent in."""

# RFC 9110 section 9.2.1.
SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
# Fetch Metadata, section 2.4: from a page of this origin, or from nobody's page: a bookmark, the address bar.
OWN_SITES = ([b"same-origin"], [b"none"])
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
SECRET = re.compile(r"[A-Za-z0-9_-]{43}")
TOKEN_BYTES = 32
TOKEN = re.compile(r"[A-Za-z0-9_-]{86}")


class CSRFExempt:
    """Marks a route that is not protected; see `csrf_exempt`."""


def csrf_exempt(handler: F) -> F:
    """Let requests of other sites reach a route; stands below the route's decorator.

        @app.post("/webhook")
        @csrf_exempt
        async def webhook(request: Request) -> None: ...

    It is for callers that prove themselves by other means than what a browser sends along, such as a signature.
    """
    return route_options(handler, marks=[CSRFExempt()])


class _Issued:
    """The token of a request, so that a page with ten forms makes one."""

    __slots__ = ("token",)

    def __init__(self, token: str) -> None:
        self.token = token


def csrf_token(request: Request) -> str:
    """The token that a form of this response's page sends back in its field `csrf_token`.

    It is bound to a random cookie, which the response sets if the browser has none yet, and looks different every time,
    so that compression does not give it away (BREACH). The response becomes private, with `Vary: Cookie`.

    Returns:
        86 letters, digits, `-` and `_`.

    Raises:
        CovetError: the plugin `csrf` takes no part, or the response is on its way already.
        ConfigurationError: there is no `[app] secret_key`, and the application is not in debug mode.
    """
    issued = request.state.get(_Issued)
    if issued is None:
        protection = request.app.state.get(CSRFProtection)
        if protection is None:
            raise CovetError(
                "csrf_token() takes the plugin 'csrf', which takes no part in this application; leave it out of "
                "`[plugins] disable`"
            )
        issued = request.state[_Issued] = _Issued(protection.issue(request))
    return issued.token


class CSRFProtection:
    """What refuses forged requests of an application.

    Args:
        app: the application.
        allowed_origins: whose pages may send requests beside the application's own.
        strict: whether a client that says nothing about where a request comes from needs a token even if it sends no
            cookie.
        cookie: the name of the cookie that tokens are bound to; empty for `__Host-csrf`, in debug mode `csrf`.

    Raises:
        ValueError: what is in `allowed_origins` is no origin.
    """

    def __init__(
        self, app: Covet, allowed_origins: Iterable[str] = (), *, strict: bool = False, cookie: str = ""
    ) -> None:
        self.app = app
        self.allowed = Origins(allowed_origins)
        self.strict = strict
        # Browsers take a cookie with this prefix from the host itself alone, so no subdomain can plant one; but over
        # http, which development uses, they take none.
        self.cookie = cookie or ("csrf" if app.debug else "__Host-csrf")

    def guards(self, route: Route) -> list[Callable[[Request], Any]]:
        """What stands before a route: nothing where nothing can be forged.

        No page can send JSON to another site unless CORS permits it (ASVS 3.5.2), and the kernel takes nothing else for
        a JSON body that is required. Only must that be found out before dependencies do their work.
        """
        if not route.methods - SAFE or CSRFExempt in route.marks:
            return []
        plan = route.plan
        body = None if plan is None else plan.body
        if plan is not None and body is not None and body.required and body.media_type == "application/json":
            return [self.check_json] if any(step.scope != "app" for step in plan.steps) else []
        return [self.check]

    async def check(self, request: Request) -> None:
        """Refuse a request that may be forged.

        Raises:
            HTTPError: 403; and what `Request.form` raises, where the token is looked for in a form.
        """
        headers = request.scope["headers"]
        sites = [value for name, value in headers if name == b"sec-fetch-site"]
        if sites in OWN_SITES or request.scope["method"] in SAFE:
            return
        if _has_bearer_token(headers):
            return
        origins = [value.decode("latin-1") for name, value in headers if name == b"origin"]
        if len(origins) == 1 and origins[0] in self.allowed:
            return
        if sites:
            raise self._refusal(
                request,
                f"Sec-Fetch-Site is {_shown(sites)}, Origin {_shown(origins)}",
                "this request comes from a page of another site; to let pages of that origin send it, list the origin "
                "in `[plugins.csrf] allowed_origins`",
            )
        if origins:
            own = parse_origin(f"{request.scheme}://{request.host}")
            if len(origins) == 1 and parse_origin(origins[0]) == own:
                return
            raise self._refusal(
                request,
                f"Origin is {_shown(origins)}, and this is {own}",
                f"this request does not come from a page of {own}; if it should, list its origin in "
                "`[plugins.csrf] allowed_origins`, and behind a proxy see `[plugins.proxy_headers]`",
            )
        if not self.strict and not any(name == b"cookie" for name, _ in headers):
            return
        reason = await self._fault_of_token(request)
        if reason:
            raise self._refusal(
                request,
                f"neither Sec-Fetch-Site nor Origin, and {reason}",
                f"nothing says where this request comes from, and {reason}: send what csrf_token() gives in the form "
                f"field {FIELD!r} or the header {HEADER!r}, or say who you are with `Authorization: Bearer` in place "
                "of a cookie",
            )

    def check_json(self, request: Request) -> None:
        """Refuse a request whose body is not sent as JSON, before anything is done for it.

        Raises:
            HTTPError: 415.
        """
        if request.scope["method"] not in SAFE:
            require_json(request)

    def issue(self, request: Request) -> str:
        """A token for the page that a request gets; see `csrf_token`."""
        import secrets
        from base64 import urlsafe_b64encode

        secret = request.cookies.get(self.cookie, "")
        fresh = SECRET.fullmatch(secret) is None
        if fresh:
            secret = secrets.token_urlsafe(TOKEN_BYTES)
        digest = _digest(self.app.signing_key("csrf"), secret)

        def finish(request: Request, response: Response) -> None:
            if fresh:
                secure = not self.app.debug or self.cookie.startswith("__")
                response.set_cookie(self.cookie, secret, secure=secure)
            make_private(response)

        request.on_response(finish)
        mask = secrets.token_bytes(TOKEN_BYTES)
        return urlsafe_b64encode(mask + _mixed(mask, digest)).rstrip(b"=").decode()

    async def _fault_of_token(self, request: Request) -> str:
        """What is wrong with the token of a request; empty if nothing is."""
        secret = request.cookies.get(self.cookie, "")
        token = request.headers.get(HEADER)
        if token is None and content_type(request) in FORMS:
            found = (await request.form()).get(FIELD)
            token = found if isinstance(found, str) else None
        if token is None:
            return "it has no token"
        if SECRET.fullmatch(secret) is None:
            return f"the cookie {self.cookie!r}, which its token is bound to, did not come"
        if TOKEN.fullmatch(token) is None:
            return "its token is none"
        try:
            keys = self.app.signing_keys("csrf")
        except ConfigurationError as error:
            return f"no token can be valid: {error}"
        from base64 import urlsafe_b64decode

        raw = urlsafe_b64decode(token + "==")
        digest = _mixed(raw[:TOKEN_BYTES], raw[TOKEN_BYTES:])
        # All of them, so that the time does not tell which key fits.
        fitting = [hmac.compare_digest(digest, _digest(key, secret)) for key in keys]
        return "" if any(fitting) else "its token is not of this browser, or too old"

    def _refusal(self, request: Request, reason: str, detail: str) -> HTTPError:
        logger.warning(
            "refused as forged: %s %s: %s",
            request.method,
            request.path,
            reason,
            extra={"security_event": "csrf_refused", "client": request.client[0] if request.client else None},
        )
        return HTTPError(403, detail, title="Cross-site request refused")


def _has_bearer_token(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether the caller says who it is in a way that no browser does by itself, and no other site's page may."""
    return any(name == b"authorization" and value[:7].lower() == b"bearer " for name, value in headers)


def _digest(key: bytes, secret: str) -> bytes:
    return hmac.digest(key, secret.encode(), "sha256")


def _mixed(mask: bytes, data: bytes) -> bytes:
    return bytes(one ^ other for one, other in zip(mask, data, strict=True))


def _shown(values: list[Any]) -> str:
    return (
        ", ".join(value.decode("latin-1") if isinstance(value, bytes) else value for value in values)[:200] or "absent"
    )
