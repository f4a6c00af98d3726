"""The record of what commands did: the intent before the write, the outcome after it, both in the spool.

    {"audit":"command","ts":…,"phase":"intent","source":"broker","user":"op","device":"boiler","tag":"pump","value":true}
    {"audit":"command","ts":…,"phase":"outcome","intent":4711,"ok":true,"value":true, … and the same again}

An intent is written to the disk at once, whatever the commit interval. `strict`: before the write, or there is none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from gateway.commands.request import RefusalError
from gateway.spool.record import Record

NAME = "command"


class Store(Protocol):
    """Where entries go; `spool.Spool` is one."""

    def audit(self, name: str, fields: Mapping[str, Any], *, urgent: bool) -> Record:
        """Append an entry; `urgent` has it written at once."""

    async def kept(self, seq: int) -> bool:
        """Whether the entry just appended is on the medium or acknowledged by all who hold, once that is known."""


class Audit:
    """Notes intents and outcomes. `tell` hears of each entry, for those who listen live."""

    def __init__(self, store: Store, tell: Callable[[Record], None], *, is_strict: bool) -> None:
        self._store = store
        self._tell = tell
        self._is_strict = is_strict

    def intent(self, fields: Mapping[str, Any]) -> int:
        """Note what is about to be done; gives the entry's number."""
        return self._note({"phase": "intent", **fields}, urgent=True)

    async def kept(self, intent: int, left_s: float) -> None:
        """Where strict: wait at most so long until that intent cannot be lost any more. Raises RefusalError."""
        if not self._is_strict:
            return
        try:
            is_kept = await asyncio.wait_for(self._store.kept(intent), left_s)
        except TimeoutError:
            raise RefusalError("audit", "not written: the disk did not take the audit entry in time") from None
        if not is_kept:
            text = "not written: the audit entry is not kept: the spool is full, or no uplink holds what is in it"
            raise RefusalError("audit", text)

    def outcome(self, intent: int, fields: Mapping[str, Any]) -> None:
        """Note what came of it."""
        self._note({"phase": "outcome", "intent": intent, **fields}, urgent=False)

    def _note(self, fields: Mapping[str, Any], *, urgent: bool) -> int:
        record = self._store.audit(NAME, fields, urgent=urgent)
        self._tell(record)
        return record.seq
