"""Two served applications, and what two tools that are not ours find in their OpenAPI documents.

openapi-spec-validator checks the document against the specification; schemathesis makes requests of it, some that fit
and some that do not, sends them to the server, and checks that each is answered as the document says: status, content
type, schema, refusal of what does not fit, `Allow`, no 500. One application is the demo; the other,
`tests/everything.py`, has every kind of parameter, body and response.

Three of schemathesis's expectations are turned off, since HTTP has no room for them or nobody else meets them either:

- NUL characters: they fit any schema of text, and are refused everywhere, with 400.
- Unknown members of query, headers and cookies: the document lists what is known, and the rest is ignored.
- Forms that do not fit: their fields are text on the wire, so a number in place of a text cannot be told from its
  digits, nor an empty list from a field that is absent. Forms that fit are sent.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import evidence
from openapi_spec_validator import OpenAPIV31SpecValidator

ROOT = Path(__file__).parent.parent.parent
APPLICATIONS = (("examples/packages", "app:app"), ("tests", "everything:app"))
EXAMPLES = 200
SEED = 1
START_TIMEOUT = 60.0
TIMEOUT = 3600.0

FORMS = r"^/(form|upload)"
# The configuration of schemathesis, as a table.
CONFIGURATION: dict[str, Any] = {"generation": {"allow-x00": False, "allow-extra-parameters": False}}
FILE = f"""
[generation]
{"".join(f"{name} = {str(value).lower()}" + chr(10) for name, value in CONFIGURATION["generation"].items())}
[[operations]]
include-path-regex = '{FORMS}'
checks.negative_data_rejection.enabled = false
"""


@dataclass
class Outcome:
    """What was found in one application."""

    application: str
    report: dict[str, Any]
    faults: list[str]

    @property
    def failed(self) -> bool:
        """Whether there is anything wrong, or the run did not come to its end."""
        report = self.report
        return bool(
            self.faults or report["failures"] or report["errors"] or report["exit_code"] or not report["complete"]
        )

    def row(self) -> list[object]:
        """The outcome as a row of the table."""
        operations, cases = self.report["operations"], self.report["test_cases"]
        return [
            self.application, len(self.faults), f"{operations['tested']} of {operations['total']}", cases["generated"],
            len(self.report["failures"]), len(self.report["errors"]),
        ]  # fmt: skip


@contextmanager
def served(folder: str, target: str) -> Iterator[str]:
    """The URL of an application that `covet run` serves while the context lasts."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVET_")}
    command = [sys.executable, "-m", "covet", "run", target, "--port", str(port)]
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(command, cwd=ROOT / folder, env=environment, stdout=log, stderr=log)
        try:
            _wait(server, url)
            yield url
        finally:
            server.terminate()
            server.wait(30)
            log.seek(0)
            errors = [line for line in log.read().decode().splitlines() if "Traceback" in line]
            assert not errors, f"the server of {folder} logged {errors}"


def _wait(server: subprocess.Popen[bytes], url: str) -> None:
    until = time.monotonic() + START_TIMEOUT
    while True:
        try:
            fetch(url)
        except (urllib.error.URLError, ConnectionError):
            assert server.poll() is None, f"the server ended with {server.returncode}"
            assert time.monotonic() < until, "the server does not answer"
            time.sleep(0.2)
        else:
            return


def fetch(url: str) -> dict[str, Any]:
    """The document as it is served."""
    with urllib.request.urlopen(f"{url}/openapi.json", timeout=30) as response:
        document: dict[str, Any] = json.load(response)
        return document


def attack(url: str, arguments: list[str]) -> dict[str, Any]:
    """The report of a run of schemathesis; what it prints goes to the terminal."""
    program = shutil.which("schemathesis", path=str(Path(sys.executable).parent))
    assert program, "schemathesis is not installed: it is in the dependency group `tests`"
    with tempfile.TemporaryDirectory(prefix="openapi-") as directory:
        configuration, report = Path(directory, "schemathesis.toml"), Path(directory, "report.json")
        configuration.write_text(FILE, encoding="utf-8")
        subprocess.run(
            [
                program, "--config-file", str(configuration), "run", f"{url}/openapi.json",
                "--phases", "examples,coverage,fuzzing,stateful", "--max-examples", str(EXAMPLES), "--seed", str(SEED),
                "--generation-database", "none", "--warnings", "off", "--continue-on-failure", "--no-color",
                "--report-json-path", str(report), *arguments,
            ],
            cwd=directory,
            timeout=TIMEOUT,
        )  # fmt: skip
        found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
        return found


def main() -> None:
    outcomes = []
    for folder, target in APPLICATIONS:
        with served(folder, target) as url:
            faults = [error.message for error in OpenAPIV31SpecValidator(fetch(url)).iter_errors()]
            outcomes.append(Outcome(f"`{folder}` ({target})", attack(url, sys.argv[1:]), faults))
    head = ["application", "faults of the document", "operations tested", "requests", "failures", "errors"]
    phases = [
        [outcome.application, *(phase["status"] for phase in outcome.report["phases"].values())] for outcome in outcomes
    ]
    evidence.write(
        "openapi",
        "OpenAPI documents under attack",
        __doc__ or "",
        ["covet-core", "openapi-spec-validator", "schemathesis", "granian"],
        {
            "What was found": evidence.table(head, [outcome.row() for outcome in outcomes]),
            "The phases of schemathesis": evidence.table(
                ["application", *(outcomes[0].report["phases"] if outcomes else ())], phases
            ),
        },
        session="proof",
    )
    sys.exit(any(outcome.failed for outcome in outcomes))


if __name__ == "__main__":
    main()
