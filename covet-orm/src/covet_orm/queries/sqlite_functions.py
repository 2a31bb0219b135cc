"""The functions that SQLite is given: what other databases have and it has not."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import math
import re
import statistics
from collections.abc import Callable
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from covet_orm.drivers.options import SQLFunction

__all__ = ["FUNCTIONS"]

Part = Callable[[dt.datetime], int]

PARTS: dict[str, Part] = {
    "quarter": lambda moment: (moment.month + 2) // 3,
    "week": lambda moment: moment.isocalendar().week,
    "iso_year": lambda moment: moment.isocalendar().year,
    "week_day": lambda moment: moment.isoweekday() % 7 + 1,
    "iso_week_day": lambda moment: moment.isoweekday(),
}
FIRSTS: dict[str, dict[str, int]] = {
    "year": {"month": 1, "day": 1, "hour": 0, "minute": 0, "second": 0},
    "quarter": {"day": 1, "hour": 0, "minute": 0, "second": 0},
    "month": {"day": 1, "hour": 0, "minute": 0, "second": 0},
    "week": {"hour": 0, "minute": 0, "second": 0},
    "day": {"hour": 0, "minute": 0, "second": 0},
    "hour": {"minute": 0, "second": 0},
    "minute": {"second": 0},
    "second": {},
}
MICROSECOND = dt.timedelta(microseconds=1)


def lower(value: Any) -> Any:
    """`lower`, for the letters of all scripts."""
    return value.lower() if isinstance(value, str) else value


def upper(value: Any) -> Any:
    """`upper`, for the letters of all scripts."""
    return value.upper() if isinstance(value, str) else value


@lru_cache(maxsize=256)
def _compiled(pattern: str, fold: bool) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE if fold else 0)


def regexp(pattern: Any, text: Any, fold: int) -> int | None:
    """Whether something in a text matches a pattern."""
    if pattern is None or text is None:
        return None
    return int(_compiled(str(pattern), bool(fold)).search(str(text)) is not None)


def part(name: str, text: Any) -> int | None:
    """A part of a point in time."""
    return None if text is None else PARTS[name](dt.datetime.fromisoformat(text))


def trunc(name: str, text: Any) -> str | None:
    """A point in time, a day or a time of the day, cut down; in the form that it has."""
    if text is None:
        return None
    if text[2] == ":":
        cut: Any = dt.time.fromisoformat(text)
        return str(cut.replace(microsecond=0, **FIRSTS[name]).isoformat("microseconds"))
    moment = dt.datetime.fromisoformat(text)
    first = dict(FIRSTS[name])
    if name == "week":
        moment -= dt.timedelta(days=moment.weekday())
    elif name == "quarter":
        first["month"] = (moment.month - 1) // 3 * 3 + 1
    moment = moment.replace(microsecond=0, **first)  # type: ignore[arg-type]
    return moment.date().isoformat() if len(text) == 10 else moment.isoformat(" ", "microseconds")


@lru_cache(maxsize=64)
def _zone(name: str) -> dt.tzinfo:
    if name[0] in "+-":
        return dt.datetime.strptime(name, "%z").tzinfo or dt.UTC
    return ZoneInfo(name)


def local(text: Any, zone: str) -> str | None:
    """A point in time as a clock of a time zone shows it, without the zone."""
    if text is None:
        return None
    return dt.datetime.fromisoformat(text).astimezone(_zone(zone)).replace(tzinfo=None).isoformat(" ", "microseconds")


def later(text: Any, microseconds: Any) -> str | None:
    """A point in time, so much later."""
    if text is None or microseconds is None:
        return None
    moment = dt.datetime.fromisoformat(text) + dt.timedelta(microseconds=microseconds)
    return moment.isoformat(" ", "microseconds")


def between(begin: Any, end: Any) -> int | None:
    """The microseconds between two points in time."""
    if begin is None or end is None:
        return None
    return (dt.datetime.fromisoformat(end) - dt.datetime.fromisoformat(begin)) // MICROSECOND


def json_get(text: Any, path: str) -> str | None:
    """What is at a path of keys and positions."""
    if text is None:
        return None
    value = msgspec.json.decode(text)
    for key in json.loads(path):
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return msgspec.json.encode(value).decode()


def json_equal(left: Any, right: Any) -> int | None:
    """Whether two values are the same."""
    if left is None or right is None:
        return None
    return int(left == right or _same(msgspec.json.decode(left), msgspec.json.decode(right)))


def json_contains(outer: Any, inner: Any) -> int | None:
    """Whether a value contains another one, as `@>` of PostgreSQL has it (its documentation, "jsonb Containment")."""
    if outer is None or inner is None:
        return None
    first, second = msgspec.json.decode(outer), msgspec.json.decode(inner)
    if isinstance(first, list) and not isinstance(second, (list, dict)):
        return int(any(_same(one, second) for one in first))
    return int(_contains(first, second))


def json_has(text: Any, keys: str, every: int) -> int | None:
    """Whether an object has all, or any, of some keys."""
    if text is None:
        return None
    value = msgspec.json.decode(text)
    there = [isinstance(value, dict) and key in value for key in json.loads(keys)]
    return int(all(there) if every else any(there))


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return bool(left == right)


def _contains(outer: Any, inner: Any) -> bool:
    if isinstance(outer, dict) and isinstance(inner, dict):
        return all(key in outer and _contains(outer[key], value) for key, value in inner.items())
    if isinstance(outer, list) and isinstance(inner, list):
        return all(any(_contains(there, value) for there in outer) for value in inner)
    return _same(outer, inner)


def _hash(name: str) -> Callable[[Any], str | None]:
    def digest(value: Any) -> str | None:
        if value is None:
            return None
        data = value if isinstance(value, bytes) else str(value).encode()
        return hashlib.new(name, data, usedforsecurity=False).hexdigest()

    return digest


def reverse(value: Any) -> Any:
    """A text from its end to its beginning."""
    return None if value is None else str(value)[::-1]


def repeat(value: Any, count: Any) -> Any:
    """A text, so many times."""
    return None if value is None or count is None else str(value) * max(int(count), 0)


def pad(value: Any, length: Any, fill: Any, left: int) -> Any:
    """A text of so many characters: filled up, or cut."""
    if value is None or length is None or fill is None:
        return None
    text, missing = str(value), int(length) - len(str(value))
    if missing <= 0 or not fill:
        return text[: max(int(length), 0)]
    filling = (str(fill) * missing)[:missing]
    return filling + text if left else text + filling


class Deviation:
    """The variance of numbers, or its root; of a population, or of a sample.

    Args:
        sample: whether the numbers are a sample.
        root: whether it is the standard deviation.
    """

    sample = False
    root = False

    def __init__(self) -> None:
        self.numbers: list[float] = []

    def step(self, value: Any) -> None:
        """Take a number."""
        if value is not None:
            self.numbers.append(float(value))

    def finalize(self) -> float | None:
        """The result; None of too few numbers."""
        if len(self.numbers) < (2 if self.sample else 1):
            return None
        found = statistics.variance(self.numbers) if self.sample else statistics.pvariance(self.numbers)
        return math.sqrt(found) if self.root else found


class VarianceOfSample(Deviation):
    """The variance of a sample."""

    sample = True


class StdDev(Deviation):
    """The standard deviation of a population."""

    root = True


class StdDevOfSample(VarianceOfSample):
    """The standard deviation of a sample."""

    root = True


class Collected:
    """Values in an order: `covet_string_agg(value, separator, distinct, order, key, key, ...)`.

    `order` has a letter for each key: `a` for NULL first, `b` for NULL last, in upper case where the key descends.
    """

    def __init__(self) -> None:
        self.rows: list[tuple[Any, tuple[Any, ...]]] = []
        self.separator: Any = ""
        self.distinct = False
        self.order = ""

    def step(self, value: Any, separator: Any, distinct: int, order: str, *keys: Any) -> None:
        """Take a value with what it is ordered by."""
        self.separator, self.distinct, self.order = separator, bool(distinct), order
        self.rows.append((value, keys))

    def values(self) -> list[Any]:
        """The values in their order."""
        rows = (
            list({value: (value, keys) for value, keys in reversed(self.rows)}.values())[::-1]
            if self.distinct
            else self.rows
        )
        for position in range(len(self.order) - 1, -1, -1):
            letter = self.order[position]
            there = [row for row in rows if row[1][position] is not None]
            nothing = [row for row in rows if row[1][position] is None]
            there.sort(key=lambda row: _rank(row[1][position]), reverse=letter.isupper())
            rows = [*nothing, *there] if letter in "aA" else [*there, *nothing]
        return [value for value, _ in rows]

    def finalize(self) -> str | None:
        """The texts with the separator between."""
        texts = [str(value) for value in self.values() if value is not None]
        return str(self.separator).join(texts) if texts else None


class CollectedJSON(Collected):
    """The values, which are JSON already, as an array of JSON."""

    def finalize(self) -> str | None:
        """The array; None of no rows."""
        values = self.values()
        return "[" + ",".join("null" if value is None else str(value) for value in values) + "]" if values else None


def _rank(value: Any) -> tuple[int, Any]:
    """Numbers before texts before bytes, as SQLite orders them."""
    if isinstance(value, (int, float)):
        return 0, value
    return (1, value) if isinstance(value, str) else (2, value)


FUNCTIONS = (
    SQLFunction("covet_lower", 1, lower),
    SQLFunction("covet_upper", 1, upper),
    SQLFunction("covet_regexp", 3, regexp),
    SQLFunction("covet_part", 2, part),
    SQLFunction("covet_trunc", 2, trunc),
    SQLFunction("covet_local", 2, local),
    SQLFunction("covet_later", 2, later),
    SQLFunction("covet_between", 2, between),
    SQLFunction("covet_json_get", 2, json_get),
    SQLFunction("covet_json_equal", 2, json_equal),
    SQLFunction("covet_json_contains", 2, json_contains),
    SQLFunction("covet_json_has", 3, json_has),
    SQLFunction("covet_reverse", 1, reverse),
    SQLFunction("covet_repeat", 2, repeat),
    SQLFunction("covet_pad", 4, pad),
    *(SQLFunction(f"covet_{name}", 1, _hash(name)) for name in ("md5", "sha1", "sha224", "sha256", "sha384", "sha512")),
    SQLFunction("covet_variance", 1, Deviation, aggregate=True),
    SQLFunction("covet_variance_of_sample", 1, VarianceOfSample, aggregate=True),
    SQLFunction("covet_stddev", 1, StdDev, aggregate=True),
    SQLFunction("covet_stddev_of_sample", 1, StdDevOfSample, aggregate=True),
    SQLFunction("covet_string_agg", -1, Collected, aggregate=True),
    SQLFunction("covet_json_agg", -1, CollectedJSON, aggregate=True),
)
"""All of them, for `SQLiteOptions.create_functions`."""
