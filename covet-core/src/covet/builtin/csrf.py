"""The builtin plugin `csrf`: routes that change something refuse what pages of other sites send.

It stands before those routes alone that such a page can reach, and costs the others nothing. What is checked and how is
told in `covet.csrf`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta, Struct

from covet.hooks import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from covet.applications import Covet
    from covet.requests import Request
    from covet.routing import Route

__all__ = ["CSRFSettings", "covet_route_guards", "covet_settings", "covet_setup"]


class CSRFSettings(Struct, frozen=True, kw_only=True):
    """`[plugins.csrf]`: who may send requests that change something."""

    allowed_origins: Annotated[
        tuple[str, ...],
        Meta(
            description="Origins whose pages may send requests that change something, beside the application's own, "
            "such as `https://app.example.com` or `https://*.example.com`."
        ),
    ] = ()
    strict: Annotated[
        bool,
        Meta(
            description="Whether a client that does not say where a request comes from, and sends no `Authorization: "
            "Bearer`, needs a token even without cookies. For applications that know their users by the address, by a "
            "client certificate, or by Basic authentication, which old browsers send along by themselves."
        ),
    ] = False
    cookie: Annotated[
        str,
        Meta(
            description="The cookie that tokens are bound to. Without one `__Host-csrf`, which no subdomain can set; "
            "in debug mode `csrf`, which works over http."
        ),
    ] = ""

    def __post_init__(self) -> None:
        from covet.origins import Origins
        from covet.responses import Response

        if "null" in Origins(self.allowed_origins):
            raise ValueError(
                "allowed_origins holds '*' or 'null', which every site can come from; disable the plugin, or mark the "
                "routes that are meant with @csrf_exempt"
            )
        if self.cookie:
            Response().set_cookie(self.cookie)


@hookimpl
def covet_settings() -> type:
    """The settings: further origins, and how strict to be."""
    return CSRFSettings


@hookimpl
def covet_setup(app: Covet) -> None:
    """Attach what checks requests, for the guards and for `csrf_token`."""
    from covet.csrf import CSRFProtection

    settings = app.settings[CSRFSettings]
    app.state[CSRFProtection] = CSRFProtection(
        app, settings.allowed_origins, strict=settings.strict, cookie=settings.cookie
    )


@hookimpl
def covet_route_guards(app: Covet, route: Route) -> Iterable[Callable[[Request], Any]]:
    """What stands before a route; nothing where nothing can be forged."""
    from covet.csrf import CSRFProtection

    return app.state[CSRFProtection].guards(route)
