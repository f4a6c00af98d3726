"""One connection: its share of a turn, what it is not read for, what it holds back, and how it ends."""

import asyncio
import errno

import pytest

from gateway.broker.access import Open, Refusal
from gateway.mqtt.packets import Disconnect, Publish
from gateway.mqtt.reasons import Reason

KIB = 1024


@pytest.fixture
def on_rig(run_virtual, virtual_clock, network):
    """`on_rig(story, store=…, access=…, **limits)` runs `story(rig)` on virtual time."""

    def run(story, **options):
        async def main():
            rig = network.Rig(virtual_clock, **options)
            try:
                await story(rig)
            finally:
                await rig.close()

        run_virtual(main())

    return run


# What comes in.


def test_packets_split_anywhere_are_handled_in_order(on_rig, network):
    async def story(rig):
        pipe = await rig.client()
        pipe.say(b"".join(network.publish(f"t/{n}") for n in range(50)), bite=3)
        await network.settle()
        assert [packet.topic for packet in rig.broker.got] == [f"t/{n}" for n in range(50)]

    on_rig(story)


def test_a_turn_writes_all_answers_to_a_client_with_one_call(on_rig, network):
    async def story(rig):
        pipe = await rig.client()
        pipe.say(b"".join(network.publish(qos=1, packet_id=n) for n in range(1, 11)))
        await network.settle()
        assert pipe.written == [b"".join(b"\x40\x02" + n.to_bytes(2, "big") for n in range(1, 11))]

    on_rig(story)


def test_a_flood_gets_its_share_of_each_turn_and_is_not_read_meanwhile(on_rig, network):
    async def story(rig):
        pipe, quiet = await rig.client("flood"), await rig.client("quiet")
        pipe.say(network.publish() * 3000)
        assert len(rig.broker.got) <= 256
        assert not pipe.is_reading_now
        quiet.say(network.PING)
        await network.settle(3)
        assert quiet.heard == network.PONG
        assert len(rig.broker.got) < 1500
        await network.settle(100)
        assert sum(isinstance(packet, Publish) for packet in rig.broker.got) == 3000
        assert pipe.is_reading_now

    on_rig(story)


def test_many_floods_share_one_turn(on_rig, network):
    async def story(rig):
        pipes = [await rig.client(f"c{n}") for n in range(100)]
        for pipe in pipes:
            pipe.say(network.publish() * 2000)
        rig.broker.got.clear()
        await network.settle(1)
        assert len(rig.broker.got) <= 2048
        await network.settle(200)
        assert not rig.turn.behind

    on_rig(story)


def test_the_shares_of_many_floods_end_also_by_time_and_each_has_its_turn(on_rig, network, virtual_clock):
    async def story(rig):
        pipes = [await rig.client(f"c{n}") for n in range(40)]
        start = virtual_clock.now
        served = []

        def slow(client, packet):
            served.append(client.identity.client_id)
            virtual_clock.now = lambda: start() + 0.001 * len(served)

        for pipe in pipes:
            pipe.say(network.publish() * 600)
        rig.broker.on_packet = slow
        await network.settle(1)
        assert 0 < len(served) <= 16
        await network.settle(60)
        assert len(set(served)) == len(pipes)

    on_rig(story)


def test_a_turn_writes_to_so_many_and_who_is_new_does_not_wait_for_the_rest(on_rig, network):
    async def story(rig):
        pipes = [await rig.client(f"c{n}") for n in range(600)]
        for pipe in pipes:
            pipe.link.send(b"news")
        await network.settle(1)
        assert 0 < sum(bool(pipe.written) for pipe in pipes) <= 256
        quiet = next(pipe for pipe in pipes if pipe.written)
        quiet.say(network.PING)
        await network.settle(1)
        assert quiet.heard == b"news" + network.PONG
        assert not all(pipe.written for pipe in pipes)
        await network.settle()
        assert all(pipe.heard.startswith(b"news") for pipe in pipes)

    on_rig(story)


def test_a_share_ends_also_by_time(on_rig, network, virtual_clock):
    async def story(rig):
        pipe = await rig.client()
        start = virtual_clock.now

        def slow(client, packet):
            virtual_clock.now = lambda: start() + 0.001 * len(rig.broker.got)

        rig.broker.on_packet = slow
        pipe.say(network.publish() * 100)
        assert len(rig.broker.got) == 8

    on_rig(story)


def test_acknowledgements_are_not_weighed(on_rig, network):
    async def story(rig):
        pipe = await rig.client()
        pipe.say(b"\x40\x02\x00\x01" * 1000)
        assert len(rig.broker.got) == 1000

    on_rig(story)


@pytest.mark.parametrize(("acks", "share"), [(64, 16), (63, 256)])
def test_publishers_step_back_while_a_quick_client_has_messages_waiting(on_rig, network, acks, share):
    class Waiting:
        waiting = (1,)

    async def story(rig):
        subscriber, publisher = await rig.client("s"), await rig.client("p")
        subscriber.link.session = Waiting()
        subscriber.say(b"\x40\x02\x00\x01" * acks)
        rig.broker.got.clear()
        publisher.say(network.publish() * 500)
        assert len(rig.broker.got) == share
        if acks == 64:
            await network.settle(50)
            assert len(rig.broker.got) == 16
            quiet = await rig.client("quiet")
            quiet.say(network.PING)
            await network.settle(3)
            assert quiet.heard == network.PONG
        await asyncio.sleep(0.003)
        await network.settle()
        assert sum(isinstance(packet, Publish) for packet in rig.broker.got) == 500
        subscriber.link.session = None

    on_rig(story)


def test_what_breaks_the_protocol_ends_the_connection_and_nothing_after_it_is_handled(on_rig, network):
    async def story(rig):
        pipe = await rig.client()
        pipe.say(network.publish("before") + b"\x00\x00" + network.publish("after"))
        await network.settle()
        assert [packet.topic for packet in rig.broker.got] == ["before"]
        assert ("violated", Reason.PROTOCOL_ERROR) in rig.broker.log or rig.broker.log[-1][0] == "violated"
        assert pipe.heard.startswith(b"\xe0")
        assert pipe.state == "half"

    on_rig(story)


def test_a_mistake_of_ours_cuts_off_one_connection_only(run_virtual, virtual_clock, network):
    async def main():
        errors = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context["exception"]))
        rig = network.Rig(virtual_clock)
        first, bad, last = [await rig.client(name) for name in ("first", "bad", "last")]

        def fail(client, packet):
            if client is bad.link and len(rig.broker.got) > 800:
                raise ZeroDivisionError

        rig.broker.on_packet = fail
        for pipe in (first, bad, last):
            pipe.say(network.publish(qos=1) * 500)
        await network.settle(50)
        assert [type(error) for error in errors] == [ZeroDivisionError]
        assert "abort" in bad.log
        assert first.heard == last.heard == b"\x40\x02\x00\x01" * 500
        await rig.close()

    run_virtual(main())


# Letting in.


def test_what_comes_behind_connect_is_handled_after_connack(on_rig, network):
    async def story(rig):
        pipe = rig.pipe()
        pipe.say(network.CONNECT + network.PING + network.publish(qos=1))
        await network.settle()
        assert pipe.heard[:1] == b"\x20"
        assert pipe.heard.endswith(network.PONG + b"\x40\x02\x00\x01")

    on_rig(story)


def test_what_comes_behind_a_refused_connect_is_ignored(on_rig, network):
    async def story(rig):
        pipe = rig.pipe(refusal=Refusal(Reason.QUOTA_EXCEEDED, "full"))
        pipe.say(network.CONNECT + network.publish())
        await network.settle()
        assert pipe.heard[:1] == b"\x20"
        assert pipe.heard[3] == Reason.QUOTA_EXCEEDED
        assert rig.broker.got == []
        assert pipe.state == "half"

    on_rig(story)


@pytest.mark.parametrize("half", [b"", b"\x10\x0f\x00\x04MQ"])
def test_who_does_not_connect_in_time_is_cut_off(on_rig, network, half):
    async def story(rig):
        pipe = rig.pipe()
        if half:
            pipe.say(half)
        await asyncio.sleep(9)
        assert pipe.state == "open"
        await asyncio.sleep(2.5)
        assert pipe.state == "gone"
        assert pipe.written == []
        assert rig.count("broker_connect_timeouts_total") == 1

    with network.reported() as lines:
        on_rig(story, connect_timeout_s=10)
    assert lines == ['event=connect_timeout client="" address=192.0.2.1 reason="no CONNECT in time"']


class Slow(Open):
    """Lets everybody in after 3 s."""

    async def login(self, connect, peer):
        await asyncio.sleep(3)
        return await super().login(connect, peer)


def test_what_a_client_sends_while_it_is_being_let_in_is_bounded(on_rig, network):
    async def story(rig):
        pipe = rig.pipe()
        pipe.say(network.CONNECT + network.publish() * 50_000, bite=4096)
        await network.settle()
        assert not pipe.is_reading_now
        assert pipe.link.connection.buffered < 32 * KIB
        await asyncio.sleep(4)
        await network.settle(500)
        assert len(rig.broker.got) == 50_000

    on_rig(story, access=Slow())


def test_what_came_behind_connect_is_handled_however_long_the_login_takes(on_rig, network):
    async def story(rig):
        pipe = rig.pipe()
        pipe.say(network.CONNECT + network.PING + network.publish(qos=1))
        await asyncio.sleep(2)
        assert rig.broker.got == []
        await asyncio.sleep(2)
        assert pipe.heard.endswith(network.PONG + b"\x40\x02\x00\x01")

    on_rig(story, access=Slow())


def test_who_goes_before_the_login_is_over_is_not_let_in(on_rig, network):
    async def story(rig):
        pipe = rig.pipe()
        pipe.say(network.CONNECT)
        await network.settle()
        pipe.go()
        await asyncio.sleep(4)
        assert rig.broker.log == [("lost", "c1")]
        assert rig.gate.connections == 0

    on_rig(story, access=Slow())


# Time.


def test_silence_for_one_and_a_half_times_the_keep_alive_is_noticed(on_rig, network):
    async def story(rig):
        pipe = await rig.client(keep_alive=10)
        await asyncio.sleep(14)
        assert ("idle", "c1") not in rig.broker.log
        await asyncio.sleep(3)
        assert ("idle", "c1") in rig.broker.log
        assert pipe.heard == b"\xe0\x01\x8d" or pipe.heard.startswith(b"\xe0")

    on_rig(story)


def test_any_packet_keeps_a_client_alive_and_half_a_packet_does_not(on_rig, network):
    async def story(rig):
        pipe = await rig.client(keep_alive=10)
        for _ in range(10):
            await asyncio.sleep(10)
            pipe.say(network.PING)
        assert ("idle", "c1") not in rig.broker.log
        for byte in network.publish(payload=b"x" * 30)[:20]:
            await asyncio.sleep(1)
            pipe.say(bytes([byte]))
        assert ("idle", "c1") in rig.broker.log

    on_rig(story)


def test_without_keep_alive_silence_is_fine(on_rig):
    async def story(rig):
        pipe = await rig.client(keep_alive=0)
        await asyncio.sleep(100_000)
        assert pipe.state == "open"

    on_rig(story)


def test_a_connection_that_is_gone_leaves_nothing_in_the_wheel(on_rig):
    async def story(rig):
        pipes = [await rig.client(f"c{n}", keep_alive=60_000) for n in range(10)]
        for pipe in pipes:
            pipe.go()
        assert rig.turn.wheel._seconds == {}
        assert rig.turn.links == set()

    on_rig(story)


def test_a_client_that_takes_no_bytes_is_cut_off_after_the_stall_time(on_rig, network):
    async def story(rig):
        pipe = await rig.client()
        pipe.is_slow = True
        pipe.link.send(b"\xd0\x00" * 100_000)
        await network.settle()
        assert pipe.link.is_congested
        await asyncio.sleep(59)
        assert pipe.state == "open"
        await asyncio.sleep(5)
        assert pipe.state == "gone"
        assert rig.count("broker_clients_stalled_total") == 1

    with network.reported() as lines:
        on_rig(story, stall_s=60)
    assert lines == ['event=stalled client=c1 address=192.0.2.1 reason="it takes no bytes"']


def test_a_slow_client_that_goes_on_taking_is_not_stalled(on_rig, network):
    async def story(rig):
        pipe = await rig.client()
        for _ in range(10):
            pipe.is_slow = True
            pipe.link.send(b"\xd0\x00" * 100_000)
            await asyncio.sleep(40)
            pipe.drain()
        assert pipe.state == "open"

    on_rig(story, stall_s=60)


# Back-pressure.


def test_a_full_transport_is_told_to_the_broker_and_so_is_its_relief(on_rig, network):
    async def story(rig):
        pipe = await rig.client()
        pipe.is_slow = True
        pipe.link.send(b"x" * 100 * KIB)
        await network.settle()
        assert not pipe.link.is_congested
        pipe.link.send(b"x" * 100 * KIB)
        await network.settle()
        assert pipe.link.is_congested
        rig.broker.on_resumed = lambda client: client.send(b"more")
        pipe.drain()
        await network.settle()
        assert not pipe.link.is_congested
        assert ("resumed", "c1") in rig.broker.log
        assert pipe.heard.endswith(b"more")

    on_rig(story)


def test_who_does_not_take_answers_is_not_read_either(on_rig, network):
    async def story(rig):
        pipe = await rig.client(keep_alive=10)
        pipe.is_slow = True
        rig.broker.on_packet = lambda client, _: client.send(b"\xd0\x00" * 2000)
        pipe.say(network.PING * 1_000_000)
        await network.settle(2000)
        assert not pipe.is_reading_now
        assert pipe.buffered < 4 * KIB * KIB
        handled = len(rig.broker.got)
        await asyncio.sleep(20)
        assert len(rig.broker.got) == handled
        assert pipe.state == "open"  # we do not read it: its silence is our doing
        rig.broker.on_packet = lambda client, _: True
        pipe.drain()
        await network.settle(50)
        assert len(rig.broker.got) > handled

    on_rig(story)


def test_a_client_above_its_rate_is_read_no_faster_and_loses_nothing(on_rig, network):
    async def story(rig):
        pipe = await rig.client(keep_alive=2)
        pipe.say(network.publish() * 1000 + network.PING)
        await network.settle(10)
        assert 100 <= len(rig.broker.got) <= 110
        await asyncio.sleep(4)
        assert 480 <= len(rig.broker.got) <= 520
        await asyncio.sleep(5.5)
        assert len(rig.broker.got) == 1001
        assert ("idle", "c1") not in rig.broker.log
        assert pipe.is_reading_now

    on_rig(story, publish_per_s=100)


def test_a_client_above_its_bytes_a_second_is_read_no_faster(on_rig, network):
    async def story(rig):
        pipe = await rig.client()
        pipe.say(network.publish(payload=b"x" * 999) * 100)
        await network.settle(10)
        assert 10 <= len(rig.broker.got) <= 12
        await asyncio.sleep(5)
        assert 58 <= len(rig.broker.got) <= 64

    on_rig(story, publish_bytes_per_s=10_000)


def test_one_who_goes_while_above_his_rate_is_still_heard_to_the_end(on_rig, network):
    async def story(rig):
        pipe = await rig.client()
        pipe.say(network.publish() * 300 + network.BYE)
        await network.settle()
        pipe.go()
        await network.settle()
        assert ("lost", "c1") not in rig.broker.log
        await asyncio.sleep(10)
        assert len(rig.broker.got) == 301
        assert rig.broker.log[-1] == ("lost", "c1")

    on_rig(story, publish_per_s=100)


# The store.


def test_nothing_leaves_before_its_mark_is_written_and_then_in_order(on_rig, network):
    async def story(rig):
        store, pipe, other = rig.turn.store, await rig.client("a"), await rig.client("b")
        pipe.link.hold = 7
        pipe.link.send(b"first")
        await network.settle()
        pipe.link.hold = 9
        pipe.link.send(b"second")
        other.link.send(b"free")
        await network.settle()
        assert pipe.written == []
        assert other.heard == b"free"
        store.written = 7
        rig.turn.written()
        assert pipe.heard == b"first"
        pipe.link.send(b"third")
        await network.settle()
        assert pipe.heard == b"first"
        store.written = 9
        rig.turn.written()
        assert pipe.heard == b"firstsecondthird"
        assert pipe.link.held is None
        assert rig.turn.holding == {}

    on_rig(story, store=network.Shelf())


def test_the_store_is_flushed_once_a_turn(on_rig, network):
    async def story(rig):
        pipes = [await rig.client(f"c{n}") for n in range(5)]
        await network.settle()
        before = rig.turn.store.flushed
        for pipe in pipes:
            pipe.say(network.publish(qos=1))
        await network.settle(1)
        assert rig.turn.store.flushed == before + 1

    on_rig(story, store=network.Shelf())


def test_when_the_store_fails_those_who_wait_for_it_are_cut_off_without_an_answer(on_rig, network):
    async def story(rig):
        pipe, other = await rig.client("a"), await rig.client("b")
        pipe.link.hold = 7
        pipe.link.send(b"acknowledged")
        await network.settle()
        rig.turn.store.failure = "the disk is full"
        rig.turn.written()
        await network.settle()
        assert pipe.state == "gone"
        assert pipe.written == []
        assert other.state == "open"

    on_rig(story, store=network.Shelf())


def test_who_comes_to_wait_just_after_the_store_has_failed_is_cut_off_too(on_rig, network):
    async def story(rig):
        pipe = await rig.client("a")
        rig.turn.store.failure = "the disk is full"
        rig.turn.written()
        pipe.link.hold = 7
        pipe.link.send(b"acknowledged")
        await asyncio.sleep(1.5)
        assert (pipe.state, pipe.written) == ("gone", [])

    on_rig(story, store=network.Shelf())


def test_bytes_held_while_the_disk_stalls_are_bounded(on_rig, network):
    async def story(rig):
        pipe = await rig.client()
        pipe.link.hold = 7
        pipe.link.send(b"x" * 200 * KIB)
        await network.settle()
        assert pipe.link.is_congested
        pipe.link.send(b"x" * 900 * KIB)
        await network.settle()
        assert not pipe.is_reading_now
        rig.turn.store.written = 7
        rig.turn.written()
        await network.settle()
        assert not pipe.link.is_congested
        assert pipe.is_reading_now
        assert ("resumed", "c1") in rig.broker.log

    on_rig(story, store=network.Shelf())


def test_a_client_that_finishes_waits_for_what_is_held(on_rig, network):
    async def story(rig):
        pipe = await rig.client()
        pipe.link.hold = 7
        pipe.link.send(b"last")
        pipe.link.finish()
        await network.settle()
        assert (pipe.state, pipe.written) == ("open", [])
        rig.turn.store.written = 7
        rig.turn.written()
        await network.settle()
        assert (pipe.state, pipe.heard) == ("half", b"last")

    on_rig(story, store=network.Shelf())


def test_last_words_of_this_turn_follow_what_the_store_lets_go_now(on_rig, network):
    async def story(rig):
        pipe = await rig.client()
        pipe.link.hold = 7
        pipe.link.send(b"first")
        await network.settle()
        pipe.link.send(b"last")
        pipe.link.finish()
        rig.turn.store.written = 7
        rig.turn.written()
        await network.settle()
        assert (pipe.state, pipe.heard) == ("half", b"firstlast")

    on_rig(story, store=network.Shelf())


def test_silence_of_a_client_that_has_finished_is_not_noticed(on_rig, network):
    async def story(rig):
        pipe = await rig.client(keep_alive=2)
        pipe.link.hold = 7
        pipe.link.send(b"last")
        pipe.link.finish()
        await asyncio.sleep(10)
        assert ("idle", "c1") not in rig.broker.log

    on_rig(story, store=network.Shelf())


# The end.


def test_a_client_that_the_broker_finishes_is_not_heard_any_more(on_rig, network):
    async def story(rig):
        pipe = await rig.client()
        rig.broker.on_packet = lambda client, _: client.finish()
        pipe.say(network.publish() * 100)
        await network.settle()
        assert len(rig.broker.got) == 1

    on_rig(story)


def test_finishing_sends_what_is_ready_then_lingers_a_second_at_most(on_rig, network):
    async def story(rig):
        pipe = await rig.client()
        pipe.link.send(b"last")
        pipe.link.finish()
        pipe.link.finish()
        await network.settle()
        pipe.link.send(b"too late")
        await network.settle()
        assert (pipe.state, pipe.heard) == ("half", b"last")
        pipe.say(network.publish() * 10)
        assert rig.broker.got == []
        await asyncio.sleep(0.9)
        assert pipe.state == "half"
        await asyncio.sleep(0.2)
        assert pipe.state == "gone"
        assert rig.broker.log.count(("lost", "c1")) == 1

    on_rig(story)


def test_a_peer_that_goes_by_itself_is_not_waited_for(on_rig, network):
    async def story(rig):
        pipe = await rig.client()
        pipe.link.finish()
        await network.settle()
        pipe.go()
        assert rig.turn._lingering == {}
        await asyncio.sleep(2)

    on_rig(story)


def test_a_socket_that_was_reset_is_cut_off_at_once(on_rig, network):
    async def story(rig):
        pipe = await rig.client()

        def write_eof():
            raise OSError(errno.ENOTCONN, "not connected")

        pipe.write_eof = write_eof
        pipe.link.finish()
        await network.settle()
        assert pipe.state == "gone"

    on_rig(story)


def test_a_client_that_is_full_and_finished_is_cut_off_within_a_second(on_rig, network):
    async def story(rig):
        pipe = await rig.client()
        pipe.is_slow = True
        pipe.link.send(b"x" * 200 * KIB)
        await network.settle()
        pipe.link.finish()
        await asyncio.sleep(1.2)
        assert pipe.state == "gone"

    on_rig(story)


def test_what_a_lost_connection_had_brought_is_handled_before_the_broker_hears_of_the_loss(on_rig, network):
    async def story(rig):
        pipe = await rig.client()
        pipe.say(network.publish() * 1000 + network.BYE)
        pipe.go()
        assert ("lost", "c1") not in rig.broker.log
        await network.settle(50)
        assert isinstance(rig.broker.got[-1], Disconnect)
        assert len(rig.broker.got) == 1001
        assert rig.broker.log[-1] == ("lost", "c1")

    on_rig(story)


def test_a_take_over_ends_a_lost_connection_that_is_still_behind(on_rig, network):
    async def story(rig):
        pipe = await rig.client()
        pipe.say(network.publish() * 1000)
        pipe.go()
        handled = len(rig.broker.got)
        pipe.link.finish()
        await network.settle(50)
        assert len(rig.broker.got) == handled
        assert rig.broker.log[-1] == ("lost", "c1")

    on_rig(story)


def test_long_work_gets_a_slice_each_turn_until_it_is_done(on_rig, network):
    async def story(rig):
        left = list(range(10))

        def more():
            left.pop()
            rig.broker.has_work = bool(left)
            return bool(left)

        rig.broker.on_more = more
        rig.broker.has_work = True
        rig.turn.soon()
        await network.settle(15)
        assert left == []
        assert rig.broker.calls["more"] == 10

    on_rig(story)


def test_each_second_the_broker_hears_how_far_the_wall_clock_has_been_set(on_rig, virtual_clock, monkeypatch):
    async def story(rig):
        await asyncio.sleep(1.5)
        assert rig.broker.ahead_s == pytest.approx(0.0, abs=0.01)
        was = virtual_clock.wall_ms
        monkeypatch.setattr(virtual_clock, "wall_ms", lambda: was() - 86_400_000)
        before = rig.turn.now()
        await asyncio.sleep(1.0)
        assert rig.broker.ahead_s == pytest.approx(-86_400.0, abs=0.01)
        assert rig.turn.now() - before == pytest.approx(1.0, abs=0.01)  # all other time goes on as before

    on_rig(story)
