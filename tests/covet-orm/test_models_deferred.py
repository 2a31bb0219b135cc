"""What a model gets when it is first asked for, and what declaring models does not wait for."""

from __future__ import annotations

import inspect
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest

import covet_orm as orm
from covet_orm.exceptions import MultipleObjectsReturned, ObjectDoesNotExist

DECLARING = """
import sys
import covet_orm as orm


class Team(orm.Model):
    name = orm.CharField(max_length=100, unique=True)


class Person(orm.Model):
    name = orm.CharField(max_length=100, db_default="nobody")
    email = orm.EmailField()
    team = orm.ForeignKey(Team, null=True)
    born = orm.DateField()
    tags = orm.JSONField(default=dict)
    key = orm.UUIDField()
    file = orm.BinaryField()
    next_name = orm.GeneratedField(orm.F("name"), orm.CharField(max_length=100))
    friends = orm.ManyToManyField("self")

    class Meta:
        indexes = [orm.Index("-born", condition=orm.Q(name="x"))]
        constraints = [orm.CheckConstraint(orm.Q(born__gte="2000-01-01")), orm.UniqueConstraint("team", "name")]


print([name for name in sys.modules if name.partition(".")[0] == "sqlalchemy"])
Person.__table__
print("sqlalchemy" in sys.modules)
"""


def person(registry: orm.Registry, parent: Any = orm.Model) -> Any:
    class Person(parent):  # type: ignore[misc]
        name = orm.CharField(max_length=10)
        age = orm.IntegerField(default=7)

        class Meta:
            pass

        Meta.registry = registry  # type: ignore[attr-defined]

    return Person


@pytest.fixture
def registry() -> orm.Registry:
    return orm.Registry()


def test_declaring_models_does_not_import_sqlalchemy() -> None:
    told = subprocess.run([sys.executable, "-c", DECLARING], capture_output=True, text=True, timeout=60)
    assert (told.stdout, told.stderr) == ("[]\nTrue\n", "")


def test_the_constructor_is_a_function_whoever_asks_first(registry: orm.Registry) -> None:
    looked_at, called = person(registry), person(orm.Registry())
    assert list(inspect.signature(looked_at).parameters) == ["id", "name", "age", "_unknown"]
    assert called(name="Ada").age == 7
    for model in (looked_at, called):
        assert inspect.isfunction(vars(model)["__init__"])
        assert model.__init__.__qualname__ == f"{model.__qualname__}.__init__"


def test_a_constructor_is_that_of_its_own_model(registry: orm.Registry) -> None:
    """A child asks for that of its parent before anybody made one of either."""
    parent = person(registry)

    class Worker(parent):  # type: ignore[misc, valid-type]
        wage = orm.IntegerField()

        class Meta:
            pass

        Meta.registry = registry  # type: ignore[attr-defined]

        @classmethod
        def from_above(cls, **values: Any) -> Any:
            made = cls.__new__(cls)
            super(Worker, made).__init__(**values)
            return made

    made = Worker.from_above(name="Ada")
    assert made.age == 7
    assert "wage" not in inspect.signature(parent).parameters
    assert Worker(name="Bob", wage=3).wage == 3


def test_errors_are_those_of_their_models(registry: orm.Registry) -> None:
    parent = person(registry)

    class Worker(parent):  # type: ignore[misc, valid-type]
        wage = orm.IntegerField()

        class Meta:
            pass

        Meta.registry = registry  # type: ignore[attr-defined]

    # The child's first: its class is below that of the parent, which nobody asked for yet.
    assert Worker.DoesNotExist.__mro__[1:3] == (parent.DoesNotExist, ObjectDoesNotExist)
    assert Worker.MultipleObjectsReturned.__mro__[1:3] == (parent.MultipleObjectsReturned, MultipleObjectsReturned)
    assert Worker(name="Ada", wage=1).DoesNotExist is Worker.DoesNotExist
    assert Worker.DoesNotExist is not parent.DoesNotExist
    assert parent.DoesNotExist.__qualname__ == f"{parent.__qualname__}.DoesNotExist"


def test_threads_that_ask_for_an_error_get_the_same_one() -> None:
    for _ in range(50):
        model = person(orm.Registry())
        together = Barrier(4)

        def ask(_: int, model: Any = model, together: Barrier = together) -> Any:
            together.wait()
            return model.DoesNotExist

        with ThreadPoolExecutor(4) as pool:
            assert len(set(pool.map(ask, range(4)))) == 1


def test_names_of_models_are_found_by_what_they_are_called(registry: orm.Registry) -> None:
    """What a name stands for is known without a look at every model."""
    first = person(registry)
    assert registry["Person"] is first
    again = person(registry)
    assert (registry["Person"], len(registry)) == (again, 1)
    with pytest.raises(orm.ModelError, match="did you mean 'Person'"):
        registry.get("Persom")
