"""Starlette, with msgspec for the typed body, since it has no typed bodies of its own."""

from __future__ import annotations

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from benchmarks.payload import ROUTES, ROWS, User

decode = msgspec.json.Decoder(User).decode


async def plain(request: Request) -> PlainTextResponse:
    return PlainTextResponse("Hello, World!")


async def small(request: Request) -> JSONResponse:
    return JSONResponse({"message": "Hello, World!"})


async def rows(request: Request) -> JSONResponse:
    return JSONResponse(ROWS)


async def body(request: Request) -> JSONResponse:
    return JSONResponse(msgspec.to_builtins(decode(await request.body())))


async def post(request: Request) -> JSONResponse:
    return JSONResponse({"id": request.path_params["id"], "slug": request.path_params["slug"]})


app = Starlette(
    routes=[
        Route("/", plain),
        Route("/json", small),
        Route("/list", rows),
        Route("/body", body, methods=["POST"]),
        *(Route(f"/r{number}/users/{{id:int}}/posts/{{slug}}", post) for number in range(ROUTES)),
    ]
)
