"""Relations: the steps that a path such as `author__team__name` takes from one model to another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from covet_orm.fields.base import Field
    from covet_orm.models.instances import Model

__all__ = ["Hop", "Relation"]


class Hop(NamedTuple):
    """A join.

    Attributes:
        target: the model whose table is joined.
        local: the fields of the model before.
        remote: the fields of the target that equal them, in the same order.
    """

    target: type[Model]
    local: tuple[Field[Any], ...]
    remote: tuple[Field[Any], ...]


class Relation(NamedTuple):
    """A step from one model to another.

    Attributes:
        name: what the path calls it.
        source, target: the models.
        field: the field that declares it, on either side.
        many: whether one object may have several.
        nullable: whether one object may have none.
        hops: the joins; two through the table of a many-to-many relation.
    """

    name: str
    source: type[Model]
    target: type[Model]
    field: Any
    many: bool
    nullable: bool
    hops: tuple[Hop, ...]
