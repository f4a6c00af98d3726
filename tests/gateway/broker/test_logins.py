"""From CONNECT to CONNACK: how many at a time, how long, and how late a refusal is said."""

import asyncio

import pytest

from gateway.broker.access import Open, Refusal
from gateway.broker.client import Identity
from gateway.mqtt.packets import Auth, Connack
from gateway.mqtt.properties import Properties
from gateway.mqtt.reasons import Reason


class Desk(Open):
    """An access that takes its time. Client identifiers that begin with `bad` have the wrong password."""

    def __init__(self, takes_s=0.0):
        self.takes_s = takes_s
        self.under_way = self.most = self.asked = 0
        self.peers = []

    async def login(self, connect, peer):
        self.asked += 1
        self.peers.append(peer)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await asyncio.sleep(self.takes_s)
        finally:
            self.under_way -= 1
        if connect.client_id.startswith("bad"):
            return Refusal(Reason.BAD_USER_NAME_OR_PASSWORD, "wrong user name or password", "no user 'x'")
        if connect.client_id.startswith("boom"):
            raise ZeroDivisionError
        return Identity(connect.client_id, "somebody", peer.address)


@pytest.fixture
def on_desk(run_virtual, virtual_clock, network):
    """`on_desk(story, takes_s=…, **limits)` runs `story(rig, desk)` on virtual time."""

    def run(story, *, takes_s=0.0, **limits):
        async def main():
            desk = Desk(takes_s)
            rig = network.Rig(virtual_clock, access=desk, **limits)
            try:
                await story(rig, desk)
            finally:
                await rig.close()

        run_virtual(main())

    return run


def test_the_login_sees_the_other_end_and_its_identity_is_the_clients(on_desk, network):
    async def story(rig, desk):
        pipe = rig.pipe("192.0.2.5")
        pipe.say(network.CONNECT)
        await network.settle()
        assert pipe.link.identity.username == "somebody"
        (peer,) = desk.peers
        assert (peer.address, peer.port, peer.scheme, peer.is_local) == ("192.0.2.5", 4711, "mqtt", False)

    on_desk(story)


def test_so_many_logins_are_under_way_at_a_time_and_the_others_wait_their_turn(on_desk, network):
    async def story(rig, desk):
        pipes = [rig.pipe() for _ in range(200)]
        for n, pipe in enumerate(pipes):
            pipe.say(network.connect(f"c{n}"))
        await asyncio.sleep(4.5)
        assert desk.most == 64
        assert desk.asked == 200
        assert all(pipe.heard[:1] == b"\x20" for pipe in pipes)

    on_desk(story, takes_s=1.0)


def test_a_login_that_takes_too_long_is_refused_as_busy(on_desk, network):
    async def story(rig, desk):
        pipe = rig.pipe()
        pipe.say(network.CONNECT)
        await asyncio.sleep(12)
        assert pipe.heard[3] == Reason.SERVER_BUSY
        assert pipe.state == "gone"
        assert desk.under_way == 0

    on_desk(story, takes_s=1000, connect_timeout_s=10)


def test_those_who_wait_too_long_for_their_turn_are_refused_as_busy(on_desk, network):
    async def story(rig, desk):
        pipes = [rig.pipe() for _ in range(100)]
        for n, pipe in enumerate(pipes):
            pipe.say(network.connect(f"c{n}"))
        await asyncio.sleep(11.5)
        assert all(pipe.heard[3] == Reason.SERVER_BUSY for pipe in pipes[64:])

    on_desk(story, takes_s=9.5, connect_timeout_s=10)


def test_refusals_come_later_each_time_and_are_reported(on_desk, network):
    async def story(rig, desk):
        waits = []
        for _ in range(7):
            pipe = rig.pipe()
            start = asyncio.get_running_loop().time()
            pipe.say(network.connect("bad"))
            await network.eventually(lambda: pipe.written)  # noqa: B023 - awaited at once
            waits.append(round(asyncio.get_running_loop().time() - start, 1))
            assert pipe.heard[3] == Reason.BAD_USER_NAME_OR_PASSWORD
        assert waits == pytest.approx([0.25, 0.5, 1, 2, 4, 8, 8], abs=0.1)
        assert rig.count("broker_logins_refused_total") == 7

    with network.reported() as lines:
        on_desk(story, connect_timeout_s=5)
    assert lines[0] == (
        "event=login_refused client=bad address=192.0.2.1 reason=\"bad_user_name_or_password: no user 'x'\""
    )


def test_the_right_password_is_let_in_at_once_beside_wrong_ones(on_desk, network):
    async def story(rig, desk):
        for _ in range(20):
            rig.pipe().say(network.connect("bad"))
        await network.settle()
        pipe = rig.pipe()
        pipe.say(network.connect("good"))
        await network.settle()
        assert pipe.heard[:1] == b"\x20"
        assert pipe.heard[3] == 0

    on_desk(story)


def test_an_address_that_guesses_all_the_time_is_not_looked_at_while_refusals_wait(on_desk, network):
    async def story(rig, desk):
        for _ in range(32):
            rig.pipe().say(network.connect("bad"))
        await network.settle()
        asked = desk.asked
        pipe, elsewhere = rig.pipe(), rig.pipe("192.0.2.2")
        pipe.say(network.connect("bad"))
        elsewhere.say(network.connect("good"))
        await network.settle()
        assert desk.asked == asked + 1
        assert pipe.heard[3] == Reason.SERVER_BUSY
        assert elsewhere.heard[3] == 0

    on_desk(story)


def test_who_does_not_wait_for_the_refusal_frees_its_place(on_desk, network):
    async def story(rig, desk):
        for _ in range(32):
            pipe = rig.pipe()
            pipe.say(network.connect("bad"))
            await network.settle()
            pipe.go()
        await asyncio.sleep(9)
        assert rig.turn.logins._timers == {}
        assert rig.turn.logins._failures._waiting == {}
        assert rig.gate.connections == 0

    on_desk(story)


def test_a_login_that_fails_by_a_mistake_of_ours_ends_that_connection_only(run_virtual, virtual_clock, network):
    async def main():
        errors = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context["exception"]))
        rig = network.Rig(virtual_clock, access=Desk())
        bad, good = rig.pipe(), rig.pipe()
        bad.say(network.connect("boom"))
        good.say(network.connect("good"))
        await network.settle()
        assert bad.state == "gone"
        assert bad.written == []
        assert good.heard[3] == 0
        await rig.close()
        import gc

        gc.collect()
        assert [type(error) for error in errors] == [ZeroDivisionError]

    run_virtual(main())


def _connect_with_method():
    properties = b"\x15\x00\x01M"
    body = b"\0\4MQTT\x05\x02\0\0" + bytes([len(properties)]) + properties + b"\0\2c1"
    return bytes([0x10, len(body)]) + body


def test_an_authentication_method_is_the_brokers_business_until_it_is_satisfied(on_desk, network):
    async def story(rig, desk):
        def challenge(client, connect, now):
            client.send(client.connection.send(Auth(reason=Reason.CONTINUE_AUTHENTICATION)))

        def answer(client, packet):
            if isinstance(packet, Auth):
                client.send(client.connection.send(Connack(properties=Properties())))
                return True
            return False

        rig.broker.connect = challenge
        rig.broker.on_packet = answer
        pipe = rig.pipe()
        pipe.say(_connect_with_method())
        await network.settle()
        assert desk.asked == 0
        assert pipe.heard[:1] == b"\xf0"
        auth = b"\x18" + b"\x04\x15\x00\x01M"
        pipe.say(b"\xf0" + bytes([len(auth)]) + auth + network.PING)
        await network.settle()
        assert pipe.link.opening is None
        assert pipe.heard.endswith(network.PONG)

    on_desk(story)


def test_an_authentication_that_does_not_go_on_is_refused_in_time(on_desk, network):
    async def story(rig, desk):
        def challenge(client, connect, now):
            client.send(client.connection.send(Auth(reason=Reason.CONTINUE_AUTHENTICATION)))

        rig.broker.connect = challenge
        pipe = rig.pipe()
        pipe.say(_connect_with_method())
        await asyncio.sleep(12.5)
        assert pipe.state == "gone"
        assert rig.gate.connections == 0

    on_desk(story, connect_timeout_s=10)


def test_closing_stops_logins_and_refusals_under_way(on_desk, network):
    async def story(rig, desk):
        rig.pipe().say(network.connect("bad"))
        await asyncio.sleep(1.1)
        rig.pipe().say(network.connect("good"))
        await network.settle()
        start = asyncio.get_running_loop().time()
        await rig.turn.logins.close()
        assert asyncio.get_running_loop().time() - start < 0.5
        assert desk.under_way == 0
        assert rig.turn.logins._timers == {}

    on_desk(story, takes_s=1.0)
