"""Migrations of what was detected: which operation goes into which file, and what each file depends on.

An operation depends on those before it that made a model what it needs it to be. Each application gets one migration,
and several only where applications depend on each other in a circle.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from covet_migrate.changes.detected import Detected
from covet_migrate.changes.detector import Changes
from covet_migrate.changes.optimizer import optimize
from covet_migrate.migrations import Key, Migration
from covet_migrate.operations.base import Operation
from covet_migrate.state.models import State

__all__ = ["Group", "Naming", "arrange", "grouped"]

Naming = Callable[[str, Sequence[Operation]], str]
"""Gives the name of the next migration of an application, with its number; called in the order of the migrations."""


@dataclass(slots=True)
class Group:
    """What becomes one migration.

    Attributes:
        app: the label of the application.
        number: which of its groups it is, from 0.
        operations: its operations, in order.
        dependencies: the groups that come before: pairs of an application and a number.
        others: the applications with models that were there before and that it needs.
    """

    app: str
    number: int
    operations: list[Operation] = field(default_factory=list)
    dependencies: set[tuple[str, int]] = field(default_factory=set)
    others: set[str] = field(default_factory=set)


def arrange(changes: Changes, before: State, leaves: Mapping[str, Key], name: Naming) -> list[Migration]:
    """The migrations of what was detected, each after those that it depends on.

    Args:
        changes: what was detected.
        before: the state that it was detected in.
        leaves: the last migration of each application that has some.
        name: gives the names.
    """
    names: dict[tuple[str, int], str] = {}
    found: list[Migration] = []
    for group in grouped(changes.detected, before):
        operations = optimize(group.operations, group.app)
        names[group.app, group.number] = name(group.app, operations)
        dependencies: set[Key] = {(app, names[app, number]) for app, number in group.dependencies}
        written = {app for app, _ in group.dependencies}
        # What an application made in this run comes after what it had.
        dependencies |= {leaves[app] for app in group.others - written if app in leaves}
        if group.number == 0 and group.app in leaves:
            dependencies.add(leaves[group.app])
        first = group.number == 0 and group.app not in leaves
        found.append(
            Migration(
                operations=operations,
                dependencies=sorted(dependencies),
                initial=True if first else None,
                app=group.app,
                name=names[group.app, group.number],
            )
        )
    return found


def grouped(detected: Sequence[Detected], before: State) -> list[Group]:
    """Operations by application, in as few groups as their dependencies allow, each after those that it depends on.

    Args:
        detected: the operations, in an order in which they can be done.
        before: the state that they are done in.
    """
    needs = _dependencies(detected)
    left: dict[str, list[int]] = {}
    for index, one in enumerate(detected):
        left.setdefault(one.app, []).append(index)
    place: dict[int, tuple[str, int]] = {}
    numbers: dict[str, int] = {}
    groups: list[Group] = []
    waiting = sorted(left)
    while waiting:
        chosen = _next(waiting, left, needs, place)
        for app, indices in chosen:
            number = numbers.get(app, 0)
            numbers[app] = number + 1
            groups.append(_group(app, number, indices, detected, needs, place, before))
            place.update(dict.fromkeys(indices, (app, number)))
            taken = set(indices)
            left[app] = [index for index in left[app] if index not in taken]
        waiting = [app for app in waiting if left[app]]
    return groups


def _next(
    waiting: Sequence[str],
    left: Mapping[str, Sequence[int]],
    needs: Sequence[Collection[int]],
    done: Collection[int],
) -> list[tuple[str, list[int]]]:
    """The applications of which all can be done that is left; where there is none, a part of one of them: of the first
    that makes another one ready, or of the first of which there is a part."""
    parts = {app: _ready(left[app], needs, done) for app in waiting}
    whole = [(app, parts[app]) for app in waiting if len(parts[app]) == len(left[app])]
    if whole:
        return whole
    partly = [app for app in waiting if parts[app]]
    for app in partly:
        then = {*done, *parts[app]}
        if any(len(_ready(left[other], needs, then)) == len(left[other]) for other in waiting if other != app):
            return [(app, parts[app])]
    return [(partly[0], parts[partly[0]])]


def _ready(indices: Iterable[int], needs: Sequence[Collection[int]], done: Collection[int]) -> list[int]:
    """Those operations of an application that can be done, in order."""
    found: dict[int, None] = {}
    for index in indices:
        if all(need in done or need in found for need in needs[index]):
            found[index] = None
    return list(found)


def _group(
    app: str,
    number: int,
    indices: Sequence[int],
    detected: Sequence[Detected],
    needs: Sequence[Collection[int]],
    place: Mapping[int, tuple[str, int]],
    before: State,
) -> Group:
    group = Group(app, number)
    latest: dict[str, int] = {} if number == 0 else {app: number - 1}
    for index in indices:
        one = detected[index]
        group.operations.append(one.operation)
        for need in needs[index]:
            if need in place:
                other, its_number = place[need]
                latest[other] = max(latest.get(other, 0), its_number)
        group.others |= {before[label].app for label in one.needs if label in before and before[label].app != app}
    group.dependencies = set(latest.items())
    return group


def _dependencies(detected: Sequence[Detected]) -> list[set[int]]:
    """By operation, those before it that it depends on: which changed what it needs, or needed what it changes."""
    found: list[set[int]] = []
    changed: dict[str, int] = {}
    needed: dict[str, list[int]] = {}
    touched: dict[str, int] = {}
    for index, one in enumerate(detected):
        mine: set[int] = set()
        if one.label in touched:
            mine.add(touched[one.label])
        for label in one.needs:
            if label in changed:
                mine.add(changed[label])
        if one.changes:
            mine.update(needed.pop(one.label, ()))
            changed[one.label] = index
        for label in one.needs:
            needed.setdefault(label, []).append(index)
        touched[one.label] = index
        found.append(mine)
    return found
