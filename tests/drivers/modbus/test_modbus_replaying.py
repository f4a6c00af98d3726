"""A recording served again: the driver that reads it gets what it got then."""

import asyncio

import pytest

from drivers.listening import listen_pty, listen_tcp
from drivers.modbus.driver import Driver
from drivers.modbus.frames.pdu import Request
from drivers.modbus.options import DeviceOptions
from drivers.modbus.tools.replaying import Player, Take, acceptor, framing_of, replay, takes_of
from drivers.modbus.tools.serving import Asked, Cutter, frame
from drivers.recording import Entry, Recording, parse
from drivers.stream import Memory
from gateway.clock import SystemClock
from gateway.driver import Replay
from gateway.errors import DeviceError
from gateway.metrics import Metrics
from gateway.model import Device, Tag

URLS = {"tcp": "tcp://h:1", "rtu": "rtu+tcp://h:1", "ascii": "ascii+tcp://h:1"}
TAGS = (
    Tag(name="flow", address="holding:100", type="float32"),
    Tag(name="level", address="holding:106", type="uint16"),
    Tag(name="door", address="discrete:3"),
    Tag(name="gone", address="input:9", type="int16"),
)


class Plant:
    """Unit 1: registers count up with each read, input 9 is not there; answers after 20 ms. Unit 2 is silent."""

    def __init__(self, framing):
        self.framing = framing
        self.reads = 0
        self.endpoint = Memory(self.accept)

    def accept(self, stream):
        self.stream = stream
        self.cutter = Cutter(self.framing)
        return self

    def on_data(self, data):
        for asked in self.cutter.receive(data):
            if asked.unit == 1:
                answer = frame(self.framing, asked, self.answer(asked.pdu))
                loop = asyncio.get_running_loop()
                loop.call_later(0.02, self.stream.write, answer[:3])
                loop.call_later(0.025, self.stream.write, answer[3:])

    def on_lost(self, error):
        pass

    def answer(self, pdu):
        function, count = pdu[0], int.from_bytes(pdu[3:5])
        if function == 4:
            return b"\x84\x02"
        if function == 2:
            return b"\x02\x01\x01"
        self.reads += 1
        words = b"".join((self.reads * 100 + i).to_bytes(2) for i in range(count))
        return bytes((function, len(words))) + words


def device(framing, unit=1, tags=TAGS):
    options = DeviceOptions(unit=unit, timeout="200ms")
    return Device(name="plc", driver="modbus", url=URLS[framing], options=options, tags=tags)


async def session(framing, endpoint, clock, *, rounds=3, lines=None, unit=1):
    """What the driver makes of some rounds of polling; `lines` get the recording."""
    mine = device(framing, unit)
    driver = Driver([mine], clock=clock, metrics=Metrics(), endpoint=endpoint)
    groups = Driver.compile(mine, mine.tags)
    if lines is not None:
        driver.record(lines.append)
    batches = []
    async with driver:
        for _ in range(rounds):
            for group in groups:
                try:
                    batch = await driver.read(group)
                except DeviceError as error:
                    batches.append(error.cause)
                else:
                    batches.append((group.names, list(batch.values), batch.quality, batch.raw))
            await asyncio.sleep(1)
    if lines is not None:
        driver.record(None)
    return batches


def recorded(run, clock, framing, **more):
    lines = []
    batches = run(session(framing, Plant(framing).endpoint, clock, lines=lines, **more))
    return "\n".join(lines), batches


def endpoint_of(text, framing, *, speed=1.0, told=None, served=None):
    recording = parse(text)
    player = Player(takes_of(recording))
    tell = (lambda _: None) if told is None else told.append
    accept = acceptor(
        player, framing, recorded=framing_of(recording), speed=speed, replay=served or Replay(""), tell=tell
    )
    return Memory(accept)


@pytest.mark.parametrize("framing", URLS)
def test_a_replay_gives_the_driver_what_it_got_then(run, clock, framing):
    text, batches = recorded(run, clock, framing)
    assert len({str(b) for b in batches}) >= 3
    assert run(session(framing, endpoint_of(text, framing), clock)) == batches


@pytest.mark.parametrize("framing", URLS)
@pytest.mark.parametrize("other", URLS)
def test_a_replay_speaks_another_framing_than_the_recording(run, clock, framing, other):
    text, batches = recorded(run, clock, framing)
    assert run(session(other, endpoint_of(text, other), clock)) == batches


def test_a_silent_unit_is_silent_again(run, clock):
    text, batches = recorded(run, clock, "tcp", unit=2, rounds=2)
    assert set(batches) == {"timeout"}
    assert run(session("tcp", endpoint_of(text, "tcp"), clock, unit=2, rounds=2)) == batches


def test_the_last_answer_repeats_when_a_replay_outlives_its_recording(run, clock):
    text, batches = recorded(run, clock, "tcp", rounds=2)
    found = run(session("tcp", endpoint_of(text, "tcp"), clock, rounds=5))
    half = len(batches) // 2
    assert found == [*batches, *batches[half:] * 3]


@pytest.mark.parametrize(("speed", "least", "most"), [(1.0, 0.02, 0.03), (2.0, 0.01, 0.015), (0.0, 0.0, 0.001)])
def test_answers_take_the_recorded_time_or_a_share_of_it(run, clock, speed, least, most):
    text, _ = recorded(run, clock, "rtu")
    served = Replay("")

    async def scene():
        heard = []

        class Ear:
            def on_data(self, data):
                heard.append(asyncio.get_running_loop().time())

        stream = await endpoint_of(text, "rtu", speed=speed, served=served).open(Ear(), timeout_s=1)
        asked = next(t for t in takes_of(parse(text)))
        began = asyncio.get_running_loop().time()
        stream.write(frame("rtu", Asked(1, asked.asked), asked.asked))
        await asyncio.sleep(1)
        return heard[-1] - began

    assert least <= run(scene()) <= most
    assert (served.exact, served.image, served.unknown) == (1, 0, 0)


def takes(*pairs, unit=1):
    return [Take(unit, asked, float(i), answer, 0.01) for i, (asked, answer) in enumerate(pairs)]


READ = Request(1, 3, 100, 3).pdu
GOOD = b"\x03\x06\0\1\0\2\0\3"


def test_registers_that_are_known_answer_reads_of_another_shape():
    player = Player(takes((READ, GOOD), (Request(1, 3, 103, 1).pdu, b"\x03\x02\0\x09")))
    reply = player.answer(1, Request(1, 3, 101, 3).pdu)
    assert (reply.how, reply.pdu, reply.delay_s) == ("image", b"\x03\x06\0\2\0\3\0\x09", 0.01)


def test_bits_that_are_known_answer_reads_of_another_shape():
    player = Player(takes((Request(1, 1, 8, 10).pdu, b"\x01\x02\x05\x02")))
    assert player.answer(1, Request(1, 1, 10, 8).pdu).pdu == b"\x01\x01\x81"


def test_the_image_follows_what_was_played():
    later = b"\x03\x06\0\x0b\0\x0c\0\x0d"
    player = Player(takes((READ, GOOD), (READ, later)))
    one = Request(1, 3, 101, 1).pdu
    assert player.answer(1, one).pdu == b"\x03\x02\0\2"
    player.answer(1, READ)
    assert player.answer(1, one).pdu == b"\x03\x02\0\2"
    player.answer(1, READ)
    assert player.answer(1, one).pdu == b"\x03\x02\0\x0c"


def test_a_recorded_write_shows_in_the_image():
    write = b"\x10\0\x65\0\1\2\0\x2a"
    player = Player(takes((READ, GOOD), (write, b"\x10\0\x65\0\1")))
    assert player.answer(1, Request(1, 3, 101, 1).pdu).pdu == b"\x03\x02\0\2"
    assert player.answer(1, write).pdu == b"\x10\0\x65\0\1"
    assert player.answer(1, Request(1, 3, 101, 1).pdu).pdu == b"\x03\x02\0\x2a"


@pytest.mark.parametrize("asked", [Request(1, 3, 99, 2).pdu, Request(1, 4, 100, 1).pdu, b"\x06\0\x64\0\1", b"\x2b"])
def test_what_is_not_in_the_recording_is_refused(asked):
    reply = Player(takes((READ, GOOD))).answer(1, asked)
    assert (reply.how, reply.pdu) == ("unknown", bytes((asked[0] | 0x80, 2)))


def test_a_unit_that_never_answered_stays_silent():
    reply = Player(takes((READ, GOOD))).answer(9, READ)
    assert (reply.how, reply.pdu) == ("unknown", None)


def test_a_refused_write_changes_nothing():
    write = b"\x06\0\x65\0\x2a"
    player = Player(takes((READ, GOOD), (write, b"\x86\x02")))
    player.answer(1, write)
    assert player.answer(1, Request(1, 3, 101, 1).pdu).pdu == b"\x03\x02\0\2"


def test_a_refused_read_fills_no_image():
    player = Player(takes((READ, b"\x83\x02")))
    assert player.answer(1, READ).pdu == b"\x83\x02"
    assert player.answer(1, Request(1, 3, 100, 1).pdu).how == "unknown"


def test_pipelined_answers_find_their_requests_in_any_order():
    asked = [Request(1, 3, n, 1).pdu for n in (1, 2)]

    def mbap(transaction, pdu):
        return frame("tcp", Asked(1, pdu, transaction), pdu)

    entries = (
        Entry(0.0, ">", mbap(1, asked[0]) + mbap(2, asked[1])),
        Entry(0.1, "<", mbap(2, b"\x03\x02\0\2")),
        Entry(0.3, "<", mbap(1, b"\x03\x02\0\1")),
    )
    found = takes_of(Recording({"framing": "tcp"}, entries))
    assert [(t.answer, round(t.delay_s, 3)) for t in found] == [(b"\x03\x02\0\1", 0.3), (b"\x03\x02\0\2", 0.1)]


def test_an_echo_is_not_taken_for_the_answer_to_a_write():
    read, write = Request(1, 3, 5, 1).pdu, b"\x06\0\5\0\1"

    def wire(pdu):
        return frame("rtu", Asked(1, pdu), pdu)

    entries = (
        Entry(0.0, ">", wire(read)),
        Entry(0.01, "<", wire(read)),
        Entry(0.02, "<", wire(b"\x03\x02\0\7")),
        Entry(1.0, ">", wire(write)),
        Entry(1.01, "<", wire(write)),
        Entry(2.0, ">", wire(read)),
        Entry(2.02, "<", wire(read) + wire(b"\x03\x02\0\7")),
    )
    found = takes_of(Recording({"framing": "rtu"}, entries))
    assert [t.answer for t in found] == [b"\x03\x02\0\7", None, b"\x03\x02\0\7"]


def test_on_a_bus_what_was_heard_is_sent_as_it_was_noise_included(run):
    read = Request(1, 3, 5, 1).pdu
    answer = frame("rtu", Asked(1, read), b"\x03\x02\0\7")
    text = "\n".join([
        "# headgate recording 1", "# framing: rtu",
        f"0 > {frame('rtu', Asked(1, read), read).hex()}", f"0.1 < 00ff{answer[:4].hex()}", f"0.2 < {answer[4:].hex()}",
    ])  # fmt: skip

    async def scene():
        heard = []

        class Ear:
            def on_data(self, data):
                heard.append(data)

        stream = await endpoint_of(text, "rtu").open(Ear(), timeout_s=1)
        stream.write(frame("rtu", Asked(1, read), read))
        await asyncio.sleep(1)
        return heard

    assert run(scene()) == [b"\0\xff" + answer[:4], answer[4:]]


def test_each_unknown_request_is_told_once(run):
    text = f"# headgate recording 1\n# framing: tcp\n0 > 0001000000060103000500{1:02x}\n1 < 000100000005010302{7:04x}"
    told, served = [], Replay("")

    async def scene():
        class Ear:
            def on_data(self, data):
                pass

        stream = await endpoint_of(text, "tcp", told=told, served=served).open(Ear(), timeout_s=1)
        for _ in range(3):
            stream.write(frame("tcp", Asked(1, b""), Request(1, 3, 9, 1).pdu))
        await asyncio.sleep(1)

    run(scene())
    assert told == ["unit 1: not in the recording: 03 00 09 00 01"]
    assert served.unknown == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hello", "no recording"),
        ("# headgate recording 1\n# framing: smoke", "framing 'smoke'"),
        ("# headgate recording 1\n# framing: rtu\n0 = opened", "holds no request"),
    ],
)
def test_what_cannot_be_replayed_says_why(run, text, words):
    async def scene():
        async with replay(text, listen="tcp://127.0.0.1:0", speed=0, tell=print):
            pass

    with pytest.raises(ValueError, match=words):
        asyncio.run(scene())


RECORDED = "# headgate recording 1\n# framing: tcp\n0 > 000100000006010300050001\n1 < 0001000000050103020007"


@pytest.mark.parametrize("listen", ["udp://127.0.0.1:5", "tcp://", "rtu://host/x", "tcp://h:99999", "rtu:///dev/null"])
def test_where_nobody_can_listen_is_said(listen):
    async def scene():
        async with replay(RECORDED, listen=listen, speed=0, tell=print):
            pass

    with pytest.raises(ValueError, match=r"\. |listen"):
        asyncio.run(scene())


async def _value(url):
    device = Device(name="d", driver="modbus", url=url, options=DeviceOptions(timeout="5s"))
    driver = Driver([device], clock=SystemClock(), metrics=Metrics())
    (group,) = Driver.compile(device, [Tag(name="x", address="holding:5")])
    async with driver:
        return list((await driver.read(group)).values)


def test_a_replay_is_reached_over_tcp_and_over_a_pseudo_terminal(tmp_path):
    async def scene():
        found = []
        for listen in ("tcp://127.0.0.1:0", "rtu+tcp://127.0.0.1:0", f"rtu://{tmp_path}/port", f"ascii://{tmp_path}/p"):
            async with replay(RECORDED, listen=listen, speed=0, tell=print) as served:
                found.append(await _value(served.where))
        return found

    assert asyncio.run(scene()) == [[7]] * 4
    assert not list(tmp_path.iterdir())


def test_a_port_that_is_taken_is_said_with_the_cure():
    async def scene():
        async with listen_tcp("127.0.0.1", 0, lambda _: None) as port, listen_tcp("127.0.0.1", port, lambda _: None):
            pass

    with pytest.raises(ValueError, match="Is the port taken"):
        asyncio.run(scene())


def test_a_link_left_by_a_killed_run_is_replaced_and_a_file_is_not(tmp_path):
    async def listen(path):
        async with listen_pty(path, lambda _: None) as found:
            return found.is_symlink()

    stale = tmp_path / "port"
    stale.symlink_to("/dev/pts/none")
    assert asyncio.run(listen(stale))
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="Name a path"):
        asyncio.run(listen(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "mine"
