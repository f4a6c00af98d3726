"""Sequence numbers of one subscription: what is in order, what is missing, what is owed to the server. Pure.

    arrives                      what it means                                                     [Part 4 5.14.1.1]
    the next number              in order, and with it whatever waited for it
    a later number               waits: answers may overtake one another
    the next number, keep-alive  nothing is missing; the number is not used up
    a later one, keep-alive      all before it was sent, and is missing
    one asked for again          in order as soon as those before it are there, or known to be lost
    an older number              a double where it was asked for again or given up; else the server counts anew

Numbers run from 1 to 2^32-1 and then begin at 1 again. Each message that was taken is owed an acknowledgement, for the
server keeps it until then.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Generic, TypeVar

Message = TypeVar("Message")

LAST_NUMBER: Final = 0xFFFF_FFFF
MOST_MISSING: Final = 1000
"""More than that between two messages is no hole: the server counts otherwise than we think."""
_MOST_SETTLED: Final = 4 * MOST_MISSING
_MOST_OWED: Final = 100_000


def following(number: int) -> int:
    """The number after that one; 0 stands for none yet."""
    return number % LAST_NUMBER + 1


def steps(number: int, since: int) -> int:
    """How far a number is ahead of another, 0 to 2^32-2; more than half of that is behind it."""
    return (number - since) % LAST_NUMBER


class Numbers(Generic[Message]):
    """`last` is the newest number that was handed on in order, 0 for none yet.

    `lost` counts messages that were given up, `jumps` how often the server began to count anew. As long as nothing came
    the order `is_fresh`: where a server begins is its own choice then, and nothing is lost.
    """

    def __init__(self) -> None:
        self.last = 0
        self.lost = 0
        self.jumps = 0
        self.is_fresh = True
        self._waiting: dict[int, Message] = {}
        self._sent = 0
        self._settled: dict[int, None] = {}
        self._owed: deque[int] = deque(maxlen=_MOST_OWED)

    def __repr__(self) -> str:
        return f"<Numbers {self.last}, {len(self._waiting)} waiting, {len(self._owed)} owed>"

    @property
    def waiting(self) -> int:
        """How many messages are here before their turn."""
        return len(self._waiting)

    def take(self, number: int, message: Message) -> list[Message]:
        """A message came; returns all that are now in order."""
        if not number:  # no number of a message: nothing can be said of it, and nothing acknowledged
            return [message]
        self._owed.append(number)
        ahead = steps(number, self.last)
        if ahead == 1:
            self.is_fresh = False
            return [message, *self._advance(number)]
        if number in self._settled or number in self._waiting:
            return []
        if ahead <= MOST_MISSING and ahead:
            self._waiting[number] = message
            self._note_sent(number)
            return []
        return self._jump(number, message)

    def keep_alive(self, number: int) -> None:
        """The server is alive, and the next message will have that number."""
        ahead = steps(number, self.last)
        if 1 < ahead <= MOST_MISSING:
            self._note_sent(number - 1 or LAST_NUMBER)
        elif self.is_fresh and number and not self._waiting:
            self.last = (number - 1) % LAST_NUMBER
            self.is_fresh = not self.last

    def give_up(self, number: int) -> list[Message]:
        """A missing message cannot be had any more; returns what waited for it."""
        if number != following(self.last):
            return []
        if not self.is_fresh:
            self.lost += 1
        self._settle(number)
        return self._advance(number)

    def drain(self) -> list[Message]:
        """The server has the subscription no longer: whatever waited, for what is missing will not come."""
        number = self.last
        found = [self._waiting[n] for n in sorted(self._waiting, key=lambda waits: steps(waits, number))]
        self._waiting.clear()
        return found

    def retaken(self, number: int, message: Message) -> list[Message]:
        """A message came that was asked for again; should it come once more, it is a double."""
        if number in self._waiting or not 0 < steps(number, self.last) <= MOST_MISSING:
            return []
        found = self.take(number, message)
        self._settle(number)
        return found

    def missing(self) -> list[int]:
        """Numbers that were sent and are not here, in order, a bounded many."""
        found = []
        number = following(self.last)
        for _ in range(steps(self._sent, self.last) if self._is_behind() else 0):
            if number not in self._waiting:
                found.append(number)
            number = following(number)
        return found

    # --- acknowledgements ---

    @property
    def owed(self) -> int:
        """How many acknowledgements are owed."""
        return len(self._owed)

    def settle_debts(self, most: int) -> list[int]:
        """Numbers to acknowledge now; they are owed no longer."""
        return [self._owed.popleft() for _ in range(min(most, len(self._owed)))]

    def owe_again(self, numbers: list[int]) -> None:
        """Nobody knows whether the server heard these acknowledgements."""
        self._owed.extend(numbers)

    # --- inside ---

    def _is_behind(self) -> bool:
        return 0 < steps(self._sent, self.last) <= MOST_MISSING if self._sent else False

    def _note_sent(self, number: int) -> None:
        """That number has been sent; `_sent` is the newest such."""
        if not self._is_behind() or steps(number, self.last) > steps(self._sent, self.last):
            self._sent = number

    def _advance(self, number: int) -> list[Message]:
        """Move on to a number that is done with, and past those that waited behind it."""
        self.last = number
        found = []
        while (after := following(self.last)) in self._waiting:
            found.append(self._waiting.pop(after))
            self.last = after
        self.is_fresh = self.is_fresh and not found
        return found

    def _jump(self, number: int, message: Message) -> list[Message]:
        """The server counts anew, or from where it likes: go on from there, and leave nothing of the old order."""
        if not self.is_fresh:
            self.jumps += 1
        kept = self.drain()
        self._settled.clear()
        self._sent = 0
        self.last = number
        self.is_fresh = False
        return [*kept, message]

    def _settle(self, number: int) -> None:
        self._settled[number] = None
        while len(self._settled) > _MOST_SETTLED:
            del self._settled[next(iter(self._settled))]
