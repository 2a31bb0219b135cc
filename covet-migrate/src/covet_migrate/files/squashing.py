"""Squashing: one migration in the place of several.

A squashed migration comes after all that those which it replaces depend on, and before all that depends on one of them.
Where a migration of another application comes in between, that would be a circle; so there, one squashed migration ends
and another one begins.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from covet_migrate.changes.optimizer import optimize
from covet_migrate.exceptions import MigrationError, MigrationNotFound
from covet_migrate.files.graph import Graph
from covet_migrate.migrations import Key, Migration
from covet_migrate.operations.base import Operation
from covet_migrate.operations.models import CreateModel
from covet_migrate.operations.wrapping import Wrapping, unwrapped
from covet_migrate.state.models import State

__all__ = ["Squashed", "chosen", "squash"]

SquashName = Callable[[Sequence[Migration]], str]
"""Gives the name of a squashed migration by those that it replaces."""


@dataclass(frozen=True)
class Squashed:
    """A squashed migration, and what there is to say of it.

    Attributes:
        migration: the migration.
        before: how many operations those have that it replaces.
        elided: operations that were left out, as they say that they may be.
        kept: operations that nothing passes, so that what stands before them is not reduced with what stands behind.
    """

    migration: Migration
    before: int
    elided: list[Operation] = field(default_factory=list)
    kept: list[Operation] = field(default_factory=list)


def chosen(graph: Graph, app: str, first: str | None, last: str) -> list[Key]:
    """The migrations of an application from one to another, in order.

    Args:
        graph: all migrations.
        app: the application.
        first: the name of the first, or the beginning of it; that without another one before it by default.
        last: the name of the last.

    Raises:
        MigrationNotFound: there is no such migration.
        MigrationError: the first does not come before the last.
    """
    end = graph.find(app, last)
    before = graph.ancestors([end])
    left: set[Key] = set()
    if first is not None:
        begin = graph.find(app, first)
        if begin not in before:
            raise MigrationError(
                f"{begin[1]} does not come before {end[1]} in {app!r}: squashing goes from a migration to a later one"
            )
        left = graph.ancestors([begin]) - {begin}
    return [key for key in graph.migrations if key[0] == app and key in before and key not in left]


def squash(
    graph: Graph, keys: Sequence[Key], name: SquashName, *, optimized: bool = True
) -> tuple[list[Squashed], list[list[Key]]]:
    """Squashed migrations in the place of some of an application; several where others come in between.

    Args:
        graph: all migrations.
        keys: those that are replaced, from `chosen`.
        name: gives the names.
        optimized: whether operations are reduced, and those left out that say that they may be.

    Returns:
        The squashed migrations, in order; and the parts that `keys` were split into, of which those with one migration
        alone stay as they are.

    Raises:
        MigrationNotFound: there are no two migrations to squash.
        MigrationError: the squashed operations would make other models than those that they replace.
    """
    if len(keys) < 2:
        told = f"{keys[0][1]} alone" if keys else "none"
        raise MigrationNotFound(
            f"there is nothing to squash: a squashed migration replaces two or more, and this is {told}"
        )
    parts = _parts(graph, keys)
    made: list[Squashed] = []
    inside: dict[Key, Key] = {}
    for part in parts:
        if len(part) == 1:
            continue
        members = [graph[key] for key in part]
        new = _squashed(graph, members, name(members), inside, optimized=optimized)
        inside.update(dict.fromkeys(part, new.migration.key))
        made.append(new)
    return made, parts


def _parts(graph: Graph, keys: Sequence[Key]) -> list[list[Key]]:
    """The migrations in groups, such that nothing else depends on one of a group and is needed by another one of it."""
    wanted = set(keys)
    level: dict[Key, int] = {}
    for key in graph.migrations:
        found = -1
        for parent in graph.parents[key]:
            above = level[parent]
            if parent not in wanted and key in wanted and above >= 0:
                # It came in between.
                above += 1
            found = max(found, above)
        level[key] = max(found, 0) if key in wanted else found
    groups: dict[int, list[Key]] = {}
    for key in keys:
        groups.setdefault(level[key], []).append(key)
    return [groups[number] for number in sorted(groups)]


def _squashed(
    graph: Graph, members: Sequence[Migration], name: str, inside: dict[Key, Key], *, optimized: bool
) -> Squashed:
    app = members[0].app
    keys = [one.key for one in members]
    before = graph.state([parent for key in keys for parent in graph.parents[key] if parent not in keys] or ())
    given = [operation for one in members for operation in one.operations]
    left, elided, after = (
        _without_elidable(given, before, app) if optimized else (given, [], _after(given, before, app))
    )
    operations = _optimized(_plain(left, app), app) if optimized else left
    if not _same(_after(operations, before, app), after):
        raise MigrationError(
            f"the squashed operations of {app} would make other models than those that they replace: that is an error "
            "of one of these operations; --no-optimize leaves them as they are"
        )
    loose = {id(operation) for one in members if not one.atomic for operation in one.operations}
    migration = Migration(
        operations=operations,
        dependencies=_dependencies(graph, keys, inside),
        run_before=list(dict.fromkeys(key for one in members for key in one.run_before if key not in keys)),
        replaces=keys,
        initial=True if any(one.is_initial for one in members) else None,
        atomic=not any(id(operation) in loose for operation in operations),
        app=app,
        name=name,
    )
    return Squashed(migration, len(given), elided, [one for one in operations if one.touches(app) is None])


def _without_elidable(
    operations: Sequence[Operation], state: State, app: str
) -> tuple[list[Operation], list[Operation], State]:
    """Operations without those that may be left out; one that changes the models stays, whatever it says."""
    left: list[Operation] = []
    elided: list[Operation] = []
    for operation in operations:
        then = operation.apply(state, app)
        (elided if operation.elidable and then is state else left).append(operation)
        state = then
    return left, elided, state


def _plain(operations: Sequence[Operation], app: str) -> list[Operation]:
    """Operations without what is around them for the sake of tables with rows, where the table is made with them."""
    created = {label for one in operations if isinstance(one, CreateModel) for label in one.touches(app) or ()}
    return [
        unwrapped(one) if isinstance(one, Wrapping) and created.issuperset(one.touches(app) or [""]) else one
        for one in operations
    ]


def _optimized(operations: Sequence[Operation], app: str) -> list[Operation]:
    """Operations reduced, those within others (`Online`, `Reviewed`) as well; what is not reduced stays within."""
    around = {id(unwrapped(one)): one for one in operations}
    return [around.get(id(one), one) for one in optimize([unwrapped(one) for one in operations], app)]


def _after(operations: Sequence[Operation], state: State, app: str) -> State:
    for operation in operations:
        state = operation.apply(state, app)
    return state


def _same(one: State, other: State) -> bool:
    """Whether two states are the same, whatever the order of their models."""
    from covet_migrate.changes.detector import detect
    from covet_migrate.changes.questions import Unattended

    try:
        return not detect(one, other, Unattended())
    except MigrationError:
        # What is asked about differs.
        return False


def _dependencies(graph: Graph, keys: Collection[Key], inside: dict[Key, Key]) -> list[Key]:
    """What comes before migrations that become one, without what comes before something of that anyway."""
    found = {parent for key in keys for parent in graph.parents[key] if parent not in keys}
    implied: set[Key] = set()
    for key in found:
        implied |= {one for one in graph.ancestors([key]) - {key} if one[0] == key[0]}
    return sorted({inside.get(key, key) for key in found - implied})
