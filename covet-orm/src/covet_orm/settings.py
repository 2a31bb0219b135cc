"""The settings of a database: the table `[storage.ALIAS]`, with the keys of its pool, its events and its driver; and
those of the plugin, `[plugins.orm]`."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from covet_orm.drivers.options import ConnectionOptions, MySQLOptions, PostgreSQLOptions, SQLiteOptions
from covet_orm.observing import ObservingSettings
from covet_orm.outbox_settings import OutboxSettings
from covet_orm.pool import PoolSettings
from covet_orm.replicas.settings import ReplicaSettings

__all__ = ["MySQLSettings", "OrmSettings", "PostgreSQLSettings", "SQLiteSettings", "options_of"]

Url = Annotated[str, Meta(description="Where the database is.")]
# What is no setting but a part of a program.
CODE = ("create_functions",)


class OrmSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`[plugins.orm]`: who chooses the databases of models, and who delivers the messages of outboxes."""

    routers: Annotated[
        tuple[str, ...],
        Meta(
            description="Objects that choose the database of a model, as `module:name`, in the order in which they "
            "are asked; a class is called without arguments."
        ),
    ] = ()
    distributed_log: Annotated[
        str,
        Meta(
            description="The alias of the database that holds the decisions of `transaction_manager.distributed`; "
            "with it, the application recovers."
        ),
    ] = ""
    outbox: Annotated[
        dict[str, OutboxSettings], Meta(description="The outboxes, by the aliases of their databases.")
    ] = msgspec.field(default_factory=dict)


def _settings(name: str, options: type[ConnectionOptions]) -> type:
    """A struct of a URL, the pool's settings, those of events and of replicas, and the driver's."""
    fields: list[Any] = [("url", Url)]
    replicas = () if options is SQLiteOptions else (ReplicaSettings,)
    for struct in (PoolSettings, ObservingSettings, *replicas, options):
        for field in msgspec.structs.fields(struct):
            if field.name not in CODE:
                made_anew = field.default is msgspec.NODEFAULT
                default = msgspec.field(default_factory=field.default_factory) if made_anew else field.default
                fields.append((field.name, field.type, default))
    return msgspec.defstruct(
        name, fields, frozen=True, kw_only=True, module=__name__, namespace={"__doc__": options.__doc__}
    )


PostgreSQLSettings = _settings("PostgreSQLSettings", PostgreSQLOptions)
"""The settings of a PostgreSQL database."""
MySQLSettings = _settings("MySQLSettings", MySQLOptions)
"""The settings of a MySQL or MariaDB database."""
SQLiteSettings = _settings("SQLiteSettings", SQLiteOptions)
"""The settings of an SQLite database."""


def options_of(settings: Any) -> dict[str, Any]:
    """What was set, as the arguments of `Database`; what was not is left to the URL and to the defaults."""
    default = {field.name: _default(field) for field in msgspec.structs.fields(type(settings)) if field.name != "url"}
    return {name: value for name in default if (value := getattr(settings, name)) != default[name]}


def _default(field: Any) -> Any:
    """What a field has that was not set."""
    return field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
