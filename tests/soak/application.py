"""An application that uses every builtin plugin; served by the proof `soak`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from covet import Covet, Form, HTMLResponse, Request
from covet.cache import CacheManager, cached
from covet.csp import csp_nonce
from covet.objects import ObjectStore
from covet.pubsub import PubSub
from covet.ratelimit import limited
from covet.sessions import Session
from covet.templating import Templates

HERE = Path(__file__).parent

app = Covet(
    {
        "app": {"name": "soak", "secret_key": "a secret of at least thirty-two bytes"},
        "logging": {"level": "warning"},
        # Those in memory would be known to one of the workers only.
        "sessions": {"store": "cookie"},
        "plugins": {
            "compression": {"requests": True},
            "cors": {"allow_origins": ["https://app.example"], "allow_credentials": True},
            "proxy_headers": {"trusted": ["127.0.0.1"]},
            "rate_limit": {"default": "1000000/second"},
            "request_id": {"response_header": True},
            "security_headers": {"profile": "strict"},
            "static_files": {"directories": {"/static": str(HERE / "static")}},
            "templates": {"directory": str(HERE / "templates")},
            "trusted_hosts": {"allow": ["app.example", "127.0.0.1"]},
        },
    },
    # What else is installed takes no part.
    installed_plugins=[
        "cache", "compression", "cors", "csrf", "health", "objects", "openapi", "proxy_headers", "pubsub", "rate_limit",
        "request_id", "security_headers", "sessions", "static_files", "templates", "trusted_hosts",
    ],
)  # fmt: skip
cache = CacheManager(namespace="soak")


@app.get("/")
async def index() -> str:
    return "hello"


@app.get("/json")
async def small() -> dict[str, str]:
    return {"message": "hello"}


@app.get("/session")
async def session_seen(session: Session) -> dict[str, int]:
    return {"visits": session.get("visits", 0)}


@app.get("/visit")
async def visit(session: Session) -> dict[str, int]:
    return {"visits": session.transform("visits", lambda visits: visits + 1, 0)}


@app.get("/cached")
@cached(1)
async def prices() -> dict[str, list[int]]:
    return {"prices": list(range(1000))}


@app.get("/computed")
async def computed() -> int:
    return int(await cache.get_or_set("squares", squares, 1))


async def squares() -> int:
    return sum(number * number for number in range(1000))


@app.get("/limited")
@limited("1000000/second")
async def rated() -> str:
    return "within the limit"


@app.get("/page")
async def page(request: Request, templates: Templates) -> HTMLResponse:
    return await templates.render("page.html", {"names": ["Ada", "<Grace>"], "nonce": csp_nonce(request)})


@app.get("/large")
async def large() -> dict[str, list[dict[str, object]]]:
    return {"rows": [{"id": number, "name": f"row {number}", "even": number % 2 == 0} for number in range(500)]}


@app.post("/form")
async def form(name: Annotated[str, Form()], amount: Annotated[int, Form()]) -> dict[str, object]:
    return {"name": name, "amount": amount}


@app.get("/published")
async def published(pubsub: PubSub) -> int:
    async with pubsub.subscribe("news") as subscription:
        await pubsub.publish("news", b"1")
        return int((await anext(aiter(subscription))).payload)


@app.get("/object")
async def stored(objects: ObjectStore) -> str:
    await objects.put("greeting", b"hello", content_type="text/plain")
    async with objects.get("greeting") as found:
        return b"".join([chunk async for chunk in found]).decode()
