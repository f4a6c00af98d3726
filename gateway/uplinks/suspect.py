"""The record that was on its way each time the connection broke: some servers do not refuse, they hang up. Pure.

The suspect is the one that had been on its way for longest. After three losses with the same one it travels alone and,
as long as that does not help, in ever smaller parts: what hides behind a silent hang-up is often a limit on the size.
It is given up only where the server's DISCONNECT said that what we sent is wrong. A server that says nothing may as
well be denying the topic, and that must not cost data: a person sees it in the log.

Records of several lanes may be on their way together, so each is named by its class and its number.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from gateway.uplinks.reasons import blames_packet, verdict

Key: TypeAlias = tuple[str, int]
"""Class and number of a record."""

_CAREFUL = 3
_PATIENCE = 12  # from 128 KiB to the smallest parts, and a few more
_TOO_LARGE = 0x95
_SMALLEST = 256


class Suspect:
    """What is known against one record; nothing at first."""

    def __init__(self) -> None:
        self.key: Key | None = None
        self.losses = 0
        self._company: set[Key] = set()
        self._blames = 0
        self._aim = 0
        self._patience = _PATIENCE

    def __repr__(self) -> str:
        return f"<Suspect {self.key}: {self.losses} losses>"

    @property
    def is_careful(self) -> bool:
        """Whether records must travel one at a time: until all that were in flight with the suspect have passed."""
        return bool(self._company)

    @property
    def is_notable(self) -> bool:
        """Whether this is the moment to tell a person."""
        return self.losses == _CAREFUL

    def lost(self, key: Key, company: Iterable[Key], size: int, code: int) -> None:
        """The connection broke while the records in `company` were in flight, `key` for longest.

        `size`: bytes of its last publish. `code`: DISCONNECT's reason code, or 0.
        """
        if key != self.key:
            self._acquit()
            self.key = key
        if self.is_careful:
            self._aim = max(_SMALLEST, min(size, self._aim or size) // 2)
        self.losses += 1
        if blames_packet(code):
            self._blames += 1
            self.losses = max(self.losses, _CAREFUL)
            self._patience = _PATIENCE if code == _TOO_LARGE or verdict(code) != "hopeless" else _CAREFUL
        if self.losses >= _CAREFUL:
            self._company |= {key, *company}

    def aim(self, key: Key, most: int) -> int:
        """Bytes that a message of the record should not exceed, where splitting allows it."""
        return min(most, self._aim) if key == self.key and self._aim else most

    def is_condemned(self, key: Key) -> bool:
        """Whether the server has said often enough that it cannot stand this record."""
        return key == self.key and self._blames >= self._patience

    def passed(self, record_class: str, above: int, seq: int) -> None:
        """Of that class, everything above `above` up to `seq` is committed."""
        if self.key is not None and self.key[0] == record_class and above < self.key[1] <= seq:
            self._acquit()
        self._company = {k for k in self._company if k[0] != record_class or not above < k[1] <= seq}

    def _acquit(self) -> None:
        self.key = None
        self.losses = self._blames = self._aim = 0
        self._patience = _PATIENCE
