"""The short form of the proof `fresh_clone`: what its commands find, without what they fetch."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from tests.proofs import fresh_clone

ROOT = Path(__file__).parent.parent.parent


def run(command: str) -> list[str]:
    trial = fresh_clone.Trial(command, "a command")
    trial.run()
    assert trial.status == 0, trial.output
    return trial.output.splitlines()


def test_a_command_finds_a_clean_clone_and_python_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVET_SERVER__PORT", "1")
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.example/simple")
    lines = run("env; ls -a; python3 -m venv .venv && .venv/bin/python -m pip list --format freeze")
    variables = dict(line.split("=", 1) for line in lines if re.match(r"[A-Z_]+=", line))
    assert "COVET_SERVER__PORT" not in variables
    assert variables["PIP_INDEX_URL"] == "https://index.example/simple"
    assert variables["HOME"] == ".../home"
    assert {"README.md", "covet-core"} <= set(lines)
    assert ".nox" not in lines
    installed = {line.partition("==")[0] for line in lines if "==" in line}
    assert installed <= {"pip", "setuptools"}


def test_the_interpreter_is_not_that_of_an_environment() -> None:
    (prefixes,) = run("python3 -c 'import sys; print(sys.prefix == sys.base_prefix)'")
    assert prefixes == "True"


def test_what_the_commands_are_to_install_must_not_be_there(tmp_path: Path) -> None:
    fresh_clone.check_absent(str(tmp_path), set())
    fresh_clone.write_program(tmp_path / "nox", sys.executable)
    with pytest.raises(SystemExit, match="nox would be used"):
        fresh_clone.check_absent(str(tmp_path), set())


def test_a_report_says_nothing_of_this_machine() -> None:
    trial = fresh_clone.Trial("", "")
    trial.output = "Looking in links: /somewhere\n  Downloading https://index.example/x.whl\nWARNING: file:///x\ndone\n"
    assert trial.report() == "```text\ndone\n```"


def test_the_commands_stand_in_a_page() -> None:
    paths = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]
    pages = "".join(path.read_text(encoding="utf-8") for path in paths)
    for commands in (fresh_clone.COMMANDS, fresh_clone.UV_COMMANDS, fresh_clone.INSTALLATIONS):
        for command in commands.strip().splitlines():
            assert f"$ {command}\n" in pages, f"no page has {command}"
