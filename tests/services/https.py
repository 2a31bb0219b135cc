"""Servers over HTTPS on this machine, for a browser that takes every name under `.example` for it."""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import http.server
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PATIENCE = 30.0


# Certificates


@dataclass(frozen=True)
class Certificate:
    """A key and a certificate that it signed itself, for every name under `.example`, in files.

    Attributes:
        fingerprint: of the public key, in base64: by it the browser knows whom to trust, and nobody else.
    """

    key: Path
    chain: Path
    fingerprint: str

    @classmethod
    def make(cls, folder: Path) -> Certificate:
        """Make one in a folder."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
        now = datetime.datetime.now(datetime.UTC)
        names = [x509.DNSName(text) for text in ("*.example", "*.shop.example", "localhost")]
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=7))
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(key, hashes.SHA256())
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (folder / "key.pem").write_bytes(private)
        (folder / "key.pem").chmod(0o600)
        (folder / "chain.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
        return cls(
            folder / "key.pem", folder / "chain.pem", base64.b64encode(hashlib.sha256(public).digest()).decode("ascii")
        )


# Servers


class Sites:
    """Pages of the test's own on any site: an HTTPS server in this process that knows nothing of Covet."""

    def __init__(self, certificate: Certificate) -> None:
        self._pages: dict[str, tuple[str, str]] = {}
        pages = self._pages

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                content, kind = pages.get(self.path.partition("?")[0], ("", "text/plain"))
                body = content.encode()
                self.send_response(200 if content else 404)
                self.send_header("content-type", f"{kind}; charset=utf-8")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                return

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.chain, certificate.key)
        self._server = _Quiet(("127.0.0.1", 0), Handler)
        # The handshake is done by the thread of the connection, at its first read.
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def page(self, site: str, html: str) -> str:
        """The URL of a page on a site, with that content."""
        return self.file(site, f"<!doctype html><title>{site}</title><body>{html}", "text/html")

    def file(self, site: str, content: str, kind: str) -> str:
        """The URL of something on a site, and of what media type it is."""
        path = f"/{len(self._pages)}"
        self._pages[path] = (content, kind)
        return f"{self.origin(site)}{path}"

    def origin(self, site: str) -> str:
        """The origin of the pages on a site."""
        return f"https://{site}:{self.port}"

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Quiet(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        # Browsers open connections that they do not use, and drop them.
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@dataclass
class Application:
    """An application that is served over HTTPS.

    Attributes:
        log: what the server printed.
    """

    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def url(self, site: str, path: str = "/") -> str:
        """The URL of a path on a site."""
        return f"https://{site}:{self.port}{path}"

    @property
    def printed(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")


@contextlib.contextmanager
def serve(
    folder: Path, certificate: Certificate, *, modules: Path, target: str = "app:app", server: str = "uvicorn"
) -> Iterator[Application]:
    """Serve an application while the context lasts.

    Args:
        folder: where it runs; `covet.toml` in it are its settings.
        modules: where its modules are.
        server: `uvicorn`, or `granian`, which browsers speak HTTP/2 to.
    """
    log = folder / "server.log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVET_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(modules), *filter(None, [environment.get("PYTHONPATH")])])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        command = _COMMANDS[server](target, port, listener.fileno(), certificate)
        if server == "granian":
            # It takes no socket that is there.
            listener.close()
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["sh", "-c", _WATCHED, "sh", sys.executable, "-m", *command], cwd=folder, env=environment,
                stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True,
                pass_fds=[listener.fileno()] if server == "uvicorn" else [],
            )  # fmt: skip
    application = Application(port, process, log)
    try:
        _wait(lambda: _STARTED.search(application.printed) or process.poll() is not None, "the server starts")
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}: {application.printed}")
        yield application
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(PATIENCE)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


# It is told to end when the pipe is closed, be it because this process was killed.
_WATCHED = 'exec 3<&0; "$@" </dev/null & server=$!; (cat <&3; kill $server) >/dev/null 2>&1 & wait $server'
_STARTED = re.compile("Application startup complete|Started worker-1")


def _uvicorn(target: str, port: int, descriptor: int, certificate: Certificate) -> list[str]:
    return [
        "uvicorn", target, "--fd", str(descriptor), "--lifespan", "on", "--no-proxy-headers", "--no-server-header",
        "--timeout-graceful-shutdown", "1", "--ssl-keyfile", str(certificate.key),
        "--ssl-certfile", str(certificate.chain),
    ]  # fmt: skip


def _granian(target: str, port: int, descriptor: int, certificate: Certificate) -> list[str]:
    return [
        "granian", target, "--interface", "asgi", "--port", str(port), "--workers-kill-timeout", "1",
        "--ssl-keyfile", str(certificate.key), "--ssl-certificate", str(certificate.chain),
    ]  # fmt: skip


_COMMANDS = {"uvicorn": _uvicorn, "granian": _granian}


def _wait(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {PATIENCE:.0f} s in vain until {what}")
        time.sleep(0.02)
