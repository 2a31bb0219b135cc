"""What is there in a database: its schema as plain values, how that differs from what migrations say, and the models
that would make it.

What needs a driver is in the modules: `connections`, `schema`, `shadow`, `models`, `others`.
"""
