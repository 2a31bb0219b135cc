"""Models, queries and the query builder, on any of the databases:

python examples/orm/quickstart.py sqlite://
python examples/orm/quickstart.py postgresql://user:password@localhost/name
python examples/orm/quickstart.py mariadb://user:password@localhost/name
"""

from __future__ import annotations

import asyncio
import sys

from covet_orm import BooleanField, CharField, Database, EmailField, Model, QueryBuilder, UniqueViolation


class User(Model):
    username = CharField(max_length=100, unique=True)
    email = EmailField(unique=True)
    active = BooleanField(default=True)

    class Meta:
        db_table = "users"


async def main(url: str) -> None:
    async with Database(url) as db:
        await db.create_all()
        alice = await User.objects.create(username="alice", email="alice@example.com")
        print("created", alice.username, "with the key", alice.id)

        try:
            await User.objects.create(username="alice", email="other@example.com")
        except UniqueViolation as error:
            print("refused:", type(error).__name__, "of", ", ".join(error.fields))

        print("found", [user.email for user in await User.objects.filter(User.active == True)])  # noqa: E712

        query = QueryBuilder("users").select("*").where("active", "=", True)
        print(*query.build())
        print("fetched", [row["username"] for row in await query.fetch_all(db)])
        await db.drop_all()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "sqlite://"))
