"""A server in memory on virtual time: subscriptions, queues, retransmission and history as Part 4 has them."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from asyncua import ua
from asyncua.ua.ua_binary import struct_to_binary

from drivers.opcua import plan
from drivers.opcua.connecting.limits import Limits
from drivers.opcua.faults import ServiceFault
from drivers.opcua.listening.listener import Listener
from drivers.opcua.nodes.known import Known
from drivers.opcua.options import DeviceOptions
from drivers.opcua.values.columns import EPOCH, TICKS_PER_MS, ticks_of
from drivers.opcua.values.status import name_of
from drivers.opcua.values.structures import Structures
from gateway.errors import LineError
from gateway.metrics import Metrics
from gateway.model import Device, Tag

OVERFLOW = 0x480
TRANSFERRED = 0x002D0000
BAD = SimpleNamespace(
    timeout=0x800A0000,
    nothing=0x800F0000,
    many=0x80100000,
    subscription=0x80280000,
    node=0x80340000,
    filter=0x80440000,
    publishes=0x80780000,
    none=0x80790000,
    number=0x807A0000,
    message=0x807B0000,
    deadband=0x808E0000,
)


@dataclass
class MonitoredItem:
    handle: int
    node: str
    number: int
    queue_size: int
    asked: object
    queue: deque = field(default_factory=deque)
    is_dead: bool = False

    def put(self, sample):
        self.queue.append(sample)
        if len(self.queue) > self.queue_size:
            self.queue.popleft()
            value, tick, code = self.queue[0]
            self.queue[0] = (value, tick, code | (OVERFLOW if self.queue_size > 1 else 0))


@dataclass
class ServerSubscription:
    number: int
    interval_s: float
    keep_alives: int
    session: int
    asked: object
    items: dict = field(default_factory=dict)
    next: int = 1
    kept: dict = field(default_factory=dict)
    quiet: int = 10**9
    is_mute: bool = False
    status: int | None = None
    task: object = None


class ModelServer:
    """`change` gives a node a value; `cut` ends the connection, `restart` the subscriptions too.

    `refusals[service]` are StatusCodes (or None for no) for the next requests of that kind; `log` is what was asked.
    `delay[service]` is in seconds, or an iterator of them.
    """

    def __init__(self, clock):
        self.clock = clock
        self.values = {}
        self.history = defaultdict(list)
        self.missing = set()
        self.unfiltered = set()
        self.subscriptions = {}
        self.waiting = deque()
        self.refusals = defaultdict(deque)
        self.log = []
        self.acknowledged = []
        self.most_items = 10_000
        self.keeps = 1000
        self.splits = 10_000
        self.session = 1
        self.is_up = True
        self.is_frozen = False
        self.lost = 0
        self.delay = {}
        self.sends_history = True
        self.on_acknowledged = lambda subscription, message: None
        self.swallow = set()
        self._last = 100
        self._pending = set()
        self._gone = None

    # --- what a test does with it ---

    def ticks(self, offset_ms=0):
        return ticks_of(self.clock.wall_ms() + offset_ms)

    def change(self, node, value, *, tick=None, code=0, told=True):
        tick = self.ticks() if tick is None else tick
        sample = (value, tick, code)
        self.values[node] = sample
        self.history[node].append(sample)
        for subscription in self.subscriptions.values():
            for item in subscription.items.values():
                if item.node == node and told and not item.is_dead:
                    item.put(sample)

    def cut(self, *, why="offline"):
        """The link is gone: what waits for an answer fails, the server keeps session and subscriptions."""
        self.is_up = False
        self.waiting.clear()
        error = LineError("cut", cause=why)
        if self._gone is not None and not self._gone.done():
            self._gone.set_exception(error)
            self._gone.exception()
        for future in list(self._pending):
            if not future.done():
                future.set_exception(error)

    def connect(self, *, is_resumed):
        self.is_up = True
        self._gone = None
        if not is_resumed:
            self.session += 1
        for subscription in self.subscriptions.values():
            subscription.quiet = 10**9

    def restart(self):
        """The server forgets all subscriptions."""
        for subscription in self.subscriptions.values():
            subscription.task.cancel()
        self.subscriptions.clear()

    def orphan(self, number):
        """The session is ended, the subscription is kept: its messages wait for another session."""
        self.subscriptions[number].status = TRANSFERRED

    def expire(self, number, code=BAD.timeout):
        self.subscriptions[number].status = code

    def close(self):
        self.cut()
        self.restart()

    def named(self, kind):
        return [request for request in self.log if type(request).__name__ == f"{kind}Request"]

    # --- services ---

    async def answer(self, request):
        if not self.is_up:
            raise LineError("no link", cause="offline")
        kind = type(request).__name__.removesuffix("Request")
        self.log.append(request)
        future = asyncio.get_running_loop().create_future()
        self._pending.add(future)
        try:
            refusal = self.refusals[kind].popleft() if self.refusals[kind] else None
            if self.is_frozen:
                pass
            elif refusal is not None:
                future.set_exception(ServiceFault(refusal, name_of(refusal), kind))
            elif kind == "Publish":
                self._on_publish(request, future)
            else:
                self._later(kind, lambda: self._do(kind, request, future))
            return await future
        finally:
            self._pending.discard(future)

    def _later(self, kind, act):
        delay = self.delay.get(kind, 0)
        if not isinstance(delay, (int, float)):
            delay = next(delay)
        if delay:
            asyncio.get_running_loop().call_later(delay, act)
        else:
            act()

    def _do(self, kind, request, future):
        if future.done():
            return
        try:
            future.set_result(getattr(self, f"_on_{kind.lower()}")(request))
        except ServiceFault as fault:
            future.set_exception(fault)

    def _refuse(self, code, what=""):
        raise ServiceFault(code, name_of(code), what)

    def _find(self, number):
        subscription = self.subscriptions.get(number)
        if subscription is None or subscription.session != self.session:
            self._refuse(BAD.subscription)
        return subscription

    def _on_createsubscription(self, request):
        asked = request.Parameters
        self._last += 1
        subscription = ServerSubscription(
            self._last, asked.RequestedPublishingInterval / 1000, asked.RequestedMaxKeepAliveCount, self.session, asked
        )
        self.subscriptions[self._last] = subscription
        subscription.task = asyncio.get_running_loop().create_task(self._cycle(subscription))
        response = ua.CreateSubscriptionResponse()
        response.Parameters = ua.CreateSubscriptionResult(
            self._last,
            asked.RequestedPublishingInterval,
            asked.RequestedLifetimeCount,
            asked.RequestedMaxKeepAliveCount,
        )
        return response

    def _on_createmonitoreditems(self, request):
        assert request.Parameters.TimestampsToReturn is ua.TimestampsToReturn.Both, "batches carry both times"
        subscription = self._find(request.Parameters.SubscriptionId)
        if len(request.Parameters.ItemsToCreate) > self.most_items:
            self._refuse(BAD.many)
        response = ua.CreateMonitoredItemsResponse()
        response.Results = [self._item(subscription, item) for item in request.Parameters.ItemsToCreate]
        return response

    def _item(self, subscription, asked):
        node = asked.ItemToMonitor.NodeId.Identifier
        wanted = asked.RequestedParameters
        code = BAD.node if node in self.missing else 0
        if node in self.unfiltered and isinstance(wanted.Filter, ua.DataChangeFilter):
            code = BAD.filter
        if code:
            return ua.MonitoredItemCreateResult(ua.StatusCode(code))
        self._last += 1
        item = MonitoredItem(wanted.ClientHandle, node, self._last, wanted.QueueSize, asked)
        subscription.items[self._last] = item
        if node in self.values:
            item.put(self.values[node])
        return ua.MonitoredItemCreateResult(
            ua.StatusCode(0), self._last, wanted.SamplingInterval, wanted.QueueSize, ua.ExtensionObject()
        )

    def _on_deletesubscriptions(self, request):
        results = []
        for number in request.Parameters.SubscriptionIds:
            found = self.subscriptions.pop(number, None)
            if found is not None:
                found.task.cancel()
            results.append(ua.StatusCode(0 if found else BAD.subscription))
        response = ua.DeleteSubscriptionsResponse()
        response.Results = results
        return response

    def _on_transfersubscriptions(self, request):
        assert not request.Parameters.SendInitialValues, "what was told already would come twice"
        results = []
        for number in request.Parameters.SubscriptionIds:
            subscription = self.subscriptions.get(number)
            if subscription is None:
                results.append(ua.TransferResult(ua.StatusCode(BAD.subscription)))
            elif subscription.session == self.session:
                results.append(ua.TransferResult(ua.StatusCode(BAD.nothing)))
            else:
                subscription.session = self.session
                results.append(ua.TransferResult(ua.StatusCode(0), list(subscription.kept)))
        response = ua.TransferSubscriptionsResponse()
        response.Parameters.Results = results
        return response

    def _on_republish(self, request):
        subscription = self._find(request.Parameters.SubscriptionId)
        message = subscription.kept.get(request.Parameters.RetransmitSequenceNumber)
        if message is None:
            self._refuse(BAD.message)
        response = ua.RepublishResponse()
        response.NotificationMessage = message
        return struct_to_binary(response)

    def _on_read(self, request):
        response = ua.ReadResponse()
        for wanted in request.Parameters.NodesToRead:
            node = wanted.NodeId.Identifier
            if node in self.missing:
                response.Results.append(ua.DataValue(StatusCode_=ua.StatusCode(BAD.node)))
            else:
                response.Results.append(_data_value(self.values.get(node, (0.0, self.ticks(), 0))))
        return struct_to_binary(response)

    def _on_historyread(self, request):
        asked = request.Parameters
        details, response = asked.HistoryReadDetails, ua.HistoryReadResponse()
        start, end = (ua.datetime_to_win_epoch(t) for t in (details.StartTime, details.EndTime))
        for wanted in asked.NodesToRead:
            data = ua.HistoryData()
            found = (
                [s for s in self.history[wanted.NodeId.Identifier] if start <= s[1] < end] if self.sends_history else []
            )
            data.DataValues = [_data_value(sample) for sample in found[: details.NumValuesPerNode or None]]
            response.Results.append(ua.HistoryReadResult(ua.StatusCode(0), None, data))
        return struct_to_binary(response)

    # --- publishing ---

    def _on_publish(self, request, future):
        results = []
        for acknowledgement in request.Parameters.SubscriptionAcknowledgements:
            subscription = self.subscriptions.get(acknowledgement.SubscriptionId)
            known = subscription and subscription.kept.pop(acknowledgement.SequenceNumber, None)
            self.acknowledged.append((acknowledgement.SubscriptionId, acknowledgement.SequenceNumber))
            if known:
                self.on_acknowledged(subscription, known)
            results.append(0 if known else BAD.number if subscription else BAD.subscription)
        if not any(one.session == self.session for one in self.subscriptions.values()):
            future.set_exception(ServiceFault(BAD.none, name_of(BAD.none), "Publish"))
            return
        self.waiting.append((future, results))

    async def _cycle(self, subscription):
        while True:
            await asyncio.sleep(subscription.interval_s)
            while self.is_up and not self.is_frozen and self._publish(subscription):
                pass

    def _publish(self, subscription):
        """One message, where there is anything to tell; returns whether there is more."""
        if subscription.is_mute or subscription.session != self.session:
            return False
        has_news = any(item.queue for item in subscription.items.values()) or subscription.status is not None
        subscription.quiet += 1
        if not has_news and subscription.quiet < subscription.keep_alives:
            return False
        while self.waiting and self.waiting[0][0].done():
            self.waiting.popleft()
        if not self.waiting:
            return False
        subscription.quiet = 0
        future, results = self.waiting.popleft()
        message = ua.NotificationMessage(subscription.next, ua.win_epoch_to_datetime(self.ticks()), [])
        if has_news:
            message.NotificationData = [self._news(subscription)]
            subscription.kept[subscription.next] = message
            while len(subscription.kept) > self.keeps:
                del subscription.kept[min(subscription.kept)]
            subscription.next = subscription.next % 0xFFFFFFFF + 1
        more = any(item.queue for item in subscription.items.values())
        response = ua.PublishResponse()
        response.Parameters.SubscriptionId = subscription.number
        response.Parameters.AvailableSequenceNumbers = list(subscription.kept)
        response.Parameters.MoreNotifications = more
        response.Parameters.NotificationMessage = message
        response.Parameters.Results = [ua.StatusCode(code) for code in results]
        if has_news and message.SequenceNumber in self.swallow:
            self.swallow.discard(message.SequenceNumber)
            self.waiting.appendleft((future, results))
            return more
        if subscription.status == TRANSFERRED and message.NotificationData:
            subscription.status, subscription.session = None, None
        elif subscription.status is not None and message.NotificationData:
            self.subscriptions.pop(subscription.number, None)
            subscription.task.cancel()
            more = False
        body = struct_to_binary(response)
        self._later("Publish", lambda: future.done() or future.set_result(body))
        return more

    def _news(self, subscription):
        if subscription.status is not None:
            return ua.StatusChangeNotification(ua.StatusCode(subscription.status))
        news = ua.DataChangeNotification()
        for item in subscription.items.values():
            while item.queue and len(news.MonitoredItems) < self.splits:
                news.MonitoredItems.append(ua.MonitoredItemNotification(item.handle, _data_value(item.queue.popleft())))
        return news


def _data_value(sample):
    value, tick, code = sample
    return ua.DataValue(
        ua.Variant(value),
        ua.StatusCode(code),
        ua.win_epoch_to_datetime(tick) if tick else None,
        ua.win_epoch_to_datetime(tick) if tick else None,
    )


class FakeSession:
    """What the listener needs of a session, answered by a server in memory."""

    def __init__(self, server, line="opc.tcp://plant:4840"):
        self.server = server
        self.line = line
        self.limits = Limits(1000, 1000, 1000, 1000, 1000)
        self.namespaces = ("http://opcfoundation.org/UA/", "urn:plant")
        self.structures = Structures()
        self.timeout_s = 10.0

    async def call(self, request, *, timeout_s=None):
        return await self._in_time(request, timeout_s or self.timeout_s)

    async def fetch(self, request, *, timeout_s):
        return await self._in_time(request, timeout_s)

    async def _in_time(self, request, timeout_s):
        try:
            async with asyncio.timeout(timeout_s):
                return await self.server.answer(request)
        except TimeoutError:
            raise LineError("no answer in time", cause="timeout") from None

    async def gone(self):
        if self.server._gone is None:
            self.server._gone = asyncio.get_running_loop().create_future()
        await asyncio.shield(self.server._gone)


class FakeCatalogue:
    """Every tag's address is `ns=1;s=NODE`; `known` may be changed by hand."""

    def __init__(self):
        self.own = {}

    def known(self, group):
        return [self.own.get(item.tag.name) or _known(item) for item in group.plan.items]


def _known(item, **more):
    node = ua.NodeId(item.address.identifier, 1)
    return Known(node=node, **{"type": "float64", "builtin": 11, "access": 5, **more})


class Rig:
    """A listener with its server, and what it gave: `batches`, in order."""

    def __init__(self, clock, metrics, **options):
        self.clock = clock
        self.metrics = metrics
        self.options = DeviceOptions(**options)
        self.server = ModelServer(clock)
        self.session = FakeSession(self.server)
        self.catalogue = FakeCatalogue()
        self.listener = Listener(self.session, self.catalogue, self.options, clock=clock, metrics=metrics)
        self.device = Device(name="plc", driver="opcua", url=self.session.line, options=self.options)
        self.groups = []
        self.batches = []
        self.error = None
        self.is_slow = None
        self._task = None

    def group(self, names, *, every_s=1.0, **tag):
        items = [
            plan.item_of(Tag(name=name, address=f"ns=1;s={name}", type="float64", every_s=every_s, **tag))
            for name in names
        ]
        group = plan.group_of(self.device, self.options, every_s, items)
        self.groups.append(group)
        return group

    def start(self, *, is_resumed=False):
        self.error = None
        self._task = asyncio.create_task(self._listen(is_resumed=is_resumed))

    async def _listen(self, *, is_resumed):
        try:
            async with aclosing(self.listener.listen(self.groups, is_resumed=is_resumed)) as batches:
                async for batch in batches:
                    self.batches.append(batch)
                    if self.is_slow is not None:
                        await self.is_slow.wait()
        except LineError as error:
            self.error = error

    async def ended(self):
        await self._task
        return self.error

    async def lose(self, *, seconds=0.0, is_resumed=True, restart=False):
        """The link is cut and comes back."""
        self.server.cut()
        error = await self.ended()
        assert error is not None
        if restart:
            self.server.restart()
        await asyncio.sleep(seconds)
        self.server.connect(is_resumed=is_resumed)

    async def stop(self):
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        self.server.close()
        await asyncio.sleep(0)
        rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        assert not [task for task in rest if not task.cancelling()], rest

    async def until(self, claim, seconds=600):
        """Wait until a claim is true; fails after so many virtual seconds."""
        async with asyncio.timeout(seconds):
            while not claim():
                if self._task is not None and self._task.done():
                    self._task.result()
                await asyncio.sleep(0.01)

    def samples(self, name=None):
        """(tag, value, quality, time in ms, is_history) of all that came, in order."""
        found = []
        for batch in self.batches:
            places = range(len(batch.values)) if batch.index is None else batch.index
            assert len(set(places)) == len(batch.values)
            assert list(places) == sorted(places)
            for k, place in enumerate(places):
                quality = batch.quality if isinstance(batch.quality, str) else batch.quality[k]
                tag = batch.group.names[place]
                if name in (None, tag):
                    found.append(
                        (
                            tag,
                            batch.values[k],
                            str(quality),
                            batch.times[k] if batch.times else batch.time,
                            batch.is_history,
                        )
                    )
        return found

    def values(self, name):
        return [value for _, value, _, _, _ in self.samples(name)]

    def last(self, name):
        return self.samples(name)[-1][1:3]


@pytest.fixture
def rig(clock, metrics):
    """`rig(keep_alive="2s", …)` makes one."""
    return lambda **options: Rig(clock, metrics, **options)


@pytest.fixture(scope="session")
def model():
    """The classes and numbers of this file, for properties."""
    return SimpleNamespace(
        Rig=Rig, ModelServer=ModelServer, FakeSession=FakeSession, Metrics=Metrics, known=_known, BAD=BAD,
        EPOCH=EPOCH, TICKS_PER_MS=TICKS_PER_MS,
    )  # fmt: skip
