"""What pages of other sites try on an application, and what a real browser lets them do.

Debian's Chromium, without a window but otherwise as users have it, visits the shop of `tests/integration/shop` over
HTTPS, and pages of other sites that attack it. Each attack is tried on the guarded application, and on the same
application without the guard, where it has to succeed: an attack that fails there would show nothing. What is permitted
has to work with the guards and without.

- Guarded: the plugins `csrf`, `cors` for one origin, `security_headers` with `profile = "strict"`, `compression`,
  cookies and sessions as Covet sets them.
- Without: no `csrf`, no `compression`, `cors` for the attacker as well, every security header off, a policy that only
  reports, cookies and sessions set carelessly.

Every round has a new browser with an empty profile and new servers.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from benchmarks import evidence
from tests.integration.attacks import CHECKS
from tests.integration.stage import Check, Stage, served
from tests.services.browser import BrowserError, launch
from tests.services.https import Certificate, Sites
from tests.services.programs import find, how_to_install, missing

SERVERS = ("uvicorn", "granian")
ROUNDS = 3

Outcomes = dict[tuple[str, str, bool], Counter[str]]


def play(server: str, outcomes: Outcomes) -> tuple[str, str]:
    """Try everything once with a new browser; what came of it is counted.

    Returns: the browser's name and version, and the protocol that it spoke with the server.
    """
    program = find("chromium")
    if program is None:
        wanted = [program for program in missing() if program.command == "chromium"]
        sys.exit(f"chromium is missing: {how_to_install(wanted)}")
    with tempfile.TemporaryDirectory(prefix="browser-") as temporary, ExitStack() as stack:
        certificate = Certificate.make(Path(temporary))
        sites = Sites(certificate)
        stack.callback(sites.close)
        browser = stack.enter_context(launch(program, certificate))
        for guarded in (False, True):
            folder = Path(temporary, "guarded" if guarded else "bare")
            with served(folder, certificate, sites, guarded=guarded, server=server) as application:
                stage = Stage(browser, sites, application, guarded)
                for check in CHECKS:
                    browser.forget()
                    outcomes.setdefault((server, check.name, guarded), Counter())[_outcome(check, stage)] += 1
                protocol = stage.visit("/").evaluate("performance.getEntriesByType('navigation')[0].nextHopProtocol")
        return browser.version, protocol


def _outcome(check: Check, stage: Stage) -> str:
    try:
        return check.run(stage)
    except (BrowserError, AssertionError) as error:
        return f"failed: {error}"


def told(check: Check, guarded: bool, outcomes: Outcomes) -> str:
    """What came of a check, as a cell of the table; one outcome if it was always the same."""
    seen: Counter[str] = sum((outcomes[server, check.name, guarded] for server in SERVERS), Counter())
    cell = "; or ".join(seen) if len(seen) > 1 else next(iter(seen))
    return cell.replace("|", "\\|").replace("\n", " ")


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    outcomes: Outcomes = {}
    began = time.monotonic()
    version = ""
    protocols: dict[str, str] = {}
    for number in range(rounds):
        for server in SERVERS:
            version, protocols[server] = play(server, outcomes)
            print(f"# round {number + 1}, {server}: {time.monotonic() - began:.0f} s", flush=True)
    rows: list[list[object]] = []
    summary: list[list[object]] = []
    failed = 0
    for check in CHECKS:
        rows.append([check.name, check.guard, told(check, False, outcomes), told(check, True, outcomes)])
    for server in SERVERS:
        for guarded in (False, True):
            seen = [(check, outcomes[server, check.name, guarded]) for check in CHECKS]
            tries = sum(counter.total() for _, counter in seen)
            other = tries - sum(counter[check.expected(guarded)] for check, counter in seen)
            failed += other
            application = "with the guards" if guarded else "without"
            summary.append([server, protocols[server], application, len(CHECKS), tries, other])
    counted = ["server", "protocol", "application", "checks", "tries", "other outcomes"]
    evidence.write(
        "browser",
        "A browser on a guarded application, and on one that is not",
        f"{(__doc__ or '').strip()}\n\nThe browser calls itself {version}.",
        ["covet-core", "uvicorn", "granian", "websockets"],
        {
            "What came of it": evidence.table(["what is tried", "guard", "without", "with"], rows),
            "How often": evidence.table(counted, summary),
        },
        session="proof",
    )
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
