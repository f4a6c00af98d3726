"""Commands through the embedded broker: who may send them, what they say of themselves, where the reply goes."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import pytest

from gateway.broker.embedded import Embedded
from gateway.broker.options import Address, Options
from gateway.clock import SystemClock
from gateway.commands.mqtt import Inbox
from gateway.metrics import Metrics
from gateway.mqtt.client import ClientConnection
from gateway.mqtt.packets import V5, V311, Connack, Connect, Puback, Publish, Suback, Subscribe, Subscription
from gateway.mqtt.properties import Properties
from gateway.mqtt.reasons import Reason
from gateway.uplinks.message import Incoming, Message

SET = "headgate/g/boiler/pump/set"
REPLY = f"{SET}/reply"


class Client:
    """An MQTT client on a real connection, one thing after the other."""

    def __init__(self, reader, writer):
        self._reader, self._writer = reader, writer
        self._engine = ClientConnection()
        self._publishes, self._others = asyncio.Queue(), asyncio.Queue()
        self._task = asyncio.create_task(self._read())
        self._last_id = 0

    async def _read(self):
        while data := await self._reader.read(65536):
            self._engine.feed(data)
            for packet in self._engine.events():
                if isinstance(packet, Publish) and packet.qos:
                    self._writer.write(self._engine.send(Puback(packet.packet_id)))
                (self._publishes if isinstance(packet, Publish) else self._others).put_nowait(packet)

    async def _next(self, kind):
        """The next packet of that kind; others are passed over."""
        async with asyncio.timeout(10):
            while not isinstance(packet := await self._others.get(), kind):
                pass
        return packet

    async def connect(self, client_id, level, user):
        self._writer.write(self._engine.connect(Connect(client_id=client_id, level=level, username=user)))
        assert (await self._next(Connack)).reason is Reason.SUCCESS

    async def subscribe(self, *filters):
        self._last_id += 1
        wanted = tuple(Subscription(f, 1) for f in filters)
        self._writer.write(self._engine.send(Subscribe(self._last_id, wanted)))
        await self._next(Suback)

    async def publish(self, topic, payload, **more):
        """Publish with QoS 1; the code of the acknowledgement."""
        self._last_id += 1
        properties = Properties(**more.pop("properties", {}))
        facts = {"qos": 1, "packet_id": self._last_id, "properties": properties} | more
        self._writer.write(self._engine.send(Publish(topic, payload.encode(), **facts)))
        return (await self._next(Puback)).reason if facts["qos"] else None

    async def reply(self):
        packet = await asyncio.wait_for(self._publishes.get(), 10)
        return packet.topic, json.loads(packet.payload), packet

    async def close(self):
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._writer.close()
        await self._writer.wait_closed()


class House:
    """A broker, commands that its clients may send, and clients."""

    def __init__(self, broker, desk):
        self.broker, self.desk = broker, desk
        self._clients = []

    async def client(self, client_id="hmi", level=V5, user=None):
        client = Client(*await asyncio.open_connection("127.0.0.1", self.broker.bound[0].port))
        self._clients.append(client)
        await client.connect(client_id, level, user)
        return client

    async def close(self):
        for client in self._clients:
            await client.close()


@pytest.fixture
def run_house(desk, tmp_path):
    """`run_house(story, acl=…)` runs `story(house)` on a broker of its own, on real time."""

    def run(story, acl=None, prefix="headgate/g"):
        if acl is not None:
            (tmp_path / "acl").write_text(acl)

        @asynccontextmanager
        async def house(writing):
            it = desk()
            it.commands._clock = it.clock = clock = SystemClock()
            options = Options(listen=(Address("mqtt", "127.0.0.1", 0),), acl=None if acl is None else tmp_path / "acl")
            metrics = Metrics()
            async with (
                Embedded(options, folder=tmp_path / "b", writing=writing, clock=clock, metrics=metrics) as broker,
                it.open(),
            ):
                inbox = Inbox(it.commands, it.targets, prefix=prefix, gateway="g", clock=it.clock, metrics=it.metrics)
                inbox.listen_at(broker.door("g"))
                made = House(broker, it)
                try:
                    yield made
                finally:
                    await made.close()

        async def main(writing):
            async with house(writing) as it:
                return await story(it)

        with ThreadPoolExecutor(1) as writing:
            return asyncio.run(main(writing))

    return run


@pytest.mark.parametrize("level", [V5, V311], ids=["v5", "v311"])
def test_a_command_is_carried_out_and_answered_beside_its_topic(run_house, level):
    async def story(house):
        client = await house.client(level=level, user="op")
        await client.subscribe("headgate/g/#")
        await client.publish(SET, '{"value":true,"id":"7f"}')
        await client.reply()  # its own command
        topic, answer, packet = await client.reply()
        assert (packet.qos, packet.retain) == (1, False)
        return topic, answer, house.desk.plant.writes(), house.desk.store.entries[0]

    topic, answer, writes, intent = run_house(story)
    assert (topic, answer) == (REPLY, {"id": "7f", "ok": True, "value": True})
    assert writes == [("pump", True)]
    assert (intent["source"], intent["user"], intent["client"], intent["address"]) == (
        "broker", "op", "hmi", "127.0.0.1",
    )  # fmt: skip


def test_a_command_of_qos_0_is_carried_out_too(run_house):
    async def story(house):
        client = await house.client()
        await client.subscribe(REPLY)
        await client.publish(SET, "on", qos=0, packet_id=0)
        return (await client.reply())[1]

    assert run_house(story) == {"ok": True, "value": True}


def test_response_topic_and_correlation_data_of_the_request_are_used(run_house):
    async def story(house):
        client = await house.client()
        await client.subscribe("answers/hmi", REPLY)
        said = {"response_topic": "answers/hmi", "correlation_data": b"\0\xff7"}
        await client.publish(SET, "on", properties=said)
        await client.publish("headgate/g/boiler/level/set", "5000", properties=said)
        return [await client.reply(), await client.reply()]

    answers = run_house(story)
    assert [(topic, answer["ok"]) for topic, answer, _ in answers] == [("answers/hmi", False), ("answers/hmi", True)]
    assert {packet.properties.correlation_data for *_, packet in answers} == {b"\0\xff7"}


def test_without_a_response_topic_correlation_data_goes_with_the_usual_reply(run_house):
    async def story(house):
        client = await house.client()
        await client.subscribe(REPLY)
        await client.publish(SET, "on", properties={"correlation_data": b"c"})
        return (await client.reply())[2].properties.correlation_data

    assert run_house(story) == b"c"


@pytest.mark.parametrize(
    ("topic", "said"),
    [
        ("headgate/g/boiler/level/set", "takes commands"),
        ("other/boiler/level/set", "takes commands"),
        ("headgate/g/boiler", "is the gateway's own"),
        ("headgate/g/status", "is the gateway's own"),
        ("$SYS/x", "is the server's own"),
        ("secret/x", "may not be read by who sent it"),
    ],
)
def test_nobody_has_the_gateway_publish_where_it_should_not(run_house, topic, said):
    async def story(house):
        client = await house.client(user="op")
        await client.subscribe(REPLY)
        await client.publish(SET, "on", properties={"response_topic": topic})
        return (await client.reply())[1], house.desk.plant.log

    answer, log = run_house(story, acl="user op\ntopic #\ntopic deny secret/#\n")
    assert answer["code"] == "invalid"
    assert answer["error"] == f"not written: its response topic {said}"
    assert log == []


ROLES = f"""
user op
topic write {SET}
topic read #
topic write answers/op
topic write blind/op
topic deny blind/#
"""


@pytest.mark.parametrize(
    ("topic", "said"),
    [
        ("answers/op", None),
        (REPLY, None),
        ("alarms/siren", "may not be written by who sent it"),
        ("headgate/g/boiler/level/set/reply", "may not be written by who sent it"),
        ("blind/op", "may not be read by who sent it"),
    ],
)
def test_the_gateway_publishes_for_nobody_what_they_may_not_publish_themselves(run_house, topic, said):
    async def story(house):
        client = await house.client(user="op")
        await client.subscribe("answers/op", REPLY, "alarms/siren", "headgate/g/boiler/level/set/reply")
        await client.publish(SET, "on", properties={"response_topic": topic})
        where, answer, _ = await client.reply()
        return where, answer, house.desk.plant.writes()

    where, answer, writes = run_house(story, acl=ROLES)
    if said is None:
        assert (where, answer["ok"], writes) == (topic, True, [("pump", True)])
    else:
        assert (where, answer["code"], writes) == (REPLY, "invalid", [])
        assert answer["error"] == f"not written: its response topic {said}"


def test_the_reply_topic_of_another_command_may_be_named(run_house):
    async def story(house):
        client = await house.client()
        await client.subscribe("headgate/g/boiler/level/set/reply")
        await client.publish(SET, "on", properties={"response_topic": "headgate/g/boiler/level/set/reply"})
        return (await client.reply())[1]["ok"]

    assert run_house(story)


def test_who_may_not_publish_there_writes_nothing(run_house):
    async def story(house):
        guest, op = await house.client("guest", user="guest"), await house.client("hmi", user="op")
        await op.subscribe(REPLY)
        denied = await guest.publish(SET, "on")
        granted = await op.publish(SET, "off")
        return denied, granted, (await op.reply())[1]["ok"], house.desk.plant.writes()

    acl = "user op\ntopic write headgate/g/+/pump/set\ntopic read headgate/g/#\n"
    denied, granted, ok, writes = run_house(story, acl=acl)
    assert denied is Reason.NOT_AUTHORIZED
    assert granted is Reason.SUCCESS
    assert (ok, writes) == (True, [("pump", False)])


def test_retained_expired_and_repeated_commands_are_refused(run_house):
    async def story(house):
        client = await house.client()
        await client.subscribe(REPLY)
        await client.publish(SET, "on", retain=True)
        await client.publish(SET, "on", properties={"message_expiry": 0})
        await client.publish(SET, '{"value":1,"id":1}', properties={"message_expiry": 60})
        await client.publish(SET, '{"value":0,"id":1}')
        codes = [(await client.reply())[1].get("code") for _ in range(4)]
        reasons = ("retained", "expired", "repeated")
        counted = [house.desk.count("commands_refused_total", reason=reason) for reason in reasons]
        return codes, counted, house.desk.plant.writes()

    codes, counted, writes = run_house(story)
    assert sorted(codes, key=str) == [None, "expired", "repeated", "retained"]
    assert counted == [1, 1, 1]
    assert writes == [("pump", True)]


def test_what_a_client_sends_again_is_not_written_again(run_house):
    async def story(house):
        client = await house.client(level=V311)
        await client.subscribe(REPLY)
        await client.publish(SET, '{"value":1,"id":"a"}')
        await client.publish(SET, '{"value":1,"id":"a"}', dup=True)
        await client.publish(SET, '{"value":0,"id":"b"}', dup=True)
        await client.publish(SET, "1", dup=True)
        codes = [(await client.reply())[1].get("code") for _ in range(4)]
        return sorted(codes, key=str), house.desk.plant.writes()

    codes, writes = run_house(story)
    assert codes == [None, None, "repeated", "repeated"]
    assert writes == [("pump", True), ("pump", False)]


def test_a_message_that_was_retained_before_the_gateway_came_is_not_a_command(run_house):
    async def story(house):
        client = await house.client()
        await client.publish("headgate/g/boiler/level/set", "5", retain=True)
        await client.publish(SET, "on")
        await client.subscribe("headgate/g/+/+/set/reply")
        await client.publish(SET, "off")
        await client.reply()
        return house.desk.plant.writes()

    assert ("level", 5) not in run_house(story)


def test_topics_that_name_no_tag_are_answered(run_house):
    async def story(house):
        client = await house.client()
        await client.subscribe("headgate/g/#")
        answers = []
        for topic in ("headgate/g/boiler/nothing/set", "headgate/g/plc/pump/set", "headgate/g/boiler/raw/set"):
            await client.publish(topic, "1")
            await client.reply()
            answers.append((await client.reply())[1]["code"])
        return answers

    assert run_house(story) == ["unknown", "unknown", "not_writable"]


def test_a_reply_whose_topic_would_be_too_long_is_left_out_and_nobody_is_harmed(run_house):
    async def story(house):
        client = await house.client()
        await client.subscribe("#")
        await client.publish(f"headgate/g/{'x' * 65515}/y/set", "1")
        await client.reply()
        await client.publish(SET, "true")
        await client.reply()
        return (await client.reply())[1]["ok"], house.desk.count("commands_refused_total", reason="unknown")

    assert run_house(story) == (True, 1)


def test_what_the_gateway_publishes_itself_is_no_command(run_house):
    async def story(house):
        door, client = house.broker.door("g"), await house.client()
        await client.subscribe(REPLY)
        door.publish(SET, b"true", qos=1)
        await client.publish(SET, "off")
        return (await client.reply())[1], house.desk.plant.writes()

    assert run_house(story) == ({"ok": True, "value": False}, [("pump", False)])


# --- without a broker -------------------------------------------------------------------------------------------------


def inbox_of(it, prefix="headgate/g", gateway="g"):
    return Inbox(it.commands, it.targets, prefix=prefix, gateway=gateway, clock=it.clock, metrics=it.metrics)


def test_with_a_shared_prefix_a_stranger_is_left_to_other_gateways(desk):
    it, replies = desk(), []
    inbox = inbox_of(it, gateway="other")
    for topic in ("headgate/g/plc/pump/set", "headgate/g/boiler/none/set"):
        inbox.take(Incoming(topic, b"1"), lambda message, _: replies.append(message), source="uplink u", who={})
    assert [message.topic for message in replies] == ["headgate/g/boiler/none/set/reply"]
    assert it.count("commands_ignored_total") == 1


def test_values_that_json_has_no_word_for_are_answered_as_samples_are(play):
    async def story(desk):
        replies = asyncio.Queue()
        desk.plant.at_read = lambda _value: float("nan")
        inbox_of(desk).take(
            Incoming("headgate/g/boiler/flow/set", b"1.5"), lambda *reply: replies.put_nowait(reply), source="u", who={}
        )
        return await replies.get()

    message, data = play(story)
    assert isinstance(message, Message)
    assert data is None
    assert json.loads(message.payload)["value"] is None


def test_filters_have_as_many_levels_as_tags_have(desk, device_of):
    from dataclasses import replace

    device = device_of()
    deep = replace(device, tags=(replace(device.tags[0], name="a/b/c"), *device.tags))
    it = desk(device)
    assert it.targets.filters == ("headgate/g/+/+/set",)
    it.targets._devices["boiler"] = deep
    assert it.targets.filters == ("headgate/g/+/+/set", "headgate/g/+/+/+/+/set")
    assert it.targets.locate("headgate/g/boiler/a/b/c/set") == ("boiler", "a/b/c")
    assert [it.targets.locate(t) for t in ("headgate/g/boiler/set", "x", "headgate/g/boiler/a/set/reply")] == [None] * 3


def test_where_nothing_may_be_written_nothing_is_subscribed_to(desk, device_of):
    it = desk(device_of(pump=None, mode=None, level=None, temp=None, flow=None))
    assert it.targets.filters == ()
    it.send("pump", "1")
    assert it.answers[0]["code"] == "not_writable"
