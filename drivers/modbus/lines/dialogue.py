"""One request at a time on a bus, from the question to an answer that can be believed. Pure: time is an argument.

    idle ──ask──▶ waiting for silence ──look gives the frame──▶ out ──▶ answered: `take` gives what came of it
                          ▲                                      │
                          └── damaged, or held for nothing ──────┘

| what is heard while a request is out               | what follows                                                  |
|----------------------------------------------------|---------------------------------------------------------------|
| its answer, an exception included                  | it is believed, or held back for a moment where doubt.py says |
| the request itself                                 | our echo: skipped                                             |
| another frame                                      | counted; what the unit owed is paid; an answer is awaited on  |
| bytes that must have been the answer, then nothing | asked again, `retries` times                                  |
| other bytes, or nothing, until the deadline        | "timeout": the answer is owed from now on                     |

A write is never sent twice: to do a thing again could do harm. Where a write is repeated by its answer (functions 5, 6
and 22), an echo would pass for the answer; on a line of which it is not known whether it echoes, something is read from
the same address before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from drivers.modbus.frames.framer import Framer
from drivers.modbus.frames.pdu import READ_COILS, READ_HOLDING_REGISTERS, WRITE_COIL, WRITE_COILS, Failure, Request
from drivers.modbus.lines import doubt
from drivers.modbus.lines.doubt import Unit
from drivers.modbus.lines.pace import Pace
from drivers.modbus.lines.statistics import Statistics
from drivers.modbus.lines.url import Echo
from gateway.metrics import Counter

_NEVER = float("inf")
_BROADCAST = 0
_TURNAROUND_S = 0.1
"""What units get to obey a broadcast, before the next request [V1.02 2.4.1: typically 100 to 200 ms]."""
_CHUNK = 20
"""So many characters a UART or its driver may collect before it passes them on."""
_ECHOLESS = 3
"""After so many answers without an echo before them, a line no longer counts as one that echoes."""
_BABBLE_S = 1.0
"""After so long, a request is sent into noise that never ends: it fails, and somebody hears of it."""
_LONGEST_PDU = 253
_MAX_LATE = 3.0
"""How long after its request an answer may come, in timeouts, where the file does not say."""
_RETRIES = 2


@dataclass(frozen=True, slots=True)
class Counters:
    """What happens on a line besides questions and answers."""

    foreign: Counter
    noise: Counter
    copies: Counter


class _Question:
    """A request and how far it has come. `wish` is what was asked for where `request` only finds out about the echo."""

    __slots__ = (
        "asked",
        "deadline",
        "echoed",
        "gap_s",
        "held",
        "held_copy",
        "held_until",
        "is_out",
        "judged",
        "left_at",
        "moment_s",
        "others_answered",
        "request",
        "sent_at",
        "since",
        "stranger",
        "suspect",
        "timeout_s",
        "wish",
    )

    def __init__(
        self, request: Request, timeout_s: float, gap_s: float, since: float, *, others_answered: bool
    ) -> None:
        self.request = request
        self.timeout_s = timeout_s
        self.gap_s = gap_s
        self.since = since  # since when the line is wanted for it
        self.others_answered = others_answered
        self.wish: Request | None = None
        self.asked = 0  # how often
        self.is_out = False  # sent, and neither answered nor given up
        self.sent_at = self.left_at = self.deadline = self.held_until = 0.0
        self.moment_s = timeout_s  # how long to wait for another answer, see doubt.py
        self.held: bytes | None = None  # an answer that may be another's
        self.held_copy = False  # it is known to have been the answer to another request
        self.suspect: bytes | None = None  # one that was held for nothing: the same again is the answer
        self.echoed = False
        self.judged = 0  # how many bytes were there when they were found to prove nothing
        self.stranger: int | None = None  # another unit that spoke meanwhile


class Dialogue:
    """The line's side that asks.

    `units` are the line's own; a tool may ask others. `character_s` is how long a character takes on the line, 0 where
    nobody counts. `max_late_s` and `retries` say for a unit how late an answer may come and how often a damaged one is
    asked for again. `silences` counts requests to own units without an answer since somebody answered, `silent` holds
    these: that nobody is at a number says nothing.
    """

    def __init__(
        self,
        framer: Framer,
        *,
        units: frozenset[int],
        character_s: float,
        max_late_s: Mapping[int, float],
        retries: Mapping[int, int],
        echo: Echo,
        statistics: Statistics,
        counters: Counters,
    ) -> None:
        self._framer = framer
        self._own = units
        self._character_s = character_s
        self._silence_s = Pace(character_s).silence_s
        self._max_late_s = max_late_s
        self._retries = retries
        self._echo_wish = echo
        self._statistics = statistics
        self._counters = counters
        self._units: dict[int, Unit] = {}  # what they owe outlives a connection
        self.reset()

    def reset(self) -> None:
        """Begin on a new connection. What the units owe is not forgotten."""
        self._counters.noise.value += self._framer.clear()
        self._question: _Question | None = None
        self._outcome: bytes | Failure | None = None
        self._wanted: tuple[Request, ...] = ()
        self._echo = self._echo_wish
        self._echoless = 0  # answers in a row without an echo, on a line that had one
        self._free_at = self._heard_at = -_NEVER
        self.has_answered = False
        self.silences = 0
        self.silent: set[int] = set()

    def __repr__(self) -> str:
        question = self._question
        state = "idle" if question is None else "out" if question.is_out else "waits for silence"
        return f"<dialogue {state}, echo {self._echo}>"

    # --- between requests ---

    @property
    def is_idle(self) -> bool:
        """Whether another request may be asked."""
        return self._question is None

    def free_at(self, since: float) -> float:
        """When the line has been silent for long enough.

        Whoever has wanted it `since` then and met nothing but noise sends all the same after a while.
        """
        quiet_s = max(self._silence_s, doubt.MOMENT_S) if self._framer.rest else self._silence_s
        return max(self._free_at, min(self._heard_at + quiet_s, since + _BABBLE_S))

    def ready_at(self, number: int, now: float) -> float:
        """When that unit may be asked: after its gap, and when it owes nothing."""
        unit = self._unit(number)
        return max(unit.quiet_until, unit.barred_until(now))

    def refusal(self, request: Request, now: float, *, patient: bool) -> Failure | None:
        """Why a request is not asked at all. `patient`: it rather waits for what the unit owes than be refused."""
        if request.unit == _BROADCAST and not request.is_write:
            return Failure(
                "config", "unit 0 is everybody on the line, and nobody answers. Use the device's own", "unit"
            )
        unit = self._unit(request.unit)
        barred_s = unit.barred_until(now) - now
        if barred_s <= 0 or patient or unit.is_well or not any(owed.ours for owed in unit.owed):
            return None
        text = f"an earlier answer may still come, the unit is asked again in {barred_s:.1f} s (max_late)"
        return Failure("timeout", text, "unit")

    def ask(self, request: Request, timeout_s: float, gap_s: float, *, since: float, others_answered: bool) -> None:
        """Take on a request. `others_answered`: the unit answered other requests of the same read."""
        self._question = _Question(request, timeout_s, gap_s, since, others_answered=others_answered)

    def take(self) -> bytes | Failure | None:
        """What came of the request, once."""
        outcome, self._outcome = self._outcome, None
        return outcome

    # --- heard ---

    def receive(self, data: bytes, now: float) -> None:
        """Bytes from the line, cut anywhere."""
        self._heard_at = now
        for number, pdu in self._framer.receive(data, self._wanted):
            self._on_frame(number, pdu, now)

    def _on_frame(self, number: int, pdu: bytes, now: float) -> None:
        """A frame with the right checksum: our echo, an answer, or neither."""
        question = self._question
        if question is None or not question.is_out or number != question.request.unit:
            self._on_stranger(number, pdu, now)
            return
        request = question.request
        may_be_answer = number != _BROADCAST and doubt.fits(request, pdu)
        if pdu == request.pdu and (not may_be_answer or (self._echo == "on" and not question.echoed)):
            question.echoed = True
        elif may_be_answer:
            self._on_answer(question, pdu, now)
        else:
            self._on_stranger(number, pdu, now)

    def _on_answer(self, question: _Question, pdu: bytes, now: float) -> None:
        """A frame that fits the request: believe it, or wait whether another one follows."""
        request = question.request
        unit = self._units[request.unit]
        if question.held is not None:
            self._counters.copies.value += 1
            if pdu == question.held:
                return
            doubtful = unit.is_copy_of_another(request, pdu, now)
        else:
            doubtful = pdu != question.suspect and unit.is_doubtful(request, pdu, question.sent_at, now)
        if doubtful:
            question.held_copy = unit.is_copy_of_another(request, pdu, now)
            if not question.held_copy:
                unit.note(pdu, request.pdu, now)
            question.held = pdu
            question.held_until = now + question.moment_s + self._line_s(request)
        else:
            self._believe(question, pdu, now)

    def _believe(self, question: _Question, pdu: bytes, now: float) -> None:
        """It is the answer."""
        request = question.request
        unit = self._units[request.unit]
        tally = self._statistics.tallies[request.unit]
        tally.exceptions.value += pdu[0] >> 7
        if question.asked == 1 and question.held is None:
            tally.note(max(0.0, now - question.left_at - self._framer.length(len(pdu)) * self._character_s))
        self.has_answered = True
        self._note_life()
        self._learn_echo(question)
        is_repeated = unit.believe(request, pdu, now)
        clear_at = now + question.moment_s
        if question.suspect is not None and pdu != question.suspect and question.held_copy:
            unit.expect_surplus(request, now + unit.window_s)  # a copy came, and the answer itself is late
        elif question.asked > 1:
            unit.expect_surplus(request, clear_at, clear_at=clear_at)
        elif is_repeated and (until := question.left_at + question.moment_s) > now:
            unit.expect_surplus(request, until, clear_at=clear_at)
        self._finish(question, request.values_of(pdu), now)

    def _learn_echo(self, question: _Question) -> None:
        """What an answered request tells of the line; one that is repeated by its answer tells nothing."""
        if self._echo_wish != "auto" or doubt.fits(question.request, question.request.pdu):
            return
        self._echoless = 0 if question.echoed else self._echoless + 1
        if question.echoed:
            self._echo = "on"
        elif self._echo == "auto" or self._echoless >= _ECHOLESS:
            self._echo = "off"

    def _on_stranger(self, number: int, pdu: bytes, now: float) -> None:
        """A frame that is no answer to what is under way: too late, sent twice, or between others."""
        unit, question = self._units.get(number), self._question
        if unit is not None and (owed := unit.pay(pdu, now)) is not None:
            if owed.ours:
                self._statistics.tallies[number].late.value += 1
                self._note_life()
            self._want()
            return
        if unit is not None and unit.is_copy(pdu, now):
            self._counters.copies.value += 1
            return
        self._counters.foreign.value += 1
        asked = doubt.read_of(number, pdu)
        if asked is not None:
            self._on_master(asked, now)
            return
        if unit is not None:
            unit.note(pdu, b"", now)
        if question is not None and number != question.request.unit:
            question.stranger = number

    def _on_master(self, asked: Request, now: float) -> None:
        """Another master asks: an answer will come that is not for us, and who knows then which is whose."""
        unit = self._unit(asked.unit)
        unit.owe(asked, now + unit.window_s, ours=False)
        question = self._question
        if question is not None and question.request.unit == asked.unit:
            if question.is_out:
                unit.owe(question.request, question.left_at + unit.window_s, ours=False)
            text = "another master asked the unit at the same time: is there a second one on this line?"
            self._finish(question, Failure("decode", text, "unit"), now)
        self._want()

    def _note_life(self) -> None:
        """Somebody answered: the connection is alive."""
        self.silences = 0
        self.silent.clear()

    # --- due ---

    def look(self, now: float) -> bytes | None:
        """Do what is due. A frame that is given must be sent at once."""
        question = self._question
        if question is not None and question.is_out:
            self._look_after(question, now)
            question = self._question
        if question is None or question.is_out or self._waits_until(question) > now:
            return None
        return self._send(question, now)

    def wake_at(self) -> float:
        """When to look again, if nothing is heard before."""
        question = self._question
        if question is None:
            return _NEVER
        if not question.is_out:
            return self._waits_until(question)
        if question.held is not None:
            return question.held_until
        if self._framer.rest == question.judged or question.request.unit == _BROADCAST:
            return question.deadline
        return min(question.deadline, self._verdict_at(question))

    def _waits_until(self, question: _Question) -> float:
        unit = self._unit(question.request.unit)
        return max(self.free_at(question.since), unit.quiet_until, unit.clear_at(question.request))

    def _verdict_at(self, question: _Question) -> float:
        """When what was heard, and is no answer, has been left as it is for so long that it may be judged."""
        return max(self._heard_at + self._patience_s(), question.left_at + question.moment_s)

    def _look_after(self, question: _Question, now: float) -> None:
        """Whether it is time to judge, to believe, or to give up."""
        if question.request.unit == _BROADCAST:
            if now >= question.deadline:
                self._finish(question, b"", now)
        elif question.held is not None:
            if now >= question.held_until:
                self._release(question, now)
        elif now >= question.deadline or (self._framer.rest != question.judged and now >= self._verdict_at(question)):
            for number, pdu in self._framer.settle(self._wanted):
                self._on_frame(number, pdu, now)
            if self._question is not question or not question.is_out or question.held is not None:
                return
            question.judged = self._framer.rest
            if self._framer.is_damaged(question.request):
                self._on_damage(question, now)
            elif now >= question.deadline:
                self._on_silence(question, now)

    def _release(self, question: _Question, now: float) -> None:
        """No other answer followed the one that is held."""
        quiet_at = self._heard_at + self._patience_s()
        if self._framer.rest and now < quiet_at and now < question.deadline + question.timeout_s:
            question.held_until = quiet_at  # one is just coming
        elif question.held is not None and question.request.is_write:
            self._believe(question, question.held, now)
        elif question.asked <= self._retries.get(question.request.unit, _RETRIES) + 1:
            question.suspect, question.held = question.held, None
            self._ask_again(question, now)
        else:
            text = "answers that may belong to other requests: does something send them twice?"
            self._finish(question, Failure("decode", text, "unit"), now)

    def _on_damage(self, question: _Question, now: float) -> None:
        """An answer came that cannot be used."""
        self._statistics.tallies[question.request.unit].crc_errors.value += 1
        if question.asked <= self._retries.get(question.request.unit, _RETRIES) and not question.request.is_write:
            self._ask_again(question, now)
            return
        times = f" {question.asked} times in a row" if question.asked > 1 else ""
        doubts = ", so nobody knows whether it was done" if question.request.is_write else ""
        self._finish(question, Failure("decode", f"the answer came damaged{times}{doubts}", "unit"), now)

    def _ask_again(self, question: _Question, now: float) -> None:
        question.is_out = False
        question.since = now
        self._leave_in_peace(question, now)

    def _on_silence(self, question: _Question, now: float) -> None:
        """No answer in time: it is owed from now on."""
        request = question.request
        unit = self._units[request.unit]
        unit.owe(request, question.left_at + unit.window_s, ours=True)
        unit.is_well = question.others_answered
        self._statistics.tallies[request.unit].timeouts.value += 1
        if request.unit in self._own:
            self.silences += 1
            self.silent.add(request.unit)
        hint = ""
        if question.stranger is not None:
            hint = f", but unit {question.stranger} answered: is it unit: {question.stranger}?"
        elif self._framer.rest:
            hint = f", but {self._framer.rest} bytes that are none: do baud, parity and stop bits fit?"
        elif question.echoed:
            hint = ", only our own request came back"
        self._finish(question, Failure("timeout", f"no answer within {question.timeout_s:g} s{hint}", "unit"), now)

    # --- answered, and sent ---

    def _finish(self, question: _Question, answer: bytes | Failure, now: float) -> None:
        """It is over, well or not; the line is free for the next one."""
        self._leave_in_peace(question, now)
        if question.wish is not None and self._echo != "auto":  # now it is known whether the line echoes
            self._question = _Question(
                question.wish, question.timeout_s, question.gap_s, now, others_answered=question.others_answered
            )
        else:
            self._question, self._outcome = None, answer
        self._want()

    def _leave_in_peace(self, question: _Question, now: float) -> None:
        if question.gap_s:
            self._unit(question.request.unit).quiet_until = now + question.gap_s

    def _send(self, question: _Question, now: float) -> bytes:
        request, timeout_s = question.request, question.timeout_s
        if self._echo == "auto" and request.unit != _BROADCAST and doubt.fits(request, request.pdu):
            function = READ_COILS if request.function in (WRITE_COIL, WRITE_COILS) else READ_HOLDING_REGISTERS
            question.wish = request
            question.request = request = Request(request.unit, function, request.address, 1)
        unit = self._unit(request.unit)
        unit.window_s = max(timeout_s, self._max_late_s.get(request.unit, _MAX_LATE * timeout_s))
        frame = self._framer.frame(request.unit, request.pdu)
        question.sent_at = now
        question.left_at = now + len(frame) * self._character_s
        question.deadline = question.left_at + timeout_s + self._line_s(request)
        if request.unit == _BROADCAST:
            question.deadline = question.left_at + _TURNAROUND_S
        question.moment_s = doubt.moment_s(self._statistics.tallies[request.unit].turnaround(), timeout_s)
        question.asked += 1
        question.is_out, question.echoed, question.judged = True, False, 0
        self._free_at = question.left_at
        self._counters.noise.value += self._framer.clear()
        self._want()
        self._statistics.tallies[request.unit].requests.value += 1
        return frame

    def _want(self) -> None:
        """Note whose answers may come: they are looked for."""
        question = self._question
        own = (question.request,) if question is not None and question.is_out else ()
        self._wanted = own + tuple(owed.request for unit in self._units.values() for owed in unit.owed)

    def _unit(self, number: int) -> Unit:
        unit = self._units.get(number)
        if unit is None:
            unit = self._units[number] = Unit(self._max_late_s.get(number, _MAX_LATE))
        return unit

    def _line_s(self, request: Request) -> float:
        """How long the answer takes on the line."""
        return self._framer.length(request.size or _LONGEST_PDU) * self._character_s

    def _patience_s(self) -> float:
        """A silence after which no more of a frame will come; a slow UART gives a few characters at a time."""
        return max(self._framer.patience_s, _CHUNK * self._character_s)
