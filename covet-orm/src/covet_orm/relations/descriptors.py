"""What `book.author`, `user.profile`, `author.books` and `book.tags` are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from covet_orm.exceptions import ModelError, RelationNotLoaded

if TYPE_CHECKING:
    from covet_orm.fields.related import ForeignKey
    from covet_orm.models.relations import Relation

__all__ = ["ManyObjects", "RelatedObject", "ReverseObject", "ReverseObjects"]


class RelatedObject:
    """`book.author`: the object, if it was loaded."""

    __slots__ = ("field",)

    def __init__(self, field: ForeignKey[Any]) -> None:
        self.field = field

    def __get__(self, instance: Any, owner: type[Any]) -> Any:
        if instance is None:
            return self
        field = self.field
        try:
            found = object.__getattribute__(instance, "_related")[field.name]
        except (AttributeError, KeyError):
            found = None
        try:
            key = object.__getattribute__(instance, field.attribute)
        except AttributeError:
            # The key is deferred, and what it refers to was loaded all the same.
            if found is None:
                raise not_loaded(instance, field.name, "select_related") from None
            return found
        if key is None:
            return None
        # An object that was loaded before the key was changed is not what the key refers to.
        if found is not None and getattr(found, field.remote.attribute) == key:
            return found
        raise not_loaded(instance, field.name, "select_related")

    def __set__(self, instance: Any, value: Any) -> None:
        field = self.field
        if value is None:
            if not field.null:
                raise ModelError(f"{field!r} may not be None: it has no null=True")
            setattr(instance, field.attribute, None)
            related(instance).pop(field.name, None)
            return
        setattr(instance, field.attribute, field.key_of(value))
        related(instance)[field.name] = value


class ReverseObject:
    """`user.profile`: the one object that refers to this one, if it was loaded; None if it was and there is none."""

    __slots__ = ("relation",)

    def __init__(self, relation: Relation) -> None:
        self.relation = relation

    def __get__(self, instance: Any, owner: type[Any]) -> Any:
        if instance is None:
            return self
        try:
            return instance._related[self.relation.name]
        except (AttributeError, KeyError):
            raise not_loaded(instance, self.relation.name, "select_related") from None


class ReverseObjects:
    """`author.books`: a manager of the objects that refer to this one."""

    __slots__ = ("relation",)

    def __init__(self, relation: Relation) -> None:
        self.relation = relation

    def __get__(self, instance: Any, owner: type[Any]) -> Any:
        if instance is None:
            return self
        from covet_orm.relations.managers import ReverseManager

        return ReverseManager(instance, self.relation)


class ManyObjects:
    """`book.tags`: a manager of the objects of a many-to-many relation."""

    __slots__ = ("far", "near", "relation")

    def __init__(self, relation: Relation, near: ForeignKey[Any], far: ForeignKey[Any]) -> None:
        self.relation = relation
        self.near = near
        self.far = far

    def __get__(self, instance: Any, owner: type[Any]) -> Any:
        if instance is None:
            return self
        from covet_orm.relations.managers import ManyToManyManager

        return ManyToManyManager(instance, self.relation, self.near, self.far)


class SharedRelated(dict[str, Any]):
    """What several objects are related to, such as all the books of one author; `related` gives each its own of it
    before it changes."""

    __slots__ = ()


def related(instance: Any) -> dict[str, Any]:
    """The related objects of an instance that were loaded, to change them."""
    try:
        # Past __getattr__, which would look for a field of that name.
        found: dict[str, Any] = object.__getattribute__(instance, "_related")
    except AttributeError:
        found = instance._related = {}
    if type(found) is SharedRelated:
        found = instance._related = dict(found)
    return found


def not_loaded(instance: Any, name: str, remedy: str) -> RelationNotLoaded:
    """The error for a relation that was not loaded."""
    model = type(instance).__name__
    return RelationNotLoaded(
        f"{model}.{name} was not loaded: add .{remedy}({name!r}) to the query, or `await obj.fetch({name!r})`, which "
        "loads it for every object of the same result"
    )
