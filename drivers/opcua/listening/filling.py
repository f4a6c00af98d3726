"""Reads what was missed from history, in front of what is held back, and lets that go on then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final, cast

from drivers.opcua.listening.gaps import Gaps, Span
from drivers.opcua.listening.items import Gap
from drivers.opcua.listening.post import Post
from drivers.opcua.listening.subscription import Subscription
from gateway.model import Batch

_MOST_AT_ONCE: Final = 10_000


class Filler:
    """One reader for all subscriptions. What it did not get to stays with them, for the next connection."""

    def __init__(self, post: Post, gaps: Gaps) -> None:
        self._post = post
        self._gaps = gaps

    async def run(self) -> None:
        """Read each gap as soon as it has an end, until cancelled. Raises LineError."""
        post = self._post
        while True:
            await post.gaps.wait()
            post.gaps.clear()
            for subscription in post.subscriptions:
                if subscription.hold is not None and subscription.id:
                    await self._ends(subscription)
                while subscription.gaps:
                    await self._fill(subscription)
                post.hand_on(subscription.release())
            if any(one.gaps or one.hold is not None for one in post.subscriptions):  # since another one was waited for
                post.gaps.set()

    async def _ends(self, subscription: Subscription) -> None:
        """Wait, but not for long, until each item with a gap has told the value behind it."""
        post, items = self._post, subscription.items
        patience_s = 2 * subscription.interval_s + post.options.timeout
        until = post.clock.monotonic() + patience_s
        while subscription.hold is not None and subscription.id:
            if all(items.status[handle] for handle in subscription.missed):
                return
            now = post.clock.monotonic()
            if not subscription.is_whole:
                until = now + patience_s
            left_s = min(until, subscription.hold.until) - now
            if left_s <= 0:
                return
            try:
                async with asyncio.timeout(left_s):
                    await post.gaps.wait()
            except TimeoutError:
                continue
            post.gaps.clear()

    async def _fill(self, subscription: Subscription) -> None:
        """Read the gaps that have ended until now."""
        post, gaps = self._post, subscription.gaps
        taken = [gaps.popleft() for _ in range(min(len(gaps), _MOST_AT_ONCE))]
        spans = [_span_of(subscription, gap) for gap in taken]
        reader = cast("AsyncGenerator[Batch, None]", self._gaps.fill(spans))
        is_done = False
        try:
            async with aclosing(reader):
                async for batch in reader:
                    post.hand_on([batch])
                    await post.handover.room()
            is_done = True
        finally:
            if not is_done:
                gaps.extendleft(_gap_of(subscription, span) for span in reversed(self._gaps.left))


def _span_of(subscription: Subscription, gap: Gap) -> Span:
    items = subscription.items
    group = items.layout.group_of(gap.handle)
    position = gap.handle - items.layout.starts[group]
    return Span(items.groups[group], position, items.known[gap.handle], gap.after, gap.before, gap.told)


def _gap_of(subscription: Subscription, span: Span) -> Gap:
    items = subscription.items
    start = items.layout.starts[items.groups.index(span.group)]
    return Gap(start + span.position, span.after, span.before, span.told)
