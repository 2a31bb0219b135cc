"""`covet migrations lint`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from covet.cli.groups import command
from covet.cli.reporting import Failure
from covet_migrate.commands.project import app_option, database_option, failures, load_project

if TYPE_CHECKING:
    from covet_migrate.commands.project import Project
    from covet_migrate.migrations import Migration

__all__ = ["lint"]


@command(
    "lint",
    example="covet migrations lint\ncovet migrations lint blog 0003 --dialect postgresql --server-version 15\n"
    "covet migrations lint --format github --strict",
    exit_codes="Exit codes: 0 nothing that is an error, 1 an error (with --strict, a warning as well), 2 wrong usage.",
)
@click.argument("app", required=False, metavar="[APP]")
@click.argument("name", required=False, metavar="[NAME]")
@app_option
@database_option
@click.option(
    "--dialect",
    type=click.Choice(["postgresql", "mysql", "mariadb", "sqlite"]),
    help="For which database; by default that of the application's database. No server is asked.",
)
@click.option("--server-version", metavar="VERSION", help="Of which version, such as 15.4; that of now, if not said.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "github"]),
    default="text",
    help="For people, for programs, or as annotations of GitHub's pull requests.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("--strict", is_flag=True, help="Exit with 1 for warnings as well.")
@click.option("--rules", "only_rules", is_flag=True, help="Print the rules, and look at nothing.")
def lint(
    app: str | None,
    name: str | None,
    target: str | None,
    alias: str | None,
    dialect: str | None,
    server_version: str | None,
    form: str,
    as_json: bool,
    strict: bool,
    only_rules: bool,
) -> None:
    """Find what is not safe in migrations: what loses data, breaks code that runs, or keeps others waiting.

    All migrations are looked at, those of an application, or one of them. What somebody has looked at stands in
    operations.Reviewed(operation, "why", rules=[...]); a review of what is not found any longer is found itself.
    """
    from covet_migrate.commands.lint_formats import FORMATS, placed, print_rules
    from covet_migrate.safety import linting

    if only_rules:
        with failures():
            print_rules()
        return
    project = load_project(target)
    if app is not None:
        project.check_apps([app])
    if dialect is None:
        from covet_orm.commands.chosen import one_database

        dialect = one_database(target, alias).kind
    version = None if server_version is None else _version(server_version)
    with failures():
        graph = project.files.graph()
        pairs = [(one, graph.state(one.key, before=True)) for one in _chosen(project, app, name)]
        found = linting.lint(pairs, dialect, version, alias=alias or "default")
    FORMATS["json" if as_json else form](placed(found, project.files))
    bad = {"error", "warning"} if strict else {"error"}
    if any(str(one.severity) in bad for one in found):
        raise click.exceptions.Exit(1)


def _chosen(project: Project, app: str | None, name: str | None) -> list[Migration]:
    graph = project.files.graph()
    if app is not None and name is not None:
        return [graph[graph.find(app, name)]]
    return [graph[key] for key in graph.migrations if app is None or key[0] == app]


def _version(text: str) -> tuple[int, ...]:
    parts = text.split(".")
    if not all(part.isdecimal() for part in parts):
        raise Failure(f"--server-version {text!r}: numbers with dots between them are needed, such as 15.4")
    return tuple(int(part) for part in parts)
