"""Covet with what a new application has: the builtin plugins and the default limits."""

from __future__ import annotations

from benchmarks.payload import ROUTES, ROWS, User
from covet import Covet, Router

routes = Router()


@routes.get("/")
async def plain() -> str:
    return "Hello, World!"


@routes.get("/json")
async def small() -> dict[str, str]:
    return {"message": "Hello, World!"}


@routes.get("/list")
async def rows() -> list[dict[str, object]]:
    return ROWS


@routes.post("/body")
async def body(user: User) -> User:
    return user


async def post(id: int, slug: str) -> dict[str, object]:
    return {"id": id, "slug": slug}


for number in range(ROUTES):
    routes.get(f"/r{number}/users/{{id:int}}/posts/{{slug}}", name=f"post{number}")(post)

app = Covet()
app.include(routes)
