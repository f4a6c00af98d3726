"""A loop whose time is virtual, a clock moved by hand, and scripted peers at the far end of a memory stream."""

from __future__ import annotations

import asyncio
import selectors
import struct
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from drivers.stream import Memory
from gateway.metrics import Metrics


class _Instant(selectors.SelectSelector):
    """Never waits: where a real selector would sleep, the loop's time jumps."""

    jump: Callable[[float], None]

    def select(self, timeout=None):
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "everybody waits for something that will never happen"
            self.jump(max(timeout, 0))
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that gets through an hour in no time."""

    def __init__(self):
        self._now = 1000.0
        selector = _Instant()
        selector.jump = self._jump
        super().__init__(selector)

    def time(self):
        return self._now

    def _jump(self, seconds):
        self._now += seconds


class VirtualClock:
    """Follows the running loop; wall time starts at a round number. `skip` moves it by hand."""

    boot_id = "test"

    def __init__(self):
        self._skipped = 0.0

    def skip(self, seconds):
        self._skipped += seconds

    def monotonic(self):
        return asyncio.get_running_loop().time() + self._skipped

    def wall_ms(self):
        return 1_700_000_000_000 + round((self.monotonic() - 1000) * 1000)

    def state(self):
        return "synced"


@dataclass(frozen=True)
class Asked:
    """A read request as a peer hears it."""

    transaction: int
    unit: int
    function: int
    address: int
    count: int
    at: float

    @property
    def what(self):
        return self.function, self.address, self.count


class Peer:
    """A device at the far end: `script(asked)` says what it sends, a list of bytes, None for "hang up".

    Without a script it answers from `registers` and `bits`, with exception 2 for what is in `holes`.
    """

    def __init__(self):
        self.asked = []
        self.registers = {}
        self.bits = set()
        self.holes = {}
        self.script = self.obey
        self.opened = 0
        self.endpoint = Memory(self._accept)

    def _accept(self, stream):
        self.opened += 1
        self.stream = stream
        return self

    def on_lost(self, error):
        self.lost = error

    def on_data(self, data):
        while data:
            transaction, protocol, length, unit, function, address, count = struct.unpack(">HHHBBHH", data[:12])
            assert (protocol, length) == (0, 6)
            now = asyncio.get_running_loop().time()
            asked = Asked(transaction, unit, function, address, count, now)
            self.asked.append(asked)
            self.send(*self.script(asked))
            data = data[12:]

    def send(self, *parts):
        for part in parts:
            if part is None:
                self.stream.close()
            else:
                self.stream.write(part)

    def later(self, seconds, *parts):
        asyncio.get_running_loop().call_later(seconds, self.send, *parts)

    @staticmethod
    def frame(asked, pdu, *, transaction=None, unit=None, protocol=0):
        transaction = asked.transaction if transaction is None else transaction
        unit = asked.unit if unit is None else unit
        return struct.pack(">HHHB", transaction, protocol, len(pdu) + 1, unit) + pdu

    def values(self, asked):
        """The PDU that answers well."""
        span = range(asked.address, asked.address + asked.count)
        if asked.function <= 2:
            number = sum((at in self.bits) << i for i, at in enumerate(span))
            body = number.to_bytes((asked.count + 7) // 8, "little")
        else:
            body = b"".join(self.registers.get(at, at).to_bytes(2) for at in span)
        return bytes((asked.function, len(body))) + body

    def refusal(self, asked, code):
        return self.frame(asked, bytes((asked.function | 0x80, code)))

    def good(self, asked):
        return self.frame(asked, self.values(asked))

    def obey(self, asked):
        for at in range(asked.address, asked.address + asked.count):
            if at in self.holes:
                return [self.refusal(asked, self.holes[at])]
        return [self.good(asked)]


@pytest.fixture
def run():
    """Run a coroutine to its end on a loop with virtual time."""

    def runner(coroutine):
        with asyncio.Runner(loop_factory=VirtualLoop) as virtual:
            return virtual.run(coroutine)

    return runner


@pytest.fixture
def clock():
    return VirtualClock()


@pytest.fixture
def peer():
    return Peer()


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def count(metrics):
    """The value of a counter, over all its labels or those given."""

    def total(name, **labels):
        return sum(v for n, found, v in metrics if n == name and labels.items() <= found.items())

    return total


@pytest.fixture(scope="session")
def kit():
    """The classes themselves, for properties, which want everything new for each example."""
    return SimpleNamespace(Peer=Peer, VirtualClock=VirtualClock, VirtualLoop=VirtualLoop, Metrics=Metrics)
