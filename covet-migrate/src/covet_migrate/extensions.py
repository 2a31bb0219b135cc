"""What third parties add to migrations, wherever they are installed.

A distribution names modules of it by entry points:

    [project.entry-points."covet_migrate.extensions"]
    geo = "covet_geo.migrations_support"

They are imported before the first migration is linted or written, and before `inspectdb` looks for fields; there they
call

- `covet_migrate.safety.rules.rule` or `register`: a rule of `migrations lint`;
- `covet_migrate.files.values.register`: how values of a type are written into files;
- `covet_migrate.inspection.field_types.register_type`: which field makes a column of a type.

A project's own may stand in any module that the application imports, such as that of its models.
"""

from __future__ import annotations

from importlib.metadata import entry_points

from covet_migrate.exceptions import MigrationError

__all__ = ["GROUP", "load_extensions"]

GROUP = "covet_migrate.extensions"
"""The group of the entry points."""

_loaded: set[str] = set()


def load_extensions() -> None:
    """Import the modules of all entry points of the group, once for each process.

    Raises:
        MigrationError: one cannot be imported; the message says whose it is.
    """
    if GROUP in _loaded:
        return
    # An extension may ask for what asks for extensions.
    _loaded.add(GROUP)
    for one in sorted(entry_points(group=GROUP), key=lambda one: one.name):
        try:
            one.load()
        except Exception as error:
            _loaded.discard(GROUP)
            whose = f" of {one.dist.name} {one.dist.version}" if one.dist is not None else ""
            raise MigrationError(
                f"the extension {one.name!r}{whose} cannot be imported ({one.value}): {type(error).__name__}: {error}. "
                "Mend it, install another version of it, or uninstall it"
            ) from error
