"""The constructor of a model, generated once: `User(name="Ada", age=36)` costs little more than the assignments.

It is generated when the first object is made. That takes as long as the rest of declaring a model, and a program that
writes migrations, or answers requests of a few models, makes objects of none or few of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from covet.settings_schema import nearest
from covet_orm.exceptions import FieldError
from covet_orm.fields.base import DB_DEFAULT, UNSET

if TYPE_CHECKING:
    from covet_orm.models.options import Options

__all__ = ["Constructor", "constructor"]


class Constructor:
    """What a model has as its `__init__` until somebody calls it or looks at it."""

    __slots__ = ("options",)

    def __init__(self, options: Options) -> None:
        self.options = options

    def __get__(self, instance: Any, owner: type[Any] | None = None) -> Any:
        made = constructor(self.options)
        model: Any = self.options.model
        # In its own place, so that from the second call on the model has a plain function there.
        model.__init__ = made
        return made.__get__(instance, owner)


def constructor(options: Options) -> Callable[..., None]:
    """The `__init__` of a model: keywords for its fields, foreign keys by their object or by their key.

    Only names of fields, which the metaclass checked to be identifiers, become text of the generated code.
    """
    # Names with an underscore before them are none of a field.
    scope: dict[str, Any] = {"_UNSET": UNSET, "_refuse": _refuser(options)}
    parameters: list[str] = []
    lines: list[str] = []
    for position, field in enumerate(options.fields):
        name, attribute = field.name, field.attribute
        if field.generated:
            scope[f"_default_{position}"] = DB_DEFAULT
            lines.append(f" _self.{attribute} = _default_{position}")
            continue
        parameters.append(f"{attribute}=_UNSET")
        if name != attribute:
            parameters.append(f"{name}=_UNSET")
            lines.append(f" if {name} is not _UNSET: _set_{position}(_self, {name})")
            lines.append(f" elif {attribute} is not _UNSET: _self.{attribute} = {attribute}")
            scope[f"_set_{position}"] = field.assign  # type: ignore[attr-defined]
        else:
            lines.append(f" if {attribute} is not _UNSET: _self.{attribute} = {attribute}")
        if callable(field.default):
            scope[f"_default_{position}"] = field.default
            lines.append(f" else: _self.{attribute} = _default_{position}()")
            continue
        initial = None if field.primary_key and field.filled_by_database else field.initial()
        if initial is UNSET:
            continue
        if initial is None or initial is DB_DEFAULT or type(initial) in (str, int, float, bool):
            scope[f"_default_{position}"] = initial
            lines.append(f" else: _self.{attribute} = _default_{position}")
        else:
            scope[f"_initial_{position}"] = field.initial
            lines.append(f" else: _self.{attribute} = _initial_{position}()")
    head = (
        f"def __init__(_self, *, {', '.join(parameters)}, **_unknown):"
        if parameters
        else "def __init__(_self, **_unknown):"
    )
    lines.append(" if _unknown: _refuse(_self, _unknown)")
    exec("\n".join([head, *lines]), scope)
    made: Callable[..., None] = scope["__init__"]
    made.__qualname__ = f"{options.model.__qualname__}.__init__"
    made.__module__ = options.model.__module__
    made.__doc__ = f"A new {options.model.__name__}; `save()` inserts it."
    return made


def _refuser(options: Options) -> Callable[[Any, dict[str, Any]], None]:
    def refuse(instance: Any, unknown: dict[str, Any]) -> None:
        for name, value in unknown.items():
            if name == "pk":
                _set_key(instance, options, value)
                continue
            field = options.by_name.get(name)
            if field is not None and field.generated:
                raise FieldError(f"{options.model.__name__}.{name} is computed by the database, and takes no value")
            raise FieldError(f"{options.model.__name__}() takes no {name!r}{nearest(name, {*options.by_name, 'pk'})}")

    return refuse


def _set_key(instance: Any, options: Options, value: Any) -> None:
    """Give a new object its key by `pk=`."""
    if not options.has_composite_key:
        setattr(instance, options.primary_key[0].attribute, value)
        return
    if not isinstance(value, (tuple, list)) or len(value) != len(options.primary_key):
        names = ", ".join(field.name for field in options.primary_key)
        raise FieldError(f"{options.model.__name__}(pk={value!r}): its key is a tuple: ({names})")
    for field, part in zip(options.primary_key, value, strict=True):
        setattr(instance, field.attribute, part)
