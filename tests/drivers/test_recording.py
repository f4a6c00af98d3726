"""Recordings as text, and the tape that makes them."""

import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.recording import MARK, Entry, head_lines, parse
from drivers.stream import Memory
from drivers.tape import Tape
from gateway.errors import LineError


class Ear:
    """Hears a stream, and says back what it heard where it is an echo."""

    def __init__(self, stream=None):
        self.stream = stream
        self.heard = []
        self.lost = None

    def on_data(self, data):
        self.heard.append(data)
        if self.stream is not None:
            self.stream.write(data[::-1])

    def on_lost(self, error):
        self.lost = error


entries = st.lists(
    st.one_of(
        st.builds(Entry, st.just(0.0), st.sampled_from(["<", ">"]), st.binary(min_size=1, max_size=300)),
        st.builds(
            Entry, st.just(0.0), st.just("="), st.just(b""), st.from_regex(r"[!-~][ -~]{0,30}[!-~]", fullmatch=True)
        ),
    ),
    max_size=20,
)


@given(entries, st.lists(st.floats(0, 1000), min_size=20, max_size=20).map(sorted))
def test_what_is_written_is_read_back(events, times):
    events = [Entry(round(at, 6), e.kind, e.data, e.text) for at, e in zip(times, events, strict=False)]
    text = "\n".join([*head_lines({"url": "tcp://h:1", "framing": "tcp"}), *map(str, events)])
    found = parse(text)
    assert dict(found.head) == {"url": "tcp://h:1", "framing": "tcp"}
    assert list(found.entries) == events


def test_a_recording_reads_as_the_documentation_shows_it():
    text = f"""{MARK}
# driver: modbus
# url: tcp://10.0.0.5:502

# somebody wrote this: by hand
0.000000 = opened
0.001204 > 00 01 00 00 00 06 01 03 00 64 00 01

0.004410 < 0001000000050103022b
"""
    found = parse(text)
    assert found.head == {"driver": "modbus", "url": "tcp://10.0.0.5:502"}
    assert [e.kind for e in found.entries] == ["=", ">", "<"]
    assert found.entries[2].data.hex() == "0001000000050103022b"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("0.5 > 0G", "line 3: expected bytes in hexadecimal after >"),
        ("now > 00", "line 3: expected seconds"),
        ("0.5 ? 00", "line 3: expected seconds"),
        ("0.05 < 00", "line 3: 0.05 s is before the line above"),
    ],
)
def test_a_wrong_line_is_named(line, words):
    with pytest.raises(ValueError, match=words):
        parse(f"{MARK}\n0.100000 = opened\n{line}")


@given(st.text(max_size=200))
def test_any_text_is_a_recording_or_a_valueerror(text):
    for whole in (text, f"{MARK}\n{text}"):
        with contextlib.suppress(ValueError):  # anything else is a bug
            parse(whole)


def test_while_nobody_records_the_tape_is_not_in_the_way(run):
    async def scene():
        tape = Tape(Memory(Ear), {})
        ear = Ear()
        stream = await tape.open(ear, timeout_s=1)
        assert stream.write == stream._stream.write
        assert stream.on_data == ear.on_data

    run(scene())


def test_a_recording_begins_and_ends_in_the_middle_of_a_connection(run):
    async def scene():
        lines = []
        tape = Tape(Memory(Ear), {"url": "memory:"})
        ear = Ear()
        stream = await tape.open(ear, timeout_s=1)
        stream.write(b"\x01\x02")
        await asyncio.sleep(0.5)
        tape.record(lines.append, started="then")
        stream.write(b"\x03\x04")
        await asyncio.sleep(0.25)
        tape.record(None, started="")
        stream.write(b"\x05\x06")
        await asyncio.sleep(0.5)
        assert ear.heard == [b"\x02\x01", b"\x04\x03", b"\x06\x05"]
        return lines

    found = parse("\n".join(run(scene())))
    assert found.head == {"url": "memory:", "started": "then"}
    assert [(e.kind, e.data, e.text) for e in found.entries] == [
        ("=", b"", "already open"),
        (">", b"\x03\x04", ""),
        ("<", b"\x04\x03", ""),
        ("=", b"", "end of the recording"),
    ]


def test_openings_losses_and_failures_are_told(run):
    class Shy:
        """Opens once, then never."""

        def __init__(self):
            self.ears = []

        async def open(self, receiver, *, timeout_s):
            if self.ears:
                raise LineError("nobody is there", cause="offline")
            memory = Memory(lambda stream: self.ears.append(stream) or Ear())
            return await memory.open(receiver, timeout_s=timeout_s)

        def __str__(self):
            return "shy:"

    async def scene():
        lines = []
        shy = Shy()
        tape = Tape(shy, {})
        tape.record(lines.append, started="now")
        ear = Ear()
        await tape.open(ear, timeout_s=1)
        shy.ears[0].close()
        await asyncio.sleep(0.1)
        assert "closed by the peer" in str(ear.lost)
        with pytest.raises(LineError, match="nobody"):
            await tape.open(ear, timeout_s=1)
        return lines

    texts = [e.text for e in parse("\n".join(run(scene()))).entries]
    assert texts[0] == "opened"
    assert texts[1].startswith("lost: ")
    assert texts[2] == "not opened: nobody is there"


def test_a_stream_that_is_closed_by_us_says_so_and_is_forgotten(run):
    async def scene():
        lines = []
        tape = Tape(Memory(Ear), {})
        tape.record(lines.append, started="now")
        stream = await tape.open(Ear(), timeout_s=1)
        stream.close()
        await stream.wait_closed()
        assert not tape._taps
        return lines

    assert [e.text for e in parse("\n".join(run(scene()))).entries] == ["opened", "closed"]
