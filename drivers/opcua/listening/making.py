"""Makes subscriptions and their items on the server, in requests of a size that it takes, and reads its answers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from math import ceil
from typing import Any, Final

from asyncua import ua as _ua

from drivers.opcua.connecting.session import Session
from drivers.opcua.faults import ServiceFault
from drivers.opcua.listening.items import Items
from drivers.opcua.listening.subscription import Subscription
from drivers.opcua.nodes.asking import TOO_MUCH
from drivers.opcua.options import DeviceOptions
from drivers.opcua.values.status import is_bad
from gateway.clock import Clock
from gateway.errors import LineError

ua: Any = _ua  # its names are made at run time: no checker sees them

log = logging.getLogger("headgate.opcua")

MOST_NOTIFICATIONS: Final = 10_000
"""Of one message: taking it apart keeps everything else waiting for some ms."""
_MOST_COUNT: Final = 0xFFFF_FFFF
_LIFE_MARGIN_S: Final = 30.0
_FAST_S: Final = 0.05
"""What was asked to be as fast as can be is not slow below this."""
_MOST_SAID: Final = 100
_LONGEST_MS: Final = 1e10
"""Four months."""

_FILTER_REFUSED: Final = frozenset({0x8043_0000, 0x8044_0000, 0x8045_0000, 0x808E_0000})
"""Bad_MonitoredItemFilterInvalid, Bad_MonitoredItemFilterUnsupported, Bad_FilterNotAllowed, Bad_DeadbandFilterInvalid
[Part 4 7.39]."""
_TRIGGERS: Final = {
    "status": ua.DataChangeTrigger.Status,
    "value": ua.DataChangeTrigger.StatusValue,
    "timestamp": ua.DataChangeTrigger.StatusValueTimestamp,
}
_ABSOLUTE, _PERCENT = 1, 2
_NO_NODE: Final = 0x8034_0000
"""Bad_NodeIdUnknown."""


class Maker:
    """Asks for what a subscription is made of. It learns how many items the server takes in one request."""

    def __init__(self, session: Session, options: DeviceOptions, clock: Clock) -> None:
        self._session = session
        self._options = options
        self._clock = clock
        self._most_items = 0
        self._said: set[str] = set()

    async def subscribe(self, subscription: Subscription) -> None:
        """Make the subscription, still without items [Part 4 5.14.2]. Raises ServiceFault or LineError."""
        wanted_s = min(subscription.every_s, self._options.keep_alive)
        alive = max(1, round(self._options.keep_alive / wanted_s))
        lives = ceil((self._options.session_timeout + _LIFE_MARGIN_S) / wanted_s)
        request = ua.CreateSubscriptionRequest()
        request.Parameters = ua.CreateSubscriptionParameters(
            RequestedPublishingInterval=wanted_s * 1000,
            RequestedLifetimeCount=min(max(lives, 3 * alive), _MOST_COUNT),  # [Part 4 5.14.2.2] three times at least
            RequestedMaxKeepAliveCount=alive,
            MaxNotificationsPerPublish=MOST_NOTIFICATIONS,
            PublishingEnabled=True,
        )
        made = (await self._session.call(request)).Parameters
        interval_s = _seconds(made.RevisedPublishingInterval, wanted_s)
        silence_s = max(self._options.keep_alive, interval_s * made.RevisedMaxKeepAliveCount)
        if silence_s > 2 * max(self._options.keep_alive, interval_s):
            self._say(f"the server says each {silence_s:g} s at the earliest that it lives: its loss is noticed late")
        subscription.begin(made.SubscriptionId, interval_s, silence_s, self._clock.monotonic())
        if interval_s > 2 * wanted_s:
            self._say(f"the server publishes each {interval_s:g} s at the fastest, not each {wanted_s:g} s as asked")

    async def delete(self, numbers: Sequence[int]) -> None:
        """Delete subscriptions [Part 4 5.14.8]. Whatever the server thinks of it. Raises LineError."""
        request = ua.DeleteSubscriptionsRequest()
        request.Parameters.SubscriptionIds = list(numbers)
        try:
            await self._session.call(request)
        except ServiceFault as fault:
            log.debug("%s: the server did not delete subscriptions %s: %s", self._session.line, numbers, fault.name)

    async def add(self, subscription: Subscription, handles: Sequence[int]) -> None:
        """Make items [Part 4 5.13.2]; what became of each stands in `items.status`.

        An item whose filter is refused is made without it. Raises ServiceFault where the subscription is refused as a
        whole, LineError.
        """
        items = subscription.items
        rest = []
        for handle in handles:
            known = items.known[handle]
            items.status[handle] = known.code or (0 if known.node is not None else _NO_NODE)
            if known.node is not None:
                rest.append(handle)
        unfiltered: list[int] = []
        while rest:
            again: list[int] = []
            for handle, result in await self._ask(subscription, rest):
                code = result.StatusCode.value
                if code in _FILTER_REFUSED and items.weaken(handle):
                    again.append(handle)
                else:
                    self._note(items, handle, code, result)
            unfiltered += again
            rest = again
        self._tell_filters(items, list(dict.fromkeys(unfiltered)))
        self._tell_revised(items, handles)

    async def _ask(self, subscription: Subscription, handles: Sequence[int]) -> list[tuple[int, Any]]:
        """The results beside the handles, asked for in chunks that shrink where the server says so."""
        found: list[tuple[int, Any]] = []
        while len(found) < len(handles):
            most = self._session.limits.max_monitored_items_per_call
            most = min(most, self._most_items or most)
            part = handles[len(found) : len(found) + most]
            try:
                results = await self._ask_once(subscription, part)
            except ServiceFault as fault:
                if fault.code not in TOO_MUCH:
                    raise
                if len(part) == 1:
                    results = [ua.MonitoredItemCreateResult(StatusCode=ua.StatusCode(fault.code))]
                else:
                    self._most_items = len(part) // 2
                    continue
            if len(results) != len(part):
                text = f"{self._session.line}: the server answers {len(results)} results for {len(part)} items"
                raise LineError(text, cause="decode")
            found += zip(part, results, strict=True)
        return found

    async def _ask_once(self, subscription: Subscription, handles: Sequence[int]) -> list[Any]:
        request = ua.CreateMonitoredItemsRequest()
        request.Parameters = ua.CreateMonitoredItemsParameters(
            SubscriptionId=subscription.id,
            TimestampsToReturn=ua.TimestampsToReturn.Both,
            ItemsToCreate=[_item_of(subscription.items, handle) for handle in handles],
        )
        response = await self._session.call(request)
        return list(response.Results or ())

    @staticmethod
    def _note(items: Items, handle: int, code: int, result: Any) -> None:
        items.status[handle] = code if is_bad(code) else 0
        items.server_ids[handle] = 0 if is_bad(code) else result.MonitoredItemId
        if not is_bad(code):
            items.sampling_s[handle] = _seconds(result.RevisedSamplingInterval, items.plans[handle].sampling_ms / 1000)
            items.queues[handle] = result.RevisedQueueSize

    # --- what the server made of the wishes, said once ---

    def _tell_filters(self, items: Items, handles: Sequence[int]) -> None:
        if handles:
            what = f"the server refuses the deadband or trigger of {items.name(handles[0])}{_and_more(handles)}"
            self._say(f"{what}: it tells of every change of these")

    def _tell_revised(self, items: Items, handles: Sequence[int]) -> None:
        made = [handle for handle in handles if items.server_ids[handle]]
        slow = [h for h in made if items.sampling_s[h] > 2 * max(items.plans[h].sampling_ms / 1000, _FAST_S)]
        if slow:
            asked, got = items.plans[slow[0]].sampling_ms / 1000, items.sampling_s[slow[0]]
            what = f"the server looks at {items.name(slow[0])} each {got:g} s"
            self._say(f"{what}, not each {asked:g} s as asked{_and_more(slow)}")
        short = [h for h in made if 2 * items.queues[h] < items.plans[h].queue]
        if short:
            asked, got = items.plans[short[0]].queue, items.queues[short[0]]
            what = f"the server keeps {got} values of {items.name(short[0])}, not {asked} as asked{_and_more(short)}"
            self._say(f"{what}: opcua_overflows_total counts where it throws some away")

    def _say(self, text: str) -> None:
        """Log it once in the life of the process, bounded."""
        if text not in self._said and len(self._said) < _MOST_SAID:
            self._said.add(text)
            log.info("%s: %s", self._session.line, text)


def _seconds(revised_ms: float, asked_s: float) -> float:
    """An interval that the server chose, in s; what was asked for where it is none that can be."""
    return revised_ms / 1000 if 0 <= revised_ms <= _LONGEST_MS else asked_s


def _and_more(handles: Sequence[int]) -> str:
    return f" (and so {len(handles) - 1} more)" if len(handles) > 1 else ""


def _item_of(items: Items, handle: int) -> Any:
    """What the server is asked for one item."""
    item = items.plans[handle]
    return ua.MonitoredItemCreateRequest(
        ItemToMonitor=value_of(items, handle),
        MonitoringMode=ua.MonitoringMode.Reporting,
        RequestedParameters=ua.MonitoringParameters(
            ClientHandle=handle,
            SamplingInterval=item.sampling_ms,
            Filter=_filter_of(items, handle),
            QueueSize=item.queue,
            DiscardOldest=True,
        ),
    )


def value_of(items: Items, handle: int) -> Any:
    """The value of an item's node, or the part of it that the tag names."""
    return ua.ReadValueId(
        NodeId=items.known[handle].node,
        AttributeId=ua.AttributeIds.Value,
        IndexRange=items.plans[handle].options.index_range,
    )


def _filter_of(items: Items, handle: int) -> Any:
    """What the server keeps to itself [Part 4 7.22.2]; an empty one where it tells of every new value or status."""
    item = items.plans[handle]
    trigger = item.options.trigger if items.filters[handle] else "value"
    has_deadband = items.has_deadband(handle)
    if trigger == "value" and not has_deadband:
        return ua.ExtensionObject()
    kind = _PERCENT if item.is_percent else _ABSOLUTE
    return ua.DataChangeFilter(
        Trigger=_TRIGGERS[trigger],
        DeadbandType=kind if has_deadband else 0,
        DeadbandValue=item.deadband if has_deadband and item.deadband is not None else 0.0,
    )
