"""The page on databases has every option, with its default."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from covet_orm.drivers.options import MySQLOptions, PostgreSQLOptions, SQLiteOptions
from covet_orm.observing import ObservingSettings
from covet_orm.pool import PoolSettings

PAGE = Path(__file__).parent.parent.parent / "docs" / "orm" / "databases.md"
ROW = re.compile(r"\| `(?P<name>\w+)` \| (?P<words>.+) \| (?P<default>.*?) ?\|")
SHOWN = {"sql_mode": "", "target_session_attrs": "of several hosts `read-write`, else `any`", "server_settings": ""}


def default(field: msgspec.structs.FieldInfo) -> str:
    """How the page shows the default of an option."""
    value = field.default
    if field.name in SHOWN:
        return SHOWN[field.name]
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return f"{value:.0f}"
    if value is None:
        return "off"
    return f"`{value}`" if value else ""


@pytest.mark.parametrize(
    "schema",
    [PoolSettings, ObservingSettings, PostgreSQLOptions, MySQLOptions, SQLiteOptions],
    ids=lambda one: one.__name__,
)
def test_every_option_is_there(schema: type[msgspec.Struct]) -> None:
    rows = {row["name"]: row["default"] for row in map(ROW.fullmatch, PAGE.read_text().splitlines()) if row}
    expected = {field.name: default(field) for field in msgspec.structs.fields(schema)}
    assert {name: rows.get(name) for name in expected} == expected
