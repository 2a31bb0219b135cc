"""Serves this application with the real server, sends it requests over the network, and shows what it answers.

    nox -s demo

At a terminal, the application then stays up until Ctrl-C. The exit code is 0 when everything answered as it should.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any

import httpx
from covet.cli import print_table
from rich.console import Console

HERE = Path(__file__).parent
START_TIMEOUT = 60.0
STOP_TIMEOUT = 20.0
ANNOUNCED = re.compile(r"serves \S+ on (http://\S+)")
LOAD = 300


class DemoError(Exception):
    """Something did not answer as it should."""


# Showing


class Screen:
    """Where the walk-through is printed: with colours and rules at a terminal, as plain lines elsewhere."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
        self.steps = 0

    def step(self, title: str, text: str) -> None:
        """Begin a step."""
        self.steps += 1
        self.console.print()
        heading = f"{self.steps}. {title}"
        if self.console.is_terminal:
            self.console.rule(f"[bold]{heading}", align="left")
        else:
            self.console.print(heading, "-" * len(heading), sep="\n", markup=False)
        self.say(text)

    def say(self, text: str) -> None:
        """Print a sentence."""
        self.console.print(text, markup=False)
        sys.stdout.flush()

    def typed(self, command: str) -> None:
        """Print what one would type, or send, to get what follows."""
        self.console.print()
        self.console.print(command, style="bold cyan", markup=False, soft_wrap=True)

    def exchange(self, response: httpx.Response) -> None:
        """Print a request, and the status it was answered with."""
        request = response.request
        self.typed(f"{request.method} {request.url.raw_path.decode()}")
        length, kind = len(response.content), response.headers.get("content-type", "nothing")
        milliseconds = response.elapsed.total_seconds() * 1000
        self.say(f"{response.status_code} {response.reason_phrase}: {kind}, {length:,} bytes, {milliseconds:.1f} ms")

    def json(self, value: Any) -> None:
        """Print a JSON value."""
        self.console.print_json(data=value)


# Running


def environment() -> dict[str, str]:
    """The environment without settings of Covet that belong to something else."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVET_")}


def covet(screen: Screen, *arguments: str) -> None:
    """Run a command of the command line, and let it print.

    Raises:
        DemoError: it did not end with 0.
    """
    screen.typed(f"$ covet {' '.join(arguments)}")
    sys.stdout.flush()
    done = subprocess.run([sys.executable, "-m", "covet", *arguments], cwd=HERE, env=environment(), check=False)
    if done.returncode:
        raise DemoError(f"covet {' '.join(arguments)} ended with exit code {done.returncode}")


class Server:
    """`covet run` in a process of its own, for as long as the context lasts.

    Attributes:
        url: where it answers.
    """

    def __init__(self) -> None:
        self.url = ""
        self._log: list[str] = []

    def __enter__(self) -> Server:
        command = [sys.executable, "-m", "covet", "run", "--port", "0"]
        self.process = subprocess.Popen(
            command, cwd=HERE, env=environment(), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._log.append(line)

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                self._reader.join()
                raise DemoError(f"the server ended with exit code {self.process.returncode}:\n{self.log}")
            announced = ANNOUNCED.search(self.log)
            if announced is not None:
                self.url = announced[1].rstrip(";")
                try:
                    httpx.get(self.url, timeout=START_TIMEOUT, trust_env=False)
                    return
                except httpx.TransportError:
                    # It listens a moment after it says so.
                    pass
            time.sleep(0.05)
        raise DemoError(f"the server did not answer within {START_TIMEOUT:.0f} seconds:\n{self.log}")

    @property
    def log(self) -> str:
        """What it has logged."""
        return "".join(self._log)

    def stop(self) -> None:
        """Stop it, whatever it is doing.

        Raises:
            DemoError: it had to be killed.
        """
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise DemoError(f"the server did not stop within {STOP_TIMEOUT:.0f} seconds:\n{self.log}") from None


# The walk-through


class Page(HTMLParser):
    """What a browser would find in a page: its title and where its links lead."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.title = ""
        self.links: list[str] = []
        self._in_title = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_title = tag == "title"
        self.links += [value for name, value in attrs if tag == "a" and name == "href" and value]

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title += data

    def handle_endtag(self, tag: str) -> None:
        self._in_title = False


class Tour:
    """Sends the requests, checks the answers and shows them."""

    def __init__(self, screen: Screen, client: httpx.Client) -> None:
        self.screen = screen
        self.client = client

    def get(self, path: str, status: int = 200, **headers: str) -> httpx.Response:
        """Send a request and show what came back.

        Raises:
            DemoError: it was answered with another status.
        """
        response = self.client.get(path, headers=headers)
        self.screen.exchange(response)
        if response.status_code != status:
            raise DemoError(f"GET {path} was answered with {response.status_code}, not {status}:\n{response.text}")
        return response

    def pages(self) -> None:
        """Pages for people."""
        self.screen.step("Pages", "At the start it has read the metadata of everything that is installed here.")
        page = Page(self.get("/", accept="text/html").text)
        self.screen.say(f"The page is called {page.title!r}; {self._packages(page)} packages are linked from it.")
        style = self.get("/static/style.css")
        self.get("/packages/Covet_Core", 308)
        self.screen.say("Each package has one address; other spellings of its name are sent there.")
        page = Page(self.get("/packages/covet-core", accept="text/html").text)
        self.screen.say(f"{page.title!r} links to {self._packages(page)} packages that it requires or that require it.")
        again = self.client.get("/static/style.css", headers={"if-none-match": style.headers["etag"]})
        self.screen.exchange(again)
        if again.status_code != 304:
            raise DemoError(f"the style sheet is sent again to who has it: {again.status_code}")

    @staticmethod
    def _packages(page: Page) -> int:
        return len({link for link in page.links if link.startswith("/packages/")})

    def api(self) -> None:
        """JSON for programs."""
        self.screen.step("The JSON API", "The same for programs: typed, documented, page by page.")
        self.screen.json(self.get("/api/packages?query=async&limit=2").json())
        self.screen.json(self.get("/api/packages/pluggy").json())

    def refusals(self) -> None:
        """What it refuses, and how it says so."""
        self.screen.step("What it refuses", "Errors are problem documents (RFC 9457): a program reads what is wrong.")
        problem = self.get("/api/packages/covet-cor", 404).json()
        self.screen.json(problem)
        if "covet-core" not in problem["near"]:
            raise DemoError("the problem document does not name covet-core, which is near")
        problem = self.get("/api/packages?limit=many&offset=-1", 422).json()
        self.screen.json(problem)
        if len(problem["errors"]) != 2:
            raise DemoError("not both faults of the request are reported")

    def openapi(self) -> None:
        """What the API says of itself."""
        self.screen.step("Its documentation", "The OpenAPI document comes from the handlers' signatures.")
        document = self.get("/openapi.json").json()
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                self.screen.say(f"  {method.upper():6} {path:28} {operation.get('summary', '')}")
        self.get("/docs", accept="text/html")

    def timing(self, url: str) -> None:
        """What the third-party plugin adds."""
        self.screen.step(
            "A plugin at work",
            f"covet-timing, a distribution of its own, has timed every request. {LOAD} more, then its own command:",
        )
        names = [item["name"] for item in self.client.get("/api/packages?limit=20").raise_for_status().json()["items"]]
        began = time.perf_counter()
        for index in range(LOAD):
            path = f"/api/packages/{names[index % len(names)]}" if index % 3 else f"/?page={1 + index % 2}"
            self.client.get(path, follow_redirects=True).raise_for_status()
        seconds = time.perf_counter() - began
        self.screen.say(f"{LOAD} requests, one after the other, took {seconds:.2f} s.")
        header = self.get("/timing").headers["server-timing"]
        self.screen.say(f"Every response carries its time: server-timing: {header}")
        covet(self.screen, "timing", url)


def tour(screen: Screen, server: Server) -> None:
    """Walk through the application."""
    with httpx.Client(base_url=server.url, timeout=30, trust_env=False) as client:
        walk = Tour(screen, client)
        walk.pages()
        walk.api()
        walk.refusals()
        walk.openapi()
        walk.timing(server.url)


def main() -> int:
    """Run the demo; the exit code."""
    # Whoever ends the demo ends the server with it.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    screen = Screen()
    try:
        screen.step("Plugins", "Covet is a small kernel; the rest is plugins. In this environment:")
        covet(screen, "plugins", "list")
        screen.step("Serving", "The application is examples/packages/app.py, on the real server.")
        screen.typed("$ covet run --port 0")
        began = time.monotonic()
        with Server() as server:
            screen.say(f"It answers at {server.url}, {time.monotonic() - began:.1f} s later.")
            tour(screen, server)
            screen.console.print()
            print_table(["open", "what it is"], addresses(server.url))
            if sys.stdin.isatty() and sys.stdout.isatty():
                screen.say("\nEverything answered as it should. The application stays up: Ctrl-C ends it.")
                status = server.process.wait()
                raise DemoError(f"the server ended with exit code {status}:\n{server.log}")
        screen.say("\nEverything answered as it should. At a terminal the application would stay up; here it ends.")
    except KeyboardInterrupt:
        screen.say("\nStopped.")
    except DemoError as failure:
        sys.stdout.flush()
        print(f"\nThe demo failed: {failure}", file=sys.stderr)
        return 1
    return 0


def addresses(url: str) -> list[list[str]]:
    """What there is to see in a browser."""
    return [
        [f"{url}/", "the packages"],
        [f"{url}/docs", "the documentation of the API"],
        [f"{url}/timing", "the report of covet-timing"],
    ]


if __name__ == "__main__":
    sys.exit(main())
