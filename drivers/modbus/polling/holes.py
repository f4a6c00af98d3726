"""What a device was found not to answer: blocks that had to be cut, registers that are not there, silent ones. Pure.

Each block of a group is the root of a tree. A block that is refused (exception 2, 3 or 4) is cut in two, and the halves
likewise, until what is refused cannot be cut: that is a hole. It is not asked for again until its time has come: after
10 s, then 20 s, 40 s, … 10 minutes. A block that was cut is tried in one piece at such times too, so that a device that
refused everything while it started ends up with its few large requests again. One such trial a read.

A block that is silent while others answer goes to the end of the read, for a read ends at the first silence. After the
third time in a row it counts as refused: some devices do not answer for registers they do not have. As good as silent
are a gateway's word that the device did not answer (exception 10 and 11) and an answer that does not fit the question.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from drivers.modbus.frames.pdu import Failure
from drivers.modbus.polling.block import Block

FIRST_PAUSE_S = 10.0
LAST_PAUSE_S = 600.0
STRIKES = 3
"""How often in a row a block may be silent, while others answer, before it counts as refused."""


class Node:
    """A block, what is wrong with it, and the two blocks it was cut into.

    `failure` is None as long as it answers; `doubt` is what the larger block failed with, until this one was asked for.
    """

    __slots__ = ("block", "doubt", "failure", "parts", "pause_s", "retry_at", "silent_since", "strikes")

    def __init__(self, block: Block, doubt: Failure | None = None) -> None:
        self.block = block
        self.doubt = doubt
        self.failure: Failure | None = None
        self.parts: tuple[Node, ...] = ()
        self.pause_s = 0.0
        self.retry_at = 0.0
        self.strikes = 0
        self.silent_since = 0  # which silence of this survey came last; 0: it answered

    def __repr__(self) -> str:
        state = ("doubted" if self.doubt else "well") if self.failure is None else "cut" if self.parts else "hole"
        return f"<node {self.block} {state} strikes={self.strikes}>"

    @property
    def is_well(self) -> bool:
        """Whether it answered in one piece the last time it was asked for."""
        return self.failure is None and self.doubt is None

    def holes(self) -> Iterator[Node]:
        """Itself where it is a hole, else those below it."""
        if self.failure is not None:
            if not self.parts:
                yield self
            for part in self.parts:
                yield from part.holes()


class Survey:
    """What is known of the blocks of one group. Made when the first of them fails, dropped when all are well again."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self.roots = [Node(block) for block in blocks]
        self._silences = 0

    @property
    def is_clear(self) -> bool:
        """Whether there is nothing left to remember."""
        return all(node.failure is None and not node.silent_since for node in self.roots)

    def begin(self, now: float, doubts: int) -> tuple[list[Node], list[Node]]:
        """What to ask for in a read, what was silent last; and what to leave alone: holes, and all but so many doubts.

        There is always something to ask for: a device of which nothing is asked could be gone for hours.
        """
        ask: list[Node] = []
        leave: list[Node] = []
        trial = self._most_overdue(now)
        stack = self.roots[::-1]
        while stack:
            node = stack.pop()
            if node is trial:
                ask.append(node)
            elif node.failure is not None:
                stack += node.parts[::-1]
                if not node.parts:
                    leave.append(node)
            elif node.doubt is None or doubts:
                doubts -= node.doubt is not None
                ask.append(node)
            else:
                leave.append(node)
        if not ask:
            first = min(leave, key=lambda node: node.retry_at)
            leave.remove(first)
            ask.append(first)
        ask.sort(key=lambda node: node.silent_since)
        return ask, leave

    def _most_overdue(self, now: float) -> Node | None:
        """What fails and has waited for its next trial longest; of two that have waited as long the larger one."""
        trial: Node | None = None
        stack = self.roots[::-1]
        while stack:
            node = stack.pop()
            if node.failure is not None:
                stack += node.parts[::-1]
                if node.retry_at <= now and (trial is None or node.retry_at < trial.retry_at):
                    trial = node
        return trial

    def leave_out(self, root: Node, failure: Failure, pause_s: float, retry_at: float) -> None:
        """It is known that no part of it answers: before its time nothing of it is asked for, whole or by the piece."""
        pieces = list(_pieces(root.block))
        root.parts = tuple(Node(piece) for piece in pieces) if len(pieces) > 1 else ()
        for node in (root, *root.parts):
            node.failure, node.pause_s, node.retry_at = failure, pause_s, retry_at

    def carry(self, old: Survey) -> None:
        """Blocks that consist of what the old survey knew as holes are left alone as long as those were to be."""
        rest = {s.position: hole for root in old.roots for hole in root.holes() for s in hole.block.slots}
        for root in self.roots:
            known = [rest[s.position] for s in root.block.slots if s.position in rest]
            if len(known) == len(root.block.slots) and (failure := known[0].failure) is not None:
                self.leave_out(root, failure, max(n.pause_s for n in known), min(n.retry_at for n in known))

    def note_answer(self, node: Node) -> None:
        """It answered: it is well, in one piece."""
        node.doubt = node.failure = None
        node.parts, node.pause_s = (), 0.0
        node.strikes = node.silent_since = 0

    def note_failure(self, node: Node, failure: Failure, now: float) -> list[Node]:
        """It was refused. Returns its parts that may be asked for instead, now or in the next read."""
        node.strikes = node.silent_since = 0
        if failure.act == "split":
            return _cut(node, failure, now)
        if failure.act == "skip":
            _rest(node, failure, now)
        return []

    def note_silence(self, node: Node, failure: Failure, now: float, *, others_answered: bool) -> list[Node]:
        """It was silent: it goes last, and is cut when that has happened often while others answered.

        Returns its parts when this was a trial of what is known to be silent, else nothing: the read ends here.
        """
        self._silences += 1
        node.silent_since = self._silences
        node.strikes += others_answered
        is_trial = node.failure is not None
        parts = _cut(node, failure, now) if is_trial or node.strikes >= STRIKES else []
        return parts if is_trial else []


def _pieces(block: Block) -> Iterator[Block]:
    """The smallest blocks it can be cut into, in order."""
    stack = [block]
    while stack:
        piece = stack.pop()
        if (halves := piece.split()) is None:
            yield piece
        else:
            stack += halves[::-1]


def _cut(node: Node, failure: Failure, now: float) -> list[Node]:
    """Give up asking for it in one piece; in which ones then."""
    _rest(node, failure, now)
    if len(node.parts) > 2 and all(part.is_well for part in node.parts):
        node.parts = ()  # it was left out by the piece, and each piece answers by now: two will do
    if not node.parts and (halves := node.block.split()) is not None:
        node.parts = tuple(Node(half, doubt=failure) for half in halves)
        for part in node.parts:
            part.silent_since = node.silent_since
            part.strikes = STRIKES - 1 if node.silent_since else 0
    return list(_answering(node.parts))


def _rest(node: Node, failure: Failure, now: float) -> None:
    """Leave it alone for a while: twice as long as the last time, where that was over."""
    if node.failure is None or now >= node.retry_at:
        node.pause_s = min(max(node.pause_s * 2, FIRST_PAUSE_S), LAST_PAUSE_S)
        node.retry_at = now + node.pause_s
    node.doubt, node.failure = None, failure


def _answering(nodes: Sequence[Node]) -> Iterator[Node]:
    """What may be asked for below a node that failed: parts that are well, and the parts of those that are cut."""
    for node in nodes:
        if node.failure is None:
            yield node
        else:
            yield from _answering(node.parts)
