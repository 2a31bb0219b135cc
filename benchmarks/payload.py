"""What every peer answers with and is sent."""

from __future__ import annotations

import json

import msgspec


class User(msgspec.Struct):
    """The typed body of ten fields."""

    id: int
    name: str
    email: str
    age: int
    active: bool
    score: float
    tags: list[str]
    city: str
    zip: str
    note: str


BODY = json.dumps(
    {
        "id": 7,
        "name": "Ada",
        "email": "ada@example.com",
        "age": 36,
        "active": True,
        "score": 9.5,
        "tags": ["a", "b"],
        "city": "London",
        "zip": "N1",
        "note": "x" * 40,
    }
).encode()
ROWS = [{"id": i, "name": f"user{i}", "email": f"user{i}@example.com", "active": i % 2 == 0} for i in range(100)]
ROUTES = 300
