"""Asks again for messages that were sent and did not come, and takes up subscriptions after a loss of the link.

a hole in the numbers            wait a moment, for answers overtake one another; then Republish [Part 4 5.14.6]
the session was taken up again   Republish from the last number on until the server has no more
a new session                    TransferSubscriptions [Part 4 5.14.7]; then the same

Republish says                   what follows
the message                      its turn has come
BadMessageNotAvailable           where later ones are known it is lost: the subscription is made anew
BadSubscriptionIdInvalid         the server does not have the subscription: it is made anew
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Final

from asyncua import ua as _ua

from drivers.opcua.faults import ServiceFault
from drivers.opcua.listening.numbers import following, steps
from drivers.opcua.listening.post import Post
from drivers.opcua.listening.subscription import Subscription
from drivers.opcua.values.parsing import parse_republish
from drivers.opcua.values.status import is_bad

ua: Any = _ua  # its names are made at run time: no checker sees them

_PATIENCE_S: Final = 1.0
"""So long a message may be overtaken by later ones."""
_MOST_ROUNDS: Final = 10_000
"""Messages asked for again one after the other; a server that has more is given up on."""
_BAD_NOTHING_TO_DO: Final = 0x800F_0000
_GONE: Final = frozenset({"BadSubscriptionIdInvalid", "BadNoSubscription"})


class Outcome(Enum):
    """What came of asking for one message."""

    TAKEN = "it is here"
    MISSING = "the server does not have it"
    GONE = "the server does not have the subscription"


class Republisher:
    """Asks for messages of the past. `patience` says how many messages in a row make sure that one is missing."""

    def __init__(self, post: Post, patience: Callable[[], int]) -> None:
        self._post = post
        self._patience = patience

    async def run(self) -> None:
        """Ask for what is missing, whenever something is. Raises LineError."""
        post = self._post
        while True:
            await post.torn.wait()
            post.torn.clear()
            for subscription in post.alive:
                if subscription.numbers.missing():
                    await self._mend(subscription)
            if any(subscription.numbers.missing() for subscription in post.alive):  # torn while another one was mended
                post.torn.set()

    async def _mend(self, subscription: Subscription) -> None:
        number, numbers = subscription.id, subscription.numbers
        await self._wait(subscription)
        for sequence in numbers.missing():
            if subscription.id != number:
                return
            if sequence not in numbers.missing():
                continue
            outcome = await self.ask(subscription, sequence)
            if outcome is Outcome.GONE:
                self._post.end(subscription, "BadSubscriptionIdInvalid")
            elif outcome is Outcome.MISSING:
                self.give_up(subscription, sequence)
        self._end_torn(subscription)

    async def _wait(self, subscription: Subscription) -> None:
        """Give what is missing the time to come by itself."""
        post, numbers = self._post, subscription.numbers
        until = post.clock.monotonic() + _PATIENCE_S
        while numbers.missing() and numbers.waiting < self._patience():
            left_s = until - post.clock.monotonic()
            if left_s <= 0:
                return
            try:
                async with asyncio.timeout(left_s):
                    await post.torn.wait()
            except TimeoutError:
                return
            post.torn.clear()

    def give_up(self, subscription: Subscription, sequence: int) -> None:
        """That message is lost. What came after it goes on."""
        self._post.deliver(subscription, subscription.give_up(sequence))

    def _end_torn(self, subscription: Subscription) -> None:
        """Where messages are lost the subscription is made anew, when all that the server still had of it is here."""
        if subscription.is_torn:
            self._post.end(subscription, "messages lost")

    async def ask(self, subscription: Subscription, sequence: int) -> Outcome:
        """Ask for one message. Raises LineError."""
        post = self._post
        request = ua.RepublishRequest()
        request.Parameters.SubscriptionId = subscription.id
        request.Parameters.RetransmitSequenceNumber = sequence
        number = subscription.id
        try:
            body = await post.session.fetch(request, timeout_s=post.options.timeout)
            published = await post.parsed(parse_republish, body)
        except ServiceFault as fault:
            return Outcome.GONE if fault.name in _GONE else Outcome.MISSING
        except ValueError:  # what cannot be understood now will not be understood the next time
            return Outcome.MISSING
        if published.sequence != sequence or subscription.id != number:
            return Outcome.MISSING
        now = post.clock.monotonic()
        post.deliver(subscription, subscription.retake(sequence, published, now))
        return Outcome.TAKEN

    # --- after a loss of the link ---

    async def take_up(self, subscriptions: Sequence[Subscription], *, is_resumed: bool) -> None:
        """Find out which subscriptions live on, and ask for what they sent meanwhile; the others have no `id` then.

        Raises LineError.
        """
        post = self._post
        available = dict.fromkeys(subscriptions, ()) if is_resumed else await self._transferred(subscriptions)
        for subscription in subscriptions:
            post.admit(subscription)
            if subscription not in available:
                post.end(subscription, "not transferred")
            elif not await self._recover(subscription, available[subscription]):
                post.end(subscription, "BadSubscriptionIdInvalid")

    async def _transferred(self, subscriptions: Sequence[Subscription]) -> dict[Subscription, tuple[int, ...]]:
        """Those that belong to this session now, with the numbers that the server says it has.

        A server that says there is nothing to do means that they do already: the first Republish will show.
        """
        request = ua.TransferSubscriptionsRequest()
        request.Parameters.SubscriptionIds = [subscription.id for subscription in subscriptions]
        request.Parameters.SendInitialValues = False
        try:
            results = (await self._post.session.call(request)).Parameters.Results or ()
        except ServiceFault as fault:
            return dict.fromkeys(subscriptions, ()) if fault.code == _BAD_NOTHING_TO_DO else {}
        found: dict[Subscription, tuple[int, ...]] = {}
        for subscription, result in zip(subscriptions, results, strict=False):
            if not is_bad(result.StatusCode.value):
                found[subscription] = tuple(result.AvailableSequenceNumbers or ())
            elif result.StatusCode.value == _BAD_NOTHING_TO_DO:
                found[subscription] = ()
        return found

    async def _recover(self, subscription: Subscription, available: Sequence[int]) -> bool:
        """Take what the server sent in vain, in order. Returns whether it has the subscription still."""
        numbers = subscription.numbers
        if available:
            furthest = max(available, key=lambda number: steps(number, numbers.last))
            numbers.keep_alive(following(furthest))
        for _ in range(_MOST_ROUNDS):
            await self._post.handover.room()
            number = following(numbers.last)
            subscription.is_behind = True
            is_sent = bool(numbers.missing())
            outcome = Outcome.MISSING
            if not (is_sent and available and number not in available):
                outcome = await self.ask(subscription, number)
            if outcome is Outcome.GONE or not subscription.id:
                return False
            if outcome is Outcome.MISSING:
                if not is_sent:
                    break
                self.give_up(subscription, number)
        self._end_torn(subscription)
        return True
