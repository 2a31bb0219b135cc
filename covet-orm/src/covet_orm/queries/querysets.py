"""Querysets: what is asked of a model, built step by step, run when it is awaited."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar

from covet_orm import ambient
from covet_orm.databases import Database
from covet_orm.exceptions import QueryError
from covet_orm.expressions.base import Expression, Ordering
from covet_orm.expressions.conditions import Combined, Condition
from covet_orm.expressions.references import F
from covet_orm.queries.changing import Changing
from covet_orm.queries.clauses import Clauses
from covet_orm.queries.comparisons import KeywordComparison, RelatedCondition, find_comparison, merged
from covet_orm.queries.names import Names, annotation_in, many_relations
from covet_orm.queries.one_database import require_one_database
from covet_orm.queries.plans import Plan, refused
from covet_orm.queries.selects import compile_count, compile_exists, compile_select, selectable_paths

if TYPE_CHECKING:
    from covet_orm.models.instances import Model
    from covet_orm.models.managers import QuerySetManager
    from covet_orm.queries.filtered import FilteredRelation
    from covet_orm.relations.prefetching import Prefetch
    from covet_orm.routers import Beside

__all__ = ["QuerySet"]

M = TypeVar("M", bound="Model")


class QuerySet(Changing[M]):
    """A query of a model's objects. Every method gives a new queryset and leaves this one as it is.

        adults = User.objects.filter(age__gte=18).order_by("name")
        users = await adults
        async for user in adults: ...

    Nothing is sent before it is awaited, and it is sent again each time.

    Raises, when it is awaited:
        DatabaseError: the server refused.
        PoolTimeout: no connection was free in time.
    """

    __slots__ = (
        "_annotations",
        "_chosen",
        "_clauses",
        "_database",
        "_deferred",
        "_distinct",
        "_limit",
        "_lock",
        "_offset",
        "_order",
        "_prefetch",
        "_related",
        "_where",
        "model",
    )

    def __init__(self, model: type[M]) -> None:
        self.model = model
        self._where: tuple[Condition, ...] = ()
        self._order: tuple[Ordering, ...] | None = None
        self._limit: int | None = None
        self._offset: int = 0
        self._annotations: Mapping[str, Expression[Any]] = {}
        self._chosen: tuple[str, tuple[str, ...]] | None = None
        self._clauses: Clauses | None = None
        self._deferred: tuple[bool, frozenset[str]] | None = None
        self._related: tuple[str, ...] = ()
        self._prefetch: tuple[Any, ...] = ()
        self._distinct: tuple[str, ...] | None = None
        self._lock: tuple[Any, ...] | None = None
        self._database: str | Database | Beside | None = None

    @classmethod
    def as_manager(cls) -> QuerySetManager[Self]:
        """The methods of this class, and its own, at the model: `objects = BookQuerySet.as_manager()`."""
        from covet_orm.models.managers import QuerySetManager

        return QuerySetManager(cls)

    def _copy(self) -> Self:
        made = object.__new__(type(self))
        _copy_slots(self, made)
        return made

    def filter(self, *conditions: Condition, **lookups: Any) -> Self:
        """The objects that all conditions hold for.

        Args:
            conditions: `User.age > 3`, `Q(...) | Q(...)`, `Exists(...)`.
            lookups: `field=value`, `field__lookup=value`, `relation__field=value`.

        Raises:
            FieldError: there is no such field or lookup.
        """
        found = self._conditions(conditions, lookups)
        made = self._copy()
        made._where = (*self._where, *found)
        return made

    def exclude(self, *conditions: Condition, **lookups: Any) -> Self:
        """The objects that the conditions, taken together, do not hold for; those for which they are NULL included.

        Raises:
            FieldError: there is no such field or lookup.
        """
        found = self._conditions(conditions, lookups)
        if not found:
            return self
        made = self._copy()
        made._where = (*self._where, Combined("not", (Combined("and", found),)))
        return made

    def all(self) -> Self:
        """The same query."""
        return self._copy()

    def order_by(self, *names: str | Expression[Any] | Ordering) -> Self:
        """In that order: names, with a minus before those that descend, or expressions. Without any, in none.

        Raises:
            FieldError: there is no such field.
        """
        self._not_sliced("order_by")
        made = self._copy()
        if self.model._meta.has_composite_key:
            from covet_orm.queries.keys import expand_order

            names = tuple(expand_order(self.model._meta, names))
        made._order = tuple(self._ordering(name) for name in names)
        return made

    def reverse(self) -> Self:
        """In the opposite order."""
        self._not_sliced("reverse")
        made = self._copy()
        made._order = tuple(one.reversed() for one in self._effective_order())
        return made

    def distinct(self, *names: str) -> Self:
        """No result twice; with names, the first of those that have the same values there (PostgreSQL)."""
        self._not_sliced("distinct")
        self._not_combined("distinct")
        made = self._copy()
        made._distinct = names
        return made

    def limit(self, count: int | None, offset: int = 0) -> Self:
        """At most `count` results, from the one at `offset` on."""
        for number in (offset, 0 if count is None else count):
            if isinstance(number, bool) or not isinstance(number, int):
                raise QueryError(f"a limit of {count!r} from {offset!r} on: whole numbers are needed")
        if (count is not None and count < 0) or offset < 0:
            raise QueryError(f"a limit of {count} from {offset} on: numbers below zero mean nothing here")
        made = self._copy()
        made._offset = self._offset + offset
        left = None if self._limit is None else max(self._limit - offset, 0)
        made._limit = left if count is None else count if left is None else min(count, left)
        return made

    def __getitem__(self, part: slice) -> Self:
        if not isinstance(part, slice):
            raise QueryError(
                "a queryset gives no single result by its number without a query: use `await queryset[n:n+1]`, or "
                "first()"
            )
        if part.step is not None:
            raise QueryError("a slice of a queryset has no step")
        start = 0 if part.start is None else part.start
        for number in (start, 0 if part.stop is None else part.stop):
            if isinstance(number, bool) or not isinstance(number, int):
                raise QueryError(f"a slice from {part.start!r} to {part.stop!r}: whole numbers are needed")
        if start < 0 or (part.stop is not None and part.stop < 0):
            raise QueryError(
                "a slice of a queryset counts from the beginning; order it the other way round with reverse()"
            )
        return self.limit(None if part.stop is None else max(part.stop - start, 0), start)

    def annotate(self, /, **expressions: Expression[Any] | QuerySet[Any] | FilteredRelation) -> Self:
        """With values that are computed: `annotate(total=F("price") * F("count"))`, then `obj.total`.

        An aggregate across a relation to many is that of each object: `annotate(books=Count("books"))`. After `values`,
        an aggregate makes the query group by what that chose: `values("team").annotate(n=Count("*"))`.

        Raises:
            FieldError: a name is taken by a field, or an expression names what is not there.
            QueryError: the query is a set operation, or was sliced.
        """
        from covet_orm.queries.annotating import annotate

        return annotate(self, expressions)

    def values(self, *names: str, **expressions: Expression[Any]) -> QuerySet[Any]:
        """Dicts instead of objects, of these names, of all fields without any."""
        return self._choose("dicts", names, expressions)

    def values_list(
        self, *names: str, flat: bool = False, named: bool = False, **expressions: Expression[Any]
    ) -> QuerySet[Any]:
        """Tuples instead of objects, or the values themselves of one name with `flat`, or named tuples with `named`."""
        if flat and len(names) + len(expressions) != 1:
            raise QueryError(f"values_list(flat=True) is for one name, not {len(names) + len(expressions)}")
        if flat and named:
            raise QueryError("values_list(flat=True, named=True): values have no names; choose one of them")
        return self._choose("flat" if flat else "named" if named else "tuples", names, expressions)

    def only(self, *names: str) -> Self:
        """Objects with these fields and the key alone; the others raise FieldNotLoaded when they are read."""
        made = self._copy()
        made._deferred = (True, frozenset(self.model._meta.field(name).name for name in names))
        return made

    def defer(self, *names: str) -> Self:
        """Objects without these fields, which raise FieldNotLoaded when they are read."""
        made = self._copy()
        before = self._deferred[1] if self._deferred is not None and not self._deferred[0] else frozenset()
        made._deferred = (False, before | {self.model._meta.field(name).name for name in names})
        return made

    def select_related(self, *paths: str) -> Self:
        """With the objects that these relations to one lead to, in the same query: `select_related("author__team")`.

        Raises:
            FieldError: there is no such relation, or it leads to many.
        """
        made = self._copy()
        made._related = tuple(dict.fromkeys([*self._related, *selectable_paths(self.model._meta, paths)]))
        return made

    def select_subclasses(self, *models: type[Model]) -> Self:
        """Each object as one of the model that it is of, where models derive from this one: with its own fields.

        The tables of those models are joined to the query. An object that several of them have is of the one that was
        declared first.

        Args:
            models: the models to look for; all that derive from this one by default.

        Raises:
            QueryError: a model has no table of its own below this one's.
        """
        from covet_orm.queries.subclasses import select_subclasses

        return select_subclasses(self, models)

    def prefetch_related(self, *lookups: str | Prefetch | None) -> Self:
        """With the objects that relations lead to, by one further query for each relation.

        Args:
            lookups: names and paths, as in `prefetch_related("books__tags")`, or `Prefetch(...)`; None alone forgets
                those before.

        Raises:
            FieldError: there is no such relation.
        """
        from covet_orm.relations.prefetching import check_prefetch

        made = self._copy()
        given = tuple(lookup for lookup in lookups if lookup is not None)
        made._prefetch = (*self._prefetch, *given) if len(given) == len(lookups) else ()
        check_prefetch(self.model._meta, made._prefetch)
        return made

    def iterator(self, chunk_size: int = 2000) -> AsyncGenerator[M, None]:
        """The results one by one, `chunk_size` of them in memory at a time, by a cursor of the server.

        A loop that is left early closes the iterator: `async with aclosing(query.iterator()) as users: ...`.
        """
        from covet_orm.queries.streaming import iterate

        return iterate(self, chunk_size)

    def using(self, database: str | Database | None) -> Self:
        """In that database: an alias, or a Database."""
        made = self._copy()
        made._database = database
        return made

    def __await__(self) -> Generator[Any, None, list[M]]:
        return self._fetch().__await__()

    async def __aiter__(self) -> AsyncIterator[M]:
        for found in await self._fetch():
            yield found

    async def get(self, *conditions: Condition, **lookups: Any) -> M:
        """The one object that conditions hold for.

        Raises:
            DoesNotExist: there is none.
            MultipleObjectsReturned: there are several.
        """
        query = self.filter(*conditions, **lookups) if conditions or lookups else self
        found = await query.limit(2)._fetch()
        if len(found) == 1:
            one: M = found[0]
            return one
        asked = ", ".join([*map(repr, conditions), *(f"{name}={value!r}" for name, value in lookups.items())])
        if not found:
            raise self.model.DoesNotExist(
                f"there is no {self.model.__name__} with {asked or 'what the query asks for'}"
            )
        raise self.model.MultipleObjectsReturned(
            f"there are several {self.model.__name__} with {asked or 'what the query asks for'}; get() wants one"
        )

    async def first(self) -> M | None:
        """The first result, by the key where no order is given; None when there is none."""
        query = self if self._effective_order() else self.order_by("pk")
        found = await query.limit(1)._fetch()
        return found[0] if found else None

    async def last(self) -> M | None:
        """The last result, by the key where no order is given; None when there is none."""
        query = self if self._effective_order() else self.order_by("pk")
        return await query.reverse().first()

    async def count(self) -> int:
        """How many results there are."""
        return int((await self._run(compile_count, "count"))[0][0])

    async def exists(self) -> bool:
        """Whether there is any result."""
        return bool(await self._run(compile_exists, "exists"))

    def shape(self, key: Any, values: Any) -> None:
        """What the SQL depends on goes to `key`, the parameters to `values`; as of an expression."""
        key(self.model)
        if self._clauses is not None:
            self._clauses.shape(key, values)
        if self._annotations:
            # How many there are: what follows could be taken for one more.
            key(len(self._annotations))
            for name, expression in self._annotations.items():
                key(name)
                expression.shape(key, values)
        for condition in self._where:
            condition.shape(key, values)
        for one in self._effective_order():
            one.shape(key, values)
        key((self._chosen, self._deferred, self._related, self._distinct, self._lock))
        if self._limit is not None:
            key("limit")
            values(self._limit)
        if self._offset:
            key("offset")
            values(self._offset)

    @property
    def database(self) -> Database:
        """The database that it asks.

        Raises:
            NoDatabase: there is none.
        """
        return ambient.database_for(self.model, self._database, writes=self._lock is not None)

    def prepared(self, database: Database) -> tuple[Plan, Sequence[Any]]:
        """What is sent when it is awaited: the plan and the parameters.

        Raises:
            QueryError: a value is none that its field takes.
        """
        if self._lock is not None:
            from covet_orm.queries.locking import require_transaction

            require_transaction(database)
        plan, values = self._plan(database, compile_select, "select")
        try:
            return plan, plan.bind(values)
        except ValueError as error:
            raise self._refused(database, error) from error

    async def _fetch(self) -> list[Any]:
        if self._clauses is not None and self._clauses.empty:
            return []
        database = self.database
        plan, parameters = self.prepared(database)
        rows = await database.fetch_rows(plan, parameters)
        home = database if not ambient.routed else ambient.home_of(self, database)
        found = rows if plan.load is None else plan.load(rows, home)
        if self._prefetch and found:
            from covet_orm.relations.prefetching import prefetch

            await prefetch(found, self._prefetch, database)
        return found

    async def _run(self, compiler: Any, purpose: str) -> list[Any]:
        """The rows of another statement of this query, such as its count."""
        database = self.database
        plan, values = self._plan(database, compiler, purpose)
        try:
            parameters = plan.bind(values)
        except ValueError as error:
            raise self._refused(database, error) from error
        return await database.fetch_rows(plan, parameters)

    def _plan(self, database: Database, compiler: Any, purpose: str) -> tuple[Plan, list[Any]]:
        key: list[Any] = [purpose]
        values: list[Any] = []
        self.shape(key.append, values.append)
        shape = tuple(key)
        plan = database.plans.get(shape)
        if plan is None:
            require_one_database(shape, database)
            plan = database.plans.put(shape, compiler(self, database.kind))
        return plan, values

    def _refused(self, database: Database, error: ValueError) -> QueryError:
        from covet_orm.queries.selects import build_select

        values: list[Any] = []
        self.shape(lambda part: None, values.append)
        return refused(error, build_select(self, database.kind)[1].parameters, values)

    def _conditions(self, conditions: Sequence[Condition], lookups: Mapping[str, Any]) -> list[Condition]:
        if self._limit is not None or self._offset or self._clauses is not None:
            self._not_sliced("filter")
            self._not_combined("filter")
        found: list[Condition] = []
        options = self.options
        annotations = self._annotations
        names = Names(options, annotations)
        for condition in conditions:
            if not isinstance(condition, Condition):
                raise QueryError(f"{condition!r} is no condition; write `field=value`, `Model.field > value` or Q(...)")
            found.append(condition.resolved(names))
        grouped: dict[Any, list[Condition]] = {}
        if options.has_composite_key:
            from covet_orm.queries.keys import expand_lookups

            of_key, lookups = expand_lookups(options, lookups)
            found += of_key
        for name, value in lookups.items():
            if annotations and annotation_in(annotations, name) is not None:
                found.append(names.annotated(name, value))
                continue
            known = options.lookups.get(name) or find_comparison(options, name)
            if value is None and known.absence:
                known, value = find_comparison(options, known.absence), True
            if known.many:
                grouped.setdefault(known.many, []).append(KeywordComparison(known, value, names))
            else:
                found.append(KeywordComparison(known, value, names))
        for relations, together in grouped.items():
            found.append(RelatedCondition(relations, together))
        return merged(found) if conditions else found

    def _ordering(self, name: str | Expression[Any] | Ordering) -> Ordering:
        if isinstance(name, Ordering):
            return name.resolved(Names(self.options, self._annotations))
        if isinstance(name, Expression):
            return Ordering(name.resolved(Names(self.options, self._annotations)))
        if not isinstance(name, str):
            raise QueryError(f"order_by({name!r}): names, expressions, or expressions with asc() or desc()")
        bare = name.removeprefix("-")
        if self._clauses is not None and self._clauses.combined is not None:
            return Ordering(F(bare), descending=name.startswith("-"))
        if annotation_in(self._annotations, bare) is None:
            path = self.options.path(bare)
            if many_relations(path.relations) and (self._clauses is None or self._clauses.group is None):
                raise QueryError(
                    f"order_by({name!r}): the relation leads to many, of which none is the one to order by; annotate "
                    "with Min or Max of it, and order by that"
                )
        return Ordering(F(bare), descending=name.startswith("-"))

    def _effective_order(self) -> tuple[Ordering, ...]:
        if self._order is not None:
            return self._order
        ordering = self.model._meta.ordering
        if self._clauses is not None and self._clauses.group is not None:
            # What a model is ordered by is not what a group has.
            return ()
        return tuple(self._ordering(name) for name in ordering) if ordering else ()

    def _choose(self, mode: str, names: Sequence[str], expressions: Mapping[str, Expression[Any]]) -> QuerySet[Any]:
        from covet_orm.queries.annotating import choose

        return choose(self, mode, names, expressions)


def _slots_copier(slots: Sequence[str]) -> Callable[[Any, Any], None]:
    """Generate what copies slots: every method of a queryset copies it, and a loop takes three times as long."""
    scope: dict[str, Any] = {}
    exec("def copy(a, b):\n" + "\n".join(f" b.{name} = a.{name}" for name in slots), scope)
    copy: Callable[[Any, Any], None] = scope["copy"]
    return copy


_copy_slots = _slots_copier(QuerySet.__slots__)
