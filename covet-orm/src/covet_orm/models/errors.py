"""The errors of a model: `User.DoesNotExist` and `User.MultipleObjectsReturned`.

Each model has classes of its own, below those of its parent and those of all models. They are made when they are first
asked for, as most models of a program never are.
"""

from __future__ import annotations

from threading import Lock
from typing import Any

from covet_orm.exceptions import MultipleObjectsReturned, ObjectDoesNotExist

__all__ = ["errors_of_model"]

# What two threads make of one error would be two, and who catches the one would miss the other.
_making = Lock()


class _ModelError:
    """An error class of a model that was not asked for yet."""

    __slots__ = ("base", "model", "name")

    def __init__(self, base: type[Exception]) -> None:
        self.base = base

    def __set_name__(self, model: type[Any], name: str) -> None:
        self.model: Any = model
        self.name = name

    def __get__(self, instance: Any, owner: type[Any] | None = None) -> Any:
        model, name = self.model, self.name
        parent = model._meta.parent
        # Before the lock, which the parent's needs as well.
        base = self.base if parent is None else getattr(parent.model, name)
        with _making:
            found = vars(model)[name]
            if found is self:
                qualified = f"{model.__qualname__}.{name}"
                found = type(name, (base,), {"__module__": model.__module__, "__qualname__": qualified})
                setattr(model, name, found)
        return found


def errors_of_model() -> dict[str, Any]:
    """What goes into the body of a model's class."""
    return {
        "DoesNotExist": _ModelError(ObjectDoesNotExist),
        "MultipleObjectsReturned": _ModelError(MultipleObjectsReturned),
    }
