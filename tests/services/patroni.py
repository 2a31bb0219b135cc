"""A cluster of PostgreSQL 15 that chooses its primary by itself: Debian's Patroni on three nodes, and etcd.

    with patroni.run() as cluster:
        leader = cluster.leader()
        leader.kill()
        cluster.wait_leader(other_than=leader)

A failed leader is replaced when its key in etcd has run out, 20 seconds after its last sign of life, the least that
Patroni allows. For proofs; a cluster takes some seconds to start.
"""

from __future__ import annotations

import contextlib
import json
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from tests.services.postgresql import FAST, PASSWORD, USER, remove_shared_memory, segment_of
from tests.services.processes import Server, ServiceError, free_port, release_port, wait_until
from tests.services.programs import require

__all__ = ["Cluster", "Etcd", "Node", "run"]

PATIENCE = 120.0
SCOPE = "covet"


class Etcd(Server):
    """An etcd of one member."""

    farewell = signal.SIGKILL

    def __init__(self) -> None:
        self.program = require("etcd")
        super().__init__("etcd")
        self.peer_port = free_port()

    def command(self) -> Sequence[str | Path]:
        """With data that is not synchronized to the disk."""
        client, peer = f"http://{self.host}:{self.port}", f"http://{self.host}:{self.peer_port}"
        return [
            self.program, "--name", "etcd", "--data-dir", self.folder / "data", "--unsafe-no-fsync",
            "--listen-client-urls", client, "--advertise-client-urls", client,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"etcd={peer}",
        ]  # fmt: skip

    def ready(self) -> bool:
        """It says that it is healthy."""
        answer = _request(f"http://{self.host}:{self.port}/health")
        return answer is not None and answer[1].get("health") == "true"

    def close(self) -> None:
        """Stop it, and remove its files. Idempotent."""
        super().close()
        release_port(self.peer_port)


class Node(Server):
    """A Patroni with its PostgreSQL. `kill` kills both, as the end of a machine would.

    Args:
        name: of the node.
        etcd: where the nodes agree.
        synchronous: whether a commit waits for a replica, and only such a replica is promoted.

    Attributes:
        port: that of PostgreSQL.
        api: the URL of Patroni's own interface (https://patroni.readthedocs.io/en/latest/rest_api.html).
    """

    kind = "postgresql"

    def __init__(self, name: str, etcd: Etcd, *, synchronous: bool = False) -> None:
        self.program = require("patroni")
        self.programs = Path(require("postgres")).parent
        super().__init__(name)
        self.etcd = etcd
        self.synchronous = synchronous
        self.api_port = free_port()
        self.api = f"http://{self.host}:{self.api_port}"
        self.data = self.folder / "data"

    def command(self) -> Sequence[str | Path]:
        """Writes its settings: JSON, which is YAML as well."""
        path = self.folder / "patroni.yml"
        path.write_text(json.dumps(self._settings(), indent=1), encoding="utf-8")
        path.chmod(0o644)
        return [self.program, path]

    def _settings(self) -> dict[str, object]:
        where, account = f"{self.host}:{self.port}", {"username": USER, "password": PASSWORD}
        # The log of the server among Patroni's own.
        own = {"unix_socket_directories": str(self.folder), "dynamic_shared_memory_type": "mmap"}
        # Not without full_page_writes, from which pg_rewind takes what a former primary has to forget.
        shared = ("fsync", "shared_buffers", "max_wal_size", "jit", "timezone", "log_timezone")
        return {
            "scope": SCOPE,
            "name": self.name,
            "restapi": {"listen": f"{self.host}:{self.api_port}", "connect_address": f"{self.host}:{self.api_port}"},
            "etcd3": {"hosts": [f"{self.etcd.host}:{self.etcd.port}"]},
            "bootstrap": {
                "dcs": {
                    "ttl": 20, "loop_wait": 2, "retry_timeout": 3,
                    "synchronous_mode": self.synchronous, "synchronous_mode_strict": self.synchronous,
                    "postgresql": {
                        "use_pg_rewind": True,
                        "parameters": {
                            "max_connections": 100, "max_prepared_transactions": 50, "wal_log_hints": "on",
                            "wal_keep_size": "256MB",
                        },
                    },
                },
                "initdb": [{"encoding": "UTF8"}, {"locale": "C.UTF-8"}, "no-sync"],
            },
            "postgresql": {
                "listen": where, "connect_address": where, "data_dir": str(self.data), "bin_dir": str(self.programs),
                "pgpass": str(self.folder / "pgpass"),
                "authentication": {"superuser": account, "replication": account, "rewind": account},
                "parameters": {**{name: FAST[name] for name in shared}, **own},
                "pg_hba": [
                    "local all all trust", "local replication all trust",
                    "host all all 127.0.0.1/32 md5", "host replication all 127.0.0.1/32 md5",
                ],
            },
            "watchdog": {"mode": "off"},
        }  # fmt: skip

    def ready(self) -> bool:
        """Its PostgreSQL takes connections."""
        answer = _request(f"{self.api}/readiness")
        return answer is not None and answer[0] == 200

    def state(self) -> Mapping[str, Any]:
        """What Patroni tells of itself: `role`, `state`, `timeline` and others; nothing where it does not answer."""
        answer = _request(f"{self.api}/patroni")
        return {} if answer is None else answer[1]

    def leads(self) -> bool:
        """Whether it is the primary, and has the key that says so."""
        answer = _request(f"{self.api}/primary")
        return answer is not None and answer[0] == 200

    def can_lead(self) -> bool:
        """Whether it is a replica; where replication is synchronous, the one that commits wait for."""
        answer = _request(f"{self.api}/{'synchronous' if self.synchronous else 'replica'}")
        return answer is not None and answer[0] == 200

    def url(self, database: str = "postgres") -> str:
        """The URL of a database on this node."""
        return f"postgresql://{USER}:{PASSWORD}@{self.host}:{self.port}/{quote(database, safe='')}"

    def close(self) -> None:
        """Stop it, and remove its files. Idempotent."""
        segment = segment_of(self.data)
        super().close()
        release_port(self.api_port)
        if segment is not None:
            remove_shared_memory(segment)


class Cluster:
    """An etcd and nodes; a context manager that starts and ends them.

    Args:
        size: how many nodes.
        synchronous: whether a commit waits for a replica, and only such a replica is promoted.
    """

    def __init__(self, size: int = 3, *, synchronous: bool = False) -> None:
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            self.etcd = stack.enter_context(Etcd())
            self.nodes = [
                stack.enter_context(Node(f"node{number}", self.etcd, synchronous=synchronous))
                for number in range(1, size + 1)
            ]
            self._stack = stack.pop_all()

    def start(self) -> Self:
        """Start all; return when there is a leader and the others have caught up with it."""
        self.etcd.start()
        self.nodes[0].start()
        self.wait_leader()
        with ThreadPoolExecutor() as threads:
            list(threads.map(Node.start, self.nodes[1:]))
        wait_until(lambda: len(self.replicas()) == len(self.nodes) - 1, "all follow", PATIENCE)
        for replica in self.replicas():
            self.catch_up(replica)
        return self

    def leader(self) -> Node | None:
        """The node that leads, if one does."""
        return next((node for node in self.nodes if node.leads()), None)

    def replicas(self) -> list[Node]:
        """The nodes that replicate."""
        return [node for node in self.nodes if (_request(f"{node.api}/replica") or (0,))[0] == 200]

    def wait_leader(self, *, other_than: Node | None = None) -> Node:
        """The node that leads, once one does, other than a given one.

        Raises:
            ServiceError: none does in time.
        """

        def found() -> Node | None:
            leader = self.leader()
            return None if leader is other_than else leader

        leader = wait_until(found, "a node leads", PATIENCE)
        assert leader is not None
        return leader

    def wait_candidate(self) -> Node:
        """A node that could lead next, once there is one.

        Raises:
            ServiceError: there is none in time.
        """
        node = wait_until(
            lambda: next((node for node in self.nodes if node.can_lead()), None), "a node could lead", PATIENCE
        )
        assert node is not None
        return node

    def catch_up(self, replica: Node) -> None:
        """Wait until a node has applied what the leader has written so far; Patroni promotes none that lags.

        Raises:
            ServiceError: it does not in time.
        """
        written = self.wait_leader().state()["xlog"]["location"]
        wait_until(
            lambda: replica.state().get("xlog", {}).get("replayed_location", 0) >= written,
            f"{replica.name} has caught up",
            PATIENCE,
        )

    def switch_over(self, to: Node) -> None:
        """Make another node the leader, in good order; return when it is.

        Raises:
            ServiceError: it was refused, or did not happen in time.
        """
        leader = self.wait_leader()
        self.catch_up(to)
        body = {"leader": leader.name, "candidate": to.name}
        answer = _request(f"{leader.api}/switchover", body, timeout=PATIENCE)
        if answer is None or answer[0] not in (200, 202):
            raise ServiceError(f"the switchover to {to.name} failed: {answer}: {leader.log_tail()}")
        wait_until(to.leads, f"{to.name} leads", PATIENCE)

    def close(self) -> None:
        """End all. Idempotent."""
        # One by one in good order, the cluster would choose another leader each time.
        for node in self.nodes:
            with contextlib.suppress(ServiceError):
                node.kill()
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def run(size: int = 3, *, synchronous: bool = False) -> Iterator[Cluster]:
    """A running cluster while the context lasts; skips the test, or fails it in CI, where a program is missing."""
    with Cluster(size, synchronous=synchronous) as cluster:
        yield cluster.start()


def _request(url: str, body: object = None, timeout: float = 5.0) -> tuple[int, dict[str, Any]] | None:
    """Status and JSON of an answer; None where nobody answers."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    try:
        # Whatever proxy the environment names is none for this machine.
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=timeout) as answer:
            return answer.status, _json(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, _json(error.read())
    except OSError:
        return None


def _json(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = text.decode(errors="replace")
    return found if isinstance(found, dict) else {"message": found}
