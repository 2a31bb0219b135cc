"""Models told by plain values, which can be drawn, changed and compared, and the states that they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.migrations.model_kinds import KINDS, family_of, field_of

import covet_orm as orm
from covet_migrate.state.models import ModelState
from covet_orm import F, Q
from covet_orm.expressions.functions import Lower

__all__ = [
    "DEFINITIONS",
    "Definition",
    "Known",
    "ModelSpec",
    "Models",
    "Options",
    "Spec",
    "is_defaulted",
    "is_distinct",
    "is_unique",
    "model_of",
]

Options = dict[str, Any]


@dataclass(frozen=True)
class Spec:
    """A field: its kind, and the options that differ from what is usual."""

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def having(self, **options: Any) -> Spec:
        """The same with other options; None takes one away."""
        merged = {**self.options, **options}
        return Spec(self.kind, {name: value for name, value in merged.items() if value is not None})

    @property
    def key(self) -> bool:
        """Whether it is of the primary key."""
        return bool(self.options.get("primary_key"))

    @property
    def to(self) -> str | None:
        """The model that it refers to."""
        return self.options.get("to")

    @property
    def computed(self) -> bool:
        """Whether it is a generated field."""
        return self.kind in ("stored", "virtual")


@dataclass(frozen=True)
class Definition:
    """An index or a constraint: what it is, of which fields, and its name."""

    kind: str
    names: tuple[str, ...]
    name: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class ModelSpec:
    """A model."""

    label: str
    fields: dict[str, Spec]
    definitions: list[Definition] = field(default_factory=list)
    options: Options = field(default_factory=dict)

    @property
    def keys(self) -> list[str]:
        """The fields of its key."""
        return [name for name, one in self.fields.items() if one.key]


Models = dict[str, ModelSpec]


@dataclass(frozen=True)
class Known:
    """What an index or a constraint can be of."""

    families: tuple[str, ...] = ()
    least: int = 1
    most: int = 2
    named: bool = True
    databases: tuple[str, ...] = ("postgresql", "mariadb", "sqlite")
    options: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    unique: bool = False

    def takes(self, one: Spec) -> bool:
        """Whether it can be of a field."""
        if one.kind in ("foreign", "one"):
            return not self.families
        if one.kind in ("many", "through", "virtual"):
            return False
        if one.kind == "stored":
            return not self.families and not self.unique
        if self.families and one.kind.endswith("auto"):
            # MariaDB checks no column that counts.
            return False
        return KINDS[one.kind].indexed and (not self.families or family_of(one.kind) in self.families)


BUT_MARIADB = ("postgresql", "sqlite")
DEFINITIONS: dict[str, Known] = {
    "index": Known(named=False, options={"unique": [False, False, True], "signs": ["", "-"]}),
    "lower": Known(("text",), most=1, databases=BUT_MARIADB, options={"descending": [False, True]}),
    "partial": Known(("whole",), databases=BUT_MARIADB, options={"unique": [False, True], "variant": [0, 1]}),
    "opclass": Known(("text",), most=1, databases=("postgresql",)),
    "hash": Known(("text", "whole"), most=1, databases=("postgresql",)),
    "covering": Known(least=2, databases=("postgresql",)),
    "unique": Known(unique=True, options={"deferrable": [None, None, "deferred"], "nulls": [None, False]}),
    "together": Known(least=2, named=False, unique=True),
    "check": Known(("whole",), options={"variant": [0, 1, 2, 3]}),
    "word": Known(("text",), most=1, options={"variant": [0, 1, 2]}),
    "apart": Known(("span",), most=1, databases=("postgresql",), unique=True),
}


def is_unique(one: Definition) -> bool:
    return DEFINITIONS[one.kind].unique or bool(one.options.get("unique"))


def _defined(one: Definition) -> Any:
    """An index or a constraint."""
    names, options = one.names, one.options
    variant = int(options.get("variant", 0))
    match one.kind:
        case "index":
            signs = [f"{options['signs']}{names[0]}", *names[1:]]
            return orm.Index(*signs, name=one.name, unique=options["unique"])
        case "lower":
            lower = Lower(names[0])
            return orm.Index(lower.desc() if options["descending"] else lower, name=one.name)
        case "partial":
            condition = [Q(**{f"{names[0]}__gt": 3}), Q(**{f"{names[-1]}__isnull": False})][variant]
            return orm.Index(names[0], name=one.name, condition=condition, unique=options["unique"])
        case "opclass":
            return orm.Index(names[0], name=one.name, opclasses="text_pattern_ops")
        case "hash":
            return orm.Index(names[0], name=one.name, method="hash")
        case "covering":
            return orm.Index(names[0], name=one.name, include=list(names[1:]))
        case "unique":
            how = {"deferrable": options["deferrable"]} if options["deferrable"] else {}
            how |= {"nulls_distinct": False} if options["nulls"] is False and not how else {}
            return orm.UniqueConstraint(*names, name=one.name, **how)
        case "check":
            name = names[0]
            conditions = [
                Q(**{f"{name}__gte": 0}), Q(**{f"{name}__lt": 15}) | Q(**{f"{name}__in": [20, 30]}), ~Q(**{name: 77}),
                Q(**{f"{name}__lt": F(names[-1]) + 30}),
            ]  # fmt: skip
            return orm.CheckConstraint(conditions[variant], name=one.name)
        case "word":
            return orm.CheckConstraint(~Q(**{names[0]: ["it's", "100%", "a\\b"][variant]}), name=one.name)
        case _:
            return orm.ExclusionConstraint([(names[0], "&&")], name=one.name)


def model_of(spec: ModelSpec) -> ModelState:
    app, _, name = spec.label.partition(".")
    fields = {one: field_of(kind.kind, kind.options) for one, kind in spec.fields.items()}
    index = [_defined(one) for one in spec.definitions if one.kind in INDEXES]
    others = [one for one in spec.definitions if one.kind not in INDEXES]
    together = tuple(dict.fromkeys(one.names for one in others if one.kind == "together"))
    constraints = [_defined(one) for one in others if one.kind != "together"]
    return ModelState(app, name, fields).with_options(
        **spec.options, indexes=index, constraints=constraints, unique_together=together
    )


INDEXES = ("index", "lower", "partial", "opclass", "hash", "covering")


def is_defaulted(old: Spec, new: Spec) -> bool:
    """Whether rows that have NULL get the default of the database."""
    return bool(old.options.get("null") and not new.options.get("null") and "db_default" in new.options)


def is_distinct(one: Spec) -> bool:
    """Whether rows have different values there."""
    return one.kind in ("foreign", "one") or (one.kind in KINDS and KINDS[one.kind].distinct)
