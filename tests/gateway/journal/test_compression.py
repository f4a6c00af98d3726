"""Compression: zlib always, zstd where a module is; bodies that take what is not installed are no damage."""

import importlib.util
import sys
import types
import zlib
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.journal import compression, frame
from gateway.journal.frame import Body, FormatError, Head

INSTALLED = {n: importlib.import_module(n) for n in ("zstandard", "pyzstd") if importlib.util.find_spec(n) is not None}


class Error(Exception):
    pass


class OneStream:
    """A stand-in with the names of Python's own module, zlib inside."""

    def __init__(self):
        self._inner = zlib.decompressobj()

    def decompress(self, data, most):
        try:
            return self._inner.decompress(data, most)
        except zlib.error as error:
            raise Error(str(error)) from error

    @property
    def eof(self):
        return self._inner.eof

    @property
    def unused_data(self):
        return self._inner.unused_data


def standard(name):
    module = types.ModuleType(name)
    module.compress = zlib.compress
    module.ZstdDecompressor = OneStream
    module.ZstdError = Error
    return module


@dataclass
class Package:
    """A stand-in with the names of the package zstandard."""

    ZstdError = Error
    __spec__ = None
    sizes: dict = field(default_factory=dict)

    def ZstdCompressor(self, level):  # noqa: N802 - its name there
        return types.SimpleNamespace(compress=lambda data: zlib.compress(data, level))

    def frame_content_size(self, data):
        return self.sizes.get(data, -1)

    def ZstdDecompressor(self):  # noqa: N802 - its name there
        def decompress(data, max_output_size, allow_extra_data):
            assert not allow_extra_data
            unzip = zlib.decompressobj()
            try:
                found = unzip.decompress(data, max_output_size)
            except zlib.error as error:
                raise Error(str(error)) from error
            if not unzip.eof or unzip.unused_data:
                raise Error("not the whole of it")
            return found

        return types.SimpleNamespace(decompress=decompress)


@pytest.fixture
def only(monkeypatch):
    """Makes one module the only one that is installed, or none."""

    def install(name, module):
        for known in ("compression.zstd", "zstandard", "pyzstd"):
            monkeypatch.setitem(sys.modules, known, module if known == name else None)
        compression.zstd.cache_clear()

    yield install
    compression.zstd.cache_clear()


CHOICES = [("compression.zstd", standard("compression.zstd")), ("zstandard", Package()), ("pyzstd", standard("pyzstd"))]


@pytest.mark.parametrize(("name", "module"), CHOICES, ids=[name for name, _ in CHOICES])
def test_any_module_for_zstd_will_do(only, name, module):
    only(name, module)
    assert frame.best_codec() == frame.CODEC_COLUMNS_ZSTD
    data = frame.seal(Head(codec=frame.CODEC_COLUMNS_ZSTD), Body({}, b"d", b"payload"))
    head = frame.parse(data)
    stored = data[head.length : head.length + head.body_length]
    assert frame.unpack(head, stored) == Body({}, b"d", b"payload")
    codec = compression.zstd()
    for wrong in (b"", stored[:-1], stored + b"\0", b"garbage"):
        with pytest.raises(ValueError, match="body"):
            codec.decompress(wrong)


@pytest.mark.parametrize(
    "name", list(INSTALLED) or [pytest.param(None, marks=pytest.mark.skip(reason="no zstd installed"))]
)
def test_real_modules_for_zstd_read_each_other(only, name):
    written = []
    for each, module in INSTALLED.items():
        only(each, module)
        written.append(compression.zstd().compress(b"value " * 1000))
    only(name, INSTALLED[name])
    for data in written:
        assert compression.zstd().decompress(data) == b"value " * 1000
        with pytest.raises(ValueError, match="body"):
            compression.zstd().decompress(data[:-1])
    with pytest.raises(ValueError, match="body"):
        compression.zstd().decompress(compression.zstd().compress(bytes(compression.MOST + 1)))


def test_a_stream_that_tells_of_more_than_fits_is_refused_unread(only):
    only("zstandard", Package(sizes={b"bomb": compression.MOST + 1}))
    with pytest.raises(ValueError, match="more than"):
        compression.zstd().decompress(b"bomb")


def test_without_zstd_frames_are_written_with_zlib_and_others_say_what_to_install(only):
    only("zstandard", Package())
    data = frame.seal(Head(codec=frame.CODEC_COLUMNS_ZSTD), Body({}, b"", b"x"))
    only(None, None)
    assert frame.best_codec() == frame.CODEC_COLUMNS_ZLIB
    head = frame.parse(data)
    assert "install zstandard" in frame.obstacle(head)
    with pytest.raises(FormatError, match="zstd: install zstandard"):
        frame.unpack(head, data[head.length : head.length + head.body_length])
    with pytest.raises(FormatError, match="zstd"):
        frame.seal(Head(codec=frame.CODEC_COLUMNS_ZSTD), Body({}, b"", b"x"))


@settings(deadline=None)
@given(st.binary(max_size=3000))
def test_zlib_gives_back_what_it_took_and_refuses_the_rest(data):
    written = compression.ZLIB.compress(data)
    assert compression.ZLIB.decompress(written) == data
    for wrong in (written[:-1], written + b"\0", data):
        with pytest.raises(ValueError, match="body"):
            compression.ZLIB.decompress(wrong)
