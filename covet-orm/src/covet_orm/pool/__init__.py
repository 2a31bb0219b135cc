"""The connection pool: one per event loop, the same for every driver.

pool = Pool(driver, PoolSettings(min_size=2, max_size=20))
await pool.open()
connection = pool.try_acquire() or await pool.acquire()
try:
    rows = await connection.fetch("SELECT 1")
finally:
    pool.release(connection)
await pool.close()
"""

from __future__ import annotations

from covet_orm.pool.connection_pool import Pool
from covet_orm.pool.records import Holder, PoolStats
from covet_orm.pool.settings import PoolSettings

__all__ = ["Holder", "Pool", "PoolSettings", "PoolStats"]
