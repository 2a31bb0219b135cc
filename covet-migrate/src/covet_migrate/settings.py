"""The settings of the plugin: the table `[plugins.migrate]`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

__all__ = ["MigrateSettings"]


class MigrateSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`[plugins.migrate]`: where the migrations of applications are."""

    modules: Annotated[
        dict[str, str],
        Meta(
            description="The packages of the migrations of some applications, by label, where they are not in "
            '`migrations` beside the models: `blog = "shop.migrations.blog"`.'
        ),
    ] = msgspec.field(default_factory=dict)
