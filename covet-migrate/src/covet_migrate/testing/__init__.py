"""Tests of operations of migrations, for those who write some: the conformance kit, and what it is made of.

It takes pytest and hypothesis: `pip install covet-migrate[testing]`.
"""

from covet_migrate.testing.files import MigrationsInMemory
from covet_migrate.testing.operations import OperationConformance

__all__ = ["MigrationsInMemory", "OperationConformance"]
