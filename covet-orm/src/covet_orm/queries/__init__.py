"""Querysets, and how they become SQL: by shape, once."""
