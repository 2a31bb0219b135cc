"""The order in which models are created that refer to each other, and what of them comes later.

A model is created after those that it refers to. Where models refer to each other in a circle, one of them is created
without the fields that close it, and gets them when all are there.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence

from covet_migrate.changes.definitions import defining, gone_from
from covet_migrate.changes.detected import Detected, targets
from covet_migrate.changes.fields import adding, names_in
from covet_migrate.exceptions import MigrationError
from covet_migrate.operations.models import AlterUniqueTogether, CreateModel
from covet_migrate.state.models import ModelState
from covet_orm.fields.related import RelatedField

__all__ = ["circles", "created"]

Links = Mapping[str, Mapping[str, set[str]]]
"""By model, the models that it refers to, each with the names of the fields that do."""


def created(models: Sequence[ModelState]) -> tuple[list[Detected], list[Detected]]:
    """The operations that create models, and those that add what has to come later: fields, and what names them.

    Raises:
        MigrationError: the keys of models refer to each other in a circle, so that none can be the first.
    """
    by_label = {model.label: model for model in models}
    links = {label: _links(model, by_label) for label, model in by_label.items()}
    creations: list[Detected] = []
    later: list[Detected] = []
    for label, without in _order(by_label, links):
        creation, rest = _creating(by_label[label], without)
        creations.append(creation)
        later += rest
    return creations, later


def circles(links: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """What refers to each other, all of it: the strongly connected components of a graph, each after those that it
    leads to (Tarjan, Depth-First Search and Linear Graph Algorithms, 1972).

    Args:
        links: by node, the nodes that it leads to.
    """
    found: list[list[str]] = []
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    waiting: list[str] = []
    inside: set[str] = set()
    for root in links:
        if root in index:
            continue
        # The calls of the recursive form, as a program may have more models than Python has frames.
        calls = [(root, iter(links[root]))]
        index[root] = low[root] = len(index)
        waiting.append(root)
        inside.add(root)
        while calls:
            node, left = calls[-1]
            following = next(left, None)
            if following is None:
                calls.pop()
                if calls:
                    low[calls[-1][0]] = min(low[calls[-1][0]], low[node])
                if low[node] == index[node]:
                    position = waiting.index(node)
                    found.append(waiting[position:])
                    inside.difference_update(waiting[position:])
                    del waiting[position:]
            elif following not in index:
                index[following] = low[following] = len(index)
                waiting.append(following)
                inside.add(following)
                calls.append((following, iter(links[following])))
            elif following in inside:
                low[node] = min(low[node], index[following])
    return found


def _links(model: ModelState, among: Mapping[str, ModelState]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name, field in model.fields.items():
        if isinstance(field, RelatedField):
            for target in targets(model, (field,)):
                if target in among:
                    found.setdefault(target, set()).add(name)
    return found


def _order(models: Mapping[str, ModelState], links: Links) -> list[tuple[str, set[str]]]:
    """Models in the order of their creation, each with the fields that it is created without."""
    waits = {label: set(links[label]) for label in models}
    waited_for: dict[str, list[str]] = {}
    for label, others in waits.items():
        for other in others:
            waited_for.setdefault(other, []).append(label)
    ready = [label for label, others in waits.items() if not others]
    heapq.heapify(ready)
    ordered: list[tuple[str, set[str]]] = []
    without: dict[str, set[str]] = {}
    while waits:
        if not ready:
            label, fields = _broken(models, links, waits)
            without[label] = fields
            waits[label] = set()
            ready.append(label)
        label = heapq.heappop(ready)
        if waits.pop(label, None) is None:
            continue
        ordered.append((label, without.get(label, set())))
        for other in waited_for.get(label, ()):
            left = waits.get(other)
            if left is not None and label in left:
                left.discard(label)
                if not left:
                    heapq.heappush(ready, other)
    return ordered


def _broken(models: Mapping[str, ModelState], links: Links, waits: Mapping[str, set[str]]) -> tuple[str, set[str]]:
    """The model of a circle that is created first, and the fields that it is created without: as few as can be."""
    circle = next(one for one in circles({label: sorted(waits[label]) for label in sorted(waits)}) if len(one) > 1)
    best: tuple[tuple[int, int, int, str], set[str]] | None = None
    for label in sorted(circle):
        fields = {name for other in waits[label] for name in links[label][other]}
        fields |= _computed_of(models[label], fields)
        if any(models[label].fields[name].primary_key for name in fields):
            continue
        columns = [one for name in fields if (one := models[label].fields[name]).column_is_there]
        # A column that may be NULL is the easiest to add, after the table of a many-to-many field.
        cost = (sum(not one.null for one in columns), len(columns), len(fields), label)
        if best is None or cost < best[0]:
            best = (cost, fields)
    if best is None:
        raise MigrationError(
            f"the keys of {', '.join(sorted(circle))} refer to each other in a circle, so that no table can be the "
            "first: give one of them a key of its own"
        )
    return best[0][3], best[1]


def _computed_of(model: ModelState, names: set[str]) -> set[str]:
    """The generated fields that are computed of some fields."""
    return {name for name, field in model.fields.items() if field.generated and not names.isdisjoint(names_in(field))}


def _creating(model: ModelState, without: set[str]) -> tuple[Detected, list[Detected]]:
    if not without:
        return _creation(model, model), []
    first = model.with_fields({name: field for name, field in model.fields.items() if name not in without})
    later = [adding(model, name) for name in sorted(without, key=lambda name: (model.fields[name].generated, name))]
    together = tuple(names for names in model.options.get("unique_together", ()) if gone_from(names, without) is None)
    options = {"unique_together": together}
    if together != model.options.get("unique_together", ()):
        operation = AlterUniqueTogether(model.name, model.options["unique_together"])
        later.append(Detected(model.app, operation, model.label))
    for option in ("indexes", "constraints"):
        all_of_them = model.options.get(option, ())
        options[option] = tuple(one for one in all_of_them if gone_from(one, without) is None)
        later += [defining(model, option, one) for one in all_of_them if one not in options[option]]
    return _creation(model, first.with_options(**options)), later


def _creation(model: ModelState, first: ModelState) -> Detected:
    operation = CreateModel(model.name, first.fields, first.options)
    needs = frozenset(targets(model, first.fields.values()))
    return Detected(model.app, operation, model.label, changes=True, needs=needs)
