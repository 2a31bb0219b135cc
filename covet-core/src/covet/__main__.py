"""`python -m covet` is `covet`."""

from __future__ import annotations

from covet.cli import main

if __name__ == "__main__":
    main()
