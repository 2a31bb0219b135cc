"""What isolation each level gives on each database: the short form of the proof `orm_isolation`.

The interleavings of `tests.isolation.scenarios`, one for each anomaly, and random histories; both are judged by the
checker, and compared with what the documentation of each server promises.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.isolation.checker import Anomaly, check
from tests.isolation.configurations import CASES, CONFIGURATIONS, configured
from tests.isolation.histories import append, read
from tests.isolation.items import registry
from tests.isolation.promises import ALLOWED, may_occur
from tests.isolation.scenarios import COMMIT, SCENARIOS, Scenario, X, Y, play
from tests.isolation.workloads import tally
from tests.services.databases import Database as Server

from covet_orm import Database
from covet_orm.transactions.options import USUAL, IsolationLevel

pytestmark = pytest.mark.anyio
everywhere = pytest.mark.parametrize(("server", "promised", "level"), CASES, indirect=["server"])


@pytest.fixture
async def database(server: Server, promised: str) -> AsyncIterator[Database]:
    with configured(server, promised) as url:
        async with Database(url, max_size=9, acquire_timeout=30) as database:
            await database.create_all(registry)
            yield database
            assert all(pool.stats.in_use == 0 for pool in database.pools())


@everywhere
async def test_the_anomalies_one_by_one(database: Database, promised: str, level: IsolationLevel) -> None:
    """An interleaving for each; what occurs is what the database allows, no more and no less."""
    occurred = {}
    for scenario in SCENARIOS:
        played = await play(scenario, database, level)
        findings = check(played.history)
        assert {finding.anomaly for finding in findings} <= ALLOWED[promised][level], findings
        occurred[scenario.name] = played.outcome == "occurs"
        # What did not occur is not there for a reason.
        assert played.outcome != "prevented" or not any(one.error for one in played.history.transactions)
    assert occurred == {scenario.name: may_occur(scenario, promised, level) for scenario in SCENARIOS}


@everywhere
async def test_random_histories(database: Database, promised: str, level: IsolationLevel) -> None:
    """Nothing is found that the database does not allow, and all that it does."""
    allowed = ALLOWED[promised][level]
    found = await tally(database, level, 60 if allowed else 8, until=allowed or None)
    assert set(found.anomalies) == allowed, found.examples
    assert found.outcomes["committed"]


@pytest.mark.parametrize(("server", "promised"), CONFIGURATIONS, indirect=["server"])
async def test_the_level_of_a_block_that_asks_for_none(database: Database, promised: str) -> None:
    """It is the usual one of the database."""
    for scenario in SCENARIOS:
        played = await play(scenario, database, None)
        assert (played.outcome == "occurs") is may_occur(scenario, promised, USUAL[database.kind]), scenario.name


@pytest.mark.parametrize(("server", "promised"), [("mariadb", "mariadb")], indirect=["server"])
async def test_what_a_deadlock_leaves_to_the_next_transaction(database: Database) -> None:
    """MariaDB keeps READ ONLY and the level of a transaction that it ended by itself for the next of the session."""
    # The one that changed less is ended: the one that only reads.
    circle = Scenario(
        "a deadlock", Anomaly.G2_ITEM,
        ((2, append(X, 21)), (1, read(Y)), (1, read(X)), (2, append(Y, 22)), (2, COMMIT), (1, COMMIT)),
    )  # fmt: skip
    played = await play(circle, database, "serializable")
    assert [one.error for one in played.history.transactions] == ["DeadlockDetected", ""]
    taken = []
    for pool in database.pools():
        while (connection := pool.try_acquire()) is not None:
            taken.append((pool, connection))
    try:
        assert len(taken) > 1
        for number, (_, connection) in enumerate(taken):
            assert await connection.execute(f"INSERT INTO member (element, owner) VALUES ({number}, 1)") == 1
    finally:
        for pool, connection in taken:
            pool.release(connection)
