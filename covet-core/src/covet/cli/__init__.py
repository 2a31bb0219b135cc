"""The command line: `covet`, `python -m covet` and a project's `python manage.py` are the same.

Nothing heavy is imported before a command needs it: `covet --help` costs click and the look at the entry points.
Commands of plugins are entry points of the group `covet.commands`; the names below are what they may rely on, beside
click's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from covet.cli.reporting import Failure as Failure
    from covet.cli.reporting import print_json as print_json
    from covet.cli.reporting import print_table as print_table
    from covet.cli.targets import load_application as load_application

__all__ = ["Failure", "load_application", "main", "print_json", "print_table"]

_HOMES = {
    "Failure": "covet.cli.reporting",
    "load_application": "covet.cli.targets",
    "print_json": "covet.cli.reporting",
    "print_table": "covet.cli.reporting",
}


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: with 0 when all went well, 1 on a failure or a finding, 2 on wrong usage.

    Args:
        arguments: what follows the program's name; those of the process by default.

    Raises:
        SystemExit: always.
    """
    import atexit
    import gc

    from covet.cli.groups import make_root

    # The interpreter would look through all that is there for garbage, twice, before it gives it back as a whole. Of an
    # application of a thousand models that is a fifth of the time of a short command.
    atexit.register(gc.freeze)
    make_root().main(args=None if arguments is None else list(arguments), prog_name="covet")
    raise AssertionError("unreachable: click exits")


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'covet.cli' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(home), name)
