"""Conformance kits: the tests that make another backend trustworthy.

For each kind of backend there is one pytest class. Who writes a backend subclasses it, gives a fixture that makes one,
and has the same tests that the builtin backends pass.
"""
