"""`covet migrations graph`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from covet.cli.groups import command
from covet_migrate.commands.project import app_option, failures, load_project

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from covet_migrate.files.graph import Graph
    from covet_migrate.migrations import Key

__all__ = ["as_dot", "as_mermaid", "drawn", "graph"]


@command("graph", example="covet migrations graph\ncovet migrations graph blog --dot | dot -Tsvg > blog.svg")
@click.argument("apps", nargs=-1, metavar="[APP]...")
@app_option
@click.option("--dot", "form", flag_value="dot", help="In the language of Graphviz.")
@click.option("--mermaid", "form", flag_value="mermaid", help="In the language of Mermaid.")
def graph(apps: tuple[str, ...], target: str | None, form: str | None) -> None:
    """Draw the migrations of applications, and what they need of others. No database is needed."""
    project = load_project(target)
    project.check_apps(apps)
    with failures():
        found = project.files.graph()
    chosen = apps or tuple(found.apps())
    if form == "dot":
        lines = as_dot(found, chosen)
    elif form == "mermaid":
        lines = as_mermaid(found, chosen)
    else:
        lines = drawn(found, chosen)
    for line in lines:
        click.echo(line)
    if not found.migrations:
        click.echo("There are no migrations.")


def drawn(graph: Graph, apps: Collection[str]) -> Iterator[str]:
    """Lines of a picture: the migrations of each application from the first to the last, beside each other where they
    were made beside each other; with those of others that they need.

    Args:
        graph: all migrations.
        apps: the applications.
    """
    for app in apps:
        yield click.style(app or "(no application)", bold=True)
        # By column: the migration whose child comes there next.
        lanes: list[Key | None] = []
        for key in [key for key in graph.migrations if key[0] == app]:
            yield from _drawn(graph, key, lanes)


def _drawn(graph: Graph, key: Key, lanes: list[Key | None]) -> Iterator[str]:
    app = key[0]
    waiting: list[int] = []
    for parent in graph.parents[key]:
        if parent[0] == app:
            waiting.append(next(column for column, one in enumerate(lanes) if one == parent and column not in waiting))
    waiting.sort()
    if not waiting:
        waiting = [_free(lanes)]
    column = waiting[0]
    if len(waiting) > 1:
        yield _joint(lanes, column, waiting[1:], "┴╯")
        for other in waiting[1:]:
            lanes[other] = None
    others = sorted(parent for parent in graph.parents[key] if parent[0] != app)
    lanes[column] = key
    marks = ["●" if number == column else "│" if one is not None else " " for number, one in enumerate(lanes)]
    needs = f"  needs {', '.join('.'.join(parent) for parent in others)}" if others else ""
    replaces = f"  replaces {len(list(graph[key].replaces))}" if graph[key].replaces else ""
    yield f"{' '.join(marks).rstrip()} {key[1]}{click.style(needs + replaces, dim=True)}"
    children = [child for child in graph.children[key] if child[0] == app]
    if not children:
        lanes[column] = None
    if len(children) > 1:
        new: list[int] = []
        for _ in children[1:]:
            new.append(_free(lanes))
            lanes[new[-1]] = key
        for other in new:
            lanes[other] = None
        yield _joint(lanes, column, new, "┬╮")
        for other in new:
            lanes[other] = key
    while lanes and lanes[-1] is None:
        lanes.pop()


def _free(lanes: list[Key | None]) -> int:
    """A column that nobody waits in."""
    if None not in lanes:
        lanes.append(None)
    return lanes.index(None)


def _joint(lanes: Sequence[Key | None], column: int, others: Sequence[int], corners: str) -> str:
    """The line in which columns come together, or part."""
    first, last = min(column, *others), max(column, *others)
    text = ""
    for number in range(max(len(lanes), last + 1)):
        inside = first < number < last
        if number == column:
            mark = "├" if column == first else "┤" if column == last else "┼"
        elif number in others:
            mark = corners[1] if number == last else {"┬╮": "╭", "┴╯": "╰"}[corners] if number == first else corners[0]
        else:
            mark = (
                "┼"
                if inside and lanes[number] is not None
                else "─"
                if inside
                else " "
                if lanes[number] is None
                else "│"
            )
        text += mark + ("─" if first <= number < last else " ")
    return text.rstrip()


def as_dot(graph: Graph, apps: Collection[str]) -> Iterator[str]:
    """Lines in the language of Graphviz; arrows lead to what a migration needs.

    Args:
        graph: all migrations.
        apps: the applications; what they need of others is there as well.
    """
    yield "digraph migrations {"
    yield "  rankdir=BT; node [shape=box];"
    for number, app in enumerate(apps):
        yield f"  subgraph cluster_{number} {{"
        yield f'    label="{app}";'
        for key in graph.migrations:
            if key[0] == app:
                yield f'    "{".".join(key)}" [label="{key[1]}"];'
        yield "  }"
    for child, parent in _edges(graph, apps):
        yield f'  "{".".join(child)}" -> "{".".join(parent)}";'
    yield "}"


def as_mermaid(graph: Graph, apps: Collection[str]) -> Iterator[str]:
    """Lines in the language of Mermaid; arrows lead to what comes after.

    Args:
        graph: all migrations.
        apps: the applications; what they need of others is there as well.
    """
    numbers = {key: f"m{number}" for number, key in enumerate(graph.migrations)}
    named: set[Key] = set()
    yield "flowchart TD"
    for position, app in enumerate(apps):
        yield f'  subgraph app{position}["{app}"]'
        for key in graph.migrations:
            if key[0] == app:
                named.add(key)
                yield f'    {numbers[key]}["{key[1]}"]'
        yield "  end"
    for child, parent in _edges(graph, apps):
        if parent not in named:
            named.add(parent)
            yield f'  {numbers[parent]}["{".".join(parent)}"]'
        yield f"  {numbers[parent]} --> {numbers[child]}"


def _edges(graph: Graph, apps: Collection[str]) -> Iterator[tuple[Key, Key]]:
    for key in graph.migrations:
        if key[0] in apps:
            for parent in graph.parents[key]:
                yield key, parent
