"""The items and sets of a history as rows, and the steps of a transaction as statements of covet-orm."""

from __future__ import annotations

from collections.abc import Iterable

from tests.isolation.histories import History, Operation, Transaction

from covet_orm import F, IntegerField, Model, Registry, TextField, Value
from covet_orm.expressions.functions import Concat

__all__ = ["Item", "Member", "carry_out", "left_by", "make_items", "registry"]

registry = Registry()


class Item(Model):
    number = IntegerField(primary_key=True)
    elements = TextField(default="")

    class Meta:
        registry = registry
        db_table = "item"


class Member(Model):
    element = IntegerField(primary_key=True)
    owner = IntegerField(db_index=True)

    class Meta:
        registry = registry
        db_table = "member"


async def make_items(keys: Iterable[int]) -> None:
    """Items without elements; a set needs no making."""
    await Item.objects.bulk_create([Item(number=key) for key in keys])


async def carry_out(operation: Operation) -> Operation:
    """Run a step in the transaction around it; the step with what it found."""
    key, element = operation.key, operation.element
    if operation.kind == "read":
        return operation._replace(
            found=_elements(await Item.objects.filter(number=key).values_list("elements", flat=True))
        )
    if operation.kind == "scan":
        found = await Member.objects.filter(owner=key).values_list("element", flat=True)
        return operation._replace(found=tuple(sorted(found)))
    if operation.kind == "append":
        # The server reads the row and writes it in one statement, so that the list tells the order of the writes.
        changed = await Item.objects.filter(number=key).update(elements=Concat(F("elements"), Value(f"{element},")))
        assert changed == 1
    else:
        await Member.objects.create(element=element, owner=key)
    return operation


async def left_by(transactions: list[Transaction], keys: Iterable[int], sets: Iterable[int]) -> History:
    """The history, when all of its transactions have ended."""
    history = History(
        transactions,
        {key: (await carry_out(Operation("read", key))).found for key in keys},
        {key: (await carry_out(Operation("scan", key))).found for key in sets},
    )
    await Item.objects.all().delete()
    await Member.objects.all().delete()
    return history


def _elements(texts: list[str]) -> tuple[int, ...]:
    (text,) = texts
    return tuple(int(part) for part in text.split(",") if part)
