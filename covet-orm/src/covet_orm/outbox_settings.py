"""The settings of an outbox: `[plugins.orm.outbox.ALIAS]`, by the alias of its database."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["OutboxSettings"]


class OutboxSettings(Struct, frozen=True, kw_only=True):
    """The keys of `[plugins.orm.outbox.ALIAS]`."""

    handlers: Annotated[
        str, Meta(description="Functions by topic, as `module:name`; without, messages are only written.")
    ] = ""
    deliver: Annotated[
        bool,
        Meta(description="Whether the application delivers; where not, `covet db outbox --deliver` is for it."),
    ] = True
    create_table: Annotated[
        bool | None, Meta(description="Whether the table is made when it is missing; by default in debug mode alone.")
    ] = None
    concurrency: Annotated[int, Meta(ge=1, description="How many messages are delivered at a time.")] = 10
    lease_seconds: Annotated[
        float, Meta(gt=0, description="Seconds after which others have the messages of a worker that died.")
    ] = 30.0
    max_attempts: Annotated[int, Meta(ge=1, description="How often a message is tried.")] = 10
    keep_seconds: Annotated[float, Meta(ge=0, description="Seconds that a delivered message is kept.")] = 86_400.0
    poll_seconds: Annotated[
        float, Meta(gt=0, description="Seconds between two looks, where nothing wakes the worker before.")
    ] = 1.0
    shutdown_seconds: Annotated[
        float, Meta(ge=0, description="Seconds that handlers at work have when the application stops.")
    ] = 10.0
