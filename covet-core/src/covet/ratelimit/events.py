"""What rate limits tell those who listen: see the hook `covet_event`."""

from __future__ import annotations

from covet.events import Event

__all__ = ["RateLimitBackendChanged", "RequestLimited"]


class RequestLimited(Event, frozen=True, gc=False):
    """A limit refused a request.

    Attributes:
        policy: the limit's name.
        route: the template of the request's route; empty where no route answers.
        cost: what it would have counted for.
        retry_after: seconds after which it would be allowed.
        request_id: its id.
    """

    policy: str
    route: str
    cost: int
    retry_after: float
    request_id: str


class RateLimitBackendChanged(Event, frozen=True, gc=False):
    """The backend of a rate limit can be reached no more, or again.

    Attributes:
        policy: the limit's name.
        reachable: whether it can.
        error: the class name of what it raised; empty when it can be reached.
        on_failure: what is done meanwhile.
    """

    policy: str
    reachable: bool
    error: str
    on_failure: str
