"""Litestar, with the same msgspec Struct as Covet, its OpenAPI document turned off."""

from __future__ import annotations

from litestar import Litestar, MediaType, get, post
from litestar.handlers import HTTPRouteHandler

from benchmarks.payload import ROUTES, ROWS, User


@get("/", media_type=MediaType.TEXT)
async def plain() -> str:
    return "Hello, World!"


@get("/json")
async def small() -> dict[str, str]:
    return {"message": "Hello, World!"}


@get("/list")
async def rows() -> list[dict[str, object]]:
    return ROWS


@post("/body", status_code=200)
async def body(data: User) -> User:
    return data


def numbered(number: int) -> HTTPRouteHandler:
    @get(f"/r{number}/users/{{id:int}}/posts/{{slug:str}}")
    async def show(id: int, slug: str) -> dict[str, object]:
        return {"id": id, "slug": slug}

    return show


app = Litestar([plain, small, rows, body, *map(numbered, range(ROUTES))], openapi_config=None)
