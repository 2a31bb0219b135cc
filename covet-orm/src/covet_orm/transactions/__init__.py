"""Transactions: blocks whose statements happen all or not at all, and what goes with them."""
