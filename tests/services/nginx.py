"""Debian's nginx as a reverse proxy of a test's own: in a folder of its own, on free ports, ended with its context."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.services.programs import require

if TYPE_CHECKING:
    from tests.services.browser import Certificate

__all__ = ["Nginx", "Site", "run"]

PATIENCE = 30.0

# One process and no daemon, so that it ends when it is told to, and writes nowhere but into its folder.
CONFIGURATION = """
daemon off;
master_process off;
pid {folder}/pid;
error_log stderr warn;
worker_processes 1;
events {{ worker_connections 512; }}
http {{
    access_log off;
    default_type text/plain;
    client_body_temp_path {folder}/client_body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {common}
    {servers}
}}
"""


@dataclass(frozen=True)
class Site:
    """A site that nginx serves on a port of its own.

    Attributes:
        body: what stands in its `server` block, without `listen`.
        certificate: it speaks TLS with this one; None for plain HTTP.
    """

    body: str
    certificate: Certificate | None = None

    def block(self, port: int) -> str:
        """Its part of the configuration."""
        tls = ""
        if self.certificate is not None:
            tls = f"ssl_certificate {self.certificate.chain}; ssl_certificate_key {self.certificate.key};"
        return f"server {{ listen 127.0.0.1:{port}{' ssl' if tls else ''}; {tls}\n{self.body}\n}}\n"


@dataclass(frozen=True)
class Nginx:
    """A running nginx.

    Attributes:
        ports: those of the sites, in their order.
        log: what it printed.
    """

    ports: tuple[int, ...]
    log: Path


@contextlib.contextmanager
def run(folder: Path, sites: Sequence[Site], common: str = "") -> Iterator[Nginx]:
    """Serve sites while the context lasts; skips the test, or fails it in CI, where nginx is missing.

    Args:
        folder: an empty folder.
        sites: what is served.
        common: directives outside of the sites, such as a `map`.
    """
    program = require("nginx")
    ports = _free_ports(len(sites))
    servers = "".join(site.block(port) for site, port in zip(sites, ports, strict=True))
    (folder / "nginx.conf").write_text(CONFIGURATION.format(folder=folder, common=common, servers=servers))
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        for port in ports:
            _wait_for(port, process, log)
        yield Nginx(tuple(ports), log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0, log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in found]


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        else:
            return
