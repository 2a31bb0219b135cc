"""A real browser on a real server: what it lets pages of other sites do, with each guard and without it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.attacks import CHECKS
from tests.integration.stage import SHOP, Check, Stage, served
from tests.services.browser import Browser, BrowserError, ScriptError, launch
from tests.services.https import Application, Certificate, Sites
from tests.services.programs import require


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate.make(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def chromium(certificate: Certificate) -> Iterator[Browser]:
    with launch(require("chromium"), certificate) as browser:
        yield browser


@pytest.fixture
def browser(chromium: Browser, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Browser]:
    """The browser, without pages and cookies; it is photographed when the test fails."""
    chromium.forget()
    failed = request.session.testsfailed
    yield chromium
    if request.session.testsfailed > failed:
        chromium.show(tmp_path)


@pytest.fixture(scope="module")
def sites(certificate: Certificate) -> Iterator[Sites]:
    made = Sites(certificate)
    yield made
    made.close()


@pytest.fixture(scope="module", params=[False, True], ids=["bare", "guarded"])
def guarded(request: pytest.FixtureRequest) -> bool:
    found: bool = request.param
    return found


@pytest.fixture(scope="module")
def application(
    guarded: bool, certificate: Certificate, sites: Sites, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Application]:
    with served(tmp_path_factory.mktemp("app"), certificate, sites, guarded=guarded) as application:
        yield application


@pytest.fixture
def stage(browser: Browser, sites: Sites, application: Application, guarded: bool) -> Stage:
    return Stage(browser, sites, application, guarded)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name.replace(" ", "_"))
def test_what_the_browser_lets_pages_do(stage: Stage, check: Check) -> None:
    assert check.run(stage) == check.expected(stage.guarded)


def test_a_session_from_the_first_visit_to_the_logout(stage: Stage) -> None:
    page = stage.visit("/visit", "/visit")
    assert page.text == "2"
    (first,) = page.cookies().values()
    assert {name: first[name] for name in ("name", "domain", "path", "secure", "httpOnly", "sameSite", "session")} == {
        "name": "__Host-session", "domain": SHOP, "path": "/", "secure": True, "httpOnly": True, "sameSite": "Lax",
        "session": True,
    }  # fmt: skip
    page.navigate(stage.shop("/login"))
    page.submit(values={"user": "ada"})
    assert page.text == "hello ada"
    (second,) = page.cookies().values()
    assert second["value"] != first["value"]
    another = stage.visit("/who")
    assert another.text == "ada"
    another.navigate(stage.shop("/visit"))
    assert another.text == "3", "what it remembers survives the login"
    assert stage.ask("/who", f"__Host-session={second['value']}") == ("ada", ""), "no cookie is set on a read"
    assert page.evaluate("fetch('/logout', {method: 'POST'}).then(response => response.text())") == "bye"
    assert page.cookies() == {}
    another.navigate(stage.shop("/who"))
    assert another.text == "nobody"


# The means of the tests


def group(leader: int) -> list[int]:
    """The processes of a process group that are alive."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().partition(" ")
        except (FileNotFoundError, ProcessLookupError):
            continue
        # proc(5): the state, the parent and the process group follow the command in parentheses.
        state, _, number = rest.rpartition(") ")[2].split()[:3]
        if int(number) == leader and state != "Z":
            found.append(int(name))
    return found


def check_gone(leader: int) -> None:
    deadline = time.monotonic() + 30
    while group(leader):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_nothing_is_left_of_a_browser(certificate: Certificate) -> None:
    with launch(require("chromium"), certificate) as browser:
        leader, profile = browser.leader, browser.profile
        assert len(group(leader)) > 1
        assert profile.is_dir()
    check_gone(leader)
    assert not profile.exists()


def test_browser_and_server_end_with_the_process_that_is_killed(certificate: Certificate, tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from tests.integration.stage import MODULES
from tests.services.browser import Browser
from tests.services.https import Certificate, serve

folder = Path(sys.argv[2])
(folder / "covet.toml").write_text("[plugins]\\nenable = ['csrf', 'sessions']\\n[app]\\nsecret_key = '%s'" % ("s" * 40))
certificate = Certificate.make(folder)
browser = Browser(sys.argv[1], certificate, folder / "profile")
with serve(folder, certificate, modules=MODULES) as server:
    print(browser.leader, server.process.pid, flush=True)
    os.kill(os.getpid(), 9)
"""
    root = str(Path(__file__).parent.parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", code, require("chromium"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": root}, stdout=subprocess.PIPE, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    for leader in done.stdout.split():
        check_gone(int(leader))


def test_what_the_browser_says_of_errors(browser: Browser, sites: Sites) -> None:
    page = browser.open(sites.page("evil.example", "<script>console.error('oh', 1); no.such()</script>hello"))
    assert page.text == "hello"
    assert page.errors() == ["oh 1", "ReferenceError: no is not defined\n    at " + page.url + ":1:81"]
    with pytest.raises(ScriptError, match="RangeError: far"):
        page.evaluate("Promise.reject(new RangeError('far'))")
    with pytest.raises(BrowserError, match="ERR_NAME_NOT_RESOLVED"):
        page.navigate("https://elsewhere.invalid/")
    with pytest.raises(BrowserError, match=r"No\.such"):
        page.send("No.such")
    with pytest.raises(BrowserError, match=r"waited 0\.1 s in vain until pigs fly"):
        browser.wait(lambda: False, "pigs fly", 0.1)


def test_only_the_certificate_of_the_tests_is_trusted(browser: Browser, tmp_path: Path) -> None:
    others = Sites(Certificate.make(tmp_path))
    try:
        with pytest.raises(BrowserError, match="ERR_CERT_AUTHORITY_INVALID"):
            browser.open(others.page("evil.example", "hello"))
    finally:
        others.close()
