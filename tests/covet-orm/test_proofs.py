"""Short forms of the proofs of transactions and of the outbox; `nox -s proof -- NAME` runs them at length."""

from __future__ import annotations

import pytest
from tests.proofs import orm_bank, orm_outbox
from tests.services.databases import Database

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]
# The long forms run on both versions of PostgreSQL.
SERVERS = ["sqlite", "postgresql-15", "mariadb"]


@pytest.mark.parametrize("name", SERVERS)
async def test_money_is_neither_made_nor_lost_while_clients_and_servers_are_killed(name: str) -> None:
    (outcome,) = await orm_bank.prove([name], 400)
    assert not outcome.failed, outcome
    assert len(outcome.acknowledged) >= 400
    assert outcome.clients
    assert outcome.servers == (0 if name == "sqlite" else 2)


@pytest.mark.parametrize("server", SERVERS, indirect=True)
async def test_messages_are_delivered_in_order_while_workers_are_killed(url: str, server: Database) -> None:
    outcome = await orm_outbox.run(server.name, url, 150, 0.7)
    assert not outcome.failed, outcome
    assert outcome.messages >= 150
    assert outcome.kills


def test_the_bank_notices_what_is_wrong() -> None:
    """A proof that cannot fail proves nothing."""
    right = {"total": orm_bank.ACCOUNTS * orm_bank.BALANCE, "lost": 0, "wrong": 0}
    assert not orm_bank.Outcome("x", 1, **right).failed
    for wrong in ({"total": 1}, {"lost": 1}, {"wrong": 1}):
        assert orm_bank.Outcome("x", 1, **(right | wrong)).failed


@pytest.mark.parametrize(
    ("delivered", "right"),
    [([1, 2, 3], True), ([1, 1, 2, 3], True), ([2, 1, 3], False), ([1, 3], False), ([1, 2, 1], False), ([9], False)],
)
def test_the_outbox_notices_what_is_out_of_order(delivered: list[int], right: bool) -> None:
    assert orm_outbox.in_order([1, 2, 3], delivered) is right
