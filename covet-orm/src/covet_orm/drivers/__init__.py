"""The drivers: asyncpg, aiomysql and aiosqlite behind one small protocol."""
