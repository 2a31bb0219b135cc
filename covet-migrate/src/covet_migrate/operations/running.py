"""Operations that run what their author wrote: SQL, and functions that move data."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from covet.settings_schema import nearest
from covet_migrate.actions.actions import Execute
from covet_migrate.exceptions import Irreversible, MigrationError
from covet_migrate.operations.base import Change, Operation
from covet_migrate.operations.models import label_of
from covet_migrate.state.models import State
from covet_migrate.steps import Call, Statement
from covet_orm.deferred import sqlalchemy
from covet_orm.dialects import KINDS, compile_statement
from covet_orm.exceptions import QueryError

if TYPE_CHECKING:
    from covet_orm import Condition, Database, Registry

__all__ = ["SQL", "RunPython", "RunSQL", "SeparateDatabaseAndState"]

OneStatement = str | tuple[str, Mapping[str, Any]]
Statements = OneStatement | Sequence[OneStatement]
SQL = Statements | Mapping[str, Statements]
"""A statement, with or without parameters, several of them, or what there is for each kind of database."""

Function = Callable[["Registry", "Database"], Awaitable[object]]
"""`async def function(models, database)`."""
BatchFunction = Callable[["Registry", list[Any]], Awaitable[object]]
"""`async def function(models, objects)`."""


class RunSQL(Operation):
    """Run SQL.

        operations.RunSQL("CREATE VIEW adults AS SELECT * FROM person WHERE age > 17", "DROP VIEW adults")
        operations.RunSQL([("UPDATE person SET country = :country", {"country": "NZ"})], operations.RunSQL.noop)
        operations.RunSQL({"postgresql": "CREATE EXTENSION citext"}, {"postgresql": "DROP EXTENSION citext"})

    A statement that changes many rows locks all of them until it ends. With `batched` it is run for one range of keys
    after the other, from `:first` to `:last`, each in a transaction of its own; so no row is locked for long, progress
    is shown, and what was interrupted goes on behind the last range. So the migration needs `atomic=False`:

        operations.RunSQL(
            "UPDATE post SET slug = lower(title) WHERE id BETWEEN :first AND :last AND slug IS NULL",
            operations.RunSQL.noop,
            batched="Post",
        )

    Args:
        sql: a statement as the database takes it; or a statement with parameters, `:name` in it, and their values; or a
            list of such; or a dictionary of those by the kind of database (`postgresql`, `mysql`, `mariadb`,
            `sqlite`): others do nothing then, and MariaDB does what is there for MySQL unless it has its own. Each
            statement is sent by itself: two in one text are none that MySQL takes. With `atomic=False` it is journalled
            by itself as well, except on SQLite, where all of an operation is one transaction.
        reverse_sql: what takes it back, in the same forms; `RunSQL.noop` where nothing has to be done. Without any it
            cannot be taken back.
        state_operations: operations that say what it changes of the models, so that these know it.
        transactional: whether the statements may be run in a transaction. With False, the migration needs
            `atomic=False`.
        batched: the model by whose keys it is run, which is of one column; of another application as `app.Name`.
        size: how many rows a range has, at the most; fewer where they take long.
        elidable: whether it may be left out where migrations are squashed.

    Raises:
        MigrationError: there is no such kind of database, what was given is no SQL, or with `batched` a statement does
            not say `:first` and `:last`.
    """

    noop = ""
    """No SQL: what was done stays, and the migration can be taken back."""

    def __init__(
        self,
        sql: SQL,
        reverse_sql: SQL | None = None,
        state_operations: Iterable[Operation] = (),
        *,
        transactional: bool = True,
        batched: str | None = None,
        size: int = 5000,
        elidable: bool = False,
    ) -> None:
        self.sql = _checked(sql)
        self.reverse_sql = None if reverse_sql is None else _checked(reverse_sql)
        self.state_operations = list(state_operations)
        self.transactional = transactional
        self.batched = batched
        self.size = size
        self.reversible = reverse_sql is not None
        self.elidable = elidable
        if batched is not None:
            _require_range([*self.sql.values(), *(self.reverse_sql or {}).values()])
            if size < 1:
                raise MigrationError(f"RunSQL(size={size}): a batch has at least one row")

    def apply(self, state: State, app: str) -> State:
        return _applied(self.state_operations, state, app)

    def describe(self) -> str:
        texts = [sql for statements in self.sql.values() for sql, _ in statements]
        return f"Run SQL: {_shortened(texts[0]) if texts else 'nothing'}"

    def file_name(self) -> str:
        return "run_sql"

    def actions(self, change: Change) -> Sequence[Any]:
        given = self.reverse_sql if change.backward else self.sql
        if given is None:
            raise Irreversible(f"{self.describe()}: it has no reverse_sql")
        fallback = given.get("mysql", ()) if change.kind == "mariadb" else ()
        statements = given.get(change.kind, given.get("", fallback))
        if self.batched is None:
            return [_statement(sql, values, change.kind, self.transactional) for sql, values in statements]
        label = self.batched if "." in self.batched else label_of(change.app, self.batched)
        if not change.lives_here(change.before[label]):
            return []
        return [
            Call(function=partial(_run_in_batches, label, sql, values, self.size), name=_shortened(sql),
                 transactional=False)
            for sql, values in statements
        ]  # fmt: skip

    def touches(self, app: str) -> Iterable[str] | None:
        return None


class RunPython(Operation):
    """Run a function that moves data.

        async def fill_slugs(models, database):
            async for post in models["blog.Post"].objects.filter(slug=""):
                post.slug = slugify(post.title)
                await post.save()

        migration = Migration(operations=[operations.RunPython(fill_slugs, operations.RunPython.noop)])

    The models are those of this point of the migrations: with fields, relations and managers, without methods of their
    own. In a migration with `atomic=False` the function may be called again after it was interrupted.

    For many rows, with `batched` it gets them so many at a time. Each batch is a transaction, so that no row is locked
    for long, progress is shown, and what was interrupted goes on behind the last batch; so the migration needs
    `atomic=False`:

        async def fill_slugs(models, posts):
            for post in posts:
                post.slug = slugify(post.title)
            await models["blog.Post"].objects.bulk_update(posts, ["slug"])

        migration = Migration(
            atomic=False, operations=[operations.RunPython(fill_slugs, operations.RunPython.noop, batched="Post")]
        )

    Args:
        function: `async def function(models, database)`; with `batched`, `async def function(models, objects)`.
        reverse: what takes it back, of the same form; `RunPython.noop` where nothing has to be done. Without any it
            cannot be taken back.
        batched: the model whose objects the functions get, in the order of its key; of another application as
            `app.Name`.
        where: which of its objects.
        size: how many at a time, at the most; fewer where they take long.
        elidable: whether it may be left out where migrations are squashed.

    Raises:
        MigrationError: a function is not `async def`, or `where` is given without `batched`.
    """

    def __init__(
        self,
        function: Function | BatchFunction,
        reverse: Function | BatchFunction | None = None,
        *,
        batched: str | None = None,
        where: Condition | None = None,
        size: int = 1000,
        elidable: bool = False,
    ) -> None:
        for one in (function, reverse):
            if one is not None and not _is_async(one):
                raise MigrationError(
                    f"RunPython({_name(one)}): it is to be `async def {_name(one)}"
                    f"(models, {'objects' if batched else 'database'})`, or nothing would wait for what it asks of the "
                    "database"
                )
        if batched is None and where is not None:
            raise MigrationError(f"RunPython({_name(function)}, where=...) is of no model; name one with batched=")
        if size < 1:
            raise MigrationError(f"RunPython({_name(function)}, size={size}): a batch has at least one object")
        self.function = function
        self.reverse = reverse
        self.batched = batched
        self.where = where
        self.size = size
        self.reversible = reverse is not None
        self.elidable = elidable

    @staticmethod
    async def noop(models: Registry, given: Any) -> None:
        """Do nothing: what was done stays, and the migration can be taken back."""

    def apply(self, state: State, app: str) -> State:
        return state

    def describe(self) -> str:
        return f"Run {_name(self.function)}" + (f" for every {self.batched}" if self.batched else "")

    def file_name(self) -> str:
        return _name(self.function).lower()

    def actions(self, change: Change) -> Sequence[Any]:
        function: Any = self.reverse if change.backward else self.function
        if function is None:
            raise Irreversible(f"{self.describe()}: it has no function that takes it back")
        if function is RunPython.noop:
            return []
        if self.batched is None:
            return [Call(function=partial(_call, function), name=_name(function))]
        label = self.batched if "." in self.batched else label_of(change.app, self.batched)
        model = change.before[label]
        if not change.lives_here(model):
            return []
        called = partial(_call_in_batches, function, label, self.where, self.size)
        # Each batch is a transaction of its own.
        return [Call(function=called, name=_name(function), transactional=False)]

    def touches(self, app: str) -> Iterable[str] | None:
        return None


class SeparateDatabaseAndState(Operation):
    """Do one thing in the database, and another to the models: where these are known to be the same.

    Args:
        database_operations: what is done in the database. What they do to the models is forgotten.
        state_operations: what is done to the models. What they would do in the database is not done.
    """

    def __init__(
        self, database_operations: Iterable[Operation] = (), state_operations: Iterable[Operation] = ()
    ) -> None:
        self.database_operations = list(database_operations)
        self.state_operations = list(state_operations)
        self.reversible = all(one.reversible for one in self.database_operations)

    def apply(self, state: State, app: str) -> State:
        return _applied(self.state_operations, state, app)

    def describe(self) -> str:
        told = [one.describe() for one in self.database_operations] or ["nothing"]
        known = [one.describe() for one in self.state_operations] or ["nothing"]
        return f"In the database: {', '.join(told)}; for the models: {', '.join(known)}"

    def file_name(self) -> str:
        return "_".join(one.file_name() for one in (*self.database_operations, *self.state_operations)[:1]) or "nothing"

    def actions(self, change: Change) -> Sequence[Any]:
        states = [change.after if change.backward else change.before]
        for operation in self.database_operations:
            states.append(operation.apply(states[-1], change.app))
        steps = list(zip(self.database_operations, states[:-1], states[1:], strict=True))
        found: list[Any] = []
        for operation, before, after in reversed(steps) if change.backward else steps:
            old, new = (after, before) if change.backward else (before, after)
            found += operation.actions(
                Change(change.app, old, new, change.kind, change.renderer, change.backward, change.alias)
            )
        return found

    def touches(self, app: str) -> Iterable[str] | None:
        # What it does in the database need not be about the models that it changes.
        return None


async def _run_in_batches(label: str, sql: str, values: Mapping[str, Any], size: int, step: Any) -> None:
    from covet_migrate.ddl.filling import run_in_batches

    await run_in_batches(label, sql, values, size, step)


async def _call(function: Any, step: Any) -> None:
    await function(step.models, step.database)


async def _call_in_batches(function: Any, label: str, where: Condition | None, size: int, step: Any) -> None:
    query = step.models[label].objects.all()
    if where is not None:
        query = query.filter(where)
    step.total = step.done + await step.rest(query).count()
    await step.in_batches(query, partial(function, step.models), size=size)


def _applied(operations: Iterable[Operation], state: State, app: str) -> State:
    for operation in operations:
        state = operation.apply(state, app)
    return state


Checked = Mapping[str, Sequence[tuple[str, Mapping[str, Any]]]]


def _checked(sql: Any) -> Checked:
    """SQL by the kind of database, each a list of statements with parameters; that of all kinds under an empty name."""
    if not isinstance(sql, Mapping):
        return {"": _statements(sql)}
    for kind in sql:
        if kind not in KINDS:
            raise MigrationError(f"RunSQL: there is no kind of database {kind!r}{nearest(str(kind), KINDS)}")
    return {kind: _statements(given) for kind, given in sql.items()}


def _statements(given: Any) -> list[tuple[str, Mapping[str, Any]]]:
    if isinstance(given, str) or _has_parameters(given):
        given = [given]
    if not isinstance(given, (list, tuple)):
        raise MigrationError(f"RunSQL({given!r:.200}): a statement is needed, or a list of such")
    found: list[tuple[str, Mapping[str, Any]]] = []
    for one in given:
        if not isinstance(one, str) and not _has_parameters(one):
            raise MigrationError(
                f"RunSQL: {one!r:.200} is no statement; one is a text, or a text with its parameters: "
                "('UPDATE person SET age = :age', {'age': 3})"
            )
        sql, values = one if isinstance(one, tuple) else (one, {})
        if sql.strip():
            found.append((sql, values))
    return found


def _require_range(given: Iterable[Sequence[tuple[str, Mapping[str, Any]]]]) -> None:
    """Raise an error where a statement is not one of a range of keys."""
    for sql, _ in (one for statements in given for one in statements):
        if lacking := [name for name in (":first", ":last") if not re.search(rf"(?<!:){name}\b", sql)]:
            raise MigrationError(
                f"RunSQL({sql:.200}, batched=...): it has no {' and no '.join(lacking)}, and would do all rows in "
                "every batch; write `WHERE id BETWEEN :first AND :last`"
            )


def _shortened(sql: str) -> str:
    text = " ".join(sql.split())
    return text if len(text) <= 60 else text[:57] + "..."


def _has_parameters(given: Any) -> bool:
    return isinstance(given, tuple) and len(given) == 2 and isinstance(given[0], str) and isinstance(given[1], Mapping)


def _statement(sql: str, values: Mapping[str, Any], kind: str, transactional: bool) -> Statement:
    params: tuple[Any, ...] = ()
    if values:
        from sqlalchemy.exc import ArgumentError

        try:
            compiled = compile_statement(sqlalchemy.text(sql).bindparams(**values), kind)
            params = compiled.parameters()
        except (ArgumentError, QueryError) as error:
            raise MigrationError(
                f"RunSQL: the parameters {sorted(values)} are not those of {sql:.200}: {error}"
            ) from error
        sql = compiled.sql
    return Statement(sql=sql, params=params, action=Execute(sql=sql, params=params), transactional=transactional)


def _is_async(function: Any) -> bool:
    while isinstance(function, partial):
        function = function.func
    # An object may be called as a function is.
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def _name(function: Any) -> str:
    while isinstance(function, partial):
        function = function.func
    return str(getattr(function, "__name__", type(function).__name__))
