"""The commands: `covet makemigrations`, `covet migrate` and the others."""
