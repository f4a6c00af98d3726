"""Reads the tags that are silent, and finds those that the server forgot to tell of.

A tag is dead where its value has changed, by more than its deadband and with a newer time, while nothing was told of
it; where that is still so after two publishing intervals; and where nothing was held up on the way meanwhile. Then its
subscription is made anew. A tag is read once in each `watchdog` at most, and few of them at once.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from math import ceil
from typing import Any, Final

from asyncua import ua as _ua

from drivers.opcua.faults import ServiceFault
from drivers.opcua.listening.items import Items
from drivers.opcua.listening.making import value_of
from drivers.opcua.listening.post import Post
from drivers.opcua.listening.subscription import Subscription
from drivers.opcua.values.columns import Columns
from drivers.opcua.values.parsing import parse_read
from drivers.opcua.values.status import is_bad
from gateway.errors import LineError
from gateway.model import Value

ua: Any = _ua  # its names are made at run time: no checker sees them

log = logging.getLogger("headgate.opcua")

_STEPS: Final = 20
"""In so many steps all tags are read, where all are silent."""
_SHORTEST_STEP_S: Final = 0.25
_MOST_AT_ONCE: Final = 500
_LONGEST_REPRIEVE_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Suspect:
    """An item whose value has changed without a word. `since`: monotonic, when that was seen; `until`: when to look."""

    handle: int
    since: float
    until: float


class Watchdog:
    """Watches the items of all subscriptions, each `every_s`."""

    def __init__(self, post: Post, every_s: float) -> None:
        self._post = post
        self._every_s = every_s
        self._step_s = max(every_s / _STEPS, _SHORTEST_STEP_S)
        self._read: dict[int, list[float]] = {id(one): [0.0] * len(one.items) for one in post.subscriptions}
        self._suspects: dict[int, list[Suspect]] = {id(one): [] for one in post.subscriptions}
        self._reprieve_s = dict.fromkeys(self._suspects, every_s)
        self._not_before = dict.fromkeys(self._suspects, 0.0)
        self._made = dict.fromkeys(self._suspects, (0, 0.0))
        self._held_up = post.clock.monotonic()

    async def run(self) -> None:
        """Watch until cancelled. Raises LineError."""
        post = self._post
        while True:
            await asyncio.sleep(self._step_s)
            if not post.handover.has_room or not post.asking:
                self._held_up = post.clock.monotonic()
            for subscription in post.alive:
                self._note_made(subscription)
                await self._look_again(subscription)
                await self._look(subscription)

    def _note_made(self, subscription: Subscription) -> None:
        """Note when the server was last asked for items: each of them tells its value at once then, dead or not."""
        key = id(subscription)
        if not subscription.is_whole or self._made[key][0] != subscription.id:
            self._made[key] = subscription.id, self._post.clock.monotonic()

    async def _look(self, subscription: Subscription) -> None:
        """Read some of those that were silent for long enough."""
        now = self._post.clock.monotonic()
        items, read = subscription.items, self._read[id(subscription)]
        most = min(ceil(len(items) / _STEPS), _MOST_AT_ONCE, self._post.session.limits.max_nodes_per_read)
        before = now - self._every_s
        silent = [
            h for h in range(len(items)) if items.server_ids[h] and items.heard[h] <= before and read[h] <= before
        ]
        silent.sort(key=read.__getitem__)
        del silent[most:]
        if not silent:
            return
        for handle in silent:
            read[handle] = now
        columns = await self._values(subscription, silent)
        found = self._post.clock.monotonic()
        self._suspects[id(subscription)] += [
            Suspect(h, found, found + 2 * max(subscription.interval_s, items.sampling_s[h]))
            for k, h in enumerate(silent)
            if items.heard[h] <= before and _has_changed(items, h, columns, k)
        ]

    async def _look_again(self, subscription: Subscription) -> None:
        """Read those again that are suspected for long enough, and judge them."""
        now, items = self._post.clock.monotonic(), subscription.items
        suspects = [
            s
            for s in self._suspects[id(subscription)]
            if items.heard[s.handle] < s.since and items.server_ids[s.handle]
        ]
        due = [s for s in suspects if s.until <= now][: self._post.session.limits.max_nodes_per_read]
        self._suspects[id(subscription)] = [s for s in suspects if s not in due]
        if not due:
            return
        handles = [s.handle for s in due]
        columns = await self._values(subscription, handles)
        dead = [
            s.handle
            for k, s in enumerate(due)
            if items.heard[s.handle] < s.since and self._held_up < s.since and _has_changed(items, s.handle, columns, k)
        ]
        if dead and not subscription.has_more and subscription.id:
            self._bury(subscription, dead)

    def _bury(self, subscription: Subscription, dead: list[int]) -> None:
        """Have the subscription made anew; where that does not help, ever more seldom."""
        key, now = id(subscription), self._post.clock.monotonic()
        first_s = max(self._every_s, 2 * subscription.interval_s)
        if min(subscription.items.heard[handle] for handle in dead) > self._made[key][1] + first_s:
            self._reprieve_s[key], self._not_before[key] = self._every_s, now  # they lived since then: it did help
        if now < self._not_before[key]:
            return
        self._not_before[key] = now + self._reprieve_s[key]
        self._reprieve_s[key] = min(2 * self._reprieve_s[key], _LONGEST_REPRIEVE_S)
        self._post.counts.dead.value += len(dead)
        more = f" and of {len(dead) - 1} more" if len(dead) > 1 else ""
        name = subscription.items.name(dead[0])
        log.warning(
            "%s: the server does not tell of %s%s any more, though it changes", self._post.session.line, name, more
        )
        self._suspects[key].clear()
        self._post.end(subscription, "it forgot items")

    async def _values(self, subscription: Subscription, handles: list[int]) -> Columns:
        """What these items are now [Part 4 5.11.2]; nothing where the server refuses. Raises LineError."""
        post = self._post
        request = ua.ReadRequest()
        request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
        request.Parameters.NodesToRead = [value_of(subscription.items, handle) for handle in handles]
        try:
            body = await post.session.fetch(request, timeout_s=post.options.timeout)
            columns = await post.parsed(parse_read, body)
        except ServiceFault as fault:
            log.debug("%s: the watchdog's read is refused: %s", post.session.line, fault.name)
            return Columns()
        except ValueError as error:
            raise LineError(f"{post.session.line}: {error}", cause="decode") from error
        return columns if len(columns.values) == len(handles) else Columns()


def _has_changed(items: Items, handle: int, columns: Columns, at: int) -> bool:
    """Whether what was read should have been told."""
    if at >= len(columns.values):
        return False
    tick = columns.source[at] or columns.server[at]
    if tick and tick <= items.told(handle):
        return False
    if not items.heard[handle]:
        return columns.values[at] is not None and not is_bad(columns.codes[at])
    if columns.codes[at] >> 16 != items.codes[handle] >> 16:
        return True
    item = items.plans[handle]
    if item.options.trigger == "status":
        return False
    if item.options.trigger == "timestamp":
        return bool(columns.source[at]) and columns.source[at] > items.source[handle]
    return _differs(
        columns.values[at], items.values[handle], item.deadband if items.has_deadband(handle) else None, item.is_percent
    )


def _differs(value: Value, told: Value, deadband: float | None, is_percent: bool) -> bool:  # noqa: FBT001 - of the item
    """Whether a value is another one; what a percentage is of is not known here, so that it says nothing."""
    if value == told or (value != value and told != told):  # noqa: PLR0124 - NaN is like NaN here
        return False
    if deadband is None or not isinstance(value, (int, float)) or not isinstance(told, (int, float)):
        return deadband is None or not is_percent
    return not is_percent and abs(value - told) > deadband
