"""The collection of garbage, held back while much is made that stays: models, and migrations of files.

Python looks through all that was made since again and again, for cycles that nobody refers to any more. Of a thousand
models that is a third of what declaring them takes, and finds nothing.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import click

__all__ = ["set_apart", "without_collection"]


@contextmanager
def without_collection() -> Iterator[None]:
    """A block in which no garbage is collected; afterwards it is as it was before."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def set_apart() -> None:
    """Let nobody look through what is there now until the command ends that is run. Outside of one, nothing happens."""
    context = click.get_current_context(silent=True)
    if context is not None:
        gc.freeze()
        context.call_on_close(gc.unfreeze)
