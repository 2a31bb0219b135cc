"""Distributions that exist for a test alone: their metadata and modules, written into a directory.

    site = Site(tmp_path)
    site.add("acme-hello", plugins={"hello": "acme_hello"}, modules={"acme_hello": "..."})
    with site.importable():
        ...                       # importlib.metadata finds it, `import acme_hello` works
    site.python("-m", "covet", "plugins", "list")       # the same in a process of its own

Nothing is installed, so a test may have two hundred of them, broken ones too, in any order on `sys.path`.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from textwrap import dedent
from typing import Any

__all__ = ["Site", "isolated_path"]


class Site:
    """A directory of distributions, as `site-packages` is one.

    Args:
        path: the directory; made when it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.modules: set[str] = set()
        path.mkdir(parents=True, exist_ok=True)

    def add(
        self,
        distribution: str,
        *,
        version: str = "1.0",
        plugins: Mapping[str, str] | None = None,
        commands: Mapping[str, str] | None = None,
        requires: Sequence[str] = (),
        modules: Mapping[str, str] | None = None,
        summary: str = "",
        metadata: str | bytes | None = None,
        entry_points: str | bytes | None = None,
    ) -> Path:
        """Write a distribution: `NAME-VERSION.dist-info/{METADATA,entry_points.txt}` and its modules.

        Args:
            plugins, commands: entry points of the groups `covet.plugins` and `covet.commands`, name to object.
            requires: lines of `Requires-Dist`.
            modules: dotted module name to source; the source is dedented.
            metadata, entry_points: the files' whole contents, to have broken ones.

        Returns:
            The path of the `.dist-info` directory.
        """
        info = self.path / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {distribution}", f"Version: {version}"]
        lines += [f"Summary: {summary}"] if summary else []
        lines += [f"Requires-Dist: {requirement}" for requirement in requires]
        _write(info / "METADATA", "\n".join(lines) + "\n" if metadata is None else metadata)
        if entry_points is None:
            entry_points = "".join(
                f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in (names or {}).items())
                for group, names in (("covet.plugins", plugins), ("covet.commands", commands))
                if names
            )
        _write(info / "entry_points.txt", entry_points)
        for name, source in (modules or {}).items():
            self.write_module(name, source)
        return info

    def write_module(self, name: str, source: str) -> Path:
        """Write a module, with the packages around it."""
        *packages, last = name.split(".")
        folder = self.path
        for package in packages:
            folder /= package
            folder.mkdir(exist_ok=True)
            (folder / "__init__.py").touch()
        path = folder / f"{last}.py"
        path.write_text(dedent(source), encoding="utf-8")
        self.modules.add(name)
        return path

    @contextmanager
    def importable(self) -> Iterator[None]:
        """Put the directory in front of `sys.path`; afterwards its modules are forgotten."""
        sys.path.insert(0, str(self.path))
        importlib.invalidate_caches()
        before = set(sys.modules)
        try:
            yield
        finally:
            sys.path.remove(str(self.path))
            tops = {name.partition(".")[0] for name in self.modules}
            for name in set(sys.modules) - before:
                if name.partition(".")[0] in tops:
                    del sys.modules[name]
            importlib.invalidate_caches()

    def python(
        self,
        *arguments: str,
        cwd: Path | None = None,
        environ: Mapping[str, str] | None = None,
        timeout: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """Run the Python of the tests with this directory on its path, in a process of its own.

        Args:
            cwd: its working directory; the parent of this one by default, so that no settings file is picked up.
            environ: variables beside those of the tests' process; none of these that begin with `COVET_` is kept.
            timeout: seconds.
        """
        kept = {name: value for name, value in os.environ.items() if not name.startswith("COVET_")}
        paths = [str(self.path), *filter(None, [kept.get("PYTHONPATH")])]
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=cwd or self.path.parent,
            env={**kept, "PYTHONPATH": os.pathsep.join(paths), **(environ or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )


class _Modules:
    """Finds the modules of these directories and none of their distributions."""

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return PathFinder.find_spec(name, self.paths if path is None else path, target)

    def invalidate_caches(self) -> None: ...


@contextmanager
def isolated_path(*sites: Site) -> Iterator[None]:
    """Let `importlib.metadata` see the distributions of these sites alone, in this order.

    Every module that could be imported still can be.
    """
    before = list(sys.path)
    modules = set(sys.modules)
    finder: Any = _Modules(before)
    sys.path[:] = [str(site.path) for site in sites]
    sys.meta_path.append(finder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before
        sys.meta_path.remove(finder)
        tops = {name.partition(".")[0] for site in sites for name in site.modules}
        for name in set(sys.modules) - modules:
            if name.partition(".")[0] in tops:
                del sys.modules[name]
        importlib.invalidate_caches()


def _write(path: Path, content: str | bytes) -> None:
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
