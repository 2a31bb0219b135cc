"""The same operations on the same tables, in the raw driver, in each object-relational mapper, and in Covet.

Each module has a class `Peer` that does them as the peer's own users would, with the defaults that they get; what a
peer does not have is told where it is done by hand.
"""
