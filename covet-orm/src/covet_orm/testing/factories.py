"""Factories: objects for tests, of which a test names only what it is about.

class TeamFactory(Factory[Team]):
    name = Sequence(lambda n: f"team {n}")


class UserFactory(Factory[User]):
    username = Sequence(lambda n: f"user{n}")
    email = Derived(lambda values: f"{values['username']}@example.com")
    team = SubFactory(TeamFactory)

user = await UserFactory.create(team__name="red")
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_args

if TYPE_CHECKING:
    from covet_orm.databases import Database
    from covet_orm.models.instances import Model

__all__ = ["Derived", "Factory", "Sequence", "SubFactory"]

M = TypeVar("M", bound="Model")


class Sequence:
    """A value made of a number that is another one for every object, from 1.

    Args:
        make: the value for a number.
    """

    def __init__(self, make: Callable[[int], Any]) -> None:
        self.make = make
        self.numbers = itertools.count(1)


class Derived:
    """A value made of the others: those above it in the class, and those that the caller gave.

    Args:
        make: the value for the values by name.
    """

    def __init__(self, make: Callable[[Mapping[str, Any]], Any]) -> None:
        self.make = make


class SubFactory:
    """An object that another factory makes. The caller may give values for it as `name__value`.

    Args:
        factory: that factory.
        values: what it is given.
    """

    def __init__(self, factory: type[Factory[Any]], **values: Any) -> None:
        self.factory = factory
        self.values = values


class Factory(Generic[M]):
    """Makes objects of a model: `class UserFactory(Factory[User])`, its attributes the values by field.

    An attribute is a value, a `Sequence`, a `Derived`, a `SubFactory`, or a function without arguments that is called
    for every object. A factory derived from another one has its values as well.

    Attributes:
        model: the model.
    """

    model: type[Any]
    _values: Mapping[str, Any] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for base in getattr(cls, "__orig_bases__", ()):
            for argument in get_args(base):
                if isinstance(argument, type):
                    cls.model = argument
        own = {name: value for name, value in vars(cls).items() if not name.startswith("_") and name != "model"}
        cls._values = {**cls._values, **{name: value for name, value in own.items() if not _is_method(value)}}

    @classmethod
    async def create(cls, *, using: str | Database | None = None, **values: Any) -> M:
        """Make an object, and those that it needs, and save them.

        Args:
            using: in which database; by default as everywhere.
            values: by field; by `name__field` for the object of a `SubFactory`.

        Raises:
            TypeError: a value is for an object that no `SubFactory` makes.
            ValidationError: values that the model does not take.
            IntegrityError: a constraint would be violated.
        """
        instance: M = cls.model(**await cls._resolved(values, using))
        await instance.save(using=using)
        return instance

    @classmethod
    async def create_batch(cls, number: int, *, using: str | Database | None = None, **values: Any) -> list[M]:
        """Make several objects, as `create` does each."""
        return [await cls.create(using=using, **values) for _ in range(number)]

    @classmethod
    async def build(cls, *, using: str | Database | None = None, **values: Any) -> M:
        """Make an object and do not save it; those of a `SubFactory` that it refers to are saved."""
        instance: M = cls.model(**await cls._resolved(values, using))
        return instance

    @classmethod
    async def _resolved(cls, given: Mapping[str, Any], using: str | Database | None) -> dict[str, Any]:
        values: dict[str, Any] = {}
        nested: dict[str, dict[str, Any]] = {}
        for name, value in given.items():
            outer, separator, inner = name.partition("__")
            if not separator:
                values[name] = value
            elif isinstance(cls._values.get(outer), SubFactory):
                nested.setdefault(outer, {})[inner] = value
            else:
                raise TypeError(f"{cls.__name__}: {name!r} is for the object {outer!r}, which no SubFactory makes")
        for name, value in cls._values.items():
            if name in values:
                continue
            if isinstance(value, Sequence):
                values[name] = value.make(next(value.numbers))
            elif isinstance(value, Derived):
                values[name] = value.make(values)
            elif isinstance(value, SubFactory):
                values[name] = await value.factory.create(using=using, **{**value.values, **nested.get(name, {})})
            else:
                values[name] = value() if callable(value) else value
        return values


def _is_method(value: Any) -> bool:
    return isinstance(value, (classmethod, staticmethod, property))
