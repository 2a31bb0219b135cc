"""Lookups of arrays, against what Python says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.services.databases import SERVERS

from covet_orm import ArrayField, Database, IntegerField, Model, NotSupported, QueryError, Registry, TextField

pytestmark = pytest.mark.anyio
registry = Registry()


class Bag(Model):
    numbers = ArrayField(IntegerField(), null=True)
    words = ArrayField(TextField(null=True), default=list)

    class Meta:
        registry = registry


BAGS: list[tuple[list[int] | None, list[str | None]]] = [
    (None, []),
    ([], ["a"]),
    ([1], ["a", "b"]),
    ([1, 2], ["b", None]),
    ([2, 1], ["c'", '"', "\\"]),
    ([3, 3, 1], [None]),
]
Says = Callable[[Any, Any], bool]
CASES: list[tuple[dict[str, Any], Says]] = [
    ({"numbers": [1, 2]}, lambda n, w: n == [1, 2]),
    ({"numbers": []}, lambda n, w: n == []),
    ({"numbers__isnull": True}, lambda n, w: n is None),
    ({"numbers__contains": [1]}, lambda n, w: n is not None and 1 in n),
    ({"numbers__contains": [2, 1]}, lambda n, w: n is not None and {1, 2} <= set(n)),
    ({"numbers__contains": []}, lambda n, w: n is not None),
    ({"numbers__contained_by": [1, 2]}, lambda n, w: n is not None and set(n) <= {1, 2}),
    ({"numbers__overlap": [2, 9]}, lambda n, w: n is not None and bool({2, 9} & set(n))),
    ({"numbers__len": 0}, lambda n, w: n == []),
    ({"numbers__len__gt": 1}, lambda n, w: n is not None and len(n) > 1),
    ({"numbers__0": 1}, lambda n, w: bool(n) and n[0] == 1),
    ({"numbers__1__gte": 2}, lambda n, w: n is not None and len(n) > 1 and n[1] >= 2),
    ({"numbers__7": 1}, lambda n, w: False),
    ({"numbers__in": [[1], [2, 1]]}, lambda n, w: n in ([1], [2, 1])),
    ({"words__contains": ["c'", '"']}, lambda n, w: {"c'", '"'} <= set(w)),
    ({"words__overlap": ["\\", "zzz"]}, lambda n, w: "\\" in w),
    ({"words__0__startswith": "c'"}, lambda n, w: bool(w) and w[0] is not None and w[0].startswith("c'")),
]


@pytest.mark.parametrize("server", [name for name in SERVERS if name.startswith("postgresql")], indirect=True)
async def test_each_lookup_is_what_python_says(url: str) -> None:
    async with Database(url) as database:
        await database.create_all(registry)
        made = await Bag.objects.bulk_create([Bag(numbers=numbers, words=words) for numbers, words in BAGS])
        for lookups, says in CASES:
            expected = {bag.id for bag in made if says(bag.numbers, bag.words)}
            assert set(await Bag.objects.filter(**lookups).values_list("id", flat=True)) == expected, lookups
            # What exclude leaves is everything else, NULL included.
            others = set(await Bag.objects.exclude(**lookups).values_list("id", flat=True))
            assert others == {bag.id for bag in made} - expected, lookups
        with pytest.raises(QueryError, match="no whole number"):
            await Bag.objects.filter(numbers__contains=["x"])
        with pytest.raises(QueryError, match="no position"):
            await Bag.objects.filter(**{f"numbers__{2**31}": 1})


@pytest.mark.parametrize("server", [name for name in SERVERS if name.startswith("postgresql")], indirect=True)
async def test_a_change_in_place_is_a_change(url: str) -> None:
    async with Database(url) as database:
        await database.create_all(registry)
        await Bag.objects.create(numbers=[1], words=["a", None])
        bag = await Bag.objects.get()
        assert bag.numbers is not None
        bag.numbers.append(2)
        bag.words[1] = "b"
        assert bag.changed_fields() == ["numbers", "words"]
        await bag.save()
        bag = await Bag.objects.get()
        assert (bag.numbers, bag.words) == ([1, 2], ["a", "b"])


@pytest.mark.parametrize("server", ["sqlite", "mariadb"], indirect=True)
async def test_what_has_no_arrays_says_so(url: str) -> None:
    async with Database(url):
        for lookups, _ in CASES[3:]:
            with pytest.raises(NotSupported, match="JSONField"):
                await Bag.objects.filter(**lookups)
