"""The conformance kit of storages: what the kernel asks of every one, whatever database it is.

class TestShelf(StorageConformance):
    password = "s3cret"

    @pytest.fixture
    def storage(self, server):
        return ShelfStorage("default", ShelfSettings(url=f"shelf://me:{self.password}@{server}/db"))

    @pytest.fixture
    def unreachable(self):
        return ShelfStorage("default", ShelfSettings(url=f"shelf://me:{self.password}@127.0.0.1:1/db"))
"""

from __future__ import annotations

import os
import traceback

import anyio
import anyio.lowlevel
import pytest

from covet.storage import Storage
from covet.testing.conformance.faults import at_every_await
from covet.testing.conformance.kits import ConformanceKit

__all__ = ["StorageConformance"]


class StorageConformance(ConformanceKit):
    """The promises of a storage. A subclass overrides `storage`, and `unreachable` if there can be one.

    Attributes:
        password: what must not be shown; empty where the storage has none.
        patience: seconds within which opening, closing and checking end, also where nothing answers.
    """

    password = ""
    patience = 30.0

    @pytest.fixture
    def storage(self) -> Storage:
        """A storage that is not open. Override it."""
        raise pytest.UsageError("override the fixture `storage` to give the storage that is tested")

    @pytest.fixture
    def unreachable(self) -> Storage | None:
        """A storage that cannot be opened; None where there is no such thing."""
        return None

    def resources(self) -> int:
        """How many things of the operating system this process holds: its open files. Override it for more."""
        return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

    async def test_it_says_what_it_is(self, storage: Storage) -> None:
        """Promise: it has alias, kind and url, and shows its password nowhere."""
        assert isinstance(storage, Storage)
        for value in (storage.alias, storage.kind, storage.url):
            assert isinstance(value, str)
            assert value
        assert storage.kind == storage.kind.lower()
        self.shows_no_password(storage.url, repr(storage), str(storage))

    async def test_it_opens_checks_and_closes(self, storage: Storage) -> None:
        """Promise: when `open` has returned it can be used; when `close` has, nothing of it is left."""
        before = self.resources()
        with anyio.fail_after(self.patience):
            await storage.open()
            await storage.check()
            await storage.check()
            await storage.close()
        assert self.resources() <= before, "something is still open"

    async def test_it_opens_again(self, storage: Storage) -> None:
        """Promise: an application may run several times, one after the other."""
        with anyio.fail_after(self.patience):
            for _ in range(3):
                await storage.open()
                await storage.check()
                await storage.close()

    async def test_a_check_fails_where_it_cannot_be_used(self, storage: Storage) -> None:
        """Promise: `check` raises when the storage is not open yet, or no longer."""
        with anyio.fail_after(self.patience):
            await self.check_fails(storage)
            await storage.open()
            await storage.close()
            await self.check_fails(storage)

    async def test_checks_at_once(self, storage: Storage) -> None:
        """Promise: it may be checked by several tasks at once."""
        with anyio.fail_after(self.patience):
            await storage.open()
            try:
                async with anyio.create_task_group() as group:
                    for _ in range(20):
                        group.start_soon(storage.check)
            finally:
                await storage.close()

    async def test_cancelled_while_it_opens(self, storage: Storage) -> None:
        """Promise: `open`, cancelled at any await, leaves nothing open, and can be tried again."""
        opened = False

        async def open_() -> None:
            nonlocal opened
            await storage.open()
            opened = True

        async def check() -> None:
            nonlocal opened
            if opened:
                await storage.close()
            opened = False
            assert self.resources() <= before, "something is still open"

        with anyio.fail_after(self.patience):
            await storage.open()
            await storage.close()
            before = self.resources()
            await at_every_await(open_, check)

    async def test_cancelled_while_it_is_checked(self, storage: Storage) -> None:
        """Promise: `check`, cancelled at any await, leaves the storage as it was."""
        with anyio.fail_after(self.patience):
            await storage.open()
            try:
                await at_every_await(storage.check, storage.check)
            finally:
                await storage.close()

    async def test_it_closes_in_spite_of_cancellation(self, storage: Storage) -> None:
        """Promise: a check that is under way does not keep it from closing."""
        with anyio.fail_after(self.patience):
            before = self.resources()
            await storage.open()
            async with anyio.create_task_group() as group:
                for _ in range(5):
                    group.start_soon(storage.check)
                await anyio.lowlevel.checkpoint()
                group.cancel_scope.cancel()
            await storage.close()
        assert self.resources() <= before, "something is still open"

    async def test_one_that_cannot_be_reached(self, unreachable: Storage | None) -> None:
        """Promise: `open` fails in time, says nothing of the password, and leaves nothing open."""
        if unreachable is None:
            pytest.skip("no storage that cannot be reached was given")
        before = self.resources()
        with anyio.fail_after(self.patience):
            try:
                await unreachable.open()
            except TimeoutError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it says
                self.shows_no_password("".join(traceback.format_exception(error)))
            else:
                raise AssertionError("it opened, and there is nothing to open")
        assert self.resources() <= before, "something is still open"

    async def check_fails(self, storage: Storage) -> None:
        """Make sure that a check raises."""
        try:
            await storage.check()
        except TimeoutError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it says
            self.shows_no_password(str(error))
        else:
            raise AssertionError("the check succeeded, and the storage is not open")

    def shows_no_password(self, *texts: str) -> None:
        """Make sure that no text holds the password."""
        assert not self.password or not any(self.password in text for text in texts), "the password is shown"
