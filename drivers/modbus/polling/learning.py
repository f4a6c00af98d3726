"""What was learned of one unit: how much it takes in one request, what it refuses, how fast it is. Pure.

Facts are learned slowly and only where they are confirmed: what is refused once is read around at once (`holes.py`);
when its time has come and it is refused again while other blocks answer, it becomes a fact of the unit, by which all
groups that read it are planned anew. A fact is one of these:

    | found                                       | fact                                                            |
    | tags that are refused by themselves         | a span with its cause: kept apart, left out, tried now and then |
    | parts answer, but nothing that bridges them | a span without a cause, maybe empty: no request reads across it |
    | parts answer, and so does what bridges them | a limit                                                         |

Which one it is, `inquire` finds out by asking. Facts outlive a restart as a document. What has a cause is tried again
and again; walls and limits never are, so all is forgotten 30 days after the last of those was learned: firmware
changes, a bad day teaches what was never true, and to learn it anew costs a handful of requests.
"""

from __future__ import annotations

import re
from bisect import insort
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

from drivers.modbus.frames.pdu import (
    MAX_BITS,
    MAX_REGISTERS,
    READ_COILS,
    READ_DISCRETE_INPUTS,
    READ_HOLDING_REGISTERS,
    READ_INPUT_REGISTERS,
    Request,
)
from drivers.modbus.lines.pace import TURNAROUND_S, Pace
from drivers.modbus.options import DeviceOptions
from drivers.modbus.polling.block import Block
from drivers.modbus.polling.plan import Span, Terms

MAX_SPANS = 64
"""How many spans of one function are kept. A unit with more of them is read all the same, only less cleverly."""
MAX_AGE_MS = 30 * 24 * 3600 * 1000

_CAUSE = re.compile(r"(timeout|decode|exception:\d{1,3})?")
_SHARE = 0.25
"""By how much the price of a request must change before everything is planned anew."""
_LONGEST_TURNAROUND_S = 60.0


@dataclass(frozen=True, slots=True)
class Limit:
    """No request may ask for more than that many registers (or bits)."""

    most: int


@dataclass(frozen=True, slots=True)
class Wall:
    """No request may read across these registers; where there are none, across that address."""

    span: Span


Finding = Limit | Wall


def inquire(block: Block, gap: Span, largest: int) -> Generator[Span, bool, Finding]:
    """Why a block is refused of which both parts answer, the registers of `gap` (or none) lying between them.

    Yields what to ask for, as (first, past); send whether it was answered. `largest` is the largest request that this
    unit has answered. At most 1 + log2(tags of the block) questions. Where nobody can tell it is taken for the gap:
    a wall too many costs one request, a limit too low costs many.
    """
    start, past = block.request.address, block.request.address + block.request.count
    starts, ends = _joints(block)
    low, high = ends.index(gap[0]), len(ends) - 1
    bridge = starts[low], ends[low + 1]  # the least that lies on both sides
    if past - start <= largest or bridge == (start, past) or not (yield bridge):
        return Wall(gap)
    while high - low > 1:  # all of it can be read, but not at once
        middle = (low + high) // 2
        if (yield start, ends[middle]):
            low = middle
        else:
            high = middle
    return Limit(max(ends[low] - start, bridge[1] - bridge[0]))


def _joints(block: Block) -> tuple[list[int], list[int]]:
    """Where values that share no registers begin and end."""
    reach = list(accumulate((slot.end for slot in block.slots), max))
    cuts = [i for i in range(1, len(reach)) if block.slots[i].start >= reach[i - 1]]
    return [block.slots[i].start for i in [0, *cuts]], [reach[i - 1] for i in cuts] + [reach[-1]]


class Learned:
    """What is known of one unit. `version` grows with each fact that changes how it is to be asked."""

    def __init__(self) -> None:
        self.version = 0
        self.since_ms = 0
        self.turnaround_s = TURNAROUND_S
        self.most: dict[bool, int] = {}  # of bits: whether
        self.spans: dict[int, list[tuple[int, int, str]]] = {}  # function: (first, past, cause), ascending, disjoint
        self.cheapest: Request | None = None  # the smallest request that was answered
        self.vouched = False  # a probe was answered since the last read that failed
        self._largest = {False: 0, True: 0}

    def __repr__(self) -> str:
        spans = sum(map(len, self.spans.values()))
        return f"<learned: limits {self.most}, {spans} spans, turnaround {self.turnaround_s * 1000:.3g} ms>"

    def terms(self, options: DeviceOptions, pace: Pace) -> Terms:
        """The terms of the file, and what was learned."""
        plain = Terms.of(options, pace, self.turnaround_s)
        return replace(
            plain,
            most_registers=min(plain.most_registers, self.most.get(False, MAX_REGISTERS)),
            most_bits=min(plain.most_bits, self.most.get(True, MAX_BITS)),
            apart={function: [span[:2] for span in spans] for function, spans in self.spans.items()},
        )

    def cause_of(self, block: Block) -> str:
        """Why a block is left out that consists of nothing but what the unit refuses; empty where it does not."""
        for first, past, cause in self.spans.get(block.request.function, ()):
            if cause and all(first < slot.end and slot.start < past for slot in block.slots):
                return cause
        return ""

    def largest_for(self, block: Block) -> int:
        """The largest request of that sort that the unit has answered."""
        return self._largest[block.request.function in _BIT_FUNCTIONS]

    def note_well(self, blocks: Iterable[Block]) -> None:
        """These were answered in one piece: nothing in them is refused."""
        for block in blocks:
            request, bits = block.request, block.request.function in _BIT_FUNCTIONS
            if self.spans:
                self.answer(request.function, (request.address, request.address + request.count))
            self._largest[bits] = max(self._largest[bits], request.count)
            if request.size and (self.cheapest is None or request.size < self.cheapest.size):
                self.cheapest = request

    def note_turnaround(self, seconds: float, pace: Pace) -> bool:
        """The unit's median by now. Whether it changes what a request costs by so much that planning anew pays."""
        before, after = pace.worth(self.turnaround_s)[0], pace.worth(seconds)[0]
        if abs(after - before) <= _SHARE * before:
            return False
        self.turnaround_s = seconds
        self.version += 1
        return True

    def limit(self, function: int, most: int, now_ms: int) -> int:
        """The unit takes no more in one request; returns the limit, which is never below what it has answered."""
        bits = function in _BIT_FUNCTIONS
        self.most[bits] = most = max(most, self._largest[bits])
        self.version += 1
        self.since_ms = now_ms
        return most

    def refuse(self, function: int, span: Span, cause: str, now_ms: int) -> bool:
        """The unit does not answer for these. Whether that is news; where too many are known it is not taken up.

        What is neither a register nor a bit is asked for by itself anyway.
        """
        if function not in _READS:
            return False
        spans = self.spans.setdefault(function, [])
        around = [known for known in spans if _meet(known, span) and (known[2] == cause or not _is_beside(known, span))]
        if any(known[0] <= span[0] and span[1] <= known[1] and known[2] == cause for known in around):
            return False
        if len(spans) - len(around) >= MAX_SPANS:
            return False
        for known in around:
            spans.remove(known)
        first, past = min([span[0], *(k[0] for k in around)]), max([span[1], *(k[1] for k in around)])
        insort(spans, (first, past, cause or next((k[2] for k in around if k[2]), "")))
        self.version += 1
        self.since_ms = self.since_ms or now_ms if cause else now_ms
        return True

    def answer(self, function: int, span: Span) -> None:
        """The unit answers for these again."""
        spans = self.spans.get(function, [])
        left: list[tuple[int, int, str]] = []
        for first, past, cause in spans:
            if first >= span[1] or past <= span[0]:
                left.append((first, past, cause))
            else:
                left += [(a, b, cause) for a, b in ((first, span[0]), (span[1], past)) if a < b]
        if left != spans:
            self.spans[function] = left[:MAX_SPANS]
            self.version += 1

    def forget(self, now_ms: int) -> bool:
        """Drop all facts where they are too old. Whether there were any."""
        if not (self.most or any(self.spans.values())) or now_ms - self.since_ms <= MAX_AGE_MS:
            return False
        self.most, self.spans, self.since_ms, self._largest = {}, {}, 0, {False: 0, True: 0}
        self.version += 1
        return True

    # --- across restarts ---

    def document(self, turnaround_s: float | None) -> dict[str, Any]:
        """What is worth keeping, as JSON-able values; `turnaround_s` is the median by now, if there is one."""
        return {
            "since": self.since_ms,
            "turnaround_ms": round((turnaround_s or self.turnaround_s) * 1000, 3),
            "most": {"bits" if bits else "registers": most for bits, most in self.most.items()},
            "holes": {str(function): [list(span) for span in spans] for function, spans in self.spans.items() if spans},
        }

    def recall(self, document: Any, now_ms: int) -> None:
        """Take up what `document` gave. What is too old or cannot be ours is left out."""
        if not isinstance(document, Mapping):
            return
        self.version += 1
        match document.get("turnaround_ms"):
            case float(ms) | int(ms) if 0 < ms <= _LONGEST_TURNAROUND_S * 1000:
                self.turnaround_s = ms / 1000
        since = document.get("since")
        if not isinstance(since, int) or not 0 <= now_ms - since <= MAX_AGE_MS:
            return
        self.since_ms = since
        most = document.get("most")
        for bits, name, highest in ((False, "registers", MAX_REGISTERS), (True, "bits", MAX_BITS)):
            limit = most.get(name) if isinstance(most, Mapping) else None
            if isinstance(limit, int) and _is_whole(limit, 1, highest):
                self.most[bits] = limit
        holes = document.get("holes")
        for function in _READS:
            found = holes.get(str(function)) if isinstance(holes, Mapping) else None
            if spans := _spans_of(found):
                self.spans[function] = spans


_BIT_FUNCTIONS = (READ_COILS, READ_DISCRETE_INPUTS)
_READS = (*_BIT_FUNCTIONS, READ_HOLDING_REGISTERS, READ_INPUT_REGISTERS)


def _meet(known: tuple[int, int, str], span: Span) -> bool:
    """Whether they overlap or touch."""
    return known[0] <= span[1] and span[0] <= known[1]


def _is_beside(known: tuple[int, int, str], span: Span) -> bool:
    """Whether they only touch."""
    return known[0] == span[1] or known[1] == span[0]


def _is_whole(value: Any, lowest: int, highest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= highest


def _spans_of(found: Any) -> list[tuple[int, int, str]]:
    """Spans of a document; none at all where one of them cannot be: then it is not ours."""
    if not isinstance(found, Sequence) or isinstance(found, str) or len(found) > MAX_SPANS:
        return []
    spans: list[tuple[int, int, str]] = []
    for item in found:
        match item:
            case [first, past, str(cause)] if _is_whole(first, 0, 65536) and _is_whole(past, first, 65536):
                spans.append((first, past, cause))
            case _:
                return []
    fits = all(a[1] <= b[0] for a, b in pairwise(spans)) and all(_CAUSE.fullmatch(cause) for *_, cause in spans)
    return spans if fits else []
