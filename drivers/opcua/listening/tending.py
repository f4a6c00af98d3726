"""The life of each subscription in one connection: made, its bad items tried again, made anew where it was lost."""

from __future__ import annotations

import asyncio
from typing import Final

from drivers.opcua.connecting.explaining import explain
from drivers.opcua.faults import ServiceFault
from drivers.opcua.listening.complaints import Complaints
from drivers.opcua.listening.making import Maker
from drivers.opcua.listening.post import Post
from drivers.opcua.listening.subscription import Subscription
from gateway.errors import LineError

_RETRY_S, _LONGEST_RETRY_S = 5.0, 60.0
"""When bad items are tried again after they were made, then after twice that, and so on, until it is each minute."""
_SHORT_LIFE_S: Final = 10.0
_MOST_SHORT_LIVES: Final = 5
"""Subscriptions that end at once so often in a row are of no use: the connection is made anew, after a while."""


class Tender:
    """Makes subscriptions and keeps them."""

    def __init__(self, post: Post, maker: Maker, complaints: Complaints) -> None:
        self._post = post
        self._maker = maker
        self._complaints = complaints
        self._making = asyncio.Lock()  # one after the other: a server has better things to do

    async def tend(self, subscription: Subscription) -> None:
        """Have the subscription, until cancelled. Raises LineError."""
        short = 0
        while True:
            if not subscription.id:
                await self._make(subscription)
            since = self._post.clock.monotonic()
            number = subscription.id
            reason = await self._until_ended(subscription)
            short = short + 1 if self._post.clock.monotonic() - since < _SHORT_LIFE_S else 0
            if short >= _MOST_SHORT_LIVES:
                text = f"the server gives up each subscription at once ({reason})"
                raise LineError(f"{self._post.session.line}: {text}", cause="offline")
            if number:
                await self._maker.delete([number])

    async def sweep(self) -> None:
        """Delete what the server tells of and we do not know, until cancelled. Raises LineError.

        It is left of a connection that was lost between a request for a subscription, or for its end, and the answer.
        """
        post = self._post
        while True:
            await post.strayed.wait()
            post.strayed.clear()
            async with self._making:  # else it could be one that is made just now
                if strays := post.found_strays():
                    await self._maker.delete(strays)

    async def _make(self, subscription: Subscription) -> None:
        """Make it with all its items."""
        async with self._making:
            try:
                await self._maker.subscribe(subscription)
                if not subscription.id or self._post.find(subscription.id) is not None:
                    raise self._unusable(subscription)
                self._post.admit(subscription)
                await self._add(subscription, range(len(subscription.items)))
                subscription.is_whole = bool(subscription.id)
            except ServiceFault as fault:
                if fault.name == "BadSubscriptionIdInvalid":
                    self._post.end(subscription, fault.name)
                    return
                raise self._refused(subscription, fault) from fault

    def _unusable(self, subscription: Subscription) -> LineError:
        text = f"the server gave a subscription the number {subscription.id}, which none may have or another one has"
        subscription.id = 0
        return LineError(f"{self._post.session.line}: {text}", cause="decode")

    def _refused(self, subscription: Subscription, fault: ServiceFault) -> LineError:
        what = f"{self._post.session.line}: a subscription of {len(subscription.items)} items"
        return LineError(explain(what, fault.name), cause=fault.name)

    async def _add(self, subscription: Subscription, handles: range | list[int]) -> None:
        """Make these items, and say what became of those that are refused."""
        items = subscription.items
        former = {handle: items.status[handle] for handle in handles}
        await self._maker.add(subscription, handles)
        refused = [handle for handle in handles if items.status[handle] and items.status[handle] != former[handle]]
        self._complaints.note(items, handles)
        self._post.hand_on(items.refused(refused, self._post.clock.wall_ms()))
        self._post.gaps.set()

    async def _until_ended(self, subscription: Subscription) -> str:
        """Wait until it ends, and try its bad items again, soon and then each minute; returns why it ended."""
        pause_s = _RETRY_S
        while True:
            try:
                async with asyncio.timeout(pause_s):
                    return await self._post.ended(subscription)
            except TimeoutError:
                await self._retry(subscription)
                pause_s = min(2 * pause_s, _LONGEST_RETRY_S)

    async def _retry(self, subscription: Subscription) -> None:
        items = subscription.items
        bad = [h for h in range(len(items)) if items.status[h] and items.known[h].node is not None]
        if not bad or not subscription.id:
            return
        try:
            async with self._making:
                await self._add(subscription, bad)
        except ServiceFault as fault:
            if fault.name != "BadSubscriptionIdInvalid":
                raise self._refused(subscription, fault) from fault
            self._post.end(subscription, fault.name)
