"""Squashed migrations: which of them stand for those that they replace, on a database where some were applied."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from covet_migrate.exceptions import ConflictingMigrations, MigrationNotFound
from covet_migrate.migrations import Key, Migration

__all__ = ["Replacing", "replaced_by"]


@dataclass(frozen=True)
class Replacing:
    """Which migrations count.

    Attributes:
        migrations: those that count, by key.
        stand_for: for each that does not, those that take its place.
        completed: the squashed ones that count as all that they replace was applied, so that they need not be run; each
            with what was applied of that, in whose place a database may have it.
    """

    migrations: Mapping[Key, Migration]
    stand_for: Mapping[Key, tuple[Key, ...]]
    completed: Mapping[Key, tuple[Key, ...]]


def replaced_by(migrations: Mapping[Key, Migration], applied: Collection[Key]) -> Replacing:
    """Choose between squashed migrations and those that they replace.

    A squashed migration counts where it was applied, or all of what it replaces, or nothing of that; else that counts.
    One that replaces squashed migrations replaces what these do.

    Args:
        migrations: all of them, by key.
        applied: those that were applied.

    Raises:
        ConflictingMigrations: a squashed migration replaces itself, or two replace the same.
        MigrationNotFound: a part of what a squashed migration replaces was applied, and the files of the rest are gone.
    """
    squashed = {key: one for key, one in migrations.items() if one.replaces}
    if not squashed:
        return Replacing(migrations, {}, {})
    parts = {key: _parts(key, squashed) for key in squashed}
    usable: set[Key] = set()
    completed: dict[Key, tuple[Key, ...]] = {}
    for key, replaced in parts.items():
        if key in applied or not any(part in applied for part in replaced):
            usable.add(key)
        elif _is_applied(key, squashed, applied):
            usable.add(key)
            completed[key] = tuple(part for part in replaced if part in applied)
        else:
            _require_parts(key, [part for part in replaced if part not in squashed], parts, migrations, applied)
    outer = [key for key in usable if not any(key in parts[other] for other in usable)]
    stand_for: dict[Key, tuple[Key, ...]] = {}
    for key in sorted(outer):
        for part in parts[key]:
            if part in stand_for:
                raise ConflictingMigrations(
                    f"{_told(part)} is replaced by {_told(stand_for[part][0])} and by {_told(key)}; one migration is "
                    "replaced by one: take it out of `replaces` of one of them"
                )
            stand_for[part] = (key,)
    for key in squashed:
        if key not in usable and key not in stand_for:
            # Who depends on it depends on what is run in its place.
            stand_for[key] = tuple(part for part in squashed[key].replaces if part in migrations)
    kept = {key: one for key, one in migrations.items() if key not in stand_for}
    return Replacing(kept, stand_for, {key: parts for key, parts in completed.items() if key in kept})


def _parts(key: Key, squashed: Mapping[Key, Migration]) -> list[Key]:
    """All that a squashed migration replaces, and what that replaces."""
    found: dict[Key, None] = {}
    under_way: list[Key] = [key]
    iterators = [iter(squashed[key].replaces)]
    while iterators:
        part = next(iterators[-1], None)
        if part is None:
            iterators.pop()
            under_way.pop()
            continue
        if part in under_way:
            circle = [*under_way[under_way.index(part) :], part]
            raise ConflictingMigrations(
                f"squashed migrations replace each other: {' replaces '.join(map(_told, circle))}; take one of them "
                "out of `replaces`"
            )
        if part not in found:
            found[part] = None
            if part in squashed:
                under_way.append(part)
                iterators.append(iter(squashed[part].replaces))
    return list(found)


def _is_applied(key: Key, squashed: Mapping[Key, Migration], applied: Collection[Key]) -> bool:
    """Whether a migration was applied, itself or all that it replaces."""
    if key in applied:
        return True
    return key in squashed and all(_is_applied(part, squashed, applied) for part in squashed[key].replaces)


def _require_parts(
    key: Key,
    ends: Collection[Key],
    parts: Mapping[Key, Collection[Key]],
    migrations: Mapping[Key, Migration],
    applied: Collection[Key],
) -> None:
    """See that what a squashed migration replaces is there, where a part of it was applied."""
    missing = [part for part in ends if part not in migrations and part not in applied]
    # A squashed one in between may have been applied as a whole.
    missing = [one for one in missing if not any(one in parts.get(done, ()) for done in applied)]
    if missing:
        done = [part for part in ends if part in applied]
        raise MigrationNotFound(
            f"{_told(key)} stands for {len(ends)} migrations, of which {', '.join(map(_told, done)) or 'some'} "
            f"were applied and {', '.join(map(_told, missing))} not, and the files of these are gone. Bring them back, "
            "migrate, and delete them when every database has them all"
        )


def _told(key: Key) -> str:
    return ".".join(filter(None, key))
