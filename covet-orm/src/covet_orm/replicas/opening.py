"""The pools of a database with replicas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from covet.exceptions import ConfigurationError
from covet_orm.drivers.protocol import Driver
from covet_orm.exceptions import NotSupported
from covet_orm.pool import Pool, PoolSettings
from covet_orm.replicas.routing import Primary, ReadRouter, Replica
from covet_orm.replicas.servers import MariaDBReplication, PostgreSQLReplication, Replication
from covet_orm.replicas.settings import ReplicaSettings
from covet_orm.replicas.watching import Watch
from covet_orm.urls import Target, driver_options, parse_url

if TYPE_CHECKING:
    from covet_orm.databases import Database

__all__ = ["Replicas", "ReplicatedServers"]

POOL_OPTIONS = PoolSettings.__struct_fields__


class Site(NamedTuple):
    """A replica, as it was configured."""

    name: str
    driver: Driver
    pool: PoolSettings
    weight: float


class Replicas:
    """The replicas of a database, as they were configured; what is made of them belongs to an event loop.

    Args:
        target: the primary.
        settings: where the replicas are, and when they are asked.
        pool: the settings of the primary's pool, which hold for the replicas' as well, unless their URLs say otherwise.
        options: those of its driver, likewise.

    Raises:
        ConfigurationError: a URL or an option is wrong; the database is one that has no replicas.
    """

    def __init__(
        self, target: Target, settings: ReplicaSettings, pool: PoolSettings, options: Mapping[str, Any]
    ) -> None:
        if target.kind == "sqlite":
            raise ConfigurationError(f"{target.redacted}: SQLite has no replicas; leave out read_replicas")
        self.settings = settings
        self._primary: Database | None = None
        weights = settings.replica_weights or (1.0,) * len(settings.read_replicas)
        given = {name: value for name, value in target.query.items() if name not in POOL_OPTIONS}
        self._sites = [
            _site(url, target, pool, {**given, **options}, weight)
            for url, weight in zip(settings.read_replicas, weights, strict=True)
        ]

    def primary_of(self, database: Database) -> Database:
        """The database without its replicas, the same one each time."""
        from covet_orm.replicas.primary import PrimaryDatabase

        if self._primary is None:
            self._primary = PrimaryDatabase.of(database)
        return self._primary

    async def open(self, alias: str, driver: Driver, settings: PoolSettings) -> ReplicatedServers:
        """The servers of this event loop, their pools open and the replicas checked.

        Raises:
            DatabaseUnavailable: the connections that the primary's pool begins with could not be made.
            NotSupported: the server is MySQL, whose GTIDs are others than MariaDB's.
        """
        replication = _replication(driver.kind)
        primary = Primary(alias, driver, replication, settings)
        replicas = [Replica(site.name, site.driver, replication, site.pool, alias, site.weight) for site in self._sites]
        router = ReadRouter(primary, replicas, replication, self.settings)
        servers = ReplicatedServers(router, Watch(router, driver))
        try:
            await primary.pool.open()
            for replica in replicas:
                await replica.pool.open()
            await servers.watch.start()
            # Tasks that are started from here on share the session of the one that opened the database.
            router.session()
        except BaseException:
            await servers.close()
            raise
        return servers


class ReplicatedServers:
    """A primary and its replicas, open in one event loop.

    Attributes:
        router: gives connections for reading.
        watch: checks the replicas.
    """

    def __init__(self, router: ReadRouter, watch: Watch) -> None:
        self.router = router
        self.watch = watch

    def pools(self) -> list[Pool]:
        """The pools of the replicas."""
        return [replica.pool for replica in self.router.replicas]

    async def close(self) -> None:
        """Close everything, the primary's pool included."""
        await self.watch.close()
        for pool in (*self.pools(), self.router.primary.pool):
            await pool.close()


def _replication(kind: str) -> Replication:
    if kind == "postgresql":
        return PostgreSQLReplication()
    if kind == "mariadb":
        return MariaDBReplication()
    raise NotSupported(
        "read_replicas are for PostgreSQL and MariaDB; a MariaDB server has a URL that begins with mariadb://"
    )


def _site(url: str, primary: Target, pool: PoolSettings, options: Mapping[str, Any], weight: float) -> Site:
    target = parse_url(url, others=POOL_OPTIONS)
    if target.kind != primary.kind:
        raise ConfigurationError(f"{target.redacted} is no replica of {primary.redacted}: it is of another kind")
    own_pool = {name: value for name, value in target.query.items() if name in POOL_OPTIONS}
    try:
        # A replica that is down keeps nobody from beginning.
        settings = msgspec.convert(
            {**msgspec.structs.asdict(pool), "min_size": 0, **own_pool}, PoolSettings, strict=False
        )
    except (msgspec.ValidationError, ValueError) as error:
        raise ConfigurationError(f"{target.redacted}: {error}") from None
    inherited = {name: value for name, value in options.items() if name not in target.query}
    # It is for the primary, and a replica is none of what it asks for.
    inherited.pop("target_session_attrs", None)
    return Site(", ".join(map(str, target.hosts)), _driver(target, inherited), settings, weight)


def _driver(target: Target, options: Mapping[str, Any]) -> Driver:
    if target.kind == "postgresql":
        from covet_orm.drivers.postgresql import PostgreSQLDriver

        return PostgreSQLDriver(target, driver_options(target, options), writes=False)  # type: ignore[arg-type]
    from covet_orm.drivers.mysql import MySQLDriver

    return MySQLDriver(target, driver_options(target, options), writes=False)  # type: ignore[arg-type]
