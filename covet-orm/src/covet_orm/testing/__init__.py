"""Testing applications that have databases: the fixtures `db` and `db_committed`, factories, counting queries, hooks
that wait for a commit, and named points at which something goes wrong (`covet_orm.testing.faultpoints`).

    class UserFactory(Factory[User]):
        username = Sequence(lambda n: f"user{n}")


    @pytest.mark.anyio
    async def test_users(db, covet_client):
        await UserFactory.create_batch(3)
        with assert_num_queries(1):
            assert len((await covet_client.get("/users")).json()) == 3

The fixtures come with the pytest plugin that this distribution registers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from covet_orm.testing.commits import capture_on_commit as capture_on_commit
    from covet_orm.testing.databases import TestingDatabase as TestingDatabase
    from covet_orm.testing.factories import Derived as Derived
    from covet_orm.testing.factories import Factory as Factory
    from covet_orm.testing.factories import Sequence as Sequence
    from covet_orm.testing.factories import SubFactory as SubFactory
    from covet_orm.testing.queries import assert_num_queries as assert_num_queries
    from covet_orm.testing.queries import captured_queries as captured_queries

__all__ = [
    "Derived",
    "Factory",
    "Sequence",
    "SubFactory",
    "TestingDatabase",
    "assert_num_queries",
    "capture_on_commit",
    "captured_queries",
]

MODULES = {
    "TestingDatabase": "databases",
    "assert_num_queries": "queries",
    "capture_on_commit": "commits",
    "captured_queries": "queries",
}


def __getattr__(name: str) -> object:
    # The pytest plugin imports this package in every test run, also in those without a database.
    if name not in __all__:
        raise AttributeError(f"module 'covet_orm.testing' has no attribute {name!r}")
    from importlib import import_module

    module = import_module(f"covet_orm.testing.{MODULES.get(name, 'factories')}")
    found: object = getattr(module, name)
    return found
