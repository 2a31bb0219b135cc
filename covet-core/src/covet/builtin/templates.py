"""The builtin plugin `templates`: gives handlers that ask for `covet.templating.Templates` the application's.

Jinja is imported when a handler asks; an application that has none of these needs no Jinja.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta, Struct

from covet.hooks import hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from covet.applications import Covet

__all__ = ["TemplatesSettings", "covet_dependencies", "covet_settings", "covet_setup"]


class TemplatesSettings(Struct, frozen=True, kw_only=True):
    """`[plugins.templates]`: pages made of Jinja templates."""

    directory: Annotated[
        str, Meta(min_length=1, description="Where the templates are, relative to the working directory.")
    ] = "templates"
    strict: Annotated[
        bool, Meta(description="A name that a template uses and nobody gave is an error, not an empty text.")
    ] = True


@hookimpl
def covet_settings() -> type:
    """Declare `[plugins.templates]`."""
    return TemplatesSettings


@hookimpl(tryfirst=True)
def covet_setup(app: Covet) -> None:
    """Have the templates in `app.state`, where code outside of handlers finds them."""
    from covet.templating import Templates, TemplateSources

    settings = app.settings[TemplatesSettings]
    sources = app.state.get(TemplateSources)
    if sources is None:
        # The same that `add_templates` of later plugins adds to: the environment is made after all were set up.
        sources = app.state[TemplateSources] = TemplateSources()
    app.state[Templates] = Templates([settings.directory], reload=app.debug, strict=settings.strict, sources=sources)


@hookimpl
def covet_dependencies(app: Covet) -> Mapping[type, Any]:
    """The templates, for handlers that ask for them. Without Jinja, such an application does not start."""
    from covet.parameters import Depends
    from covet.templating import Templates

    def templates() -> Templates:
        found = app.state[Templates]
        # The import, and the error when there is nothing to import, belong to the start.
        assert found.environment is not None
        return found

    return {Templates: Depends(templates, scope="app")}
