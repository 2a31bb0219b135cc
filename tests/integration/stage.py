"""Where attacks take place: a browser, the application in `shop`, guarded or not, and a server of the attacker's."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.services.browser import Browser, Page
from tests.services.https import PATIENCE, Application, Certificate, Sites, serve

MODULES = Path(__file__).parent / "shop"
SHOP, SUBDOMAIN, CLIENT, EVIL = "shop.example", "users.shop.example", "client.example", "evil.example"

SETTINGS = """
[app]
secret_key = "{secret}"

[plugins]
enable = [{enabled}]

[plugins.cors]
allow_origins = [{origins}]
allow_credentials = true
expose_headers = ["x-total"]

[plugins.openapi]
public = true

[plugins.security_headers]
"""
GUARDED = """
profile = "strict"

[plugins.csrf]
allowed_origins = ["{client}"]
"""
# Every header is off, and the policy is one that browsers only report violations of.
BARE = """
content_type_options = "off"
frame_options = "off"
referrer_policy = "off"
opener_policy = "off"
content_security_policy_report_only = "default-src 'self' 'nonce'; base-uri 'none'; form-action 'self'"
"""
PLUGINS = ("cors", "openapi", "security_headers", "sessions")
# What the application does without where it is not guarded.
GUARDS = ("compression", "csrf")


@dataclass
class Stage:
    """Where an attack takes place.

    Attributes:
        app: the application that is attacked; all names are names of it.
        sites: the attacker's own server; likewise.
        guarded: whether the application has its guards.
    """

    browser: Browser
    sites: Sites
    app: Application
    guarded: bool

    def shop(self, path: str = "/") -> str:
        """The URL of a path of the application on its own site."""
        return self.app.url(SHOP, path)

    def visit(self, *paths: str) -> Page:
        """A page of the application, on which the user has been on those paths, one after the other."""
        page = self.browser.open()
        for path in paths:
            page.navigate(self.shop(path))
        return page

    def foreign(self, site: str, html: str = "", documents: int = 1) -> Page:
        """A page of a site that is not the application's, with that content."""
        page = self.browser.open()
        page.navigate(self.sites.page(site, html), documents)
        return page

    def fetched(self, page: Page, path: str, show: str = "response.status", **options: object) -> str:
        """What a script in a page gets to see when it fetches something from the application."""
        script = f"fetch({json.dumps(self.shop(path))}, {json.dumps(options)}).then(async response => {show})"
        return str(page.evaluate(f"{script}.then(String, error => 'refused by the browser')"))

    def ask(self, path: str, cookie: str = "") -> tuple[str, str]:
        """What somebody without a browser is answered who sends that cookie; and the cookie that is set."""
        context = ssl._create_unverified_context()
        connection = http.client.HTTPSConnection("127.0.0.1", self.app.port, timeout=PATIENCE, context=context)
        try:
            headers = {"host": f"{SHOP}:{self.app.port}", **({"cookie": cookie} if cookie else {})}
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            return response.read().decode(), response.getheader("set-cookie", "").partition(";")[0]
        finally:
            connection.close()


@dataclass(frozen=True)
class Check:
    """Something that is tried.

    Attributes:
        name: what it is.
        guard: what stands against it, or allows it.
        guarded: what comes of it with that.
        bare: what comes of it without.
    """

    name: str
    guard: str
    guarded: str
    bare: str
    run: Callable[[Stage], str]

    def expected(self, guarded: bool) -> str:
        """What has to come of it."""
        return self.guarded if guarded else self.bare


CHECKS: list[Check] = []


def check(name: str, guard: str, *, guarded: str, bare: str) -> Callable[[Callable[[Stage], str]], None]:
    """Add a check; the function returns what came of it."""

    def add(run: Callable[[Stage], str]) -> None:
        CHECKS.append(Check(name, guard, guarded, bare, run))

    return add


@contextmanager
def served(
    folder: Path, certificate: Certificate, sites: Sites, *, guarded: bool, server: str = "uvicorn"
) -> Iterator[Application]:
    """The application, with its guards or without."""
    origins = [sites.origin(CLIENT)] if guarded else [sites.origin(CLIENT), sites.origin(EVIL)]
    settings = SETTINGS.format(
        secret="no secret, but long enough to be one, 0123456789",
        enabled=", ".join(json.dumps(name) for name in (*PLUGINS, *(GUARDS if guarded else ()))),
        origins=", ".join(json.dumps(origin) for origin in origins),
    )
    folder.mkdir(exist_ok=True)
    (folder / "covet.toml").write_text(
        settings + (GUARDED.format(client=sites.origin(CLIENT)) if guarded else BARE), encoding="utf-8"
    )
    with serve(folder, certificate, modules=MODULES, server=server) as application:
        yield application
    # What attacks and browsers do is the application's error nowhere but where it means it.
    assert application.printed.count("Traceback") == application.printed.count("RuntimeError: broken")
