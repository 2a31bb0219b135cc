"""Pages made of Jinja templates; what those of paths are is `covet.templates`.

    async def show(templates: Templates) -> Response:
        return await templates.render("page.html", {"title": "Hello"})

Takes the extra: `pip install "covet-core[templates]"`. Jinja is imported when the first template is needed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from anyio.to_thread import run_sync

from covet.context import current_app, current_request
from covet.exceptions import ConfigurationError, CovetError
from covet.requests import Request
from covet.responses import HeaderSource, HTMLResponse, Response
from covet.settings_schema import nearest
from covet.streaming import StreamingResponse

if TYPE_CHECKING:
    import jinja2

    from covet.applications import Covet

__all__ = ["CHUNK", "TemplateError", "TemplateSources", "Templates", "add_templates"]

logger = logging.getLogger("covet.templating")

CHUNK = 8 * 1024
"""Characters that a streamed template gathers before they are sent."""

# What `flush()` writes into a streamed template.
_FLUSH = "\0covet.flush\0"

HTML = "text/html; charset=utf-8"
INSTALL = 'templates take Jinja, which is not installed; type: pip install "covet-core[templates]"'


class TemplateError(CovetError):
    """There is no such template."""


class TemplateSources:
    """Where templates of plugins are, by prefix; in `app.state`. See `add_templates`."""

    def __init__(self) -> None:
        self._directories: dict[str, str] = {}

    def add(self, prefix: str, directory: str) -> None:
        """Take in a directory.

        Raises:
            ConfigurationError: the prefix is taken, or is none.
        """
        if not prefix or "/" in prefix or prefix.startswith("."):
            raise ConfigurationError(f"templates are added under a plain word such as 'shop', not {prefix!r}")
        if prefix in self._directories:
            there = self._directories[prefix]
            raise ConfigurationError(f"templates under {prefix!r} are in {there} already; choose another prefix")
        self._directories[prefix] = directory

    @property
    def directories(self) -> Mapping[str, str]:
        """The directories by prefix."""
        return dict(self._directories)


def add_templates(app: Covet, directory: str | os.PathLike[str], *, prefix: str) -> None:
    """Let an application find the templates of a directory under a prefix; for plugins, in `covet_setup`.

        @covet.hookimpl
        def covet_setup(app):
            add_templates(app, Path(__file__).parent / "templates", prefix="shop")   # "shop/cart.html"

    A template `shop/cart.html` in the application's own directory goes before that.

    Raises:
        ConfigurationError: the prefix is taken, or no plain word.
    """
    sources = app.state.get(TemplateSources)
    if sources is None:
        sources = app.state[TemplateSources] = TemplateSources()
    sources.add(prefix, os.path.abspath(directory))


class Templates:
    """The templates of some directories.

    Everything is escaped for HTML, whatever a template is called; `{% autoescape false %}` or the filter `safe` says
    otherwise. A name that is not there is an error, not an empty text. Templates may await: `{{ load() }}` waits for a
    coroutine. At hand in every one:

    - `request`: the request, or None outside of one;
    - `url_for(name, **values)`: the path of a route, with the path that the application is mounted at;
    - `static_url(name)`: see `covet.static.static_url`;
    - `csrf_token()`: see `covet.csrf.csrf_token`;
    - `csp_nonce()`: see `covet.csp.csp_nonce`;
    - `flush()`: in a template that is streamed, sends what is there; elsewhere nothing.

    Filters, tests and further names go into `environment`, before the first template is rendered.

    Args:
        directories: where templates are looked for, in this order; relative to the working directory.
        reload: look for a change of the file each time; for development.
        strict: whether a name that is not there is an error.
        sources: the templates of plugins, looked for last.
    """

    def __init__(
        self,
        directories: Sequence[str | os.PathLike[str]],
        *,
        reload: bool = False,
        strict: bool = True,
        sources: TemplateSources | None = None,
    ) -> None:
        self.directories = [os.path.abspath(directory) for directory in directories]
        self.reload = reload
        self.strict = strict
        self._sources = sources
        # Those that were loaded with all that they refer to.
        self._loaded: dict[str, jinja2.Template] = {}

    def __repr__(self) -> str:
        return f"<Templates {', '.join(self.directories)}>"

    @cached_property
    def environment(self) -> jinja2.Environment:
        """The Jinja environment.

        Raises:
            ConfigurationError: Jinja is not installed.
        """
        try:
            import jinja2
        except ModuleNotFoundError as error:
            if error.name != "jinja2":
                raise
            raise ConfigurationError(INSTALL) from error
        loaders: list[jinja2.BaseLoader] = [jinja2.FileSystemLoader(self.directories)]
        if self._sources is not None:
            prefixed = {
                prefix: jinja2.FileSystemLoader(directory) for prefix, directory in self._sources.directories.items()
            }
            loaders.append(jinja2.PrefixLoader(prefixed))
        environment = jinja2.Environment(
            loader=jinja2.ChoiceLoader(loaders),
            autoescape=True,
            enable_async=True,
            auto_reload=self.reload,
            undefined=jinja2.StrictUndefined if self.strict else jinja2.Undefined,
            cache_size=-1,
        )
        environment.globals.update(
            url_for=_url_for, static_url=_static_url, csrf_token=_csrf_token, csp_nonce=_csp_nonce, flush=_no_flush
        )
        return environment

    async def render(
        self,
        name: str,
        context: Mapping[str, Any] | None = None,
        *,
        status: int = 200,
        headers: HeaderSource | None = None,
        content_type: str | None = None,
    ) -> Response:
        """The response with a template, rendered as a whole.

        Args:
            name: the path of the template below its directory.
            context: what the template sees, by name.
            status, headers: as for `Response`.
            content_type: `text/html; charset=utf-8` by default.

        Raises:
            TemplateError: there is no such template, or none of those that it includes.
            ConfigurationError: Jinja is not installed.
            Exception: what the template raises; the traceback leads through its lines.

        Cancellation is passed on to what the template awaits.
        """
        text = await self.render_text(name, context)
        if content_type is None:
            return HTMLResponse(text, status, headers)
        return Response(text.encode(), status, headers, content_type)

    async def render_text(self, name: str, context: Mapping[str, Any] | None = None) -> str:
        """A rendered template as text, for a mail for example; raises what `render` raises."""
        template = await self._load(name)
        try:
            return await template.render_async(_context(context))
        except self._not_found as error:
            raise self._missing(str(error.name), name) from error

    async def stream(
        self,
        name: str,
        context: Mapping[str, Any] | None = None,
        *,
        status: int = 200,
        headers: HeaderSource | None = None,
        content_type: str | None = None,
    ) -> StreamingResponse:
        """The response with a template, sent while it is rendered: as soon as there are 8,192 characters, or it calls
        `flush()`.

        What comes before that is rendered here, so that an error there is answered as any other is, and whatever sets
        headers, such as `csp_nonce()`, has to be called there. An error later breaks the connection off, so that no
        client takes the part for the whole, and is logged.

        Args and errors are those of `render`.
        """
        template = await self._load(name)
        pieces = template.generate_async({**_context(context), "flush": _flush})
        stream = _TemplateStream(self, name, pieces)
        await stream.begin()
        return StreamingResponse(stream, status, headers, HTML if content_type is None else content_type)

    # Finding templates

    @cached_property
    def _not_found(self) -> type[jinja2.TemplateNotFound]:
        import jinja2

        return jinja2.TemplateNotFound

    async def _load(self, name: str) -> jinja2.Template:
        template = self._loaded.get(name)
        if template is None:
            template = await run_sync(self._load_in_thread, name)
        return template

    def _load_in_thread(self, name: str) -> jinja2.Template:
        environment = self.environment
        try:
            template = environment.get_template(name)
        except self._not_found as error:
            raise self._missing(str(error.name), name) from error
        if not self.reload:
            self._load_referenced(name, {name})
            self._loaded[name] = template
        return template

    def _load_referenced(self, name: str, seen: set[str]) -> None:
        """Load what a template extends, includes and imports, so that the event loop need not wait for it later."""
        from jinja2.meta import find_referenced_templates

        environment = self.environment
        assert environment.loader is not None
        source, filename, _ = environment.loader.get_source(environment, name)
        for other in find_referenced_templates(environment.parse(source, name, filename)):
            # None: a name that is computed.
            if other is None or other in seen:
                continue
            seen.add(other)
            try:
                environment.get_template(other)
            except self._not_found:
                # It may be one that is only included where it exists; rendering tells.
                continue
            self._load_referenced(other, seen)

    def _missing(self, name: str, wanted_by: str) -> TemplateError:
        known = self.environment.list_templates()
        hint = nearest(name, known) if len(known) <= 1000 else ""
        searched = [
            directory if os.path.isdir(directory) else f"{directory} (which is no directory)"
            for directory in self.directories
        ]
        if self._sources is not None:
            searched += [f"{directory} for {prefix}/" for prefix, directory in self._sources.directories.items()]
        by = "" if name == wanted_by else f", which {wanted_by!r} asks for"
        return TemplateError(f"there is no template {name!r}{by}; searched: {', '.join(searched)}{hint}")


class _TemplateStream:
    """A template that is rendered as it is sent: an asynchronous iterator of texts."""

    def __init__(self, templates: Templates, name: str, pieces: AsyncIterator[str]) -> None:
        self._templates = templates
        self._name = name
        self._pieces: Any = pieces
        self._first: str | None = None

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def begin(self) -> None:
        """Render what is sent first."""
        try:
            self._first = await self._next()
        except self._templates._not_found as error:
            raise self._templates._missing(str(error.name), self._name) from error

    async def __anext__(self) -> str:
        first, self._first = self._first, None
        if first is None:
            try:
                first = await self._next()
            except Exception as error:
                logger.error(
                    "the template %r failed%s in the middle of a stream, which breaks off: %s: %s",
                    self._name, _where(error), type(error).__name__, error, exc_info=error,
                )  # fmt: skip
                raise
        if not first:
            raise StopAsyncIteration
        return first

    async def _next(self) -> str:
        gathered: list[str] = []
        size = 0
        while size < CHUNK:
            try:
                piece = await anext(self._pieces)
            except StopAsyncIteration:
                break
            if piece == _FLUSH:
                if size:
                    break
                continue
            gathered.append(piece)
            size += len(piece)
        # A macro that flushes gives its text as a whole.
        return "".join(gathered).replace(_FLUSH, "")

    async def aclose(self) -> None:
        """End the template where it is."""
        await self._pieces.aclose()


def _where(error: BaseException) -> str:
    """The last line of a template on the way to an error: Jinja puts their files into the traceback."""
    import traceback

    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if "template" in frame.name and not frame.filename.endswith(".py"):
            return f" at {frame.filename}:{frame.lineno}"
    return ""


def _context(given: Mapping[str, Any] | None) -> dict[str, Any]:
    return {"request": current_request(), **(given or {})}


def _url_for(name: str, /, **values: Any) -> str:
    request = current_request()
    root: str = "" if request is None else request.scope.get("root_path", "")
    return root + current_app().url_for(name, **values)


def _static_url(name: str) -> str:
    from covet.static import static_url

    return static_url(name)


def _csrf_token() -> str:
    from covet.csrf import csrf_token

    return csrf_token(_request("csrf_token"))


def _csp_nonce() -> str:
    from covet.csp import csp_nonce

    return csp_nonce(_request("csp_nonce"))


def _request(what: str) -> Request:
    request = current_request()
    if not isinstance(request, Request):
        raise CovetError(f"{what}() belongs to a response, and this template is rendered outside of a request")
    return request


def _no_flush() -> str:
    return ""


def _flush() -> str:
    return _FLUSH
