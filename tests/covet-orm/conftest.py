"""Fixtures of the tests of covet-orm: real databases."""

from __future__ import annotations

from tests.services.fixtures import anyio_backend, databases, mariadb, postgresql, server, url

__all__ = ["anyio_backend", "databases", "mariadb", "postgresql", "server", "url"]
