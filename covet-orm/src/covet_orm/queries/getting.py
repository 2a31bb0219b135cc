"""`get_or_create` and `update_or_create`: whoever else does the same at the same time, there is one row.

Where two tasks find nothing and both insert, the database's unique constraint lets one of them; the other one reads the
row. Without a unique constraint on what is looked up there is nothing that keeps two rows apart, and both are there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from covet_orm.exceptions import DeadlockDetected, FieldError, QueryError, UniqueViolation
from covet_orm.models.managers import base_queryset
from covet_orm.queries.locks import fetch_locked
from covet_orm.transactions.context import current_transaction

if TYPE_CHECKING:
    from covet_orm.queries.querysets import QuerySet

__all__ = ["get_or_create", "update_or_create"]

ATTEMPTS = 10
"""How often a row may appear and vanish again while one looks for it, before that is an error."""


async def get_or_create(
    query: QuerySet[Any], defaults: Mapping[str, Any] | None, lookups: Mapping[str, Any]
) -> tuple[Any, bool]:
    """The object that lookups hold for, or a new one; whether it is new."""
    _require_lookups(lookups, "get_or_create")
    try:
        return await query.get(**lookups), False
    except query.model.DoesNotExist:
        values = _values(query, lookups, defaults)
    for attempt in range(ATTEMPTS):
        try:
            return await _create(query, values), True
        except UniqueViolation as error:
            found = await _appeared(query, lookups)
            if found is not None:
                return found, False
            if attempt == ATTEMPTS - 1 or not await _is_about(query, lookups, error):
                raise
    raise AssertionError("unreachable")


async def update_or_create(
    query: QuerySet[Any],
    defaults: Mapping[str, Any] | None,
    create_defaults: Mapping[str, Any] | None,
    lookups: Mapping[str, Any],
) -> tuple[Any, bool]:
    """Change the object that lookups hold for, or make one; whether it is new."""
    _require_lookups(lookups, "update_or_create")
    values = _values(query, lookups, defaults if create_defaults is None else create_defaults)
    # Whether it is there is asked without a lock: in MySQL, locks on what is not there keep each other from inserting.
    there = await query.filter(**lookups).order_by().exists()
    for attempt in range(ATTEMPTS):
        if not there:
            try:
                return await _create(query, values), True
            except UniqueViolation as error:
                if await _appeared(query, lookups) is None and (
                    attempt == ATTEMPTS - 1 or not await _is_about(query, lookups, error)
                ):
                    raise
        try:
            return await _change(query, defaults or {}, lookups), False
        except query.model.DoesNotExist:
            there = False
        except DeadlockDetected:
            if current_transaction(query.database) is not None or attempt == ATTEMPTS - 1:
                raise
    raise QueryError(f"{query.model.__name__} with {_told(lookups)} appears and vanishes; update_or_create gave up")


async def _create(query: QuerySet[Any], values: Mapping[str, Any]) -> Any:
    """Insert an object; inside of a transaction by a savepoint, so that it goes on if the row is there already."""
    database = query.database
    if current_transaction(database) is None:
        return await query.create(**values)
    async with database.transaction():
        return await query.create(**values)


async def _change(query: QuerySet[Any], defaults: Mapping[str, Any], lookups: Mapping[str, Any]) -> Any:
    """Lock the row, and write to it what it is to have."""
    async with query.database.transaction():
        found = await _get_locked(query.filter(**lookups))
        for name, value in defaults.items():
            setattr(found, name, value() if callable(value) else value)
        await found.save(using=query.database)
    return found


async def _get_locked(query: QuerySet[Any], *, shared: bool = False) -> Any:
    """As `get`, and locked."""
    found = await fetch_locked(query.limit(2), shared=shared)
    if len(found) == 1:
        return found[0]
    if not found:
        raise query.model.DoesNotExist(f"the {query.model.__name__} that was looked for is gone")
    raise query.model.MultipleObjectsReturned(f"there are several {query.model.__name__}, and one is wanted")


async def _appeared(query: QuerySet[Any], lookups: Mapping[str, Any]) -> Any:
    """What somebody else has inserted meanwhile, or None. In a transaction that sees the past alone, a lock sees it."""
    wanted = query.filter(**lookups)
    try:
        if current_transaction(query.database) is not None:
            return await _get_locked(wanted, shared=True)
        return await wanted.get()
    except query.model.DoesNotExist:
        return None


async def _is_about(query: QuerySet[Any], lookups: Mapping[str, Any], error: UniqueViolation) -> bool:
    """Whether the row that was in the way may have been the one that was looked for, and is gone again: not when
    another row has one of the other values."""
    names = {name for name in lookups if "__" not in name}
    return (
        bool(error.fields)
        and all(name in names for name in error.fields)
        and not (await base_queryset(query.model).using(query.database).filter(**lookups).exists())
    )


def _values(query: QuerySet[Any], lookups: Mapping[str, Any], defaults: Mapping[str, Any] | None) -> dict[str, Any]:
    """The values of a new object: those that are looked for by equality, and the defaults.

    Raises:
        FieldError: a default is no field.
    """
    options = query.model._meta
    found = {name.removesuffix("__exact"): value for name, value in lookups.items()}
    found = {name: value for name, value in found.items() if "__" not in name}
    for name in defaults or {}:
        if name != "pk" and name not in options.by_name:
            raise FieldError(options.unknown(name))
    given = {name: value() if callable(value) else value for name, value in (defaults or {}).items()}
    return {**found, **given}


def _require_lookups(lookups: Mapping[str, Any], what: str) -> None:
    if not lookups:
        raise QueryError(f"{what}() looks for nothing: give the fields that tell which object is meant")


def _told(lookups: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in lookups.items())
