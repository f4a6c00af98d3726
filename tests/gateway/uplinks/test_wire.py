"""The socket that reads ahead and writes once."""

import socket

import pytest

from gateway.uplinks.wire import Wire


class CountingSocket:
    """A socket whose reads and writes are counted, and whose writes take only so much at once."""

    def __init__(self, sock):
        self._sock = sock
        self.reads = self.writes = 0
        self.most = 1 << 30

    def __getattr__(self, name):
        return getattr(self._sock, name)

    def recv(self, size):
        self.reads += 1
        return self._sock.recv(size)

    def send(self, data):
        self.writes += 1
        if not self.most:
            raise BlockingIOError
        return self._sock.send(data[: self.most])


@pytest.fixture
def pair():
    near, far = socket.socketpair()
    counting = CountingSocket(near)
    wire = Wire(counting)
    wire.setblocking(False)
    yield wire, counting, far
    wire.close()
    far.close()


def test_many_small_reads_ask_the_kernel_once(pair):
    wire, counting, far = pair
    far.send(b"abcdef")
    assert [wire.recv(1), wire.recv(1), wire.recv(3)] == [b"a", b"b", b"cde"]
    assert wire.pending() == 1
    assert wire.recv(10) == b"f"
    with pytest.raises(BlockingIOError):
        wire.recv(1)
    assert counting.reads == 1
    far.send(b"g")
    assert wire.recv(1) == b"g"


def test_an_empty_socket_is_asked_and_says_so(pair):
    wire, counting, _ = pair
    for _ in range(2):
        with pytest.raises(BlockingIOError):
            wire.recv(1)
    assert counting.reads == 2


def test_the_end_is_an_empty_read(pair):
    wire, _, far = pair
    far.send(b"a")
    far.close()
    assert wire.recv(1) == b"a"
    with pytest.raises(BlockingIOError):
        wire.recv(1)
    assert wire.recv(1) == b""


def test_many_writes_are_one(pair):
    wire, counting, far = pair
    for data in (b"a", b"bc", bytearray(b"d")):
        assert wire.send(data) == len(data)
    assert counting.writes == 0
    assert wire.flush()
    assert counting.writes == 1
    assert far.recv(10) == b"abcd"


def test_what_does_not_fit_waits_and_holds_back_the_next(pair):
    wire, counting, far = pair
    wire.send(b"abcdef")
    counting.most = 0
    assert not wire.flush()
    with pytest.raises(BlockingIOError):
        wire.send(b"g")
    counting.most = 2
    assert wire.flush()
    assert far.recv(10) == b"abcdef"
    assert wire.send(b"g") == 1
    assert "0 B unsent" in repr(wire)


def test_closing_writes_what_can_be_written_unless_it_was_discarded(pair):
    wire, _, far = pair
    wire.send(b"a")
    wire.discard()
    wire.send(b"b")
    wire.close()
    assert far.recv(10) == b"b"


def test_what_the_socket_says_when_it_fails_is_kept(pair):
    wire, _, far = pair
    far.close()
    wire.send(b"a")
    with pytest.raises(OSError, match="Broken pipe"):
        wire.flush()
    assert "Broken pipe" in wire.error
    wire.close()
