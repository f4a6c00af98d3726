"""What polling costs a line: each request as it will be asked, how busy it is with them, what to slow down. Pure.

The line time of a request is its characters, the unit's turnaround and the silence between frames (`pace.py`). Before
anybody has measured it, units are taken to need 10 ms. The gap that a unit itself asks for is not counted: the others
are asked meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from drivers.modbus.lines.pace import TURNAROUND_S, Pace
from drivers.modbus.polling.block import Block
from gateway.driver import Explanation
from gateway.model import ScanGroup

ENOUGH = 0.9
"""How busy a line may be after tags were slowed down: what is planned to the last moment is late at every retry."""
_SLOWEST = 10
"""Tags are slowed down by so much at most, as long as there are others that could be slowed down too."""
_EVERY = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1800, 3600)
"""Intervals a person would write, in seconds."""


@dataclass(frozen=True, slots=True)
class Charge:
    """One request of a group and what it takes of the line; `line_s` is 0 where nobody can know."""

    group: ScanGroup
    block: Block
    line_s: float

    @property
    def share(self) -> float:
        """The part of all time that it takes."""
        return self.line_s / self.group.every_s

    @property
    def tags(self) -> list[str]:
        """The tags it feeds, as `device/tag` with the part of the device they belong to; scale registers are none."""
        own = self.group.device
        return [f"{slot.tag.part or own}/{slot.tag.name}" for slot in self.block.slots if not slot.hidden]

    def __str__(self) -> str:
        request, slots = self.block.request, self.block.slots
        parts = [f"{self.group.device}: every {span(self.group.every_s)}: {self.block}"]
        if request.count:
            parts.append(_count(request.count, "bit" if slots[0].address.table.bits else "register"))
        parts.append(_count(len(self.tags), "tag"))
        if self.line_s:
            parts.append(f"{self.line_s * 1000:.1f} ms")
        return ", ".join(parts)


def charges(groups: Sequence[ScanGroup], pace: Pace, turnaround_s: Mapping[int, float] | None = None) -> list[Charge]:
    """Every request of these groups. `turnaround_s` are measured ones, by unit."""
    known = turnaround_s or {}
    return [
        Charge(group, block, _line_s(block, pace, known.get(block.request.unit, TURNAROUND_S)))
        for group in groups
        for block in group.plan.blocks
    ]


def explain(groups: Sequence[ScanGroup], pace: Pace) -> Explanation:
    """The plan of one line, its budget, and which tags to slow down first where it is more than there is."""
    found = charges(groups, pace)
    plan = tuple(map(str, found))
    if not pace.is_known:
        return Explanation(plan)
    busy = sum(charge.share for charge in found)
    return Explanation(plan, busy, relief(found) if busy > 1 else ())


def relief(found: Sequence[Charge]) -> tuple[str, ...]:
    """Tags to slow down, each with the interval that would do, those first that relieve the line most for one tag."""
    busy = sum(charge.share for charge in found)
    ranked = sorted(found, key=lambda charge: charge.share / max(1, len(charge.tags)), reverse=True)
    chosen: list[Charge] = []
    every_s = 0.0
    for charge in ranked:
        chosen.append(charge)
        busy -= charge.share
        spent_s = sum(c.line_s for c in chosen)
        if busy < ENOUGH:
            every_s = _written(spent_s / (ENOUGH - busy))
            if every_s <= _SLOWEST * min(c.group.every_s for c in chosen):
                break
    return tuple(
        f"{name}: every {span(every_s)}" for charge in chosen if charge.group.every_s < every_s for name in charge.tags
    )


def span(seconds: float) -> str:
    """An interval as the file would have it: `500ms`, `2s`, `1m`, `1h`."""
    if seconds < 1:
        return f"{seconds * 1000:g}ms"
    for size, unit in ((3600, "h"), (60, "m")):
        if seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _line_s(block: Block, pace: Pace, turnaround_s: float) -> float:
    return pace.request_s(block.request, turnaround_s) if pace.is_known else 0.0


def _written(seconds: float) -> float:
    """The next longer interval that a person would write."""
    return next((every for every in _EVERY if every >= seconds), float(-(-seconds // 3600) * 3600))
