"""The real programs that tests and benchmarks need and that no wheel brings: which are here, and how to get the rest.

    python tests/services/programs.py            # install what is missing when root, else say how
    python tests/services/programs.py --check    # only look

Needs nothing but the standard library. Exits with 1 while something is missing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Program:
    """A program.

    Attributes:
        command: what it is called on the PATH.
        package: the Debian package that brings it.
        needed_by: what does not work without it.
    """

    command: str
    package: str
    needed_by: str


PROGRAMS = (Program("wrk", "wrk", "nox -s bench -- sockets"),)


def missing() -> list[Program]:
    """The programs that are not on the PATH."""
    return [program for program in PROGRAMS if shutil.which(program.command) is None]


def install(programs: list[Program]) -> None:
    """Install programs with apt-get, as root."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    packages = [program.package for program in programs]
    subprocess.run(["apt-get", "update", "-qq"], env=environment, check=True)
    subprocess.run(
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages], env=environment, check=True
    )


def main(arguments: list[str]) -> int:
    lacking = missing()
    may_install = hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get") is not None
    if lacking and may_install and "--check" not in arguments:
        install(lacking)
        lacking = missing()
    for program in PROGRAMS:
        state = "missing" if program in lacking else shutil.which(program.command)
        print(f"{program.command:10} {state}  (for {program.needed_by})")
    if lacking:
        packages = " ".join(program.package for program in lacking)
        print(f"To get what is missing: sudo apt-get install --no-install-recommends {packages}")
    return 1 if lacking else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
