"""What the tasks of one connection share: the subscriptions, who is woken by what, and the way out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

from drivers.opcua.connecting.session import Session
from drivers.opcua.listening.handover import Handover
from drivers.opcua.listening.subscription import Counts, Subscription
from drivers.opcua.options import DeviceOptions
from drivers.opcua.values.parsing import Published
from drivers.opcua.values.status import name_of
from drivers.opcua.values.variants import Decoder
from gateway.clock import Clock
from gateway.errors import LineError
from gateway.model import Batch

log = logging.getLogger("headgate.opcua")

Parsed = TypeVar("Parsed")
_TRANSFERRED: Final = 0x002D_0000
"""Good_SubscriptionTransferred [Part 4 7.39]."""

_MOST_STRAYS: Final = 1000
"""Subscriptions of others, or of nobody, that are deleted in one connection."""


class Post:
    """One connection's listening post.

    `asked` is set while there is a subscription to publish for; `asking` counts the requests at the server, and until
    `idle_until` (monotonic) there was a reason of ours to send none. `torn` wakes who asks again for missing messages,
    `gaps` who reads history, `strayed` who deletes what is none of ours. `end` is how anybody says that the server lost
    a subscription: who tends it makes it anew.
    """

    def __init__(
        self,
        session: Session,
        options: DeviceOptions,
        subscriptions: Sequence[Subscription],
        handover: Handover,
        *,
        clock: Clock,
        counts: Counts,
    ) -> None:
        self.session = session
        self.options = options
        self.subscriptions = tuple(subscriptions)
        self.handover = handover
        self.clock = clock
        self.counts = counts
        self.asked = asyncio.Event()
        self.torn = asyncio.Event()
        self.gaps = asyncio.Event()
        self.asking = 0
        self.idle_until = clock.monotonic()
        self.births = 0
        self._born: dict[int, int] = {}
        self._by_id: dict[int, Subscription] = {}
        self._ended = {id(subscription): asyncio.Event() for subscription in subscriptions}
        self._reasons: dict[int, str] = {}
        self._strays: dict[int, bool] = {}
        self.strayed = asyncio.Event()

    # --- who is there ---

    def admit(self, subscription: Subscription) -> None:
        """The server has it: publish for it."""
        subscription.heard = self.clock.monotonic()
        self.births += 1
        self._born[id(subscription)] = self.births
        self._by_id[subscription.id] = subscription
        self._ended[id(subscription)].clear()
        self.asked.set()

    def find(self, number: int) -> Subscription | None:
        """The subscription that the server calls so."""
        return self._by_id.get(number)

    @property
    def alive(self) -> list[Subscription]:
        """The subscriptions that the server has."""
        return list(self._by_id.values())

    def end(self, subscription: Subscription, reason: str) -> None:
        """The server has it no longer, or it must not go on: it will be made anew."""
        if self._by_id.get(subscription.id) is not subscription:
            return
        del self._by_id[subscription.id]
        self.counts.recreated.value += 1
        log.info("%s: %r is made anew: %s", self.session.line, subscription, reason)
        if not self._by_id:
            self.asked.clear()
        self.hand_on(subscription.end(self.clock.wall_ms(), self.clock.monotonic()))
        self._reasons[id(subscription)] = reason
        self._ended[id(subscription)].set()

    def end_older(self, births: int, reason: str) -> None:
        """The server has none of those that were there then."""
        for subscription in self.alive:
            if self._born[id(subscription)] <= births:
                self.end(subscription, reason)

    def stray(self, number: int) -> None:
        """The server tells of a subscription that is none of ours, any more: it is to be deleted, once."""
        self.counts.strays.value += 1
        if number in self._strays or len(self._strays) < _MOST_STRAYS:
            self._strays.setdefault(number, False)
            self.strayed.set()

    def found_strays(self) -> list[int]:
        """Those that are not ours and were not deleted yet, which is done now."""
        found = [number for number, is_done in self._strays.items() if not is_done and number not in self._by_id]
        self._strays.update(dict.fromkeys(found, True))
        return found

    async def ended(self, subscription: Subscription) -> str:
        """Wait until it ends; returns why."""
        await self._ended[id(subscription)].wait()
        return self._reasons[id(subscription)]

    # --- what comes ---

    async def parsed(self, parse: Callable[[bytes, Decoder], Parsed], body: bytes) -> Parsed:
        """An answer taken apart. Raises ValueError where that cannot be done, LineError."""
        return await self.session.structures.parsed(parse, body, self.session)

    def deliver(self, subscription: Subscription, messages: Iterable[Published]) -> None:
        """Messages whose turn it is. Raises LineError where one says that the subscription has another session now.

        A server that ends a session tells so before [Part 4 5.14.7]: the next session can take the subscription over.
        """
        arrival, now = self.clock.wall_ms(), self.clock.monotonic()
        for message in messages:
            self.hand_on(subscription.deliver(message, arrival, now))
            if message.status == _TRANSFERRED:
                text = "the server took a subscription out of the session, which it may have ended"
                raise LineError(f"{self.session.line}: {text}", cause=name_of(message.status))
            if message.status is not None:
                self.end(subscription, name_of(message.status))
        if subscription.gaps or subscription.hold is not None:
            self.gaps.set()

    def hand_on(self, batches: Iterable[Batch]) -> None:
        """Batches on their way out."""
        self.handover.put(batches)

    def close(self) -> None:
        """The connection ends: what was held back goes on, for it was received."""
        for subscription in self.subscriptions:
            self.hand_on(subscription.release())

    def lost(self, error: ValueError) -> LineError:
        """The error for an answer that cannot be understood."""
        return LineError(f"{self.session.line}: {error}", cause="decode")
