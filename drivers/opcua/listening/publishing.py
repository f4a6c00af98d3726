"""Publish requests: as many at the server as it takes, none while nobody takes what comes, and each with what is owed.

the server says                  what follows                                              [Part 4 5.14.5, 7.39]
a message                        its turn may have come; the next request goes
BadTooManyPublishRequests        one request fewer from now on
BadNoSubscription                all subscriptions of then are gone: they are made anew
BadTimeout, BadRequestTimeout    the request grew old: the next one goes
BadTooManyOperations             half of the acknowledgements in one request
anything else                    the connection is given up
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from asyncua import ua as _ua

from drivers.opcua.connecting.explaining import explain
from drivers.opcua.faults import ServiceFault
from drivers.opcua.listening.post import Post
from drivers.opcua.listening.subscription import Subscription
from drivers.opcua.values.parsing import parse_publish
from gateway.errors import LineError

ua: Any = _ua  # its names are made at run time: no checker sees them

_MOST_ACKNOWLEDGED: Final = 1000
_MOST_WAITING: Final = 64
"""Messages of one subscription that came before their turn; with more of them nothing is asked for."""
_PAUSE_S: Final = 0.2
"""Before the next request where the server refused one for no fault of its own."""
_TICK_S: Final = 0.5
_BAD_SUBSCRIPTION_ID: Final = 0x8028_0000


class Publisher:
    """Keeps publish requests at the server, and watches that it answers."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self._allowed = post.options.publish_requests
        self._workers = 0
        self._most_acknowledged = _MOST_ACKNOWLEDGED

    @property
    def allowed(self) -> int:
        """How many requests the server takes at once."""
        return self._allowed

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Start asking, as tasks of that group; they raise LineError."""
        for number in range(self._allowed):
            self._workers += 1
            tasks.create_task(self._work(), name=f"opcua publish {number + 1}")
        tasks.create_task(self._watch(), name="opcua keep-alive")

    # --- asking ---

    async def _work(self) -> None:
        while self._workers <= self._allowed:
            await self._turn()
            await self._ask()
        self._workers -= 1

    async def _turn(self) -> None:
        """Wait until there is somebody to ask for, and room for what comes."""
        post = self._post
        while not post.asked.is_set() or not post.handover.has_room or self._is_waiting():
            await post.asked.wait()
            await post.handover.room()
            if self._is_waiting():
                await asyncio.sleep(_PAUSE_S)
            post.idle_until = post.clock.monotonic()

    def _is_waiting(self) -> bool:
        return any(subscription.numbers.waiting > _MOST_WAITING for subscription in self._post.alive)

    async def _ask(self) -> None:
        """Send one request and take what it brings."""
        post = self._post
        owed = self._owed()
        births = post.births
        request = ua.PublishRequest()
        request.Parameters.SubscriptionAcknowledgements = [
            ua.SubscriptionAcknowledgement(SubscriptionId=number, SequenceNumber=sequence)
            for _, number, sequence in owed
        ]
        body = None
        post.asking += 1
        try:
            body = await post.session.fetch(request, timeout_s=None)
        except ServiceFault as fault:
            refusal = fault
        finally:
            post.asking -= 1
            if body is None:
                self._owe_again(owed)
        if body is None:
            await self._on_fault(refusal, len(owed), births)
        else:
            await self._on_answer(body, owed)

    def _owed(self) -> list[tuple[Subscription, int, int]]:
        """What is owed to the server: subscription, its number, sequence number."""
        found: list[tuple[Subscription, int, int]] = []
        for subscription in self._post.alive:
            room = self._most_acknowledged - len(found)
            found += [(subscription, subscription.id, n) for n in subscription.numbers.settle_debts(room)]
        return found

    def _owe_again(self, owed: list[tuple[Subscription, int, int]]) -> None:
        """The request failed: perhaps the server did not hear the acknowledgements in it. Twice does no harm."""
        for subscription, number, sequence in owed:
            if subscription.id == number:
                subscription.numbers.owe_again([sequence])

    # --- answers ---

    async def _on_answer(self, body: bytes, owed: list[tuple[Subscription, int, int]]) -> None:
        post = self._post
        try:
            published = await post.parsed(parse_publish, body)
        except ValueError as error:
            raise post.lost(error) from error
        for (owing, number, _), code in zip(owed, published.results, strict=False):
            if code == _BAD_SUBSCRIPTION_ID and owing.id == number:
                post.end(owing, "BadSubscriptionIdInvalid")
        subscription = post.find(published.subscription)
        if subscription is None:
            post.stray(published.subscription)
            return
        post.deliver(subscription, subscription.receive(published, post.clock.monotonic()))
        if subscription.numbers.missing():
            post.torn.set()
        elif subscription.is_torn:
            post.end(subscription, "messages lost")

    async def _on_fault(self, fault: ServiceFault, acknowledged: int, births: int) -> None:
        if fault.name == "BadTooManyPublishRequests":
            if self._allowed == 1:
                await asyncio.sleep(_PAUSE_S)
            elif self._workers <= self._allowed:
                self._allowed -= 1
        elif fault.name == "BadNoSubscription":
            self._post.end_older(births, fault.name)
            await asyncio.sleep(_PAUSE_S)
        elif fault.name in ("BadTimeout", "BadRequestTimeout"):
            await asyncio.sleep(_PAUSE_S)
        elif fault.name == "BadTooManyOperations" and acknowledged > 1:
            self._most_acknowledged = acknowledged // 2
        else:
            what = str(fault).removesuffix(f": {fault.name}")
            text = explain(f"{self._post.session.line}: {what}", fault.name)
            raise LineError(text, cause=fault.name) from fault

    # --- the server must speak ---

    async def _watch(self) -> None:
        """Give up a subscription that is silent, and the connection where all of them are."""
        post = self._post
        while True:
            await asyncio.sleep(_TICK_S)
            now = post.clock.monotonic()
            for subscription in post.subscriptions:
                post.hand_on(subscription.release_early(now))
            alive = post.alive
            if not post.asking or not alive:
                continue
            silent = [one for one in alive if now - max(one.heard, post.idle_until) > self._patience_s(one)]
            if len(silent) == len(alive):
                text = f"the server promised to say each {silent[0].keep_alive_s:g} s that it lives, and said nothing"
                raise LineError(f"{post.session.line}: {text}", cause="timeout")
            for subscription in silent:
                post.end(subscription, "silence")

    def _patience_s(self, subscription: Subscription) -> float:
        return 2 * subscription.keep_alive_s + self._post.options.timeout
