"""BlackSheep, with a dataclass as the typed body."""

from __future__ import annotations

from dataclasses import dataclass

from blacksheep import Application, FromJSON, Response, json, text

from benchmarks.payload import ROUTES, ROWS


@dataclass
class User:
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


app = Application(show_error_details=False)


@app.router.get("/")
async def plain() -> Response:
    return text("Hello, World!")


@app.router.get("/json")
async def small() -> Response:
    return json({"message": "Hello, World!"})


@app.router.get("/list")
async def rows() -> Response:
    return json(ROWS)


@app.router.post("/body")
async def body(data: FromJSON[User]) -> Response:
    return json(data.value)


def numbered(number: int) -> None:
    @app.router.get(f"/r{number}/users/:id/posts/:slug")
    async def show(id: int, slug: str) -> Response:
        return json({"id": id, "slug": slug})


for number in range(ROUTES):
    numbered(number)
