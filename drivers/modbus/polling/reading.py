"""One read of a group: what each tag got, and what the survey learns where it did not go smoothly. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from drivers.modbus.frames.pdu import Failure
from drivers.modbus.lines.exchange import Answer, Exchange
from drivers.modbus.polling.block import Block, Plan
from drivers.modbus.polling.holes import Node, Survey
from drivers.modbus.values.meaning import DECODE, Flawed, scaled
from gateway.errors import DeviceError
from gateway.model import GOOD, Batch, Quality, ScanGroup, bad


def whole(group: ScanGroup, how: Plan, answers: Sequence[Answer], time: int) -> Batch:
    """The batch of a read in which every block answered."""
    payloads = [answer for answer in answers if isinstance(answer, bytes)]
    values = how.decode(payloads)
    if how.judged and (quality := how.judge(values)) is not None:
        return Batch(group, time, values, quality)
    return Batch(group, time, values, raw=b"".join(payloads))


class Reading:
    """One read that did not go smoothly: what each tag got, and what the survey learns from it."""

    def __init__(self, group: ScanGroup, survey: Survey, now: float, *, vouched: bool = False) -> None:
        self.group = group
        self.failures: list[Failure] = []
        self.cut: list[Node] = []  # blocks of the plan that are asked for in parts since this read
        self.lost: list[Node] = []  # holes since this read
        self.found: list[Node] = []  # holes no more
        self.good: list[Block] = []  # what answered, in one piece
        self.again: list[Node] = []  # what was known to fail, was tried when it was time to, and failed again
        self._survey = survey
        self._now = now
        self._vouched = vouched  # it is known to be there, whatever this read says
        self._plan: Plan = group.plan
        self._values: list[Any] = [None] * self._plan.width  # scale registers stand behind the tags
        self._quality: list[Quality] = [GOOD] * self._plan.width
        self.answered = 0
        self._time = 0
        self._stop: tuple[Block, Failure] | None = None
        self._busy: tuple[Block, Failure] | None = None

    def leave(self, nodes: Sequence[Node]) -> None:
        """These are not asked for: they are known to fail, or it is not their turn to be found out."""
        for node in nodes:
            if failure := node.failure or node.doubt:
                self._fail(node.block, failure)

    def take(self, asked: Sequence[Node], exchange: Exchange) -> list[Node]:
        """Note one round of answers. Returns what is to be asked for in the next one."""
        self._time = exchange.time
        self.answered += sum(isinstance(answer, bytes) for answer in exchange.answers)
        further: list[Node] = []
        unasked: list[Node] = []
        for node, answer in zip(asked, exchange.answers, strict=True):
            if answer is None:
                unasked.append(node)
            elif isinstance(answer, Failure):
                further += self._on_failure(node, answer)
            else:
                self._on_answer(node, answer)
        for node in unasked:
            self._fail(node.block, self.failures[-1])  # until it is asked for, or for good when the read ends here
        return further + unasked if self._stop is None else []

    def result(self) -> Batch:
        """The batch, or the DeviceError it is part of."""
        for position, scale_at in self._plan.scales:
            if self._quality[scale_at] is GOOD:
                self._note(position, scaled(self._values[position], self._values[scale_at]), self._quality[position])
            elif self._quality[position] is GOOD:
                self._note(position, None, self._quality[scale_at])
        del self._values[self._plan.tags :], self._quality[self._plan.tags :]
        same = all(quality == self._quality[0] for quality in self._quality)
        batch = Batch(self.group, self._time, self._values, self._quality[0] if same else self._quality)
        failed = self._stop or (None if self.answered else self._busy)
        if failed is None:
            return batch
        block, failure = failed
        request = block.request
        text = f"{self.group.device} (unit {request.unit}): {block} (function {request.function}): {failure.text}"
        raise DeviceError(text, cause=failure.cause, partial=batch if self.answered else None)

    @property
    def is_over(self) -> bool:
        """Whether the unit as a whole has failed: nothing more is to be asked now."""
        return self._stop is not None or (self._busy is not None and not self.answered)

    def _on_answer(self, node: Node, payload: bytes) -> None:
        self.good.append(node.block)
        self.found += node.holes()
        self._survey.note_answer(node)
        for slot, value in zip(node.block.slots, node.block.decode(payload), strict=True):
            self._note(slot.position, value, DECODE if value is None else GOOD)

    def _note(self, position: int, value: Any, quality: Quality) -> None:
        if isinstance(value, Flawed):
            value, quality = value.value, value.quality
        self._values[position], self._quality[position] = value, quality

    def _on_failure(self, node: Node, failure: Failure) -> list[Node]:
        self.failures.append(failure)
        self._fail(node.block, failure)
        was_well = node.failure is None
        if not was_well and self._now >= node.retry_at and failure.act in ("split", "skip", "unit"):
            self.again.append(node)
        if failure.act == "unit":
            parts = self._survey.note_silence(
                node, failure, self._now, others_answered=self.answered > 0 or self._vouched
            )
            if was_well or not self.answered:  # else it was a trial of what is known to be silent
                self._stop = (node.block, failure)
        else:
            parts = self._survey.note_failure(node, failure, self._now)
            if failure.act == "busy":
                self._busy = (node.block, failure)
        if was_well and node.failure is not None and not node.parts:
            self.lost.append(node)
        elif was_well and node.parts and node in self._survey.roots:
            self.cut.append(node)
        for hole in node.holes():  # each keeps its own cause, whatever the larger block failed with
            self._fail(hole.block, hole.failure or failure)
        return parts

    def _fail(self, block: Block, failure: Failure) -> None:
        for slot in block.slots:
            self._note(slot.position, None, bad(failure.cause))
