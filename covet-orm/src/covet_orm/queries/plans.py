"""Plans: what is kept of a query that was compiled, so that the next one of its shape costs no more than its values.

Two functions of a plan are generated: the one that brings values into the driver's order, and the one that makes
objects of rows. Only names of fields, which are identifiers, and numbers become text of generated code.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from covet_orm.dialects import Compiled, compile_statement
from covet_orm.exceptions import QueryError

if TYPE_CHECKING:
    from sqlalchemy.sql import ClauseElement

    from covet_orm.queries.scope import Parameters

__all__ = ["Bind", "Plan", "PlanCache", "binding", "make_plan"]

Bind = Callable[[Sequence[Any]], Sequence[Any]]
"""Brings the values of a shape into the driver's order, converted and checked."""


class Plan(NamedTuple):
    """A compiled statement.

    Attributes:
        sql: its text.
        bind: makes its parameters of the values of its shape.
        load: makes results of its rows: `load(rows, database)`; None where rows are the results.
        shape: names it in events and in statistics.
    """

    sql: str
    bind: Bind
    load: Callable[[list[Any], Any], list[Any]] | None
    name: str


class PlanCache:
    """Plans by shape, the oldest forgotten first.

    Args:
        size: how many are kept.
    """

    def __init__(self, size: int = 4096) -> None:
        self.size = size
        self._plans: dict[Hashable, Plan] = {}
        self.get = self._plans.get

    def put(self, shape: Hashable, plan: Plan) -> Plan:
        """Keep a plan."""
        while len(self._plans) >= self.size:
            del self._plans[next(iter(self._plans))]
        self._plans[shape] = plan
        return plan

    def clear(self) -> None:
        """Forget all of them."""
        self._plans.clear()

    def __len__(self) -> int:
        return len(self._plans)


def make_plan(
    statement: ClauseElement,
    kind: str,
    parameters: Parameters,
    load: Callable[[list[Any], Any], list[Any]] | None,
    name: str,
) -> Plan:
    """Compile a statement whose parameters a scope gave out."""
    compiled = compile_statement(statement, kind)
    return Plan(compiled.sql, binding(compiled, parameters), load, name)


def binding(compiled: Compiled, parameters: Parameters) -> Bind:
    """Generate what brings the values of a shape into the order of a compiled statement.

    A value that its field does not take becomes a QueryError that names the field.
    """
    scope: dict[str, Any] = {}
    lines: list[str] = []
    spread: set[int] = set()
    places: list[str] = []
    for place, name in enumerate(compiled.names):
        number, _, index = name[1:].partition("_")
        if not (name.startswith("p") and number.isdigit() and int(number) < len(parameters.binders)):
            # A value that the statement itself holds.
            value = compiled.defaults[name]
            process = compiled.processors.get(name)
            scope[f"c{place}"] = value if process is None or value is None else process(value)
            places.append(f"c{place}")
            continue
        scope[f"b{number}"] = parameters.binders[int(number)]
        if index:
            if int(number) not in spread:
                spread.add(int(number))
                lines.append(f" l{number} = b{number}(v[{number}])")
            places.append(f"l{number}[{index}]")
        else:
            places.append(f"None if v[{number}] is None else b{number}(v[{number}])")
    if not places:
        return _nothing
    body = f"({', '.join(places)},)"
    exec("\n".join(["def bind(v):", *lines, f" return {body}"]), scope)
    bind: Bind = scope["bind"]
    return bind


def refused(error: ValueError, parameters: Parameters, values: Sequence[Any]) -> QueryError:
    """The error for a value that its field does not take."""
    for field, bind, value in zip(parameters.fields, parameters.binders, values, strict=False):
        if value is None:
            continue
        try:
            bind(value)
        except ValueError as cause:
            return QueryError(
                f"{field.model.__name__}.{field.name}: {cause}"
                if field is not None and hasattr(field, "model")
                else str(cause)
            )
    return QueryError(str(error))


def _nothing(values: Sequence[Any]) -> tuple[()]:
    return ()
