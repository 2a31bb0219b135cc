"""The floor: the driver itself and its pool, rows as they come, no objects: asyncpg, aiosqlite, aiomysql."""

from __future__ import annotations

from typing import Any

from benchmarks.peers_orm import schema

SELECT = f"select {', '.join(schema.COLUMNS)} from bench_item"
INSERT = f"insert into bench_scratch ({', '.join(schema.FIELDS)}) values"
JOIN = "select b.id, b.title, b.author_id, a.id, a.name from bench_book b join bench_author a on a.id = b.author_id"


class Operations:
    """The operations, in terms of `query`, for those whose placeholders are `mark`."""

    mark = "?"

    async def query(self, sql: str, *values: Any) -> Any:
        raise NotImplementedError

    async def clear(self) -> None:
        await self.query("delete from bench_scratch")

    async def get(self, number: int) -> Any:
        return (await self.query(f"{SELECT} where id = {self.mark}", number + 1))[0]

    async def list100(self, number: int) -> Any:
        return await self.query(f"{SELECT} where id <= {self.mark}", 100)

    async def list10k(self, number: int) -> Any:
        return await self.query(SELECT)

    values10k = list10k

    async def update(self, number: int) -> Any:
        return await self.query(
            f"update bench_item set small = {self.mark} where id = {self.mark}", number % 97, number + 1
        )

    async def join1k(self, number: int) -> Any:
        return await self.query(JOIN)

    async def prefetch(self, number: int) -> Any:
        return (
            await self.query("select id, name from bench_author"),
            await self.query("select id, title, author_id from bench_book"),
        )

    async def count(self, number: int) -> Any:
        return (await self.query(f"select count(*) from bench_item where small < {self.mark}", 50))[0][0]

    def books(self, found: Any) -> dict[str, list[str]]:
        authors, books = found
        return {author[1]: [book[1] for book in books if book[2] == author[0]] for author in authors}


class AsyncpgPeer(Operations):
    """asyncpg; many rows by COPY."""

    one = f"{INSERT} ({', '.join(f'${place}' for place in range(1, len(schema.FIELDS) + 1))}) returning id"

    async def transaction(self, number: int) -> Any:
        async with self.pool.acquire() as connection, connection.transaction():
            await connection.fetch(self.one, *schema.item(number))

    async def nested(self, number: int) -> Any:
        async with self.pool.acquire() as connection, connection.transaction():
            await connection.fetch(self.one, *schema.item(number))
            async with connection.transaction():
                await connection.fetch(self.one, *schema.item(number))

    places = ", ".join(f"${number}" for number in range(1, len(schema.FIELDS) + 1))

    def __init__(self, url: str) -> None:
        self.url = url

    async def open(self) -> None:
        import asyncpg

        self.pool = await asyncpg.create_pool(self.url, min_size=2, max_size=schema.POOL_SIZE)

    async def close(self) -> None:
        await self.pool.close()

    async def query(self, sql: str, *values: Any) -> Any:
        async with self.pool.acquire() as connection:
            return await connection.fetch(sql, *values)

    async def get(self, number: int) -> Any:
        return (await self.query(f"{SELECT} where id = $1", number + 1))[0]

    async def list100(self, number: int) -> Any:
        return await self.query(f"{SELECT} where id <= $1", 100)

    async def insert(self, number: int) -> Any:
        return await self.query(f"{INSERT} ({self.places}) returning id", *schema.item(number))

    async def bulk10k(self, number: int) -> Any:
        rows = [schema.item(number) for number in range(schema.ITEMS)]
        async with self.pool.acquire() as connection:
            await connection.copy_records_to_table("bench_scratch", records=rows, columns=schema.FIELDS)

    async def update(self, number: int) -> Any:
        return await self.query("update bench_item set small = $1 where id = $2", number % 97, number + 1)

    async def count(self, number: int) -> Any:
        return (await self.query("select count(*) from bench_item where small < $1", 50))[0][0]


class AiosqlitePeer(Operations):
    """aiosqlite, one connection; many rows by `executemany`."""

    places = ", ".join("?" * len(schema.FIELDS))

    def __init__(self, url: str) -> None:
        self.url = url

    async def open(self) -> None:
        import aiosqlite

        self.connection = await aiosqlite.connect(schema.path_of(self.url), isolation_level=None)
        await self.connection.execute("pragma synchronous = normal")

    async def close(self) -> None:
        await self.connection.close()

    async def query(self, sql: str, *values: Any) -> Any:
        return await self.connection.execute_fetchall(sql, values)

    async def insert(self, number: int) -> Any:
        return await self.query(f"{INSERT} ({self.places}) returning id", *schema.storable(schema.item(number)))

    async def transaction(self, number: int) -> Any:
        await self.connection.execute("begin immediate")
        await self.insert(number)
        await self.connection.execute("commit")

    async def nested(self, number: int) -> Any:
        await self.connection.execute("begin immediate")
        await self.insert(number)
        await self.connection.execute("savepoint one")
        await self.insert(number)
        await self.connection.execute("release one")
        await self.connection.execute("commit")

    async def bulk10k(self, number: int) -> Any:
        rows = [schema.storable(schema.item(number)) for number in range(schema.ITEMS)]
        await self.connection.execute("begin")
        await self.connection.executemany(f"{INSERT} ({self.places})", rows)
        await self.connection.execute("commit")


class AiomysqlPeer(Operations):
    """aiomysql and its pool; many rows by `executemany`, which makes statements of many rows of them."""

    mark = "%s"
    places = ", ".join(["%s"] * len(schema.FIELDS))

    def __init__(self, url: str) -> None:
        self.url = url

    async def open(self) -> None:
        import aiomysql

        parts = schema.parts_of(self.url)
        parts["db"] = parts.pop("database")
        self.pool = await aiomysql.create_pool(minsize=2, maxsize=schema.POOL_SIZE, autocommit=True, **parts)

    async def close(self) -> None:
        self.pool.close()
        await self.pool.wait_closed()

    async def query(self, sql: str, *values: Any) -> Any:
        async with self.pool.acquire() as connection, connection.cursor() as cursor:
            await cursor.execute(sql, values)
            return await cursor.fetchall()

    async def insert(self, number: int) -> Any:
        async with self.pool.acquire() as connection, connection.cursor() as cursor:
            await cursor.execute(f"{INSERT} ({self.places})", schema.item(number))
            return cursor.lastrowid

    async def transaction(self, number: int) -> Any:
        async with self.pool.acquire() as connection, connection.cursor() as cursor:
            await connection.begin()
            await cursor.execute(f"{INSERT} ({self.places})", schema.item(number))
            await connection.commit()

    async def nested(self, number: int) -> Any:
        async with self.pool.acquire() as connection, connection.cursor() as cursor:
            await connection.begin()
            await cursor.execute(f"{INSERT} ({self.places})", schema.item(number))
            await cursor.execute("savepoint one")
            await cursor.execute(f"{INSERT} ({self.places})", schema.item(number))
            await cursor.execute("release savepoint one")
            await connection.commit()

    async def bulk10k(self, number: int) -> Any:
        rows = [schema.item(number) for number in range(schema.ITEMS)]
        async with self.pool.acquire() as connection, connection.cursor() as cursor:
            await connection.begin()
            await cursor.executemany(f"{INSERT} ({self.places})", rows)
            await connection.commit()


def Peer(url: str) -> Any:  # noqa: N802 - as the classes of the other modules
    """The peer for the database of a URL."""
    return {"postgresql": AsyncpgPeer, "sqlite": AiosqlitePeer, "mariadb": AiomysqlPeer}[schema.kind_of(url)](url)
