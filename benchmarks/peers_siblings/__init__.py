"""One class per peer with the same operations on transactions, as its own documentation shows them."""
