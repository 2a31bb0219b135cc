"""The constructor of a model, generated once: `User(name="Ada", age=36)` costs little more than the assignments."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from covet_orm.exceptions import FieldError
from covet_orm.fields.base import DB_DEFAULT, UNSET

if TYPE_CHECKING:
    from covet_orm.models.options import Options

__all__ = ["constructor"]


def constructor(options: Options) -> Callable[..., None]:
    """The `__init__` of a model: keywords for its fields, foreign keys by their object or by their key.

    Only names of fields, which the metaclass checked to be identifiers, become text of the generated code.
    """
    scope: dict[str, Any] = {"UNSET": UNSET, "refuse": _refuser(options), "options": options}
    parameters: list[str] = []
    lines: list[str] = []
    for position, field in enumerate(options.fields):
        name, attribute = field.name, field.attribute
        parameters.append(f"{attribute}=UNSET")
        if name != attribute:
            parameters.append(f"{name}=UNSET")
            lines.append(f" if {name} is not UNSET: set_{position}(self, {name})")
            lines.append(f" elif {attribute} is not UNSET: self.{attribute} = {attribute}")
            scope[f"set_{position}"] = field.assign  # type: ignore[attr-defined]
        else:
            lines.append(f" if {attribute} is not UNSET: self.{attribute} = {attribute}")
        if callable(field.default):
            scope[f"default_{position}"] = field.default
            lines.append(f" else: self.{attribute} = default_{position}()")
            continue
        initial = None if field.primary_key and field.filled_by_database else field.initial()
        if initial is UNSET:
            continue
        if initial is None or initial is DB_DEFAULT or type(initial) in (str, int, float, bool):
            scope[f"default_{position}"] = initial
            lines.append(f" else: self.{attribute} = default_{position}")
        else:
            scope[f"initial_{position}"] = field.initial
            lines.append(f" else: self.{attribute} = initial_{position}()")
    head = (
        f"def __init__(self, *, {', '.join(parameters)}, **unknown):"
        if parameters
        else "def __init__(self, **unknown):"
    )
    lines.append(" if unknown: refuse(self, unknown)")
    exec("\n".join([head, *lines]), scope)
    made: Callable[..., None] = scope["__init__"]
    made.__qualname__ = f"{options.model.__qualname__}.__init__"
    made.__module__ = options.model.__module__
    made.__doc__ = f"A new {options.model.__name__}; `save()` inserts it."
    return made


def _refuser(options: Options) -> Callable[[Any, dict[str, Any]], None]:
    def refuse(instance: Any, unknown: dict[str, Any]) -> None:
        for name, value in unknown.items():
            if name == "pk" and len(options.primary_key) == 1:
                setattr(instance, options.primary_key[0].attribute, value)
                continue
            known = [field.name for field in options.fields]
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"
            raise FieldError(f"{options.model.__name__}() takes no {name!r}; {hint}")

    return refuse
