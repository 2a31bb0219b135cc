"""The field of files: keys in an object store of the application."""

from __future__ import annotations

import re
from collections.abc import AsyncIterable
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, Self, TypeVar, Unpack, cast, overload
from uuid import uuid4

from covet.objects import ObjectInfo, ObjectReader, ObjectStoreError, Presigning, get_object_store
from covet_orm.deferred import sqlalchemy
from covet_orm.exceptions import ModelError
from covet_orm.fields.base import Convert, Field
from covet_orm.fields.options import FieldOptions
from covet_orm.fields.text import check_text

__all__ = ["FileField", "StoredFile"]

T = TypeVar("T")

LONGEST = 1024
"""Bytes that a key of an object store may have."""


class StoredFile(str):
    """The key of an object in an object store of the running application, with what can be done with the object.

    It is a text; an answer in JSON takes `str(user.photo)`, or `await user.photo.url()`.

    Args:
        key: the key.
        store: the alias of the store, as in `[objects.ALIAS]`.

    Raises, of each method that awaits:
        ObjectNotFound: there is no object under the key.
        ObjectStoreError: the store cannot be used.
        ConfigurationError: there is no such store.
        NoApplicationError: no application is running here.
    """

    store: str

    def __new__(cls, key: str, store: str = "default") -> Self:
        made = super().__new__(cls, key)
        made.store = store
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.store)

    @classmethod
    async def put(
        cls,
        name: str,
        data: bytes | AsyncIterable[bytes],
        *,
        folder: str = "",
        store: str = "default",
        content_type: str = "application/octet-stream",
    ) -> Self:
        """Store a file under a new key that ends with its name: `user.photo = await StoredFile.put("me.png", data)`.

        Nothing is ever replaced. The object stays when the row that refers to it goes, or is never saved.

        Args:
            name: the name of the file. Its letters, digits, dots, hyphens and underscores become part of the key.
            data: its content, or an asynchronous iterable of chunks.
            folder: what the key begins with.
            store: the alias of the store.
            content_type: its media type.

        Cancelled, it has stored the object whole or not at all.
        """
        safe = re.sub(r"[^\w.-]+", "_", name.replace("\\", "/").rpartition("/")[2], flags=re.ASCII)[-100:].lstrip(".")
        key = cls(f"{folder.strip('/')}/{uuid4().hex}-{safe or 'file'}".lstrip("/"), store)
        await get_object_store(store).put(str(key), data, content_type=content_type, if_absent=True)
        return key

    def open(self, *, offset: int = 0, length: int | None = None) -> AbstractAsyncContextManager[ObjectReader]:
        """Read it, chunk by chunk, from a byte on, and so many bytes of it."""
        return get_object_store(self.store).get(str(self), offset=offset, length=length)

    async def read(self) -> bytes:
        """The whole content, in memory."""
        async with self.open() as reader:
            return await reader.read()

    async def info(self) -> ObjectInfo:
        """Its size, media type, and what else the store knows."""
        return await get_object_store(self.store).head(str(self))

    async def delete(self) -> None:
        """Remove the object. Does nothing where there is none; the field that refers to it stays as it is."""
        await get_object_store(self.store).delete(str(self))

    async def url(self, *, expires_in: float = 3600.0) -> str:
        """A URL with which whoever has it may read the file, for so many seconds.

        Raises:
            ObjectStoreError: the store gives no URLs.
        """
        found = get_object_store(self.store)
        if not isinstance(found, Presigning):
            raise ObjectStoreError(
                f"the object store {self.store!r} gives no URLs; serve the file by a route of your own"
            )
        return await found.presign(str(self), expires_in=expires_in)


class FileField(Field[T]):
    """A file in an object store; the column holds its key.

        class User(Model):
            photo = FileField(null=True)

        user.photo = await StoredFile.put("me.png", data, folder="photos", content_type="image/png")
        await user.save()
        content = await user.photo.read()

    Args:
        store: the alias of the object store.
        max_length: the most characters of a key, up to 1024.
    """

    checks_values = True
    kind = "file"

    @overload
    def __init__(
        self: FileField[StoredFile],
        *,
        store: str = "default",
        max_length: int = 255,
        null: Literal[False] = False,
        **options: Unpack[FieldOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: FileField[StoredFile | None],
        *,
        store: str = "default",
        max_length: int = 255,
        null: Literal[True],
        **options: Unpack[FieldOptions],
    ) -> None: ...
    def __init__(self, *, store: str = "default", max_length: int = 255, null: bool = False, **options: Any) -> None:
        if not 1 <= max_length <= LONGEST:
            raise ModelError(f"FileField(max_length={max_length}): a key has 1 to {LONGEST} characters")
        self.store = store
        self.max_length = max_length
        Field.__init__(self, null=null, **options)

    def column_type(self) -> sqlalchemy.types.TypeEngine[Any]:
        return sqlalchemy.String(self.max_length)

    def to_python(self, value: Any) -> T:
        text = check_text(value)
        if not 0 < len(text.encode()) <= LONGEST:
            raise ValueError(f"a key has 1 to {LONGEST} bytes as UTF-8, not {len(text.encode())}")
        if isinstance(value, StoredFile) and value.store != self.store:
            raise ValueError(f"the file is in the store {value.store!r}, and the field is for {self.store!r}")
        return cast("T", value if isinstance(value, StoredFile) else StoredFile(text, self.store))

    def binder(self, kind: str) -> Convert:
        exact = self.to_python
        return lambda value: str(exact(value))

    def loader(self, kind: str) -> Convert | None:
        store = self.store
        return lambda value: StoredFile(value, store)

    def validate(self, value: Any) -> list[str]:
        if value is not None and len(value) > self.max_length:
            return [f"the key has {len(value)} characters, and may have {self.max_length}"]
        return super().validate(value)
