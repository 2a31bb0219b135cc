"""The codecs: gzip by the standard library's zlib, zstd by Python 3.14's module or its backport.

Everything here is synchronous, and releases the interpreter's lock while it works, so that it may run in threads.
"""

from __future__ import annotations

import sys
import zlib
from functools import cache
from importlib.util import find_spec
from typing import Any, Protocol

__all__ = ["Decoder", "Encoder", "decoder", "encoder", "has_zstd", "one_shot"]

MAX_WINDOW_LOG = 23
"""8 MB: the largest window of zstd that HTTP allows (RFC 9659 section 3). A decoder needs that much memory."""

GZIP = 16 + zlib.MAX_WBITS
"""zlib's way to ask for a gzip header and trailer."""


class Encoder(Protocol):
    """Compresses one body."""

    def compress(self, data: bytes, /) -> bytes:
        """Take in data, and give what of it is compressed by now."""
        ...

    def flush(self) -> bytes:
        """Give all that is left of what was taken in, so that the client can decode it now."""
        ...

    def finish(self) -> bytes:
        """Give the end of the body."""
        ...


class Decoder(Protocol):
    """Inflates one member or frame of a body."""

    @property
    def eof(self) -> bool:
        """Whether it is complete."""
        ...

    @property
    def unused(self) -> bytes:
        """What came behind its end."""
        ...

    def inflate(self, data: bytes, limit: int) -> bytes:
        """Take in data and give at most `limit` bytes; whatever is left of the data is kept.

        Raises:
            ValueError: the data is no such coding, or its check does not fit.
        """
        ...

    @property
    def hungry(self) -> bool:
        """Whether it needs more data to give more; otherwise it can go on with none."""
        ...


@cache
def has_zstd() -> bool:
    """Whether there is zstd. It is not imported before it is used."""
    if sys.version_info >= (3, 14):
        # A Python may have been built without it.
        return find_spec("_zstd") is not None
    return find_spec("backports") is not None and find_spec("backports.zstd") is not None


@cache
def _zstd() -> Any:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


def encoder(coding: str, level: int, *, size: int | None = None, small: bool = False) -> Encoder:
    """A codec for one body.

    Args:
        coding: `gzip` or `zstd`.
        level: the codec's.
        size: how many bytes the body has, where that is certain.
        small: whether it should do with little memory, about 400 KiB: for a stream that may stay open for hours,
            beside thousands of others.
    """
    return _GzipEncoder(level) if coding == "gzip" else _ZstdEncoder(level, size, small=small)


def decoder(coding: str) -> Decoder:
    """A codec for one member of gzip, or one frame of zstd."""
    return _GzipDecoder() if coding == "gzip" else _ZstdDecoder()


def one_shot(coding: str, level: int, data: bytes) -> bytes:
    """Compress a whole body at once, with its size in the header where the coding has a place for it."""
    if coding == "gzip":
        return zlib.compress(data, level, GZIP)
    compressor = _shared(level)
    compressed: bytes = compressor.compress(data, compressor.FLUSH_FRAME)
    return compressed


@cache
def _shared(level: int) -> Any:
    # Allocating its tables takes longer than compressing a few kilobytes. A call that ends its frame leaves nothing
    # behind, and calls from several threads take turns.
    return _zstd().ZstdCompressor(level=level)


class _GzipEncoder:
    __slots__ = ("_codec", "compress", "finish")

    def __init__(self, level: int) -> None:
        self._codec = zlib.compressobj(level, zlib.DEFLATED, GZIP)
        self.compress = self._codec.compress
        self.finish = self._codec.flush

    def flush(self) -> bytes:
        return self._codec.flush(zlib.Z_SYNC_FLUSH)


class _ZstdEncoder:
    __slots__ = ("_codec", "compress", "finish")

    def __init__(self, level: int, size: int | None, *, small: bool) -> None:
        zstd = _zstd()
        option = zstd.CompressionParameter
        options = {option.compression_level: level}
        if small:
            # Half the memory of the defaults, and no worse: nothing in a stream is far behind.
            options |= {option.window_log: 17, option.hash_log: 15, option.chain_log: 15}
        self._codec = zstd.ZstdCompressor(options=options)
        if size is not None:
            self._codec.set_pledged_input_size(size)
        self.compress = self._codec.compress
        self.finish = self._codec.flush

    def flush(self) -> bytes:
        data: bytes = self._codec.flush(self._codec.FLUSH_BLOCK)
        return data


class _GzipDecoder:
    __slots__ = ("_codec", "hungry")

    def __init__(self) -> None:
        self._codec = zlib.decompressobj(GZIP)
        self.hungry = True

    @property
    def eof(self) -> bool:
        return self._codec.eof

    @property
    def unused(self) -> bytes:
        return self._codec.unused_data

    def inflate(self, data: bytes, limit: int) -> bytes:
        try:
            inflated = self._codec.decompress(self._codec.unconsumed_tail + data, limit)
        except zlib.error as error:
            raise ValueError(str(error)) from error
        # With its data used up, it may still be in the middle of a repetition.
        self.hungry = not self._codec.unconsumed_tail and len(inflated) < limit
        return inflated


class _ZstdDecoder:
    __slots__ = ("_codec", "_error")

    def __init__(self) -> None:
        zstd = _zstd()
        self._error: type[Exception] = zstd.ZstdError
        self._codec = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: MAX_WINDOW_LOG})

    @property
    def eof(self) -> bool:
        eof: bool = self._codec.eof
        return eof

    @property
    def unused(self) -> bytes:
        data: bytes = self._codec.unused_data
        return data

    @property
    def hungry(self) -> bool:
        hungry: bool = self._codec.needs_input
        return hungry

    def inflate(self, data: bytes, limit: int) -> bytes:
        try:
            inflated: bytes = self._codec.decompress(data, limit)
        except self._error as error:
            raise ValueError(str(error)) from error
        return inflated
