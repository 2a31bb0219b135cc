"""Fields that are declared by annotations: `age: Annotated[int, IntegerField()]`."""

from __future__ import annotations

import sys
import types
import typing
from typing import Annotated, Any

from covet_orm.exceptions import ModelError
from covet_orm.fields.base import UNSET, Declared, Field

__all__ = ["annotated_fields"]


def annotated_fields(name: str, namespace: dict[str, Any]) -> dict[str, Field[Any]]:
    """The fields that the annotations of a class body declare. Their default, if they have one, is taken out of it.

    What an annotation allows, None or not, is what the column does.

    Args:
        name: the name of the class.
        namespace: its body.

    Raises:
        ModelError: an annotation with a field cannot be evaluated, or contradicts the field.
    """
    found: dict[str, Field[Any]] = {}
    for key, annotation in _annotations(namespace).items():
        if isinstance(namespace.get(key), Field):
            continue
        hint = _evaluated(name, key, annotation, namespace)
        if typing.get_origin(hint) is not Annotated:
            continue
        declared = [one for one in hint.__metadata__ if isinstance(one, Field)]
        if not declared:
            continue
        if len(declared) > 1:
            raise ModelError(f"{name}.{key} is annotated with {len(declared)} fields; one is what it can be")
        # One annotation may have a name, and be that of several attributes.
        field = declared[0].clone()
        allows_none = _allows_none(hint.__origin__)
        if field.null and not allows_none:
            raise ModelError(f"{name}.{key} has null=True, and so may be None: annotate it as {_told(hint)} | None")
        field.null = allows_none
        if allows_none and field.primary_key:
            raise ModelError(f"{name}.{key} is a primary key, which cannot be None: leave `| None` out")
        default = namespace.pop(key, UNSET)
        if default is not UNSET:
            field.default = default
        given = {"null": allows_none} if allows_none != declared[0].null else {}
        given |= {"default": default} if default is not UNSET else {}
        field.declared = Declared(field.declared.args, {**field.declared.options, **given})
        found[key] = field
    return found


def _annotations(namespace: dict[str, Any]) -> dict[str, Any]:
    if "__annotations__" in namespace:
        return dict(namespace["__annotations__"])
    annotate = namespace.get("__annotate_func__") or namespace.get("__annotate__")
    if annotate is None:
        return {}
    # Since Python 3.14 annotations are evaluated when they are asked for (PEP 649).
    annotationlib: Any = __import__("annotationlib")
    found: dict[str, Any] = annotationlib.call_annotate_function(annotate, annotationlib.Format.FORWARDREF)
    return found


def _evaluated(name: str, key: str, annotation: Any, namespace: dict[str, Any]) -> Any:
    if not isinstance(annotation, str):
        return annotation
    holder = types.SimpleNamespace(__annotations__={key: annotation})
    module = sys.modules.get(namespace.get("__module__", ""))
    try:
        return typing.get_type_hints(holder, vars(module) if module is not None else {}, include_extras=True)[key]
    except Exception as error:
        # Most annotations declare nothing, and may name what is imported for type checkers alone.
        if "Annotated" in annotation:
            raise ModelError(
                f"{name}.{key}: the annotation {annotation!r} cannot be evaluated ({error}); its names are to be "
                f"those of the module; or declare it as {key} = ..."
            ) from error
        return None


def _allows_none(hint: Any) -> bool:
    return hint is None or type(None) in typing.get_args(hint)


def _told(hint: Any) -> str:
    return str(getattr(hint.__origin__, "__name__", hint.__origin__))
