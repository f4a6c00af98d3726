"""The simulated line itself: what it answers, that nothing is early, and what it counts."""

import os
import select
import struct
import time
import tty

import pytest


def crc(data):
    value = 0xFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0xA001 if value & 1 else 0)
    return value.to_bytes(2, "little")


class Port:
    """A master that knows nothing but how to wait."""

    def __init__(self, link):
        self.fd = os.open(link, os.O_RDWR | os.O_NOCTTY)
        tty.setraw(self.fd)

    def ask(self, unit, pdu, *, within_s=2.0, quiet_s=0.0):
        """PDU of the answer, or b"" for silence; and how long it took."""
        body = bytes([unit]) + pdu
        time.sleep(quiet_s)
        began = time.perf_counter()
        os.write(self.fd, body + crc(body))
        got = self.hear(within_s)
        return got, time.perf_counter() - began

    def hear(self, within_s):
        got = b""
        deadline = time.perf_counter() + within_s
        while (left := deadline - time.perf_counter()) > 0:
            if select.select([self.fd], [], [], left)[0]:
                got += os.read(self.fd, 4096)
            if len(got) > 3 and crc(got[:-2]) == got[-2:]:
                return got[1:-2]
        return got


@pytest.fixture
def port():
    ports = []

    def open_port(line):
        ports.append(Port(line.link))
        return ports[-1]

    yield open_port
    for each in ports:
        os.close(each.fd)


QUIET_S = 0.01


def test_values_come_from_unit_and_address_until_they_are_written(simulated_line, port):
    p = port(simulated_line(baud=115200, units={3: {}}))

    def ask(pdu):
        return p.ask(3, bytes.fromhex(pdu), quiet_s=QUIET_S)[0].hex(" ")

    assert ask("03 0064 0002") == "03 04 0c 1c 0c 1d"  # 3100, 3101
    assert ask("04 0064 0001") == "04 02 0c 1c"
    assert ask("01 0000 0009") == "01 02 49 00"  # 0, 3 and 6
    assert ask("06 0064 1234") == "06 00 64 12 34"
    assert ask("16 0064 00f0 0001") == "16 00 64 00 f0 00 01"
    assert ask("10 0065 0001 02 beef") == "10 00 65 00 01"
    assert ask("03 0064 0002") == "03 04 00 31 be ef"
    assert ask("04 0064 0001") == "04 02 0c 1c"
    assert ask("05 0001 ff00") == "05 00 01 ff 00"
    assert ask("0f 0003 0002 01 02") == "0f 00 03 00 02"
    assert ask("01 0000 0008") == "01 01 53"
    assert ask("17 0064 0001 0064 0001 02 0007") == "17 02 00 07"
    assert ask("2b") == "ab 01"


@pytest.mark.parametrize(
    ("baud", "count"),
    [pytest.param(9600, 10, id="9600"), pytest.param(115200, 60, id="115200")],
)
def test_nothing_is_heard_before_a_uart_would_hear_it(simulated_line, port, baud, count):
    line = simulated_line(baud=baud, units={1: {"turnaround_ms": 7}})
    p = port(line)
    pdu = struct.pack(">BHH", 3, 0, count)
    characters = 8 + 5 + 2 * count
    for _ in range(5):
        got, took = p.ask(1, pdu, quiet_s=QUIET_S)
        assert len(got) == 2 + 2 * count
        assert took >= characters * 11 / baud + 0.007
    report = line.tell()
    assert report["answered"] == 5
    assert report["characters"] == 5 * characters
    allowed = 5 * (characters * 11 / baud + 0.007 + report["silence_s"])
    assert report["allowed_s"] == pytest.approx(allowed, abs=1e-5)
    assert report["elapsed_s"] >= report["allowed_s"]


def test_a_request_on_the_heels_of_an_answer_is_ignored(simulated_line, port):
    line = simulated_line(baud=9600, units={1: {}})
    p = port(line)
    assert p.ask(1, bytes.fromhex("03 0000 0001"))[0] == bytes.fromhex("03 02 03e8")
    assert p.ask(1, bytes.fromhex("03 0000 0001"), within_s=0.2)[0] == b""
    assert p.ask(1, bytes.fromhex("03 0000 0001"))[0] == bytes.fromhex("03 02 03e8")
    report = line.tell()
    assert (report["answered"], report["early"]) == (2, 1)


def test_units_are_dead_late_holey_and_narrow_as_they_are_told(simulated_line, port):
    units = {1: {"dead": True}, 2: {"max_registers": 10, "holes": [[5, 6]], "too_many": 2}, 4: {"late_ms": 300}}
    line = simulated_line(baud=115200, units=units)
    p = port(line)
    assert p.ask(1, bytes.fromhex("03 0000 0001"), within_s=0.1)[0] == b""
    assert p.ask(2, bytes.fromhex("03 0010 000b"))[0].hex() == "8302"
    assert p.ask(2, bytes.fromhex("03 0000 0006"), quiet_s=QUIET_S)[0].hex() == "8302"
    assert p.ask(2, bytes.fromhex("03 0000 0005"), quiet_s=QUIET_S)[0].hex()[:4] == "030a"
    assert p.ask(4, bytes.fromhex("03 0000 0001"), quiet_s=QUIET_S)[1] > 0.3
    line.tell(unit=1, dead=False)
    assert p.ask(1, bytes.fromhex("03 0000 0001"), quiet_s=QUIET_S)[0].hex() == "030203e8"
    report = line.tell(reset=True)
    assert (report["unanswered"], report["exceptions"], report["late"]) == (1, 2, 1)
    assert line.tell()["requests"] == 0


def test_a_broadcast_is_obeyed_by_all_and_answered_by_nobody(simulated_line, port):
    p = port(simulated_line(baud=115200, units={1: {}, 2: {}}))
    assert p.ask(0, bytes.fromhex("06 0000 0042"), within_s=0.1)[0] == b""
    for unit in (1, 2):
        assert p.ask(unit, bytes.fromhex("03 0000 0001"), quiet_s=QUIET_S)[0].hex() == "03020042"


def test_an_echo_comes_back_before_the_answer(simulated_line, port):
    p = port(simulated_line(baud=115200, echo=True, units={1: {}}))
    asked = bytes.fromhex("01 03 0000 0001")
    os.write(p.fd, asked + crc(asked))
    got = b""
    while len(got) < 8 + 7:
        got += os.read(p.fd, 100)
    answer = bytes.fromhex("01 03 02 03e8")
    assert got == asked + crc(asked) + answer + crc(answer)


def test_ascii_frames_are_answered_in_ascii(simulated_line, port):
    line = simulated_line(framing="ascii", baud=115200, bits=7, units={1: {}})
    p = port(line)
    os.write(p.fd, b":010300000001FB\r\n")
    got = b""
    while not got.endswith(b"\n"):
        got += os.read(p.fd, 100)
    assert got == b":01030203E80F\r\n"
    assert line.tell()["silence_s"] == 0


def test_the_port_goes_and_comes_back(simulated_line, port):
    line = simulated_line(baud=115200, units={1: {}})
    p = port(line)
    line.tell(unplug=True)
    assert not os.path.lexists(line.link)
    with pytest.raises(OSError, match=r"Errno 5"):
        os.write(p.fd, b"x")
    line.tell(plug=True)
    assert port(line).ask(1, bytes.fromhex("03 0000 0001"))[0].hex() == "030203e8"


def test_two_who_send_at_once_are_not_understood(simulated_line, port):
    line = simulated_line(baud=9600, units={1: {}, 2: {}})
    p = port(line)
    asked = bytes.fromhex("01 03 0000 000a")
    os.write(p.fd, asked + crc(asked))
    assert os.read(p.fd, 1) == b"\1"  # unit 1 has begun to answer
    garbage, _ = p.ask(2, bytes.fromhex("03 0000 0001"), within_s=0.3)
    assert len(garbage) == 4 + 2 * 10
    report = line.tell()
    assert (report["collisions"], report["early"], report["units"]["2"]) == (1, 1, 0)
