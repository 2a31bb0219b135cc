"""Falcon's ASGI application, with msgspec for the typed body, since it has no typed bodies of its own."""

from __future__ import annotations

import falcon.asgi
import msgspec

from benchmarks.payload import ROUTES, ROWS, User

decode = msgspec.json.Decoder(User).decode


class Plain:
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        resp.content_type = "text/plain"
        resp.text = "Hello, World!"


class Small:
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        resp.media = {"message": "Hello, World!"}


class Rows:
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        resp.media = ROWS


class Body:
    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        resp.media = msgspec.to_builtins(decode(await req.stream.read()))


class Post:
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, id: int, slug: str) -> None:
        resp.media = {"id": id, "slug": slug}


app = falcon.asgi.App()
app.add_route("/", Plain())
app.add_route("/json", Small())
app.add_route("/list", Rows())
app.add_route("/body", Body())
for number in range(ROUTES):
    app.add_route(f"/r{number}/users/{{id:int}}/posts/{{slug}}", Post())
