"""How a field, an index or a constraint was declared, so that two can be compared and one can be written down.

A declaration is canonical: what was written in two ways that mean the same is one declaration. What is in Python alone
is not in it, nor what migrations would have to import of a program for no column's sake, such as an enumeration.
"""

from __future__ import annotations

import inspect
from collections.abc import Hashable, Iterable, Mapping, Sequence
from enum import Enum
from functools import cache, partial
from typing import Any, NamedTuple, cast

from covet_migrate.state.expressions import content, unbound
from covet_orm import BigIntegerField, CharField, EnumField, Field, IntegerField
from covet_orm.deferred import is_clause
from covet_orm.exceptions import QueryError
from covet_orm.expressions.base import Expression, Ordering
from covet_orm.fields.base import UNSET, Declared
from covet_orm.fields.related import ForeignKey, ManyToManyField, RelatedField
from covet_orm.indexes import Definition

__all__ = ["IN_PYTHON_ALONE", "Declaration", "declaration_of", "migrated_field", "same"]

IN_PYTHON_ALONE = frozenset(("choices", "schema", "validators"))
"""Options of fields that no database knows of, and no historical model needs."""

SET_BY_CLASSES = ("db_index", "primary_key", "unique")
"""Options whose default a class may decide about: a foreign key has an index unless it says otherwise."""

PLAIN = frozenset((str, int, bool, type(None)))

Parameter = inspect.Parameter


class Declaration(NamedTuple):
    """A class and the arguments that it was called with, with models by their labels.

    Attributes:
        declares: the class.
        args: the positional arguments.
        options: the others, without those that say what is the case anyway.
    """

    declares: type[Any]
    args: tuple[Any, ...]
    options: Mapping[str, Any]


def declaration_of(declared: Field[Any] | Definition) -> Declaration:
    """How a field, an index or a constraint was declared.

    Of a field: its model by label where it refers to one, without what is in Python alone; and that of another field
    where it says that this stands for it (`Field.migrated`). A field of an enumeration is one of its values: what is in
    the column, whatever becomes of the enumeration.

    Raises:
        ModelError: it refers to a model by a name that no model has, or several have.
    """
    if isinstance(declared, Field) and (kept := declared.migrated()) is not declared:
        return declaration_of(kept)
    args, options = declared.declared
    args, options = _placed(type(declared), args, options)
    if isinstance(declared, Definition):
        if options.get("databases") is not None:
            options["databases"] = tuple(sorted(options["databases"]))
        found = {name: unbound(value) for name, value in options.items() if not _says_nothing(declared, name, value)}
        return Declaration(type(declared), tuple(map(unbound, args)), dict(sorted(found.items())))
    options = {name: value for name, value in options.items() if name not in IN_PYTHON_ALONE}
    if isinstance(declared, EnumField):
        return _of_values(declared, options)
    if isinstance(declared, RelatedField):
        args = (_label(declared, declared.to), *args[1:])
        if options.get("on_delete") == "PROTECT":
            options["on_delete"] = "RESTRICT"
    if isinstance(declared, ManyToManyField) and declared.through is not None:
        options["through"] = _label(declared, declared.through)
    for name in [name for name, value in options.items() if _says_nothing(declared, name, value)]:
        others = {key: value for key, value in options.items() if key != name}
        # A class may have another default than its parents: ForeignKey(db_index=False) says something.
        if name not in SET_BY_CLASSES or _effect(declared, args, others, name) == getattr(declared, name, None):
            options = others
    found = {name: unbound(value) for name, value in options.items()}
    return Declaration(type(declared), tuple(map(unbound, args)), dict(sorted(found.items())))


def migrated_field(field: Field[Any]) -> Field[Any]:
    """A field that is declared the same, and belongs to no model: what a state holds.

    Raises:
        ModelError: as `declaration_of`.
    """
    key = _plain_key(field)
    if key is None:
        return _migrated(field)
    found = _of_plain.get(key)
    if found is None:
        found = _of_plain[key] = _migrated(field)
    return found


def _migrated(field: Field[Any]) -> Field[Any]:
    declares, args, options = declaration_of(field)
    given = field.declared
    if (
        declares is type(field)
        and getattr(field, "model", None) is None
        and len(args) == len(given.args)
        and options.keys() == given.options.keys()
        and all(map(_is, args, given.args))
        and all(value is given.options[name] for name, value in options.items())
    ):
        return field
    made: Field[Any] = declares(*args, **options)
    return made


_of_plain: dict[tuple[Any, ...], Field[Any]] = {}
"""Fields that many models have alike, by what they were declared with. The fields of a state are values: whoever makes
a model of them makes clones."""


def _plain_key(field: Field[Any]) -> tuple[Any, ...] | None:
    """What tells a field from others of its class, where that is texts and whole numbers; else None. Of one that refers
    to a model: the label of that among them."""
    args, options = field.declared
    parts: list[Any] = [type(field)]
    if isinstance(field, ForeignKey) and len(args) == 1:
        parts.append(_label(field, field.to))
    elif args or isinstance(field, RelatedField):
        return None
    for name, value in options.items():
        kind = type(value)
        if kind not in PLAIN:
            return None
        # One is equal to True, and another value.
        parts += (name, kind, value)
    return tuple(parts)


def same(one: Any, other: Any) -> bool:
    """Whether two things are declared the same: fields, indexes, constraints, expressions, and what is in them.

    Expressions have no `==` of their own, as it makes a condition.
    """
    if one is other:
        return True
    kind = type(one)
    if kind in PLAIN:
        return kind is type(other) and bool(one == other)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, Expression) and isinstance(other, Expression):
        return _same_expressions(one, other)
    if type(one) is not type(other):
        return False
    if isinstance(one, Definition) and same(one.declared, other.declared):
        return True
    if isinstance(one, (Field, Definition)):
        return same(declaration_of(one), declaration_of(other))
    if isinstance(one, Ordering):
        return (one.descending, one.nulls) == (other.descending, other.nulls) and same(one.expression, other.expression)
    mine, theirs = getattr(one, "declared", None), getattr(other, "declared", None)
    if isinstance(mine, Declared) and isinstance(theirs, Declared):
        # An operation within another one, and what third parties have.
        return same(_placed(type(one), *mine), _placed(type(other), *theirs))
    if isinstance(one, partial):
        return same((one.func, one.args, one.keywords), (other.func, other.args, other.keywords))
    if is_clause(one):
        # A `db_default` in SQLAlchemy's own words: its == would make a condition.
        clause: Any = one
        return bool(clause.compare(other))
    if one != one and other != other:
        # NaN, which is equal to nothing.
        return True
    return bool(one == other)


def _same_expressions(one: Expression[Any], other: Expression[Any]) -> bool:
    try:
        return same(content(one), content(other))
    except QueryError:
        # What does not say how it was made says what it is.
        return type(one) is type(other) and repr(one) == repr(other)


def _placed(
    declares: type[Any], args: Sequence[Any], options: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments that may stand by position, by position."""
    options = dict(options)
    placed = list(args)
    for name in _positional(cast("Hashable", declares))[len(args) :]:
        if name not in options:
            break
        placed.append(options.pop(name))
    return tuple(placed), options


@cache
def _positional(declares: type[Any]) -> tuple[str, ...]:
    parameters = list(inspect.signature(declares.__init__).parameters.values())[1:]
    return tuple(one.name for one in parameters if one.kind is Parameter.POSITIONAL_OR_KEYWORD)


@cache
def _defaults(declares: type[Any]) -> Mapping[str, Any]:
    """The defaults of the options of a class and of its parents."""
    found: dict[str, Any] = {}
    for ancestor in reversed(declares.__mro__):
        if "__init__" in vars(ancestor) and ancestor is not object:
            for one in inspect.signature(vars(ancestor)["__init__"]).parameters.values():
                if one.default is not Parameter.empty:
                    found[one.name] = one.default
    return found


def _says_nothing(declared: Any, name: str, value: Any) -> bool:
    """Whether an option says, as far as its default tells, what is the case without it."""
    if value is UNSET:
        return True
    if isinstance(declared, RelatedField) and name in SET_BY_CLASSES:
        return True
    defaults = _defaults(cast("Hashable", type(declared)))
    if name not in defaults:
        return False
    default = defaults[name]
    return value is default or (type(value) is type(default) and same(value, default))


def _effect(field: Field[Any], args: Iterable[Any], options: Mapping[str, Any], name: str) -> Any:
    """What an option is without being given."""
    return getattr(type(field)(*args, **options), name, None)


def _of_values(field: EnumField[Any], options: dict[str, Any]) -> Declaration:
    """The declaration of the field that a column of an enumeration's values is."""
    options.pop("max_length", None)
    for name in ("default", "db_default"):
        if isinstance(options.get(name), Enum):
            options[name] = options[name].value
    if field.texts:
        return declaration_of(CharField(max_length=field.max_length, **options))
    return declaration_of(BigIntegerField(**options) if field.wide else IntegerField(**options))


def _label(field: RelatedField[Any], to: Any) -> str:
    """A model as `app.Name`; `self` stays what it is. A proxy is the model whose table it has."""
    if to == "self":
        return "self"
    model = getattr(field, "model", None)
    if isinstance(to, str):
        if model is None:
            return to
        to = model._meta.registry.get(to, model)
    concrete = to._meta.concrete
    if concrete is model and not isinstance(field, ManyToManyField):
        return "self"
    label: str = concrete._meta.label
    return label


def _is(one: object, other: object) -> bool:
    return one is other
