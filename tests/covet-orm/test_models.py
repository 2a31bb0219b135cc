"""What a model is: its Meta, its fields by inheritance and by annotation, its objects as Python values; and what is
refused of a declaration, with the line that mends it."""

from __future__ import annotations

import copy
import datetime as dt
import operator
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import pytest

import covet_orm
from covet_orm.databases import Database
from covet_orm.exceptions import (
    FieldError,
    FieldNotLoaded,
    ModelError,
    ObjectDoesNotExist,
    QueryError,
    UniqueViolation,
    ValidationError,
)
from covet_orm.expressions import F, Q
from covet_orm.fields import (
    SET_DEFAULT,
    SET_NULL,
    BigAutoField,
    BooleanField,
    CharField,
    DateTimeField,
    EnumField,
    ForeignKey,
    GeneratedField,
    IntegerField,
    JSONField,
    ManyToManyField,
    PositiveIntegerField,
    SlugField,
    TextField,
)
from covet_orm.models import Manager, Model, Registry
from covet_orm.queries.querysets import QuerySet

pytestmark = pytest.mark.anyio

models = Registry()

Number = Annotated[int, IntegerField()]


class Stamped(Model):
    """An abstract model with options that it hands on."""

    created = DateTimeField(auto_now_add=True)

    class Meta:
        abstract = True
        registry = models
        app_label = "shop"
        ordering = ("name",)


class Sluggish:
    """A mixin that is no model. Without slots of its own, objects would have a dict as well."""

    __slots__ = ()

    slug = SlugField(db_index=False)

    def shout(self) -> str:
        return self.slug.upper()  # type: ignore[no-any-return, call-overload]


class CheapManager(Manager["Product"]):
    def get_queryset(self) -> QuerySet[Product]:
        return super().get_queryset().filter(price__lt=100)


class Product(Sluggish, Stamped):
    name = CharField(max_length=20)
    price = IntegerField(default=0)
    data = JSONField(default=dict)

    cheap = CheapManager()

    class Meta(Stamped.Meta):
        comment = "what is sold, 100%"


class Bargain(Product):
    """A proxy."""

    class Meta:
        proxy = True
        ordering = ("-price",)

    def half(self) -> int:
        return self.price // 2


class Stock(Model):
    """A key of two columns."""

    shop = IntegerField(primary_key=True)
    product = ForeignKey(Product, primary_key=True, related_name="stock")
    count = PositiveIntegerField(default=0)

    class Meta:
        registry = models
        app_label = ""


class Annotations(Model):
    """Fields by annotations."""

    number: Number
    text: Annotated[str, CharField(max_length=5)] = "abc"
    maybe: Annotated[int | None, IntegerField()]
    key: Annotated[int, BigAutoField()]
    stock: list[NotThere]  # type: ignore[name-defined] # noqa: F821

    class Meta:
        registry = models
        app_label = ""


class Line(Model):
    price = IntegerField()
    count = IntegerField()
    total = GeneratedField(F("price") * F("count"), IntegerField(), db_index=True)

    class Meta:
        registry = models
        app_label = ""


async def test_options_are_handed_on(url: str) -> None:
    options = Product._meta
    assert (options.app_label, options.db_table, options.ordering) == ("shop", "shop_product", ("name",))
    assert options.comment == "what is sold, 100%"
    assert [field.name for field in options.fields] == ["id", "created", "slug", "name", "price", "data"]
    assert not options.abstract
    async with Database(url) as database:
        assert await database.create_all(models) == ["shop_product", "annotations", "line", "stock"]
        for name, price in (("b", 1), ("a", 500)):
            await Product.objects.create(name=name, slug=name, price=price)
        assert [one.name for one in await Product.objects.all()] == ["a", "b"]
        assert [one.name for one in await Product.cheap.all()] == ["b"]
        assert (await Product.objects.all())[0].shout() == "A"


async def test_a_proxy_is_another_view_of_the_same_rows(url: str) -> None:
    async with Database(url) as database:
        await database.create_all(models)
        made = await Product.objects.create(name="a", slug="a", price=10)
        found = await Bargain.objects.get(pk=made.pk)
        assert type(found) is Bargain
        assert found.half() == 5
        assert found == made
        assert {found} == {made}
        found.price = 8
        await found.save()
        await Bargain.objects.create(name="b", slug="b", price=20)
        assert [one.price for one in await Bargain.objects.all()] == [20, 8]
        assert [one.price for one in await Product.objects.order_by("price")] == [8, 20]
        assert Bargain.__table__ is Product.__table__
        await Stock.objects.create(shop=1, product=found, count=2)
        assert await Bargain.objects.filter(stock__count=2).count() == 1
        with pytest.raises(Bargain.DoesNotExist):
            await Bargain.objects.get(name="x")
        assert issubclass(Bargain.DoesNotExist, Product.DoesNotExist)
        assert issubclass(Product.DoesNotExist, ObjectDoesNotExist)


async def test_a_key_of_several_columns(url: str) -> None:
    async with Database(url) as database:
        await database.create_all(models)
        first = await Product.objects.create(name="a", slug="a")
        second = await Product.objects.create(name="b", slug="b")
        for shop in (1, 2):
            for product in (first, second):
                await Stock.objects.create(shop=shop, product=product, count=shop)
        with pytest.raises(UniqueViolation) as caught:
            await Stock.objects.create(shop=1, product=first)
        assert set(caught.value.fields) == {"shop", "product"}
        one = await Stock.objects.get(pk=(2, first.pk))
        assert one.pk == (2, first.pk)
        assert await Stock.objects.get(Q(pk=one.pk)) == one
        assert await Stock.objects.exclude(pk=one.pk).count() == 3
        one.count = 7
        await one.save()
        assert await Stock.objects.filter(pk__in=[(2, first.pk), (1, second.pk), (9, 9)]).order_by("pk").values_list(
            "shop", "product_id", "count"
        ) == [(1, second.pk, 1), (2, first.pk, 7)]
        assert await Stock.objects.filter(pk__in=[]).count() == 0
        assert (await Stock.objects.order_by("-pk")[:1])[0].pk == (2, second.pk)
        last, before = await Stock.objects.last(), await Stock.objects.first()
        assert (before.pk, last.pk) == ((1, first.pk), (2, second.pk))  # type: ignore[union-attr]
        await (await one.refresh_from_db()).delete()
        assert await Stock.objects.filter(pk=(2, first.pk)).count() == 0
        made = Stock(pk=(3, first.pk))
        assert (made.shop, made.product_id) == (3, first.pk)
        await made.save()
        assert await Stock.objects.filter(pk=made.pk).exists()
        for wrong in (5, (1,), (1, 2, 3), (1, None), "ab"):
            with pytest.raises(QueryError, match=r"the key of Stock is a tuple of 2 values: \(shop, product\)"):
                await Stock.objects.filter(pk=wrong)
        with pytest.raises(FieldError, match="columns have the others: shop, product"):
            await Stock.objects.filter(pk__contains=(1, 1))
        with pytest.raises(FieldError, match="its key is a tuple"):
            Stock(pk=5)


async def test_keys_of_several_columns_are_compared_as_tuples_are(url: str) -> None:
    async with Database(url) as database:
        await database.create_all(models)
        products = [await Product.objects.create(name=name, slug=name) for name in "abc"]
        keys = [(shop, product.pk) for shop in (1, 2, 3) for product in products]
        await Stock.objects.bulk_create([Stock(pk=key, count=number) for number, key in enumerate(keys)])
        everything = Stock.objects.order_by("pk").values_list("pk", flat=True)
        assert await everything == keys
        for other in (keys[4], (2, 0), (0, 99), (9, 9)):
            for lookup, compare in (
                ("gt", operator.gt), ("gte", operator.ge), ("lt", operator.lt), ("lte", operator.le),
            ):  # fmt: skip
                expected = [key for key in keys if compare(key, other)]
                assert await everything.filter(**{f"pk__{lookup}": other}) == expected, (lookup, other)
                assert await everything.exclude(**{f"pk__{lookup}": other}) == [
                    key for key in keys if key not in expected
                ]
        both = Q(pk__gt=keys[1]) & Q(pk__lt=keys[7]) | Q(pk=keys[0])
        assert await everything.filter(both) == [keys[0], *keys[2:7]]
        # The keys that a query gives.
        odd = Stock.objects.filter(count__in=[1, 3, 5])
        assert await everything.filter(pk__in=odd) == [keys[1], keys[3], keys[5]]
        assert await everything.exclude(pk__in=odd).count() == 6
        assert await everything.filter(pk__in=Stock.objects.order_by("-pk")[1:3]) == keys[6:8]
        assert await everything.filter(pk__in=Stock.objects.filter(shop=1).values("shop", "product")) == keys[:3]
        assert await Stock.objects.filter(pk__in=odd).update(count=100) == 3
        assert await Stock.objects.filter(pk__in=odd.none()).delete() == 0
        assert set(await Stock.objects.filter(count=100).in_bulk([keys[1], keys[2]])) == {keys[1]}
        # Across a relation that leads to them.
        first, second = await Stock.objects.get(pk=keys[0]), await Stock.objects.get(pk=keys[4])
        names = Product.objects.order_by("name").values_list("name", flat=True)
        assert await names.filter(stock=first) == ["a"]
        assert await names.filter(stock=keys[5]) == ["c"]
        assert await names.filter(Q(stock__in=[first, second]) & Q(stock__count__gte=0)) == ["a", "b"]
        assert await names.exclude(stock=first) == ["b", "c"]
        assert await names.filter(stock__in=Stock.objects.filter(count=100)) == ["a", "b", "c"]
        assert await names.filter(stock__in=Stock.objects.filter(pk__gt=keys[7])) == ["c"]
        assert await names.filter(stock__in=[]) == []
        assert await names.filter(stock=None) == []
        for wrong in (5, (1,), (1, None)):
            with pytest.raises(QueryError, match="is a tuple of 2 values"):
                await Stock.objects.filter(pk__gt=wrong)
            with pytest.raises(QueryError, match="is a tuple of 2 values"):
                await Product.objects.filter(stock=wrong)
        for query in (Stock.objects.values("shop"), Product.objects.all(), Q(shop=1)):
            with pytest.raises(QueryError):
                await Stock.objects.filter(pk__in=query)
        with pytest.raises(QueryError, match="named one by one"):
            await Stock.objects.values("pk")


async def test_fields_by_annotations(url: str) -> None:
    assert [field.name for field in Annotations._meta.fields] == ["number", "text", "maybe", "key"]
    assert [field.null for field in Annotations._meta.fields] == [False, False, True, False]
    async with Database(url) as database:
        await database.create_all(models)
        made = await Annotations.objects.create(number=3)
        assert (made.number, made.text, made.maybe, made.key) == (3, "abc", None, 1)
        assert await Annotations.objects.filter(Q(number__gt=2), maybe=None).count() == 1
        with pytest.raises(ValidationError, match="number: it may not be None"):
            await Annotations.objects.create(number=None)
        with pytest.raises(ValidationError, match="text: it has 6 characters"):
            await Annotations.objects.create(number=1, text="abcdef")


async def test_the_database_computes(url: str) -> None:
    async with Database(url) as database:
        await database.create_all(models)
        made = await Line.objects.create(price=3, count=4)
        assert made.total == 12
        assert await Line.objects.filter(total__gt=11).count() == 1
        with pytest.raises(FieldError, match=r"Line\.total is computed by the database"):
            Line(price=1, count=1, total=1)
        await Line.objects.filter(total=12).update(count=5)
        assert (await Line.objects.get()).total == 15


def unpickled(one: Any) -> Any:
    return pickle.loads(pickle.dumps(one))


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, unpickled])
async def test_copies_know_their_row(url: str, make: Any) -> None:
    async with Database(url) as database:
        await database.create_all(models)
        saved = await Product.objects.create(name="a", slug="a", data={"tags": ["x"]})
        await Stock.objects.create(shop=1, product=saved)
        for original in (saved, await Product.objects.get(), await Product.objects.defer("data").get()):
            twin = make(original)
            assert twin == original
            assert type(twin) is Product
            assert twin.changed_fields() == []
            twin.price = 9
            assert twin.changed_fields() == ["price"]
            assert original.price != 9
            again = make(twin)
            assert again.changed_fields() == ["price"]
            await again.save()
            assert again.changed_fields() == []
            assert (await Product.objects.get()).price == 9
            original.price = 1
            await original.save()
            assert twin.saved
        deferred = make(await Product.objects.defer("data").get())
        with pytest.raises(FieldNotLoaded, match=r"Product\.data was not loaded"):
            _ = deferred.data
        # What changed in place after it was copied, and before.
        full = await Product.objects.get()
        full.data["tags"].append("y")
        assert make(full).changed_fields() == ["data"]
        full = await Product.objects.get()
        twin = make(full)
        twin.data["tags"].append("y")
        assert twin.changed_fields() == ["data"]
        # Related objects that were loaded come along.
        stock = make(await Stock.objects.select_related("product").get())
        assert stock.product.name == "a"
        fresh = make(Product(name="n", slug="s"))
        assert not fresh.saved
        await fresh.save()
        assert fresh.pk is not None


async def test_equality_hash_and_repr(url: str) -> None:
    async with Database(url) as database:
        await database.create_all(models)
        new = Product(name="a", slug="a")
        assert repr(new) == "<Product None>"
        assert new == new
        assert new != Product(name="a", slug="a")
        with pytest.raises(TypeError, match="save it first"):
            hash(new)
        with pytest.raises(TypeError, match="save it first"):
            hash(Stock(shop=1))
        assert Stock(shop=1) != Stock(shop=1)
        await new.save()
        assert repr(new) == f"<Product {new.pk}>"
        assert await Product.objects.get() == new
        assert len({new, await Product.objects.get()}) == 1
        stock = await Stock.objects.create(shop=new.pk, product=new)
        assert new != stock
        assert new != new.pk


def test_a_misspelt_keyword() -> None:
    with pytest.raises(FieldError, match=r"Product\(\) takes no 'nane'; did you mean 'name'\?"):
        Product(nane="x")
    with pytest.raises(FieldError, match=r"Stock\(\) takes no 'product_ids'; did you mean 'product_id'\?"):
        Stock(product_ids=1)
    with pytest.raises(TypeError):
        Product("x")  # type: ignore[call-arg]
    with pytest.raises(AttributeError, match="has no attribute 'nane'"):
        Product(name="x").nane = 5
    with pytest.raises(ModelError, match="Stamped is abstract"):
        Stamped()


def test_an_inherited_field_can_be_replaced_or_left_out() -> None:
    class Base(Model):
        a = IntegerField()
        b = IntegerField()
        c = IntegerField()

        class Meta:
            abstract = True

    class Child(Base):
        a = TextField()  # type: ignore[assignment]
        b = None  # type: ignore[assignment]

        @property
        def c(self) -> int:  # type: ignore[override]
            return 5

        class Meta:
            registry = Registry()

    assert [(field.name, type(field)) for field in Child._meta.fields] == [("id", BigAutoField), ("a", TextField)]
    assert Child(a="x").c == 5


async def test_models_in_other_databases_and_unmanaged_ones_are_left_alone(url: str) -> None:
    own = Registry()

    class Here(Model):
        class Meta:
            registry = own
            app_label = ""

    class Elsewhere(Model):
        class Meta:
            registry = own
            app_label = ""
            database = "other"

    class Legacy(Model):
        class Meta:
            registry = own
            app_label = ""
            managed = False
            db_table = "old table"

    async with Database(url) as database:
        assert await database.create_all(own) == ["here"]
        assert await database.drop_all(own) == ["here"]
    async with Database(url, alias="other") as database:
        assert await database.create_all(own) == ["here", "elsewhere"]


def declare(**attributes: Any) -> Any:
    """A model of these attributes; `Meta_…` are options."""
    meta = {name.removeprefix("Meta_"): attributes.pop(name) for name in list(attributes) if name.startswith("Meta_")}
    meta.setdefault("registry", Registry())
    return type(Model)("Wrong", (Model,), {"__module__": __name__, "Meta": type("Meta", (), meta), **attributes})


WRONG: dict[str, tuple[Any, str]] = {
    "no length": (lambda: CharField(), r"CharField\(max_length=100\)"),  # type: ignore[call-arg]
    "no room": (lambda: CharField(max_length=0), "from 1 to"),
    "an option": (lambda: IntegerField(defualt=1), r"no option 'defualt'; did you mean 'default'\?"),  # type: ignore[call-arg]
    "a shared default": (lambda: JSONField(default={}), "default=dict"),
    "a default of None": (lambda: IntegerField(default=None), "null=True"),
    "a key of NULL": (lambda: IntegerField(null=True, primary_key=True), "leave it out"),
    "a set null": (lambda: ForeignKey("X", on_delete=SET_NULL), "null=True"),
    "a set default": (lambda: ForeignKey("X", on_delete=SET_DEFAULT), "db_default"),
    "an empty enum": (lambda: EnumField(__import__("enum").Enum("E", {})), "no members"),
    "an enum of floats": (lambda: EnumField(__import__("enum").Enum("E", {"A": 1.5})), "whole numbers"),
    "a field that hides a method": (lambda: declare(save=IntegerField()), r"hide Model\.save; .* db_column='save'"),
    "a name with two underscores": (lambda: declare(a__b=IntegerField()), "steps of a path"),
    "a name that is pk": (lambda: declare(pk=IntegerField()), "is not pk"),
    "a keyword": (lambda: declare(**{"class": IntegerField()}), "db_column may be any name"),
    "a name of every method": (lambda: declare(self=IntegerField()), "db_column may be any name"),
    "no identifier": (lambda: declare(**{"a b": IntegerField()}), "db_column may be any name"),
    "an option of Meta": (lambda: declare(Meta_odering=()), r"no option 'odering'; did you mean 'ordering'\?"),
    "a Meta that is no class": (
        lambda: type(Model)("Wrong", (Model,), {"__module__": __name__, "Meta": {"ordering": ()}}), "class Meta:"
    ),
    "ordering": (
        lambda: declare(age=IntegerField(), Meta_ordering=("agee",)).__table__,
        r"Meta\.ordering: .* no field 'agee'; did you mean 'age'\?",
    ),
    "unique together": (
        lambda: declare(age=IntegerField(), Meta_unique_together=("age", "x")).__table__, r"unique_together: .*'x'"
    ),
    "an index of nothing like one": (lambda: declare(Meta_indexes=["id"]).__table__, r"such as Index\('name'\)"),
    "a long table": (lambda: declare(Meta_db_table="x" * 64).__table__, r"64 bytes .* shorter Meta\.db_table"),
    "a long table of few letters": (lambda: declare(Meta_db_table="ä" * 32).__table__, "64 bytes"),
    "a table with a dot": (lambda: declare(Meta_db_table="public.x").__table__, "dot"),
    "a long column": (lambda: declare(a=IntegerField(db_column="x" * 64)).__table__, "another db_column"),
    "a column with NUL": (lambda: declare(a=IntegerField(db_column="x\0")).__table__, "control character"),
    "a generated field of nothing": (lambda: GeneratedField(5, IntegerField()), "an expression is needed"),  # type: ignore[arg-type]
    "a generated field of no type": (lambda: GeneratedField(F("a"), 5), "field of its type"),  # type: ignore[arg-type]
    "a missing model": (lambda: declare(a=ForeignKey("Missing")).__table__, "no model is called 'Missing'"),
    "null and its annotation": (
        lambda: type(Model)(
            "Wrong",
            (Model,),
            {"__module__": __name__, "__annotations__": {"a": Annotated[int, IntegerField(null=True)]}},
        ),
        r"annotate it as int \| None",
    ),
    "an annotation nobody understands": (
        lambda: type(Model)(
            "Wrong", (Model,), {"__module__": __name__, "__annotations__": {"a": "Annotated[int, Misspelt()]"}}
        ),
        "cannot be evaluated",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_declaration_is_a_model_error(name: str) -> None:
    wrong, told = WRONG[name]
    with pytest.raises(ModelError, match=told):
        wrong()


def test_names_of_fields_are_free_to_be_anything_else() -> None:
    """Whatever the code that is generated for a constructor calls its own variables."""
    names = [
        "unknown",
        "UNSET",
        "refuse",
        "options",
        "default_0",
        "set_1",
        "o",
        "row",
        "source",
        "model",
        "out",
    ]
    model = declare(**{name: IntegerField(default=number) for number, name in enumerate(names)})
    made = model(unknown=77)
    assert [getattr(made, name) for name in names] == [77, *range(1, len(names))]


async def test_names_of_fields_are_free_in_queries(url: str) -> None:
    names = [
        "unknown",
        "rows",
        "o",
        "row",
        "source",
        "model",
        "out",
        "database",
        "append",
        "new",
        "v",
        "b0",
        "c1",
    ]
    model = declare(**{name: BooleanField(default=True) for name in names})
    async with Database(url) as database:
        await database.create_all(model._meta.registry)
        await model.objects.create()
        found = await model.objects.get(**dict.fromkeys(names, True))
        assert all(getattr(found, name) is True for name in names)


def test_a_default_is_made_for_each_object() -> None:
    one, other = Product(), Product()
    assert one.data == {}
    assert one.data is not other.data


async def test_validation_names_every_field(url: str) -> None:
    async with Database(url) as database:
        await database.create_all(models)
        with pytest.raises(ValidationError) as caught:
            await Product.objects.create(name="x" * 21, price="many", created=dt.datetime(2024, 1, 1))
        assert caught.value.errors == {
            "created": [f"{dt.datetime(2024, 1, 1)!r} has no time zone; give one, such as datetime.UTC"],
            "slug": ["it has no value, and the field has no default"],
            "name": ["it has 21 characters, and may have 20"],
            "price": ["'many' is no whole number"],
        }
        assert str(caught.value).startswith("Product: created: ")


def test_clean_concerns_several_fields() -> None:
    class Span(Model):
        begins = IntegerField()
        ends = IntegerField()

        class Meta:
            registry = Registry()

        def clean(self) -> None:
            if self.begins > self.ends:
                raise ValueError("it ends before it begins")

    Span(begins=1, ends=2).full_clean()
    # What was given as text is converted.
    span = Span(begins="1", ends=2)
    span.full_clean()
    assert span.begins == 1
    with pytest.raises(ValidationError) as caught:
        Span(begins=3, ends=2).full_clean()
    assert caught.value.errors == {"": ["it ends before it begins"]}
    Span(begins="x", ends=2).full_clean
    with pytest.raises(ValidationError, match="begins"):
        Span(begins=2**40, ends=2).full_clean(exclude=["ends"])


def test_many_to_many_fields_are_no_columns() -> None:
    own = Registry()

    class Tag(Model):
        class Meta:
            registry = own
            app_label = ""

    class Post(Model):
        tags = ManyToManyField(Tag)

        class Meta:
            registry = own
            app_label = ""
            db_table = "p" * 60

    assert [field.name for field in Post._meta.fields] == ["id"]
    tables = [table.name for table in own.tables()]
    assert len(tables) == 3
    assert all(len(name) <= 63 for name in tables)


@pytest.mark.parametrize(
    "module",
    sorted(
        path.stem
        for path in Path(covet_orm.__file__).parent.glob("*")
        if path.suffix == ".py" or (path / "__init__.py").exists()
    ),
)
def test_every_module_can_be_imported_first(module: str) -> None:
    name = "covet_orm" if module.startswith("__") else f"covet_orm.{module}"
    ran = subprocess.run([sys.executable, "-c", f"import {name}"], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
