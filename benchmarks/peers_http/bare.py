"""The floor: a hand-written ASGI function with msgspec, without errors, limits or anything else."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from benchmarks.payload import ROWS, User

encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(User).decode
match = re.compile(r"^/r(\d+)/users/(\d+)/posts/([^/]+)$").match
JSON = [(b"content-type", b"application/json")]
TEXT = [(b"content-type", b"text/plain; charset=utf-8")]


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    path = scope["path"]
    headers = JSON
    if path == "/":
        headers, body = TEXT, b"Hello, World!"
    elif path == "/json":
        body = encode({"message": "Hello, World!"})
    elif path == "/body":
        body = encode(decode((await receive())["body"]))
    elif path == "/list":
        body = encode(ROWS)
    else:
        found = match(path)
        body = encode({"id": int(found[2]), "slug": found[3]})
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [*headers, (b"content-length", str(len(body)).encode())],
        }
    )
    await send({"type": "http.response.body", "body": body})
