"""Debian's Chromium, driven over the Chrome DevTools Protocol (https://chromedevtools.github.io/devtools-protocol/).

The browser is a real one, without a window: it has cookies, sites, origins, policies and a console as users' browsers
have them. Every name under `.example` is this machine for it, and no other name exists, so that one port is as many
sites as a test wants: `shop.example` and `evil.example` are two, `shop.example` and `users.shop.example` are one.

Everything ends with its context. The browser is spoken to over a pipe, so it also ends when this process is killed, and
nobody else can speak to it.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeVar, cast
from urllib.parse import urlsplit

from tests.services.https import PATIENCE, Certificate

T = TypeVar("T")

FLAGS = (
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-sync",
    "--metrics-recording-only",
    "--password-store=basic",
    "--remote-debugging-pipe",
    "--host-resolver-rules=MAP *.example 127.0.0.1, MAP * ~NOTFOUND",
    "about:blank",
)
# Without this, the browser keeps cookies from third parties, which not all do: an attack is to have its best chance.
PREFERENCES = {"profile": {"cookie_controls_mode": 0, "block_third_party_cookies": False}}
# The protocol's pipe is descriptors 3 and 4.
START = 'exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null'


class BrowserError(Exception):
    """The browser refused a command, ended, or something did not happen in time."""


class ScriptError(BrowserError):
    """A script threw, in the page."""


@dataclass(frozen=True)
class Message:
    """What stands in the console.

    Attributes:
        level: `error`, `warning`, `info`, `log` and the like.
        source: `security`, `network`, `javascript`, `console-api` and others.
    """

    level: str
    source: str
    text: str


@dataclass
class _Session:
    """What was heard of a page."""

    messages: list[Message] = field(default_factory=list)
    loads: int = 0
    responses: dict[str, dict[str, str]] = field(default_factory=dict)


class Browser:
    """A running browser; all its pages share their cookies, as the tabs of a user do.

    Args:
        program: its path.
        certificate: the only one that it trusts beside those that the world does.
        profile: a folder that is made for what it keeps.

    Attributes:
        leader: the id of its process group.
        version: its name and version.
    """

    def __init__(self, program: str, certificate: Certificate, profile: Path) -> None:
        root = hasattr(os, "geteuid") and os.geteuid() == 0
        command = [
            "sh", "-c", START, program, *(["--no-sandbox"] if root else []),
            f"--user-data-dir={profile}", f"--ignore-certificate-errors-spki-list={certificate.fingerprint}", *FLAGS,
        ]  # fmt: skip
        (profile / "Default").mkdir(parents=True)
        (profile / "Default" / "Preferences").write_text(json.dumps(PREFERENCES), encoding="utf-8")
        self._log = profile.with_suffix(".log")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True
            )
        self.leader = self._process.pid
        self.profile = profile
        self._out = cast(IO[bytes], self._process.stdin)
        self._in = cast(IO[bytes], self._process.stdout)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._in, selectors.EVENT_READ)
        self._buffer = b""
        self._last = 0
        self._answers: dict[int, dict[str, Any]] = {}
        self._sessions: dict[str, _Session] = {}
        self._opened: list[Page] = []
        self._blank: Page | None = None
        try:
            self.version = str(self.send("Browser.getVersion")["product"])
        except BaseException:
            self.close()
            raise

    # The protocol

    def send(self, method: str, parameters: Mapping[str, object] | None = None, session: str = "") -> dict[str, Any]:
        """Send a command, and wait for its answer.

        Raises:
            BrowserError: the browser refused it, does not answer, or has ended.
        """
        self._last += 1
        number = self._last
        command: dict[str, object] = {"id": number, "method": method, "params": dict(parameters or {})}
        if session:
            command["sessionId"] = session
        try:
            self._out.write(json.dumps(command).encode() + b"\0")
            self._out.flush()
        except OSError as error:
            raise BrowserError(f"the browser is gone: {self._told()}") from error
        self.wait(lambda: number in self._answers, f"{method} is answered")
        answer = self._answers.pop(number)
        if "error" in answer:
            raise BrowserError(f"{method}: {answer['error'].get('message')}")
        result: dict[str, Any] = answer["result"]
        return result

    def wait(self, condition: Callable[[], T], what: str, patience: float = PATIENCE) -> T:
        """Hear what the browser says until something holds; that is returned.

        Raises:
            BrowserError: it does not in `patience` seconds.
        """
        deadline = time.monotonic() + patience
        while not (found := condition()):
            left = deadline - time.monotonic()
            if left <= 0:
                raise BrowserError(f"waited {patience:g} s in vain until {what}")
            # Not longer, for a condition may depend on more than what the browser says.
            self._hear(min(left, 0.05))
        return found

    def _hear(self, timeout: float) -> None:
        if not self._selector.select(timeout):
            return
        data = os.read(self._in.fileno(), 1 << 20)
        if not data:
            raise BrowserError(f"the browser ended: {self._told()}")
        *whole, self._buffer = (self._buffer + data).split(b"\0")
        for text in whole:
            message = json.loads(text)
            if "id" in message:
                self._answers[message["id"]] = message
            elif "sessionId" in message:
                self._note(message["sessionId"], message["method"], message["params"])

    def _note(self, name: str, method: str, said: dict[str, Any]) -> None:
        if (session := self._sessions.get(name)) is None:
            return
        if method == "Page.loadEventFired":
            session.loads += 1
        elif method == "Network.responseReceived":
            headers = {name.lower(): value for name, value in said["response"]["headers"].items()}
            session.responses[urlsplit(said["response"]["url"]).path] = headers
        elif method == "Log.entryAdded":
            entry = said["entry"]
            session.messages.append(Message(entry["level"], entry["source"], entry["text"]))
        elif method == "Runtime.consoleAPICalled":
            text = " ".join(str(value.get("value", value.get("description", ""))) for value in said["args"])
            session.messages.append(Message(said["type"], "console-api", text))
        elif method == "Runtime.exceptionThrown":
            session.messages.append(Message("error", "javascript", _thrown(said["exceptionDetails"])))

    def _told(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")[-2000:].strip() or "it printed nothing"

    # What tests do

    def open(self, url: str = "about:blank") -> Page:
        """Open a page, and wait until it has loaded."""
        if self._blank is None:
            target = self.send("Target.createTarget", {"url": "about:blank"})["targetId"]
            page = self.attach(target)
            self._opened.append(page)
        else:
            page, self._blank = self._blank, None
        if url != "about:blank":
            page.navigate(url)
        return page

    def targets(self, kind: str = "page") -> list[dict[str, Any]]:
        """What is open: each with `targetId`, `url` and `title`. `iframe` stands for frames of other sites."""
        found = self.send("Target.getTargets")["targetInfos"]
        return [target for target in found if target["type"] == kind]

    def attach(self, target: str) -> Page:
        """What is open, as a page."""
        session = str(self.send("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"])
        heard = self._sessions[session] = _Session()
        page = Page(self, target, session, heard)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.send(f"{domain}.enable")
        return page

    def forget(self) -> None:
        """Close all pages; forget all cookies and what was kept of responses."""
        page = self.open()
        for command in ("Network.clearBrowserCookies", "Network.clearBrowserCache"):
            page.send(command)
        for target in self.targets():
            if target["targetId"] != page.target:
                self.send("Target.closeTarget", {"targetId": target["targetId"]})
        self._sessions = {page.session: self._sessions[page.session]}
        self._opened = [page]
        self._blank = page

    def show(self, folder: Path) -> None:
        """Print where the pages are and what stands in their consoles, and take pictures of them into a folder."""
        for number, page in enumerate(self._opened):
            path = folder / f"page-{number}.png"
            page.screenshot(path)
            print(f"{page.url} ({path})", *page.messages, sep="\n  ")

    def close(self) -> None:
        """End the browser, all of its processes."""
        self._selector.close()
        for pipe in (self._out, self._in):
            with contextlib.suppress(OSError):
                pipe.close()
        # That alone ends it, in time to write its profile, which nobody wants.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.leader, signal.SIGKILL)
        self._process.wait()
        deadline = time.monotonic() + 2
        with contextlib.suppress(ProcessLookupError):
            while time.monotonic() < deadline:
                os.killpg(self.leader, 0)
                time.sleep(0.01)


class Page:
    """A page of the browser: a tab.

    Attributes:
        target: the browser's id of the tab.
    """

    def __init__(self, browser: Browser, target: str, session: str, heard: _Session) -> None:
        self.browser = browser
        self.target = target
        self.session = session
        self._heard = heard

    def send(self, method: str, parameters: Mapping[str, object] | None = None) -> dict[str, Any]:
        """Send a command that is for this page."""
        return self.browser.send(method, parameters, self.session)

    def navigate(self, url: str, documents: int = 1) -> None:
        """Go there as if the user had typed it, and wait until everything has loaded.

        Args:
            documents: how many are loaded by it: 2 for a page that goes on to another by itself.

        Raises:
            BrowserError: the browser could not, or was not let.
        """
        with self.loading(documents):
            answer = self.send("Page.navigate", {"url": url})
            if answer.get("errorText"):
                raise BrowserError(f"{url}: {answer['errorText']}")

    @contextlib.contextmanager
    def loading(self, documents: int = 1) -> Iterator[None]:
        """Wait, behind the context, until what was begun in it has loaded another document, or several."""
        wanted = self._heard.loads + documents
        yield
        self.browser.wait(lambda: self._heard.loads >= wanted, "a page has loaded")

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page; a promise is awaited.

        Raises:
            ScriptError: it threw.
        """
        answer = self.send(
            "Runtime.evaluate",
            {"expression": script, "awaitPromise": True, "returnByValue": True, "userGesture": True},
        )
        if "exceptionDetails" in answer:
            raise ScriptError(_thrown(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def until(self, script: str) -> Any:
        """Evaluate an expression until its value is true; that value."""
        return self.browser.wait(lambda: self.evaluate(script), f"{script} holds")

    def submit(self, selector: str = "form", values: Mapping[str, str] | None = None) -> None:
        """Fill fields of a form by their names, press its button, and wait for the page that comes."""
        with self.loading():
            self.evaluate(
                f"(() => {{ const form = document.querySelector({json.dumps(selector)});"
                f"for (const [name, value] of Object.entries({json.dumps(dict(values or {}))}))"
                "  form.elements[name].value = value;"
                "form.requestSubmit(); })()"
            )

    @property
    def url(self) -> str:
        return str(self.evaluate("location.href"))

    @property
    def status(self) -> int:
        """The status that the document was answered with."""
        return int(self.evaluate("performance.getEntriesByType('navigation')[0].responseStatus"))

    @property
    def text(self) -> str:
        """The text that is seen."""
        return str(self.evaluate("document.body ? document.body.innerText : ''"))

    @property
    def messages(self) -> list[Message]:
        """What stands in the console by now."""
        # Whatever was said before the answer to this has been heard with it.
        self.evaluate("0")
        return list(self._heard.messages)

    def headers(self, path: str) -> dict[str, str]:
        """The headers, by lower-case name, of what came last from a path."""
        self.evaluate("0")
        return self._heard.responses[path]

    def errors(self) -> list[str]:
        """The texts of errors and warnings in the console."""
        return [message.text for message in self.messages if message.level in ("error", "warning", "assert")]

    def frames(self) -> list[str]:
        """The texts of the frames of other sites, wherever they are; not of those that the browser refuses to show."""
        found = [self.browser.attach(target["targetId"]) for target in self.browser.targets("iframe")]
        return [frame.text for frame in found if not frame.url.startswith("chrome-error:")]

    def cookies(self) -> dict[str, dict[str, Any]]:
        """The cookies that the page's own site would be sent, by name, as the browser keeps them."""
        return {str(cookie["name"]): cookie for cookie in self.send("Network.getCookies")["cookies"]}

    def screenshot(self, path: Path) -> None:
        """Write what is seen into a file, as PNG."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", {"format": "png"})["data"]))


def _thrown(details: Mapping[str, Any]) -> str:
    exception = details.get("exception", {})
    return str(exception.get("description") or exception.get("value") or details.get("text"))


@contextlib.contextmanager
def launch(program: str, certificate: Certificate) -> Iterator[Browser]:
    """A browser with an empty profile, while the context lasts."""
    folder = Path(tempfile.mkdtemp(prefix="covet-browser-"))
    try:
        browser = Browser(program, certificate, folder / "profile")
        try:
            yield browser
        finally:
            browser.close()
    finally:
        # Its processes may write a last time while they are killed.
        shutil.rmtree(folder, ignore_errors=True)
