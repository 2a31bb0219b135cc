"""The graph of migrations: what comes before what, across applications.

Everything here takes time in proportion to what it is asked about: a plan looks at each migration once, and a replay
applies each once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from covet_migrate.exceptions import ConflictingMigrations, HistoryError, MigrationError, MigrationNotFound
from covet_migrate.files.replacing import replaced_by
from covet_migrate.migrations import Key, Migration
from covet_migrate.state.models import State

__all__ = ["Graph", "Replayed", "conflict_of"]


@dataclass(frozen=True, slots=True)
class Replayed:
    """A migration with the states around it.

    Attributes:
        migration: which one.
        before: the state before it.
        after: the state after it.
    """

    migration: Migration
    before: State
    after: State


class Graph:
    """Migrations, and what each depends on.

    Args:
        migrations: all that there are, of all applications.
        applied: those that a database has, by which it is decided whether a squashed migration counts, or what it
            replaces.
        files: where each is, for messages.

    Attributes:
        migrations: those that count, by key, each after those that it depends on; the same order every time.
        parents: the migrations that each directly depends on.
        children: those that directly depend on each.
        applied: those that count and were applied, in that order; a squashed one is, where all that it replaces is.
        completed: those of them that were not applied themselves; each with what was, in whose place a database may
            have it.

    Raises:
        ConflictingMigrations: there is a circle among them, two have one name, or a squashed one replaces itself.
        MigrationNotFound: one depends on another that is not there.
    """

    def __init__(
        self,
        migrations: Iterable[Migration],
        applied: Collection[Key] = (),
        files: Mapping[Key, object] | None = None,
    ) -> None:
        self._files = files or {}
        there: dict[Key, Migration] = {}
        for one in migrations:
            if one.key in there:
                raise ConflictingMigrations(f"there are two migrations {one}; rename the file of one of them")
            there[one.key] = one
        applied = frozenset(applied)
        replacing = replaced_by(there, applied)
        self._there = there
        self._stand_for = replacing.stand_for
        kept = replacing.migrations
        self.parents: dict[Key, tuple[Key, ...]] = {}
        edges: dict[Key, dict[Key, None]] = {key: {} for key in kept}
        for key, one in kept.items():
            for dependency in one.dependencies:
                for parent in self._found(dependency, one, "depends on"):
                    if parent != key:
                        edges[key][parent] = None
            for later in one.run_before:
                for child in self._found(later, one, "is to run before"):
                    if child != key:
                        edges[child][key] = None
        order = _ordered(edges, self._where)
        self.parents = {key: tuple(edges[key]) for key in order}
        self.children: dict[Key, list[Key]] = {key: [] for key in order}
        for key in order:
            for parent in self.parents[key]:
                self.children[parent].append(key)
        self.migrations: dict[Key, Migration] = {key: kept[key] for key in order}
        self.completed = replacing.completed
        self.applied: tuple[Key, ...] = tuple(key for key in order if key in applied or key in self.completed)

    def __getitem__(self, key: Key) -> Migration:
        """The migration of a key.

        Raises:
            MigrationNotFound: there is none; the message names the nearest.
        """
        if key in self.migrations:
            return self.migrations[key]
        raise MigrationNotFound(f"there is no migration {_told(key)}{_nearest(key, self.migrations)}")

    def __contains__(self, key: object) -> bool:
        return key in self.migrations

    def __len__(self) -> int:
        return len(self.migrations)

    def apps(self) -> dict[str, list[Migration]]:
        """The migrations of each application, in order; applications by name."""
        found: dict[str, list[Migration]] = {}
        for one in self.migrations.values():
            found.setdefault(one.app, []).append(one)
        return dict(sorted(found.items()))

    def leaves(self, app: str | None = None) -> list[Key]:
        """The ends: the migrations of an application, or of each, that no other of the same one depends on."""
        return [
            key
            for key in self.migrations
            if app in (None, key[0]) and not any(child[0] == key[0] for child in self.children[key])
        ]

    def conflicts(self) -> dict[str, list[Key]]:
        """The ends of the applications that have several."""
        found: dict[str, list[Key]] = {}
        for key in self.leaves():
            found.setdefault(key[0], []).append(key)
        return {app: keys for app, keys in sorted(found.items()) if len(keys) > 1}

    def check_conflicts(self) -> None:
        """Return if every application has one end.

        Raises:
            ConflictingMigrations: one has several; the message says what to type.
        """
        conflicts = self.conflicts()
        if conflicts:
            raise conflict_of(conflicts)

    def find(self, app: str, name: str) -> Key:
        """The migration that a name, or the beginning of one, stands for: `0003`.

        Raises:
            MigrationNotFound: there is none, there are several, or there is no such application.
        """
        known = [key for key in self.migrations if key[0] == app]
        if not known:
            apps = sorted({key[0] for key in self.migrations})
            near = get_close_matches(app, apps, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are those of {', '.join(apps)}" if apps else ""
            raise MigrationNotFound(f"there are no migrations of an application {app!r}{hint}")
        if (app, name) in self.migrations:
            return (app, name)
        if (app, name) in self._stand_for:
            stands = self._stand_for[app, name]
            raise MigrationNotFound(f"{app}.{name} is not run here: {', '.join(map(_told, stands))} is, in its place")
        found = [key for key in known if key[1].startswith(name)]
        if len(found) == 1:
            return found[0]
        if found:
            raise MigrationNotFound(
                f"{name!r} may be {' or '.join(one for _, one in found)} of {app!r}; type more of the name"
            )
        raise MigrationNotFound(f"{app!r} has no migration {name!r}{_nearest((app, name), known)}")

    def ancestors(self, keys: Iterable[Key]) -> set[Key]:
        """Migrations, and all that they depend on."""
        return _closure(keys, self.parents)

    def descendants(self, keys: Iterable[Key]) -> set[Key]:
        """Migrations, and all that depend on them."""
        return _closure(keys, self.children)

    def forward_plan(self, targets: Iterable[Key], applied: Iterable[Key] | None = None) -> list[Migration]:
        """What is to be applied so that the targets are, in order.

        Args:
            targets: the migrations that are to be applied; the ends, for all there are.
            applied: those that are; `applied` of the graph by default.

        Raises:
            MigrationNotFound: there is no such migration.
        """
        targets = [self[key].key for key in targets]
        wanted = self.ancestors(targets) - set(self.applied if applied is None else applied)
        return [one for key, one in self.migrations.items() if key in wanted]

    def backward_plan(self, app: str, target: Key | None, applied: Iterable[Key] | None = None) -> list[Migration]:
        """What is to be taken back so that a migration is the last one of its application, in order.

        Of other applications that goes which depends on what goes; what only depends on the target stays.

        Args:
            app: the application.
            target: the migration that stays; None for none.
            applied: those that are applied; `applied` of the graph by default.

        Raises:
            MigrationNotFound: there is no such migration.
        """
        kept = set() if target is None else self.ancestors([self[target].key])
        going = self.descendants(key for key in self.migrations if key[0] == app and key not in kept)
        going &= set(self.applied if applied is None else applied)
        return [one for key, one in reversed(self.migrations.items()) if key in going]

    def check_history(self, applied: Iterable[Key] | None = None) -> None:
        """Return if everything that is applied came after what it depends on.

        Raises:
            HistoryError: something did not.
        """
        known = set(self.applied if applied is None else applied)
        for key in self.migrations:
            missing = [parent for parent in self.parents[key] if parent not in known] if key in known else []
            if missing:
                raise HistoryError(
                    f"{_told(key)} was applied, and {_told(missing[0])}, which it depends on, was not. If the "
                    f"database has what that does, `migrate {' '.join(missing[0])} --fake` says so; else somebody "
                    f"changed the dependencies of {self._where(key)} after it was applied"
                )

    def replay(self, keys: Iterable[Key] | None = None, state: State | None = None) -> Iterator[Replayed]:
        """Migrations in order, each with the states before and after it; each is applied once.

        Args:
            keys: which ones; all by default. What they depend on is among them, or in `state`.
            state: the state to begin with; that without models by default.

        Raises:
            MigrationError: an operation does not fit the state; the message names the migration.
        """
        state = State() if state is None else state
        wanted = None if keys is None else set(keys)
        for key, one in self.migrations.items():
            if wanted is not None and key not in wanted:
                continue
            try:
                after = one.apply(state)
            except MigrationError as error:
                raise type(error)(f"{self._where(key)}: {error}") from error
            yield Replayed(one, state, after)
            state = after

    def state(self, at: Key | Iterable[Key] | None = None, *, before: bool = False) -> State:
        """The state after migrations and all that they depend on.

        Args:
            at: one or several; all by default.
            before: whether it is the state before `at`.

        Raises:
            MigrationNotFound: there is no such migration.
            MigrationError: an operation does not fit the state.
        """
        keys: set[Key] | None = None
        if at is not None:
            targets: list[Any] = [at] if _is_key(at) else list(at)
            keys = self.ancestors(self[key].key for key in targets)
            if before:
                keys -= set(targets)
        elif before:
            return State()
        state = State()
        for replayed in self.replay(keys):
            state = replayed.after
        return state

    def _found(self, wanted: Key, of: Migration, verb: str) -> Sequence[Key]:
        """The migrations that count, of one that a migration names."""
        seen: list[Key] = []
        waiting = [wanted]
        while waiting:
            key = waiting.pop(0)
            if key in self._stand_for:
                waiting += self._stand_for[key]
            elif key in self._there:
                seen.append(key)
            else:
                raise MigrationNotFound(
                    f"{self._where(of.key)}: {of} {verb} {_told(key)}, which is not there{_nearest(key, self._there)}"
                )
        return seen

    def _where(self, key: Key) -> str:
        """The file of a migration, for messages."""
        return str(self._files.get(key, _told(key)))


def conflict_of(conflicts: Mapping[str, Sequence[Key]]) -> ConflictingMigrations:
    """The error about applications that have several ends.

    Args:
        conflicts: the ends of each.
    """
    told = [f"{app or 'the models'} has {' and '.join(name for _, name in keys)}" for app, keys in conflicts.items()]
    app = next(iter(conflicts))
    return ConflictingMigrations(
        f"migrations were made beside each other, and none of them comes last: {'; '.join(told)}. If they do "
        f"not contradict each other, `covet makemigrations --merge{f' {app}' if app else ''}` makes one that "
        "depends on them; else give one of them the other as a dependency"
    )


def _ordered(edges: Mapping[Key, Collection[Key]], where: object) -> list[Key]:
    """Keys, each after those that it depends on; an application as long as it goes, then the next."""
    done: dict[Key, None] = {}
    # As a recursion would, which ends at a thousand.
    for first in sorted(edges):
        if first in done:
            continue
        under_way = {first: None}
        stack = [(first, iter(sorted(edges[first])))]
        while stack:
            key, parents = stack[-1]
            parent = next((one for one in parents if one not in done), None)
            if parent is None:
                stack.pop()
                del under_way[key]
                done[key] = None
                continue
            if parent in under_way:
                path = list(under_way)
                raise ConflictingMigrations(_circle([*path[path.index(parent) :], parent]))
            under_way[parent] = None
            stack.append((parent, iter(sorted(edges[parent]))))
    return list(done)


def _circle(path: Sequence[Key]) -> str:
    apps = {app for app, _ in path}
    advice = (
        "split the migration that makes both, so that a foreign key is added in a later one"
        if len(apps) > 1
        else "a migration depends on earlier ones alone"
    )
    return f"migrations depend on each other in a circle: {' → '.join(map(_told, path))} (→ depends on); {advice}"


def _closure(keys: Iterable[Key], edges: Mapping[Key, Iterable[Key]]) -> set[Key]:
    found = set(keys)
    waiting = list(found)
    while waiting:
        for key in edges[waiting.pop()]:
            if key not in found:
                found.add(key)
                waiting.append(key)
    return found


def _is_key(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(isinstance(part, str) for part in value)


def _told(key: Key) -> str:
    return ".".join(filter(None, key))


def _nearest(key: Key, known: Iterable[Key]) -> str:
    """The end of a message about a migration that is not there."""
    names = [name for app, name in known if app == key[0]]
    if not names:
        apps = sorted({app for app, _ in known})
        near = get_close_matches(key[0], apps, 1)
        return f"; {key[0]!r} has no migrations{f', did you mean {near[0]!r}?' if near else ''}"
    number = [name for name in names if name.partition("_")[0] == key[1].partition("_")[0]]
    near = number[:1] or get_close_matches(key[1], names, 1)
    return f"; did you mean {near[0]!r}?" if near else f"; the last one of {key[0]!r} is {max(names)!r}"
