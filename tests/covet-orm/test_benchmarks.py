"""The benchmarks of the ORM, in short: Covet answers as the raw driver does, on each database; with tasks beside each
other in transactions, what was reported is what is there. Nothing is timed."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from benchmarks.orm_siblings import Peer, Seen, cases, run
from benchmarks.peers_orm import covet, raw, schema
from benchmarks.peers_orm.answers import WORKLOADS, answer, check
from benchmarks.peers_siblings.covet import Peer as CovetPeer

pytestmark = pytest.mark.anyio


@pytest.fixture
async def peers(url: str) -> AsyncIterator[tuple[schema.Peer, schema.Peer]]:
    """The driver, and Covet, with the benchmark's tables."""
    await schema.build(url)
    floor, own = raw.Peer(url), covet.Peer(url)
    await floor.open()
    await own.open()
    yield floor, own
    await own.close()
    await floor.close()


async def test_covet_answers_as_the_driver_does(peers: tuple[schema.Peer, schema.Peer]) -> None:
    floor, own = peers
    await check("covet", own, floor, list(WORKLOADS))


async def test_the_driver_answers_what_was_stored(peers: tuple[schema.Peer, schema.Peer]) -> None:
    floor, _ = peers
    stored = schema.items()
    assert await answer(floor, "get", floor) == stored[7]
    assert await answer(floor, "list100", floor) == stored[:100]
    assert await answer(floor, "list10k", floor) == stored
    assert await answer(floor, "count", floor) == sum(row[3] < 50 for row in stored)
    assert await answer(floor, "insert", floor) == [schema.item(7)]
    assert await answer(floor, "bulk10k", floor) == sorted(schema.item(number) for number in range(schema.ITEMS))
    assert await answer(floor, "update", floor) == [7]
    titles = [f"title {number}" for number in range(1, 11)]
    assert (await answer(floor, "prefetch", floor))["author 1"] == sorted(titles)
    assert (await answer(floor, "join1k", floor))[10] == (11, "title 11", "author 2")


async def test_a_wrong_answer_stops_the_benchmark(peers: tuple[schema.Peer, schema.Peer]) -> None:
    floor, own = peers
    await own.database.execute("update bench_item set note = 'wrong' where id = 8")  # type: ignore[attr-defined]

    class Deaf(raw.Operations):
        async def get(self, number: int) -> object:
            return schema.items(8)[-1]

    with pytest.raises(ValueError, match="deaf answers get with"):
        await check("deaf", Deaf(), floor, ["get"])  # type: ignore[arg-type]


@pytest.mark.parametrize("server", ["sqlite", "postgresql-15"], indirect=True)
@pytest.mark.parametrize("case", cases(9))
async def test_with_tasks_in_transactions_what_is_reported_is_there(url: str, case: str) -> None:
    peer: Peer = CovetPeer(url, 12)
    seen = await run(url, peer, cases(9)[case][0])
    assert (seen.lost, seen.stray, seen.held) == ([], [], 0)
    assert set(seen.errors) <= {"TransactionError"}
    assert seen.rows


def test_what_is_lost_and_what_strays_is_found() -> None:
    seen = Seen(done={"a", "b"}, failed={"c", "d"}, cancelled={"e"}, rows={"a", "c", "e"}, held=2)
    assert (seen.lost, seen.stray) == (["b"], ["c"])
    assert str(seen) == "**lost: b**; **stray: c**; rows: a, c, e; 1 cancelled; **2 held**"
    seen.rolled_back()
    assert (seen.lost, seen.stray) == ([], ["a", "c"])
    assert str(Seen(done={"a"}, rows={"a"})) == "as reported; rows: a"
