"""How one group is read by now: its plan, what failed on the way, and what is being found out about it. No I/O."""

from __future__ import annotations

from collections.abc import Generator

from drivers.modbus.frames.pdu import Failure, Request
from drivers.modbus.lines.exchange import Answer
from drivers.modbus.lines.pace import Pace
from drivers.modbus.polling.block import Block, Plan
from drivers.modbus.polling.holes import FIRST_PAUSE_S, Node, Survey
from drivers.modbus.polling.learning import Finding, Learned, inquire
from drivers.modbus.polling.plan import Span, replan
from drivers.modbus.polling.reading import Reading
from gateway.model import ScanGroup

_PATIENCE = 3
"""How often a question may be met with something that is neither yes nor no before it is given up."""


class Inquiry:
    """A question under way about a block: one request at a time, and what its answer means."""

    def __init__(self, node: Node, learned: Learned) -> None:
        first, second = (part.block.request for part in node.parts)
        self.block = node.block
        self.finding: Finding | None = None
        self._silence_counts = node.failure is not None and node.failure.act == "unit"
        self._vague = 0
        self._steps: Generator[Span, bool, Finding] = inquire(
            node.block, (first.address + first.count, second.address), learned.largest_for(node.block)
        )
        self._span: Span | None = None
        self._go_on(None)

    def __repr__(self) -> str:
        return f"<inquiry about {self.block}: {self.finding or self._span}>"

    @property
    def request(self) -> Request | None:
        """What to ask for next; None when it is over."""
        if self._span is None:
            return None
        known = self.block.request
        return Request(known.unit, known.function, self._span[0], self._span[1] - self._span[0])

    def take(self, answer: Answer) -> None:
        """What came of it. A silence says something only where silence was the trouble, and only the second one."""
        if isinstance(answer, bytes):
            self._go_on(True)
        elif answer is not None and answer.act in ("split", "skip"):
            self._go_on(False)
        else:
            self._vague += 1
            if isinstance(answer, Failure) and answer.act == "unit" and self._silence_counts and self._vague > 1:
                self._go_on(False)
            elif self._vague == _PATIENCE:
                self._span = None

    def _go_on(self, answered: bool | None) -> None:  # noqa: FBT001 - what is sent to the generator
        self._vague = 0
        try:
            self._span = next(self._steps) if answered is None else self._steps.send(answered)
        except StopIteration as end:
            self.finding, self._span = end.value, None


class Course:
    """The way of one group. `survey` is None as long as all is well."""

    __slots__ = (
        "_learned",
        "_pace",
        "answered",
        "gap_s",
        "group",
        "inquiry",
        "plan",
        "requests",
        "survey",
        "timeout_s",
    )

    def __init__(self, group: ScanGroup, learned: Learned, pace: Pace, gap_s: float, now: float) -> None:
        plan: Plan = group.plan
        self.group = group
        self.plan = plan
        self.timeout_s = plan.options.timeout
        self.gap_s = gap_s
        self.survey: Survey | None = None
        self.inquiry: Inquiry | None = None
        self.answered = False  # all of this plan, at least once
        self._learned = learned
        self._pace = pace
        if learned.version:
            self.replan(now)

    def __repr__(self) -> str:
        state = "well" if self.survey is None else "with holes"
        return f"<course of {self.group.device}, {len(self.plan.requests)} requests, {state}>"

    @property
    def unit(self) -> int:
        """The unit it reads."""
        return self.plan.options.unit

    def note_well(self, how: Plan) -> None:
        """Every block of that plan has answered."""
        self.answered = how is self.plan
        self._learned.note_well(how.blocks)

    def doubt(self, how: Plan) -> Survey:
        """Something of that plan failed: from now on it is remembered what, as long as it is the plan."""
        survey = Survey(how.blocks)
        if how is self.plan:
            self.survey = survey
        return survey

    def replan(self, now: float) -> None:
        """Read the same tags on what are now the terms; what is known to be refused stays left out."""
        plan = replan(self.plan, self._learned.terms(self.plan.options, self._pace))
        changed = plan is not self.plan
        if changed:
            self.plan, self.answered, self.inquiry = plan, False, None
        elif self.survey is not None:
            return
        survey = Survey(plan.blocks)
        if self.survey is not None:
            survey.carry(self.survey)
        for root in survey.roots:
            cause = self._learned.cause_of(root.block)
            if cause and root.failure is None:
                survey.leave_out(root, _known(cause), FIRST_PAUSE_S, now + FIRST_PAUSE_S)
        self.survey = None if survey.is_clear else survey

    def learn(self, reading: Reading, now_ms: int) -> None:
        """Take up what a read has confirmed; a read in which nothing was answered confirms nothing."""
        learned = self._learned
        for node in reading.found:
            learned.answer(node.block.request.function, _span(node.block))
        if not reading.answered:
            return
        learned.note_well(reading.good)
        for node in reading.again:
            if self.inquiry is None and _can_be_told(node):
                self.inquiry = Inquiry(node, learned)
            elif node.failure is not None and not node.parts:
                self._settle(now_ms)

    def _settle(self, now_ms: int) -> None:
        """A hole has been confirmed: all that this group knows become facts at once, for each plan made anew costs."""
        for root in () if self.survey is None else self.survey.roots:
            for hole in root.holes():
                if hole.failure is not None:
                    self._learned.refuse(hole.block.request.function, _span(hole.block), hole.failure.cause, now_ms)


def _can_be_told(node: Node) -> bool:
    """Whether it can be found out why it is refused: both its parts answer, and share no registers."""
    if len(node.parts) != 2 or not all(part.is_well for part in node.parts):
        return False
    first, second = (_span(part.block) for part in node.parts)
    return first[1] <= second[0]


def _span(block: Block) -> Span:
    return block.request.address, block.request.address + block.request.count


def _known(cause: str) -> Failure:
    """Why a block is left out that failed in an earlier run, or in another group of the unit."""
    text = f"it was refused before: {cause.replace(':', ' ')}" if ":" in cause else f"it failed before: {cause}"
    return Failure(cause, text, "split" if ":" in cause else "unit")
