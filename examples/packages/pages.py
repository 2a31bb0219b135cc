"""The pages, as HTML. Jinja escapes every value that goes into one: what is installed here was written by strangers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from catalogue import Catalogue, Package, UnknownPackageError

__all__ = ["Pages"]

FOLDER = Path(__file__).parent / "templates"


class Pages:
    """Renders pages.

    Args:
        url_for: makes the path of a route: `Covet.url_for`.
        links: what every page links to at its foot: label and path.
    """

    def __init__(self, url_for: Callable[..., str], links: Sequence[tuple[str, str]]) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(FOLDER),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals.update(url_for=url_for, links=links)

    def home(self, catalogue: Catalogue, query: str, page: int, size: int) -> str:
        """The search, with one page of what it found."""
        found = catalogue.search(query)
        return self._render(
            "home.html",
            catalogue=catalogue,
            query=query,
            found=found[(page - 1) * size : page * size],
            total=len(found),
            page=page,
            pages=max(1, -(-len(found) // size)),
            most_required=catalogue.most_required(8) if page == 1 and not query.strip() else [],
        )

    def package(self, catalogue: Catalogue, package: Package) -> str:
        """A package, with links to what it requires and what requires it."""
        always = [each for each in package.requires if each.applies and not each.extra]
        extras: dict[str, list[Any]] = {}
        for each in package.requires:
            if each.extra:
                extras.setdefault(each.extra, []).append(each)
        return self._render(
            "package.html",
            query="",
            package=package,
            catalogue=catalogue,
            always=always,
            extras=extras,
            elsewhere=[each for each in package.requires if not each.applies],
            description=catalogue.descriptions.get(package.canonical, ""),
        )

    def unknown(self, catalogue: Catalogue, name: str, error: UnknownPackageError) -> str:
        """There is no such package; perhaps one of these was meant."""
        near = [catalogue.packages[each] for each in error.near]
        return self._render("unknown.html", query=name, message=str(error), near=near)

    def _render(self, template: str, **values: Any) -> str:
        return self._environment.get_template(template).render(values)
