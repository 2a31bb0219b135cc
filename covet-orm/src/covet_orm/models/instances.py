"""The base of all models, and what an instance can do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Self

from covet_orm.exceptions import FieldNotLoaded, ModelError
from covet_orm.models.copying import copied, deep_copied, restore, state_of
from covet_orm.models.managers import ManagerDescriptor
from covet_orm.models.metaclass import ModelMeta
from covet_orm.relations.descriptors import not_loaded

if TYPE_CHECKING:
    import sqlalchemy

    from covet_orm.databases import Database
    from covet_orm.exceptions import MultipleObjectsReturned, ObjectDoesNotExist
    from covet_orm.models.options import Options
    from covet_orm.queries.sources import Source

__all__ = ["Model"]


class Model(metaclass=ModelMeta):
    """The base of all models.

        class User(Model):
            username = CharField(max_length=100, unique=True)
            age = IntegerField(null=True)

        user = await User.objects.create(username="ada")
        adults = await User.objects.filter(User.age >= 18)

    An instance knows what the database last told about its row, so that `save` writes what changed and nothing else.
    Two instances are equal when they are of one model and have the same key.
    """

    objects: ClassVar[ManagerDescriptor] = ManagerDescriptor()
    _meta: ClassVar[Options]

    if TYPE_CHECKING:
        __table__: ClassVar[sqlalchemy.Table]
        DoesNotExist: ClassVar[type[ObjectDoesNotExist]]
        MultipleObjectsReturned: ClassVar[type[MultipleObjectsReturned]]
        _row: Any
        _source: Source
        _related: dict[str, Any]

        def __init__(self, **values: Any) -> None: ...

    else:

        def __init__(self, **values: Any) -> None:
            raise ModelError(f"{type(self).__name__} is abstract: make an object of a model that derives from it")

    @property
    def pk(self) -> Any:
        """The primary key: a value, or a tuple where it has several columns; None before it was saved."""
        key = self._meta.primary_key
        if len(key) == 1:
            return getattr(self, key[0].attribute, None)
        return tuple(getattr(self, field.attribute, None) for field in key)

    @property
    def saved(self) -> bool:
        """Whether the object stands for a row that was read or written."""
        try:
            return self._row is not None
        except AttributeError:
            return False

    async def save(
        self,
        *,
        update_fields: Iterable[str] | None = None,
        force_insert: bool = False,
        using: str | Database | None = None,
    ) -> None:
        """Write the object: insert a new one, update what changed of one that was read.

        Args:
            update_fields: write these fields alone, changed or not.
            force_insert: insert, even if it was read.
            using: the database, or its alias.

        Raises:
            ValidationError: values that the model does not take; nothing was sent.
            UniqueViolation, ForeignKeyViolation, IntegrityError: a constraint would be violated.
            StaleObject: it has a version field, and somebody else changed it.
            DoesNotExist: its row is gone.
        """
        from covet_orm.queries.saving import save

        await save(self, update_fields=update_fields, force_insert=force_insert, using=using)

    async def delete(self, *, using: str | Database | None = None) -> int:
        """Delete its row; how many rows that were, those that went with it by CASCADE in the database not counted."""
        from covet_orm.queries.saving import delete

        return await delete(self, using=using)

    async def refresh_from_db(self, *fields: str, using: str | Database | None = None) -> Self:
        """Read its row again, or some fields of it; changes that were not saved are lost.

        Raises:
            DoesNotExist: the row is gone.
        """
        from covet_orm.queries.saving import refresh

        await refresh(self, fields, using=using)
        return self

    async def fetch(self, *names: str, alone: bool = False) -> Self:
        """Load relations and deferred fields that the query left out: `await book.fetch("author")`, then `book.author`.

        As long as somebody holds on to the result that the object came with, they are loaded for all objects of it by
        one query, so that a loop over them costs one. What is loaded already is not asked for again.

        Args:
            names: relations, paths of them (`author__team`), and fields.
            alone: load them for this object only.

        Raises:
            FieldError: there is no such field or relation.
            QueryError: the object is not saved.
            DoesNotExist: its row, or the one that its foreign key refers to, is not there.
        """
        from covet_orm.relations.fetching import fetch

        await fetch(self, names, alone=alone)
        return self

    def full_clean(self, exclude: Iterable[str] = ()) -> None:
        """Check every field, and what `clean` checks; nothing is sent to a database.

        Raises:
            ValidationError: with every error there is.
        """
        from covet_orm.models.validation import full_clean

        full_clean(self, exclude)

    def clean(self) -> None:
        """Check what concerns several fields: override it, and raise ValidationError or ValueError."""

    def changed_fields(self) -> list[str]:
        """The names of the fields whose values are not those of the row as it was read or written."""
        from covet_orm.models.changes import changed

        return [field.name for field in changed(self)]

    def __getattr__(self, name: str) -> Any:
        """Called by Python for an attribute that has no value: a field that was not loaded, or not given."""
        field = type(self)._meta.by_name.get(name)
        # What a query computed for this object. The dictionary itself may not be there, and would be asked for here.
        if field is None and name not in ("_related", "_row", "_source"):
            computed = getattr(self, "_related", {})
            if name in computed:
                return computed[name]
        if name in type(self)._meta.relations:
            # Its descriptor found nothing, and Python asks here before it gives up.
            raise not_loaded(self, name, "select_related")
        if field is None:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}", name=name, obj=self)
        if self.saved:
            raise FieldNotLoaded(
                f"{type(self).__name__}.{name} was not loaded: leave it out of defer(), or add it to only(); "
                f"`await obj.refresh_from_db({name!r})` loads it now"
            )
        raise FieldNotLoaded(f"{type(self).__name__}.{name} has no value yet: none was given, and it has no default")

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        # A proxy and its parent are two views of one row.
        if not isinstance(other, Model) or self._meta.concrete is not other._meta.concrete:
            return NotImplemented
        key = self.pk
        return key is not None and key == other.pk and not (type(key) is tuple and None in key)

    def __hash__(self) -> int:
        key = self.pk
        if key is None or (type(key) is tuple and None in key):
            raise TypeError(f"{self!r} has no key yet, and so no hash; save it first")
        return hash((self._meta.concrete, key))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.pk!r}>"

    def __getstate__(self) -> dict[str, Any]:
        return state_of(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        restore(self, state)

    def __copy__(self) -> Self:
        made: Self = copied(self)
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        made: Self = deep_copied(self, memo)
        return made
