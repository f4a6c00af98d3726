"""A serial line with Modbus units on it, true to the character, in a process of its own.

Usage: line.py LINK '{"framing": "rtu", "baud": 9600, "parity": "E", "units": {"1": {"turnaround_ms": 5}}}'

LINK becomes a symbolic link to a pty that behaves like a serial port with that line behind it. A request takes its
characters' time from the moment it was heard, the unit answers after its turnaround, and no character of the answer can
be read before a UART would have it. Settings: `framing` rtu or ascii, `baud`, `bits`, `parity`, `stop`, `echo` (an
adapter that hears itself), `chunk_ms` (how often the port hands over what came; the last character comes exactly when
it has), and `units`, whose settings are those of `Unit` below.

Registers hold (unit * 1000 + address) & 0xFFFF, bits are set where unit + address can be divided by 3, until somebody
writes them. Coils are one table and discrete inputs another, as are holding and input registers.

It prints {"ready": true} and then obeys lines of JSON on its standard input, each answered by one line, the report:

    {}                              the report alone
    {"reset": true}                 the report, and everything is counted from here on
    {"unit": 3, "dead": true}       other settings for a unit
    {"unplug": true}                the port is gone, and so is LINK
    {"plug": true}                  it is back

It ends when its standard input does; the last thing it prints is the report. Times are good to about 0.2 ms on a
machine that has a core to spare; where the system allows it, it takes precedence over everything else.
"""

import argparse
import contextlib
import ctypes
import gc
import json
import os
import select
import signal
import struct
import sys
import termios
import time
import tty
from dataclasses import dataclass, field
from pathlib import Path

clock = time.perf_counter

SPIN_S = 0.0003
"""How long before its time a sleep ends: the rest is spent looking at the clock."""
TOLERANCE_S = 0.00005
"""How much too early a frame may begin: the clocks of two processes are read at different moments."""


def crc(data):
    """CRC of RTU, low byte first [serial line V1.02 2.5.1.2]."""
    value = 0xFFFF
    for byte in data:
        value = value >> 8 ^ CRC_TABLE[(value ^ byte) & 0xFF]
    return value.to_bytes(2, "little")


def _crc_of(byte):
    for _ in range(8):
        byte = byte >> 1 ^ (0xA001 if byte & 1 else 0)
    return byte


CRC_TABLE = [_crc_of(byte) for byte in range(256)]


def seal(framing, body):
    """A frame around unit and PDU."""
    if framing == "rtu":
        return body + crc(body)
    return b":" + (body + bytes([-sum(body) & 0xFF])).hex().upper().encode() + b"\r\n"


def unseal(framing, frame):
    """Unit and PDU of a frame; None where it is none."""
    if framing == "rtu":
        return frame[:-2] if len(frame) >= 4 and crc(frame[:-2]) == frame[-2:] else None
    if not frame.startswith(b":") or not frame.endswith(b"\r\n"):
        return None
    try:
        body = bytes.fromhex(frame[1:-2].decode("ascii"))
    except ValueError:
        return None
    return body[:-1] if len(body) >= 3 and not sum(body) & 0xFF else None


@dataclass
class Unit:
    """One unit. What a frame says may be set, and set again later.

    `turnaround_ms`: from the last character of a request to the first of its answer; in RTU never less than t3.5, for
    only that silence tells the unit that the request is over. Each `late_every`-th answer comes `late_ms` later.
    More than `max_registers` or `max_bits`, and `holes` (first and last address, in all tables), are refused with
    `too_many` and `hole`; 0 is silence.
    """

    number: int
    turnaround_ms: float = 5.0
    dead: bool = False
    late_ms: float = 0.0
    late_every: int = 1
    max_registers: int = 125
    max_bits: int = 2000
    too_many: int = 3
    holes: list = field(default_factory=list)
    hole: int = 2
    asked: int = 0
    registers: dict = field(default_factory=dict)
    coils: dict = field(default_factory=dict)

    def answer(self, pdu):
        """The answer's PDU; None for silence."""
        self.asked += 1
        if self.dead:
            return None
        verb = VERBS.get(pdu[0])
        try:
            code, body = (1, b"") if verb is None else verb(self, pdu)
        except struct.error:
            code, body = 3, b""
        if code == 0:
            return None
        return pdu[:1] + body if code < 0 else bytes((pdu[0] | 0x80, code))

    def refused(self, first, count, most):
        """The exception code for that span: -1 where there is none."""
        if not 1 <= count <= most:
            return self.too_many
        if first + count > 65536 or any(first <= b and a < first + count for a, b in self.holes):
            return self.hole
        return -1

    def register(self, function, at):
        known = self.registers.get(at) if function != 4 else None
        return (self.number * 1000 + at) & 0xFFFF if known is None else known

    def bit(self, function, at):
        known = self.coils.get(at) if function != 2 else None
        return (self.number + at) % 3 == 0 if known is None else known

    def read_bits(self, pdu):
        first, count = struct.unpack(">HH", pdu[1:])
        code = self.refused(first, count, self.max_bits)
        number = sum(self.bit(pdu[0], first + i) << i for i in range(count)) if code < 0 else 0
        size = (count + 7) // 8
        return code, bytes([size & 0xFF]) + number.to_bytes(size, "little")

    def read_registers(self, pdu):
        first, count = struct.unpack(">HH", pdu[1:])
        return self.refused(first, count, self.max_registers), self.words(pdu[0], first, count)

    def words(self, function, first, count):
        return bytes([count * 2 & 0xFF]) + b"".join(
            self.register(function, at & 0xFFFF).to_bytes(2) for at in range(first, first + count)
        )

    def write_coil(self, pdu):
        at, value = struct.unpack(">HH", pdu[1:])
        if value not in (0, 0xFF00):
            return 3, b""
        self.coils[at] = bool(value)
        return self.refused(at, 1, 1), pdu[1:]

    def write_register(self, pdu):
        at, value = struct.unpack(">HH", pdu[1:])
        self.registers[at] = value
        return self.refused(at, 1, 1), pdu[1:]

    def write_coils(self, pdu):
        first, count, size = struct.unpack(">HHB", pdu[1:6])
        if len(pdu) != 6 + size or size != (count + 7) // 8:
            return 3, b""
        code = self.refused(first, count, self.max_bits)
        if code < 0:
            number = int.from_bytes(pdu[6:], "little")
            self.coils.update((first + i, bool(number >> i & 1)) for i in range(count))
        return code, pdu[1:5]

    def write_registers(self, pdu):
        return self.store(pdu[1:]), pdu[1:5]

    def store(self, body):
        """Write what `first, count, size, values` say. The exception code, or -1."""
        first, count, size = struct.unpack(">HHB", body[:5])
        if len(body) != 5 + size or size != count * 2:
            return 3
        code = self.refused(first, count, self.max_registers)
        if code < 0:
            self.registers.update(zip(range(first, first + count), struct.unpack(f">{count}H", body[5:]), strict=True))
        return code

    def mask_register(self, pdu):
        at, both, either = struct.unpack(">HHH", pdu[1:])
        self.registers[at] = self.register(3, at) & both | either & ~both & 0xFFFF
        return self.refused(at, 1, 1), pdu[1:]

    def exchange_registers(self, pdu):
        first, count = struct.unpack(">HH", pdu[1:5])
        code = self.refused(first, count, self.max_registers)
        if code < 0:
            code = self.store(pdu[5:])
        return code, self.words(3, first, count)


VERBS = {
    1: Unit.read_bits,
    2: Unit.read_bits,
    3: Unit.read_registers,
    4: Unit.read_registers,
    5: Unit.write_coil,
    6: Unit.write_register,
    15: Unit.write_coils,
    16: Unit.write_registers,
    22: Unit.mask_register,
    23: Unit.exchange_registers,
}


@dataclass
class Answer:
    """What a unit sends: `start` its first character; `began` that of the request; `allowed_s` all of it may take."""

    data: bytes
    start: float
    began: float
    allowed_s: float
    is_late: bool
    given: int = 0
    given_at: float = 0.0


class Wire:
    """What is on the wire, and when. `hand_over` gives characters to whoever has the port open."""

    def __init__(self, settings, hand_over):
        self.framing = settings.get("framing", "rtu")
        baud = settings.get("baud", 19200)
        bits = 1 + settings.get("bits", 8) + (settings.get("parity", "E") != "N") + settings.get("stop", 1)
        self.character_s = bits / baud
        # t3.5 [serial line V1.02 2.5.1.1]; ASCII frames have a beginning and an end and need no silence
        self.silence_s = 0.0 if self.framing == "ascii" else 0.00175 if baud > 19200 else 3.5 * self.character_s
        self.chunk_s = settings.get("chunk_ms", 1.0) / 1000
        self.echo = settings.get("echo", False)
        self.units = {int(n): Unit(int(n), **of) for n, of in settings["units"].items()}
        self.hand_over = hand_over
        self.frame = b""  # of the master's, so far
        self.spoilt = False  # it began before the line had been quiet for t3.5
        self.echoed = 0
        self.began = self.ends = 0.0  # its first and the end of its last character
        self.quiet_from = 0.0  # when the last answer ended
        self.answers = []  # to come
        self.sending = None  # the answer under way
        self.reset()

    def reset(self):
        """Count from here on."""
        self.counted_from = clock()
        self.requests = self.answered = self.exceptions = self.unanswered = self.late = self.early = self.damaged = 0
        self.collisions = self.characters = 0
        self.allowed_s = self.busy_s = 0.0
        self.first_at = self.last_at = None

    def report(self):
        """Everything counted since the last reset."""
        elapsed = 0.0 if self.last_at is None else self.last_at - self.first_at
        wall = clock() - self.counted_from
        return {
            "requests": self.requests,
            "answered": self.answered,
            "exceptions": self.exceptions,
            "unanswered": self.unanswered,
            "late": self.late,
            "early": self.early,
            "damaged": self.damaged,
            "collisions": self.collisions,
            "characters": self.characters,
            "character_s": self.character_s,
            "silence_s": self.silence_s,
            "allowed_s": round(self.allowed_s, 6),
            "elapsed_s": round(elapsed, 6),
            "utilisation": round(self.allowed_s / elapsed, 5) if elapsed else 0.0,
            "busy_s": round(self.busy_s, 6),
            "wall_s": round(wall, 6),
            "busy": round(self.busy_s / wall, 5) if wall else 0.0,
            "units": {str(n): unit.asked for n, unit in self.units.items()},
        }

    def hear(self, data, now):
        """The master sends. Where a unit is at it too, nobody understands either of them."""
        if self.sending is not None or now < self.quiet_from + self.silence_s - TOLERANCE_S:
            self.spoilt = True
        if self.sending is not None:
            self.collide(self.sending)
        if not self.frame:
            self.began = self.ends = now
        self.frame += data
        self.ends = max(self.ends, now) + len(data) * self.character_s
        self.characters += len(data)

    def next_at(self):
        """When something happens next; None where nothing will by itself."""
        moments = [answer.start for answer in self.answers]
        if self.frame:
            moments.append(self.ends if self.echo and self.echoed < len(self.frame) else self.ends + self.silence_s)
        if self.sending is not None:
            a = self.sending
            step = max(self.chunk_s, self.character_s)
            moments.append(min(a.start + len(a.data) * self.character_s, a.given_at + step))
        return min(moments, default=None)

    def turn(self, now):
        """Do what is due."""
        if self.echo and self.echoed < len(self.frame) and now >= self.ends:
            self.hand_over(self.frame[self.echoed :])
            self.echoed = len(self.frame)
        if self.frame and now >= self.ends + self.silence_s:
            self.take()
        if self.sending is None and self.answers:
            self.answers.sort(key=lambda answer: answer.start)
            if now >= self.answers[0].start:
                self.begin(self.answers.pop(0), now)
        if self.sending is not None:
            self.send(self.sending, now)

    def take(self):
        """The master's frame is over: who answers, and when."""
        frame, spoilt = self.frame, self.spoilt
        self.frame, self.spoilt, self.echoed = b"", False, 0
        took = len(frame) * self.character_s
        self.requests += 1
        if self.first_at is None:
            self.first_at = self.began
        body = unseal(self.framing, frame)
        unit = None
        if spoilt:
            self.early += 1
        elif body is None:
            self.damaged += 1
        elif body[0] == 0:
            for each in self.units.values():
                each.answer(body[1:])
        else:
            unit = self.units.get(body[0])
        pdu = None if unit is None else unit.answer(body[1:])
        if pdu is None:
            self.unanswered += 1
            self.busy_s += took + self.silence_s
            return
        self.exceptions += pdu[0] > 0x80
        data = seal(self.framing, body[:1] + pdu)
        turnaround = max(unit.turnaround_ms / 1000, self.silence_s)
        is_late = bool(unit.late_ms) and unit.asked % unit.late_every == 0
        start = self.ends + turnaround + (unit.late_ms / 1000 if is_late else 0.0)
        allowed = took + turnaround + len(data) * self.character_s + self.silence_s
        self.answers.append(Answer(data, start, self.began, allowed, is_late))

    def begin(self, answer, now):
        """A unit begins to send. Where the master is at it too, nobody understands either of them."""
        if self.frame:
            self.spoilt = True
            self.collide(answer)
        if now - answer.start > self.chunk_s:  # it waited for another unit, or we were not on time
            answer.start = now
        answer.given_at = answer.start
        self.sending = answer

    def collide(self, answer):
        """What is left of an answer becomes noise."""
        self.collisions += 1
        answer.data = answer.data[: answer.given] + bytes(byte ^ 0x55 for byte in answer.data[answer.given :])

    def send(self, answer, now):
        """Hand over the characters that have come by now."""
        size = len(answer.data)
        end = answer.start + size * self.character_s
        come = size if now >= end else min(int((now - answer.start) / self.character_s), size - 1)
        if come > answer.given:
            self.hand_over(answer.data[answer.given : come])
            answer.given = come
        if come < size:
            answer.given_at = now
            return
        self.sending = None
        self.quiet_from = end
        self.last_at = end + self.silence_s
        self.characters += size
        self.answered += 1
        self.late += answer.is_late
        if not answer.is_late:
            self.allowed_s += answer.allowed_s
        self.busy_s += answer.allowed_s


class Port:
    """The pty. It stays open on our side, so that a program that closes it does not end the line."""

    def __init__(self, link):
        self.link = Path(link)
        self.master = self.slave = -1

    def plug(self):
        self.unplug()
        self.master, self.slave = os.openpty()
        tty.setraw(self.slave, termios.TCSANOW)
        os.set_blocking(self.master, False)
        self.link.symlink_to(os.ttyname(self.slave))

    def unplug(self):
        self.link.unlink(missing_ok=True)
        for end in (self.slave, self.master):
            if end >= 0:
                os.close(end)
        self.master = self.slave = -1

    def write(self, data):
        with contextlib.suppress(OSError):  # nobody reads, or it is unplugged: a UART loses it too
            os.write(self.master, data)

    def read(self):
        try:
            return os.read(self.master, 4096)
        except OSError:
            return b""


def obey(line, wire, port):
    """One order from standard input."""
    order = json.loads(line or "{}")
    report = wire.report()
    if order.pop("reset", False):
        wire.reset()
    if order.pop("unplug", False):
        port.unplug()
    if order.pop("plug", False):
        port.plug()
    if "unit" in order:
        unit = wire.units[int(order.pop("unit"))]
        for name, value in order.items():
            getattr(unit, name)  # what is no setting of a unit is an error
            setattr(unit, name, value)
    print(json.dumps(report), flush=True)


def sleep_until(at, port):
    """Return what can be read, as soon as there is something, or nothing when it is time. On the dot: see SPIN_S."""
    inputs = [0] if port.master < 0 else [0, port.master]
    if at is None:
        return select.select(inputs, [], [])[0]
    if (left := at - clock() - SPIN_S) > 0 and (ready := select.select(inputs, [], [], left)[0]):
        return ready
    while clock() < at:
        if ready := select.select(inputs, [], [], 0)[0]:
            return ready
    return []


def serve(wire, port):
    """Until standard input ends."""
    orders = b""
    while True:
        ready = sleep_until(wire.next_at(), port)
        now = clock()
        if port.master in ready and (data := port.read()):
            wire.hear(data, now)
        wire.turn(now)
        if 0 in ready:
            more = os.read(0, 4096)
            if not more:
                return
            *lines, orders = (orders + more).split(b"\n")
            for line in lines:
                obey(line, wire, port)


def take_precedence():
    """Be on time: real time where that is allowed, sleeps that end when they should, no collector at work."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(29, 1, 0, 0, 0)  # PR_SET_TIMERSLACK, ns
    gc.disable()


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("link", type=Path)
    parser.add_argument("settings", type=json.loads)
    args = parser.parse_args()
    port = Port(args.link)
    wire = Wire(args.settings, port.write)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    port.plug()
    try:
        print(json.dumps({"ready": True}), flush=True)
        take_precedence()
        serve(wire, port)
        print(json.dumps(wire.report()), flush=True)
    finally:
        port.unplug()


if __name__ == "__main__":
    main()
