"""The conformance kits: which promise each wrong backend breaks, and that the kit catches it.

For each promise of a backend's protocol, which is one test of its kit, there is at least one backend that breaks it and
little else. A row says that this test fails for that backend. The builtin backends, and others that are right, pass the
whole kit.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from benchmarks import evidence
from tests.builtin import ROOT, TESTS

KITS = {
    "session stores": "test_sessions_kit.py",
    "caches": "test_cache_conformance.py",
    "pub/sub": "test_conformance_pubsub.py",
    "object stores": "test_conformance_objects.py",
    "secret providers": "test_conformance_secrets.py",
    "storages": "test_conformance_storage.py",
}
WRONG = ("caught", "fails_the_kit")


def outcomes(file: str) -> list[ElementTree.Element]:
    """Every test of a file, as pytest reports it.

    Raises:
        AssertionError: one failed, or none ran.
    """
    with tempfile.TemporaryDirectory(prefix="kits-") as temporary:
        report = Path(temporary, "report.xml")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
        done = subprocess.run([*command, str(TESTS / file)], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
        return list(ElementTree.parse(report).iter("testcase"))


def broken_promises(file: str, cases: list[ElementTree.Element]) -> list[tuple[str, str]]:
    """The wrong backends of a file, each with the test that failed for it."""
    found = []
    for case in cases:
        name, _, parameters = case.attrib["name"].partition("[")
        if not name.endswith(WRONG):
            continue
        backend, _, promise = parameters.rstrip("]").partition("-")
        found.append((backend, promise or _promise(file, backend)))
    return found


def _promise(file: str, backend: str) -> str:
    """The test that catches a backend, where the name of the test that shows it does not tell."""
    if file == "test_cache_conformance.py":
        from tests.wrong_cache_backends import WRONG as CACHES

        return next(test for kind, test in CACHES.items() if kind.__name__ == backend)
    import importlib.util

    spec = importlib.util.spec_from_file_location("kit_of_sessions", TESTS / file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return next(test for kind, test in module.WRONG if kind.__name__ == backend)


def main() -> None:
    counts, sections = [], {}
    for kit, file in KITS.items():
        cases = outcomes(file)
        wrong = broken_promises(file, cases)
        assert wrong, f"{file}: no wrong backend was tried"
        counts.append([kit, len({promise for _, promise in wrong}), len({backend for backend, _ in wrong}), len(wrong)])
        sections[f"Wrong {kit}"] = evidence.table(
            ["backend", "promise that it breaks: the kit's test that fails"],
            [[f"`{backend}`", f"`{promise}`"] for backend, promise in wrong],
        )
        print(f"# {kit}: {len(wrong)} caught", flush=True)
    evidence.write(
        "conformance",
        "Conformance kits",
        __doc__ or "",
        ["covet-core", "pytest", "hypothesis"],
        {
            "Kits": evidence.table(["kit", "promises", "wrong backends", "caught"], counts),
            **sections,
        },
        session="proof",
    )


if __name__ == "__main__":
    main()
