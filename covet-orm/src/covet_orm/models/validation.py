"""Checking an object before it is saved: every field, and what its model's `clean` checks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from covet_orm.exceptions import FieldNotLoaded, ValidationError
from covet_orm.expressions.base import Expression
from covet_orm.fields.base import DB_DEFAULT

if TYPE_CHECKING:
    from covet_orm.fields.base import Convert, Field

__all__ = ["checked", "full_clean"]

MISSING = "it has no value, and the field has no default"


def checked(instance: Any, fields: Sequence[Field[Any]], kind: str) -> tuple[list[Field[Any]], list[Any]]:
    """The fields that are to be written, with their values as parameters for a driver.

    Raises:
        ValidationError: with everything that is wrong with the values.
    """
    errors: dict[str, list[str]] = {}
    written: list[Field[Any]] = []
    parameters: list[Any] = []
    read = object.__getattribute__
    for field, attribute, write in _writers(tuple(fields), kind):
        try:
            value = read(instance, attribute)
        except AttributeError:
            if not field.filled_by_database:
                errors[field.name] = [MISSING]
            continue
        if value is None:
            if field.primary_key and field.filled_by_database:
                continue
            wrong = field.validate(value)
            if wrong:
                errors[field.name] = wrong
                continue
        elif value is DB_DEFAULT:
            continue
        elif not isinstance(value, Expression):
            try:
                value = write(value)
            except ValueError as error:
                errors[field.name] = _complaints(field, value, kind) or [str(error)]
                continue
        parameters.append(value)
        written.append(field)
    if errors:
        raise ValidationError(errors, type(instance).__name__)
    return written, parameters


@lru_cache(maxsize=1024)
def _writers(fields: tuple[Field[Any], ...], kind: str) -> tuple[tuple[Field[Any], str, Convert], ...]:
    """Each field with its attribute and what checks and converts its values."""
    return tuple((field, field.attribute, field.writer(kind)) for field in fields)


def _complaints(field: Field[Any], value: Any, kind: str) -> list[str]:
    """What is wrong with a value that a field does not take."""
    try:
        field.binder(kind)(value)
    except ValueError as error:
        return [str(error)]
    # After its type is known: what a validator is called with is a value of the field.
    return field.validate(value)


def full_clean(instance: Any, exclude: Iterable[str]) -> None:
    """Check every field, convert what was given as text, and call `clean`.

    Raises:
        ValidationError: with everything that is wrong.
    """
    left_out = set(exclude)
    errors: dict[str, list[str]] = {}
    for field in instance._meta.fields:
        if field.name in left_out or field.generated:
            continue
        try:
            value = object.__getattribute__(instance, field.attribute)
        except AttributeError:
            if not field.filled_by_database:
                errors[field.name] = [MISSING]
            continue
        if value is DB_DEFAULT or isinstance(value, Expression):
            continue
        if value is None and field.primary_key and field.filled_by_database:
            continue
        if value is not None:
            try:
                value = field.to_python(value)
            except ValueError as error:
                errors[field.name] = [str(error)]
                continue
            setattr(instance, field.attribute, value)
        wrong = field.validate(value)
        if wrong:
            errors[field.name] = wrong
    try:
        instance.clean()
    except FieldNotLoaded:
        # It looked at a field that has no value, which was noticed already.
        if not errors:
            raise
    except ValidationError as error:
        for name, messages in error.errors.items():
            errors.setdefault(name, []).extend(messages)
    except ValueError as error:
        errors.setdefault("", []).append(str(error))
    if errors:
        raise ValidationError(errors, type(instance).__name__)
