"""Random sets of models, as programs declare them: for property tests of what is detected between two of them.

@given(model_sets(), model_sets())
def test_something(before: Registry, after: Registry) -> None: ...
"""

from __future__ import annotations

import enum
import uuid
from typing import Annotated, Any

from hypothesis import assume
from hypothesis import strategies as st

import covet_orm as orm
from covet_orm import F, Field, Model, Q, Registry
from covet_orm.expressions.functions import Lower

__all__ = ["Colour", "Level", "declare", "model_sets"]

APPS = ("blog", "shop", "users")
NAMES = ("Alpha", "Beta", "Gamma", "Delta")
FIELDS = ("one", "two", "three", "four")
TABLES = ("things", "stuff")
ACTIONS: list[Any] = [orm.CASCADE, orm.RESTRICT, orm.PROTECT]


class Colour(enum.Enum):
    """An enumeration of texts."""

    RED = "red"
    GREEN = "green"


class Level(enum.IntEnum):
    """An enumeration of whole numbers."""

    LOW = 1
    HIGH = 2


def declare(registry: Registry, app: str, name: str, body: dict[str, Any], *bases: type[Any], **meta: Any) -> Any:
    """A model, as a class statement makes it.

    Args:
        registry: where it belongs.
        app: the label of its application.
        name: its name.
        body: its fields, and what else stands in the class.
        bases: what it derives from; `Model` by default.
        meta: the options of its `Meta`.
    """
    given = type("Meta", (), {"registry": registry, "app_label": app, **meta})
    kind: Any = type(bases[0]) if bases and isinstance(bases[0], type(Model)) else type(Model)
    namespace = {"__module__": f"{app}.models", "__qualname__": name, "Meta": given, **body}
    return kind(name, bases or (Model,), namespace)


@st.composite
def model_sets(draw: st.DrawFn, *, most: int = 5) -> Registry:
    """Some models in several applications, of all kinds: proxies, children of others, heirs of abstract models."""
    registry = Registry()
    labels = draw(
        st.lists(st.tuples(st.sampled_from(APPS), st.sampled_from(NAMES)), min_size=1, max_size=most, unique=True)
    )
    stamped = declare(registry, "blog", "Stamped", {"at": orm.DateTimeField(auto_now_add=True)}, abstract=True)
    tables = list(TABLES)
    made: list[Any] = []
    for app, name in labels:
        others = [f"{one}.{other}" for one, other in labels]
        body: dict[str, Any] = {}
        if draw(st.integers(0, 5)) == 0:
            body["key"] = draw(_keys())
        elif draw(st.integers(0, 6)) == 0:
            body["first"], body["second"] = orm.IntegerField(primary_key=True), orm.IntegerField(primary_key=True)
        composite = "first" in body
        for field in draw(st.lists(st.sampled_from(FIELDS), max_size=4, unique=True)):
            body[field] = draw(_fields(others))
        annotations = {"note": draw(st.sampled_from(ANNOTATIONS))} if draw(st.booleans()) else {}
        body |= {"__annotations__": annotations} if annotations else {}
        columns = [name for name, one in body.items() if isinstance(one, Field) and one.column_is_there]
        if "one" in body and isinstance(body["one"], orm.IntegerField) and draw(st.booleans()):
            body["total"] = orm.GeneratedField(F("one") + draw(st.integers(1, 2)), orm.BigIntegerField())
        meta = draw(_options([one for one in columns if one in FIELDS], tables))
        bases = draw(st.sampled_from([(), (), (stamped,)]))
        made.append((app, name, body, bases, meta, composite))
    keys = {f"{app}.{name}" for app, name, *_, composite in made if composite}
    for app, name, body, bases, meta, _ in made:
        # A foreign key has one column, and so has what it refers to.
        body = {key: one for key, one in body.items() if getattr(one, "to", None) not in keys}
        if f"{app}.{name}" in keys:
            body = {key: one for key, one in body.items() if not isinstance(one, orm.ManyToManyField)}
            body = {key: one for key, one in body.items() if getattr(one, "to", None) != "self"}
        declare(registry, app, name, body, *bases, **_fitting(meta, body))
    parents = [model for model in registry if not model._meta.has_composite_key and model._meta.link_of is None]
    for number in range(draw(st.integers(0, 2)) if parents else 0):
        parent = draw(st.sampled_from(parents))
        app = draw(st.sampled_from(APPS))
        if draw(st.booleans()):
            declare(registry, app, f"Proxy{number}", {}, parent, proxy=True)
        else:
            declare(registry, app, f"Child{number}", {f"own{number}": orm.TextField(default="")}, parent)
    try:
        registry.tables()
    except orm.ModelError:
        # Two columns have one name, for instance.
        assume(False)
    return registry


ANNOTATIONS: list[Any] = [
    Annotated[str, orm.CharField(max_length=20)],
    Annotated[str | None, orm.CharField(max_length=20)],
    Annotated[int | None, orm.IntegerField(db_index=True)],
]


@st.composite
def _keys(draw: st.DrawFn) -> Field[Any]:
    kinds: list[Any] = [
        lambda: orm.UUIDField(primary_key=True, default=uuid.uuid4),
        lambda: orm.CharField(max_length=10, primary_key=True),
        orm.AutoField,
        orm.BigAutoField,
    ]
    made: Field[Any] = draw(st.sampled_from(kinds))()
    return made


@st.composite
def _fields(draw: st.DrawFn, labels: list[str]) -> Field[Any]:
    null: dict[str, Any] = {"null": draw(st.booleans())}
    to = draw(st.sampled_from([*labels, "self"]))
    kinds: list[Any] = [
        lambda: orm.CharField(max_length=draw(st.sampled_from([10, 20])), unique=draw(st.booleans()), **null),
        lambda: orm.IntegerField(db_index=draw(st.booleans()), comment=draw(st.sampled_from([None, "n"])), **null),
        lambda: orm.IntegerField(**null),
        lambda: orm.BooleanField(default=draw(st.booleans())),
        lambda: orm.DecimalField(max_digits=8, decimal_places=draw(st.integers(0, 2)), **null),
        lambda: orm.EnumField(Colour, **null),
        lambda: orm.EnumField(Level, **null),
        lambda: orm.DateTimeField(auto_now_add=draw(st.booleans())),
        lambda: orm.JSONField(default=draw(st.sampled_from([dict, list]))),
        lambda: orm.TextField(db_default="x", db_column=draw(st.sampled_from([None, "told"]))),
        lambda: orm.ManyToManyField(to, related_name="+", symmetrical=False),
        lambda: orm.OneToOneField(to, related_name="+", **null),
        lambda: orm.ForeignKey(to, related_name="+", on_delete=draw(st.sampled_from(ACTIONS)), **null),
        lambda: orm.ForeignKey(to, related_name="+", **null),
    ]
    made: Field[Any] = draw(st.sampled_from(kinds))()
    return made


@st.composite
def _options(draw: st.DrawFn, columns: list[str], tables: list[str]) -> dict[str, Any]:
    meta: dict[str, Any] = {}
    if tables and draw(st.integers(0, 3)) == 0:
        meta["db_table"] = tables.pop(draw(st.integers(0, len(tables) - 1)))
    if draw(st.integers(0, 3)) == 0:
        meta["comment"] = draw(st.sampled_from(["a", "b"]))
    if draw(st.integers(0, 6)) == 0:
        meta["managed"] = False
    if len(columns) >= 2 and draw(st.integers(0, 1)):
        meta["unique_together"] = tuple(columns[:2])
    if draw(st.integers(0, 1)) and columns:
        names: list[str | None] = [None, "%(app_label)s_%(class)s_a", "named_b"]
        # A field may have an index by itself, which has the name that this one would be given.
        name: str | None = draw(st.sampled_from(names if len(columns) > 1 else names[1:]))
        meta["indexes"] = [orm.Index(f"-{columns[-1]}", *columns[:-1], name=name)]
    if draw(st.integers(0, 1)) and columns:
        meta["constraints"] = [orm.CheckConstraint(~Q(**{f"{columns[0]}__isnull": True}) | Q(**{columns[0]: None}))]
        if draw(st.integers(0, 1)):
            meta["constraints"] = [orm.UniqueConstraint(Lower(columns[0]), name="lowered")]
    return meta


def _fitting(meta: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    """Options that name none of the fields that were left out."""
    from covet_migrate.changes.fields import names_in

    gone = {name for name in FIELDS if name not in body}
    found = dict(meta)
    for option in ("indexes", "constraints"):
        found[option] = [one for one in meta.get(option, ()) if gone.isdisjoint(names_in(one))]
    if not gone.isdisjoint(meta.get("unique_together", ())):
        del found["unique_together"]
    return found
