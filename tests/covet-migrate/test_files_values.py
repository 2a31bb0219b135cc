"""Values as source of Python: what is read again is the same, and the layout is that of `ruff format`."""

from __future__ import annotations

import datetime as dt
import functools
import ipaddress
import math
import re
import subprocess
import sys
import uuid
import zoneinfo
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import sqlalchemy
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tests.formatter import RUFF

import covet_orm as orm
from covet_migrate import Migration, operations
from covet_migrate.exceptions import NotSerializable
from covet_migrate.files import values as values_module
from covet_migrate.files.layout import Bracket, Text, lines_of
from covet_migrate.files.values import Values, register
from covet_migrate.files.writer import source_of
from covet_migrate.state.declarations import Declaration, same
from covet_orm import F, Q
from covet_orm.expressions import functions
from covet_orm.fields.base import Declared

HERE = "sample_of_values"


class Colour(Enum):
    RED = "red"
    LARGE = (1, 2)


class Level(IntEnum):
    LOW = 1


class Word(StrEnum):
    ADA = "ada"


class Right(Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: int = 0


@dataclass(frozen=True)
class Size:
    width: int
    unit: str = "px"


class Money:
    def __init__(self, amount: int, currency: str) -> None:
        self.amount, self.currency = amount, currency

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash(self.amount)


class Slug:
    """Something of a third party, which says what it was made with."""

    def __init__(self, of: str, *, longest: int = 5) -> None:
        self.declared = Declared((of,), {"longest": longest})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Slug) and other.declared == self.declared

    def __hash__(self) -> int:
        return 0


class Factory:
    @classmethod
    def make(cls) -> int:
        return 1

    @staticmethod
    def other() -> int:
        return 2


def top() -> int:
    return 3


# The module of the tests is no package's: a migration names what stands in one.
sample = ModuleType(HERE)
for _one in (Colour, Level, Word, Right, Point, Size, Money, Slug, Factory, top):
    _one.__module__ = HERE
    setattr(sample, _one.__name__, _one)
for _method in (Factory.make.__func__, Factory.other):  # type: ignore[attr-defined]
    _method.__module__ = HERE


@pytest.fixture(autouse=True)
def _sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, HERE, sample)


def assignment(values: Values, name: str, value: Any) -> str:
    """As in a file, where a part of several lines is always in brackets."""
    source, prefix = values.source(value, "a value"), f"{name} = "
    text = lines_of(source, "", prefix, "")
    if "\n" in text and not isinstance(source, (Bracket, Text)):
        return f"[{name}] = {lines_of(Bracket('[', [('', source)], ']'), '', f'[{name}] = ', '')}"
    return prefix + text


def written(value: Any) -> str:
    values = Values()
    text = assignment(values, "value", value)
    return "\n".join([*values.imports.lines(), text, ""])


def read(text: str) -> Any:
    namespace: dict[str, Any] = {}
    exec(compile(text, "<written>", "exec"), namespace)
    return namespace["value"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("it's", '"it\'s"'),
        ('say "x"', "'say \"x\"'"),
        ("a\\b\n", '"a\\\\b\\n"'),
        ("one\ntwo", '"""one\ntwo"""'),
        ("one\ntwo \nthree", '"one\\ntwo \\nthree"'),
        (b"it's", 'b"it\'s"'),
        (1.5, "1.5"),
        (math.inf, 'float("inf")'),
        (-3, "-3"),
        ({3, 1, 2}, "{1, 2, 3}"),
        (set(), "set()"),
        (frozenset({"b", "a"}), 'frozenset({"a", "b"})'),
        ((1,), "(1,)"),
        ({"a": [1, (2, 3)]}, '{"a": [1, (2, 3)]}'),
        (dt.datetime(2024, 5, 6, tzinfo=dt.UTC), "dt.datetime(2024, 5, 6, tzinfo=dt.UTC)"),
        (dt.datetime(2024, 5, 6, 7, 8), "dt.datetime(2024, 5, 6, 7, 8)"),
        (dt.date(2024, 5, 6), "dt.date(2024, 5, 6)"),
        (dt.time(7), "dt.time(7)"),
        (dt.timedelta(days=1, seconds=3661), "dt.timedelta(days=1, hours=1, minutes=1, seconds=1)"),
        (dt.timedelta(0), "dt.timedelta()"),
        (Decimal("1.50"), 'Decimal("1.50")'),
        (uuid.UUID(int=1), 'UUID("00000000-0000-0000-0000-000000000001")'),
        (zoneinfo.ZoneInfo("Europe/Berlin"), 'ZoneInfo("Europe/Berlin")'),
        (ipaddress.ip_address("::1"), 'ipaddress.IPv6Address("::1")'),
        (re.compile("a+", re.IGNORECASE), 're.compile("a+", re.RegexFlag.IGNORECASE)'),
        (functools.partial(int, base=2), "functools.partial(int, base=2)"),
        (uuid.uuid4, "uuid.uuid4"),
        (dt.datetime.now, "dt.datetime.now"),
        (dict, "dict"),
        (orm.UNSET, "orm.UNSET"),
        (orm.Range(1, 5), "orm.Range(lower=1, upper=5)"),
        (Colour.LARGE, f"{HERE}.Colour.LARGE"),
        (Level.LOW, f"{HERE}.Level.LOW"),
        (Word.ADA, f"{HERE}.Word.ADA"),
        (Right.READ | Right.WRITE, f"{HERE}.Right.READ | {HERE}.Right.WRITE"),
        (Right(0), f"{HERE}.Right(0)"),
        (Point(1), f"{HERE}.Point(x=1, y=0)"),
        (Size(3), f"{HERE}.Size(width=3)"),
        (Slug("title", longest=9), f'{HERE}.Slug("title", longest=9)'),
        (Factory.make, f"{HERE}.Factory.make"),
        (Factory.other, f"{HERE}.Factory.other"),
        (top, f"{HERE}.top"),
        (PurePosixPath("a/b"), 'pathlib.PurePosixPath("a/b")'),
        (operations.RunPython.noop, "operations.RunPython.noop"),
        (orm.RawSQL("now()"), 'orm.RawSQL("now()")'),
        (sqlalchemy.text("now()"), 'sqlalchemy.text("now()")'),
        (orm.DB_DEFAULT, "orm.DB_DEFAULT"),
        (type(None), "type(None)"),
        (range(3), "range(0, 3)"),
    ],
)
def test_a_value_is_written_as_people_write_it(value: Any, text: str) -> None:
    whole = written(value)
    assert whole.endswith(f"value = {text}\n")
    found = read(whole)
    assert same(found, value)
    assert type(found) is type(value)


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.complex_numbers(),
    st.text(),
    st.text(alphabet="ab\n'\"\\\t {}%"),
    st.binary(),
    st.decimals(),
    st.uuids(),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.datetimes(timezones=st.none() | st.timezones() | st.builds(dt.timezone, st.timedeltas(
        min_value=dt.timedelta(hours=-23), max_value=dt.timedelta(hours=23)))),
    st.ip_addresses(),
    st.sampled_from([Colour.RED, Level.LOW, Word.ADA, Right(3), Point(1, 2), Size(4, "em"), top, int, uuid.uuid4]),
)  # fmt: skip
keys = st.text() | st.integers() | st.booleans() | st.none() | st.uuids()
nested = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(keys, inner)
        | st.sets(keys)
        | st.frozensets(keys)
    ),
    max_leaves=12,
)


def alike(one: Any, other: Any) -> bool:
    """Equality that tells types apart, and NaN from what is none."""
    if type(one) is not type(other):
        return False
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(alike(value, other[key]) for key, value in one.items())
    return repr(one) == repr(other) if isinstance(one, (float, complex, Decimal)) else bool(one == other)


@given(nested)
@settings(deadline=None, max_examples=300)
def test_what_is_written_is_read_again(value: Any) -> None:
    text = written(value)
    assert alike(read(text), value)
    assert written(value) == text


names = st.sampled_from(["age", "name", "author__name", "größe", "class", "a__gt"])
plain = st.one_of(st.integers(), st.text(), st.booleans(), st.decimals(allow_nan=False), st.none(), st.dates())


@st.composite
def lookups(draw: st.DrawFn) -> Q:
    ends = ["", "__gt", "__in", "__isnull", "__icontains", "__exact"]
    found = draw(
        st.dictionaries(
            st.tuples(names, st.sampled_from(ends)), plain | st.lists(st.integers()), min_size=1, max_size=3
        )
    )
    return Q(**{name + end: value for (name, end), value in found.items()})


conditions: st.SearchStrategy[Any] = st.deferred(
    lambda: st.one_of(
        lookups(),
        st.builds(lambda one, other: one & other, conditions, conditions),
        st.builds(lambda one, other: one | other, conditions, conditions),
        st.builds(lambda one, other: one ^ other, conditions, conditions),
        st.builds(lambda one: ~one, conditions),
        st.builds(Q, conditions, lookups()),
        st.builds(
            lambda one, name, value: one.lookup(name, value),
            expressions,
            st.sampled_from(["gt", "exact"]),
            st.integers(),
        ),
        st.builds(lambda one, value: one == value, expressions, plain),
    )
)
expressions: st.SearchStrategy[Any] = st.deferred(
    lambda: st.one_of(
        st.builds(F, names),
        st.builds(orm.Value, plain.filter(lambda value: value is not None)),
        st.builds(lambda value: orm.Value(value, orm.CharField(max_length=9)), st.text()),
        st.builds(lambda one, other: one + other, expressions, expressions | st.integers()),
        st.builds(lambda one, other: one - other, st.integers(), expressions),
        st.builds(lambda one, other: one * other, expressions, st.text()),
        st.builds(lambda one: -one, expressions),
        st.builds(functions.Lower, names | expressions),
        st.builds(functions.Coalesce, names, expressions),
        st.builds(functions.Concat, names, expressions, names),
        st.builds(functions.Substr, names, st.integers(1, 9), st.none() | st.integers(1, 9)),
        st.builds(functions.LPad, names, st.integers(1, 9)),
        st.builds(functions.Replace, names, st.builds(orm.Value, st.text())),
        st.builds(functions.Left, names, st.builds(F, names)),
        st.builds(functions.Trunc, names, st.sampled_from(["year", "day"])),
        st.builds(functions.TruncYear, names),
        st.builds(functions.Round, names, st.integers(-2, 3)),
        st.builds(functions.Collate, names, st.just("C")),
        st.builds(functions.JSONExtract, names, st.text(min_size=1), st.integers(0, 5)),
        st.builds(functions.TrigramWordSimilarity, st.text(), names),
        st.builds(lambda one, other: functions.JSONObject(one=one, other=other), names, expressions),
        st.builds(orm.Cast, names | expressions, st.just(orm.DecimalField(max_digits=9, decimal_places=2))),
        st.builds(orm.ExpressionWrapper, expressions, st.just(orm.IntegerField())),
        st.builds(
            lambda condition, then, default: orm.Case(orm.When(condition, then=then), default=default),
            conditions,
            expressions | st.text(),
            st.none() | plain | expressions,
        ),
        conditions,
    )
)


@given(expressions)
@settings(deadline=None, max_examples=150)
def test_expressions_are_read_again(value: Any) -> None:
    text = written(value)
    assert same(read(text), value), text
    # And once more, of what was read.
    assert written(read(text)) == text


def test_references_to_classes_become_names() -> None:
    class Writer(orm.Model):
        age = orm.IntegerField()

        class Meta:
            app_label = "sample"
            registry = orm.Registry()

    text = written((Writer.age > 3) | ~(Writer.age.is_null()))
    assert "orm.Q(age__gt=3) | ~orm.Q(age__isnull=True)" in text
    assert "Writer" not in text
    assert 'orm.F("age").desc(nulls="last")' in written(Writer.age.desc(nulls="last"))


def test_the_value_of_a_member_stands_in_an_expression() -> None:
    assert "orm.Q(state='ada')".replace("'", '"') in written(Q(state=Word.ADA))
    assert "orm.Q(level__in=[1])" in written(Q(level__in=[Level.LOW]))


class Local:
    def __init__(self) -> None:
        self.inside = 1


def test_what_cannot_be_written_says_why_and_what_to_do() -> None:
    def inside() -> None: ...

    circle: list[Any] = []
    circle.append(circle)
    for value, told in (
        (lambda: 1, "as it has no name; write it as a function"),
        (inside, "inside of a function, where no import finds it; move it to the top"),
        (Local(), "give the class an attribute `declared`"),
        (object(), "register()"),
        (circle, "is in itself"),
        (orm.Subquery(None), "cannot be written into a migration") if False else (iter(()), "register()"),
    ):
        with pytest.raises(NotSerializable, match=re.escape(told)):
            written(value)


def test_the_message_names_the_field_and_the_place_of_a_lambda() -> None:
    field = orm.IntegerField(default=lambda: 1)
    migration = Migration([operations.CreateModel("Post", {"score": field})], app="blog", name="0001_initial")
    with pytest.raises(NotSerializable) as caught:
        source_of(migration)
    message = str(caught.value)
    assert "CreateModel('Post'), fields['score'], default" in message
    assert "test_files_values.py:" in message


def test_a_name_that_became_another_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "top", lambda: 4)
    with pytest.raises(NotSerializable, match="is something else or is not there"):
        written(top)


def test_others_say_how_their_values_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values_module, "_registered", {})
    with pytest.raises(NotSerializable):
        written(Money(3, "NZD"))
    register(Money, lambda money: Declaration(Money, (money.amount,), {"currency": money.currency}))
    text = written([Money(3, "NZD")])
    assert f'{HERE}.Money(3, currency="NZD")' in text
    assert read(text) == [Money(3, "NZD")]


def test_names_of_ours_are_not_hidden_by_those_of_a_project(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("operations")

    class Thing:
        pass

    Thing.__module__, Thing.__qualname__ = "operations", "Thing"
    module.Thing = Thing  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "operations", module)
    text = written(Thing)
    assert "import operations as operations_" in text
    assert read(text) is Thing


def test_arguments_by_names_that_no_call_can_have() -> None:
    text = written(Q(**{"class": 1, "data__a-b": 2, "age": 3}))
    assert 'orm.Q(age=3, **{"class": 1, "data__a-b": 2})' in text
    assert same(read(text), Q(**{"age": 3, "class": 1, "data__a-b": 2}))


def formatted(text: str, folder: Path) -> str:
    """What `ruff format` makes of a text."""
    path = folder / "written.py"
    path.write_text(text, encoding="utf-8")
    for arguments in (["format", "--no-cache"], ["check", "--no-cache", "--select", "I,F"]):
        done = subprocess.run(
            [RUFF, *arguments, "--isolated", "--line-length", "120", str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return path.read_text(encoding="utf-8")


def is_readable(value: Any) -> bool:
    """Whether brackets are not so deep that a date no longer fits beside them; there, a formatter has ways of its
    own."""
    lines = assignment(Values(), "value", value).splitlines()
    return all(len(line) - len(line.lstrip()) <= 80 for line in lines)


@given(st.lists(expressions | nested, min_size=1, max_size=4))
@settings(deadline=None, max_examples=60, phases=[Phase.explicit, Phase.generate])
def test_the_layout_is_that_of_ruff_format(tmp_path_factory: pytest.TempPathFactory, values: list[Any]) -> None:
    """Many values in one file, as the program takes a while to start."""
    writer = Values()
    lines = [assignment(writer, f"value{number}", value) for number, value in enumerate(filter(is_readable, values))]
    text = "\n".join([*writer.imports.lines(), *lines, ""])
    assert formatted(text, tmp_path_factory.mktemp("layout")) == text


def test_lines_are_as_long_as_they_may_be(tmp_path: Path) -> None:
    """Of every length about that of a line, at every depth."""
    writer = Values()
    made: list[Any] = []
    for length in range(90, 118):
        text = "a" * length
        made += [[text], {"key": [text]}, [F(text), 1], Q(a=[text]), Q(b="1") | Q(c=text), (text,), ["é" * length]]
        made += [["日本" * (length // 4) + "a" * (length % 4)], orm.CharField(max_length=1, comment=text)]
    lines = [assignment(writer, f"value{number}", value) for number, value in enumerate(made)]
    text = "\n".join([*writer.imports.lines(), *lines, ""])
    assert formatted(text, tmp_path) == text
    assert max(len(line) for line in text.splitlines()) >= 120
