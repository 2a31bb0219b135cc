"""The builtin plugin `static_files`: serves the directories that the settings name.

    [plugins.static_files.directories]
    "/static" = "static"
    "/" = { directory = "public", index = true }

Each is a `covet.static.StaticFiles`, as an application may add them itself. Without any, the plugin adds nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from msgspec import Meta, Struct

from covet.hooks import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from covet.applications import Covet
    from covet.routing import Router

__all__ = ["StaticDirectory", "StaticFilesSettings", "covet_ready", "covet_routes", "covet_settings"]

Text = Annotated[str, Meta(min_length=1)]
CacheControl = Annotated[
    str, Meta(description="`Cache-Control` of files whose name holds no hash; empty for none. By default `no-cache`.")
]


class StaticDirectory(Struct, frozen=True, kw_only=True):
    """A table in `[plugins.static_files.directories]`: how a directory is served."""

    directory: Annotated[Text, Meta(description="Where the files are, relative to the working directory.")]
    build: Annotated[
        str | None,
        Meta(description="Where `covet static build` writes; by default a directory of its own below `build`."),
    ] = None
    index: Annotated[bool, Meta(description="Serve `index.html` for its directory.")] = False
    cache_control: CacheControl = "no-cache"
    immutable: Annotated[
        list[str], Meta(description="Patterns of names that hold a hash already, such as `assets/*`: kept for a year.")
    ] = []
    precompressed: Annotated[
        bool, Meta(description="Send `app.css.gz`, `.zst` or `.br` in place of `app.css` to clients that take it.")
    ] = True
    dotfiles: Annotated[
        list[str], Meta(description="Names that are served although they begin with a dot, such as `.well-known`.")
    ] = []
    name: Annotated[str, Meta(description="The route's name, for `url_for`; by default made of the path.")] = ""


class StaticFilesSettings(Struct, frozen=True, kw_only=True):
    """`[plugins.static_files]`: directories that are served as they are."""

    directories: Annotated[
        dict[str, str | StaticDirectory],
        Meta(description='Directory by path, such as `"/static" = "static"`; a table says more about one.'),
    ] = {}
    build: Annotated[
        Text,
        Meta(description="Where `covet static build` writes, in a directory for each of `directories`."),
    ] = "build/static"

    def __post_init__(self) -> None:
        for path in self.directories:
            if not path.startswith("/") or "{" in path or (path != "/" and path.endswith("/")):
                raise ValueError(
                    f"directories are served at a path without parameters, such as '/static' or '/', not {path!r}"
                )

    def served(self) -> list[tuple[str, StaticDirectory]]:
        """Each path with how its directory is served, everything filled in."""
        found = []
        for path, given in self.directories.items():
            word = path.strip("/").replace("/", ".") or "root"
            table = StaticDirectory(directory=given) if isinstance(given, str) else given
            found.append((path, _filled(table, word, f"{self.build}/{word}")))
        return found


def _filled(table: StaticDirectory, word: str, build: str) -> StaticDirectory:
    from msgspec.structs import replace

    return replace(
        table, name=table.name or f"static_files.{word}", build=build if table.build is None else table.build
    )


@hookimpl
def covet_settings() -> type:
    """Declare `[plugins.static_files]`."""
    return StaticFilesSettings


@hookimpl
def covet_routes(app: Covet) -> Iterable[Router]:
    """A route for every directory."""
    settings: StaticFilesSettings = app.settings[StaticFilesSettings]
    if not settings.directories:
        return ()
    from covet.static import StaticFiles

    return [
        StaticFiles(
            table.directory,
            "" if path == "/" else path,
            build=table.build or None,
            index=table.index,
            cache_control=table.cache_control,
            immutable=table.immutable,
            precompressed=table.precompressed,
            dotfiles=table.dotfiles,
            name=table.name,
        )
        for path, table in settings.served()
    ]


@hookimpl
async def covet_ready(app: Covet) -> None:
    """Look whether what was built is there, of the directories that an application added itself, too.

    Raises:
        StaticFilesError: it is not, which stops the start.
    """
    from covet.routing import Route

    marked = [route.marks for route in app.routes if isinstance(route, Route) and len(route.marks)]
    if not marked:
        return
    from anyio.to_thread import run_sync

    from covet.static import StaticFiles

    for marks in marked:
        files = marks.get(StaticFiles)
        if files is not None:
            await run_sync(files.check)
