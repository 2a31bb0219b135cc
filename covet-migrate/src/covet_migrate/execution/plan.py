"""What is to be done: from what was applied to what is wanted, as migrations in order."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from covet.settings_schema import nearest
from covet_migrate.exceptions import HistoryError, MigrationNotFound
from covet_migrate.execution.history import Applied
from covet_migrate.files.graph import conflict_of
from covet_migrate.migrations import Key, Migration
from covet_migrate.state.models import State

if TYPE_CHECKING:
    from covet_migrate.execution.journal import Entry

__all__ = [
    "ZERO",
    "MigrationFiles",
    "Planned",
    "backward",
    "check_ends",
    "check_history",
    "completed",
    "descendants",
    "make_plan",
    "resolve",
    "states_before",
]

ZERO = "zero"
"""The name that stands for none of the migrations of an application."""


class MigrationFiles(Protocol):
    """What is asked of those who know the files."""

    def order(self, applied: Collection[Key], /) -> Sequence[Migration]:
        """All migrations that count, each after those that it depends on, the same order every time. Of a squashed one
        and those that it replaces: those where some of them were applied and others not, else it alone.

        Raises:
            ConflictingMigrations: there is no such order.
        """
        ...

    def parents(self, key: Key, /) -> Iterable[Key]:
        """The migrations that one directly depends on, of those that count."""
        ...

    def checksum(self, key: Key, /) -> str:
        """The checksum of a file, and of those before it in its application."""
        ...

    def file(self, key: Key, /) -> str:
        """Where a file is, for messages."""
        ...


@dataclass(frozen=True)
class Planned:
    """A migration that is to be run.

    Attributes:
        migration: which one.
        backward: whether it is taken back.
        checksum: of its file.
        under_way: its line in the journal, where it was interrupted.
    """

    migration: Migration
    backward: bool = False
    checksum: str = ""
    under_way: Entry | None = None

    def __str__(self) -> str:
        return f"{self.migration}{' (backward)' if self.backward else ''}"


def resolve(order: Sequence[Migration], app: str | None, name: str | None) -> Migration | None:
    """The migration that somebody means by its name, or the beginning of it; None for all, and for none (`zero`).

    Raises:
        MigrationNotFound: there is no such application or migration, or several.
    """
    if app is None:
        if name is not None:
            raise MigrationNotFound(f"the name {name!r} says nothing without the application that it belongs to")
        return None
    named = [one for one in order if one.app == app]
    if not named:
        apps = sorted({one.app for one in order})
        raise MigrationNotFound(
            f"there are no migrations of an application {app!r}{nearest(app, apps)}; there are some of "
            f"{', '.join(apps) or 'none'}"
        )
    if name is None or name == ZERO:
        return None
    found = [one for one in named if one.name == name] or [one for one in named if one.name.startswith(name)]
    if len(found) == 1:
        return found[0]
    names = [one.name for one in named]
    if found:
        raise MigrationNotFound(
            f"{name!r} may be any of {', '.join(one.name for one in found)} of {app}: type more of its name"
        )
    raise MigrationNotFound(f"{app} has no migration {name!r}{nearest(name, names)}; `showmigrations {app}` lists them")


def make_plan(
    files: MigrationFiles, order: Sequence[Migration], applied: Collection[Key], app: str | None, name: str | None
) -> list[Planned]:
    """What is to be done so that a migration is applied, and none of its application behind it.

    Args:
        files: know what depends on what.
        order: all migrations, in order.
        applied: those that were applied.
        app: an application; all of them by default.
        name: of a migration of it, or the beginning of that; `zero` for none of them, the last by default.

    Raises:
        MigrationNotFound: there is no such application or migration.
        ConflictingMigrations: an application has several ends, and none of them is named.
    """
    target = resolve(order, app, name)
    if name is None:
        check_ends(files, order)
    if app is None:
        wanted = {one.key for one in order}
    elif target is None and name == ZERO:
        return backward(files, order, applied, {one.key for one in order if one.app == app})
    elif target is None:
        wanted = _closure(
            {one.key for one in order if one.app == app}, {one.key: files.parents(one.key) for one in order}
        )
    elif target.key in applied:
        later = {one.key for one in order if one.app == app and target.key in set(files.parents(one.key))}
        return backward(files, order, applied, later)
    else:
        wanted = _closure({target.key}, {one.key: files.parents(one.key) for one in order})
    return [
        Planned(one, checksum=files.checksum(one.key)) for one in order if one.key in wanted and one.key not in applied
    ]


def check_ends(files: MigrationFiles, order: Sequence[Migration]) -> None:
    """Return when every application has one migration that none of it comes behind.

    Raises:
        ConflictingMigrations: one has several; the message says what to type.
    """
    followed = {parent for one in order for parent in files.parents(one.key) if parent[0] == one.app}
    ends: dict[str, list[Key]] = {}
    for one in order:
        if one.key not in followed:
            ends.setdefault(one.app, []).append(one.key)
    conflicts = {app: keys for app, keys in sorted(ends.items()) if len(keys) > 1}
    if conflicts:
        raise conflict_of(conflicts)


def backward(
    files: MigrationFiles, order: Sequence[Migration], applied: Collection[Key], leaving: Collection[Key]
) -> list[Planned]:
    """What is to be taken back so that some migrations are not applied: they, and all that depend on them."""
    gone = descendants(files, order, leaving)
    return [
        Planned(one, backward=True, checksum=files.checksum(one.key))
        for one in reversed(order)
        if one.key in gone and one.key in applied
    ]


def descendants(files: MigrationFiles, order: Sequence[Migration], keys: Collection[Key]) -> set[Key]:
    """Migrations, and all that depend on them."""
    if not keys:
        return set()
    children: dict[Key, list[Key]] = {}
    for one in order:
        for parent in files.parents(one.key):
            children.setdefault(parent, []).append(one.key)
    return _closure(set(keys), children)


def completed(order: Sequence[Migration], applied: Collection[Key]) -> list[Key]:
    """The squashed migrations that stand for what was applied: all that they replace, and not they themselves."""
    return [
        one.key
        for one in order
        if one.replaces and one.key not in applied and all(key in applied for key in one.replaces)
    ]


def states_before(order: Sequence[Migration], applied: Collection[Key], plan: Sequence[Planned]) -> Iterator[State]:
    """The state before each migration of a plan, one after the other: also where it is taken back.

    A plan goes in one direction.
    """
    taken_back = {one.migration.key for one in plan if one.backward}
    state = State()
    for migration in order:
        if migration.key in applied and migration.key not in taken_back:
            state = migration.apply(state)
    states: dict[Key, State] = {}
    for one in reversed(plan) if taken_back else plan:
        states[one.migration.key] = state
        state = one.migration.apply(state)
    for one in plan:
        yield states.pop(one.migration.key)


def check_history(
    files: MigrationFiles, order: Sequence[Migration], history: Sequence[Applied], *, unknown: bool
) -> None:
    """See whether what was applied is what the files say.

    Args:
        files: know the checksums.
        order: all migrations, in order.
        history: what was applied.
        unknown: whether the history may know migrations that the files do not.

    Raises:
        HistoryError: it is not; the message names the file.
    """
    applied = {one.key: one for one in history}
    known = {one.key for one in order}
    stand = completed(order, applied)
    # Their checksums are of what came before them then, and that is another file now.
    moved = descendants(files, order, stand)
    replaced = {key for one in order for key in one.replaces}
    strange = [one for one in history if one.key not in known and one.key not in replaced]
    if strange and not unknown:
        names = ", ".join(f"{one.app}.{one.name}" for one in strange[:10])
        last = strange[-1]
        raise HistoryError(
            f"the database knows {len(strange)} migrations that the files do not: {names} (the last was applied by "
            f"{last.applied_by} at {last.applied_at:%Y-%m-%d %H:%M:%S} UTC). Newer code may have migrated it: bring "
            "its files here. If they are gone for good, `migrate --prune` forgets them. Nothing was changed"
        )
    for one in order:
        there = applied.get(one.key)
        if there is None:
            continue
        for parent in files.parents(one.key):
            if parent not in applied and parent not in stand and parent in known:
                raise HistoryError(
                    f"{one} was applied before {parent[0]}.{parent[1]}, which it depends on and which was not applied; "
                    f"if what it does is in the database, `migrate {parent[0]} {parent[1]} --fake` says so. Nothing "
                    "was changed"
                )
        if one.key not in moved and there.checksum != files.checksum(one.key):
            raise HistoryError(
                f"{files.file(one.key)}: the file of {one} is not the one that was applied by {there.applied_by} at "
                f"{there.applied_at:%Y-%m-%d %H:%M:%S} UTC: it was edited since, or one was put before it. Bring it "
                "back as it was and put the change into a migration of its own; if it changes nothing (a comment, a "
                f"layout), `migrations verify {one.app} --accept` takes it as it is now. Nothing was changed"
            )


def _closure(keys: set[Key], edges: Mapping[Key, Iterable[Key]]) -> set[Key]:
    found = set(keys)
    waiting = list(keys)
    while waiting:
        for key in edges.get(waiting.pop(), ()):
            if key not in found:
                found.add(key)
                waiting.append(key)
    return found
