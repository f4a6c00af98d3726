"""The record that was on its way each time the connection broke: some servers do not refuse, they hang up. Pure.

After three losses with the same record at the head it travels alone and, as long as that does not help, in ever smaller
parts: what hides behind a silent hang-up is often a limit on the size. It is given up only where the server's
DISCONNECT said that what we sent is wrong. A server that says nothing may as well be denying the topic, and that must
not cost data: a person sees it in the log.
"""

from __future__ import annotations

from gateway.uplinks.reasons import blames_packet, verdict

_CAREFUL = 3
_PATIENCE = 12  # from 128 KiB to the smallest parts, and a few more
_TOO_LARGE = 0x95
_SMALLEST = 256


class Suspect:
    """What is known against one record; nothing at first."""

    def __init__(self) -> None:
        self.seq = 0
        self.losses = 0
        self._through = 0
        self._blames = 0
        self._aim = 0
        self._patience = _PATIENCE

    def __repr__(self) -> str:
        return f"<Suspect {self.seq}: {self.losses} losses>"

    @property
    def is_careful(self) -> bool:
        """Whether records must travel one at a time: until all that were in flight with the suspect have passed."""
        return self._through > 0

    @property
    def is_notable(self) -> bool:
        """Whether this is the moment to tell a person."""
        return self.losses == _CAREFUL

    def lost(self, seq: int, through: int, size: int, code: int) -> None:
        """The connection broke while records from `seq` to `through` were in flight.

        `size`: bytes of the last publish of the first of them. `code`: DISCONNECT's reason code, or 0.
        """
        if seq != self.seq:
            self._acquit()
            self.seq = seq
        if self.is_careful:
            self._aim = max(_SMALLEST, min(size, self._aim or size) // 2)
        self.losses += 1
        if blames_packet(code):
            self._blames += 1
            self.losses = max(self.losses, _CAREFUL)
            self._patience = _PATIENCE if code == _TOO_LARGE or verdict(code) != "hopeless" else _CAREFUL
        if self.losses >= _CAREFUL:
            self._through = max(self._through, through)

    def aim(self, seq: int, most: int) -> int:
        """Bytes that a message of the record should not exceed, where splitting allows it."""
        return min(most, self._aim) if seq == self.seq and self._aim else most

    def is_condemned(self, seq: int) -> bool:
        """Whether the server has said often enough that it cannot stand this record."""
        return seq == self.seq and self._blames >= self._patience

    def passed(self, seq: int) -> None:
        """Records up to `seq` are committed."""
        if seq >= self.seq:
            self._acquit()
        if seq >= self._through:
            self._through = 0

    def _acquit(self) -> None:
        self.seq = self.losses = self._blames = self._aim = 0
        self._patience = _PATIENCE
