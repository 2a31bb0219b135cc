"""`covet migrations lint`."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import click

from covet.cli.groups import command
from covet.cli.reporting import Failure
from covet_migrate.commands.project import app_option, database_option, failures, load_project

if TYPE_CHECKING:
    from covet_migrate.commands.project import Project
    from covet_migrate.migrations import Migration
    from covet_migrate.safety.findings import Finding

__all__ = ["lint"]

COLORS = {"error": "red", "warning": "yellow", "note": "cyan"}
WIDTH = 100


@command(
    "lint",
    example="covet migrations lint\ncovet migrations lint blog 0003 --dialect postgresql --server-version 15\n"
    "covet migrations lint --json --strict",
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
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option("--strict", is_flag=True, help="Exit with 1 for warnings as well.")
@click.option("--rules", "only_rules", is_flag=True, help="Print the rules, and look at nothing.")
def lint(
    app: str | None,
    name: str | None,
    target: str | None,
    alias: str | None,
    dialect: str | None,
    server_version: str | None,
    as_json: bool,
    strict: bool,
    only_rules: bool,
) -> None:
    """Find what is not safe in migrations: what loses data, breaks code that runs, or keeps others waiting.

    All migrations are looked at, those of an application, or one of them. What somebody has looked at stands in
    operations.Reviewed(operation, "why").
    """
    from covet_migrate.safety import linting

    if only_rules:
        _print_rules()
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
    if as_json:
        import json

        click.echo(json.dumps([one.as_dict() for one in found], indent=2))
    else:
        print_findings(found)
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


def print_findings(found: Sequence[Finding]) -> None:
    """Print findings, by migration and operation, and how many there are."""
    for migration, of_migration in groupby(found, lambda one: one.where.migration):
        click.secho(migration, bold=True)
        for (number, description), group in groupby(
            of_migration, lambda one: (one.where.operation, one.where.description)
        ):
            click.echo(f"  {number}. {description}")
            for finding in group:
                for line in _lines(finding):
                    click.echo(line)
    counts = [sum(str(one.severity) == severity for one in found) for severity in COLORS]
    told = [f"{count} {name}{'s' * (count != 1)}" for count, name in zip(counts, COLORS, strict=True) if count]
    click.echo(", ".join(told) + "." if told else "Nothing found.")


def _lines(finding: Finding) -> Iterator[str]:
    severity = str(finding.severity)
    yield f"     {click.style(severity, fg=COLORS[severity], bold=True)} {finding.rule}: {finding.what}"
    if finding.where.statement:
        yield from _folded("", finding.where.statement)
    if finding.effect:
        yield from _folded("", finding.effect)
    yield from _folded("Why: ", finding.why)
    yield from _folded("Instead: ", finding.instead)


def _folded(head: str, text: str) -> Iterable[str]:
    return textwrap.wrap(
        f"{head}{text}", WIDTH, initial_indent=" " * 7, subsequent_indent=" " * 9, break_long_words=False
    )


def _print_rules() -> None:
    from covet_migrate.safety.rules import all_rules

    for rule in all_rules().values():
        severity = str(rule.severity)
        click.echo(f"{click.style(severity, fg=COLORS[severity])} {click.style(rule.name, bold=True)}: {rule.title}")
        for text in (f"Where: {', '.join(rule.kinds)}", f"Why: {rule.why}", f"Instead: {rule.instead}"):
            for line in textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="    "):
                click.echo(line)
