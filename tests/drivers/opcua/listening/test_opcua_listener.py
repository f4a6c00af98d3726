"""Listening as a whole, against a server in memory on virtual time."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

import pytest

from drivers.opcua.listening import handover, subscription
from drivers.opcua.values.columns import ticks_of
from gateway.errors import LineError
from gateway.model import GOOD, Batch, Quality

OFFLINE = Quality("bad:offline")


def test_each_tag_comes_once_at_first_and_then_whenever_there_is_news(run, rig):
    async def story():
        r = rig()
        r.group(["a", "b", "c"])
        for name in "abc":
            r.server.change(name, 1.0)
        r.start()
        await r.until(lambda: len(r.batches) == 1)
        assert r.batches[0].index is None
        assert list(r.batches[0].values) == [1.0, 1.0, 1.0]
        r.server.change("b", 2.0)
        await r.until(lambda: len(r.batches) == 2)
        assert r.batches[1].index == [1]
        await asyncio.sleep(30)
        assert len(r.batches) == 2
        await r.stop()

    run(story())


def test_there_is_one_subscription_for_each_interval_and_they_share_the_publish_requests(run, rig):
    async def story():
        r = rig(publish_requests=2)
        r.group(["a"], every_s=1)
        r.group(["b"], every_s=5)
        r.group(["c"], every_s=1)
        for name in "abc":
            r.server.change(name, 1.0)
        r.start()
        await r.until(lambda: len(r.samples()) == 3)
        assert len(r.server.subscriptions) == 2
        assert len(r.server.waiting) == 2
        assert {one.asked.RequestedPublishingInterval for one in r.server.subscriptions.values()} == {1000, 5000}
        await r.stop()

    run(story())


def test_a_subscription_outlives_the_session_timeout_and_says_that_it_lives_as_often_as_asked(run, rig):
    async def story():
        r = rig(keep_alive="5s", session_timeout="10m")
        r.group(["a"], every_s=0.1)
        r.group(["b"], every_s=3600)
        r.start()
        await r.until(lambda: len(r.server.subscriptions) == 2)
        fast, slow = (one.asked for one in r.server.subscriptions.values())
        assert fast.RequestedMaxKeepAliveCount == 50
        assert 1000 <= fast.MaxNotificationsPerPublish <= 10_000, "a message is taken apart at once"
        assert fast.RequestedLifetimeCount * 0.1 >= 600
        assert slow.RequestedPublishingInterval == 5000, "an hour of silence says nothing"
        assert slow.RequestedMaxKeepAliveCount == 1
        assert slow.RequestedLifetimeCount * 5 >= 600
        await r.stop()

    run(story())


def test_while_nobody_takes_what_comes_the_server_is_not_asked_for_more(run, rig, monkeypatch):
    monkeypatch.setattr(handover, "MOST_BATCHES", 5)

    async def story():
        r = rig(keep_alive="1s", timeout="1s", watchdog="1s")
        r.is_slow = asyncio.Event()
        r.group(["a"], every_s=0.1)
        r.start()
        for n in range(100):
            r.server.change("a", float(n))
            await asyncio.sleep(1)
        assert len(r.batches) == 1
        assert len(r.listener._handover) <= 5 + 3
        assert not r.server.waiting
        assert r.error is None, "silence that we asked for is none of the server's"
        r.is_slow.set()
        await r.until(lambda: r.values("a")[-1:] == [99.0])
        assert r.metrics.counter("opcua_dead_items_total", line=r.session.line).value == 0
        await r.stop()

    run(story())


def test_silence_counts_from_when_the_server_is_asked_again(run, rig, monkeypatch):
    monkeypatch.setattr(handover, "MOST_BATCHES", 2)

    async def story():
        r = rig(keep_alive="1s", timeout="1s", watchdog=None)
        r.is_slow = asyncio.Event()
        r.group(["a"], every_s=0.1)
        r.start()
        for n in range(10):
            r.server.change("a", float(n))
            await asyncio.sleep(1)
        (one,) = r.server.subscriptions.values()
        one.is_mute = True
        r.is_slow.set()
        await asyncio.sleep(1.5)
        assert r.server.waiting
        assert r.error is None
        one.is_mute = False
        await r.until(lambda: r.values("a")[-1:] == [9.0])
        await r.stop()

    run(story())


def test_what_was_received_is_given_out_before_the_link_is_said_to_be_lost(run, rig):
    async def story():
        r = rig()
        r.is_slow = asyncio.Event()
        r.group(["a"], every_s=0.1)
        r.start()
        for n in range(5):
            r.server.change("a", float(n))
            await asyncio.sleep(0.3)
        assert r.values("a") == [0.0]
        r.server.cut()
        r.is_slow.set()
        assert isinstance(await r.ended(), LineError)
        assert r.values("a") == [0.0, 1.0, 2.0, 3.0, 4.0]
        await r.stop()

    run(story())


def test_what_was_received_and_not_taken_when_the_listening_was_closed_comes_in_the_next_connection(run, rig):
    async def story():
        r = rig()
        r.is_slow = asyncio.Event()
        r.group(["a"], every_s=0.1)
        r.start()
        for n in range(5):
            r.server.change("a", float(n))
            await asyncio.sleep(0.3)
        r._task.cancel()
        await asyncio.wait([r._task])
        assert r.values("a") == [0.0]
        r.server.cut()
        r.server.connect(is_resumed=True)
        r.is_slow = None
        r.start(is_resumed=True)
        await r.until(lambda: r.values("a")[:5] == [0.0, 1.0, 2.0, 3.0, 4.0])
        await r.stop()

    run(story())


def test_what_was_not_taken_of_groups_that_nobody_listens_to_any_more_is_dropped_and_counted(run, rig, count):
    async def story():
        r = rig()
        r.is_slow = asyncio.Event()
        former = r.group(["a"], every_s=0.1)
        r.start()
        for n in range(5):
            r.server.change("a", float(n))
            await asyncio.sleep(0.3)
        r._task.cancel()
        await asyncio.wait([r._task])
        r.server.cut()
        r.server.connect(is_resumed=True)
        r.is_slow = None
        r.groups.clear()
        r.batches.clear()
        r.server.change("b", 9.0)
        r.group(["b", "c"], every_s=0.1)
        r.start(is_resumed=True)
        await r.until(r.samples)
        assert all(batch.group is not former for batch in r.batches)
        assert count("opcua_dropped_batches_total") == 4
        await r.stop()

    run(story())


def test_what_was_not_taken_of_tags_that_other_groups_have_now_comes_with_those(run, rig, count):
    async def story():
        r = rig()
        r.is_slow = asyncio.Event()
        r.group(["a", "gone", "b"], every_s=0.1)
        r.server.change("gone", 7.0)
        r.start()
        for n in range(5):
            r.server.change("a", float(n))
            r.server.change("b", n + 0.5)
            await asyncio.sleep(0.3)
        r._task.cancel()
        await asyncio.wait([r._task])
        r.server.cut()
        r.server.connect(is_resumed=True)
        r.is_slow = None
        r.groups.clear()
        r.group(["b", "a"], every_s=0.1)
        r.group(["c"], every_s=0.1)
        r.start(is_resumed=True)
        await asyncio.sleep(5)
        assert r.values("a") == [0.0, 1.0, 2.0, 3.0, 4.0, 4.0], "what was told before the loss is said again"
        assert r.values("b") == [0.5, 1.5, 2.5, 3.5, 4.5, 4.5]
        times = [time for _, _, _, time, _ in r.samples("b")]
        assert times == [time for _, _, _, time, _ in r.samples("a")]
        assert times[:5] == sorted(set(times))
        assert {batch.group for batch in r.batches[1:]} <= set(r.groups)
        assert count("opcua_dropped_batches_total") == 0
        await r.stop()

    run(story())


def test_a_batch_goes_to_the_groups_that_have_its_tags_with_the_same_type_now(rig):
    r = rig()
    former = r.group(["a", "b", "c", "d"])
    heirs = [r.group(["d", "x", "a"]), r.group(["c"]), replace(r.group(["b"]), types=("int64",))]
    queue = handover.Handover()
    more = {"times": [5, 6, 7], "server_times": [8, 9, 10], "is_history": True}
    queue.put([Batch(former, 4, [1.0, 2.0, 3.0], [GOOD, OFFLINE, GOOD], [0, 2, 3], **more)])
    queue.put([Batch(former, 5, [1.0, 2.0, 3.0, 4.0]), Batch(former, 6, [2.0], index=[1])])
    assert queue.keep(heirs) == 2
    found = [queue.take() for _ in range(4)]
    assert not queue
    assert [(b.group, b.time, b.values, b.quality, b.index, b.times, b.server_times, b.is_history) for b in found] == [
        (heirs[0], 4, [3.0, 1.0], [GOOD, GOOD], [0, 2], [7, 5], [10, 8], True),
        (heirs[1], 4, [2.0], [OFFLINE], None, [6], [9], True),
        (heirs[0], 5, [4.0, 1.0], GOOD, [0, 2], None, None, False),
        (heirs[1], 5, [3.0], GOOD, None, None, None, False),
    ]


def test_what_waits_for_a_lost_message_goes_on_when_the_groups_are_others(run, rig, count, model):
    async def story():
        r = rig()
        group = r.group(["a"])
        r.catalogue.own["a"] = model.known(group.plan.items[0], access=1)
        r.server.change("a", 0.0)
        r.start()
        await r.until(r.samples)
        r.server.delay["Republish"] = 5
        r.server.swallow.add(2)
        for n in range(1, 4):
            r.server.change("a", float(n))
            await asyncio.sleep(1.1)
        r.server.restart()
        await r.lose(is_resumed=False)
        r.server.delay.clear()
        r.groups.clear()
        r.group(["c", "a"])
        r.start()
        await r.until(lambda: r.values("a")[-1:] == [3.0])
        assert r.values("a")[:3] == [0.0, 2.0, 3.0]
        assert count("opcua_lost_messages_total") == 1
        await r.stop()

    run(story())


def test_the_tasks_end_with_the_generator(run, rig):
    async def story():
        r = rig(watchdog="1s")
        r.group(["a"])
        r.start()
        await r.until(lambda: r.server.subscriptions)
        await r.stop()

    run(story())


@pytest.mark.parametrize("cause", ["offline", "timeout"])
def test_the_loss_of_the_link_ends_it_with_its_cause(run, rig, cause):
    async def story():
        r = rig()
        r.group(["a"])
        r.start()
        await asyncio.sleep(3)
        r.server.cut(why=cause)
        assert (await r.ended()).cause == cause
        await r.stop()

    run(story())


def test_a_server_that_says_nothing_for_two_keep_alives_and_the_timeout_is_given_up(run, rig):
    async def story():
        r = rig(keep_alive="5s", timeout="10s", watchdog=None)
        r.group(["a"])
        r.group(["b"], every_s=2)
        r.start()
        await asyncio.sleep(60)
        assert r.error is None
        r.server.is_frozen = True
        began = r.clock.monotonic()
        assert (await r.ended()).cause == "timeout"
        assert 15 <= r.clock.monotonic() - began <= 21
        await r.stop()

    run(story())


@pytest.mark.parametrize("requests", [1, 3])
def test_one_subscription_that_says_nothing_while_another_does_is_made_anew(run, rig, requests):
    async def story():
        r = rig(keep_alive="5s", timeout="10s", publish_requests=requests)
        r.group(["a"])
        r.group(["b"], every_s=2)
        r.server.change("a", 1.0)
        r.start()
        await asyncio.sleep(10)
        mute, other = r.server.subscriptions.values()
        mute.is_mute = True
        await r.until(lambda: mute.number not in r.server.subscriptions, 60)
        await r.until(lambda: len(r.server.subscriptions) == 2)
        assert other.number in r.server.subscriptions
        r.server.change("a", 2.0)
        await r.until(lambda: r.last("a") == (2.0, "good"))
        assert r.error is None
        await r.stop()

    run(story())


def test_a_subscription_that_the_server_ended_is_made_anew_and_the_others_stay(run, rig, count):
    async def story():
        r = rig(session_timeout="30s")
        r.group(["a"])
        r.group(["b"], every_s=2)
        r.server.change("a", 1.0)
        r.server.change("b", 1.0)
        r.start()
        await r.until(lambda: len(r.samples()) == 2)
        first, other = r.server.subscriptions
        r.server.expire(first)
        await r.until(lambda: first not in r.server.subscriptions and len(r.server.subscriptions) == 2, 5)
        assert other in r.server.subscriptions
        r.server.change("a", 2.0)
        await r.until(lambda: r.last("a") == (2.0, "good"))
        assert r.error is None
        assert count("opcua_recreated_subscriptions_total") == 1
        await r.stop()

    run(story())


def test_a_subscription_made_anew_while_the_link_holds_says_nothing_twice(run, rig):
    async def story():
        r = rig()
        r.group(["a", "b"])
        r.server.change("a", 1.0)
        r.server.change("b", 1.0)
        r.start()
        await r.until(lambda: len(r.samples()) == 2)
        (first,) = r.server.subscriptions
        r.server.change("b", 2.0)
        await asyncio.sleep(2)
        r.server.expire(first)
        await r.until(lambda: first not in r.server.subscriptions and len(r.server.subscriptions) == 1)
        await asyncio.sleep(5)
        r.server.change("a", 3.0)
        await r.until(lambda: r.values("a")[-1:] == [3.0])
        assert r.values("a") == [1.0, 3.0]
        assert r.values("b") == [1.0, 2.0]
        await r.stop()

    run(story())


def test_history_is_read_when_all_items_are_made_however_long_that_takes(run, rig):
    async def story():
        r = rig(timeout="1s")
        r.session.limits = replace(r.session.limits, max_monitored_items_per_call=1)
        names = [f"t{n}" for n in range(20)]
        r.group(names)
        for name in names:
            r.server.change(name, 0.0)
        r.start()
        await r.until(lambda: len(r.samples()) == 20)
        await r.lose(restart=True, is_resumed=False)
        for value in (1.0, 2.0):
            await asyncio.sleep(1)
            for name in names:
                r.server.change(name, value)
        r.server.delay["CreateMonitoredItems"] = 0.9
        r.start()
        await r.until(lambda: all(r.values(name)[-1:] == [2.0] for name in names))
        assert all(r.values(name) == [0.0, 1.0, 2.0] for name in names)
        await r.stop()

    run(story())


def test_a_server_that_forgot_all_subscriptions_gets_them_anew(run, rig):
    async def story():
        r = rig()
        r.group(["a"])
        r.group(["b"], every_s=2)
        r.server.change("a", 1.0)
        r.start()
        await r.until(r.samples)
        r.server.restart()
        for future, _ in r.server.waiting:
            future.set_exception(_fault("BadNoSubscription"))
        r.server.waiting.clear()
        await r.until(lambda: len(r.server.subscriptions) == 2)
        r.server.change("a", 2.0)
        await r.until(lambda: r.last("a") == (2.0, "good"))
        assert r.error is None
        await r.stop()

    run(story())


def test_a_late_word_of_there_being_no_subscription_does_not_end_one_that_was_made_since(run, rig, count):
    async def story():
        r = rig(publish_requests=3)
        r.group(["a"])
        r.server.change("a", 1.0)
        r.start()
        await r.until(r.samples)
        await r.until(lambda: len(r.server.waiting) == 3)
        late = [r.server.waiting.pop()[0] for _ in range(2)]
        (first,) = r.server.subscriptions
        r.server.expire(first)
        await r.until(lambda: first not in r.server.subscriptions and len(r.server.subscriptions) == 1)
        for future in late:
            future.set_exception(_fault("BadNoSubscription"))
        await asyncio.sleep(5)
        assert count("opcua_recreated_subscriptions_total") == 1
        await r.stop()

    run(story())


def _fault(name):
    from drivers.opcua.faults import ServiceFault

    return ServiceFault(0x80790000, name, "Publish")


def test_a_server_that_ends_each_subscription_at_once_is_left_in_peace(run, rig):
    async def story():
        r = rig()
        r.group(["a"])
        r.start()

        async def spoil():
            while r.error is None:
                for number in list(r.server.subscriptions):
                    r.server.expire(number)
                await asyncio.sleep(0.5)

        spoiler = asyncio.create_task(spoil())
        error = await r.ended()
        assert "at once" in str(error)
        assert len(r.server.named("CreateSubscription")) <= 6
        await spoiler
        await r.stop()

    run(story())


def test_an_answer_that_cannot_be_understood_ends_the_connection_and_is_not_asked_for_for_ever(run, rig):
    async def story():
        r = rig()
        r.group(["a"])
        r.server.change("a", 1.0)
        r.start()
        await r.until(r.samples)
        broken, _ = r.server.waiting.popleft()
        broken.set_result(b"\x01\x00\x3d\x03" + b"\0" * 7)
        assert (await r.ended()).cause == "decode"
        await r.stop()

    run(story())


# --- what was missed ---


def test_after_a_restart_of_the_server_history_comes_first_then_what_is_then_the_rest_without_doubles(run, rig):
    async def story():
        r = rig()
        r.group(["a", "b"])
        r.server.change("a", 0.0)
        r.server.change("b", 0.0)
        r.start()
        await r.until(lambda: len(r.samples()) == 2)
        r.server.cut()
        await r.ended()
        r.server.restart()
        for n in range(1, 20):
            await asyncio.sleep(1)
            r.server.change("a", float(n))
        r.server.connect(is_resumed=False)
        r.start(is_resumed=False)
        await r.until(lambda: r.values("a")[-1:] == [19.0])
        r.server.change("a", 20.0)
        await r.until(lambda: r.values("a")[-1:] == [20.0])
        assert r.values("a") == [float(n) for n in range(21)]
        assert [sample[4] for sample in r.samples("a")] == [False] + [True] * 18 + [False] * 2
        assert r.values("b") == [0.0, 0.0], "what did not change is said again, for it was bad meanwhile"
        await r.stop()

    run(story())


def test_without_a_history_of_any_tag_nothing_is_held_back(run, rig, model):
    async def story():
        r = rig(history="off")
        r.group(["a"])
        r.server.change("a", 0.0)
        r.start()
        await r.until(r.samples)
        await r.lose(restart=True, is_resumed=False)
        await asyncio.sleep(5)
        r.server.change("a", 1.0)
        r.start()
        await r.until(lambda: r.values("a") == [0.0, 1.0])
        assert not r.server.named("HistoryRead")
        await r.stop()

    run(story())


def test_what_is_held_back_goes_on_after_a_minute_and_history_comes_behind(run, rig, count):
    async def story():
        r = rig(timeout="5m")
        r.session.timeout_s = 300
        r.group(["a"])
        r.server.change("a", 0.0)
        r.start()
        await r.until(r.samples)
        await r.lose(restart=True, is_resumed=False)
        await asyncio.sleep(1)
        r.server.change("a", 1.0)
        await asyncio.sleep(1)
        r.server.change("a", 2.0)
        r.server.delay["HistoryRead"] = 200
        r.start()
        began = r.clock.monotonic()
        await r.until(lambda: r.values("a")[-1:] == [2.0])
        assert subscription.LONGEST_HOLD_S <= r.clock.monotonic() - began <= subscription.LONGEST_HOLD_S + 5
        await r.until(lambda: r.values("a")[-1:] == [1.0])
        assert r.samples("a")[-1][4]
        assert count("opcua_released_early_total") == 1
        await r.stop()

    run(story())


def test_too_many_values_are_not_held_back_either(run, rig, monkeypatch, count):
    monkeypatch.setattr(subscription, "MOST_HELD", 10)

    async def story():
        r = rig(timeout="5m")
        r.session.timeout_s = 300
        r.group(["a"], every_s=0.1)
        r.server.change("a", 0.0)
        r.start()
        await r.until(r.samples)
        await r.lose(restart=True, is_resumed=False)
        await asyncio.sleep(1)
        r.server.delay["HistoryRead"] = 40
        r.start()
        for n in range(1, 15):
            r.server.change("a", float(n))
            await asyncio.sleep(0.2)
        assert r.values("a") == [0.0, *map(float, range(1, 15))]
        assert count("opcua_released_early_total") == 1
        await r.stop()

    run(story())


def test_a_gap_whose_reading_was_cut_short_is_read_on_in_the_next_connection(run, rig):
    async def story():
        r = rig()
        r.group(["a"])
        r.server.change("a", 0.0)
        r.start()
        await r.until(r.samples)
        await r.lose(restart=True, is_resumed=False)
        for n in range(1, 6):
            await asyncio.sleep(1)
            r.server.change("a", float(n))
        r.server.delay["HistoryRead"] = 5
        r.start()
        await r.until(lambda: r.server.named("HistoryRead"))
        await r.lose(restart=True, is_resumed=False)
        assert r.values("a") == [0.0, 5.0], "it was received, and goes on before the end"
        r.server.delay.clear()
        await asyncio.sleep(1)
        r.server.change("a", 6.0)
        await asyncio.sleep(1)
        r.server.change("a", 7.0)
        r.start()
        await r.until(lambda: r.values("a")[-1:] == [7.0])
        assert sorted(r.values("a")) == [float(n) for n in range(8)]
        await r.stop()

    run(story())


@pytest.mark.parametrize("names", [["a"], ["c", "a"]])
def test_a_gap_that_was_read_up_to_between_values_of_one_time_is_read_on_there(run, rig, monkeypatch, names):
    async def story():
        monkeypatch.setattr(handover, "MOST_BATCHES", 1)
        r = rig()
        r.group(["a"])
        r.server.change("a", 0.0)
        r.start()
        await r.until(r.samples)
        await r.lose(restart=True, is_resumed=False)
        await asyncio.sleep(1)
        for n in range(1, 4):
            r.server.change("a", float(n), tick=r.server.ticks(-500))
        r.server.change("a", 4.0)
        r.is_slow = asyncio.Event()
        r.start()
        await r.until(lambda: len(r.values("a")) == 2)
        await asyncio.sleep(5)
        r._task.cancel()
        await asyncio.wait([r._task])
        r.server.cut()
        r.server.restart()
        r.server.connect(is_resumed=False)
        if names != ["a"]:
            r.groups.clear()
            r.group(names)
        r.is_slow = None
        await asyncio.sleep(1)
        r.server.change("a", 5.0)
        r.start()
        await r.until(lambda: 5.0 in r.values("a"))
        await asyncio.sleep(5)
        found = [value for _, value, _, _, is_history in r.samples("a") if is_history]
        assert found == [1.0, 2.0, 3.0]
        await r.stop()

    run(story())


def test_values_that_the_servers_queue_had_no_room_for_are_counted_and_read_from_history(run, rig, count):
    async def story():
        r = rig()
        r.group(["a"], options={"queue": 5})
        r.server.change("a", 0.0)
        r.start()
        await r.until(r.samples)
        await asyncio.sleep(0.01)
        for n in range(1, 21):
            r.server.change("a", float(n), tick=r.server.ticks(n))
        await r.until(lambda: len(r.samples()) == 21)
        assert sorted(r.values("a")) == [float(n) for n in range(21)]
        assert [s[1] for s in r.samples("a") if s[4]] == [float(n) for n in range(1, 16)]
        assert count("opcua_overflows_total") == 1
        await r.stop()

    run(story())


def test_tags_keep_what_they_told_when_the_groups_are_others_in_the_next_connection(run, rig):
    async def story():
        r = rig()
        r.group(["a", "b"])
        r.server.change("a", 0.0)
        r.server.change("b", 0.0)
        r.start()
        await r.until(lambda: len(r.samples()) == 2)
        await r.lose()
        await asyncio.sleep(1)
        r.server.change("b", 1.0)
        await asyncio.sleep(1)
        r.server.change("b", 2.0)
        r.groups.clear()
        r.group(["c", "b"])
        r.server.change("c", 5.0)
        former = list(r.server.subscriptions)
        r.start(is_resumed=True)
        await r.until(lambda: r.values("b")[-1:] == [2.0])
        assert r.values("b") == [0.0, 1.0, 2.0]
        assert r.values("c") == [5.0]
        assert former[0] not in r.server.subscriptions
        await r.stop()

    run(story())


def test_a_gap_that_was_not_read_yet_is_read_under_other_groups_too(run, rig):
    async def story():
        r = rig()
        r.group(["a"])
        r.server.change("a", 0.0)
        r.start()
        await r.until(r.samples)
        await r.lose(restart=True, is_resumed=False)
        for n in range(1, 4):
            await asyncio.sleep(1)
            r.server.change("a", float(n))
        r.server.delay["HistoryRead"] = 5
        r.start()
        await r.until(lambda: r.server.named("HistoryRead"))
        await r.lose(restart=True, is_resumed=False)
        r.server.delay.clear()
        r.groups.clear()
        r.group(["c", "a"])
        await asyncio.sleep(1)
        r.server.change("a", 4.0)
        r.start()
        await r.until(lambda: r.values("a")[-1:] == [4.0])
        assert sorted(r.values("a")) == [0.0, 1.0, 2.0, 3.0, 4.0]
        await r.stop()

    run(story())


def test_a_subscription_whose_nodes_are_others_now_is_made_anew(run, rig, model):
    async def story():
        r = rig()
        group = r.group(["a"])
        r.server.change("a", 0.0)
        r.start()
        await r.until(r.samples)
        await r.lose(is_resumed=False)
        from asyncua import ua

        r.catalogue.own["a"] = _at(group, ua.NodeId("other", 1), model)
        r.server.change("other", 9.0, tick=ticks_of(r.clock.wall_ms() + 1000))
        r.start()
        await r.until(lambda: r.values("a")[-1:] == [9.0])
        assert not r.server.named("TransferSubscriptions")
        await r.stop()

    run(story())


def _at(group, node, model):
    return replace(model.known(group.plan.items[0]), node=node)


def test_a_value_with_a_handle_that_nobody_gave_out_is_counted(run, rig, count, caplog):
    async def story():
        r = rig()
        r.group(["a"])
        r.server.change("a", 0.0)
        r.start()
        await r.until(r.samples)
        (one,) = r.server.subscriptions.values()
        (item,) = one.items.values()
        item.handle = 77
        r.server.change("a", 1.0)
        await r.until(lambda: count("opcua_unknown_handles_total") == 1)
        assert r.values("a") == [0.0]
        await r.stop()

    with caplog.at_level(logging.WARNING):
        run(story())


def test_a_gap_that_ends_while_another_subscriptions_items_are_waited_for_is_read_without_another_word(run, rig):
    async def story():
        r = rig(keep_alive="10m", watchdog=None)
        r.group(["a"], every_s=0.1, options={"queue": 3})
        r.group(["b"], every_s=0.5)
        for name in ("a", "b"):
            r.server.change(name, 0.0)
        r.start()
        await r.until(lambda: len(r.samples()) == 2)
        _, other = r.server.subscriptions
        r.server.expire(other)
        del r.server.values["b"]  # it is made anew, and tells nothing for a while
        await r.until(lambda: len(r.server.subscriptions) == 2 and other not in r.server.subscriptions)
        await asyncio.sleep(1)
        for n in range(1, 7):
            r.server.change("a", float(n))
            await asyncio.sleep(0.01)
        await asyncio.sleep(40)
        assert sorted(r.values("a")) == [float(n) for n in range(7)]
        await r.stop()

    run(story())
