"""Operations on what is no model: extensions, collations and sequences of PostgreSQL. Elsewhere they do nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from covet_migrate.operations.base import Change, Operation
from covet_migrate.state.models import State
from covet_migrate.steps import Statement
from covet_orm.schema import defining_dialect

__all__ = ["CreateCollation", "CreateExtension", "CreateSequence"]


class DatabaseObject(Operation):
    """The base of operations that create something which is no model, and drop it backward.

    Args:
        name: its name.
    """

    what = ""
    """What it is called in SQL."""

    def __init__(self, name: str) -> None:
        self.name = name

    def apply(self, state: State, app: str) -> State:
        return state

    def describe(self) -> str:
        return f"Create {self.what.lower()} {self.name}"

    def file_name(self) -> str:
        return f"{self.what.lower()}_{self.name.lower()}"

    def actions(self, change: Change) -> Sequence[Any]:
        if change.kind != "postgresql":
            return ()
        name = defining_dialect("postgresql").identifier_preparer.quote(self.name)
        return [Statement(sql=f"DROP {self.what} {name}" if change.backward else self.sql(name))]

    def sql(self, name: str) -> str:
        """The statement that creates it.

        Args:
            name: its name, quoted.
        """
        return f"CREATE {self.what} {name}"


class CreateExtension(DatabaseObject):
    """Create an extension, unless it is there: `CreateExtension("btree_gist")`. Backward it is dropped.

    Args:
        name: its name.
    """

    what = "EXTENSION"

    def sql(self, name: str) -> str:
        return f"CREATE EXTENSION IF NOT EXISTS {name}"

    def actions(self, change: Change) -> Sequence[Any]:
        if change.kind != "postgresql" or not change.backward:
            return super().actions(change)
        name = defining_dialect("postgresql").identifier_preparer.quote(self.name)
        return [Statement(sql=f"DROP EXTENSION IF EXISTS {name}")]


class CreateCollation(DatabaseObject):
    """Create a collation: `CreateCollation("german_phone", "de-u-co-phonebk")`.

    Args:
        name: its name.
        locale: the locale, as the provider names it.
        provider: `icu` or `libc`.
        deterministic: whether texts that differ are never equal (False: ICU alone).
    """

    what = "COLLATION"

    def __init__(self, name: str, locale: str, *, provider: str = "icu", deterministic: bool = True) -> None:
        super().__init__(name)
        self.locale = locale
        self.provider = provider
        self.deterministic = deterministic

    def sql(self, name: str) -> str:
        from covet_migrate.ddl.base import literal

        provider = defining_dialect("postgresql").identifier_preparer.quote(self.provider)
        how = "" if self.deterministic else ", deterministic = false"
        return f"CREATE COLLATION {name} (locale = {literal(self.locale, 'postgresql')}, provider = {provider}{how})"


class CreateSequence(DatabaseObject):
    """Create a sequence.

    Args:
        name: its name.
        start: the first number.
        increment: the distance from one number to the next.
        cache: how many numbers a session takes at a time.
        cycle: whether it begins again at its end.
    """

    what = "SEQUENCE"

    def __init__(self, name: str, *, start: int = 1, increment: int = 1, cache: int = 1, cycle: bool = False) -> None:
        super().__init__(name)
        self.start = start
        self.increment = increment
        self.cache = cache
        self.cycle = cycle

    def sql(self, name: str) -> str:
        numbers = f"START {int(self.start)} INCREMENT {int(self.increment)} CACHE {int(self.cache)}"
        return f"CREATE SEQUENCE {name} {numbers}{' CYCLE' if self.cycle else ''}"
