"""Finding and loading the migrations of applications."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType

from covet_migrate.collection import without_collection
from covet_migrate.exceptions import MigrationError
from covet_migrate.files.bytecode import code_of
from covet_migrate.files.checksums import chained
from covet_migrate.files.graph import Graph
from covet_migrate.files.locations import Location
from covet_migrate.migrations import Key, Migration

__all__ = ["File", "Files", "load_file", "load_files"]


@dataclass(frozen=True, slots=True)
class File:
    """A file with a migration.

    Attributes:
        migration: what it declares.
        path: where it is.
        content: its bytes, of which the migration was made.
    """

    migration: Migration
    path: Path
    content: bytes


@dataclass
class Files:
    """The migrations of all applications, as their files have them.

    Attributes:
        files: those that were loaded, by application and name.
        locations: where those of each application are, or would be.
    """

    files: Mapping[Key, File]
    locations: Mapping[str, Location]
    _graph: Graph | None = field(default=None, repr=False)
    _applied: frozenset[Key] = field(default=frozenset(), repr=False)
    _checksums: Mapping[Key, str] | None = field(default=None, repr=False)

    def graph(self, applied: Collection[Key] = ()) -> Graph:
        """The graph of the migrations. From then on `parents` and `checksum` are about those that count in it.

        Args:
            applied: those that a database has: by these it is decided whether squashed migrations count.

        Raises:
            ConflictingMigrations: there is a circle among them, or squashed ones contradict each other.
            MigrationNotFound: one depends on another that is not there.
        """
        known = frozenset(applied)
        if self._graph is None or known != self._applied:
            places = {key: one.path for key, one in self.files.items()}
            self._graph = Graph([one.migration for one in self.files.values()], known, places)
            self._applied, self._checksums = known, None
        return self._graph

    def order(self, applied: Collection[Key], /) -> Sequence[Migration]:
        """The migrations that count on a database, each after those that it depends on. From then on `parents` and
        `checksum` are about these.

        A squashed one whose parts were all applied replaces what was applied, also where it says that it replaces
        squashed ones that were not.

        Raises:
            ConflictingMigrations, MigrationNotFound: as of `graph`.
        """
        graph = self.graph(applied)
        return [
            replace(one, replaces=graph.completed[key]) if key in graph.completed else one
            for key, one in graph.migrations.items()
        ]

    def parents(self, key: Key, /) -> Iterable[Key]:
        """The migrations that one directly depends on.

        Raises:
            MigrationNotFound: it is not there.
        """
        graph = self.graph(self._applied)
        return graph.parents[graph[key].key]

    def checksum(self, key: Key, /) -> str:
        """The checksum of a file, and of those before it in its application.

        Raises:
            MigrationNotFound: it is not there.
        """
        graph = self.graph(self._applied)
        if self._checksums is None:
            contents = {one: file.content for one, file in self.files.items()}
            self._checksums = chained(graph.migrations, graph.parents, contents)
        return self._checksums[graph[key].key]

    def file(self, key: Key, /) -> str:
        """Where a file is, for messages; its application and name where there is none."""
        return str(self.files[key].path) if key in self.files else ".".join(filter(None, key))


def load_files(locations: Mapping[str, Location]) -> Files:
    """Load the migrations of applications.

    Args:
        locations: where they are, by the label of the application.

    Raises:
        MigrationError: a file cannot be loaded, or is no migration; the message names the file and the line.
    """
    found: dict[Key, File] = {}
    with without_collection():
        for app, location in sorted(locations.items()):
            for path in _migration_files(location.folder):
                file = load_file(path, app, location.package)
                found[file.migration.key] = file
    return Files(found, dict(locations))


def load_file(path: Path, app: str, package: str = "migrations") -> File:
    """Load a migration from its file. It is run, as a module of its package; the package itself is imported only where
    the file asks for it.

    Args:
        path: the file.
        app: the label of the application.
        package: the package that it is in.

    Raises:
        MigrationError: it cannot be loaded, or is no migration; the message names the file and the line.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MigrationError(f"{path}: it cannot be read: {error.strerror or error}") from error
    name = f"{package}.{path.stem}"
    module = ModuleType(name)
    module.__file__ = str(path)
    module.__package__ = package
    # What looks for the module of a class or function finds it; each time a file is loaded, it is the new one.
    sys.modules[name] = module
    try:
        exec(code_of(content, path), module.__dict__)
    except SyntaxError as error:
        sys.modules.pop(name, None)
        at = f"{error.filename or path}, line {error.lineno}" if error.lineno else str(path)
        raise MigrationError(f"{at}: {error.msg}: {(error.text or '').strip()}") from error
    except (Exception, SystemExit) as error:
        sys.modules.pop(name, None)
        raise MigrationError(
            f"{path}{_line(error, path)}: {type(error).__name__}: {error}; the migrations cannot be loaded without it"
        ) from error
    migration = getattr(module, "migration", None)
    if not isinstance(migration, Migration):
        raise MigrationError(_no_migration(path, module))
    if migration.name and (migration.app, migration.name) != (app, path.stem):
        raise MigrationError(
            f"{path}: its migration is that of {migration}, which it imports; it needs one of its own: "
            "migration = Migration(...)"
        )
    migration.app, migration.name = app, path.stem
    return File(migration, path, content)


def _migration_files(folder: Path) -> list[Path]:
    """The files of migrations in a folder, in the order of their names.

    Raises:
        MigrationError: a file has a name that no migration can have.
    """
    if not folder.is_dir():
        return []
    found = sorted(path for path in folder.glob("*.py") if not path.name.startswith(("_", ".")))
    for path in found:
        if not re.fullmatch(r"[A-Za-z0-9_]+", path.stem):
            better = re.sub(r"\W+", "_", path.stem, flags=re.ASCII).strip("_")
            raise MigrationError(
                f"{path}: the name of a migration is of letters of English, digits and underscores; rename the file"
                f"{f' to {better}.py' if better else ''}, or begin its name with an underscore if it is no migration"
            )
    return found


def _line(error: BaseException, path: Path) -> str:
    """The line of a file at which an error came up."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f", line {frames[-1].lineno}" if frames else ""


def _no_migration(path: Path, module: ModuleType) -> str:
    given = getattr(module, "migration", None)
    if given is not None:
        return f"{path}: `migration` is {given!r:.100}, and no Migration(...) of covet_migrate"
    if isinstance(getattr(module, "Migration", None), type) and module.__dict__["Migration"] is not Migration:
        return (
            f"{path}: it declares a class `Migration`, as Django's do; here a file says `migration = Migration(...)`, "
            "with Migration of covet_migrate"
        )
    if hasattr(module, "upgrade") and hasattr(module, "revision"):
        return f"{path}: it is a revision of Alembic; here a file says `migration = Migration(...)`, of covet_migrate"
    return (
        f"{path}: it does not say `migration = Migration(...)`; if it is no migration, begin its name with an "
        "underscore"
    )
