"""Compression of frame bodies: zlib, which every Python has, or zstd, where there is a module for it.

The one file that knows of such modules: Python's own from 3.14 on, else the packages zstandard or pyzstd.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

MOST = 64 * 1024 * 1024
"""Bytes that a body may have: what would be more is refused before it fills the memory."""

LEVEL = 1
"""Of either: higher ones take three times as long and save a twentieth."""


@dataclass(frozen=True, slots=True)
class Codec:
    """A way to compress. `decompress` raises ValueError on what was not compressed by it, or is more than `MOST`."""

    compress: Callable[[bytes], bytes]
    decompress: Callable[[bytes], bytes]


def _zlib_compress(data: bytes) -> bytes:
    return zlib.compress(data, LEVEL)


def _zlib_decompress(data: bytes) -> bytes:
    return _opened(zlib.decompressobj(), data, zlib.error)


def _opened(decompressor: Any, data: bytes, failure: type[Exception]) -> bytes:
    """All that one stream holds, and nothing but one stream."""
    try:
        found: bytes = decompressor.decompress(data, MOST)
    except failure as error:
        raise ValueError(f"the body cannot be decompressed: {error}") from error
    if not decompressor.eof or decompressor.unused_data:
        raise ValueError(f"the body ends too soon, or is more than {MOST} bytes")
    return found


ZLIB = Codec(_zlib_compress, _zlib_decompress)


@cache
def zstd() -> Codec | None:
    """The zstd of this machine, None where no module is installed."""
    for name in ("compression.zstd", "zstandard", "pyzstd"):
        try:
            module = import_module(name)
        except ImportError:
            continue
        return _zstandard(module) if name == "zstandard" else _standard(module)
    return None


def _standard(module: Any) -> Codec:
    """By Python's own module, or one with the same names."""

    def compress(data: bytes) -> bytes:
        compressed: bytes = module.compress(data, LEVEL)
        return compressed

    def decompress(data: bytes) -> bytes:
        return _opened(module.ZstdDecompressor(), data, module.ZstdError)

    return Codec(compress, decompress)


def _zstandard(module: Any) -> Codec:
    """By the package zstandard, which takes a limit only where the stream does not tell its size."""

    def compress(data: bytes) -> bytes:
        compressed: bytes = module.ZstdCompressor(level=LEVEL).compress(data)
        return compressed

    def decompress(data: bytes) -> bytes:
        try:
            if module.frame_content_size(data) > MOST:
                raise ValueError(f"the body is more than {MOST} bytes")
            found: bytes = module.ZstdDecompressor().decompress(data, max_output_size=MOST, allow_extra_data=False)
        except module.ZstdError as error:
            raise ValueError(f"the body cannot be decompressed: {error}") from error
        return found

    return Codec(compress, decompress)
