"""The builtin plugin `security_headers`: headers that make browsers careful.

They are constant, so they cost a request nothing, and a response that sets one itself keeps its own. None of them says
anything about caching: `Cache-Control` belongs to what is served. A policy with a place for a nonce is another one for
the responses alone that ask for it: see `covet.csp.csp_nonce`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import Meta, Struct

from covet.csp import CONTENT_SECURITY_POLICY, REPORT_ONLY, ContentSecurityPolicy, NoncePolicies
from covet.hooks import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from covet.applications import Covet

__all__ = ["PROFILES", "SecurityHeadersSettings", "covet_response_headers", "covet_settings", "covet_setup"]

# What the lists of browsers ask of a domain that is to be preloaded: https://hstspreload.org.
PRELOAD_SECONDS = 31_536_000
# A key of a structured field (RFC 8941 section 3.1.2), which the name of an endpoint is.
ENDPOINT = re.compile(r"[a-z*][a-z0-9_.*-]*")
# In a structured field's string (section 3.3.3) nothing of this needs escaping.
ENDPOINT_URL = re.compile(r"(?:https://|/)[!#-\[\]-~]*")

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

PROFILES: dict[str, dict[str, Any]] = {
    "default": {
        "content_type_options": "nosniff",
        "frame_options": "DENY",
        "referrer_policy": "same-origin",
        "opener_policy": "same-origin-allow-popups",
        "resource_policy": "off",
        "embedder_policy": "off",
        "content_security_policy": "",
        "permissions_policy": "",
        "hsts_seconds": 0,
    },
    "strict": {
        "content_type_options": "nosniff",
        "frame_options": "DENY",
        "referrer_policy": "same-origin",
        "opener_policy": "same-origin",
        "resource_policy": "same-origin",
        "embedder_policy": "off",
        "content_security_policy": (
            "default-src 'none'; script-src 'self' 'nonce'; style-src 'self' 'nonce'; img-src 'self'; font-src 'self'; "
            "connect-src 'self'; media-src 'self'; manifest-src 'self'; object-src 'none'; base-uri 'none'; "
            "form-action 'self'; frame-ancestors 'none'"
        ),
        "permissions_policy": (
            "accelerometer=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), magnetometer=(), "
            "microphone=(), midi=(), payment=(), usb=()"
        ),
        "hsts_seconds": PRELOAD_SECONDS,
    },
}
"""What each profile says where the settings say nothing."""


class SecurityHeadersSettings(Struct, frozen=True, kw_only=True):
    """`[plugins.security_headers]`: the value of each header; `off`, or empty text, leaves it out.

    What is not set is as the profile says.
    """

    profile: Annotated[
        Literal["default", "strict"],
        Meta(
            description="What holds where nothing else is said. `default` breaks no application; `strict` is for one "
            "that loads everything from its own origin, over https, and gives inline scripts and styles a nonce."
        ),
    ] = "default"
    content_type_options: Annotated[
        Literal["nosniff", "off"] | None,
        Meta(description="`X-Content-Type-Options`: browsers take a response for what its `Content-Type` says."),
    ] = None
    frame_options: Annotated[
        Literal["DENY", "SAMEORIGIN", "off"] | None,
        Meta(
            description="`X-Frame-Options`: who may show a page in a frame, against clickjacking; for browsers that do "
            "not know `frame-ancestors` of a policy."
        ),
    ] = None
    referrer_policy: Annotated[
        ReferrerPolicy | None, Meta(description="`Referrer-Policy`: who is told which page a link was on.")
    ] = None
    opener_policy: Annotated[
        Literal["same-origin", "same-origin-allow-popups", "noopener-allow-popups", "unsafe-none", "off"] | None,
        Meta(
            description="`Cross-Origin-Opener-Policy`: which windows may hold on to a page. The default cuts off other "
            "sites that open one, and leaves the pop-ups in which users sign in elsewhere; `strict` cuts these off too."
        ),
    ] = None
    resource_policy: Annotated[
        Literal["same-origin", "same-site", "cross-origin", "off"] | None,
        Meta(description="`Cross-Origin-Resource-Policy`: which sites may embed what is served."),
    ] = None
    embedder_policy: Annotated[
        Literal["require-corp", "credentialless", "unsafe-none", "off"] | None,
        Meta(
            description="`Cross-Origin-Embedder-Policy`: whether a page may embed what others did not offer. With an "
            "opener policy of `same-origin` it isolates the page, which `SharedArrayBuffer` takes."
        ),
    ] = None
    content_security_policy: Annotated[
        str | None,
        Meta(
            description="`Content-Security-Policy`, such as `default-src 'self'; frame-ancestors 'none'`. `'nonce'` in "
            "it stands for the nonce that `csp_nonce(request)` gives."
        ),
    ] = None
    content_security_policy_report_only: Annotated[
        str,
        Meta(
            description="`Content-Security-Policy-Report-Only`: a policy that browsers only report violations of, to "
            "try it before it is enforced."
        ),
    ] = ""
    reporting_endpoints: Annotated[
        dict[str, str],
        Meta(description="`Reporting-Endpoints`: name to URL of what `report-to NAME` in a policy reports to."),
    ] = {}
    permissions_policy: Annotated[
        str | None, Meta(description="`Permissions-Policy`, such as `camera=(), geolocation=()`.")
    ] = None
    hsts_seconds: Annotated[
        Annotated[int, Meta(ge=0)] | None,
        Meta(
            description="`Strict-Transport-Security`: for how many seconds browsers come over https alone. 0 leaves it "
            "out; browsers remember it, so begin with a few minutes, and only where everything is served over https.",
        ),
    ] = None
    hsts_subdomains: Annotated[bool, Meta(description="Whether that holds for all subdomains.")] = False
    hsts_preload: Annotated[
        bool,
        Meta(
            description="Whether browsers may ship with it; takes `hsts_subdomains` and a year of `hsts_seconds`. "
            "It can hardly be taken back."
        ),
    ] = False

    def __post_init__(self) -> None:
        for name in ("content_security_policy", "content_security_policy_report_only", "permissions_policy"):
            value: str = self.value(name)
            if not value.isascii() or not value.isprintable():
                raise ValueError(f"{name} goes into a header: printable ASCII on one line, not {value!r}")
        for name in ("content_security_policy", "content_security_policy_report_only"):
            self._check_policy(name)
        for name, url in self.reporting_endpoints.items():
            if not ENDPOINT.fullmatch(name):
                raise ValueError(f"reporting_endpoints: {name!r} is no name: small letters, digits, '_', '-' and '.'")
            if not ENDPOINT_URL.fullmatch(url):
                raise ValueError(
                    f"reporting_endpoints: {name} is at an https URL or a path such as '/csp', not {url!r}"
                )
        if self.hsts_subdomains and not self.value("hsts_seconds"):
            raise ValueError("hsts_subdomains says nothing without hsts_seconds")
        if self.hsts_preload and not (self.hsts_subdomains and self.value("hsts_seconds") >= PRELOAD_SECONDS):
            raise ValueError(
                f"hsts_preload takes hsts_subdomains and hsts_seconds of at least {PRELOAD_SECONDS}, a year"
            )

    def _check_policy(self, name: str) -> None:
        try:
            policy = ContentSecurityPolicy(self.value(name))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        for endpoint in policy.directives.get("report-to", ()):
            if endpoint not in self.reporting_endpoints:
                raise ValueError(f"{name} reports to {endpoint!r}, which reporting_endpoints does not name")

    def value(self, name: str) -> Any:
        """What holds for a key: what it was set to, or what the profile says."""
        given = getattr(self, name)
        return PROFILES[self.profile].get(name) if given is None else given

    def policies(self) -> dict[str, ContentSecurityPolicy]:
        """The policies, by header; those that say something."""
        found = {
            CONTENT_SECURITY_POLICY: ContentSecurityPolicy(self.value("content_security_policy")),
            REPORT_ONLY: ContentSecurityPolicy(self.content_security_policy_report_only),
        }
        return {header: policy for header, policy in found.items() if policy.directives}

    def headers(self) -> list[tuple[str, str]]:
        """The headers, each as name and value."""
        found = {
            "x-content-type-options": self.value("content_type_options"),
            "x-frame-options": self.value("frame_options"),
            "referrer-policy": self.value("referrer_policy"),
            "cross-origin-opener-policy": self.value("opener_policy"),
            "cross-origin-resource-policy": self.value("resource_policy"),
            "cross-origin-embedder-policy": self.value("embedder_policy"),
            **{header: policy.constant for header, policy in self.policies().items()},
            "reporting-endpoints": ", ".join(f'{name}="{url}"' for name, url in self.reporting_endpoints.items()),
            "permissions-policy": self.value("permissions_policy"),
            "strict-transport-security": self._hsts(),
        }
        return [(name, value) for name, value in found.items() if value not in ("off", "")]

    def _hsts(self) -> str:
        seconds: int = self.value("hsts_seconds")
        if not seconds:
            return ""
        parts = [f"max-age={seconds}"]
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
def covet_setup(app: Covet) -> None:
    """Keep the policies that have a place for a nonce, where `csp_nonce` finds them."""
    nonced = {
        header: policy for header, policy in app.settings[SecurityHeadersSettings].policies().items() if policy.nonced
    }
    if nonced:
        app.state[NoncePolicies] = NoncePolicies(nonced)


@hookimpl
def covet_response_headers(app: Covet) -> Iterable[tuple[str, str]]:
    """The headers that the settings leave on."""
    return app.settings[SecurityHeadersSettings].headers()
