"""The commands of covet-orm: `covet db`."""
