"""How subscriptions and their items are made, and how publish requests are kept at the server."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

import pytest
from asyncua import ua

from drivers.opcua.listening.items import Items
from drivers.opcua.listening.subscription import MOST_GAPS, Counts, Subscription
from drivers.opcua.values.belief import Belief
from drivers.opcua.values.parsing import Published
from gateway.clock import SystemClock
from gateway.metrics import Metrics


def _asked(r):
    """What the server was asked for each node last."""
    found = {}
    for request in r.server.named("CreateMonitoredItems"):
        for item in request.Parameters.ItemsToCreate:
            found[item.ItemToMonitor.NodeId.Identifier] = item
    return found


def _names(count):
    return [f"t{n}" for n in range(count)]


def test_what_nobody_asked_for_is_counted():
    metrics = Metrics()
    counts = Counts(metrics, "plc")
    belief = Belief(SystemClock(), counts.strays)
    subscription = Subscription(1.0, Items([], [], belief), counts, is_remembering=False)
    assert subscription.deliver(Published(sequence=1, events=3, unknown=2), 0, 0.0) == []
    assert metrics.counter("opcua_unasked_events_total", line="plc").value == 3
    assert metrics.counter("opcua_unknown_notifications_total", line="plc").value == 2


def test_items_are_made_in_chunks_of_what_the_server_takes(run, rig):
    async def story():
        r = rig()
        r.session.limits = replace(r.session.limits, max_monitored_items_per_call=30)
        r.group(_names(100))
        r.start()
        await r.until(lambda: sum(len(one.items) for one in r.server.subscriptions.values()) == 100)
        sizes = [len(request.Parameters.ItemsToCreate) for request in r.server.named("CreateMonitoredItems")]
        assert sizes == [30, 30, 30, 10]
        await r.stop()

    run(story())


def test_where_the_server_takes_less_than_it_says_half_is_asked_for(run, rig):
    async def story():
        r = rig()
        r.server.most_items = 20
        for name in _names(100):
            r.server.change(name, 1.0)
        r.group(_names(100))
        r.start()
        await r.until(lambda: len(r.samples()) == 100)
        sizes = [len(request.Parameters.ItemsToCreate) for request in r.server.named("CreateMonitoredItems")]
        assert sizes[:4] == [100, 50, 25, 12]
        assert max(sizes[3:]) == 12
        await r.lose(restart=True, is_resumed=False)
        r.server.log.clear()
        r.start()
        await r.until(lambda: len(r.samples()) == 200)
        sizes = [len(request.Parameters.ItemsToCreate) for request in r.server.named("CreateMonitoredItems")]
        assert max(sizes) == 12, "it was learned"
        await r.stop()

    run(story())


def test_an_item_that_is_too_much_by_itself_is_bad_and_the_others_live(run, rig, model):
    async def story():
        r = rig()
        r.server.most_items = 0
        r.group(["a"])
        r.start()
        await r.until(r.samples)
        assert r.last("a") == (None, "bad:BadTooManyOperations")
        await r.stop()

    run(story())


def test_a_wrong_node_is_bad_with_its_reason_while_the_rest_runs_and_it_is_said_once(run, rig, caplog):
    async def story():
        r = rig()
        r.group(["a", "wrong", "b"])
        r.server.missing.add("wrong")
        r.server.change("a", 1.0)
        r.server.change("b", 2.0)
        r.start()
        await r.until(lambda: len(r.samples()) == 3)
        assert r.last("wrong") == (None, "bad:BadNodeIdUnknown")
        assert r.last("b") == (2.0, "good")
        await r.lose(restart=True, is_resumed=False)
        r.start()
        await r.until(lambda: len(r.samples("wrong")) == 2)
        await r.stop()

    with caplog.at_level(logging.INFO):
        run(story())
    assert caplog.text.count("BadNodeIdUnknown") == 1
    assert "plc: tag 'wrong' (ns=1;s=wrong)" in caplog.text


def test_a_bad_item_is_tried_again_each_minute_and_told_when_it_is_there(run, rig, caplog):
    async def story():
        r = rig()
        r.group(["a", "late"])
        r.server.missing.add("late")
        r.server.change("a", 1.0)
        r.start()
        await r.until(lambda: len(r.samples()) == 2)
        await asyncio.sleep(200)
        assert len(r.server.named("CreateMonitoredItems")) == 7
        assert len(r.samples("late")) == 1, "it is not said again that it is bad"
        r.server.missing.clear()
        r.server.change("late", 5.0)
        await r.until(lambda: r.last("late") == (5.0, "good"), 70)
        await r.stop()

    with caplog.at_level(logging.INFO):
        run(story())
    assert "takes plc: tag 'late'" in caplog.text


def test_a_bad_item_that_is_there_soon_is_found_soon(run, rig):
    async def story():
        r = rig()
        r.group(["late"])
        r.server.missing.add("late")
        r.start()
        await r.until(lambda: len(r.samples()) == 1)
        r.server.missing.clear()
        r.server.change("late", 5.0)
        await r.until(lambda: r.last("late") == (5.0, "good"), 7)
        await r.stop()

    run(story())


def test_an_address_that_leads_nowhere_is_bad_with_the_reason_that_was_found(run, rig, model):
    async def story():
        r = rig()
        group = r.group(["a", "nowhere"])
        r.catalogue.own["nowhere"] = replace(model.known(group.plan.items[1]), node=None, code=0x806F0000)
        r.server.change("a", 1.0)
        r.start()
        await r.until(lambda: len(r.samples()) == 2)
        assert r.last("nowhere") == (None, "bad:BadNoMatch")
        await asyncio.sleep(130)
        assert len(r.server.named("CreateMonitoredItems")) == 1
        await r.stop()

    run(story())


def test_deadband_sampling_queue_trigger_and_index_range_are_the_servers_task(run, rig):
    from gateway.model import Deadband

    async def story():
        r = rig()
        r.group(["plain"])
        r.group(["absolute"], deadband=Deadband(0.5), scale=0.1)
        r.group(["percent"], options={"range_deadband": 2.0})
        r.group(["stamped"], options={"trigger": "timestamp", "sampling": 0.1, "queue": 7})
        r.group(["part"], options={"index_range": "1:3"})
        r.start()
        await r.until(lambda: len(_asked(r)) == 5)
        asked = _asked(r)
        plain = asked["plain"].RequestedParameters
        assert plain.Filter == ua.ExtensionObject()
        assert (plain.SamplingInterval, plain.QueueSize, plain.DiscardOldest) == (1000, 10, True)
        absolute = asked["absolute"].RequestedParameters.Filter
        assert (absolute.Trigger, absolute.DeadbandType, absolute.DeadbandValue) == (1, 1, 5.0)
        percent = asked["percent"].RequestedParameters.Filter
        assert (percent.DeadbandType, percent.DeadbandValue) == (2, 2.0)
        stamped = asked["stamped"].RequestedParameters
        assert (stamped.SamplingInterval, stamped.QueueSize) == (100, 7)
        assert (stamped.Filter.Trigger, stamped.Filter.DeadbandType) == (2, 0)
        assert asked["part"].ItemToMonitor.IndexRange == "1:3"
        await r.stop()

    run(story())


def test_a_text_is_asked_for_without_a_deadband(run, rig, model):
    from gateway.model import Deadband

    async def story():
        r = rig()
        group = r.group(["text"], deadband=Deadband(0.5))
        r.catalogue.own["text"] = replace(model.known(group.plan.items[0]), builtin=12, type="string")
        r.start()
        await r.until(lambda: _asked(r))
        assert _asked(r)["text"].RequestedParameters.Filter == ua.ExtensionObject()
        await r.stop()

    run(story())


def test_where_the_server_refuses_a_filter_the_item_is_made_without_it(run, rig, caplog):
    from gateway.model import Deadband

    async def story():
        r = rig()
        r.group(["a", "b", "c"], deadband=Deadband(0.5))
        r.group(["d"], deadband=Deadband(0.5), options={"trigger": "timestamp"})
        r.server.unfiltered |= {"b", "c", "d"}
        for name in "abcd":
            r.server.change(name, 1.0)
        r.start()
        await r.until(lambda: len(r.samples()) == 4)
        asked = _asked(r)
        assert isinstance(asked["a"].RequestedParameters.Filter, ua.DataChangeFilter)
        assert asked["b"].RequestedParameters.Filter == ua.ExtensionObject()
        assert asked["d"].RequestedParameters.Filter == ua.ExtensionObject()
        assert [s[2] for s in r.samples()] == ["good"] * 4
        await r.stop()

    with caplog.at_level(logging.INFO):
        run(story())
    assert "refuses the deadband or trigger of plc: tag 'b' (and so 2 more)" in caplog.text


def test_a_server_that_takes_much_less_than_asked_is_named_once(run, rig, caplog):
    async def story():
        r = rig()
        r.group(["a", "b"], options={"queue": 100})

        def grudging(subscription, asked, make=r.server._item):
            result = make(subscription, asked)
            result.RevisedSamplingInterval, result.RevisedQueueSize = 5000.0, 1
            return result

        r.server._item = grudging
        for _ in range(2):
            r.start()
            await asyncio.sleep(3)
            await r.lose(restart=True, is_resumed=False)
        await r.stop()

    with caplog.at_level(logging.INFO):
        run(story())
    assert caplog.text.count("looks at plc: tag 'a' each 5 s, not each 1 s as asked (and so 1 more)") == 1
    assert caplog.text.count("keeps 1 values of plc: tag 'a', not 100") == 1


def test_a_server_that_makes_no_more_subscriptions_is_named_with_the_cure(run, rig, model):
    async def story():
        r = rig()
        r.group(["a"])
        r.group(["b"], every_s=2)
        r.server.refusals["CreateSubscription"].extend([None, 0x80770000])
        r.start()
        error = await r.ended()
        assert error.cause == "BadTooManySubscriptions"
        assert "a subscription of 1 items: BadTooManySubscriptions: the server has no room" in str(error)
        assert "Use fewer different values of every" in str(error)
        await r.stop()

    run(story())


def test_a_refused_publish_request_is_explained(run, rig):
    async def story():
        r = rig()
        r.group(["a"])
        r.server.refusals["Publish"].append(0x80B8_0000)
        r.start()
        error = await r.ended()
        assert error.cause == "BadRequestTooLarge"
        assert "Publish: BadRequestTooLarge: a request is larger than the server takes. Lower" in str(error)
        await r.stop()

    run(story())


@pytest.mark.parametrize("number", [0, 101])
def test_a_number_of_a_subscription_that_cannot_be_ends_the_connection(run, rig, number):
    async def story():
        r = rig()
        r.group(["a"])
        r.group(["b"], every_s=2)

        def same(request, make=r.server._on_createsubscription):
            response = make(request)
            response.Parameters.SubscriptionId = number
            return response

        r.server._on_createsubscription = same
        r.start()
        assert (await r.ended()).cause == "decode"
        await r.stop()

    run(story())


@pytest.mark.parametrize("revised", [float("nan"), -1.0, float("inf")])
def test_intervals_that_cannot_be_are_not_believed(run, rig, revised):
    async def story():
        r = rig(timeout="1s", keep_alive="1s", watchdog="1s")
        r.group(["a"])
        r.server.change("a", 1.0)

        def odd(request, make=r.server._on_createsubscription):
            response = make(request)
            response.Parameters.RevisedPublishingInterval = revised
            return response

        def odd_item(subscription, asked, make=r.server._item):
            result = make(subscription, asked)
            result.RevisedSamplingInterval = revised
            return result

        r.server._on_createsubscription, r.server._item = odd, odd_item
        r.start()
        await asyncio.sleep(30)
        assert r.values("a") == [1.0]
        r.server.is_frozen = True
        await r.until(lambda: r.error is not None, 10)
        await r.stop()

    run(story())


def test_a_server_that_says_seldom_that_it_lives_is_named(run, rig, caplog):
    async def story():
        r = rig(keep_alive="5s")
        r.group(["a"])

        def seldom(request, make=r.server._on_createsubscription):
            response = make(request)
            response.Parameters.RevisedMaxKeepAliveCount = 600
            return response

        r.server._on_createsubscription = seldom
        r.start()
        await r.until(lambda: r.server.subscriptions)
        await r.stop()

    with caplog.at_level(logging.INFO):
        run(story())
    assert "its loss is noticed late" in caplog.text


def test_a_subscription_that_was_half_made_when_the_link_was_lost_is_made_anew(run, rig):
    async def story():
        r = rig()
        r.session.limits = replace(r.session.limits, max_monitored_items_per_call=1)
        r.group(["a", "b"])
        r.server.change("a", 1.0)
        r.server.change("b", 1.0)
        r.server.delay["CreateMonitoredItems"] = 1
        r.start()
        await asyncio.sleep(1.5)
        (half,) = r.server.subscriptions
        await r.lose()
        r.server.delay.clear()
        r.start(is_resumed=True)
        await r.until(lambda: {s[0] for s in r.samples()} == {"a", "b"})
        assert list(r.server.subscriptions) != [half]
        await r.stop()

    run(story())


def test_with_too_many_publish_requests_there_is_one_less_from_then_on(run, rig):
    async def story():
        r = rig(publish_requests=4, keep_alive="1s")
        r.group(["a"])
        r.server.refusals["Publish"].extend([None, None, 0x80780000, 0x80780000])
        r.start()
        await asyncio.sleep(30)
        await r.until(lambda: len(r.server.waiting) == 2)
        assert r.error is None
        await r.stop()

    run(story())


def test_the_last_publish_request_is_never_given_up(run, rig):
    async def story():
        r = rig(publish_requests=2, keep_alive="1s")
        r.group(["a"])
        r.server.refusals["Publish"].extend([0x80780000] * 9)
        r.start()
        await asyncio.sleep(5)
        await r.until(lambda: len(r.server.waiting) == 1)
        r.server.change("a", 1.0)
        await r.until(lambda: r.values("a") == [1.0])
        await r.stop()

    run(story())


@pytest.mark.parametrize("code", [0x800A0000, 0x80850000])
def test_a_publish_request_that_grew_old_is_sent_again_and_what_it_acknowledged_too(run, rig, code):
    async def story():
        r = rig(publish_requests=1)
        r.group(["a"])
        r.server.change("a", 1.0)
        r.server.refusals["Publish"].extend([None, code])
        r.start()
        await r.until(lambda: r.values("a") == [1.0])
        await r.until(lambda: len(r.server.acknowledged) == 1)
        await r.stop()

    run(story())


def test_what_a_publish_request_may_not_answer_ends_the_connection(run, rig):
    async def story():
        r = rig()
        r.group(["a"])
        r.server.refusals["Publish"].extend([0x80030000])
        r.start()
        assert (await r.ended()).cause == "BadOutOfMemory"
        await r.stop()

    run(story())


def test_a_server_with_a_long_round_trip_is_kept_busy_by_several_publish_requests(run, rig):
    async def story():
        r = rig(publish_requests=3)
        r.group(["a"], every_s=0.1)
        r.server.delay["Publish"] = 0.2
        r.start()
        await asyncio.sleep(2)
        for n in range(100):
            r.server.change("a", float(n))
            await asyncio.sleep(0.1)
        await asyncio.sleep(1)
        assert r.values("a") == [float(n) for n in range(100)]
        first, last = r.batches[0].time, r.batches[-1].time
        assert last - first < 11_000, "none of them waited for its turn"
        await r.stop()

    run(story())


def test_more_gaps_than_a_bound_are_counted_and_left_open(run, rig, count, monkeypatch):
    monkeypatch.setattr("drivers.opcua.listening.subscription.MOST_GAPS", 3)
    assert MOST_GAPS == 20_000

    async def story():
        r = rig()
        names = _names(8)
        r.group(names)
        for name in names:
            r.server.change(name, 0.0)
        r.start()
        await r.until(lambda: len(r.samples()) == 8)
        await r.lose(restart=True, is_resumed=False)
        await asyncio.sleep(1)
        for name in names:
            r.server.change(name, 1.0)
        r.start()
        await r.until(lambda: len(r.samples()) == 16)
        assert count("opcua_dropped_gaps_total") == 5
        await r.stop()

    run(story())
