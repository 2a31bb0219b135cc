"""The builtin plugin `openapi`: the OpenAPI 3.1 document of the application, and a page that shows it to people.

Both are made when they are first asked for, so that an application nobody asks pays nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta, Struct

from covet.hooks import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from covet.applications import Covet
    from covet.routing import Route

__all__ = ["OpenAPISettings", "covet_routes", "covet_settings", "openapi_document"]


class OpenAPISettings(Struct, frozen=True, kw_only=True):
    """`[plugins.openapi]`: the OpenAPI document and the documentation page."""

    path: Annotated[str, Meta(description="Where the document is; empty for nowhere.")] = "/openapi.json"
    docs: Annotated[str, Meta(description="Where the documentation page is; empty for nowhere.")] = "/docs"
    public: Annotated[
        bool,
        Meta(
            description="Whether everybody may see them. Without it they are there in debug mode, and for requests "
            "that come straight from this machine."
        ),
    ] = False
    title: Annotated[str, Meta(description="The title of the API; `[app] name` without one.")] = ""
    version: Annotated[str, Meta(min_length=1, description="The version of the API.")] = "0.1.0"
    description: Annotated[str, Meta(description="What the API is for.")] = ""

    def __post_init__(self) -> None:
        for name, value in (("path", self.path), ("docs", self.docs)):
            if value and (not value.startswith("/") or "{" in value):
                raise ValueError(f"{name} is empty, or a path without parameters such as '/{name}', not {value!r}")


@hookimpl
def covet_settings() -> type:
    """Declare `[plugins.openapi]`."""
    return OpenAPISettings


@hookimpl
def covet_routes(app: Covet) -> Iterable[Route]:
    """Serve the document and the page, where the settings say so."""
    from covet.builtin.openapi.serving import Documentation
    from covet.routing import Route

    settings: OpenAPISettings = app.settings[OpenAPISettings]
    documentation = Documentation(app, settings)
    routes = []
    if settings.path:
        routes.append(Route(settings.path, documentation.serve_document, name="openapi", in_schema=False))
    if settings.docs:
        routes.append(Route(settings.docs, documentation.serve_page, name="openapi.docs", in_schema=False))
    return routes


def openapi_document(app: Covet) -> dict[str, Any]:
    """The OpenAPI document of an application, made anew: to write it to a file, or to test it.

    Raises:
        ConfigurationError: the application cannot be built.
        PluginError: a plugin's `covet_openapi` failed.
        CovetError: a type has no schema.
    """
    from covet.builtin.openapi.document import make_document

    app.build()
    settings = app.settings.instances.get(OpenAPISettings) or OpenAPISettings()
    return make_document(app, settings)
