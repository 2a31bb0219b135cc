"""Renewing secrets while the application runs: those whose provider said when their value expires.

Secrets of one reference are renewed together, by one call of the provider in a worker thread, after about two thirds of
the time that the value is valid. A provider that fails is asked again, at growing intervals; the last good value stays,
since it may well be valid still. No value is ever logged.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from inspect import isawaitable
from typing import TYPE_CHECKING

import anyio

from covet.concurrency import in_thread
from covet.events import Event
from covet.secrets import Secret, SecretError, SecretValue, ask

if TYPE_CHECKING:
    from covet.applications import Covet

__all__ = ["SecretRotated", "rotation"]

logger = logging.getLogger("covet.secrets")

# The share of its time after which a value is renewed, drawn anew each time so that processes do not all ask at once.
EARLIEST, LATEST = 0.60, 0.70
# Seconds between attempts, the first and the longest. No value is renewed more often than the first says.
RETRY, MAX_RETRY = 1.0, 60.0


class SecretRotated(Event, frozen=True, gc=False):
    """A secret has another value.

    Attributes:
        reference: what it is written as in the settings, such as `vault:shop#password`.
    """

    reference: str


@asynccontextmanager
async def rotation(app: Covet) -> AsyncIterator[None]:
    """Renew the application's secrets for as long as the context lasts."""
    by_reference: dict[str, list[Secret]] = {}
    for secret in app.settings.secrets():
        if secret.lease is not None and secret.reference is not None:
            known = by_reference.setdefault(secret.reference, [])
            if not any(secret is each for each in known):
                known.append(secret)
    async with anyio.create_task_group() as group:
        for reference, secrets in by_reference.items():
            group.start_soon(_keep, app, reference, secrets, name=f"renewal of {reference}")
        yield
        group.cancel_scope.cancel()


async def _keep(app: Covet, reference: str, secrets: list[Secret]) -> None:
    """Renew the secrets of one reference, until the provider says that they stay as they are."""
    scheme, _, rest = reference.partition(":")
    failures = 0
    least = 0.0  # at first: the application may have been built long ago
    while (lease := secrets[0].lease) is not None:
        acquired = min(secret.acquired for secret in secrets)
        if failures:
            delay = min(RETRY * 2.0 ** min(failures - 1, 20), MAX_RETRY) * random.uniform(0.5, 1.0)
        else:
            delay = max(acquired + _lifetime(lease) - time.monotonic(), least)
        await anyio.sleep(delay)
        least = RETRY
        try:
            value = await in_thread(ask, app.settings.secret_providers[scheme], scheme, rest)
        except SecretError as error:
            failures += 1
            logger.warning("%s; the value at hand is kept%s", error, _validity(lease, acquired))
            continue
        if failures:
            logger.info("the secret %s could be renewed again, after %d failed attempts", reference, failures)
        failures = 0
        await _take_over(app, reference, secrets, value)


async def _take_over(app: Covet, reference: str, secrets: list[Secret], value: str | SecretValue) -> None:
    changed = [secret for secret in secrets if secret.renew(value)]
    if not changed:
        return
    logger.info("the secret %s has a new value", reference)
    for secret in changed:
        for listener in secret.listeners:
            try:
                answer = listener()
                if isawaitable(answer):
                    await answer
            except Exception as error:  # noqa: BLE001 - its message and its traceback may quote the secret
                name = getattr(listener, "__qualname__", type(listener).__name__)
                logger.error(
                    "%s failed when it was told that the secret %s has changed: %s",
                    name,
                    reference,
                    type(error).__name__,
                )
    if app.listening:
        app.emit(SecretRotated(reference))


def _lifetime(lease: SecretValue) -> float:
    """Seconds until a value is to be renewed."""
    if lease.renew_in is not None:
        return lease.renew_in
    assert lease.expires_in is not None
    return lease.expires_in * random.uniform(EARLIEST, LATEST)


def _validity(lease: SecretValue, acquired: float) -> str:
    if lease.expires_in is None:
        return ""
    left = acquired + lease.expires_in - time.monotonic()
    return f" and valid for {left:.0f} more seconds" if left > 0 else ", though it expired"
