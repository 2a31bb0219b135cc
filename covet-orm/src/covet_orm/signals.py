"""Signals: what is told before and after an object is saved or deleted, and when a many-to-many relation changes.

    @receiver(post_save, sender=User)
    async def welcome(sender, instance, created, **more):
        if created:
            await send_mail(instance.email)

Receivers are functions or coroutine functions. They run one after another in the order in which they were connected, in
the task and the transaction of whoever saves; an error of one goes to the caller, and those after it are not called.
Nothing is built for a signal to which nobody listens. Statements that change many rows at once (`update`,
`bulk_create`, `bulk_update`) send none.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar
from weakref import WeakMethod, ref

__all__ = [
    "Receiver",
    "Signal",
    "m2m_changed",
    "post_delete",
    "post_save",
    "pre_delete",
    "pre_save",
    "receiver",
]

Receiver = Callable[..., Any]
"""Called with keywords, `receiver(sender=..., instance=..., ...)`; what it gives back is awaited if it can
be, and otherwise not looked at."""

R = TypeVar("R", bound=Receiver)


class Connected(NamedTuple):
    """A receiver of a signal.

    Attributes:
        sender: whose signals it wants; None for everybody's.
        find: gives the receiver, None when it is gone.
    """

    sender: type[Any] | None
    find: Callable[[], Receiver | None]


class Signal:
    """Something that may be listened to.

    Args:
        name: for messages.

    Attributes:
        name: its name.
        receivers: who is connected; empty when nobody listens.
    """

    __slots__ = ("name", "receivers")

    def __init__(self, name: str) -> None:
        self.name = name
        self.receivers: tuple[Connected, ...] = ()

    def connect(self, receiver: R, sender: type[Any] | None = None, *, weak: bool = True) -> R:
        """Call a receiver from now on. One that is connected already for the same sender stays where it is.

        Args:
            receiver: a function or coroutine function that takes keywords: those it wants to know, and `**more`.
            sender: the model whose signals it wants, itself and not those derived from it; None for all.
            weak: whether it is forgotten when nothing else refers to it, as a lambda or a nested function; a bound
            method
                goes with its object.

        Returns:
            The receiver.

        Raises:
            TypeError: it cannot be called.
        """
        if not callable(receiver):
            raise TypeError(f"{self.name}.connect({receiver!r}): a receiver is called, and this cannot be")
        if any(one.sender is sender and one.find() == receiver for one in self.receivers):
            return receiver
        find: Callable[[], Receiver | None]
        function: Any = receiver
        if not weak:
            find = _always(receiver)
        elif inspect.ismethod(function):
            find = WeakMethod(function, self._forget)
        else:
            find = ref(function, self._forget)
        self.receivers = (*self.receivers, Connected(sender, find))
        return receiver

    def disconnect(self, receiver: Receiver, sender: type[Any] | None = None) -> bool:
        """Call a receiver no more; whether it was connected for that sender."""
        left = tuple(one for one in self.receivers if not (one.sender is sender and one.find() == receiver))
        found = len(left) < len(self.receivers)
        self.receivers = left
        return found

    def listened(self, sender: type[Any]) -> bool:
        """Whether anybody wants the signals of a model."""
        return any(one.sender is None or one.sender is sender for one in self.receivers)

    async def send(self, sender: type[Any], **values: Any) -> None:
        """Call those who listen to a sender, in order, and await those that can be awaited.

        Those that are connected meanwhile are not called. Cancelled, the receiver that runs is cancelled, and those
        after it are not called.

        Raises:
            Exception: whatever a receiver raises.
        """
        for one in self.receivers:
            if one.sender is None or one.sender is sender:
                found = one.find()
                if found is not None:
                    told = found(sender=sender, **values)
                    if inspect.isawaitable(told):
                        await told

    def _forget(self, gone: Any) -> None:
        self.receivers = tuple(one for one in self.receivers if one.find is not gone)

    def __repr__(self) -> str:
        return f"<Signal {self.name}: {len(self.receivers)} receivers>"


def receiver(
    signals: Signal | Iterable[Signal], *, sender: type[Any] | None = None, weak: bool = True
) -> Callable[[R], R]:
    """Connect the function below: `@receiver(post_save, sender=User)`; arguments as those of `Signal.connect`."""
    together = (signals,) if isinstance(signals, Signal) else tuple(signals)

    def connect(function: R) -> R:
        for signal in together:
            signal.connect(function, sender, weak=weak)
        return function

    return connect


def _always(receiver: Receiver) -> Callable[[], Receiver]:
    return lambda: receiver


pre_save = Signal("pre_save")
"""Before an object is saved: `instance`, `created`, `update_fields` (names, or None), `using` (the database). What the
receiver changes of the object is saved as well."""

post_save = Signal("post_save")
"""After an object was saved, with what `pre_save` has. Outside of a transaction the row is written for good by then,
whatever a receiver raises."""

pre_delete = Signal("pre_delete")
"""Before an object is deleted, those that are deleted with it included: `instance`, `origin` (what `delete` was called
on), `using`."""

post_delete = Signal("post_delete")
"""After an object was deleted, in the same transaction, with what `pre_delete` has."""

m2m_changed = Signal("m2m_changed")
"""A many-to-many relation changes; the sender is the model between the two. `instance` is the object whose manager is
used, `model` the model on the other side, `pk_set` the keys there (None for all), `reverse` whether it is the side
that does not declare the field, `using` the database, and `action` one of `pre_add`, `post_add`, `pre_remove`,
`post_remove`, `pre_clear`, `post_clear`."""
