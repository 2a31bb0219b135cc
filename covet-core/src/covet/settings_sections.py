"""The sections of the settings that the kernel itself knows: what each key is, and what it may be."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from msgspec import Meta, Struct

from covet.secrets import Secret

__all__ = [
    "BACKED_SECTIONS",
    "SECTIONS",
    "AppSettings",
    "CacheSettings",
    "Limits",
    "LoggingSettings",
    "ObjectsSettings",
    "PluginsSettings",
    "PubSubSettings",
    "ServerSettings",
    "SessionsSettings",
]

Text = Annotated[str, Meta(min_length=1)]
Bytes = Annotated[int, Meta(ge=0)]
Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]


class AppSettings(Struct, frozen=True, kw_only=True):
    """`[app]`: the application."""

    name: Annotated[Text, Meta(description="The name shown in logs and the OpenAPI document.")] = "covet"
    target: Annotated[
        str,
        Meta(pattern=r"^[\w.]+:[\w.]+$", description="Where the application is, as `module:name`."),
    ] = "app:app"
    debug: Annotated[bool, Meta(description="Show tracebacks in error pages. Never in production.")] = False
    secret_key: Annotated[
        Secret | None,
        Meta(description="What cookies and tokens are signed with; a reference such as `env:COVET_SECRET_KEY`."),
    ] = None
    previous_secret_keys: Annotated[
        list[Secret],
        Meta(description="Keys that were `secret_key` before: what was signed with them is still accepted."),
    ] = []
    reread_secret_files: Annotated[
        Seconds | None,
        Meta(description="Seconds after which `file:` secrets are read again, for files that are replaced."),
    ] = None


class ServerSettings(Struct, frozen=True, kw_only=True):
    """`[server]`: what `covet run` serves with."""

    host: Annotated[Text, Meta(description="The address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="The port to listen on.")] = 8000
    workers: Annotated[int, Meta(ge=1, le=1024, description="How many processes serve.")] = 1
    server: Annotated[Literal["granian", "uvicorn"], Meta(description="The ASGI server.")] = "granian"
    reload: Annotated[bool, Meta(description="Restart when a source file changes; for development.")] = False
    access_log: Annotated[bool, Meta(description="Log every request.")] = False
    shutdown_timeout: Annotated[
        Seconds, Meta(description="Seconds that tasks and open streams get to end at shutdown.")
    ] = 30.0
    drain_seconds: Annotated[
        float,
        Meta(
            ge=0,
            description="Seconds between the signal to stop and the server's hearing of it, in which requests are "
            "served and readiness says no: time for a load balancer to notice. A second signal ends it.",
        ),
    ] = 0.0


class Limits(Struct, frozen=True, kw_only=True):
    """`[limits]`: what a request may cost. A route may have others: `Route(limits=...)`."""

    max_body: Annotated[Bytes, Meta(description="Bytes of a request body.")] = 10 * 2**20
    body_timeout: Annotated[Seconds, Meta(description="Seconds until the whole body must have arrived.")] = 30.0
    max_headers: Annotated[Count, Meta(description="How many headers.")] = 100
    max_header_bytes: Annotated[Bytes, Meta(description="Bytes of all headers together.")] = 32 * 2**10
    max_target_bytes: Annotated[Bytes, Meta(description="Bytes of the path, and of the query.")] = 8 * 2**10
    max_query_fields: Annotated[Count, Meta(description="How many members of the query.")] = 1000
    max_form_fields: Annotated[Count, Meta(description="How many fields of a form.")] = 1000
    max_field_bytes: Annotated[Bytes, Meta(description="Bytes of one form field.")] = 2**20
    max_form_bytes: Annotated[Bytes, Meta(description="Bytes of a whole form, files included.")] = 128 * 2**20
    max_files: Annotated[int, Meta(ge=0, description="How many uploaded files.")] = 100
    max_file_bytes: Annotated[Bytes, Meta(description="Bytes of one uploaded file.")] = 100 * 2**20
    spool_bytes: Annotated[Bytes, Meta(description="Bytes of an upload that are kept in memory, not on disk.")] = 2**20


class LoggingSettings(Struct, frozen=True, kw_only=True):
    """`[logging]`: what `covet run` writes to standard error."""

    level: Annotated[
        Literal["debug", "info", "warning", "error", "critical"], Meta(description="The least serious level shown.")
    ] = "info"
    format: Annotated[
        Literal["auto", "human", "json", "none"],
        Meta(
            description="`human` lines, `json` lines, or `auto`: human in debug mode, else JSON; "
            "`none` where the application configures logging itself."
        ),
    ] = "auto"


class PluginsSettings(Struct, frozen=True, kw_only=True):
    """`[plugins]`: which plugins take part. A plugin's own settings are in `[plugins.NAME]`."""

    enable: Annotated[
        list[str] | None, Meta(description="Only these take part; without it, all that are installed.")
    ] = None
    disable: Annotated[list[str], Meta(description="These do not take part and are never imported.")] = []
    optional: Annotated[list[str], Meta(description="These may fail without stopping the start.")] = []
    prefer: Annotated[
        list[str], Meta(description="Who wins when two plugins claim the same thing: the first listed.")
    ] = []


class SessionsSettings(Struct, frozen=True, kw_only=True):
    """`[sessions]`: how visitors are recognised. Further keys are those of the store."""

    store: Annotated[Text, Meta(description="Where sessions are kept: the name of a store.")] = "memory"
    cookie: Annotated[
        str,
        Meta(description="The cookie's name; by default `__Host-session`, and `session` in debug mode."),
    ] = ""
    idle_seconds: Annotated[Seconds, Meta(description="Seconds without a request after which a session ends.")] = (
        43200.0
    )
    lifetime_seconds: Annotated[
        Seconds, Meta(description="Seconds after which a session ends, however much it is used.")
    ] = 604800.0
    persistent: Annotated[
        bool, Meta(description="Whether the cookie outlives the browser, for as long as the session may.")
    ] = False
    same_site: Annotated[
        Literal["lax", "strict", "none"], Meta(description="Which requests from other sites carry the cookie.")
    ] = "lax"
    max_bytes: Annotated[Count, Meta(description="Bytes of one session's values, as they are stored.")] = 64 * 2**10
    timeout_seconds: Annotated[
        Seconds, Meta(description="Seconds that the store may take for a call before the request is answered with 503.")
    ] = 5.0
    purge_seconds: Annotated[
        Seconds, Meta(description="Seconds between two removals of expired sessions, give or take a quarter.")
    ] = 900.0

    def __post_init__(self) -> None:
        if re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]*", self.cookie) is None:
            raise ValueError(f"cookie is the name of a cookie: letters, digits, `-` and `_`, not {self.cookie!r}")


class CacheSettings(Struct, frozen=True, kw_only=True):
    """`[cache.ALIAS]`: a cache. Further keys are those of the backend."""

    backend: Annotated[Text, Meta(description="Where values are kept: the name of a backend.")] = "memory"
    namespace: Annotated[str, Meta(description="Put before every key, for caches that share a backend.")] = ""
    ttl_seconds: Annotated[
        Seconds | None, Meta(description="Seconds that a value is kept for, unless the call says; none is for ever.")
    ] = 300.0
    jitter: Annotated[
        float, Meta(ge=0, lt=1, description="The share of its time by which a value may expire earlier, at random.")
    ] = 0.1
    strict: Annotated[
        bool, Meta(description="Whether a backend that is down is an error, and not a miss and an event.")
    ] = False
    timeout_seconds: Annotated[Seconds, Meta(description="Seconds that a call of the backend may take.")] = 1.0
    cooldown_seconds: Annotated[
        Seconds, Meta(description="Seconds for which a backend that keeps failing is left alone.")
    ] = 10.0
    lease_seconds: Annotated[
        Seconds,
        Meta(
            description="Seconds after which a process that died while it computed a value for all is no longer waited "
            "for."
        ),
    ] = 10.0


class PubSubSettings(Struct, frozen=True, kw_only=True):
    """`[pubsub.ALIAS]`: a way for messages between requests and processes. Further keys are those of the backend."""

    backend: Annotated[Text, Meta(description="What carries the messages: the name of a backend.")] = "memory"
    buffer: Annotated[Count, Meta(description="How many messages wait for a subscriber that does not keep up.")] = 256
    buffer_bytes: Annotated[Count, Meta(description="Bytes of the messages that wait for a subscriber.")] = 8 * 2**20
    overflow: Annotated[
        Literal["drop_oldest", "drop_newest", "disconnect"],
        Meta(description="What happens when more would have to wait: a message is lost, or the subscription ends."),
    ] = "drop_oldest"
    max_bytes: Annotated[Count, Meta(description="Bytes of one message.")] = 2**20


class ObjectsSettings(Struct, frozen=True, kw_only=True):
    """`[objects.ALIAS]`: a store for files and other objects. Further keys are those of the backend."""

    backend: Annotated[Text, Meta(description="Where objects are kept: the name of a backend.")] = "memory"


BACKED_SECTIONS: dict[str, tuple[str, type[Struct]]] = {
    "sessions": ("store", SessionsSettings),
    "cache": ("backend", CacheSettings),
    "pubsub": ("backend", PubSubSettings),
    "objects": ("backend", ObjectsSettings),
}
"""The sections whose tables name a backend: the key that names it, and what else every such table may hold."""

SECTIONS: dict[str, type[Struct]] = {
    "app": AppSettings,
    "server": ServerSettings,
    "limits": Limits,
    "logging": LoggingSettings,
}
"""The other sections of the kernel, apart from `[plugins]` and `[storage.ALIAS]`."""
