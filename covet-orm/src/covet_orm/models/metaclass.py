"""The metaclass of models: an attribute of an instance is a slot, the same attribute of the class an expression.

Python looks for data descriptors of the metaclass first when it reads an attribute of a class, and never when it reads
one of an instance. So each model gets a metaclass of its own that answers `User.age` with an expression, while
`user.age` costs what a slot costs.
"""

from __future__ import annotations

import keyword
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from covet_orm.exceptions import ModelError
from covet_orm.fields.base import Field
from covet_orm.fields.numbers import BigAutoField
from covet_orm.models.annotations import annotated_fields
from covet_orm.models.construction import Constructor
from covet_orm.models.errors import errors_of_model
from covet_orm.models.inheritance import inherit, parent_link_name
from covet_orm.models.options import Options

if TYPE_CHECKING:
    import sqlalchemy

__all__ = ["ModelMeta"]

# What an instance has beside its fields.
STATE = ("_row", "_source", "_related", "__weakref__")


class ModelMeta(type):
    """Makes a class a model: collects its fields, gives it slots, a constructor, options and a table."""

    _meta: Options

    def __new__(mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **kwargs: Any) -> Any:
        parents = [base for base in bases if isinstance(base, ModelMeta)]
        if not parents:
            namespace["__slots__"] = STATE
            return super().__new__(mcls, name, bases, namespace, **kwargs)
        own = {key: value for key, value in namespace.items() if isinstance(value, Field)}
        for key in own:
            del namespace[key]
        own |= annotated_fields(name, namespace)
        meta = namespace.pop("Meta", None)
        if meta is not None and not isinstance(meta, type):
            raise ModelError(
                f"{name}.Meta is {meta!r}; it is a class: `class Meta:` with the options as its attributes"
            )
        for key in own:
            _check_field_name(name, key)
        abstract = bool(meta is not None and meta.__dict__.get("abstract", False))
        proxy = bool(meta is not None and meta.__dict__.get("proxy", False))
        # What the body says of a name otherwise takes the place of an inherited field; None takes it away.
        fields = {key: field for key, field in _inherited(bases).items() if key not in namespace} | own
        concrete = [parent for parent in parents if hasattr(parent, "_meta") and not parent._meta.abstract]
        if len(concrete) > 1:
            raise ModelError(
                f"{name} has several parents with tables: {', '.join(p.__name__ for p in concrete)}; an object can "
                "have one: derive from that, refer to the others by a OneToOneField, or make them abstract"
            )
        slots = [] if abstract or proxy else _slots(fields, concrete)
        namespace["__slots__"] = tuple(slots)
        if not abstract:
            namespace |= errors_of_model()
        metaclass: Any = _metaclass(name, parents, own_expressions=not abstract)
        try:
            model: Any = type.__new__(metaclass, name, bases, namespace, **kwargs)
        except TypeError as error:
            # Python says this of bases that both want a place in the object, and names none of them.
            if "lay-out" not in str(error):
                raise
            others = ", ".join(base.__name__ for base in bases if base not in parents)
            raise ModelError(
                f"{name} is a model, whose objects hold its fields, and {others} wants a place of its own there: it "
                "has slots, or is made of a built-in type. A mixin beside a model has no __slots__, or `__slots__ = ()`"
            ) from error
        model._meta = Options(model, meta, [parent._meta for parent in parents if hasattr(parent, "_meta")])
        if abstract:
            model._abstract_fields = fields
            # For `class Meta(Parent.Meta)`.
            model.Meta = meta
            return model
        _Builder(model, metaclass, fields, concrete[0] if concrete else None).build()
        return model

    @property
    def __table__(cls) -> sqlalchemy.Table:
        """The table, as SQLAlchemy has it; made at first use, when every relation is known."""
        model: Any = cls
        if model.__dict__.get("_table") is None:
            from covet_orm.models.tables import build_table

            model._table = build_table(model)
        table: sqlalchemy.Table = model._table
        return table


class _Builder:
    """Gives a class that was just made what a model has."""

    def __init__(self, model: Any, metaclass: type, fields: dict[str, Field[Any]], parent: Any) -> None:
        self.model = model
        self.options: Options = model._meta
        self.metaclass = metaclass
        self.fields = fields
        self.parent = parent

    def build(self) -> None:
        """In the order that things depend on each other."""
        model = self.model
        if self.parent is not None:
            self.fields = inherit(self.options, self.parent._meta, self.fields, self._take)
        own = [field.clone() for field in self.fields.values()]
        columns = [field for field in own if field.column_is_there]
        if self.parent is None and not any(field.primary_key for field in columns):
            key = BigAutoField[int]()
            key.contribute(model, "id")
            self._take(key)
        for field, name in zip(own, self.fields, strict=True):
            field.contribute(model, name)
            self._take(field)
        model.__init__ = Constructor(self.options)
        self.options.registry.add(model)
        for field in [*self.options.fields, *self.options.many_to_many]:
            if field.model is model:
                field.relate()

    def _take(self, field: Field[Any]) -> None:
        if field.column_is_there:
            self.options.add(field)
        else:
            self.options.many_to_many.append(field)
        # In this order: what the metaclass answers for, the class can no longer be given.
        for name, descriptor in field.descriptors().items():
            setattr(self.model, name, descriptor)
        for name, expression in field.expressions().items():
            setattr(self.metaclass, name, property(_constant(expression)))


def _metaclass(name: str, parents: list[ModelMeta], *, own_expressions: bool) -> type:
    """The metaclass of a model: one of its own, unless it is abstract. Abstract models share theirs, so that a model
    can derive from several."""
    kinds = list(dict.fromkeys(type(parent) for parent in parents))
    kinds = [kind for kind in kinds if not any(other is not kind and issubclass(other, kind) for other in kinds)]
    if not own_expressions and len(kinds) == 1:
        return kinds[0]
    return type(f"{name}Meta", tuple(kinds), {"__module__": __name__, "__slots__": ()})


def _check_field_name(model: str, name: str) -> None:
    if name in _fine:
        return
    if name.startswith("_") or name.endswith("_") or "__" in name or name == "pk":
        raise ModelError(
            f"{model}.{name}: a field's name neither begins nor ends with an underscore, holds no two in a row (they "
            "separate the steps of a path), and is not pk"
        )
    if not name.isidentifier() or keyword.iskeyword(name) or name == "self":
        raise ModelError(f"{model}: a field cannot be called {name!r}; db_column may be any name")
    from covet_orm.models.instances import Model

    if hasattr(Model, name):
        raise ModelError(
            f"{model}.{name} would hide Model.{name}; give the field another name, and db_column={name!r} if the "
            "column is called so"
        )
    _fine.add(name)


_fine: set[str] = set()
"""Names of fields that were checked: most models have some that others have."""


def _constant(value: Any) -> Callable[[Any], Any]:
    return lambda cls: value


def _inherited(bases: tuple[type, ...]) -> dict[str, Field[Any]]:
    """The fields that abstract models and mixins hand on; those of the first base win."""
    found: dict[str, Field[Any]] = {}
    for base in reversed(bases):
        if isinstance(base, ModelMeta):
            found |= base.__dict__.get("_abstract_fields", {})
        else:
            for ancestor in reversed(base.__mro__):
                found |= {key: value for key, value in vars(ancestor).items() if isinstance(value, Field)}
    return found


def _slots(fields: dict[str, Field[Any]], concrete: list[Any]) -> list[str]:
    link = parent_link_name(fields, concrete[0]) if concrete else None
    slots = [slot for name, field in fields.items() if name != link for slot in field.slots(name)]
    if not concrete and not any(field.primary_key for field in fields.values()):
        slots.insert(0, "id")
    return slots
