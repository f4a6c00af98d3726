"""Listens to the groups of a line: what was missed first, then what the server tells. It outlives connections.

Each connection is one call of `listen`, with tasks of its own that end with it:

    gone          raises when the link is lost
    sweep         deletes what the server has of us and we do not know of any more
    tend          one for each subscription: makes it, tries its bad items again, makes it anew
    publish       as many as requests wait at the server; they deliver what comes
    keep-alive    gives up what is silent
    republish     asks for what is missing
    history       reads gaps, and lets go on what waits for them
    watchdog      finds tags that the server forgot
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence

from drivers.opcua.connecting.session import Session
from drivers.opcua.listening.complaints import Complaints
from drivers.opcua.listening.filling import Filler
from drivers.opcua.listening.gaps import Gaps
from drivers.opcua.listening.handover import Handover
from drivers.opcua.listening.items import Items
from drivers.opcua.listening.making import Maker
from drivers.opcua.listening.post import Post
from drivers.opcua.listening.publishing import Publisher
from drivers.opcua.listening.republishing import Republisher
from drivers.opcua.listening.subscription import Counts, Subscription
from drivers.opcua.listening.tending import Tender
from drivers.opcua.listening.watchdog import Watchdog
from drivers.opcua.nodes.catalogue import Catalogue
from drivers.opcua.nodes.known import Known
from drivers.opcua.options import DeviceOptions
from drivers.opcua.values.belief import Belief
from gateway.clock import Clock
from gateway.errors import LineError
from gateway.metrics import Metrics
from gateway.model import Batch, ScanGroup


class Listener:
    """What is known of the subscriptions of one line, whether there is a connection or not."""

    def __init__(
        self, session: Session, catalogue: Catalogue, options: DeviceOptions, *, clock: Clock, metrics: Metrics
    ) -> None:
        self._session = session
        self._catalogue = catalogue
        self._options = options
        self._clock = clock
        self._counts = Counts(metrics, session.line)
        self._belief = Belief(clock, metrics.counter("opcua_absurd_times_total", line=session.line))
        self._handover = Handover()
        self._gaps = Gaps(session, options, clock=clock, metrics=metrics)
        self._maker = Maker(session, options, clock)
        self._complaints = Complaints(session.line)
        self._subscriptions: list[Subscription] = []
        self._abandoned: list[int] = []
        metrics.gauge("opcua_items", self._count_items, line=session.line)
        metrics.gauge("opcua_bad_items", self._count_bad, line=session.line)

    def __repr__(self) -> str:
        return f"<Listener {self._subscriptions}, {len(self._handover)} batches on their way>"

    async def listen(self, groups: Sequence[ScanGroup], *, is_resumed: bool) -> AsyncGenerator[Batch, None]:
        """What the server tells of these groups, until the link is gone. Raises LineError.

        `is_resumed`: the session is the one of before. Close it (`aclosing`): its tasks end with it.
        """
        self._adopt(groups)
        if not is_resumed:
            self._gaps.forget()
        handover = self._handover
        self._counts.dropped.value += handover.keep(groups)
        task = asyncio.create_task(self._serve(is_resumed=is_resumed), name=f"opcua listening {self._session.line}")
        task.add_done_callback(lambda _: handover.stir())
        try:
            while True:
                while (batch := handover.take()) is not None:
                    yield batch
                if task.done():
                    break
                await handover.news()
        finally:
            task.cancel()
            await asyncio.wait([task])
            error = None if task.cancelled() else task.exception()
        if error is not None:
            raise _reason(error)

    # --- one connection ---

    async def _serve(self, *, is_resumed: bool) -> None:
        """Everything that goes on in one connection. Raises what ended it, in a group."""
        post = Post(
            self._session,
            self._options,
            self._subscriptions,
            self._handover,
            clock=self._clock,
            counts=self._counts,
        )
        publisher = Publisher(post)
        republisher = Republisher(post, lambda: publisher.allowed)
        tender = Tender(post, self._maker, self._complaints)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._session.gone(), name="opcua gone")
                await self._take_up(post, republisher, is_resumed=is_resumed)
                publisher.start(tasks)
                tasks.create_task(republisher.run(), name="opcua republish")
                tasks.create_task(Filler(post, self._gaps).run(), name="opcua history")
                if self._options.watchdog is not None:
                    watchdog = Watchdog(post, self._options.watchdog)
                    tasks.create_task(watchdog.run(), name="opcua watchdog")
                tasks.create_task(tender.sweep(), name="opcua sweep")
                for subscription in self._subscriptions:
                    tasks.create_task(tender.tend(subscription), name=f"opcua tend {subscription.every_s:g} s")
        finally:
            post.close()

    async def _take_up(self, post: Post, republisher: Republisher, *, is_resumed: bool) -> None:
        """What was there before the link was lost: take it up where the server has it, and say again what was told."""
        began = self._clock.monotonic()
        abandoned, self._abandoned = self._abandoned, []
        for subscription in self._subscriptions:
            subscription.tears, subscription.since = 0, began
            if subscription.id and not subscription.is_whole:
                abandoned.append(subscription.id)
                post.hand_on(subscription.end(self._clock.wall_ms(), began))
        if abandoned and is_resumed:
            await self._maker.delete(abandoned)
        kept = [subscription for subscription in self._subscriptions if subscription.id]
        if not kept:
            return
        await republisher.take_up(kept, is_resumed=is_resumed)
        arrival = self._clock.wall_ms()
        for subscription in post.alive:
            post.hand_on(subscription.taken_up(began, arrival))

    # --- what is listened to ---

    def _adopt(self, groups: Sequence[ScanGroup]) -> None:
        """Take up the groups of this connection: one subscription for each interval."""
        wanted: dict[float, list[ScanGroup]] = {}
        for group in groups:
            wanted.setdefault(group.every_s, []).append(group)
        layout = [tuple(wanted[every_s]) for every_s in sorted(wanted)]
        if layout == [subscription.items.groups for subscription in self._subscriptions]:
            for subscription in self._subscriptions:
                if not subscription.items.adopt(self._known(subscription.items.groups)):
                    self._abandon(subscription)
            return
        former = self._subscriptions
        self._subscriptions = [self._subscription(groups) for groups in layout]
        for subscription in former:
            self._abandon(subscription)
            self._handover.put(subscription.release())
        self._inherit(former)

    def _known(self, groups: Sequence[ScanGroup]) -> list[Sequence[Known]]:
        return [self._catalogue.known(group) for group in groups]

    def _subscription(self, groups: tuple[ScanGroup, ...]) -> Subscription:
        items = Items(groups, self._known(groups), self._belief)
        is_remembering = self._options.history == "auto"
        return Subscription(groups[0].every_s, items, self._counts, is_remembering=is_remembering)

    def _abandon(self, subscription: Subscription) -> None:
        """Its items are others now: the server is told to forget it, where it can be. What waited in it goes on."""
        if subscription.id:
            self._abandoned.append(subscription.id)
        self._handover.put(subscription.end(self._clock.wall_ms(), self._clock.monotonic()))

    def _inherit(self, former: Sequence[Subscription]) -> None:
        """What tags of the same name told last goes on to be known, wherever they stand now."""
        places = {
            name: (subscription, handle)
            for subscription in self._subscriptions
            for handle, name in enumerate(subscription.items.names())
        }
        for subscription in former:
            heirs: dict[Subscription, dict[int, int]] = {}
            for handle, name in enumerate(subscription.items.names()):
                if name in places:
                    heir, place = places[name]
                    heirs.setdefault(heir, {})[handle] = place
            for heir, handles in heirs.items():
                heir.inherit(subscription, handles)

    # --- figures ---

    def _count_items(self) -> int:
        return sum(1 for subscription in self._subscriptions for number in subscription.items.server_ids if number)

    def _count_bad(self) -> int:
        return sum(1 for subscription in self._subscriptions for code in subscription.items.status if code)


def _reason(error: BaseException) -> BaseException:
    """Why a group of tasks ended: a bug before anything else, and of several losses of the link the first."""
    found = list(_leaves(error))
    return next((one for one in found if not isinstance(one, LineError)), found[0])


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
    else:
        yield error
