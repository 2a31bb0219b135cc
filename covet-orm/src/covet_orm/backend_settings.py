"""The settings of the backends that covet-orm brings: keys of `[sessions]`, `[cache.ALIAS]` and `[pubsub.ALIAS]`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["DatabaseCacheSettings", "DatabaseSessionSettings", "PostgreSQLPubSubSettings"]

Text = Annotated[str, Meta(min_length=1)]
Create = Annotated[
    bool | None, Meta(description="Whether the table is made when it is missing; by default in debug mode alone.")
]


class DatabaseSessionSettings(Struct, frozen=True, kw_only=True):
    """The keys of `[sessions]` with `store = "database"`."""

    database: Annotated[Text, Meta(description="The alias of the database: `[storage.ALIAS]`.")] = "default"
    table: Annotated[Text, Meta(description="The name of the table.")] = "covet_sessions"
    create_table: Create = None


class DatabaseCacheSettings(Struct, frozen=True, kw_only=True):
    """The keys of `[cache.ALIAS]` with `backend = "database"`."""

    database: Annotated[Text, Meta(description="The alias of the database: `[storage.ALIAS]`.")] = "default"
    table: Annotated[Text, Meta(description="The name of the table.")] = "covet_cache"
    create_table: Create = None
    unlogged: Annotated[
        bool, Meta(description="Whether the table is made as UNLOGGED (PostgreSQL): faster, and empty after a crash.")
    ] = False
    max_bytes: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="Bytes of all values, keys and rows, about; beyond, those go that would expire next."),
    ] = 256 * 2**20
    max_value_bytes: Annotated[int, Meta(ge=1, description="Bytes of the largest value that is kept.")] = 4 * 2**20


class PostgreSQLPubSubSettings(Struct, frozen=True, kw_only=True):
    """The keys of `[pubsub.ALIAS]` with `backend = "postgresql"`."""

    database: Annotated[Text, Meta(description="The alias of the database: `[storage.ALIAS]`.")] = "default"
    table: Annotated[Text, Meta(description="The name of the table for messages that are too large for NOTIFY.")] = (
        "covet_messages"
    )
    create_table: Create = None
    heartbeat_seconds: Annotated[
        float, Meta(gt=0, description="Seconds between two questions whether the connection that listens is alive.")
    ] = 15.0
