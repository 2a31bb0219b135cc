"""Where an object came from: what all objects of one result share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import ref

if TYPE_CHECKING:
    from covet_orm.databases import Database
    from covet_orm.fields.base import Convert, Field

__all__ = ["Result", "Source"]


class Result(list[Any]):
    """The objects of one query. While somebody holds on to it, `obj.fetch("author")` loads the authors of all of them.

    Attributes:
        kept: the results of what was prefetched for them, which last as long as this one.
    """

    __slots__ = ("__weakref__", "kept")

    kept: list[Result]


class Source:
    """What the objects of one result have in common.

    Attributes:
        fields: the fields that were read, in the order of `Model._row`.
        loaders: what makes values of the row's, None where they are values already.
        database: where they were read.
        kind: the kind of that database.
        peers: gives the result, while it is there.
    """

    __slots__ = ("database", "fields", "kind", "loaders", "peers")

    def __init__(
        self,
        fields: Sequence[Field[Any]],
        loaders: Sequence[Convert | None],
        database: Database | None,
        peers: ref[Result] | None = None,
    ) -> None:
        self.fields = fields
        self.loaders = loaders
        self.database = database
        self.kind = database.kind if database is not None else ""
        self.peers = peers
