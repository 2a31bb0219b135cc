"""The SQL of migrations, as people read it."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import click

from covet_migrate.ddl import steps_of
from covet_migrate.ddl.rebuilding import rebuild_statements
from covet_migrate.execution.stages import Target, described, stages_of
from covet_migrate.state.rendering import Renderer
from covet_migrate.steps import RebuildTable, Statement, Step

if TYPE_CHECKING:
    from covet_migrate.commands.project import Project
    from covet_migrate.migrations import Migration
    from covet_orm import Database

__all__ = ["print_steps", "sql_of"]


def print_steps(
    project: Project, migration: Migration, database: Database, version: tuple[int, ...], *, backward: bool
) -> None:
    """Print the steps of a migration on a database."""
    for line in sql_of(project, migration, database.kind, version, database.alias, backward=backward):
        click.echo(textwrap.indent(line, "  "))


def sql_of(
    project: Project,
    migration: Migration,
    kind: str,
    version: tuple[int, ...],
    alias: str = "default",
    *,
    backward: bool = False,
) -> list[str]:
    """The lines of SQL of a migration; what is no SQL is a comment.

    Args:
        project: with all migrations.
        migration: which one.
        kind: `postgresql`, `mysql`, `mariadb` or `sqlite`.
        version: of the server.
        alias: of the database.
        backward: whether it is taken back.

    Raises:
        Irreversible: it cannot be taken back.
    """
    before = project.files.graph().state(migration.key, before=True)
    target = Target(kind, version, alias, steps_of, Renderer())
    lines: list[str] = []
    for stage in stages_of(migration, before, target, backward=backward):
        lines.append(f"-- {stage.operation.describe()}{' (taken back)' if backward else ''}")
        for step in stage.steps:
            lines += _lines(step)
    return lines


def _lines(step: Step) -> list[str]:
    if isinstance(step, Statement):
        return [f"{_laid_out(step.sql)};", *([f"-- with {step.params!r}"] if step.params else [])]
    if isinstance(step, RebuildTable):
        return [f"{_laid_out(sql)};" for sql in rebuild_statements(step)]
    return [f"-- {described(step)}"]


def _laid_out(sql: str) -> str:
    """A statement without what cannot be seen: tabulators, and blanks at the ends of lines; those in a literal stay."""
    if "'" in sql or '"' in sql or "`" in sql:
        # Where one begins and ends, only the database knows.
        return sql
    return "\n".join(line.rstrip().expandtabs(4) for line in sql.splitlines())
