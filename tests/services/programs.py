"""The real programs that tests and benchmarks need and that no wheel brings: which are here, and how to get the rest.

    python tests/services/programs.py            # install what is missing when root, else say how
    python tests/services/programs.py --check    # only look
    python tests/services/programs.py --go-on    # as without, quietly; to miss some is an error in CI alone

Needs nothing but the standard library, and asks nobody anything while nothing is missing. Exits with 1 while something
is. A test asks for a program by `require`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn


@dataclass(frozen=True)
class Program:
    """A program.

    Attributes:
        command: what it is called on the PATH.
        package: the Debian package that brings it.
        needed_by: what does not work without it.
        folder: where it is when not on the PATH, or when another version of it may be there.
    """

    command: str
    package: str
    needed_by: str
    folder: str = ""


PROGRAMS = (
    Program("brotli", "brotli", "tests of compression"),
    Program("chromium", "chromium", "tests in a browser"),
    Program("curl", "curl", "tests of compression"),
    Program("etcd", "etcd-server", "the proof of failover"),
    Program("gzip", "gzip", "tests of compression"),
    Program("mariadb-install-db", "mariadb-server", "tests on MariaDB"),
    Program("mariadbd", "mariadb-server", "tests on MariaDB"),
    Program("nginx", "nginx", "tests behind a reverse proxy"),
    Program("patroni", "patroni", "the proof of failover"),
    Program("pgbouncer", "pgbouncer", "tests behind PgBouncer"),
    Program("postgres", "postgresql-15", "tests on PostgreSQL 15", folder="/usr/lib/postgresql/15/bin"),
    Program("wrk", "wrk", "nox -s bench -- sockets"),
    Program("zstd", "zstd", "tests of compression"),
)

# Debian keeps servers where the PATH of most users does not look; dpkg needs these folders as well.
SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
# Asked by Debian's packages before they start what they install; 101 stands for no.
START_POLICY = Path("/usr/sbin/policy-rc.d")
# The folder itself is locked, which hinders nobody else: dpkg locks a file in it.
LOCK = Path("/var/lib/dpkg")
LOCK_SECONDS = 600


class MissingProgramError(Exception):
    """Something is missing that no test asked for; the message says the line to type."""


def search_path() -> str:
    """The PATH, with the folders of the system behind it."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), *SYSTEM_FOLDERS])


def find(command: str) -> str | None:
    """The path of a program, or None where it is missing."""
    folders = [program.folder for program in PROGRAMS if program.command == command and program.folder]
    return shutil.which(command, path=os.pathsep.join(folders) or search_path())


def require(command: str) -> str:
    """The path of a program that a test needs.

    Without it the test fails in CI (the environment variable `CI` is set), and is skipped elsewhere; both say the line
    to type.

    Raises:
        LookupError: it is none of `PROGRAMS`.
        MissingProgramError: it is missing, and no test is running.
    """
    programs = [program for program in PROGRAMS if program.command == command]
    if not programs:
        raise LookupError(f"{command!r} is none of PROGRAMS in {__file__}: add it there")
    found = find(command)
    if found is None:
        lack(f"{command} is missing: {how_to_install(programs)}")
    return found


def lack(message: str) -> NoReturn:
    """Fail the test that is running in CI, skip it elsewhere, because what it needs is missing.

    Raises:
        MissingProgramError: no test is running.
    """
    # Set by pytest around each part of a test; what runs a server for itself has no use for its exceptions.
    if "PYTEST_CURRENT_TEST" not in os.environ:
        raise MissingProgramError(message)
    import pytest

    if in_ci():
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def in_ci() -> bool:
    """Whether this is no developer's machine, so that nothing may be left out."""
    return bool(os.environ.get("CI"))


def missing() -> list[Program]:
    """The programs that are not here."""
    return [program for program in PROGRAMS if find(program.command) is None]


def how_to_install(programs: Sequence[Program]) -> str:
    """The line to type for programs."""
    packages = " ".join(dict.fromkeys(program.package for program in programs))
    return f"sudo apt-get install --no-install-recommends {packages}"


def may_install() -> bool:
    """Whether this process is allowed to, and knows how."""
    return hasattr(os, "geteuid") and os.geteuid() == 0 and find("apt-get") is not None


def install() -> None:
    """Install what is missing with apt-get, as root; what went wrong is told.

    Two that do so at once wait for each other, and the second one finds that there is nothing left to do.
    """
    with _alone():
        programs = missing()
        if not programs:
            return
        packages = list(dict.fromkeys(program.package for program in programs))
        print(f"installing {' '.join(packages)} with apt-get", flush=True)
        # Without the mode, an update that reached nobody counts as a success; what was known before may still do.
        if not _apt_get("update", "-o", "APT::Update::Error-Mode=any"):
            print("apt-get update failed: the package lists may be old", flush=True)
        with _nothing_started():
            if not _apt_get("install", "-y", "--no-install-recommends", *packages):
                print("apt-get install failed", flush=True)


def _apt_get(*arguments: str) -> bool:
    """Whether apt-get did it; what it printed is shown where it did not."""
    done = subprocess.run(
        ["apt-get", "-qq", "-o", f"DPkg::Lock::Timeout={LOCK_SECONDS}", *arguments],
        env={**os.environ, "PATH": search_path(), "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode:
        print(done.stdout.decode(errors="replace").strip(), flush=True)
    return done.returncode == 0


@contextmanager
def _alone() -> Iterator[None]:
    # Not there on every system; those that have apt-get have it.
    import fcntl

    # apt-get waits for the lock of dpkg, and for no other.
    lock = os.open(LOCK, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


@contextmanager
def _nothing_started() -> Iterator[None]:
    """Let packages start no service: a program is wanted, not one that takes port 80."""
    if START_POLICY.exists() or not START_POLICY.parent.is_dir():
        yield
        return
    START_POLICY.write_text("#!/bin/sh\nexit 101\n", encoding="ascii")
    START_POLICY.chmod(0o755)
    try:
        yield
    finally:
        START_POLICY.unlink(missing_ok=True)


def main(arguments: list[str]) -> int:
    """Do what the arguments say; the exit code."""
    quiet = "--go-on" in arguments
    lacking = missing()
    if lacking and "--check" not in arguments and may_install():
        install()
        lacking = missing()
    if not quiet:
        for program in PROGRAMS:
            state = "missing" if program in lacking else find(program.command)
            print(f"{program.command:10} {state}  (for {program.needed_by})")
    if lacking:
        if quiet:
            print("missing:", ", ".join(f"{program.command} (for {program.needed_by})" for program in lacking))
        print(f"To get what is missing: {how_to_install(lacking)}")
    return 1 if lacking and (in_ci() or not quiet) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
