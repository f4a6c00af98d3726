"""A search for a wrong value: faults at every place of a polling session, one by one, and several by chance.

The registers of the simulated units say where they are from (unit, address) and when (epoch), so that a value which is
delivered for the wrong request is known as wrong. Asserted in each run: no value is wrong, the session ends, units
that no fault touched get all their values, and in the end everybody does.
"""

import asyncio
import random
from dataclasses import dataclass
from functools import partial

import pytest

from drivers.modbus.frames.pdu import Failure, Request
from gateway.errors import LineError

TIMEOUT_S = 0.5
ROUNDS = 3
FRAMINGS = ("rtu", "ascii")

A = Request(1, 3, 0, 2)
B = Request(1, 3, 10, 2)  # the same shape as A: only the values tell them apart
C = Request(1, 3, 20, 3)
D = Request(1, 4, 30, 2)
E = Request(2, 3, 0, 2)  # the same question as A, to another unit
F = Request(2, 3, 40, 2)
G = Request(3, 3, 10, 1)
H = Request(3, 3, 70, 1)  # a hole: exception 2
LINES = ({"chunk": 1}, {"chunk": 8}, {"chunk": 600, "character_s": 0.0})
"""A port that gives each character at once, one that collects some, and a serial device server that gives frames."""
LATE_S = (0.45, *(0.5 + n / 100 for n in range(1, 16)), 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3)
"""All but the first are later than the timeout, and earlier than `max_late`."""
LAST_FAULT = 28
"""The request with which the last round begins. It comes later than `max_late` after all others."""
SESSION = ((A, B, A, D), (E,), (A, B, C), (G, H), (F, E), (B, A))


@dataclass
class Run:
    """What came of a session."""

    wire: object
    values: list  # (round, request, answer)
    count: object
    lines_lost: int


def play(kit, wire_kit, framing, *faults, epochs="round", character_s=None, **options):
    """Three rounds of the session on a fresh line, the last one when everything is over; `faults` are put in before.

    `epochs`: the registers change each round, with each answer, or never.
    """
    wire = wire_kit.Wire(framing, **options, **({} if character_s is None else {"character_s": character_s}))
    metrics = kit.Metrics()
    crashes = []
    run = Run(wire, [], lambda name: sum(v for n, _, v in metrics if n == name), 0)

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: crashes.append(context))
        bus = wire_kit.bus_on(wire, clock=kit.VirtualClock(), metrics=metrics, timeout_s=TIMEOUT_S)
        for fault in faults:
            fault(wire)
        wire.ages = epochs == "answer"
        await bus.open()
        for turn in range(ROUNDS):
            if epochs == "round":
                wire.epoch = turn
            if turn == ROUNDS - 1:
                wire.heal()
                await asyncio.sleep(5 * TIMEOUT_S)
            for requests in SESSION:
                began = wire.epoch
                try:
                    exchange = await bus.fetch(requests, timeout_s=TIMEOUT_S, gap_s=0.0)
                except LineError:
                    run.lines_lost += 1
                    await bus.close()
                    await bus.open()
                    continue
                run.values += [
                    (turn, *pair, began, wire.epoch) for pair in zip(requests, exchange.answers, strict=True)
                ]
            await asyncio.sleep(0.1)
        await bus.close()
        assert asyncio.get_running_loop().time() < 1000 + ROUNDS * len(SESSION) * 8 * TIMEOUT_S

    with asyncio.Runner(loop_factory=kit.VirtualLoop) as runner:
        runner.run(main())
    assert not crashes, crashes[0]
    return run


def wrong(run, slack=0):
    """The first value that is not what it should be; None where all are right."""
    for turn, request, answer, first, last in run.values:
        if isinstance(answer, bytes):
            words = [int.from_bytes(answer[i : i + 2]) for i in range(0, len(answer), 2)]
            for i, word in enumerate(words):
                unit, address, seen = word >> 13, word >> 7 & 63, word & 127
                if (unit, address) != (request.unit, request.address + i & 63) or not first - slack <= seen <= last:
                    return f"round {turn}: {request} got {answer.hex(' ')}: unit {unit} address {address} epoch {seen}"
        elif isinstance(answer, Failure) and answer.cause == "exception:2" and request is not H:
            return f"round {turn}: {request} got the exception of another"
    return None


def lacking(run, turn, units):
    """Requests of these units that got no value in that round."""
    return [
        r
        for t, r, answer, *_ in run.values
        if t == turn and r.unit in units and not isinstance(answer, bytes) and r is not H
    ]


def check(run, units=(), *, slack=0, what=""):
    assert (found := wrong(run, slack)) is None, f"{what}: {found}"
    last = max(turn for turn, *_ in run.values)
    assert not lacking(run, last, {1, 2, 3}), f"{what}: {lacking(run, last, {1, 2, 3})} in the end"
    for turn in range(last):
        assert not lacking(run, turn, units), f"{what}: {lacking(run, turn, units)} in round {turn}"
    assert not run.lines_lost, what


@pytest.mark.parametrize("epochs", ["round", "never", "answer"])
@pytest.mark.parametrize("chunk", [1, 7, 600])
@pytest.mark.parametrize("framing", FRAMINGS)
def test_without_a_fault_every_request_is_sent_once_and_answered(kit, wire_kit, framing, chunk, epochs):
    run = play(kit, wire_kit, framing, chunk=chunk, epochs=epochs)
    check(run, {1, 2, 3})
    assert len(run.wire.asked) == 3 * sum(map(len, SESSION))
    assert run.count("modbus_noise_bytes_total") == run.count("modbus_crc_errors_total") == 0


# --- faults, one at a time ------------------------------------------------------------------------------------------

NOISE = (b"\0", b"\xff", b"\1\3\4", b"\1\x83", b":", b":010304", b"\r\n")


def byte_faults(at):
    """What can happen to the byte at that place: another before it, none, a bit turned over, a pause."""
    for noise in NOISE:
        yield f"noise {noise!r} before byte {at}", at_byte(at, lambda byte, noise=noise: noise + byte)
    yield f"byte {at} lost", at_byte(at, lambda _: b"")
    for bit in range(8):
        yield f"bit {bit} of byte {at}", at_byte(at, lambda byte, bit=bit: bytes((byte[0] ^ 1 << bit,)))
    for pause_s in (0.01, 0.06, 0.2, 0.45):
        yield f"pause of {pause_s} s before byte {at}", at_byte(at, lambda _, pause_s=pause_s: pause_s)


def at_byte(at, change):
    def prepare(wire):
        wire.at_byte[at] = change

    return prepare


def answer_faults(number, size):
    """What can happen to an answer of that many characters: it is silent, late, cut short, or comes again."""
    yield f"no answer {number}", lambda wire: wire.instead.update({number: lambda _: []})
    for delay_s in LATE_S:
        yield f"late answer {number}, after {delay_s} s", partial(instead, number, delay_s, size)
    for length in range(1, size):
        yield f"answer {number} cut to {length}", partial(instead, number, 0.005, length)
    for delay_s in (0.0, 0.001, 0.005, 0.01, 0.02, 0.04):
        yield f"answer {number} again after {delay_s} s", partial(again, number, 0, delay_s)
    for when in range(1, min(7, LAST_FAULT - number)):
        for delay_s in (0.0, 0.001, 0.004, 0.006, 0.02):
            yield (
                f"answer {number} again {delay_s} s after request {number + when}",
                partial(again, number, when, delay_s),
            )


def instead(number, delay_s, length, wire):
    """The beginning of the answer, after so long."""

    def answer(heard):
        frame = wire.frame(heard.unit, wire.answer(heard.unit, heard.pdu))
        wire.loop.call_later(delay_s, wire.say, frame[:length])
        return []

    wire.instead[number] = answer


def again(number, when, delay_s, wire):
    """The answer as usual, and once more when it was said, or so many requests later."""
    said = []

    def answer(heard):
        pdu = wire.answer(heard.unit, heard.pdu)
        said[:] = [wire.frame(heard.unit, pdu), wire.loop.time() + 3 * TIMEOUT_S]
        return [pdu]

    def repeat(_):
        # Of what never came whole nobody knows that it comes again, nor after `max_late`.
        if said and not wire.was_touched(number) and wire.loop.time() + delay_s < said[1]:
            wire.say(said[0], delay_s=delay_s)

    wire.instead[number] = answer
    (wire.before[number + when] if when else wire.after[number]).append(repeat)


def foreign_faults(number, request):
    """What others say, before the answer, after it, and a little later."""

    def put(place, delay_s, *parts):
        def prepare(wire):
            def act(heard):
                for unit, pdu in parts:
                    wire.say(wire.frame(unit, pdu), delay_s=delay_s)

            getattr(wire, place)[number].append(act)

        return prepare

    def answer(unit, address):
        words = b"".join((unit << 13 | (address + i & 63) << 7).to_bytes(2) for i in range(request.count))
        return unit, bytes((request.function, len(words))) + words

    def asked(unit, address):
        return unit, bytes((request.function, 0, address, 0, request.count))

    others = {
        "an echo": (asked(request.unit, request.address),),
        "an answer of unit 5": (answer(5, request.address),),
        "another master and unit 5": (asked(5, 50), answer(5, 50)),
        "another master and another of ours": (asked(request.unit % 3 + 1, 50), answer(request.unit % 3 + 1, 50)),
        "another master and the same unit": (asked(request.unit, 50), answer(request.unit, 50)),
        "another master and silence": (asked(request.unit, 50),),
    }
    for name, parts in others.items():
        for place in ("before", "after"):
            for delay_s in (0.0, 0.0045, 0.02):
                yield f"{name} {delay_s} s {place} answer {number}", put(place, delay_s, *parts)


def all_faults(kit, wire_kit, framing):
    """Every fault at every place of the first two rounds: what it is, which unit it touches, and how it is put in."""
    wire = play(kit, wire_kit, framing).wire
    requests = [request for step in SESSION * 2 for request in step]
    for (number, unit, first, size), request in zip(wire.answers, requests, strict=False):
        found = [fault for at in range(first, first + size) for fault in byte_faults(at)]
        found += [*answer_faults(number, size), *foreign_faults(number, request)]
        yield from ((what, unit, prepare) for what, prepare in found)


def search(kit, wire_kit, framing, chosen, *, dice, epochs=None, echo=False):
    """Play a session for each group of faults, and tell all that went wrong. `dice` decide what is left open."""
    found = []
    for faults in chosen:
        what = " and ".join(name for name, _, _ in faults)
        touched = {unit for _, unit, _ in faults}
        well = {1, 2, 3} - touched if len(faults) == 1 and " master " not in what else set()
        prepared = [prepare for _, _, prepare in faults]
        if echo:
            prepared.append(lambda wire: setattr(wire, "echo", True))
        changes = epochs or dice.choice(("round", "answer", "never"))
        slack = 0
        if len(faults) > 1 or " again " in what:  # a copy for the same request is as old as it is
            slack = 1 if changes == "round" and len(faults) == 1 else 127
        try:
            run = play(kit, wire_kit, framing, *prepared, epochs=changes, **dice.choice(LINES))
            check(run, well, slack=slack, what=what)
        except AssertionError as error:
            found.append(f"registers change each {changes}: {str(error).splitlines()[0]}")
    assert not found, f"{len(found)} of {len(chosen)}:\n" + "\n".join(found[:20])


@pytest.fixture
def faults(kit, wire_kit):
    return lambda framing: list(all_faults(kit, wire_kit, framing))


@pytest.mark.parametrize("echo", [False, True], ids=["no-echo", "echo"])
@pytest.mark.parametrize("framing", FRAMINGS)
def test_no_fault_at_any_place_makes_a_wrong_value_or_harms_another_unit(kit, wire_kit, faults, framing, echo):
    """Some of all faults; the whole search is below."""
    chosen = [[fault] for fault in faults(framing)[17 :: 150 if echo else 75]]
    search(kit, wire_kit, framing, chosen, dice=random.Random(1), echo=echo)


@pytest.mark.parametrize("framing", FRAMINGS)
def test_no_copy_late_answer_or_foreign_frame_makes_a_wrong_value(kit, wire_kit, faults, framing):
    """The faults that no checksum finds, and so the ones that want the most care; more of them than of the others."""
    every = [[fault] for fault in faults(framing)]
    late = [chosen for chosen in every if chosen[0][0].startswith("late")]
    others = [chosen for chosen in every if any(word in chosen[0][0] for word in (" again ", " master ", " echo "))]
    search(kit, wire_kit, framing, late[2::7] + others[7::17], dice=random.Random(2))


@pytest.mark.parametrize("framing", FRAMINGS)
def test_no_three_faults_together_make_a_wrong_value(kit, wire_kit, faults, framing):
    dice, every = random.Random(3), faults(framing)
    search(kit, wire_kit, framing, [dice.sample(every, 3) for _ in range(30)], dice=dice)


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("echo", [False, True], ids=["no-echo", "echo"])
@pytest.mark.parametrize("epochs", ["round", "answer", "never"])
@pytest.mark.parametrize("framing", FRAMINGS)
def test_every_fault_at_every_place(kit, wire_kit, faults, framing, epochs, echo):
    chosen = [[fault] for fault in faults(framing)]
    search(kit, wire_kit, framing, chosen, dice=random.Random(4), epochs=epochs, echo=echo)


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("many", [2, 3, 5])
@pytest.mark.parametrize("framing", FRAMINGS)
def test_thousands_of_faults_together(kit, wire_kit, faults, framing, many):
    dice, every = random.Random(many), faults(framing)
    chosen = (dice.sample(every, many) for _ in range(4000))
    search(kit, wire_kit, framing, [faults for faults in chosen if not is_beyond_telling(faults)], dice=dice)


def is_beyond_telling(faults):
    """A copy, and an answer that comes later than a moment: the head of lines/bus.py says why nobody can tell."""
    names = [name for name, _, _ in faults]
    waits = ("pause of 0.06", "pause of 0.2", "pause of 0.45", "late answer")
    return any(" again " in name for name in names) and any(name.startswith(waits) for name in names)
