"""The methods of querysets that write."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from covet_orm import ambient
from covet_orm.queries.reading import Reading

if TYPE_CHECKING:
    from covet_orm.models.instances import Model
    from covet_orm.queries.querysets import QuerySet

__all__ = ["Changing"]

M = TypeVar("M", bound="Model")


class Changing(Reading[M]):
    """What `QuerySet` derives from."""

    __slots__ = ()

    @property
    def _writing(self) -> QuerySet[M]:
        """The query in the database that it writes to, where that may be another one than it reads."""
        if not ambient.routed:
            return self._query
        from covet_orm.routers import written

        return written(self._query)

    async def update(self, **values: Any) -> int:
        """Write values to every row, in one statement: values, or expressions of the row's own columns.

        No object is made, no signal sent, and `save` is not called.

        Returns:
            how many rows there were.

        Raises:
            FieldError: there is no such field.
            QueryError: a value is none that its field takes.
            IntegrityError: a constraint would be violated.
        """
        from covet_orm.queries.writing import update

        return await update(self._writing, values)

    async def update_returning(self, **values: Any) -> list[M]:
        """Write values to every row, and read what the rows are then: `update` and its objects at once.

            taken = await Job.objects.filter(state="new").order_by("id")[:10].update_returning(state="taken")

        One statement on PostgreSQL and SQLite; on MySQL and MariaDB, and for models in several tables, the rows are
        locked, written and read in one transaction.

        Returns:
            the objects, in no particular order, with what `only`, `defer` and `prefetch_related` say of them.

        Raises:
            FieldError: there is no such field, or it is of the key.
            QueryError: a value is none that its field takes, or the query is for other things than objects.
            IntegrityError: a constraint would be violated.

        Cancelled, all rows were written or none.
        """
        from covet_orm.queries.returning import update_returning

        return await update_returning(self._writing, values)

    async def delete(self) -> int:
        """Delete every row, in one statement; the database deletes, or changes, what refers to them.

        Where somebody listens to `pre_delete` or `post_delete` of the model, or of what goes with it, the objects are
        read first and told of, in one transaction.

        Returns:
            how many rows there were, those that went with them not counted.

        Raises:
            ForeignKeyViolation: other rows refer to one of them and forbid it.
        """
        from covet_orm.queries.writing import delete

        return await delete(self._writing)

    async def delete_returning(self) -> list[M]:
        """Delete every row, and read what the rows were: `delete` and its objects at once.

        One statement on PostgreSQL, SQLite and MariaDB; on MySQL, for models in several tables, and where somebody
        listens to signals, the rows are locked, read and deleted in one transaction.

        Returns:
            the objects, in no particular order, as ones that are not saved: `save()` would insert them again.

        Raises:
            ForeignKeyViolation: other rows refer to one of them and forbid it.
            QueryError: the query is for other things than objects.

        Cancelled, all rows were deleted or none.
        """
        from covet_orm.queries.returning import delete_returning

        return await delete_returning(self._writing)

    async def bulk_create(
        self,
        objects: Iterable[M],
        *,
        batch_size: int | None = None,
        ignore_conflicts: bool = False,
        update_conflicts: bool = False,
        update_fields: Sequence[str] = (),
        unique_fields: Sequence[str] = (),
    ) -> list[M]:
        """Insert many objects: all of them, or none.

        Their keys are known afterwards, and so is what the database filled in. `save` is not called and no signal sent.

        Args:
            objects: new objects of this model.
            batch_size: how many at a time; as many as the database takes by default.
            ignore_conflicts: leave those out whose row is there already; their keys stay unknown.
            update_conflicts: write `update_fields` of the row that is there already.
            unique_fields: which fields tell that it is the same row (PostgreSQL and SQLite).

        Raises:
            ValidationError: an object has values that the model does not take; it says which.
            IntegrityError: a constraint would be violated.
        """
        from covet_orm.queries.bulk import bulk_create

        made = list(objects)
        await bulk_create(
            self._writing.database,
            self.model,
            made,
            batch_size=batch_size,
            ignore_conflicts=ignore_conflicts,
            update_conflicts=update_conflicts,
            update_fields=update_fields,
            unique_fields=unique_fields,
        )
        return made

    async def bulk_update(self, objects: Iterable[M], fields: Sequence[str], *, batch_size: int | None = None) -> int:
        """Write some fields of many objects: of all, or of none.

        Returns:
            how many objects there were.

        Raises:
            ValidationError: an object has values that the model does not take; it says which.
            IntegrityError: a constraint would be violated.
        """
        from covet_orm.queries.bulk import bulk_update

        return await bulk_update(self._writing.database, self.model, list(objects), fields, batch_size=batch_size)

    async def create(self, **values: Any) -> M:
        """Make an object and save it.

        Raises:
            ValidationError: values that the model does not take.
            IntegrityError: a constraint would be violated.
        """
        made = self.model(**values)
        await made.save(force_insert=True, using=self._writing.database)
        return made

    async def get_or_create(self, defaults: Mapping[str, Any] | None = None, **lookups: Any) -> tuple[M, bool]:
        """The object that lookups hold for, or a new one; and whether it is new.

        Whoever asks for the same at the same time gets the same row, if a unique constraint covers what is looked up.

        Args:
            defaults: further values of a new object; what can be called is called.
            lookups: what tells the object; values by equality are those of a new one as well.

        Raises:
            MultipleObjectsReturned: there are several.
            IntegrityError: a new one would violate a constraint with another row.
            ValidationError: values that the model does not take.
        """
        from covet_orm.queries.getting import get_or_create

        return await get_or_create(self._writing, defaults, lookups)

    async def update_or_create(
        self,
        defaults: Mapping[str, Any] | None = None,
        create_defaults: Mapping[str, Any] | None = None,
        **lookups: Any,
    ) -> tuple[M, bool]:
        """Change the object that lookups hold for, or make one; and whether it is new.

        The row is locked while it is changed, so that of several who change it each sees what the one before did.

        Args:
            defaults: the values that it is to have; what can be called is called.
            create_defaults: the values of a new one, where they are others.
            lookups: what tells the object; values by equality are those of a new one as well.

        Raises:
            MultipleObjectsReturned: there are several.
            IntegrityError: a constraint would be violated with another row.
            ValidationError: values that the model does not take.
        """
        from covet_orm.queries.getting import update_or_create

        return await update_or_create(self._writing, defaults, create_defaults, lookups)
