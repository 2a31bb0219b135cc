"""Rate limits: how often something may be done, counted by key.

    limiter = TokenBucketLimiter(rate=100, per=60)
    decision = await limiter.acquire("user:7")

    @app.get("/search")
    @limited("10/minute", "200/hour")
    async def search(q: str) -> list[Hit]: ...

A limiter counts in this process, or in a cache backend that several processes share. `limited` and
`limiter.middleware()` apply one to requests, and tell the clients in the headers `RateLimit`, `RateLimit-Policy` and
`Retry-After`.
"""

from __future__ import annotations

from covet.ratelimit.decisions import Decision
from covet.ratelimit.enforcing import Enforced, enforce, limited, make_limiter, unlimited
from covet.ratelimit.events import RateLimitBackendChanged, RequestLimited
from covet.ratelimit.keys import Caller, api_key, client_address, named_key, session, user
from covet.ratelimit.limiters import Limiter
from covet.ratelimit.rates import Rate
from covet.ratelimit.sliding_window import SlidingWindowLimiter
from covet.ratelimit.token_bucket import TokenBucketLimiter

__all__ = [
    "Caller",
    "Decision",
    "Enforced",
    "Limiter",
    "Rate",
    "RateLimitBackendChanged",
    "RequestLimited",
    "SlidingWindowLimiter",
    "TokenBucketLimiter",
    "api_key",
    "client_address",
    "enforce",
    "limited",
    "make_limiter",
    "named_key",
    "session",
    "unlimited",
    "user",
]
