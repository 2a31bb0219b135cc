"""How the programs that tests need get onto a machine; apt-get is a script of the test's own here."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests.services import programs
from tests.services.programs import Program

ROOT = Path(__file__).parent.parent.parent

APT_GET = """#!/bin/sh
echo "$@" >> {folder}/calls
echo "$PATH $DEBIAN_FRONTEND" > {folder}/environment
ls {folder}/policy > {folder}/policy-was 2>&1
case "$@" in
*update*) test ! -e {folder}/offline || {{ echo "E: Failed to fetch"; exit 100; }};;
*install*)
    test ! -e {folder}/empty || {{ echo "E: Unable to locate package"; exit 100; }}
    sleep 0.1
    for last; do printf '#!/bin/sh\\n' > {folder}/system/$last; chmod 755 {folder}/system/$last; done;;
esac
"""


class Machine:
    """A machine with `here` and, below the system's folders, what was installed; `gone` is missing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("bin", "system"):
            (folder / name).mkdir()
        self.write("bin/here", "#!/bin/sh\n")
        self.write("bin/apt-get", APT_GET.format(folder=folder))

    def write(self, name: str, text: str = "") -> None:
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)

    def read(self, name: str) -> str:
        path = self.folder / name
        return path.read_text(encoding="utf-8") if path.exists() else ""

    @property
    def calls(self) -> list[str]:
        """What apt-get was asked for, without its options."""
        found = []
        for line in self.read("calls").splitlines():
            words = line.split()
            found.append(" ".join(word for word in words[words.index("-qq") :] if word[0] != "-" and "::" not in word))
        return found


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    monkeypatch.setattr(programs, "PROGRAMS", (Program("here", "here", "this"), Program("gone", "gone", "that")))
    monkeypatch.setattr(programs, "SYSTEM_FOLDERS", (str(tmp_path / "system"),))
    monkeypatch.setattr(programs, "LOCK", tmp_path / "system")
    monkeypatch.setattr(programs, "START_POLICY", tmp_path / "policy")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.defpath}")
    monkeypatch.delenv("CI", raising=False)
    return made


def test_what_is_missing_is_installed(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    assert programs.main(["--go-on"]) == 0
    assert machine.calls == ["update", "install gone"]
    assert capsys.readouterr().out == "installing gone with apt-get\n"
    path, frontend = machine.read("environment").split()
    assert path.endswith(str(machine.folder / "system")), "dpkg finds what it needs"
    assert frontend == "noninteractive"
    assert programs.find("gone") == str(machine.folder / "system" / "gone")


def test_apt_get_is_not_called_while_nothing_is_missing(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.write("system/gone", "#!/bin/sh\n")
    assert programs.main(["--go-on"]) == 0
    assert capsys.readouterr().out == ""
    assert programs.main([]) == 0
    assert "gone" in capsys.readouterr().out
    assert machine.calls == []


def test_only_root_installs(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert programs.main(["--go-on"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "missing: gone (for that)",
        "To get what is missing: sudo apt-get install --no-install-recommends gone",
    ]
    assert programs.main([]) == 1
    assert machine.calls == []


def test_check_only_looks(machine: Machine) -> None:
    assert programs.main(["--check"]) == 1
    assert machine.calls == []


def test_old_package_lists_may_do(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.write("offline")
    assert programs.main(["--go-on"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "installing gone with apt-get",
        "E: Failed to fetch",
        "apt-get update failed: the package lists may be old",
    ]
    assert programs.find("gone")


def test_what_cannot_be_had_is_told_and_an_error_in_ci_alone(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.write("offline")
    machine.write("empty")
    assert programs.main(["--go-on"]) == 0
    assert capsys.readouterr().out.splitlines()[3:] == [
        "E: Unable to locate package",
        "apt-get install failed",
        "missing: gone (for that)",
        "To get what is missing: sudo apt-get install --no-install-recommends gone",
    ]
    assert programs.main([]) == 1
    monkeypatch.setenv("CI", "true")
    assert programs.main(["--go-on"]) == 1


def test_nothing_that_is_installed_starts_a_service(machine: Machine) -> None:
    machine.write("empty")
    programs.main(["--go-on"])
    assert machine.read("policy-was").strip() == str(machine.folder / "policy")
    assert not (machine.folder / "policy").exists(), "though it failed"
    machine.write("policy", "the administrator's")
    programs.main(["--go-on"])
    assert machine.read("policy") == "the administrator's"


def test_two_at_once_install_once(machine: Machine) -> None:
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(programs.main(["--go-on"]))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [0] * 4
    assert machine.calls == ["update", "install gone"]


def test_a_test_that_lacks_a_program_is_skipped_and_fails_in_ci(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert programs.require("here") == str(machine.folder / "bin" / "here")
    line = "gone is missing: sudo apt-get install --no-install-recommends gone"
    with pytest.raises(pytest.skip.Exception) as skipped:
        programs.require("gone")
    assert skipped.value.msg == line
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception) as failed:
        programs.require("gone")
    assert failed.value.msg == line
    with pytest.raises(LookupError, match="'typo' is none of PROGRAMS"):
        programs.require("typo")


def test_it_needs_nothing_but_the_interpreter() -> None:
    command = [sys.executable, "-I", "-S", str(ROOT / "tests" / "services" / "programs.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (0, 1), done.stderr
    assert not done.stderr
    names = [line.split()[0] for line in done.stdout.splitlines()]
    assert names[: len(programs.PROGRAMS)] == [program.command for program in programs.PROGRAMS]
