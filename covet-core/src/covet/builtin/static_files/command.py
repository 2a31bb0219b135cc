"""`covet static`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from covet.cli.groups import Group, command
from covet.cli.reporting import Failure, aside, colour, note, print_json, print_table
from covet.cli.targets import load_application, target_argument

if TYPE_CHECKING:
    from covet.applications import Covet
    from covet.static import StaticFiles

__all__ = ["build", "static"]

EXIT_CODES = "Exit codes: 0 all went well, 1 a failure, or with --check a build that is not current, 2 wrong usage."


@click.command(
    "static",
    cls=Group,
    example="covet static build\ncovet static build --check",
    table={
        "build": (
            "covet.builtin.static_files.command:build",
            "Give static files names with a hash, compress them, write the manifest.",
        )
    },
)
def static() -> None:
    """Prepare static files for production."""


@command("build", example="covet static build\ncovet static build --prune", exit_codes=EXIT_CODES)
@target_argument
@click.option("--check", is_flag=True, help="Write nothing; fail when the build is not what the files would give.")
@click.option("--prune", is_flag=True, help="Remove what earlier builds made and this one does not.")
@click.option("--json", "as_json", is_flag=True, help="Print an array of objects.")
def build(target: str | None, check: bool, prune: bool, as_json: bool) -> None:
    """Give static files names with a hash of their contents, compress them, and write the manifest.

    It concerns every directory that the application serves and that has a place for its build. What is there already
    is not written again. References in style sheets are renamed; pages ask for `static_url`.
    """
    from covet.static.building import build as build_files

    with aside():
        app = load_application(target)
    rows = []
    stale = False
    for path, files in _directories(app):
        with _progress(path) as progress:
            built = build_files(files, write=not check, prune=prune, progress=progress)
        rows.append((path, files, built))
        stale = stale or bool(built.written) or not built.current
    if as_json:
        print_json(
            [
                {
                    "path": path, "directory": files.directory, "build": files.build, "files": built.files,
                    "written": built.written, "removed": built.removed,
                }
                for path, files, built in rows
            ]
        )  # fmt: skip
    elif rows:
        print_table(
            ["path", "files", "written", "removed", "build"],
            [
                [path, str(built.files), str(len(built.written)), str(len(built.removed)), str(files.build)]
                for path, files, built in rows
            ],
        )
    else:
        click.echo(
            "The application has no static files to build: name a directory in [plugins.static_files.directories]."
        )
    if check and stale:
        raise Failure("the build is not what the static files would give; run `covet static build`")


def _directories(app: Covet) -> Iterator[tuple[str, StaticFiles]]:
    """The directories that can be built, each once, with the path that it is served at."""
    from covet.routing import Route
    from covet.static import StaticFiles

    targets: dict[str, str] = {}
    for route in app.routes:
        files = route.marks.get(StaticFiles) if isinstance(route, Route) else None
        if files is None:
            continue
        path = route.path.partition("{")[0]
        if files.build is None:
            note(f"{path} is not built: nothing says where, as `build` does")
        elif targets.setdefault(files.build, files.directory) != files.directory:
            raise Failure(
                f"{path} and another path are built into one directory, {files.build}\n"
                "  Give one of them a `build` of its own."
            )
        else:
            yield path, files


@contextmanager
def _progress(path: str) -> Iterator[Callable[[str, int, int], None]]:
    """A bar on a terminal, and nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda name, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True, no_color=colour() is False)
    columns = (TextColumn(path), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[file]}"))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(path, total=None, file="")

        def show(name: str, done: int, total: int) -> None:
            bar.update(task, total=total, completed=done, file=name)

        yield show
