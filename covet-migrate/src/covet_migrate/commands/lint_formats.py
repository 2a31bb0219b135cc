"""What `covet migrations lint` prints: for people, for programs, and for GitHub."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from covet_migrate.files.loader import Files
    from covet_migrate.operations.base import Operation
    from covet_migrate.safety.findings import Finding

__all__ = ["FORMATS", "Placed", "placed", "print_rules"]

COLORS = {"error": "red", "warning": "yellow", "note": "cyan"}
ANNOTATIONS = {"error": "error", "warning": "warning", "note": "notice"}
"""How GitHub calls what is as bad."""
WIDTH = 100


@dataclass(frozen=True, slots=True)
class Placed:
    """A finding, where it stands, and how it is waived.

    Attributes:
        finding: the finding.
        file: the file of its migration, from here; empty where it has none.
        line: the line at which the operation begins, from 1; 1 where that is not known.
        waive: what says that somebody has looked at it; empty where it cannot be waived.
    """

    finding: Finding
    file: str
    line: int
    waive: str


def placed(found: Iterable[Finding], files: Files) -> list[Placed]:
    """Findings with their places.

    Args:
        found: the findings.
        files: the migrations that they are about.
    """
    from covet_migrate.safety.places import operation_lines

    lines: dict[str, list[int]] = {}
    files_by_name = {str(one.migration): one for one in files.files.values()}
    made = []
    for finding in found:
        where = finding.where
        file = files_by_name.get(where.migration)
        if file is None:
            made.append(Placed(finding, "", 1, ""))
            continue
        if where.migration not in lines:
            lines[where.migration] = operation_lines(file.content)
        known = lines[where.migration]
        line = known[where.operation - 1] if where.operation <= len(known) else 1
        waive = _waive(finding, list(file.migration.operations)[where.operation - 1])
        made.append(Placed(finding, _from_here(file.path), line, waive))
    return made


def _from_here(path: Path) -> str:
    here = Path.cwd()
    return path.relative_to(here).as_posix() if path.is_relative_to(here) else os.fspath(path)


def _waive(finding: Finding, operation: Operation) -> str:
    from covet_migrate.operations.wrapping import Reviewed
    from covet_migrate.safety.linting import UNUSED_REVIEW

    if finding.rule == UNUSED_REVIEW:
        return ""
    if isinstance(operation, Reviewed):
        return f"add {finding.rule!r} to the rules of its Reviewed(...)"
    return f'operations.Reviewed({type(operation).__name__}(...), "why it may be done", rules=["{finding.rule}"])'


def _print_text(found: Sequence[Placed]) -> None:
    """By migration and operation, and how many there are."""
    for migration, of_migration in groupby(found, lambda one: one.finding.where.migration):
        click.secho(migration, bold=True)
        for (number, description), group in groupby(
            of_migration, lambda one: (one.finding.where.operation, one.finding.where.description)
        ):
            of_operation = list(group)
            first = of_operation[0]
            place = click.style(f" ({first.file}:{first.line})", dim=True) if first.file else ""
            click.echo(f"  {number}. {description}{place}")
            for one in of_operation:
                for line in _lines(one.finding):
                    click.echo(line)
            for line in _how_to_waive(of_operation):
                click.echo(line)
    counts = [sum(str(one.finding.severity) == severity for one in found) for severity in COLORS]
    told = [f"{count} {name}{'s' * (count != 1)}" for count, name in zip(counts, COLORS, strict=True) if count]
    click.echo(", ".join(told) + "." if told else "Nothing found.")


def _lines(finding: Finding) -> Iterator[str]:
    severity = str(finding.severity)
    yield f"     {click.style(severity, fg=COLORS[severity], bold=True)} {finding.rule}: {finding.what}"
    if finding.where.statement:
        yield from _folded("", finding.where.statement)
    if finding.effect:
        yield from _folded("Lock: ", finding.effect)
    yield from _folded("Why: ", finding.why)
    yield from _folded("Instead: ", finding.instead)


def _how_to_waive(found: Sequence[Placed]) -> Iterable[str]:
    """All that is found in an operation is waived together."""
    waived = [one for one in found if one.waive]
    if not waived:
        return []
    rules = ", ".join(f'"{name}"' for name in dict.fromkeys(one.finding.rule for one in waived))
    text = waived[0].waive
    if text.startswith("add "):
        text = f"add {rules} to the rules of its Reviewed(...)"
    else:
        text = text.partition("rules=[")[0] + f"rules=[{rules}])"
    return _folded("Waive: ", text, 5)


def _folded(head: str, text: str, indent: int = 7) -> Iterable[str]:
    return textwrap.wrap(
        f"{head}{text}",
        WIDTH,
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + 2),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _print_json(found: Sequence[Placed]) -> None:
    """A list of objects."""
    told = [{**one.finding.as_dict(), "file": one.file, "line": one.line, "waive": one.waive} for one in found]
    click.echo(json.dumps(told, indent=2))


def _print_github(found: Sequence[Placed]) -> None:
    """Workflow commands, which GitHub shows beside the lines of a pull request
    (https://docs.github.com/actions/reference/workflow-commands-for-github-actions)."""
    for one in found:
        finding = one.finding
        parts = {"file": one.file, "line": str(one.line), "title": f"{finding.rule}: {finding.what}"}
        properties = ",".join(f"{name}={_property(value)}" for name, value in parts.items() if value)
        text = [finding.where.statement, finding.effect, finding.why, f"Instead: {finding.instead}"]
        text += [f"Waive: {one.waive}"] if one.waive else []
        message = _message("\n".join(filter(None, text)))
        click.echo(f"::{ANNOTATIONS[str(finding.severity)]} {properties}::{message}")


def _message(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")


FORMATS: Mapping[str, Callable[[Sequence[Placed]], None]] = {
    "text": _print_text,
    "json": _print_json,
    "github": _print_github,
}
"""What prints findings, by the name of the form."""


def print_rules() -> None:
    """Print all rules, with what to do instead."""
    from covet_migrate.safety.rules import all_rules

    for rule in all_rules().values():
        severity = str(rule.severity)
        click.echo(f"{click.style(severity, fg=COLORS[severity])} {click.style(rule.name, bold=True)}: {rule.title}")
        for text in (f"Where: {', '.join(rule.kinds)}", f"Why: {rule.why}", f"Instead: {rule.instead}"):
            for line in textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="    "):
                click.echo(line)
