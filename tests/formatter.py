"""The formatter of the project, for what writes source."""

from __future__ import annotations

import sysconfig
from pathlib import Path

__all__ = ["RUFF"]

RUFF = str(Path(sysconfig.get_path("scripts"), "ruff"))
"""The program, of the environment that the tests run in."""
