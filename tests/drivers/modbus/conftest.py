"""A bus in virtual time: characters take theirs, units answer after their turnaround, and faults come where asked.

Nothing here uses the product's framers: a CRC that is wrong in both would be right in the tests.
"""

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from drivers.modbus.frames import ascii as ascii_frames
from drivers.modbus.frames import rtu
from drivers.modbus.lines.bus import Bus
from gateway.errors import LineError

CHARACTER_S = 11 / 9600


def crc(data):
    value = 0xFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0xA001 if value & 1 else 0)
    return value.to_bytes(2, "little")


def seal(framing, unit, pdu):
    body = bytes((unit,)) + pdu
    if framing == "rtu":
        return body + crc(body)
    return b":" + (body + bytes((-sum(body) & 0xFF,))).hex().upper().encode() + b"\r\n"


def unseal(framing, frame):
    """Unit and PDU; None for what a unit does not take."""
    if framing == "ascii":
        if not frame.startswith(b":") or not frame.endswith(b"\r\n"):
            return None
        body = bytes.fromhex(frame[1:-2].decode())
        return (body[0], body[1:-1]) if sum(body) & 0xFF == 0 else None
    return (frame[0], frame[1:-2]) if crc(frame[:-2]) == frame[-2:] else None


@dataclass(frozen=True)
class Heard:
    """A request as the units hear it: number, when its last character came, unit and PDU."""

    number: int
    at: float
    unit: int
    pdu: bytes


class Wire:
    """A line with units on it; an endpoint for a bus. What is said waits until the line is free, as in a device server.

    A register holds what says where it is from: three bits of unit, six of address, seven of `epoch`. `words` are
    what somebody wrote.

    `before[n]`, `instead[n]` and `after[n]` are called with the n-th request: when it was heard, in place of its answer
    (a list of PDUs, none for silence), and when its answer has been said. `at_byte[n]` is called with the n-th byte of
    all answers and says what is heard instead: bytes, or the number of seconds that go by before it.
    """

    def __init__(self, framing="rtu", *, character_s=CHARACTER_S, units=(1, 2, 3), turnaround_s=0.005, chunk=1):
        self.framing = framing
        self.character_s = character_s
        self.units = set(units)
        self.turnaround_s = turnaround_s
        self.chunk = chunk
        self.epoch = 0
        self.ages = False  # whether the epoch goes on with each answer
        self.words = {}
        self.echo = False
        self.asked = []
        self.answers = []  # (number of the request, unit, index of its first byte, how many bytes)
        self.before, self.instead, self.after = defaultdict(list), {}, defaultdict(list)
        self.at_byte = {}
        self.bytes = 0
        self.busy_until = self.said_until = 0.0
        self.opened = 0
        self.receiver = None

    def __str__(self):
        return "memory:"

    async def open(self, receiver, *, timeout_s):
        self.loop = asyncio.get_running_loop()
        self.receiver = receiver
        self.opened += 1
        return self

    def close(self):
        self.receiver = None

    def lose(self):
        receiver, self.receiver = self.receiver, None
        receiver.on_lost(LineError("memory: unplugged", cause="offline"))

    async def wait_closed(self):
        pass

    def heal(self):
        """No more faults."""
        for faults in (self.before, self.instead, self.after, self.at_byte):
            faults.clear()

    def was_touched(self, number):
        """Whether a fault befell a byte of the answer to that request."""
        return any(
            n == number and any(at in self.at_byte for at in range(first, first + size))
            for n, _, first, size in self.answers
        )

    # --- the line ---

    def write(self, frame):
        if self.echo:
            left_at = self.say(frame)
        else:
            self.busy_until = left_at = max(self.loop.time(), self.busy_until) + len(frame) * self.character_s
        found = unseal(self.framing, frame)
        assert found is not None, "a request that is no frame"
        self.asked.append(Heard(len(self.asked), left_at, *found))
        self.loop.call_at(max(left_at, self.said_until if self.echo else 0), self._on_request, self.asked[-1])

    def say(self, data, *, delay_s=0.0, counted=False):
        """Put bytes on the line as soon as it is free, and not before `delay_s`."""
        at = max(self.loop.time() + delay_s, self.busy_until)
        pending = b""
        for i in range(len(data)):
            part = data[i : i + 1]
            if counted:
                change = self.at_byte[self.bytes](part) if self.bytes in self.at_byte else part
                self.bytes += 1
                if isinstance(change, float):
                    self._later(at, pending)
                    pending, at = b"", at + change
                else:
                    part = change
            pending += part
            at += max(1, len(part)) * self.character_s
            if (i + 1) % self.chunk == 0:
                self._later(at, pending)
                pending = b""
        self._later(at, pending)
        self.busy_until = at
        return at

    def _later(self, at, data):
        if data:
            self.said_until = max(at, self.said_until + 1e-6)  # timers of the same moment go off in any order
            self.loop.call_at(self.said_until, self._heard, data)

    def _heard(self, data):
        if self.receiver is not None:
            self.receiver.on_data(data)

    def frame(self, unit, pdu):
        return seal(self.framing, unit, pdu)

    # --- the units ---

    def _on_request(self, heard):
        for act in self.before[heard.number]:
            act(heard)
        if heard.number in self.instead:
            pdus = self.instead[heard.number](heard)
        else:
            pdu = self.answer(heard.unit, heard.pdu) if heard.unit in self.units else None
            pdus = [] if pdu is None else [pdu]
        self.loop.call_later(self.turnaround_s, self._answer, heard, pdus)

    def _answer(self, heard, pdus):
        for pdu in pdus:
            first = self.bytes
            self.say(self.frame(heard.unit, pdu), counted=True)
            self.answers.append((heard.number, heard.unit, first, self.bytes - first))
        for act in self.after[heard.number]:
            act(heard)

    def word(self, unit, address):
        known = self.words.get((unit, address))
        return (unit << 13 | (address & 63) << 7 | self.epoch & 127) if known is None else known

    def answer(self, unit, pdu):
        """What the unit answers; writes are done."""
        function, address, count = pdu[0], int.from_bytes(pdu[1:3]), int.from_bytes(pdu[3:5])
        self.epoch += self.ages
        if function in (3, 4):
            if address >= 64:
                return bytes((function | 0x80, 2))
            return bytes((function, 2 * count)) + b"".join(
                self.word(unit, at).to_bytes(2) for at in range(address, address + count)
            )
        if function in (1, 2):
            bits = sum(((unit + at) % 3 == 0) << i for i, at in enumerate(range(address, address + count)))
            size = (count + 7) // 8
            return bytes((function, size)) + bits.to_bytes(size, "little")
        if function in (5, 6):
            self.words[unit, address] = count
            return pdu
        if function == 16:
            for i in range(count):
                self.words[unit, address + i] = int.from_bytes(pdu[6 + 2 * i : 8 + 2 * i])
            return pdu[:5]
        return bytes((function | 0x80, 1))


def bus_on(wire, *, clock, metrics, **options):
    """A bus over that line."""
    framer = rtu.Framer() if wire.framing == "rtu" else ascii_frames.Framer()
    settings = {"units": frozenset({1, 2, 3}), "timeout_s": 0.5, "character_s": wire.character_s}
    return Bus(wire, framer, clock=clock, metrics=metrics, **(settings | options))


@pytest.fixture(scope="session")
def wire_kit():
    """The line's classes, for tests that want everything new for each example."""
    return SimpleNamespace(Wire=Wire, bus_on=bus_on, seal=seal, CHARACTER_S=CHARACTER_S)


@pytest.fixture
def play(run, connect):
    """Run `script(client, fetch)` on an open connection, which the test's own fixture `connect` makes."""

    def runner(script, *, timeout_s=1.0, gap_s=0.0, **options):
        async def main():
            client = connect(**options)

            async def fetch(*requests, urgent=False, timeout_s=timeout_s, gap_s=gap_s):
                return (await client.fetch(requests, timeout_s=timeout_s, gap_s=gap_s, urgent=urgent)).answers

            await client.open()
            try:
                return await script(client, fetch)
            finally:
                await client.close()

        return run(main())

    return runner
