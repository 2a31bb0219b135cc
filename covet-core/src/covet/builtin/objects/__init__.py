"""The builtin plugin `objects`: object stores in memory and in a directory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta, Struct

from covet.backends import Backend
from covet.hooks import hookimpl
from covet.objects import ObjectStore, get_object_store
from covet.parameters import Depends

if TYPE_CHECKING:
    from covet.applications import Covet

__all__ = ["FileStoreSettings", "MemoryStoreSettings", "covet_dependencies", "covet_object_stores"]


class MemoryStoreSettings(Struct, frozen=True, kw_only=True):
    """The backend `memory`: objects of this process, gone with it; for tests and development."""

    max_store_bytes: Annotated[int, Meta(ge=0, description="Bytes of all objects together.")] = 256 * 2**20


class FileStoreSettings(Struct, frozen=True, kw_only=True):
    """The backend `file`: objects in a directory, which several processes may share."""

    path: Annotated[str, Meta(min_length=1, description="The directory; it is made when the first object is put.")]
    fsync: Annotated[
        bool,
        Meta(
            description="Whether an object is on the disk when `put` returns, so that it survives a power failure. "
            "Without, an object may be lost then, or found to be corrupt; it is faster."
        ),
    ] = True


def _memory(app: Covet, alias: str, settings: Any) -> ObjectStore:
    from covet.builtin.objects.memory import MemoryStore

    return MemoryStore(settings.max_store_bytes)


def _file(app: Covet, alias: str, settings: Any) -> ObjectStore:
    from covet.builtin.objects.files import FileStore

    return FileStore(settings.path, fsync=settings.fsync)


@hookimpl
def covet_object_stores() -> Mapping[str, Backend]:
    """The backends `memory` and `file`."""
    return {"memory": Backend(_memory, MemoryStoreSettings), "file": Backend(_file, FileStoreSettings)}


@hookimpl
def covet_dependencies(app: Covet) -> Mapping[type, Callable[..., Any] | Depends]:
    """A handler that asks for `ObjectStore` is given the one called `default`."""

    def default() -> ObjectStore:
        return get_object_store("default", app)

    return {ObjectStore: Depends(default, scope="app")}
