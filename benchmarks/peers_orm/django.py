"""Django's asynchronous interface to its ORM, over psycopg 3 with its pool, and sqlite3."""

from __future__ import annotations

from typing import Any

import django
from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import connections, transaction

from benchmarks.peers_orm import schema

if not settings.configured:
    settings.configure(INSTALLED_APPS=["benchmarks.peers_orm"], USE_TZ=False, DEBUG=False, DATABASES={"default": {}})
    django.setup()

CONVERTERS = schema.Converters()
with CONVERTERS:
    from django.db.backends.sqlite3 import base as _  # noqa: F401

from django.db import models  # noqa: E402 - after the settings


class Author(models.Model):
    id = models.IntegerField(primary_key=True)
    name = models.CharField(max_length=100)

    class Meta:
        app_label = "peers_orm"
        db_table = "bench_author"


class Book(models.Model):
    id = models.IntegerField(primary_key=True)
    title = models.CharField(max_length=100)
    author = models.ForeignKey(Author, models.CASCADE, related_name="books")

    class Meta:
        app_label = "peers_orm"
        db_table = "bench_book"


class Common(models.Model):
    id = models.AutoField(primary_key=True)
    name = models.CharField(max_length=100)
    slug = models.CharField(max_length=100)
    small = models.IntegerField()
    big = models.BigIntegerField()
    ratio = models.FloatField()
    price = models.DecimalField(max_digits=12, decimal_places=2)
    active = models.BooleanField()
    created = models.DateTimeField()
    note = models.TextField()

    class Meta:
        abstract = True


class Item(Common):
    class Meta:
        app_label = "peers_orm"
        db_table = "bench_item"


class Scratch(Common):
    class Meta:
        app_label = "peers_orm"
        db_table = "bench_scratch"


class Peer:
    """Django."""

    converters = CONVERTERS

    def __init__(self, url: str) -> None:
        if schema.kind_of(url) == "sqlite":
            options: dict[str, Any] = {"init_command": "PRAGMA synchronous = normal", "transaction_mode": "IMMEDIATE"}
            database = {"ENGINE": "django.db.backends.sqlite3", "NAME": schema.path_of(url), "OPTIONS": options}
        else:
            parts = schema.parts_of(url)
            options = {"pool": {"min_size": 2, "max_size": schema.POOL_SIZE}}
            database = {
                "ENGINE": "django.db.backends.postgresql", "NAME": parts["database"], "USER": parts["user"],
                "PASSWORD": parts["password"], "HOST": parts["host"], "PORT": parts["port"], "OPTIONS": options,
            }  # fmt: skip
        self.settings = database

    async def open(self) -> None:
        connections.settings = connections.configure_settings({"default": self.settings})

    async def close(self) -> None:
        await sync_to_async(_close)()

    async def clear(self) -> None:
        await Scratch.objects.all().adelete()

    async def get(self, number: int) -> Any:
        return await Item.objects.aget(id=number + 1)

    async def list100(self, number: int) -> Any:
        return [found async for found in Item.objects.filter(id__lte=100)]

    async def list10k(self, number: int) -> Any:
        return [found async for found in Item.objects.all()]

    async def values10k(self, number: int) -> Any:
        return [found async for found in Item.objects.values()]

    async def insert(self, number: int) -> Any:
        return await Scratch.objects.acreate(**schema.named(number))

    async def bulk10k(self, number: int) -> Any:
        await Scratch.objects.abulk_create([Scratch(**schema.named(number)) for number in range(schema.ITEMS)])

    async def transaction(self, number: int) -> Any:
        await sync_to_async(_transaction)(number)

    async def nested(self, number: int) -> Any:
        await sync_to_async(_nested)(number)

    async def update(self, number: int) -> Any:
        return await Item.objects.filter(id=number + 1).aupdate(small=number % 97)

    async def join1k(self, number: int) -> Any:
        return [found async for found in Book.objects.select_related("author")]

    async def prefetch(self, number: int) -> Any:
        return [found async for found in Author.objects.prefetch_related("books")]

    async def count(self, number: int) -> Any:
        return await Item.objects.filter(small__lt=50).acount()

    def books(self, found: Any) -> dict[str, list[str]]:
        return {author.name: [book.title for book in author.books.all()] for author in found}


def _close() -> None:
    connection = connections["default"]
    connection.close()
    if hasattr(connection, "close_pool"):
        connection.close_pool()
    del connections["default"]


# Transactions "do not yet work in async mode" (its documentation, "Asynchronous support"), which tells to do this.
def _transaction(number: int) -> None:
    with transaction.atomic():
        Scratch.objects.create(**schema.named(number))


def _nested(number: int) -> None:
    with transaction.atomic():
        Scratch.objects.create(**schema.named(number))
        with transaction.atomic():
            Scratch.objects.create(**schema.named(number))
