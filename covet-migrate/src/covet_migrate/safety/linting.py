"""What the rules find in migrations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from covet.settings_schema import nearest
from covet_migrate.actions.actions import CreateTable, Execute, Online
from covet_migrate.actions.custom import CustomAction
from covet_migrate.ddl import LATEST, steps_of
from covet_migrate.execution.stages import Stage, Target, described, stages_of
from covet_migrate.migrations import Migration
from covet_migrate.operations.wrapping import Reviewed
from covet_migrate.safety.effects import Effect, effects_of
from covet_migrate.safety.findings import Finding, Where
from covet_migrate.safety.raw_sql import RawStatement, read_sql
from covet_migrate.safety.rules import Found, Rule, Subject, all_rules
from covet_migrate.state.models import State
from covet_migrate.state.rendering import Renderer
from covet_migrate.steps import Statement, Step

__all__ = ["UNUSED_REVIEW", "findings_of", "lint"]

UNUSED_REVIEW = "unused-review"
"""The rule about reviews of what is not found: it is found when all others have been asked."""


def lint(
    migrations: Iterable[tuple[Migration, State]],
    kind: str,
    version: tuple[int, ...] | None = None,
    *,
    alias: str = "default",
) -> list[Finding]:
    """What the rules find in migrations, without a database.

    Args:
        migrations: each with the state before it.
        kind: `postgresql`, `mysql`, `mariadb` or `sqlite`.
        version: of the server, such as `(15, 4)`; one of now by default.
        alias: of the database.

    Returns:
        The findings, in the order of the migrations and their operations, the worst of an operation first.

    Raises:
        MigrationError: an operation does not fit its state, or there is no such database.
    """
    target = Target(kind, version or LATEST.get(kind, ()), alias, steps_of, Renderer())
    return [finding for migration, before in migrations for finding in findings_of(migration, before, target)]


def findings_of(migration: Migration, before: State, target: Target, *, backward: bool = False) -> list[Finding]:
    """What the rules find in one migration.

    Args:
        migration: the migration.
        before: the state before it, also where it is taken back.
        target: what it is run on.
        backward: whether it is taken back.

    Raises:
        Irreversible: it cannot be taken back.
        MigrationError: an operation does not fit its state.
    """
    stages = stages_of(migration, before, target, backward=backward)
    effects = _effects(stages, target)
    new = frozenset(
        action.table.name for stage in stages for action in _flat(stage.actions) if isinstance(action, CreateTable)
    )
    found: list[Finding] = []
    earlier: list[tuple[Step, Effect]] = []
    for stage, of_stage in zip(stages, effects, strict=True):
        subject = Subject(
            migration=migration,
            stage=stage,
            kind=target.kind,
            version=target.version,
            effects=of_stage,
            earlier=tuple(earlier),
            new_tables=new,
            flat=tuple(_flat(stage.actions)),
            raw=tuple(_written(stage, of_stage, target.kind)),
        )
        of_operation = [_finding(rule, one, subject) for rule, one in _broken(subject)]
        found += sorted(_without_reviewed(of_operation, subject), key=lambda one: one.severity.rank)
        earlier += zip(stage.steps, of_stage, strict=True)
    return found


def _effects(stages: Sequence[Stage], target: Target) -> list[list[Effect]]:
    """The effects of the steps of each stage; what one has shown of the rows is known to those behind it."""
    flat = iter(effects_of([step for stage in stages for step in stage.steps], target.kind, target.version))
    return [[next(flat) for _ in stage.steps] for stage in stages]


def _flat(actions: Iterable[object]) -> Iterator[object]:
    """The actions, those within others as well."""
    for one in actions:
        if isinstance(one, Online):
            yield from _flat(one.actions)
        else:
            yield one


def _written(stage: Stage, effects: Sequence[Effect], kind: str) -> Iterator[tuple[Step, RawStatement]]:
    for step, effect in zip(stage.steps, effects, strict=True):
        written = step.action is None or isinstance(step.action, Execute)
        unknown = isinstance(step.action, CustomAction) and not effect.known
        if isinstance(step, Statement) and (written or unknown):
            for statement in read_sql(step.sql, kind):
                yield step, statement


def _broken(subject: Subject) -> Iterator[tuple[Rule, Found]]:
    for rule in all_rules().values():
        if subject.kind in rule.kinds:
            for one in rule.check(subject):
                yield rule, one


def _where(subject: Subject, step: Step | None = None) -> Where:
    operation = subject.stage.operation
    statement = described(step) if step is not None else ""
    return Where(str(subject.migration), subject.stage.number + 1, operation.describe(), statement)


def _finding(rule: Rule, found: Found, subject: Subject) -> Finding:
    effect = next((text for step, one in subject.raw if step is found.step and (text := one.describe())), "")
    for step, its in zip(subject.stage.steps, subject.effects, strict=True):
        if step is found.step and its.known:
            effect = its.describe()
    where = _where(subject, found.step)
    return Finding(rule.name, rule.severity, where, found.what, rule.why, rule.instead, effect)


def _without_reviewed(found: Sequence[Finding], subject: Subject) -> Iterator[Finding]:
    operation = subject.stage.operation
    if not isinstance(operation, Reviewed):
        yield from found
        return
    known = all_rules()
    for finding in found:
        if operation.rules is not None and finding.rule not in operation.rules:
            yield finding
    there = {finding.rule for finding in found}
    if operation.rules is None:
        if not there:
            yield _unused("no rule finds anything in the operation", subject)
        return
    for name in operation.rules:
        if name not in known:
            yield _unused(f"there is no rule {name!r}{nearest(name, known)}", subject)
        elif name not in there and subject.kind in known[name].kinds:
            yield _unused(f"{name} finds nothing in the operation", subject)


def _unused(what: str, subject: Subject) -> Finding:
    rule = all_rules()[UNUSED_REVIEW]
    return Finding(rule.name, rule.severity, _where(subject), what, rule.why, rule.instead)
