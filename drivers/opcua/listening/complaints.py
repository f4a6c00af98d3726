"""Says of each tag once that the server refuses it, and once that it does no more."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from drivers.opcua.listening.items import Items
from drivers.opcua.values.status import name_of

log = logging.getLogger("headgate.opcua")

_NAMED = 10
"""So many tags are named in one go; the rest is a number."""


class Complaints:
    """What has been said of the tags of one line. It outlives connections: what is still so is not said again."""

    def __init__(self, line: str) -> None:
        self._line = line
        self._said: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._said)

    def note(self, items: Items, handles: Iterable[int]) -> None:
        """Say what is new of these items."""
        refused, healed = [], []
        for handle in handles:
            code = items.status[handle]
            if not (code or self._said) or items.known[handle].node is None:  # who looked for the node has said so
                continue
            name = items.name(handle)
            former = self._said.get(name)
            if code and code != former:
                self._said[name] = code
                refused.append(f"{name} ({items.plans[handle].tag.address}): {name_of(code)}")
            elif former is not None and not code:
                del self._said[name]
                healed.append(name)
        for text in _shortened(refused):
            log.warning("%s: the server refuses %s; it is tried again", self._line, text)
        for text in _shortened(healed):
            log.info("%s: the server takes %s now", self._line, text)


def _shortened(texts: list[str]) -> list[str]:
    """The first of them, and how many more there are."""
    return texts if len(texts) <= _NAMED else [*texts[:_NAMED], f"{len(texts) - _NAMED} more"]
