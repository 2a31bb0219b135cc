"""Sessions and cache in PostgreSQL beside Django's: operations per second, one after the other and many at once.

The peers take turns in every round, so that a shared, noisy machine distorts no ratio. Each has tables of its own in
the same server, filled with as many rows before it begins.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec
from tests.services import postgresql

from benchmarks import evidence
from covet.cache import CacheManager
from covet.sessions import StoredSession
from covet_orm.cache import DatabaseCache
from covet_orm.databases import Database
from covet_orm.sessions import DatabaseSessionStore

ABOUT = """
`covet` is `CacheManager` over `DatabaseCache`, and `DatabaseSessionStore`, with a pool of {connections} connections in
one event loop; `covet_unlogged` has its cache in an UNLOGGED table. `django` is its database cache and its session
engine `django.contrib.sessions.backends.db`, over psycopg with persistent connections (`CONN_MAX_AGE`), as its
documentation advises; called from {connections} threads where many are at once.

The cache holds {rows:,} values of 200 bytes before it begins, which both may keep; keys are the same for all. Values of
the cache are encoded by each in its own way: msgspec here, pickle there. A session is a dictionary of one text; here it
is MessagePack, there JSON with a signature.

The server is PostgreSQL 15 on the same machine{durable}. Of {rounds} interleaved rounds of {count:,} calls the median
is shown.
"""
DISTRIBUTIONS = ["covet-orm", "asyncpg", "django", "psycopg"]
LIFETIME = 1000.0
VALUE = {"id": 42, "name": "Ada Lovelace", "text": "x" * 160}
OPERATIONS = ("cache get", "cache get, missing", "cache get 20", "cache set", "cache add", "cache incr", "cache delete",
              "session load", "session save", "session create")  # fmt: skip

Run = Callable[[str, int, bool], Awaitable[float]]


class Covet:
    """Covet's stores, and how each operation is done."""

    def __init__(self, database: Database, *, unlogged: bool) -> None:
        name = "unlogged" if unlogged else "logged"
        self.backend = DatabaseCache(database, table=f"cache_{name}", create_table=True, unlogged=unlogged)
        self.cache = CacheManager(backend=self.backend, ttl=LIFETIME, jitter=0.0)
        self.store = DatabaseSessionStore(database, table="sessions", create_table=True)
        self.sessions: list[bytes] = []
        self.versions: list[int] = []

    async def prepare(self, rows: int, sessions: int) -> None:
        """Fill the tables."""
        for begin in range(0, rows, 1000):
            await self.cache.set_many({f"key-{number}": VALUE for number in range(begin, begin + 1000)})
        self.sessions = [os.urandom(32) for _ in range(sessions)]
        self.versions = [1] * sessions
        for key in self.sessions:
            await self.store.create(key, self._session(1), time.time())

    def _session(self, version: int) -> StoredSession:
        now = time.time()
        return StoredSession(
            values=msgspec.msgpack.encode({"values": "x" * 200}),
            version=version,
            user="user-17",
            created=now,
            authenticated=now,
            seen=now,
            expires=now + 1e6,
        )

    async def one(self, operation: str, number: int) -> None:
        """One operation."""
        if operation == "cache get":
            assert await self.cache.get(f"key-{number}") is not None
        elif operation == "cache get, missing":
            await self.cache.get(f"missing-{number}")
        elif operation == "cache get 20":
            await self.cache.get_many([f"key-{each}" for each in range(number, number + 20)])
        elif operation == "cache set":
            await self.cache.set(f"key-{number}", VALUE)
        elif operation == "cache add":
            await self.cache.add(f"new-{number}-{os.urandom(4).hex()}", VALUE)
        elif operation == "cache incr":
            await self.cache.incr(f"counter-{number % 100}")
        elif operation == "cache delete":
            await self.cache.delete(f"new-{number}")
        elif operation == "session load":
            found = await self.store.load(self.sessions[number % len(self.sessions)], time.time())
            assert found is not None
            msgspec.msgpack.decode(found.values)
        elif operation == "session save":
            place = number % len(self.sessions)
            version = self.versions[place]
            self.versions[place] += 1
            await self.store.replace(self.sessions[place], self._session(version + 1), version, time.time())
        else:
            await self.store.create(os.urandom(32), self._session(1), time.time())

    async def run(self, operation: str, numbers: list[int], connections: int) -> float:
        """Seconds that it took, `connections` at once."""
        left = iter(numbers)

        async def work() -> None:
            for number in left:
                await self.one(operation, number)

        began = time.perf_counter()
        if connections == 1:
            await work()
        else:
            await asyncio.gather(*(work() for _ in range(connections)))
        return time.perf_counter() - began


class Django:
    """Django's cache and sessions, set up once in a process."""

    def __init__(self, url: str, connections: int) -> None:
        import django
        from django.conf import settings

        parts = urlsplit(url)
        settings.configure(
            SECRET_KEY="k" * 50,
            INSTALLED_APPS=["django.contrib.sessions"],
            SESSION_ENGINE="django.contrib.sessions.backends.db",
            DATABASES={
                "default": {
                    "ENGINE": "django.db.backends.postgresql",
                    "NAME": unquote(parts.path[1:]),
                    "USER": unquote(parts.username or ""),
                    "PASSWORD": unquote(parts.password or ""),
                    "HOST": parts.hostname,
                    "PORT": parts.port,
                    "CONN_MAX_AGE": None,
                }
            },
            CACHES={
                "default": {
                    "BACKEND": "django.core.cache.backends.db.DatabaseCache",
                    "LOCATION": "django_cache",
                    "TIMEOUT": LIFETIME,
                    "OPTIONS": {"MAX_ENTRIES": 10_000_000},
                }
            },
            USE_TZ=True,
        )
        django.setup()
        self.threads = ThreadPoolExecutor(connections)
        self.sessions: list[str] = []

    def prepare(self, rows: int, sessions: int) -> None:
        """Make the tables, and fill them."""
        from django.contrib.sessions.backends.db import SessionStore
        from django.core.cache import cache
        from django.core.management import call_command
        from django.db import transaction

        call_command("migrate", verbosity=0)
        call_command("createcachetable", verbosity=0)
        with transaction.atomic():
            for number in range(rows):
                cache.set(f"key-{number}", VALUE)
            for number in range(100):
                cache.set(f"counter-{number}", 0)
            for _ in range(sessions):
                session = SessionStore()
                session["values"] = "x" * 200
                session.create()
                session.save()
                self.sessions.append(str(session.session_key))

    def one(self, operation: str, number: int) -> None:
        """One operation."""
        from django.contrib.sessions.backends.db import SessionStore
        from django.core.cache import cache

        if operation == "cache get":
            assert cache.get(f"key-{number}") is not None
        elif operation == "cache get, missing":
            cache.get(f"missing-{number}")
        elif operation == "cache get 20":
            cache.get_many([f"key-{each}" for each in range(number, number + 20)])
        elif operation == "cache set":
            cache.set(f"key-{number}", VALUE)
        elif operation == "cache add":
            cache.add(f"new-{number}-{os.urandom(4).hex()}", VALUE)
        elif operation == "cache incr":
            cache.incr(f"counter-{number % 100}")
        elif operation == "cache delete":
            cache.delete(f"new-{number}")
        elif operation == "session load":
            SessionStore(self.sessions[number % len(self.sessions)]).load()
        elif operation == "session save":
            session = SessionStore(self.sessions[number % len(self.sessions)])
            session._session_cache = {"values": "x" * 200}  # loaded already, as in a request
            session.save()
        else:
            session = SessionStore()
            session["values"] = "x" * 200
            session.save(must_create=True)

    async def run(self, operation: str, numbers: list[int], connections: int) -> float:
        """Seconds that it took, in `connections` threads."""

        def work(share: list[int]) -> None:
            for number in share:
                self.one(operation, number)

        loop = asyncio.get_running_loop()
        began = time.perf_counter()
        await asyncio.gather(
            *(loop.run_in_executor(self.threads, work, numbers[each::connections]) for each in range(connections))
        )
        return time.perf_counter() - began

    def close(self) -> None:
        """Close the connections of all threads."""
        from django.db import connections

        for _ in range(100):
            self.threads.submit(connections.close_all)
        self.threads.shutdown()
        connections.close_all()


async def measure(url: str, rounds: int, count: int, rows: int, connections: int) -> dict[str, str]:
    """The tables: one at a time, and many at once."""
    django = Django(url, connections)
    await asyncio.to_thread(django.prepare, rows, 1000)
    async with Database(url, max_size=connections) as database:
        peers: dict[str, Any] = {
            "covet": Covet(database, unlogged=False),
            "covet_unlogged": Covet(database, unlogged=True),
            "django": django,
        }
        for peer in (peers["covet"], peers["covet_unlogged"]):
            await peer.prepare(rows, 1000)
        tables: dict[str, str] = {}
        for together in (1, connections):
            taken: dict[tuple[str, str], list[float]] = {}
            for round_ in range(rounds):
                for operation in OPERATIONS:
                    numbers = [(number * 7919 + round_ * 104_729) % (rows - 20) for number in range(count)]
                    for name, peer in peers.items():
                        if name == "covet_unlogged" and operation.startswith("session"):
                            continue
                        gc.collect()
                        seconds = await peer.run(operation, numbers, together)
                        taken.setdefault((operation, name), []).append(count / seconds)
            lines = []
            for operation in OPERATIONS:
                rates = {name: median(taken[operation, name]) for name in peers if (operation, name) in taken}
                cells = [f"{rates[name]:,.0f}" if name in rates else "" for name in peers]
                lines.append([operation, *cells, f"{rates['covet'] / rates['django']:.1f}"])
            title = "One after the other" if together == 1 else f"{together} at once"
            tables[title] = evidence.table(["operations per second", *peers, "covet / django"], lines)
    await asyncio.to_thread(django.close)
    return tables


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench -- orm_cache", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--connections", type=int, default=10)
    parser.add_argument(
        "--durable", action="store_true", help="let the server flush each commit to disk, as in production"
    )
    chosen = parser.parse_args()
    with postgresql.run(15, postgresql.DURABLE if chosen.durable else None) as server:
        url = server.create_database("bench")
        sections = asyncio.run(measure(url, chosen.rounds, chosen.count, chosen.rows, chosen.connections))
    about = ABOUT.format(
        rounds=chosen.rounds,
        count=chosen.count,
        rows=chosen.rows,
        connections=chosen.connections,
        durable=", and flushes each commit to disk" if chosen.durable else ", without fsync",
    )
    evidence.write("orm_cache", "Sessions and cache in PostgreSQL", about, DISTRIBUTIONS, sections)


if __name__ == "__main__":
    main()
