"""Fields that refer to other models: foreign keys, one-to-one and many-to-many relations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, Unpack, cast, overload

from covet_orm.deferred import sqlalchemy
from covet_orm.exceptions import ModelError
from covet_orm.expressions.base import Expression
from covet_orm.fields.base import UNSET, Convert, Field
from covet_orm.fields.options import Deferrable, FieldOptions
from covet_orm.models.relations import Hop, Relation

if TYPE_CHECKING:
    from covet_orm.models.instances import Model
    from covet_orm.relations.managers import RelatedManager

__all__ = [
    "CASCADE",
    "DO_NOTHING",
    "PROTECT",
    "RESTRICT",
    "SET_DEFAULT",
    "SET_NULL",
    "ForeignKey",
    "ManyToManyField",
    "OnDelete",
    "OneToOneField",
    "ParentLink",
    "RelatedField",
]

T = TypeVar("T")
M = TypeVar("M", bound="Model")

OnDelete = Literal["CASCADE", "RESTRICT", "SET NULL", "SET DEFAULT", "NO ACTION", "PROTECT"]
"""What happens to a row when the one it refers to is deleted."""

CASCADE: OnDelete = "CASCADE"
"""It is deleted as well, by the database."""
RESTRICT: OnDelete = "RESTRICT"
"""The other cannot be deleted."""
PROTECT: OnDelete = "PROTECT"
"""As RESTRICT, by the name that Django gives it."""
SET_NULL: OnDelete = "SET NULL"
"""Its foreign key becomes NULL."""
SET_DEFAULT: OnDelete = "SET DEFAULT"
"""Its foreign key gets the column's `db_default` (PostgreSQL, SQLite)."""
DO_NOTHING: OnDelete = "NO ACTION"
"""The database checks at the end of the statement, or of the transaction where the constraint is deferred."""


class RelatedField(Field[T]):
    """The base of the fields that refer to a model.

    Args:
        to: the model, its name, `app_label.Name`, or `self`.
        related_name: what the relation is called from the other side; `+` for nothing there.
    """

    def __init__(self, to: type[Any] | str, *, related_name: str | None = None, **options: Any) -> None:
        self.to = to
        self.related_name = related_name
        self._target: type[Model] | None = None
        super().__init__(**options)

    @property
    def target(self) -> type[Model]:
        """The model that it refers to.

        Raises:
            ModelError: it was named by text, and there is no such model.
        """
        if self._target is None:
            to = self.to
            if to == "self":
                self._target = self.model
            else:
                self._target = self.model._meta.registry.get(to, self.model) if isinstance(to, str) else to
        return self._target

    def clone(self) -> Field[T]:
        other = cast("RelatedField[T]", super().clone())
        other._target = None
        return other

    def relate(self) -> None:
        to = self.to
        if to == "self":
            self._connect(self.model)
        elif isinstance(to, str):
            self.model._meta.registry.when_there(to, self.model, self._connect)
        else:
            self._connect(to)

    def name_from_there(self, many: bool) -> str | None:
        """What the relation is called on the other side; None for nothing."""
        if self.related_name == "+":
            return None
        if self.related_name is not None:
            return self.related_name.replace("%(class)s", self.model.__name__.lower()).replace(
                "%(app_label)s", self.model._meta.app_label
            )
        name = self.model.__name__.lower()
        return f"{name}_set" if many else name

    def _connect(self, target: type[Model]) -> None:
        raise ModelError(f"{type(self).__name__} does not say how it relates")


class ForeignKey(RelatedField[T]):
    """A reference to one object of another model: `author = ForeignKey(Author, related_name="books")`.

    `book.author` is the object, if it was loaded, `book.author_id` its key.

    Args:
        to: the model, its name, `app_label.Name`, or `self`.
        on_delete: what happens to a row when the one it refers to is deleted; done by the database.
        related_name: what the relation is called from the other side: `author.books`; `+` for nothing there. By default
            the name of this model with `_set`.
        db_constraint: whether the database checks that the other row is there.
        deferrable: when it checks, if that can wait: `deferred` at the end of the transaction, `immediate` at once
            unless the transaction says otherwise (PostgreSQL, SQLite). What deleting the other row does, does not
            wait; RESTRICT forbids it at once, DO_NOTHING leaves it to the check.
    """

    kind = "foreign key"
    many = True

    @overload
    def __init__(
        self: ForeignKey[M],
        to: type[M],
        *,
        on_delete: OnDelete = ...,
        related_name: str | None = ...,
        db_constraint: bool = ...,
        deferrable: Deferrable | None = ...,
        null: Literal[False] = False,
        **options: Unpack[FieldOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: ForeignKey[M | None],
        to: type[M],
        *,
        on_delete: OnDelete = ...,
        related_name: str | None = ...,
        db_constraint: bool = ...,
        deferrable: Deferrable | None = ...,
        null: Literal[True],
        **options: Unpack[FieldOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: ForeignKey[Any],
        to: str,
        *,
        on_delete: OnDelete = ...,
        related_name: str | None = ...,
        db_constraint: bool = ...,
        deferrable: Deferrable | None = ...,
        null: bool = ...,
        **options: Unpack[FieldOptions],
    ) -> None: ...
    def __init__(
        self,
        to: type[Any] | str,
        *,
        on_delete: OnDelete = CASCADE,
        related_name: str | None = None,
        db_constraint: bool = True,
        deferrable: Deferrable | None = None,
        null: bool = False,
        **options: Any,
    ) -> None:
        if on_delete == SET_NULL and not null:
            raise ModelError("a foreign key with on_delete=SET_NULL needs null=True")
        if on_delete == SET_DEFAULT and options.get("db_default", UNSET) is UNSET:
            raise ModelError("a foreign key with on_delete=SET_DEFAULT needs a db_default")
        if deferrable is not None and not db_constraint:
            raise ModelError("a foreign key with db_constraint=False has no check that could be deferrable")
        self.deferrable: Deferrable | None = deferrable
        self.on_delete: OnDelete = RESTRICT if on_delete == PROTECT else on_delete
        self.db_constraint = db_constraint
        options.setdefault("db_index", not options.get("unique", False))
        super().__init__(to, related_name=related_name, null=null, **options)

    @property
    def attribute(self) -> str:
        return f"{self.name}_id"

    @property
    def remote(self) -> Field[Any]:
        """The field that it refers to: the primary key of the other model."""
        key = self.target._meta.primary_key
        if len(key) != 1:
            raise ModelError(
                f"{self!r} refers to {self.target.__name__}, whose primary key has {len(key)} columns; a foreign key "
                "has one"
            )
        return key[0]

    def slots(self, name: str) -> list[str]:
        return [f"{name}_id"]

    def expressions(self) -> dict[str, Expression[Any]]:
        reference = self.reference()
        return {self.name: reference, self.attribute: reference}

    def descriptors(self) -> dict[str, Any]:
        from covet_orm.relations.descriptors import RelatedObject

        return {self.name: RelatedObject(self)}

    def column_type(self) -> sqlalchemy.types.TypeEngine[Any]:
        return self.remote.column_type()

    def unsupported(self, kind: str) -> str:
        if kind in ("mysql", "mariadb") and self.on_delete == SET_DEFAULT and self.db_constraint:
            # InnoDB takes the words of the definition, and then forbids the deletion (MariaDB's documentation, "Foreign
            # Keys").
            return f"{kind} does not do on_delete=SET_DEFAULT; PostgreSQL and SQLite do, and SET_NULL all of them"
        if self.deferrable is not None and kind in ("mysql", "mariadb"):
            return f"{kind} has no foreign keys that are deferrable; PostgreSQL and SQLite have"
        return ""

    def to_python(self, value: Any) -> T:
        return cast("T", self._key(value))

    def binder(self, kind: str) -> Convert:
        bind = self.remote.binder(kind)
        key = self._key
        return lambda value: bind(key(value))

    def loader(self, kind: str) -> Convert | None:
        return self.remote.loader(kind)

    def assign(self, instance: Any, value: Any) -> None:
        """Refer to an object, or to nothing: what `book.author = author` does."""
        setattr(instance, self.name, value)

    def key_of(self, other: Any) -> Any:
        """The key of an object that this field may refer to.

        Raises:
            ModelError: the object is of another model, or was not saved yet.
        """
        if not isinstance(other, self.target):
            raise ModelError(f"{self!r} refers to a {self.target.__name__}, and {other!r} is none")
        key = getattr(other, self.remote.attribute, None)
        if key is None:
            raise ModelError(f"{other!r} has no key yet: save it before {self!r} refers to it")
        return key

    def _key(self, value: Any) -> Any:
        from covet_orm.models.instances import Model

        return self.key_of(value) if isinstance(value, Model) else value

    def _connect(self, target: type[Model]) -> None:
        self._target = target
        remote = self.remote
        model = self.model
        model._meta.relate(
            Relation(self.name, model, target, self, False, self.null, (Hop(target, (self,), (remote,)),))
        )
        name = self.name_from_there(self.many)
        if name is not None:
            back = Relation(name, target, model, self, self.many, True, (Hop(model, (remote,), (self,)),))
            target._meta.relate(back)
            from covet_orm.relations.descriptors import ReverseObject, ReverseObjects

            setattr(target, name, ReverseObjects(back) if self.many else ReverseObject(back))


class OneToOneField(ForeignKey[T]):
    """A foreign key that no two objects share: `profile.user`, and `user.profile` from the other side."""

    kind = "one-to-one"
    many = False

    if TYPE_CHECKING:

        @overload
        def __init__(
            self: OneToOneField[M],
            to: type[M],
            *,
            on_delete: OnDelete = ...,
            related_name: str | None = ...,
            db_constraint: bool = ...,
            deferrable: Deferrable | None = ...,
            null: Literal[False] = False,
            **options: Unpack[FieldOptions],
        ) -> None: ...
        @overload
        def __init__(
            self: OneToOneField[M | None],
            to: type[M],
            *,
            on_delete: OnDelete = ...,
            related_name: str | None = ...,
            db_constraint: bool = ...,
            deferrable: Deferrable | None = ...,
            null: Literal[True],
            **options: Unpack[FieldOptions],
        ) -> None: ...
        @overload
        def __init__(
            self: OneToOneField[Any],
            to: str,
            *,
            on_delete: OnDelete = ...,
            related_name: str | None = ...,
            db_constraint: bool = ...,
            deferrable: Deferrable | None = ...,
            null: bool = ...,
            **options: Unpack[FieldOptions],
        ) -> None: ...
        def __init__(self, to: type[Any] | str, **options: Any) -> None: ...

    else:

        def __init__(self, to: type[Any] | str, **options: Any) -> None:
            options.setdefault("unique", not options.get("primary_key", False))
            super().__init__(to, **options)


class ParentLink(OneToOneField[Any]):
    """The reference of a model with a table of its own to the row of the model that it derives from.

    Args:
        to: the parent.
        related_name: what the relation is called from the parent; the name of the model by default.
        db_column: the name of the column.
    """

    def __init__(self, to: type[Any], *, related_name: str | None = None, db_column: str | None = None) -> None:
        super().__init__(to, primary_key=True, related_name=related_name, db_column=db_column)

    @property
    def filled_by_database(self) -> bool:
        """It has its value from the parent's row, which is written first."""
        return True

    def initial(self) -> Any:
        """Nothing: it shares its value with the parent's key, which has an initial value."""
        return UNSET


class ManyToManyField(RelatedField["RelatedManager[M]"]):
    """A relation of many objects to many: `tags = ManyToManyField(Tag, related_name="books")`.

    `book.tags` is a manager: `await book.tags.add(tag)`, `await book.tags.all()`.

    Args:
        to: the model, its name, `app_label.Name`, or `self`.
        related_name: what the relation is called from the other side; `+` for nothing there.
        through: the model of the table between, if it has more than the two foreign keys.
        through_fields: the names of the two foreign keys there, this side's first, when it has several.
        symmetrical: for a relation to `self`, whether both sides see it; they do unless this is False.
        db_table: the name of the table between.
    """

    kind = "many-to-many"

    if TYPE_CHECKING:

        @overload
        def __get__(self, instance: None, owner: type[Any]) -> Any: ...
        @overload
        def __get__(self, instance: Model, owner: type[Any]) -> RelatedManager[M]: ...
        @overload
        def __get__(self, instance: object, owner: type[Any]) -> Self: ...
        def __get__(self, instance: object, owner: type[Any]) -> Any: ...

    def __init__(
        self,
        to: type[M] | str,
        *,
        related_name: str | None = None,
        through: type[Any] | str | None = None,
        through_fields: Iterable[str] = (),
        symmetrical: bool | None = None,
        db_table: str | None = None,
    ) -> None:
        super().__init__(to, related_name=related_name)
        self.through = through
        self.through_fields = tuple(through_fields)
        self.symmetrical = to == "self" if symmetrical is None else symmetrical
        self.db_table = db_table
        self.link: type[Model] | None = None

    @property
    def column_is_there(self) -> bool:
        return False

    def slots(self, name: str) -> list[str]:
        return []

    def expressions(self) -> dict[str, Expression[Any]]:
        return {}

    def _connect(self, target: type[Model]) -> None:
        self._target = target
        if isinstance(self.through, str):
            self.model._meta.registry.when_there(self.through, self.model, self._connect_through)
        elif self.through is not None:
            self._connect_through(self.through)
        else:
            from covet_orm.relations.links import make_link

            self._connect_through(make_link(self))

    def _connect_through(self, link: type[Model]) -> None:
        from covet_orm.relations.descriptors import ManyObjects
        from covet_orm.relations.links import sides

        self.link = link
        near, far = sides(self, link)
        model, target = self.model, self.target
        there = Relation(
            self.name, model, target, self, True, True,
            (Hop(link, (near.remote,), (near,)), Hop(target, (far,), (far.remote,))),
        )  # fmt: skip
        model._meta.relate(there)
        setattr(model, self.name, ManyObjects(there, near, far))
        name = self.name_from_there(True)
        if name is not None and not (self.symmetrical and model is target):
            back = Relation(
                name, target, model, self, True, True,
                (Hop(link, (far.remote,), (far,)), Hop(model, (near,), (near.remote,))),
            )  # fmt: skip
            target._meta.relate(back)
            setattr(target, name, ManyObjects(back, far, near))
