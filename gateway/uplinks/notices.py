"""What an uplink says about the gateway itself: its status, the devices' states, and losses. Pure.

Status and states are not spooled: they are published anew after each connect. Losses are records of the spool, as are
events and audit entries.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.model import GOOD, DeviceState
from gateway.spool.record import Gap, Note, Record
from gateway.uplinks.message import Message
from gateway.uplinks.payload_json import plain


class Notices:
    """Messages below one prefix. `prefix` is a topic already, no template."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.status_topic = f"{prefix}/status"

    def online(self) -> Message:
        """The birth: sent first on every connection."""
        return self._status("online")

    def offline(self) -> Message:
        """The will: the server publishes it when we are gone without a word."""
        return self._status("offline")

    def stopped(self) -> Message:
        """The last word of a clean stop."""
        return self._status("stopped")

    def _status(self, state: str) -> Message:
        return Message(self.status_topic, orjson.dumps({"state": state}), retain=True)

    def device(self, state: DeviceState) -> Message:
        """Whether a device answers; where it does not, why and since when (wall time in ms)."""
        document: dict[str, Any] = {"state": "online" if state.online else "offline"}
        if not state.online:
            document |= {"cause": state.cause, "since": state.since}
        return Message(f"{self._prefix}/{state.device}/status", orjson.dumps(document), retain=True)

    def gap(self, seq: int, epoch: str, gap: Gap) -> Message:
        """That records are lost: `first` to `last` are their numbers, `from` and `to` their times in ms where known."""
        document: dict[str, Any] = {
            "event": "gap",
            "seq": seq,
            "epoch": epoch,
            "first": gap.first_seq,
            "last": gap.last_seq,
            "count": gap.count,
            "cause": gap.cause,
        }
        if gap.first_time:
            document["from"] = gap.first_time
        if gap.last_time:
            document["to"] = gap.last_time
        return Message(f"{self._prefix}/log", orjson.dumps(document))

    def note(self, record: Record, note: Note, marks: Mapping[str, Any]) -> Message:
        """An event or an audit entry: its name, its time in ms, its key, `marks`, and its own fields behind them."""
        document = {record.kind: note.name, "ts": note.time, "seq": record.seq, "epoch": record.epoch, **marks}
        document |= {key: plain(value, GOOD)[0] for key, value in note.fields.items() if key not in document}
        return Message(f"{self._prefix}/log", orjson.dumps(document))
