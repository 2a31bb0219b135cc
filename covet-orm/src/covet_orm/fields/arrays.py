"""The field of arrays, which PostgreSQL has."""

from __future__ import annotations

from typing import Any, Literal, TypeVar, Unpack, cast, overload

from covet_orm.deferred import sqlalchemy
from covet_orm.exceptions import ModelError, NotSupported
from covet_orm.fields.base import Convert, Field
from covet_orm.fields.options import FieldOptions

__all__ = ["ArrayField"]

T = TypeVar("T")
S = TypeVar("S")

ONLY_POSTGRESQL = "only PostgreSQL has arrays; a JSONField(schema=list[...]) keeps a list on every database"


class ArrayField(Field[T]):
    """A list of values of another field (PostgreSQL): `scores = ArrayField(IntegerField())`.

    Arrays of arrays are rectangular: all the inner ones have one length.

    Args:
        base: the field of the elements. With `null=True`, an element may be None.
        size: the most elements that a value may have.
    """

    checks_values = True
    kind = "array"

    @overload
    def __init__(
        self: ArrayField[list[S]],
        base: Field[S],
        *,
        size: int | None = None,
        null: Literal[False] = False,
        **options: Unpack[FieldOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: ArrayField[list[S] | None],
        base: Field[S],
        *,
        size: int | None = None,
        null: Literal[True],
        **options: Unpack[FieldOptions],
    ) -> None: ...
    def __init__(self, base: Field[Any], *, size: int | None = None, null: bool = False, **options: Any) -> None:
        if not isinstance(base, Field) or not base.column_is_there or hasattr(base, "to"):
            raise ModelError(f"ArrayField({base!r}): its elements are those of a field, such as IntegerField()")
        if base.primary_key or base.unique or base.db_index:
            raise ModelError(
                "the elements of an ArrayField are neither keys nor unique, and have no index of their own"
            )
        self.base = base
        self.size = size
        Field.__init__(self, null=null, **options)

    def column_type(self) -> sqlalchemy.types.TypeEngine[Any]:
        inner, dimensions = self.base, 1
        while isinstance(inner, ArrayField):
            inner, dimensions = inner.base, dimensions + 1
        return sqlalchemy.ARRAY(inner.column_type(), dimensions=dimensions)

    def unsupported(self, kind: str) -> str:
        return ONLY_POSTGRESQL if kind != "postgresql" else self.base.unsupported(kind)

    def to_python(self, value: Any) -> T:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"a {type(value).__name__} is no list")
        base = self.base
        return cast("T", [None if one is None else base.to_python(one) for one in value])

    def binder(self, kind: str) -> Convert:
        if kind != "postgresql":
            raise NotSupported(f"{self!r}: {ONLY_POSTGRESQL}")
        each, nullable = self.base.binder(kind), self.base.null
        nested = isinstance(self.base, ArrayField)

        def bind(value: Any) -> list[Any]:
            if not isinstance(value, (list, tuple)):
                raise ValueError(f"a {type(value).__name__} is no list")
            bound: list[Any] = []
            for position, one in enumerate(value):
                if one is None:
                    if not nullable:
                        raise ValueError(f"element {position} is None, and the field of the elements has no null=True")
                    bound.append(None)
                    continue
                try:
                    bound.append(each(one))
                except ValueError as error:
                    raise ValueError(f"element {position}: {error}") from None
            if nested and len({len(one) for one in bound if one is not None}) > 1:
                raise ValueError("the arrays in it differ in length, and PostgreSQL keeps rectangles alone")
            return bound

        return bind

    def loader(self, kind: str) -> Convert | None:
        each = self.base.loader(kind)
        if each is None:
            # The row is kept, and a list of its own makes a change in place a change.
            return list
        return lambda value: [None if one is None else each(one) for one in value]

    def validate(self, value: Any) -> list[str]:
        if value is None:
            return super().validate(value)
        if self.size is not None and len(value) > self.size:
            return [f"it has {len(value)} elements, and may have {self.size}"]
        wrong = super().validate(value)
        for position, one in enumerate(value):
            wrong += [f"element {position}: {message}" for message in self.base.validate(one)]
        return wrong

    def contribute(self, model: Any, name: str) -> None:
        super().contribute(model, name)
        self.base.contribute(model, name)
