"""Routers: which database a model is read from and written to, where that is more than its `Meta` can say.

    class ByRegion:
        def database_for_read(self, model):
            return region.get() if model in REGIONAL else None

        def database_for_write(self, model):
            return region.get() if model in REGIONAL else None

    with routing(ByRegion()): ...

What `using` names goes before them, and `Meta.database` and the default behind. Each query asks them anew, so that an
answer may depend on the request. Two rules keep the rows of one database from being taken for those of another:

- An object belongs to one database: the one that `using` named, or else the one that its model was written to when the
  object was read or made. `save` and `delete` go there, whatever the routers say by then.
- What belongs to an object is looked for where that object belongs; the routers are asked of it as long as they would
  write the object itself there.

In a transaction of the database that a model is written to, it is read there as well, so that what was written is seen.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from covet.context import current_app
from covet.exceptions import ConfigurationError, NoApplicationError
from covet_orm import ambient
from covet_orm.ambient import NoDatabase, database_for, find_database
from covet_orm.exceptions import QueryError
from covet_orm.transactions.context import current_transaction

if TYPE_CHECKING:
    from covet_orm.databases import Database
    from covet_orm.models.instances import Model
    from covet_orm.queries.querysets import QuerySet

__all__ = ["Beside", "Router", "Routers", "beside", "home", "import_routers", "lives_in", "route", "routing", "written"]

Question = Literal["database_for_read", "database_for_write"]
QUESTIONS: tuple[Question, ...] = ("database_for_read", "database_for_write")


class Router(Protocol):
    """What chooses databases. Any object with these methods is one; they are called for each query, and send none."""

    def database_for_read(self, model: type[Model]) -> str | None:
        """The alias of the database to read objects of a model from; None for no opinion."""
        ...

    def database_for_write(self, model: type[Model]) -> str | None:
        """The alias of the database to write objects of a model to, and to create its table in; None for no
        opinion."""
        ...


class Routers:
    """The routers of an application, in `app.state`.

    Args:
        routers: in the order in which they are asked.
    """

    __slots__ = ("routers",)

    def __init__(self, routers: Sequence[Router]) -> None:
        self.routers = tuple(routers)
        ambient.routed = True


class Beside(NamedTuple):
    """Stands for a database in a query of what belongs to an object: the routers choose, near to that object.

    Attributes:
        model: the model of the object.
        origin: the database that it belongs to.
    """

    model: type[Any]
    origin: Database


around: ContextVar[tuple[Router, ...]] = ContextVar("covet_orm.routers", default=())
"""The routers of the blocks around this code, those of the innermost first."""


@contextmanager
def routing(*routers: Router) -> Iterator[None]:
    """A block in which routers choose the databases, before those of blocks around it and those of the application.

        with routing(ByRegion(), Reports()):
            ...

    The first that has an opinion decides. Tasks that begin within have them as well.

    Raises:
        ConfigurationError: one lacks a method, or has one that must be awaited.
    """
    for one in routers:
        wrong = _wrong(one)
        if wrong:
            raise ConfigurationError(f"routing({one!r}): {wrong}")
    # Never taken back: another thread may be within such a block, and it costs little where there is none.
    ambient.routed = True
    token = around.set((*routers, *around.get()))
    try:
        yield
    finally:
        around.reset(token)


def import_routers(names: Sequence[str]) -> Routers:
    """The routers that settings name, as `module:name`; a class is called without arguments.

    Raises:
        ConfigurationError: one cannot be imported or made, or is no router.
    """
    return Routers([_imported(name) for name in names])


def route(model: type[Any], near: Beside | None, *, writes: bool) -> Database:
    """The database that a model is read from or written to, where none was named.

    Args:
        model: the model.
        near: the object that what is asked for belongs to, if it does.
        writes: whether it is for a write, or for reading what is to be written.

    Raises:
        NoDatabase: there is none, or none of the alias that a router gave.
        QueryError: a router gave what is no alias.
        TransactionError: it is within a transaction of another task.
    """
    if near is not None and not _is_at_home(near):
        return near.origin
    otherwise = None if near is None else near.origin
    if writes:
        return _chosen(model, "database_for_write", otherwise)
    try:
        writing = _chosen(model, "database_for_write", otherwise)
    except NoDatabase:
        # Whoever only reads need not have it open.
        writing = None
    if writing is not None and current_transaction(writing) is not None:
        return writing
    return _chosen(model, "database_for_read", otherwise)


def beside(instance: Any) -> Beside:
    """What a query of what belongs to an object is given in place of a database."""
    database = instance._source.database if instance.saved else None
    return Beside(type(instance), database if database is not None else route(type(instance), None, writes=True))


def written(query: QuerySet[Any]) -> QuerySet[Any]:
    """A query in the database that it writes to, which its every statement asks from now on."""
    database = query._database
    if database is not None and not isinstance(database, Beside):
        return query
    return query.using(route(query.model, database, writes=True))


def home(query: QuerySet[Any], read: Database) -> Database:
    """The database that the objects of a query belong to: the one that was named, or that they would be written to.

    Args:
        query: the query.
        read: the database that it was sent to.

    Raises:
        QueryError: objects would be written to a database of another kind than they were read from.
    """
    near = query._database
    if query._chosen is not None or (near is not None and not isinstance(near, Beside)):
        return read
    try:
        found = route(query.model, near, writes=True)
    except NoDatabase:
        return read
    if found._target.kind != read._target.kind:
        # What a row holds is in the types of its own database.
        raise QueryError(
            f"{query.model.__name__} is read from {read!r} and written to {found!r}, which is of another kind: its "
            "objects could not be saved; read values(), or say where with using(...)"
        )
    return found


def lives_in(model: type[Any], database: Database) -> bool:
    """Whether the table of a model belongs into a database: the one that routers would write it to, else the one that
    it names, or any where it names none."""
    alias = _opinion(model, "database_for_write")[0]
    if alias is None or (alias == "primary" and database.alias != alias):
        alias = model._meta.database
    return alias in (None, database.alias)


def _chosen(model: type[Any], question: Question, otherwise: Database | None) -> Database:
    """The database that the first router with an opinion names; without one another, or that of the model."""
    alias, router = _opinion(model, question)
    if alias is None:
        return otherwise if otherwise is not None else find_database(model._meta.database)
    try:
        return database_for(model, alias)
    except NoDatabase as error:
        raise NoDatabase(f"{router!r} gave {alias!r} as {question} of {model.__name__}: {error}") from None


def _opinion(model: type[Any], question: Question) -> tuple[str | None, Router | None]:
    """The alias that the first router with an opinion gives, and that router."""
    # The table of a many-to-many relation is where the model is that has the relation; nobody has heard of its own.
    model = model._meta.link_of or model
    for router in _routers():
        alias: Any = getattr(router, question)(model)
        if alias is None:
            continue
        if not isinstance(alias, str):
            raise QueryError(f"{router!r}.{question}({model.__name__}) gave {alias!r}; an alias or None is expected")
        return alias, router
    return None, None


def _routers() -> tuple[Router, ...]:
    """Those who are asked here, in their order."""
    try:
        found = current_app().state.get(Routers)
    except NoApplicationError:
        found = None
    return around.get() if found is None else (*around.get(), *found.routers)


def _is_at_home(near: Beside) -> bool:
    """Whether an object belongs where the routers would write it now."""
    try:
        writing = _chosen(near.model, "database_for_write", None)
    except NoDatabase:
        return False
    # A database and the same one without its replicas have the same pools.
    return writing._lanes is near.origin._lanes


def _imported(name: str) -> Router:
    where = f"[plugins.orm] routers: {name!r}"
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise ConfigurationError(f"{where} is not of the form `module:name`, such as 'app.routing:ByRegion'")
    try:
        found: Any = getattr(import_module(module), attribute)
        router = found() if isinstance(found, type) else found
    except Exception as error:
        raise ConfigurationError(f"{where} cannot be imported or made: {type(error).__name__}: {error}") from error
    wrong = _wrong(router)
    if wrong:
        raise ConfigurationError(f"{where} is no router: {wrong}")
    made: Router = router
    return made


def _wrong(router: Any) -> str:
    """What keeps an object from being a router; empty for nothing."""
    if isinstance(router, type):
        return f"it is a class; make an object of it: {router.__name__}()"
    for name in QUESTIONS:
        method = getattr(router, name, None)
        if not callable(method):
            return f"it has no method {name}(model)"
        if inspect.iscoroutinefunction(method):
            return f"{name} is `async def`, and must answer at once"
    return ""
