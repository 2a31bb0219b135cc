"""The outbox: messages that are written in a transaction, and delivered after its commit."""

from __future__ import annotations

from covet_orm.outbox.handlers import Handler, Handlers, publish_to
from covet_orm.outbox.messages import Message, OutboxError
from covet_orm.outbox.outbox import DeadLetter, Outbox, TopicStatus
from covet_orm.outbox.worker import OutboxWorker

__all__ = [
    "DeadLetter",
    "Handler",
    "Handlers",
    "Message",
    "Outbox",
    "OutboxError",
    "OutboxWorker",
    "TopicStatus",
    "publish_to",
]
