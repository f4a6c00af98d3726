"""Ids of commands that were seen, by who sent them, and whether some may have been forgotten. Pure.

The last 1024 of each sender are remembered, of the 64 senders that were heard last; as hashes, so that a document of
them is small whatever they look like:

    {"version":1,"stopped":true,"doubt_s":0,"senders":[["broker","op",["9c1185a5c5e9fc54",…]],…]}

A run that ended without an order to stop may have taken commands whose ids are in no document. From then on `doubt_s`
of running time nobody can say of an id that it is new.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, TypeAlias

import orjson

VERSION = 1
DOUBT_S = 86_400.0
"""So long after a crash what is sent once more may be older than it: clients stay away for hours, hardly for days."""

_IDS, _SENDERS = 1024, 64

Sender: TypeAlias = tuple[str, str]
"""By which way, and who."""

Key: TypeAlias = str | int | Sequence[Any]
"""An id, or an id with what else must be equal."""


class Ids:
    """What was seen. `now`: monotonic s at the start of this run, `doubt_s`: how long from then on it has doubts."""

    def __init__(self, *, now: float = 0.0, doubt_s: float = 0.0) -> None:
        self.started_at = now
        self.changes = 0
        self._doubts_until = now + doubt_s
        self._seen: OrderedDict[Sender, OrderedDict[str, None]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Ids: {sum(map(len, self._seen.values()))} of {len(self._seen)} senders>"

    @classmethod
    def of(cls, document: Any, *, now: float) -> Ids:
        """What an earlier run left. Raises ValueError where it is no document of ours."""
        match document:
            case {"version": 1, "stopped": bool(stopped), "doubt_s": int() | float() as doubt_s, "senders": list(rows)}:
                ids = cls(now=now, doubt_s=min(max(0.0, doubt_s), DOUBT_S) if stopped else DOUBT_S)
            case _:
                raise ValueError(f"it is no list of ids of version {VERSION}")
        for row in rows:
            match row:
                case [str(way), str(who), list(hashes)] if all(isinstance(each, str) for each in hashes):
                    ids._seen[way, who] = OrderedDict.fromkeys(hashes[-_IDS:])
                case _:
                    raise ValueError("a sender has no list of ids")
        return ids

    def document(self, *, now: float, stopped: bool) -> Mapping[str, Any]:
        """For the next run: `stopped` says that nothing will come after it."""
        rows = [[*sender, list(hashes)] for sender, hashes in self._seen.items() if hashes]
        doubt_s = max(0.0, self._doubts_until - now)
        return {"version": VERSION, "stopped": stopped, "doubt_s": doubt_s, "senders": rows}

    def has_doubts(self, now: float) -> bool:
        """Whether an id that is not known may have been seen by an earlier run."""
        return now < self._doubts_until

    def has(self, sender: Sender, key: Key) -> bool:
        """Whether the id is known."""
        return _hash(key) in self._seen.get(sender, ())

    def remember(self, sender: Sender, key: Key) -> None:
        """It was seen."""
        hashes = self._seen.setdefault(sender, OrderedDict())
        self._seen.move_to_end(sender)
        if len(self._seen) > _SENDERS:
            self._seen.popitem(last=False)
        hashes[_hash(key)] = None
        if len(hashes) > _IDS:
            hashes.popitem(last=False)
        self.changes += 1

    def forget(self, sender: Sender, key: Key) -> None:
        """It may come again: nothing was done."""
        self._seen.get(sender, OrderedDict()).pop(_hash(key), None)
        self.changes += 1


def _hash(key: Key) -> str:
    return blake2b(orjson.dumps(key), digest_size=8).hexdigest()
