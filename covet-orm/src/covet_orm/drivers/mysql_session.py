"""The session of aiomysql, closer to the protocol than its cursors are, and stricter.

Its cursors ask for the server's warnings after each statement that has some, and escape the values of parameters by
rules of their own; neither is wanted here. The connection has no public way to run a statement without a cursor, so
that this class derives from it; `covet-orm[mysql]` names the versions that it was written for.
"""

from __future__ import annotations

import asyncio
from typing import Any

import aiomysql  # type: ignore[import-untyped]
from pymysql.connections import MAX_PACKET_LEN  # type: ignore[import-untyped]
from pymysql.constants import (  # type: ignore[import-untyped]
    CLIENT,
    COMMAND,
    CR,
    ER,
    SERVER_STATUS,
)
from pymysql.err import InterfaceError, OperationalError  # type: ignore[import-untyped]

from covet_orm.drivers.protocol import Row
from covet_orm.drivers.sockets import give_up_after

__all__ = ["Session"]

DRAIN_BYTES = 1 << 18
EOF, ERROR = 0xFE, 0xFF
EOF_BELOW = 4 + 9
"""Bytes that a packet of EOF stays below, with its header; a longer one that begins like it is a row."""


class Session(aiomysql.Connection):  # type: ignore[misc]
    """A connection of aiomysql.

    Args:
        require_tls: refuse a server that offers none, before anything secret is sent.
        arguments: those of `aiomysql.Connection`.
    """

    def __init__(self, *, require_tls: bool, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.client_flag |= CLIENT.FOUND_ROWS
        self.client_flag &= ~(CLIENT.MULTI_STATEMENTS | CLIENT.LOCAL_FILES)
        self.require_tls = require_tls

    async def enter(self) -> None:
        """Connect and log in."""
        await self._connect()

    def give_up_after(self, seconds: float) -> None:
        """Give the connection up when the other machine was silent for so long."""
        assert self._writer is not None
        give_up_after(self._writer.transport, seconds)

    async def leave(self) -> None:
        """Say goodbye, and wait until the connection is closed."""
        writer = self._writer
        if writer is not None:
            await self.ensure_closed()
            await writer.wait_closed()

    def cut(self) -> None:
        """Close the connection without a word. Idempotent."""
        if self._writer is not None:
            self._writer.transport.abort()
            self.close()

    @property
    def is_gone(self) -> bool:
        """Whether either side has closed the connection."""
        reader = self._reader
        return self._writer is None or reader is None or reader.eof_received or reader.exception() is not None

    @property
    def backslash_escapes(self) -> bool:
        """Whether a backslash in a literal is an escape character, by the last status that the server sent."""
        return not self.server_status & SERVER_STATUS.SERVER_STATUS_NO_BACKSLASH_ESCAPES

    async def run(self, statement: bytes) -> Any:
        """Run a statement; its result, read to the end."""
        if self.is_gone:
            raise InterfaceError("the connection is closed")
        await self._execute_command(COMMAND.COM_QUERY, statement)
        await self._read_query_result()
        result = self._result
        while self._result is not None and self._result.has_next:
            await self._read_query_result()
        return result

    async def open(self, statement: bytes) -> Any:
        """Run a statement; its result, of which no row was read."""
        if self.is_gone:
            raise InterfaceError("the connection is closed")
        await self._execute_command(COMMAND.COM_QUERY, statement)
        await self._read_query_result(unbuffered=True)
        return self._result

    async def read_rows(self, result: Any, size: int) -> list[Row]:
        """The next rows of an open result, at most `size`; fewer, and the result is read to its end."""
        rows: list[Row] = []
        while len(rows) < size:
            row = await result._read_rowdata_packet_unbuffered()
            if row is None:
                break
            rows.append(row)
        return rows

    async def drain(self, result: Any) -> None:
        """Read an open result to its end, which may be that somebody ended the statement; no row is looked at.

        A megabyte of small rows is more than 50,000 packets, for each of which aiomysql makes several objects.

        Raises:
            OperationalError: there is no such end; the connection cannot be used any longer.
        """
        reader: Any = self._reader
        unread = bytearray()
        continued = False
        while result.unbuffered_active:
            chunk = await reader.read(DRAIN_BYTES)
            if not chunk:
                raise OperationalError(CR.CR_SERVER_LOST, "the connection was closed")
            unread += chunk
            begin = 0
            while len(unread) - begin >= 4:
                end = begin + 4 + int.from_bytes(unread[begin : begin + 3], "little")
                if len(unread) < end:
                    break
                first = 0 if continued or end == begin + 4 else unread[begin + 4]
                if first == ERROR or (first == EOF and end - begin < EOF_BELOW):
                    self._end_of(result, bytes(unread[begin:end]), last=len(unread) == end)
                    break
                continued = end - begin == 4 + MAX_PACKET_LEN
                begin = end
            del unread[:begin]
            await asyncio.sleep(0)

    def _end_of(self, result: Any, packet: bytes, *, last: bool) -> None:
        """Take the packet at the end of an open result (https://mariadb.com/kb/en/eof_packet/, err_packet)."""
        number, flags = int.from_bytes(packet[5:7], "little"), int.from_bytes(packet[7:9], "little")
        more = packet[4] == EOF and flags & SERVER_STATUS.SERVER_MORE_RESULTS_EXISTS
        if not last or more or (packet[4] == ERROR and number != ER.QUERY_INTERRUPTED):
            raise OperationalError(CR.CR_COMMANDS_OUT_OF_SYNC, "the result did not end as it should")
        result.unbuffered_active = False
        result.connection = None

    async def _request_authentication(self) -> None:
        """aiomysql goes on without TLS when the server, or somebody between, says that there is none."""
        if self.require_tls and not self.server_capabilities & CLIENT.SSL:
            raise OperationalError(CR.CR_SSL_CONNECTION_ERROR, "the server offers no TLS, and `tls` asks for it")
        await super()._request_authentication()

    async def _process_auth(self, plugin_name: bytes, auth_packet: Any) -> Any:
        """A server, or somebody in its place, may ask for the password as it is; over plain TCP it gets none."""
        if plugin_name in (b"mysql_clear_password", b"mysql_old_password") and not self._secure:
            raise OperationalError(
                CR.CR_AUTH_PLUGIN_CANNOT_LOAD,
                "the server asks for the password in clear text, which `tls` does not protect",
            )
        return await super()._process_auth(plugin_name, auth_packet)
