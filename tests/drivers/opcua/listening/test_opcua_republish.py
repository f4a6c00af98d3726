"""Messages that were sent and did not come, and subscriptions that are taken up after a loss of the link."""

from __future__ import annotations

import asyncio

import pytest


async def _begun(r, **group):
    """A subscription that has told its first value."""
    r.group(["a"], **{"every_s": 0.1, **group})
    r.server.change("a", 0.0)
    r.start()
    await r.until(lambda: r.values("a") == [0.0])


def test_a_missing_message_is_asked_for_again_and_nothing_comes_out_of_order(run, rig, count):
    async def story():
        r = rig()
        await _begun(r)
        r.server.swallow.add(3)
        for n in range(1, 30):
            r.server.change("a", float(n))
            await asyncio.sleep(0.15)
        await r.until(lambda: len(r.values("a")) == 30)
        assert r.values("a") == [float(n) for n in range(30)]
        assert len(r.server.named("Republish")) == 1
        assert count("opcua_republished_total") == 1
        assert count("opcua_lost_messages_total") == 0
        await r.stop()

    run(story())


def test_a_message_that_is_only_late_is_waited_for_and_not_asked_for_again(run, rig):
    async def story():
        r = rig(publish_requests=5)
        await _begun(r)
        r.server.delay["Publish"] = 0.5
        r.server.change("a", 1.0)
        await asyncio.sleep(0.15)
        r.server.delay.clear()
        r.server.change("a", 2.0)
        await asyncio.sleep(0.15)
        assert r.values("a") == [0.0]
        await r.until(lambda: len(r.values("a")) == 3)
        assert r.values("a") == [0.0, 1.0, 2.0]
        assert not r.server.named("Republish")
        await r.stop()

    run(story())


def test_a_keep_alive_shows_that_the_message_before_it_is_missing(run, rig):
    async def story():
        r = rig(keep_alive="1s")
        await _begun(r)
        r.server.swallow.add(2)
        r.server.change("a", 1.0)
        await r.until(lambda: r.values("a") == [0.0, 1.0], 5)
        assert len(r.server.named("Republish")) == 1
        await r.stop()

    run(story())


def test_a_message_that_is_lost_for_good_has_the_subscription_made_anew_and_the_gap_read(run, rig, count):
    async def story():
        r = rig(keep_alive="1s")
        await _begun(r)
        r.server.swallow.add(2)
        r.server.keeps = 0
        await asyncio.sleep(1)
        r.server.change("a", 1.0)
        await asyncio.sleep(0.15)
        r.server.change("a", 2.0)
        await asyncio.sleep(0.15)
        r.server.change("a", 3.0)
        await r.until(lambda: len(r.values("a")) >= 4)
        assert count("opcua_lost_messages_total") == 1
        assert count("opcua_recreated_subscriptions_total") == 1
        told = [(s[1], s[3]) for s in r.samples("a")]
        assert sorted(v for v, _ in told) == [0.0, 1.0, 2.0, 3.0]
        assert [s[1] for s in r.samples("a") if s[4]] == [1.0]
        assert [s[1] for s in r.samples("a") if not s[4]] == [0.0, 2.0, 3.0]
        assert r.error is None
        await r.stop()

    run(story())


def test_a_server_that_begins_to_count_anew_has_the_subscription_made_anew(run, rig, count):
    async def story():
        r = rig()
        await _begun(r)
        (one,) = r.server.subscriptions.values()
        one.next = 7000
        r.server.change("a", 1.0)
        await r.until(lambda: one.number not in r.server.subscriptions, 5)
        r.server.change("a", 2.0)
        await r.until(lambda: r.values("a")[-1:] == [2.0])
        assert r.values("a") == [0.0, 1.0, 2.0]
        assert count("opcua_lost_messages_total") == 1
        await r.stop()

    run(story())


def test_while_many_messages_wait_for_a_missing_one_the_server_is_not_asked_for_more(run, rig):
    async def story():
        r = rig(timeout="1m", watchdog=None)
        r.session.timeout_s = 60
        await _begun(r, options={"queue": 1000})
        r.server.swallow.add(2)
        r.server.delay["Republish"] = 30
        for n in range(1, 200):
            r.server.change("a", float(n))
            await asyncio.sleep(0.1)
        (one,) = r.listener._subscriptions
        assert 64 < one.numbers.waiting <= 64 + 3
        assert not r.server.waiting
        await r.until(lambda: len(r.values("a")) == 200)
        assert r.values("a") == [float(n) for n in range(200)]
        await r.stop()

    run(story())


def test_another_message_than_the_one_asked_for_is_not_taken_for_it(run, rig, count):
    async def story():
        r = rig(keep_alive="1s", publish_requests=1)
        await _begun(r)
        r.server.swallow |= {2, 3}
        r.server.change("a", 1.0)
        await asyncio.sleep(0.15)
        r.server.change("a", 2.0)
        await asyncio.sleep(0.15)

        def wrong(request, answer=r.server._on_republish):
            request.Parameters.RetransmitSequenceNumber = 3
            return answer(request)

        r.server._on_republish = wrong
        await r.until(lambda: sorted(r.values("a")) == [0.0, 1.0, 2.0], 10)
        assert count("opcua_lost_messages_total") == 1
        await asyncio.sleep(5)
        assert len(r.values("a")) == 3
        await r.stop()

    run(story())


def test_a_server_whose_numbers_mean_nothing_is_listened_to_all_the_same(run, rig, count):
    async def story():
        r = rig(history="off", watchdog=None)
        await _begun(r)
        r.server.keeps = 0

        for n in range(1, 60):
            for one in r.server.subscriptions.values():
                one.next += 2
            r.server.change("a", float(n))
            await asyncio.sleep(3)
        assert count("opcua_recreated_subscriptions_total") == 3
        assert {*range(1, 60)} <= {*map(int, r.values("a"))}
        assert r.error is None
        await r.stop()

    run(story())


@pytest.mark.parametrize("is_resumed", [True, False])
def test_after_a_loss_of_the_link_what_the_server_sent_in_vain_is_asked_for_and_the_rest_follows(run, rig, is_resumed):
    async def story():
        r = rig()
        await _begun(r)
        former = list(r.server.subscriptions)
        r.server.delay["Publish"] = 5
        for n in range(1, 4):
            r.server.change("a", float(n))
            await asyncio.sleep(0.2)
        await r.lose(is_resumed=is_resumed)
        r.server.delay.clear()
        for n in range(4, 9):
            r.server.change("a", float(n))
            await asyncio.sleep(0.2)
        r.start(is_resumed=is_resumed)
        await r.until(lambda: len(r.values("a")) == 9)
        await asyncio.sleep(5)
        assert r.values("a") == [float(n) for n in range(9)]
        assert list(r.server.subscriptions) == former
        assert bool(r.server.named("TransferSubscriptions")) is not is_resumed
        assert not r.server.named("HistoryRead")
        await r.stop()

    run(story())


def test_a_subscription_that_outlives_its_session_is_taken_over_by_the_next_one(run, rig):
    async def story():
        r = rig()
        await _begun(r)
        (number,) = r.server.subscriptions
        r.server.orphan(number)
        assert (await r.ended()).cause == "GoodSubscriptionTransferred"
        for n in range(1, 4):
            r.server.change("a", float(n))
            await asyncio.sleep(0.2)
        r.server.cut()
        r.server.connect(is_resumed=False)
        r.start(is_resumed=False)
        await r.until(lambda: r.last("a") == (3.0, "good"))
        assert r.values("a") == [0.0, 0.0, 1.0, 2.0, 3.0], "what was told before the loss is said again"
        assert list(r.server.subscriptions) == [number]
        assert not r.server.named("HistoryRead")
        await r.stop()

    run(story())


def test_a_server_that_kept_the_subscription_with_our_own_session_is_believed(run, rig, model):
    async def story():
        r = rig()
        await _begun(r)
        former = list(r.server.subscriptions)
        await r.lose(is_resumed=True)
        r.server.change("a", 1.0)
        r.start(is_resumed=False)
        await r.until(lambda: r.values("a")[-1:] == [1.0])
        assert list(r.server.subscriptions) == former
        await r.stop()

    run(story())


@pytest.mark.parametrize("refusal", [0x800B0000, 0x801F0000, 0x800F0000])
def test_where_subscriptions_are_not_transferred_they_are_made_anew(run, rig, refusal):
    async def story():
        r = rig()
        await _begun(r)
        former = list(r.server.subscriptions)
        await r.lose(is_resumed=False)
        for n in range(1, 4):
            r.server.change("a", float(n))
            await asyncio.sleep(0.2)
        r.server.refusals["TransferSubscriptions"].append(refusal)
        r.start(is_resumed=False)
        await r.until(lambda: len(r.values("a")) == 4)
        assert r.values("a") == [0.0, 1.0, 2.0, 3.0]
        assert set(former) != set(r.server.subscriptions)
        await r.stop()

    run(story())


def test_what_the_server_does_not_keep_any_more_of_what_it_sent_in_vain_comes_from_history(run, rig):
    async def story():
        r = rig()
        await _begun(r)
        r.server.keeps = 1
        r.server.delay["Publish"] = 5
        for n in range(1, 4):
            r.server.change("a", float(n))
            await asyncio.sleep(0.2)
        await r.lose(is_resumed=False)
        r.server.delay.clear()
        r.start(is_resumed=False)
        await r.until(lambda: len(r.values("a")) >= 4)
        await asyncio.sleep(5)
        assert sorted(set(r.values("a"))) == [0.0, 1.0, 2.0, 3.0]
        assert [s[1] for s in r.samples("a") if s[4]] == [1.0, 2.0]
        assert r.last("a") == (3.0, "good")
        await r.stop()

    run(story())


def test_what_was_told_is_told_again_after_a_loss_of_the_link_with_its_own_time(run, rig):
    async def story():
        r = rig()
        r.group(["a", "b", "wrong"], every_s=0.1)
        r.server.missing.add("wrong")
        r.server.change("a", 1.0)
        r.server.change("b", 2.0)
        r.start()
        await r.until(lambda: len(r.samples()) == 3)
        told = r.samples("a")[0]
        r.server.delay["Publish"] = 5
        r.server.change("b", 3.0)
        await asyncio.sleep(0.2)
        await r.lose(seconds=100)
        r.server.delay.clear()
        r.start(is_resumed=True)
        await r.until(lambda: len(r.samples()) >= 6)
        await asyncio.sleep(5)
        assert r.samples("a") == [told, told]
        assert r.values("b") == [2.0, 3.0], "what came just now is not told twice"
        assert r.samples("wrong")[-1][1:3] == (None, "bad:BadNodeIdUnknown")
        await r.stop()

    run(story())


@pytest.mark.parametrize("is_resumed", [True, False])
def test_what_the_servers_queue_had_no_room_for_during_the_outage_comes_first_and_from_history(run, rig, is_resumed):
    async def story():
        r = rig()
        await _begun(r, options={"queue": 3})
        r.server.cut()
        await r.ended()
        for n in range(1, 11):
            r.server.change("a", float(n))
            await asyncio.sleep(0.1)
        r.server.delay["HistoryRead"] = 2
        r.server.connect(is_resumed=is_resumed)
        r.start(is_resumed=is_resumed)
        await asyncio.sleep(1)
        r.server.change("a", 11.0)
        await r.until(lambda: r.values("a")[-1:] == [11.0])
        assert r.values("a") == [0.0, *map(float, range(12))]
        assert [s[1] for s in r.samples("a") if s[4]] == [float(n) for n in range(1, 8)]
        await r.stop()

    run(story())


def test_what_the_servers_queue_had_no_room_for_later_on_does_not_hold_up_the_rest(run, rig):
    async def story():
        r = rig()
        await _begun(r, options={"queue": 3})
        await r.lose()
        r.start(is_resumed=True)
        r.server.change("a", 1.0)
        await r.until(lambda: r.values("a")[-1:] == [1.0])
        r.server.delay["HistoryRead"] = 2
        for n in range(2, 11):
            r.server.change("a", float(n), tick=r.server.ticks(n))
        await asyncio.sleep(1)
        assert r.values("a") == [0.0, 0.0, 1.0, 8.0, 9.0, 10.0]
        await asyncio.sleep(5)
        assert r.values("a")[6:] == [2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
        await r.stop()

    run(story())


def test_an_answer_to_republish_that_cannot_be_understood_is_not_asked_for_again_and_again(run, rig):
    async def story():
        r = rig()
        await _begun(r)
        r.server.delay["Publish"] = 5
        r.server.change("a", 1.0)
        await asyncio.sleep(0.2)
        await r.lose()
        r.server.delay.clear()
        r.server._on_republish = lambda request: b"\x01\x00\x43\x03" + b"\x00" * 7
        r.start(is_resumed=True)
        await asyncio.sleep(1)
        r.server.change("a", 2.0)
        await r.until(lambda: sorted(set(r.values("a"))) == [0.0, 1.0, 2.0], 60)
        assert r.error is None
        await r.stop()

    run(story())


def test_everything_delivered_is_acknowledged(run, rig):
    async def story():
        r = rig()
        await _begun(r)
        for n in range(1, 20):
            r.server.change("a", float(n))
            await asyncio.sleep(0.1)
        await asyncio.sleep(20)
        (one,) = r.server.subscriptions.values()
        assert not one.kept
        assert len(r.server.acknowledged) == one.next - 1
        await r.stop()

    run(story())


async def _begun_without_history(r, model):
    group = r.group(["a"], every_s=0.1)
    r.catalogue.own["a"] = model.known(group.plan.items[0], access=1)
    r.server.change("a", 0.0)
    r.start()
    await r.until(lambda: r.values("a") == [0.0])


async def _torn(r, lost, times):
    """A value each cycle; messages of those numbers never come and cannot be had any more."""
    for number in lost:
        r.server.swallow.add(number)
    for n in range(1, times + 1):
        r.server.change("a", float(n))
        await asyncio.sleep(0.11)
        (one,) = r.server.subscriptions.values()
        for number in lost:
            one.kept.pop(number, None)


def test_what_waits_for_a_lost_message_goes_on_when_the_server_ends_the_subscription(run, rig, model, count):
    async def story():
        r = rig()
        await _begun_without_history(r, model)
        r.server.delay["Republish"] = 5
        await _torn(r, [2], 4)
        r.server.restart()
        await r.lose(is_resumed=False)
        r.server.delay.clear()
        r.start()
        await r.until(lambda: r.values("a")[-1:] == [4.0] and len(r.server.named("CreateSubscription")) == 2)
        assert r.values("a")[:4] == [0.0, 2.0, 3.0, 4.0]
        assert count("opcua_lost_messages_total") == 1
        await r.stop()

    run(story())


def test_of_two_holes_the_one_is_mended_though_the_other_is_for_good(run, rig, model, count):
    async def story():
        r = rig()
        await _begun_without_history(r, model)
        r.server.swallow.add(4)
        await _torn(r, [2], 4)
        await r.until(lambda: count("opcua_recreated_subscriptions_total") == 1)
        assert r.values("a") == [0.0, 2.0, 3.0, 4.0]
        assert count("opcua_lost_messages_total") == 1
        await r.stop()

    run(story())


def test_what_the_server_has_still_behind_what_it_lost_comes_after_a_loss_of_the_link(run, rig, model):
    async def story():
        r = rig()
        await _begun_without_history(r, model)
        r.server.keeps = 2
        r.server.delay["Publish"] = 5
        for n in range(1, 5):
            r.server.change("a", float(n))
            await asyncio.sleep(0.2)
        await r.lose(is_resumed=False)
        r.server.delay.clear()
        r.start()
        await r.until(lambda: r.values("a")[-1:] == [4.0])
        assert r.values("a")[:3] in ([0.0, 2.0, 3.0], [0.0, 3.0, 4.0]), "of three on their way, and the queue"
        await r.stop()

    run(story())


def test_a_hole_that_came_while_another_subscriptions_was_waited_for_is_mended_without_another_word(run, rig):
    async def story():
        r = rig(keep_alive="10m", watchdog=None)
        r.group(["b"], every_s=0.05)
        await _begun(r)
        r.server.swallow |= {2}
        r.server.change("a", 1.0)
        await asyncio.sleep(0.11)
        r.server.change("a", 2.0)
        await asyncio.sleep(0.3)
        r.server.swallow |= {1}
        r.server.change("b", 1.0)
        await asyncio.sleep(0.06)
        r.server.change("b", 2.0)
        await r.until(lambda: r.values("b") == [1.0, 2.0], 10)
        assert r.values("a") == [0.0, 1.0, 2.0]
        await r.stop()

    run(story())


def test_a_keep_alive_of_a_server_whose_numbers_mean_nothing_asks_for_nothing(run, rig):
    async def story():
        r = rig(history="off", watchdog=None, keep_alive="1s")
        await _begun(r)
        r.server.keeps = 0
        for n in range(1, 5):
            for one in r.server.subscriptions.values():
                one.next += 2
            r.server.change("a", float(n))
            await asyncio.sleep(3)
        r.server.keeps = 1000
        asked = len(r.server.named("Republish"))
        r.server.change("a", 5.0)
        await asyncio.sleep(10)
        assert len(r.server.named("Republish")) == asked
        assert r.values("a").count(5.0) == 1
        await r.stop()

    run(story())


@pytest.mark.parametrize("kind", ["CreateSubscription", "DeleteSubscriptions"])
def test_a_subscription_that_nobody_knows_any_more_is_deleted_when_it_is_heard_of(run, rig, kind):
    async def story():
        r = rig(keep_alive="1s")
        r.group(["a"], every_s=0.1)
        r.server.change("a", 0.0)
        if kind == "CreateSubscription":
            r.server._do = _cutting(r.server, kind)
            r.start()
        else:
            r.start()
            await r.until(lambda: r.values("a"))
            r.server._do = _cutting(r.server, kind, is_done=False)
            for one in r.listener._subscriptions:
                one.is_torn = True
            r.server.change("a", 1.0)
        await r.ended()
        (lost,) = r.server.subscriptions
        r.server.connect(is_resumed=True)
        r.start(is_resumed=True)
        await asyncio.sleep(5)
        (ours,) = r.listener._subscriptions
        assert list(r.server.subscriptions) == [ours.id] != [lost]
        assert [n for request in r.server.named("DeleteSubscriptions") for n in request.Parameters.SubscriptionIds][
            -1
        ] == lost
        await r.stop()

    run(story())


def _cutting(server, kind, *, is_done=True):
    """The server's `_do`, which cuts the link in the first request of that kind, done or not."""
    do = server._do

    def cutting(what, request, future):
        if what != kind:
            return do(what, request, future)
        del server._do
        if is_done:
            do(what, request, asyncio.get_running_loop().create_future())
        return server.cut()

    return cutting
