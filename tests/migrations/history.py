"""A history of migrations of which one has thirty steps and more: tables, columns, indexes, constraints and rows.

Every operation has a way back that makes the rows what they were, and every data step would be seen if it were done
twice: it adds to what is there.
"""

from __future__ import annotations

from typing import Any

import covet_orm as orm
from covet_migrate import Migration, operations
from covet_migrate.execution.stages import Stage, Target, stages_of
from covet_migrate.operations import Operation
from covet_migrate.state.models import State
from covet_migrate.state.rendering import Renderer
from covet_orm import Registry

__all__ = ["APP", "BATCH", "LONG", "ROWS", "first", "in_parts", "whole"]

APP = "shop"
LONG = "0002_long"
ROWS = 120
"""Accounts that are there before the long migration."""
BATCH = 12
"""Objects of a batch."""


def first() -> Migration:
    """The first migration: two tables, one of them with rows."""
    accounts = operations.CreateModel(
        "Account",
        {
            "id": orm.BigAutoField(primary_key=True),
            "code": orm.CharField(max_length=20),
            "balance": orm.IntegerField(default=100),
        },
    )
    entries = operations.CreateModel(
        "Entry",
        {
            "id": orm.BigAutoField(primary_key=True),
            "account_number": orm.BigIntegerField(),
            "amount": orm.IntegerField(),
        },
    )
    fill = operations.RunPython(_open_accounts, operations.RunPython.noop)
    return Migration(operations=[accounts, entries, fill], app=APP, name="0001_first")


def in_parts(kind: str) -> list[Migration]:
    """The history whose long migration is kept step by step: data moves in batches, indexes are made concurrently."""
    return [first(), _long(_middle(online=True, in_batches=True), atomic=False)]


def whole(kind: str) -> list[Migration]:
    """The history whose long migration is one transaction, where the database can have such."""
    return [first(), _long(_middle(online=False, in_batches=False), atomic=True)]


def stages(migration: Migration, kind: str, version: tuple[int, ...], *, backward: bool) -> list[Stage]:
    """The long migration's operations with their steps, in the order in which they are run."""
    from covet_migrate.ddl import steps_of

    target = Target(kind, version, "default", steps_of, Renderer())
    return stages_of(migration, first().apply(State()), target, backward=backward)


def _long(found: list[Operation], *, atomic: bool) -> Migration:
    return Migration(operations=found, dependencies=[(APP, "0001_first")], atomic=atomic, app=APP, name=LONG)


def _middle(*, online: bool, in_batches: bool) -> list[Operation]:
    def index(operation: Operation) -> Operation:
        return operations.Online(operation) if online else operation

    def data(forth: str, back: str) -> Operation:
        if in_batches:
            return operations.RunPython(BATCHED[forth], BATCHED[back], batched="Account", size=BATCH)
        return operations.RunPython(AT_ONCE[forth], AT_ONCE[back])

    branch = {
        "id": orm.BigAutoField(primary_key=True),
        "name": orm.CharField(max_length=50),
        "city": orm.CharField(max_length=20, default="Bern", db_default="Bern"),
    }
    card = {
        "id": orm.BigAutoField(primary_key=True),
        "number": orm.CharField(max_length=30, db_index=True),
        "account": orm.ForeignKey(f"{APP}.Account"),
    }
    return [
        operations.CreateModel("Branch", branch),
        operations.RunSQL(
            [f"INSERT INTO shop_branch (name) VALUES ('Branch {number}')" for number in range(3)],
            ["DELETE FROM shop_branch"],
        ),
        operations.AddField("Account", "note", orm.CharField(max_length=40, null=True)),
        operations.AddField("Account", "level", orm.IntegerField(default=1)),
        index(operations.AddIndex("Account", orm.Index("code", name="account_code"))),
        data("credit", "debit"),
        operations.AddConstraint("Account", orm.CheckConstraint(orm.Q(balance__gte=0), name="account_balance")),
        operations.AddConstraint("Account", orm.UniqueConstraint("code", "balance", name="account_once")),
        operations.AlterField("Account", "code", orm.CharField(max_length=40)),
        operations.RenameField("Account", "note", "remark"),
        operations.CreateModel("Card", card),
        operations.RunSQL(
            "INSERT INTO shop_card (number, account_id) SELECT code, id FROM shop_account", "DELETE FROM shop_card"
        ),
        operations.AddField("Account", "branch", orm.ForeignKey(f"{APP}.Branch", null=True)),
        data("promote", "demote"),
        operations.RenameModel("Card", "Plastic"),
        index(operations.AddIndex("Plastic", orm.Index("account", "number", name="plastic_both"))),
        operations.RunSQL(
            "UPDATE shop_account SET level = level * 2 + 1", "UPDATE shop_account SET level = (level - 1) / 2"
        ),
        operations.AddField("Branch", "rate", orm.IntegerField(default=3, db_default=3)),
        operations.RunSQL("UPDATE shop_branch SET rate = rate + 4", "UPDATE shop_branch SET rate = rate - 4"),
        operations.RenameIndex("Account", "account_code", "account_by_code"),
        operations.CreateModel("Draft", {"id": orm.BigAutoField(primary_key=True), "text": orm.TextField()}),
        operations.DeleteModel("Draft"),
        operations.RemoveField("Branch", "city"),
        index(operations.AddIndex("Entry", orm.Index("account_number", name="entry_account"))),
        operations.RunSQL(
            "UPDATE shop_entry SET amount = amount * 3 + 1", "UPDATE shop_entry SET amount = (amount - 1) / 3"
        ),
        operations.RemoveConstraint("Account", "account_balance"),
    ]


async def _open_accounts(models: Registry, database: object) -> None:
    account = models[f"{APP}.Account"]
    await account.objects.bulk_create([account(code=f"A{number:04}", balance=100 + number) for number in range(ROWS)])


async def _credit(models: Registry, accounts: list[Any]) -> None:
    entry = models[f"{APP}.Entry"]
    for one in accounts:
        one.balance += 1000
    await models[f"{APP}.Account"].objects.bulk_update(accounts, ["balance"])
    await entry.objects.bulk_create([entry(account_number=one.id, amount=7) for one in accounts])


async def _debit(models: Registry, accounts: list[Any]) -> None:
    for one in accounts:
        one.balance -= 1000
    await models[f"{APP}.Account"].objects.bulk_update(accounts, ["balance"])
    await models[f"{APP}.Entry"].objects.filter(account_number__in=[one.id for one in accounts]).delete()


async def _promote(models: Registry, accounts: list[Any]) -> None:
    branches = [one.pk async for one in models[f"{APP}.Branch"].objects.order_by("id")]
    for one in accounts:
        one.level += one.id
        one.branch_id = branches[one.id % len(branches)]
    await models[f"{APP}.Account"].objects.bulk_update(accounts, ["level", "branch"])


async def _demote(models: Registry, accounts: list[Any]) -> None:
    for one in accounts:
        one.level -= one.id
        one.branch_id = None
    await models[f"{APP}.Account"].objects.bulk_update(accounts, ["level", "branch"])


async def _credit_all(models: Registry, database: object) -> None:
    await _credit(models, [one async for one in models[f"{APP}.Account"].objects.all()])


async def _debit_all(models: Registry, database: object) -> None:
    await _debit(models, [one async for one in models[f"{APP}.Account"].objects.all()])


async def _promote_all(models: Registry, database: object) -> None:
    await _promote(models, [one async for one in models[f"{APP}.Account"].objects.all()])


async def _demote_all(models: Registry, database: object) -> None:
    await _demote(models, [one async for one in models[f"{APP}.Account"].objects.all()])


BATCHED: dict[str, Any] = {"credit": _credit, "debit": _debit, "promote": _promote, "demote": _demote}
AT_ONCE: dict[str, Any] = {
    "credit": _credit_all,
    "debit": _debit_all,
    "promote": _promote_all,
    "demote": _demote_all,
}
