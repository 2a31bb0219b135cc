"""What is installed here? A browser for the distributions of the environment that the application runs in.

`covet run` in this folder serves it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

import anyio
import msgspec
from covet import Covet, Depends, FileResponse, HTMLResponse, HTTPError, Query, RedirectResponse, Router
from msgspec import Meta

from catalogue import Catalogue, Package, UnknownPackageError, read
from pages import Pages

logger = logging.getLogger("packages")

STYLE = Path(__file__).parent / "static" / "style.css"
PAGE_SIZE = 25

app = Covet()
api = Router("/api", tags=["packages"])

SearchText = Annotated[
    str, Meta(max_length=200), Query(description="Words that all have to occur in name, keywords or summary.")
]
Limit = Annotated[int, Meta(ge=1, le=100), Query(description="How many to return at most.")]
Offset = Annotated[int, Meta(ge=0, le=1_000_000), Query(description="How many of the first ones to leave out.")]


# Starting


@app.lifespan
async def open_catalogue(app: Covet) -> AsyncIterator[None]:
    """Read the environment once, in a worker thread: hundreds of files take their time."""
    began = time.perf_counter()
    catalogue = await anyio.to_thread.run_sync(read)
    app.state[Catalogue] = catalogue
    app.state[Pages] = Pages(app.url_for, links(app))
    logger.info("read the metadata of %d distributions in %.2f s", len(catalogue), time.perf_counter() - began)
    for complaint in catalogue.unreadable:
        logger.warning("left out: %s", complaint)
    yield


def links(app: Covet) -> list[tuple[str, str]]:
    """What the pages link to at their foot. Two of them come from plugins, and are there if those are."""
    wanted = [("JSON API", "/api/packages"), ("API documentation", "/docs"), ("Timing", "/timing")]
    there = {route.path for route in app.routes}
    return [(label, path) for label, path in wanted if path in there]


app.provide(Catalogue, Depends(lambda: app.state[Catalogue], thread=False))
app.provide(Pages, Depends(lambda: app.state[Pages], thread=False))


# Pages


@app.get("/", in_schema=False)
async def home(
    catalogue: Catalogue,
    pages: Pages,
    query: SearchText = "",
    page: Annotated[int, Meta(ge=1, le=10_000)] = 1,
) -> HTMLResponse:
    """Search."""
    return HTMLResponse(pages.home(catalogue, query, page, PAGE_SIZE))


@app.get("/packages/{name}", name="package", in_schema=False)
async def show_package(name: str, catalogue: Catalogue, pages: Pages) -> HTMLResponse | RedirectResponse:
    """Show a package. Each has one address: other spellings of its name are redirected there."""
    try:
        package = catalogue.get(name)
    except UnknownPackageError as error:
        return HTMLResponse(pages.unknown(catalogue, name, error), 404)
    if name != package.canonical:
        return RedirectResponse(app.url_for("package", name=package.canonical), 308)
    return HTMLResponse(pages.package(catalogue, package))


@app.get("/static/style.css", name="style", in_schema=False)
async def style() -> FileResponse:
    """Send the style sheet."""
    return FileResponse(STYLE)


# The JSON API


class Found(msgspec.Struct):
    """A package in a listing; `url` is where the rest is."""

    name: str
    version: str
    summary: str
    url: str


class Listing(msgspec.Struct):
    """One page of what was found; `total` is how many there are on all pages, `next` the address of the next one."""

    total: int
    items: list[Found]
    next: str | None = None


@api.get("/packages", name="api_packages")
async def list_packages(catalogue: Catalogue, query: SearchText = "", limit: Limit = 20, offset: Offset = 0) -> Listing:
    """Search the installed packages.

    The best match comes first; without a query, all are listed by name.
    """
    found = catalogue.search(query)
    items = [
        Found(each.name, each.version, each.summary, app.url_for("api_package", name=each.canonical))
        for each in found[offset : offset + limit]
    ]
    following = None
    if offset + limit < len(found):
        following = next_page(query, limit, offset + limit)
    return Listing(len(found), items, following)


def next_page(query: str, limit: int, offset: int) -> str:
    """The address of a page of the listing."""
    from urllib.parse import urlencode

    return f"{app.url_for('api_packages')}?{urlencode({'query': query, 'limit': limit, 'offset': offset})}"


@api.get(
    "/packages/{name}", name="api_package", responses={404: "No such package is installed; `near` has names like it."}
)
async def get_package(name: str, catalogue: Catalogue) -> Package:
    """Tell everything that is known of a package, whichever way its name is spelled."""
    try:
        return catalogue.get(name)
    except UnknownPackageError as error:
        raise HTTPError(404, str(error), title="Unknown package", near=error.near) from error


app.include(api)
