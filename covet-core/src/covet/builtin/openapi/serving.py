"""Who may read the document and the page, and how they are sent."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING, Any

from covet.applications import Covet
from covet.exceptions import HTTPError
from covet.requests import Request
from covet.responses import Response

if TYPE_CHECKING:
    from covet.builtin.openapi import OpenAPISettings

__all__ = ["Documentation", "from_this_machine"]

logger = logging.getLogger("covet.openapi")

# A proxy on this machine makes every request look as if it came from here; these give it away.
FORWARDING = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")
# An application is mounted at one path as a rule. More than this many are not kept.
MAX_KEPT = 16


class Documentation:
    """The document and the page of one application, each made once for each path the application is mounted at."""

    def __init__(self, app: Covet, settings: OpenAPISettings) -> None:
        self._app = app
        self._settings = settings
        self._lock = Lock()
        self._document: dict[str, Any] | None = None
        self._kept: dict[tuple[str, str], tuple[bytes, dict[str, str]]] = {}
        self._told = False

    # Plain functions: they run in worker threads, so that making a large document holds up nobody.

    def serve_document(self, request: Request) -> Response:
        """The OpenAPI document of this application."""
        return self._serve(request, "application/json", self._encoded)

    def serve_page(self, request: Request) -> Response:
        """The documentation page of this application."""
        return self._serve(request, "text/html; charset=utf-8", self._page)

    def _serve(
        self, request: Request, media_type: str, make: Callable[[str], tuple[bytes, dict[str, str]]]
    ) -> Response:
        self._check_access(request)
        root: str = request.scope.get("root_path", "")
        with self._lock:
            found = self._kept.get((media_type, root))
            if found is None:
                found = make(root)
                if len(self._kept) < MAX_KEPT:
                    self._kept[media_type, root] = found
        body, headers = found
        if _matches(request.headers.elements("if-none-match"), headers["etag"]):
            return Response(status=304, headers=headers)
        return Response(body, 200, headers, media_type)

    def _check_access(self, request: Request) -> None:
        if self._settings.public or self._app.debug or from_this_machine(request):
            return
        if not self._told:
            self._told = True
            logger.warning(
                "%s was asked for from elsewhere and is shown only to this machine; `public = true` under "
                "[plugins.openapi] shows it to everybody",
                request.path,
            )
        raise HTTPError(404, f"nothing answers {request.path}")

    def _made(self, root: str) -> dict[str, Any]:
        """The document, with the path the application is mounted at as its server where no plugin named one."""
        if self._document is None:
            from covet.builtin.openapi.document import make_document

            self._document = make_document(self._app, self._settings)
        if not root or "servers" in self._document:
            return self._document
        return {**self._document, "servers": [{"url": root}]}

    def _encoded(self, root: str) -> tuple[bytes, dict[str, str]]:
        import msgspec

        body = msgspec.json.encode(self._made(root))
        return body, self._headers(body)

    def _page(self, root: str) -> tuple[bytes, dict[str, str]]:
        from covet.builtin.openapi.page import render_page, security_policy

        body = render_page(self._made(root), root + self._settings.path if self._settings.path else "").encode()
        return body, {**self._headers(body), "content-security-policy": security_policy()}

    def _headers(self, body: bytes) -> dict[str, str]:
        from hashlib import sha256

        # Who may see it is decided per request, so nothing between may keep it unless everybody may.
        control = "no-cache" if self._settings.public else "private, no-cache"
        return {"etag": f'"{sha256(body).hexdigest()[:32]}"', "cache-control": control}


def _matches(tags: list[str], own: str) -> bool:
    # RFC 9110 section 13.1.2: compared weakly.
    return any(tag == "*" or tag.removeprefix("W/") == own for tag in tags)


def from_this_machine(request: Request) -> bool:
    """Whether a request comes straight from this machine: from a loopback address, to a loopback name, by no proxy.

    The name is looked at because a page of another site may let its own name point to this machine (DNS rebinding).

    Raises:
        HTTPError: 400: the `Host` header is missing, doubled or malformed.
    """
    client = request.client
    if client is None or not _is_loopback(client[0]):
        return False
    if any(name in request.headers for name in FORWARDING):
        return False
    name = request.host
    name = name[1 : name.index("]")] if name.startswith("[") else name.partition(":")[0]
    return name == "localhost" or name.endswith(".localhost") or _is_loopback(name)


def _is_loopback(address: str) -> bool:
    from ipaddress import IPv6Address, ip_address

    try:
        found = ip_address(address)
    except ValueError:
        return False
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped.is_loopback
    return found.is_loopback
