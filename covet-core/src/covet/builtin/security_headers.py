"""The builtin plugin `security_headers`: headers that make browsers careful.

They are constant, so they cost a request nothing, and a response that sets one itself keeps its own. None of them says
anything about caching: `Cache-Control` belongs to what is served.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta, Struct

from covet.hooks import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from covet.applications import Covet

__all__ = ["SecurityHeadersSettings", "covet_response_headers", "covet_settings"]

# What the lists of browsers ask of a domain that is to be preloaded: https://hstspreload.org.
PRELOAD_SECONDS = 31_536_000

ReferrerPolicy = Literal[
    "no-referrer",
    "no-referrer-when-downgrade",
    "origin",
    "origin-when-cross-origin",
    "same-origin",
    "strict-origin",
    "strict-origin-when-cross-origin",
    "unsafe-url",
    "off",
]


class SecurityHeadersSettings(Struct, frozen=True, kw_only=True):
    """`[plugins.security_headers]`: the value of each header; `off`, or empty text, leaves it out."""

    content_type_options: Annotated[
        Literal["nosniff", "off"],
        Meta(description="`X-Content-Type-Options`: browsers take a response for what its `Content-Type` says."),
    ] = "nosniff"
    frame_options: Annotated[
        Literal["DENY", "SAMEORIGIN", "off"],
        Meta(description="`X-Frame-Options`: who may show a page in a frame, against clickjacking."),
    ] = "DENY"
    referrer_policy: Annotated[
        ReferrerPolicy, Meta(description="`Referrer-Policy`: who is told which page a link was on.")
    ] = "same-origin"
    opener_policy: Annotated[
        Literal["same-origin", "same-origin-allow-popups", "noopener-allow-popups", "unsafe-none", "off"],
        Meta(
            description="`Cross-Origin-Opener-Policy`: which windows may hold on to a page. The default cuts off other "
            "sites that open one, and leaves the pop-ups in which users sign in elsewhere."
        ),
    ] = "same-origin-allow-popups"
    resource_policy: Annotated[
        Literal["same-origin", "same-site", "cross-origin", "off"],
        Meta(description="`Cross-Origin-Resource-Policy`: which sites may embed what is served."),
    ] = "off"
    content_security_policy: Annotated[
        str, Meta(description="`Content-Security-Policy`, such as `default-src 'self'; frame-ancestors 'none'`.")
    ] = ""
    permissions_policy: Annotated[
        str, Meta(description="`Permissions-Policy`, such as `camera=(), geolocation=()`.")
    ] = ""
    hsts_seconds: Annotated[
        int,
        Meta(
            ge=0,
            description="`Strict-Transport-Security`: for how many seconds browsers come over https alone. 0 leaves it "
            "out; browsers remember it, so begin with a few minutes, and only where everything is served over https.",
        ),
    ] = 0
    hsts_subdomains: Annotated[bool, Meta(description="Whether that holds for all subdomains.")] = False
    hsts_preload: Annotated[
        bool,
        Meta(
            description="Whether browsers may ship with it; takes `hsts_subdomains` and a year of `hsts_seconds`. "
            "It can hardly be taken back."
        ),
    ] = False

    def __post_init__(self) -> None:
        for name in ("content_security_policy", "permissions_policy"):
            value: str = getattr(self, name)
            if not value.isascii() or not value.isprintable():
                raise ValueError(f"{name} goes into a header: printable ASCII on one line, not {value!r}")
        if self.hsts_subdomains and not self.hsts_seconds:
            raise ValueError("hsts_subdomains says nothing without hsts_seconds")
        if self.hsts_preload and not (self.hsts_subdomains and self.hsts_seconds >= PRELOAD_SECONDS):
            raise ValueError(
                f"hsts_preload takes hsts_subdomains and hsts_seconds of at least {PRELOAD_SECONDS}, a year"
            )

    def headers(self) -> list[tuple[str, str]]:
        """The headers, each as name and value."""
        found = {
            "x-content-type-options": self.content_type_options,
            "x-frame-options": self.frame_options,
            "referrer-policy": self.referrer_policy,
            "cross-origin-opener-policy": self.opener_policy,
            "cross-origin-resource-policy": self.resource_policy,
            "content-security-policy": self.content_security_policy,
            "permissions-policy": self.permissions_policy,
            "strict-transport-security": self._hsts(),
        }
        return [(name, value) for name, value in found.items() if value not in ("off", "")]

    def _hsts(self) -> str:
        if not self.hsts_seconds:
            return ""
        parts = [f"max-age={self.hsts_seconds}"]
        if self.hsts_subdomains:
            parts.append("includeSubDomains")
        if self.hsts_preload:
            parts.append("preload")
        return "; ".join(parts)


@hookimpl
def covet_settings() -> type:
    """The settings: a key per header."""
    return SecurityHeadersSettings


@hookimpl
def covet_response_headers(app: Covet) -> Iterable[tuple[str, str]]:
    """The headers that the settings leave on."""
    return app.settings[SecurityHeadersSettings].headers()
