"""Files: keys in an object store of the application, in a column."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest

from covet.exceptions import NoApplicationError
from covet.objects import ObjectNotFound, ObjectStoreError
from covet.testing import TestClient, plugin_sandbox
from covet_orm.databases import Database
from covet_orm.exceptions import ValidationError
from covet_orm.fields import CharField, FileField, StoredFile
from covet_orm.models import Model, Registry

pytestmark = pytest.mark.anyio

own = Registry()


class Document(Model):
    title = CharField(max_length=20)
    file = FileField()
    preview = FileField(null=True, store="previews")

    class Meta:
        registry = own
        app_label = ""


def application(folder: Path) -> Any:
    """An application with two object stores."""
    stores = {"default": {"backend": "file", "path": str(folder / "o"), "fsync": False}, "previews": {}}
    return plugin_sandbox("objects", settings={"objects": stores})


async def test_a_file_is_stored_found_and_deleted(url: str, tmp_path: Path) -> None:
    async with TestClient(application(tmp_path)), Database(url) as database:
        await database.create_all(own)
        made = await Document.objects.create(
            title="one",
            file=await StoredFile.put("re port/../é.pdf", b"content", folder="/docs/", content_type="application/pdf"),
            preview=await StoredFile.put("", b"small", store="previews"),
        )
        found = await Document.objects.get(file=made.file)
        assert found.file == made.file
        assert found.changed_fields() == []
        assert found.file.startswith("docs/")
        assert found.file.endswith(".pdf")
        assert ".." not in found.file
        assert await found.file.read() == b"content"
        assert found.preview is not None
        assert (found.file.store, found.preview.store) == ("default", "previews")
        assert await found.preview.read() == b"small"
        async with found.file.open(offset=2, length=3) as reader:
            assert await reader.read() == b"nte"
        info = await found.file.info()
        assert (info.size, info.content_type) == (7, "application/pdf")
        with pytest.raises(ObjectStoreError, match="gives no URLs"):
            await found.file.url()
        # One of the other store is refused, and a text is a key of the field's own.
        with pytest.raises(ValidationError, match="in the store 'previews', and the field is for 'default'"):
            await Document.objects.create(title="two", file=found.preview)
        assert (await Document.objects.create(title="three", file=str(found.file))).pk is not None
        again = await StoredFile.put("a", b"")
        assert again != await StoredFile.put("a", b"")
        await found.file.delete()
        with pytest.raises(ObjectNotFound):
            await found.file.read()
        await found.file.delete()
        assert await Document.objects.filter(title="one").count() == 1


async def test_without_an_application() -> None:
    with pytest.raises(NoApplicationError):
        await StoredFile("a").read()


def test_a_key_is_a_text() -> None:
    one = StoredFile("a/b", "previews")
    assert one == "a/b"
    assert {one: 1}["a/b"] == 1
    for twin in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert (twin, twin.store, type(twin)) == ("a/b", "previews", StoredFile)
