"""`prefetch_related`: the related objects of a whole result, by one query for each relation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from covet_orm import ambient
from covet_orm.exceptions import FieldError, QueryError
from covet_orm.models.managers import base_queryset, default_queryset
from covet_orm.queries.sources import Result
from covet_orm.relations.descriptors import SharedRelated, related
from covet_orm.relations.keys import batches, key_getter
from covet_orm.relations.linked import LinkColumn
from covet_orm.relations.per_parent import PARENT, children_of

if TYPE_CHECKING:
    from covet_orm.databases import Database
    from covet_orm.expressions.base import Expression
    from covet_orm.fields.base import Field
    from covet_orm.fields.related import ForeignKey
    from covet_orm.models.options import Options
    from covet_orm.models.relations import Relation
    from covet_orm.queries.querysets import QuerySet

__all__ = ["Prefetch", "check_prefetch", "prefetch", "prefetch_related_objects"]


class Prefetch:
    """What `prefetch_related` loads, when a name does not say it all:

        Author.objects.prefetch_related(
            Prefetch("books", Book.objects.filter(published=True).order_by("-year")[:3], to_attr="latest")
        )

    Args:
        path: the relations, as in `books__tags`.
        queryset: which objects, in which order, with what of theirs; all that the default manager gives by default. Its
            limit is that of each parent.
        to_attr: the attribute that gets the list, or the object, instead of the relation.

    Raises:
        QueryError: the queryset gives no objects, or `to_attr` is no name.
    """

    __slots__ = ("path", "queryset", "to_attr")

    def __init__(self, path: str, queryset: QuerySet[Any] | None = None, to_attr: str | None = None) -> None:
        if queryset is not None and queryset._chosen is not None:
            raise QueryError(f"Prefetch({path!r}): values() and values_list() give no objects that belong to others")
        if to_attr is not None and (not to_attr.isidentifier() or to_attr.startswith("_")):
            raise QueryError(f"Prefetch({path!r}): to_attr={to_attr!r} is no name of an attribute")
        self.path = path
        self.queryset = queryset
        self.to_attr = to_attr

    def __repr__(self) -> str:
        return f"Prefetch({self.path!r})"


class Step:
    """One relation of a path, with what is to be loaded from there on.

    Attributes:
        relation: the relation.
        name: where the objects go: the relation's name, or another one.
        queryset: which objects; None for all.
        inner: the steps from there, by name.
    """

    __slots__ = ("inner", "name", "queryset", "relation")

    def __init__(self, relation: Relation, name: str, queryset: QuerySet[Any] | None) -> None:
        self.relation = relation
        self.name = name
        self.queryset = queryset
        self.inner: dict[str, Step] = {}


def check_prefetch(options: Options, lookups: Sequence[str | Prefetch]) -> None:
    """Find what is wrong with the arguments of `prefetch_related`.

    Raises:
        FieldError: there is no such relation, or `to_attr` is taken.
        QueryError: two of them ask for different objects under one name.
    """
    _steps(options, lookups)


async def prefetch(
    objects: Sequence[Any], lookups: Sequence[str | Prefetch], database: Database, *, keeper: Any = None
) -> None:
    """Load what relations lead to, for objects of one model; what is loaded already is not loaded again.

    Args:
        objects: the objects.
        lookups: as for `prefetch_related`.
        database: where they were read.
        keeper: the result that they came with, where they are not that itself. It holds on to the results of what is
            loaded, so that `fetch` on one of these objects finds the others as long as it lasts.

    Raises:
        QueryError: they are no objects of a model.
    """
    if not hasattr(type(objects[0]), "_meta"):
        raise QueryError("prefetch_related() loads what belongs to objects, and values() and values_list() give none")
    results: list[Any] = []
    await _follow(objects, _steps(type(objects[0])._meta, lookups), database, results)
    if keeper is None:
        keeper = objects
    if results and isinstance(keeper, Result):
        keeper.kept = [*getattr(keeper, "kept", ()), *results]


async def prefetch_related_objects(objects: Iterable[Any], *lookups: str | Prefetch) -> None:
    """Load what relations lead to, for objects that are there already, of one model and database.

    Args:
        objects: the objects.
        lookups: as for `prefetch_related`.

    Raises:
        FieldError: there is no such relation.
        QueryError: an object is not saved, or they are of several models.
    """
    there = list(objects)
    if not there:
        return
    model = type(there[0])
    for one in there:
        if type(one) is not model:
            raise QueryError(f"{one!r} is no {model.__name__}: the objects are of one model")
        if not one.saved:
            raise QueryError(f"{one!r} is not saved: nothing can belong to it yet")
    await prefetch(there, lookups, database_of(there[0]))


def database_of(instance: Any, target: type[Any] | None = None, *, writes: bool = False) -> Database:
    """The database that an object belongs to, or the one of its model; routers may send queries elsewhere.

    Args:
        instance: the object.
        target: the model of what is asked for, which belongs to the object; that of the object itself by default.
        writes: whether it is for a write.
    """
    if ambient.routed:
        from covet_orm.routers import beside

        return ambient.database_for(target or type(instance), beside(instance), writes=writes)
    if instance.saved and instance._source.database is not None:
        database: Database = instance._source.database
        return database
    return ambient.database_for(type(instance))


def within(query: QuerySet[Any], instance: Any, database: Database | None = None) -> QuerySet[Any]:
    """A query of what belongs to an object, in the database where that is.

    Args:
        query: the query.
        instance: the object.
        database: the one that it belongs to, if that is known.
    """
    if not ambient.routed:
        return query.using(database_of(instance) if database is None else database)
    from covet_orm.routers import beside

    made = query._copy()
    made._database = beside(instance)
    return made


def _steps(options: Options, lookups: Sequence[str | Prefetch]) -> dict[str, Step]:
    first: dict[str, Step] = {}
    for lookup in lookups:
        wanted = lookup if isinstance(lookup, Prefetch) else Prefetch(lookup)
        _add_path(options, first, wanted)
    return first


def _add_path(options: Options, steps: dict[str, Step], wanted: Prefetch) -> None:
    *before, last = wanted.path.split("__")
    for name in before:
        step = steps.get(name)
        if step is None:
            step = steps[name] = Step(_relation(options, name, wanted), name, None)
        options, steps = step.relation.target._meta, step.inner
    name = wanted.to_attr or last
    relation = _relation(options, last, wanted)
    if wanted.to_attr is not None and (
        name in options.by_name or name in options.relations or hasattr(options.model, name)
    ):
        raise FieldError(f"{wanted!r}: {options.model.__name__} has something called {name!r}; choose another to_attr")
    there = steps.get(name)
    if there is None:
        steps[name] = Step(relation, name, wanted.queryset)
    elif there.relation != relation or (wanted.queryset is not None and there.queryset is not wanted.queryset):
        raise QueryError(
            f"{wanted!r}: {name!r} is to be loaded already, by another query; put this one first, or use to_attr"
        )


def _relation(options: Options, name: str, wanted: Prefetch) -> Relation:
    found = options.relations.get(name)
    if found is None:
        raise FieldError(f"prefetch_related({wanted.path!r}): {_no_relation(options, name)}")
    return found


def _no_relation(options: Options, name: str) -> str:
    if name in options.by_name:
        return f"{options.model.__name__}.{name} is no relation"
    return options.unknown(name)


async def _follow(objects: Sequence[Any], steps: Mapping[str, Step], database: Database, results: list[Any]) -> None:
    for step in steps.values():
        missing = [one for one in objects if not _is_there(one, step.name)]
        if missing:
            results += await _load(missing, step, database)
        if step.inner:
            found = _reached(objects, step)
            if found:
                # By a queryset of its own, a step may have led to another database.
                there = found[0]._source.database if found[0].saved else None
                await _follow(found, step.inner, there or database, results)


def _is_there(instance: Any, name: str) -> bool:
    try:
        return name in object.__getattribute__(instance, "_related")
    except AttributeError:
        return False


def _reached(objects: Sequence[Any], step: Step) -> list[Any]:
    """What a step led to, each object once."""
    found: dict[int, Any] = {}
    for one in objects:
        there = related(one).get(step.name)
        for other in there if isinstance(there, list) else (there,):
            if other is not None:
                found[id(other)] = other
    return list(found.values())


async def _load(missing: Sequence[Any], step: Step, database: Database) -> list[Any]:
    """Load what a relation leads to, and give it to the objects; the results that it came in."""
    relation = step.relation
    if len(relation.hops) == 2:
        return await _load_linked(missing, step, database)
    if relation.hops[0].local[0] is relation.field:
        return await _load_referred(missing, step, database)
    return await _load_referring(missing, step, database)


async def _load_referred(missing: Sequence[Any], step: Step, database: Database) -> list[Any]:
    """What a foreign key refers to: each object once, however many refer to it."""
    hop = step.relation.hops[0]
    local, remote = key_getter(hop.local), key_getter(hop.remote)
    keys = dict.fromkeys(map(local, missing))
    keys.pop(None, None)
    results: list[Any] = []
    there: dict[Any, Any] = {}
    query, database = _query(step, base_queryset(hop.target), missing[0], database)
    columns: list[Expression[Any]] = [field.reference() for field in hop.remote]
    for batch in batches(list(keys), database.kind, len(columns)):
        result = await children_of(query, columns, batch, database)
        there |= zip(map(remote, result), result, strict=True)
        results.append(result)
    name = step.name
    for one in missing:
        found = there.get(local(one))
        if found is not None:
            related(one)[name] = found
        elif name != step.relation.name or local(one) is None:
            related(one)[name] = None
    return results


async def _load_referring(missing: Sequence[Any], step: Step, database: Database) -> list[Any]:
    """What refers to the objects by a foreign key; it knows them in turn."""
    relation = step.relation
    hop = relation.hops[0]
    parents = _by_key(missing, hop.local)
    query, database = _query(step, default_queryset(hop.target), missing[0], database)
    query = _with_fields(query, hop.remote)
    columns: list[Expression[Any]] = [field.reference() for field in hop.remote]
    get, back = key_getter(hop.remote), relation.field.name
    fresh = not (query._related or query._annotations or query._prefetch)
    groups: dict[Any, list[Any]] = {key: [] for key in parents}
    known = {key: SharedRelated({back: parent}) for key, parent in parents.items()}
    results: list[Any] = []
    for batch in batches(list(parents), database.kind, len(columns)):
        result = await children_of(query, columns, batch, database)
        results.append(result)
        for key, child in zip(map(get, result), result, strict=True):
            if key not in groups:
                # A collation takes for the same what is spelt otherwise.
                continue
            groups[key].append(child)
            if fresh:
                child._related = known[key]
            else:
                related(child)[back] = parents[key]
    _hand_out(missing, hop.local, groups, step)
    return results


async def _load_linked(missing: Sequence[Any], step: Step, database: Database) -> list[Any]:
    """What the table of a many-to-many relation leads to. An object that several have is there once for each."""
    first, last = step.relation.hops
    near, far = cast("tuple[ForeignKey[Any], ForeignKey[Any]]", (first.remote[0], last.local[0]))
    parents = _by_key(missing, first.local)
    column = LinkColumn(near, far)
    query, database = _query(step, default_queryset(last.target), missing[0], database)
    made: Any = query._copy()
    made._annotations = {**query._annotations, PARENT: column}
    groups: defaultdict[Any, list[Any]] = defaultdict(list)
    results: list[Any] = []
    for batch in batches(list(parents), database.kind):
        result = await children_of(made, [column], batch, database)
        results.append(result)
        for child in result:
            groups[child._related.pop(PARENT)].append(child)
    _hand_out(missing, first.local, groups, step)
    return results


def _hand_out(missing: Sequence[Any], local: Sequence[Field[Any]], groups: Mapping[Any, list[Any]], step: Step) -> None:
    """Give each object what belongs to it."""
    name, get = step.name, key_getter(local)
    if step.relation.many:
        for one in missing:
            related(one)[name] = list(groups.get(get(one), ()))
        return
    for one in missing:
        group = groups.get(get(one))
        related(one)[name] = group[0] if group else None


def _by_key(objects: Sequence[Any], fields: Sequence[Field[Any]]) -> dict[Any, Any]:
    """Objects by their key; those without one are left out."""
    get = key_getter(fields)
    found = {get(one): one for one in objects}
    found.pop(None, None)
    return found


def _query(step: Step, everything: QuerySet[Any], parent: Any, database: Database) -> tuple[QuerySet[Any], Database]:
    """What is asked for some parents, and where: where they are, unless the query names another database."""
    query = step.queryset if step.queryset is not None else everything
    if query._database is None:
        query = within(query, parent, database)
    return query, query.database


def _with_fields(query: QuerySet[Any], fields: Sequence[Field[Any]]) -> QuerySet[Any]:
    """A query that reads some fields, whatever it defers."""
    if query._deferred is None:
        return query
    only, names = query._deferred
    wanted = {field.name for field in fields}
    made = query._copy()
    made._deferred = (only, names | wanted if only else names - wanted)
    return made
