"""Models that derive from others: abstract ones, proxies, and those whose fields stand in two tables."""

from __future__ import annotations

import pickle
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest

from covet.testing.conformance.faults import at_every_await
from covet_orm.databases import Database
from covet_orm.exceptions import (
    ModelError,
    QueryError,
    RelationNotLoaded,
    StaleObject,
    UniqueViolation,
    ValidationError,
)
from covet_orm.expressions import Count
from covet_orm.fields import (
    BooleanField,
    CharField,
    ForeignKey,
    IntegerField,
    ManyToManyField,
    OneToOneField,
    VersionField,
)
from covet_orm.models import Manager, Model, Registry
from covet_orm.queries.querysets import QuerySet
from covet_orm.relations.managers import RelatedManager
from covet_orm.relations.prefetching import Prefetch

pytestmark = pytest.mark.anyio

firm = Registry()


class Base(Model):
    class Meta:
        abstract = True
        registry = firm


class City(Base):
    name = CharField(max_length=20)

    if TYPE_CHECKING:
        person_set: RelatedManager[Person]


class Skill(Base):
    name = CharField(max_length=20)


class Person(Base):
    name = CharField(max_length=20)
    email = CharField(max_length=20, unique=True, null=True)
    city = ForeignKey(City, null=True)
    skills = ManyToManyField(Skill, related_name="people")

    class Meta:
        ordering = ("name",)
        unique_together = ("name", "email")


class Employee(Person):
    salary = IntegerField()
    chief = ForeignKey("self", null=True, related_name="team")


class Director(Employee):
    car = CharField(max_length=20, default="none")


class Customer(Person):
    account = OneToOneField(Person, primary_key=True, related_name="client")
    number = IntegerField(unique=True)


class ActiveManager(Manager["Retired"]):
    def get_queryset(self) -> QuerySet[Retired]:
        return super().get_queryset().filter(salary=0)


class Retired(Employee):
    objects = ActiveManager()

    class Meta:
        proxy = True
        ordering = ("-name",)

    def greeting(self) -> str:
        return f"goodbye {self.name}"


class Order(Base):
    """Refers to the parent and to a child, and comes after them."""

    person = ForeignKey(Person, related_name="orders")
    seller = ForeignKey(Employee, null=True, related_name="sales")
    gone = ForeignKey(Retired, null=True, related_name="+")


class Stamped(Base):
    stamp = IntegerField(default=7)
    city = ForeignKey(City, null=True, related_name="%(class)s_of")

    class Meta(Base.Meta):
        abstract = True
        unique_together = ("stamp", "city")


class Named(Model):
    label = CharField(max_length=10, default="x")

    class Meta:
        abstract = True


class Marker:
    """A mixin that is no model."""

    marked = BooleanField(default=False)

    def mark(self) -> None:
        self.marked = True  # type: ignore[arg-type]


class Parcel(Stamped, Named, Marker):
    class Meta(Stamped.Meta):
        abstract = False


class Letter(Stamped):
    stamp = IntegerField(default=8)

    class Meta(Stamped.Meta):
        abstract = False


class Account(Base):
    owner = CharField(max_length=20)
    version = VersionField()


class Savings(Account):
    rate = IntegerField(default=1)


@pytest.fixture
async def db(url: str) -> AsyncIterator[Database]:
    database = Database(url)
    await database.create_all(firm)
    try:
        yield database
    finally:
        await database.close()


async def test_an_object_in_two_tables_is_one_object(db: Database) -> None:
    city = await City.objects.create(name="Rome")
    chief = await Director.objects.create(name="Zoe", salary=9, city=city, car="red")
    employee = await Employee.objects.create(name="Ann", salary=3, city=city, chief=chief, email="a@x")
    assert employee.pk == employee.id == employee.person_ptr_id
    assert chief.pk == chief.id == chief.person_ptr_id == chief.employee_ptr_id
    assert await Person.objects.values_list("name", flat=True) == ["Ann", "Zoe"]
    found = await Employee.objects.select_related("city", "chief__city").get(name="Ann", salary__lt=4)
    assert (found.email, found.salary, found.city.name) == ("a@x", 3, "Rome")  # type: ignore[union-attr]
    assert found.chief.city.name == "Rome"
    assert not found.changed_fields()
    zoe = await Director.objects.get(car="red", salary=9, city__name="Rome")
    assert (zoe.name, zoe.salary, zoe.pk) == ("Zoe", 9, chief.pk)
    assert await Employee.objects.filter(chief__name="Zoe").count() == 1
    assert [one.name for one in await chief.team.all()] == ["Ann"]
    assert [one.name for one in await Employee.objects.order_by("-salary", "name")] == ["Zoe", "Ann"]
    assert await Employee.objects.filter(pk=chief.pk).exists()
    assert pickle.loads(pickle.dumps(zoe)).car == "red"


async def test_changes_go_to_the_table_that_has_them(db: Database) -> None:
    one = await Director.objects.create(name="Ann", salary=3)
    one.name, one.car = "Eve", "blue"
    await one.save()
    assert not one.changed_fields()
    one.salary = 5
    await one.save(update_fields=["salary"])
    found = await Director.objects.get()
    assert (found.name, found.salary, found.car) == ("Eve", 5, "blue")
    await one.refresh_from_db()
    assert await one.delete() == 1
    assert await Person.objects.count() == await Employee.objects.count() == 0
    with pytest.raises(Director.DoesNotExist):
        await found.refresh_from_db()
    with pytest.raises(Person.DoesNotExist):
        await Director.objects.get()


async def test_many_objects_are_written_at_once_to_both_tables(db: Database) -> None:
    made = await Director.objects.bulk_create([Director(name=name, salary=1) for name in "abc"])
    assert len({one.pk for one in made}) == 3
    made[0].name, made[0].car = "z", "blue"
    assert await Director.objects.bulk_update(made, ["name", "car"]) == 3
    assert not made[0].changed_fields()
    assert await Director.objects.filter(salary=1).update(name="same", salary=2) == 3
    assert await Director.objects.filter(car="blue", name="same", salary=2).update(car="red") == 1
    found = await Director.objects.order_by("pk").values_list("name", "salary", "car")
    assert found == [("same", 2, "red"), ("same", 2, "none"), ("same", 2, "none")]
    await Employee.objects.create(name="other", salary=9)
    assert await Director.objects.filter(name="same", car="red").delete() == 1
    assert await Director.objects.all().delete() == 2
    assert await Person.objects.values_list("name", flat=True) == ["other"]
    with pytest.raises(QueryError, match="cannot pass over conflicts"):
        await Director.objects.bulk_create([Director(name="x", salary=1)], ignore_conflicts=True)


async def test_the_parent_leads_to_the_child(db: Database) -> None:
    employee = await Director.objects.create(name="Ann", salary=3)
    other = await Person.objects.create(name="Bob")
    people = await Person.objects.select_related("employee__director")
    assert people[0].employee == await Employee.objects.get()
    assert people[0].employee.director.car == "none"
    assert people[0].employee.person_ptr is people[0]
    assert people[1].employee is None
    people = await Person.objects.prefetch_related("employee__director")
    assert people[0].employee.director.name == "Ann"
    assert people[1].employee is None
    assert await Person.objects.filter(employee__salary=3).count() == 1
    assert await Person.objects.filter(employee=None).values_list("name", flat=True) == ["Bob"]
    with pytest.raises(RelationNotLoaded):
        other.employee
    await employee.fetch("person_ptr")
    assert type(employee.person_ptr) is Person


async def test_each_object_is_of_its_own_model(db: Database) -> None:
    rome = await City.objects.create(name="Rome")
    plain = await Person.objects.create(name="Ann", city=rome)
    employee = await Employee.objects.create(name="Bob", salary=3, city=rome, chief=None)
    director = await Director.objects.create(name="Cyd", salary=4, car="red")
    customer = await Customer.objects.create(name="Dan", number=7)
    both = await Employee.objects.create(name="Eve", salary=5)
    await Customer.objects.create(account=await Person.objects.get(pk=both.pk), number=8)
    await Order.objects.create(person=director, seller=employee)
    people: list[Any] = await Person.objects.select_subclasses()
    assert [type(one) for one in people] == [Person, Employee, Director, Customer, Employee]
    assert [one.pk for one in people] == [plain.pk, employee.pk, director.pk, customer.pk, both.pk]
    assert (people[1].salary, people[2].car, people[3].number) == (3, "red", 7)
    # One query, with conditions, annotations, orders and slices of the parent, and what is loaded beside.
    query = Person.objects.select_subclasses().filter(name__gt="Ann").annotate(n=Count("orders")).order_by("-name")
    found: list[Any] = await query.select_related("city")[1:4]
    assert [(type(one), one.n) for one in found] == [(Customer, 0), (Director, 1), (Employee, 0)]
    assert found[2].city == rome
    assert found[0].city is None
    loaded: list[Any] = await query.prefetch_related("orders", "skills")
    assert [len(await one.orders.all()) for one in loaded] == [0, 0, 1, 0]
    # They are objects as any: they are changed, and what was left out is fetched for all of a kind.
    found[1].car, found[1].name = "blue", "Zoe"
    await found[1].save()
    assert await Director.objects.values_list("name", "car") == [("Zoe", "blue")]
    await people[1].fetch("chief", "city")
    assert (people[1].chief, people[1].city) == (None, rome)
    only: list[Any] = await Person.objects.select_subclasses(Employee)
    assert [type(one) for one in only] == [Person, Employee, Person, Employee, Employee]
    assert type(await Person.objects.select_subclasses(Director).get(pk=director.pk)) is Director
    assert [type(one) for one in await Employee.objects.select_subclasses().order_by("pk")] == [
        Employee, Director, Employee,
    ]  # fmt: skip
    assert type(await Retired.objects.filter().select_subclasses().first()) in (Retired, type(None))
    streamed = [type(one) async for one in Person.objects.select_subclasses().order_by("pk").iterator(2)]
    assert streamed == [Person, Employee, Director, Customer, Employee]
    assert await Person.objects.select_subclasses().count() == 5
    for wrong in (City, Person, Retired):
        with pytest.raises(QueryError, match="Employee, Director, Customer"):
            Person.objects.select_subclasses(wrong)
    with pytest.raises(QueryError, match="set operation"):
        Person.objects.filter(pk=1).union(Person.objects.filter(pk=2)).select_subclasses()


async def test_an_object_is_put_beside_its_parent(db: Database) -> None:
    person = await Person.objects.create(name="Ann", email="a@x")
    employee = Employee(person_ptr=person, salary=4)
    await employee.save()
    assert (employee.name, employee.pk) == ("Ann", person.pk)
    assert await Person.objects.count() == 1
    customer = await Customer.objects.create(account=person, number=5)
    assert (customer.pk, customer.email) == (person.pk, "a@x")
    found = await Person.objects.select_related("client", "employee").get()
    assert (found.client.number, found.employee.salary) == (5, 4)
    with pytest.raises(ModelError, match="no key yet"):
        Employee(person_ptr=Person(name="new"), salary=4)


async def test_both_rows_are_written_or_none(db: Database) -> None:
    await Customer.objects.create(name="Ann", number=1)
    new = Customer(name="Bob", number=1)
    with pytest.raises(UniqueViolation) as refused:
        await new.save()
    assert refused.value.fields == ("number",)
    assert new.pk is None
    assert not new.saved
    assert await Person.objects.count() == 1
    with pytest.raises(ValidationError, match="number"):
        await Customer(name="Bob").save()
    new.full_clean(exclude=["number"])
    new.number = 2
    await new.save()
    assert await Person.objects.count() == 2

    number = iter(range(10, 1000))

    async def insert() -> None:
        await Customer.objects.create(name="Cleo", number=next(number))

    async def check() -> None:
        assert await Person.objects.count() == await Customer.objects.count()

    assert await at_every_await(insert, check) > 0


async def test_relations_of_the_parent_are_the_childs(db: Database) -> None:
    city = await City.objects.create(name="Rome")
    skill = await Skill.objects.create(name="chess")
    ann = await Director.objects.create(name="Ann", salary=3, city=city)
    await ann.skills.add(skill)
    await ann.orders.create(seller=ann)
    assert [type(one) for one in await skill.people.all()] == [Person]
    assert [one.name for one in await city.person_set.all()] == ["Ann"]
    assert await Director.objects.filter(skills__name="chess", orders__seller__name="Ann").count() == 1
    assert await Employee.objects.filter(orders__isnull=False).exclude(skills__name="chess").count() == 0
    assert await Order.objects.filter(seller__city__name="Rome", person__skills=skill).count() == 1
    found = await Director.objects.prefetch_related(
        "skills", "city", "sales__person", Prefetch("orders", Order.objects.order_by("-id")[:1], to_attr="latest")
    ).get()
    assert [one.name for one in found.skills] == ["chess"]
    assert found.city.name == "Rome"  # type: ignore[union-attr]
    assert [one.person.name for one in found.sales] == ["Ann"]
    assert len(found.latest) == 1
    assert [one.name for one in await Employee.objects.prefetch_related("team")] == ["Ann"]


async def test_a_proxy_sees_the_table_of_its_parent(db: Database) -> None:
    ann = await Retired.objects.create(name="Ann", salary=0)
    await Employee.objects.create(name="Bob", salary=2)
    zoe = await Retired.objects.create(name="Zoe", salary=0, chief=ann)
    assert [one.greeting() for one in await Retired.objects.all()] == ["goodbye Zoe", "goodbye Ann"]
    assert await Employee.objects.count() == 3
    assert (await Retired.objects.get(chief__name="Ann")).pk == zoe.pk
    await zoe.orders.create(gone=ann)
    assert await Retired.objects.filter(orders__gone__salary=0).count() == 1
    zoe.name = "Zed"
    await zoe.save()
    assert (await Employee.objects.get(pk=zoe.pk)).name == "Zed"
    # Its manager restricts what is listed, and not what is read again.
    zoe.salary = 1
    await zoe.save()
    await zoe.refresh_from_db()
    assert await Retired.objects.count() == 1
    assert Retired.__table__ is Employee.__table__
    assert Retired(name="x", salary=0) != Employee(name="x", salary=0)


async def test_fields_of_abstract_models_and_mixins(db: Database) -> None:
    city = await City.objects.create(name="Rome")
    parcel = await Parcel.objects.create(city=city)
    letter = await Letter.objects.create(city=city)
    assert (parcel.stamp, parcel.label, parcel.marked, letter.stamp) == (7, "x", False, 8)
    parcel.mark()
    await parcel.save()
    assert await Parcel.objects.filter(marked=True).count() == 1
    assert await city.parcel_of.count() == await city.letter_of.count() == 1
    with pytest.raises(UniqueViolation):
        await Letter.objects.create(city=city)
    # The first of two rows may be the same, in another table.
    assert Parcel._meta.unique_together == Letter._meta.unique_together == (("stamp", "city"),)
    assert Employee._meta.unique_together == ()
    assert Employee._meta.ordering == ("name",)


async def test_the_version_of_a_parent_counts_for_the_child(db: Database) -> None:
    one = await Savings.objects.create(owner="Ann")
    stale, other = await Savings.objects.get(), await Account.objects.get()
    one.rate = 2
    await one.save()
    assert one.version == 2
    stale.owner, stale.rate = "Bob", 3
    with pytest.raises(StaleObject, match="version 1"):
        await stale.save()
    assert stale.version == 1
    with pytest.raises(StaleObject):
        await other.delete()
    with pytest.raises(StaleObject):
        await stale.delete()
    assert await Savings.objects.values_list("owner", "rate", "version") == [("Ann", 2, 2)]
    assert await Savings.objects.update(rate=5) == 1
    assert await Account.objects.values_list("version", flat=True) == [3]
    await one.refresh_from_db()
    await Savings.objects.bulk_update([one], ["rate"])
    assert (await Account.objects.get()).version == one.version == 4
    await one.delete()
    assert await Account.objects.count() == 0


def test_what_cannot_be_derived_is_refused() -> None:
    names = Registry()

    class Animal(Model):
        name = CharField(max_length=10)

        class Meta:
            registry = names

    class Plant(Model):
        class Meta:
            registry = names

    # Python says so before we can: each model has a metaclass of its own.
    with pytest.raises(TypeError, match="metaclass conflict"):

        class Coral(Animal, Plant):  # type: ignore[misc]
            pass

    # Where it asks us first, we say what can be done.
    metaclass: Any = type(Animal)
    with pytest.raises(ModelError, match=r"Animal, Plant; .*OneToOneField"):
        metaclass("Coral", (Animal, Plant), {"__module__": __name__, "__qualname__": "Coral"})

    class Slotted:
        __slots__ = ("weight",)

    for other in (Slotted, int, Exception):
        for parent in (Animal, Model):
            metaclass = type(parent)
            with pytest.raises(ModelError, match=rf"Sponge is a model, .* {other.__name__} wants a place") as refused:
                metaclass("Sponge", (parent, other), {"__module__": __name__, "__qualname__": "Sponge"})
            assert isinstance(refused.value.__cause__, TypeError)

    class Empty:
        __slots__ = ()

    class Sponge(Animal, Empty):
        pass

    assert [field.name for field in Sponge._meta.fields] == ["id", "name", "animal_ptr"]

    with pytest.raises(ModelError, match="has a field or relation of that name"):

        class Dog(Animal):
            name = CharField(max_length=5)

    with pytest.raises(ModelError, match="is a proxy and declares legs"):

        class Cat(Animal):
            legs = IntegerField()

            class Meta:
                proxy = True

    for model in (Animal, Plant):
        assert model._meta.parent_link is None
        assert model._meta.concrete is model


def test_a_relation_that_comes_later_is_inherited_as_well() -> None:
    names = Registry()

    class Animal(Model):
        class Meta:
            registry = names

    class Dog(Animal):
        pass

    class Puppy(Dog):
        class Meta:
            proxy = True

    def declare() -> None:
        class Owner(Model):
            pet = ForeignKey(Animal, related_name="owners")

            class Meta:
                registry = names

    declare()
    assert {"owners", "dog"} <= set(Dog._meta.relations) & set(Puppy._meta.relations)
    first = Dog._meta.relations["owners"]
    declare()
    assert Dog._meta.relations["owners"].target is not first.target
    assert Puppy._meta.relations["owners"].target is Dog._meta.relations["owners"].target
