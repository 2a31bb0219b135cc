"""Random sets of models, as states of migrations: for property tests of what is made of them.

@given(states("sqlite"))
def test_something(state: State) -> None: ...
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

import covet_orm as orm
from covet_migrate.exceptions import MigrationError
from covet_migrate.inspection.shadow import tables_of
from covet_migrate.state.models import ModelState, State
from covet_migrate.state.rendering import historical_models
from covet_orm import F, Field, Q, RawSQL
from covet_orm.expressions.functions import Lower, Now
from covet_orm.schema import check_supported, statements

__all__ = ["APP", "MODELS", "states"]

APP = "app"
MODELS = ("Author", "Order", "Group", "Select", "Post", "User", "Index", "A", "Verylongname" * 4, "Ünit")
FIELDS = (
    "name", "title", "order", "select", "group", "user", "value", "key", "rank", "n" * 55, "a1", "left", "from_day",
    "größe", "index", "check",
)  # fmt: skip
COLUMNS = ("Mixed", "we ird", 'quo"te', "back`tick", "per%cent", "x" * 63, "ünï", "1st", "save", "class", "a__b", "_x")
TABLES = ("order", "Mixed Case", "t" * 63, 'quo"ted', "per%cent", "tüb", "group", "app_", "1")
WORDS = ("", "a", "it's", "100%", "ü", "a\\b", 'say "x"', "NULL", "x\ny", ":colon", "`tick`")


@st.composite
def states(draw: st.DrawFn, kind: str, *, most: int = 4, among: Sequence[str] = MODELS) -> State:
    """A set of models that a database can have.

    Args:
        kind: `postgresql`, `mariadb` or `sqlite`.
        most: how many models there are at most.
        among: what they may be called.
    """
    names = draw(st.lists(st.sampled_from(among), min_size=1, max_size=most, unique=True))
    keys = {name: draw(_keys(kind)) for name in names}
    tables = draw(st.lists(st.sampled_from(TABLES), unique=True, max_size=len(names)))
    state = State()
    for number, name in enumerate(names):
        state = state.put(_model(draw, kind, name, keys, tables[number] if number < len(tables) else None))
    try:
        found, _ = tables_of(state)
        check_supported(kind, list(historical_models(state)))
        statements(kind, found, create=True)
    except (orm.ModelError, orm.NotSupported, MigrationError):
        # Two names of it are the same, for instance.
        assume(False)
    return state


def _keys(kind: str) -> st.SearchStrategy[dict[str, Field[Any]]]:
    """The fields of a primary key."""
    return st.one_of(
        st.builds(lambda: {"id": orm.BigAutoField[int]()}),
        st.builds(lambda: {"id": orm.AutoField[int]()}),
        st.builds(lambda: {"number": orm.SmallAutoField[int](db_column="Nr")}),
        st.builds(lambda: {"code": orm.CharField[str](max_length=20, primary_key=True)}),
        st.builds(lambda: {"uid": orm.UUIDField[Any](primary_key=True)}),
        st.builds(lambda: {"number": orm.IntegerField[int](primary_key=True)}),
        st.builds(
            lambda: {"day": orm.DateField[Any](primary_key=True), "slot": orm.SmallIntegerField[int](primary_key=True)}
        ),
    )


def _model(
    draw: st.DrawFn, kind: str, name: str, keys: dict[str, dict[str, Field[Any]]], table: str | None
) -> ModelState:
    fields = dict(keys[name])
    columns = draw(st.lists(st.sampled_from(COLUMNS), unique=True, max_size=3))
    for field in draw(st.lists(st.sampled_from(FIELDS), unique=True, max_size=6)):
        made = draw(_field(kind, columns.pop() if columns and draw(st.booleans()) else None))
        fields[field] = made
    targets = [other for other, key in keys.items() if len(key) == 1]
    for number in range(draw(st.integers(0, 2)) if targets else 0):
        fields[f"ref{number}"] = draw(_relation(kind, draw(st.sampled_from(targets)), number))
    if targets and len(keys[name]) == 1 and draw(st.integers(0, 5)) == 0:
        fields["many"] = orm.ManyToManyField(f"{APP}.{draw(st.sampled_from(targets))}", related_name="+")
    whole = [one for one, field in fields.items() if type(field) is orm.IntegerField and not field.primary_key]
    if whole and draw(st.booleans()):
        stored = kind != "postgresql" and draw(st.booleans())
        fields["computed"] = orm.GeneratedField(
            F(whole[0]) * 2 + 1, orm.BigIntegerField[int](), **({"stored": False} if stored else {})
        )
    return ModelState(APP, name, fields).with_options(**_options(draw, kind, name, fields, table))


@st.composite
def _field(draw: st.DrawFn, kind: str, column: str | None) -> Field[Any]:
    options: dict[str, Any] = {"db_column": column} if column else {}
    if draw(st.booleans()):
        options["null"] = True
    if draw(st.integers(0, 3)) == 0 and kind != "sqlite":
        options["comment"] = draw(st.sampled_from([word for word in WORDS if word]))
    declares, more = draw(st.sampled_from(_declarations(kind)))
    if declares not in (orm.TextField, orm.JSONField, orm.BinaryField):
        how = draw(st.integers(0, 5))
        options |= {"unique": True} if how == 0 else {"db_index": True} if how == 1 else {}
    default = draw(_default(kind, declares, more)) if draw(st.booleans()) else None
    if default is not None:
        options["db_default"] = default
    found: Field[Any] = declares(
        *more.get("args", ()), **({name: one for name, one in more.items() if name != "args"} | options)
    )
    return found


def _declarations(kind: str) -> Sequence[tuple[Any, dict[str, Any]]]:
    found: list[tuple[Any, dict[str, Any]]] = [
        (orm.CharField, {"max_length": 50}), (orm.TextField, {}), (orm.IntegerField, {}), (orm.IntegerField, {}),
        (orm.SmallIntegerField, {}), (orm.BigIntegerField, {}), (orm.PositiveIntegerField, {}),
        (orm.PositiveSmallIntegerField, {}), (orm.PositiveBigIntegerField, {}), (orm.BooleanField, {}),
        (orm.FloatField, {}), (orm.DecimalField, {"max_digits": 8, "decimal_places": 2}), (orm.DateField, {}),
        (orm.DateTimeField, {}), (orm.DateTimeField, {"timezone": False}), (orm.TimeField, {}), (orm.DurationField, {}),
        (orm.UUIDField, {}), (orm.JSONField, {}), (orm.BinaryField, {}), (orm.BinaryField, {"max_length": 20}),
        (orm.IPAddressField, {}), (orm.EmailField, {}), (orm.SlugField, {"db_index": False}), (orm.URLField, {}),
    ]  # fmt: skip
    if kind == "postgresql":
        found += [
            (orm.ArrayField, {"args": (orm.IntegerField[int](),)}),
            (orm.ArrayField, {"args": (orm.CharField[str](max_length=9),)}),
            (orm.IntegerRangeField, {}), (orm.DateRangeField, {}), (orm.DecimalRangeField, {}),
            (orm.DateTimeRangeField, {}), (orm.BigIntegerRangeField, {}),
        ]  # fmt: skip
    return found


def _default(kind: str, declares: Any, more: dict[str, Any]) -> st.SearchStrategy[Any]:
    if declares in (orm.CharField,):
        return st.sampled_from(WORDS)
    if declares is orm.TextField:
        return st.none() if kind == "mariadb" else st.sampled_from(WORDS)
    if declares is orm.BooleanField:
        return st.booleans()
    if issubclass(declares, orm.IntegerField):
        return st.sampled_from([0, 1, 100, RawSQL("1 + 1")])
    if declares is orm.FloatField:
        return st.sampled_from([0.0, 1.5, 1e30])
    if declares is orm.DateTimeField and more.get("timezone", True):
        return st.builds(Now)
    return st.none()


@st.composite
def _relation(draw: st.DrawFn, kind: str, target: str, number: int) -> Field[Any]:
    options: dict[str, Any] = {"related_name": "+"}
    if draw(st.booleans()):
        options |= {"null": True, "on_delete": draw(st.sampled_from([orm.SET_NULL, orm.CASCADE]))}
    else:
        options["on_delete"] = draw(st.sampled_from([orm.CASCADE, orm.RESTRICT, orm.DO_NOTHING]))
    if draw(st.integers(0, 3)) == 0:
        options["db_column"] = f"Ref {number}"
    if kind != "mariadb" and draw(st.integers(0, 3)) == 0:
        options["deferrable"] = draw(st.sampled_from(["deferred", "immediate"]))
    label = f"{APP}.{target}"
    if draw(st.integers(0, 2)) == 0:
        return orm.OneToOneField(label, **options)
    if draw(st.integers(0, 3)) == 0:
        options["db_index"] = False
    return orm.ForeignKey(label, **options)


def _options(
    draw: st.DrawFn, kind: str, model: str, fields: dict[str, Field[Any]], table: str | None
) -> dict[str, Any]:
    options: dict[str, Any] = {"db_table": table}
    if kind != "sqlite" and draw(st.booleans()):
        options["comment"] = draw(st.sampled_from([word for word in WORDS if word]))
    usual = (orm.TextField, orm.JSONField, orm.BinaryField, orm.ArrayField, orm.RangeField)
    plain = [name for name, one in fields.items() if one.column_is_there and not isinstance(one, usual)]
    if len(plain) > 1 and draw(st.booleans()):
        options["unique_together"] = (tuple(draw(st.permutations(plain))[:2]),)
    texts = [name for name, one in fields.items() if type(one) is orm.CharField]
    whole = [name for name, one in fields.items() if type(one) is orm.IntegerField]
    indexes: list[Any] = []
    constraints: list[Any] = []
    if plain and draw(st.booleans()):
        signs = [draw(st.sampled_from(["", "-"])) + name for name in draw(st.permutations(plain))[:2]]
        indexes.append(
            orm.Index(
                *signs,
                name=draw(st.sampled_from([None, f"Named {model}"[:60], f"{model}_{'i' * 63}"[:60]])),
                unique=draw(st.booleans()),
            )
        )
    if texts and kind != "mariadb" and draw(st.booleans()):
        one = Lower(texts[0])
        indexes.append(orm.Index(draw(st.sampled_from([one, one.desc()])), unique=draw(st.booleans())))
    if plain and whole and kind != "mariadb" and draw(st.booleans()):
        condition = draw(st.sampled_from([Q(**{f"{whole[0]}__gt": 3}), Q(**{f"{whole[0]}__isnull": False})]))
        indexes.append(orm.Index(plain[0], condition=condition, unique=draw(st.booleans())))
    if texts and kind == "postgresql" and draw(st.booleans()):
        indexes.append(orm.Index(texts[0], name=f"{model[:20]}_ops", opclasses="varchar_pattern_ops"))
        indexes.append(orm.Index(texts[0], name=f"{model[:20]}_hashed", method="hash"))
        indexes.append(orm.Index(texts[0], name=f"{model[:20]}_covering", include=[plain[-1]]))
    if whole and draw(st.booleans()):
        name = whole[0]
        condition = draw(
            st.sampled_from(
                [
                    Q(**{f"{name}__gte": -5}), Q(**{f"{name}__lt": 9}) | Q(**{f"{name}__in": [20, 30]}),
                    ~Q(**{name: 7}), Q(**{f"{name}__gt": F(whole[-1]) - 3}),
                ]
            )
        )  # fmt: skip
        constraints.append(orm.CheckConstraint(condition, name=draw(st.sampled_from([None, f"Check {model[:20]}"]))))
    if texts and draw(st.booleans()):
        word = draw(st.sampled_from([word for word in WORDS if word]))
        constraints.append(orm.CheckConstraint(~Q(**{texts[0]: word}), name=f"not_that_{model[:20]}"))
    if plain and draw(st.booleans()):
        more: dict[str, Any] = {}
        if kind == "postgresql":
            more = draw(st.sampled_from([{}, {"nulls_distinct": False}, {"deferrable": "deferred"}]))
        constraints.append(
            orm.UniqueConstraint(plain[0], plain[-1], name=f"Both {model[:20]}", **more)
            if len(plain) > 1
            else orm.UniqueConstraint(plain[0], name=f"One {model[:20]}", **more)
        )
    spans = [name for name, one in fields.items() if isinstance(one, orm.RangeField)]
    if spans and draw(st.booleans()):
        constraints.append(orm.ExclusionConstraint([(spans[0], "&&")], name=f"apart {model[:20]}"))
    return options | {"indexes": indexes, "constraints": constraints}
