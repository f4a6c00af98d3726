"""Commands that come by an uplink: subscribed anew on each connection, answered beside all that is sent."""

import asyncio

import pytest

from gateway.model import Batch
from gateway.uplinks.message import Incoming, Message
from gateway.uplinks.session import SessionError

REPLY = "headgate/plant7/boiler/pump/set/reply"


class ScriptedInbox:
    """Answers each message at once, or when told."""

    def __init__(self, filters=("headgate/plant7/+/+/set",)):
        self.filters = filters
        self.taken = []
        self.waiting = []
        self.answers_at_once = True

    def take(self, incoming, publish, *, source, who):
        self.taken.append((source, incoming))
        self.waiting.append(lambda: publish(Message(REPLY, incoming.payload), incoming.correlation_data))
        if self.answers_at_once:
            self.waiting.pop()()


@pytest.fixture
def listening_server(scripted):
    """A scripted server whose connections note what was subscribed to: `server.say(payload)` sends a command."""

    class Server(scripted):
        def __init__(self, **terms):
            super().__init__(**terms)
            self.subscribed = []
            self.hangs_up = False

        def connect(self, attempt, options, will):
            connection = super().connect(attempt, options, will)

            def subscribe(filters, on_message, on_answer):
                self.subscribed.append(tuple(filters))
                if self.hangs_up:
                    connection.drop(SessionError("hung up"))
                    return
                on_answer()
                self.say = lambda payload, data=None: on_message(Incoming("t", payload, correlation_data=data))

            connection.subscribe = subscribe
            return connection

        def replies(self):
            return [(m.payload, qos, properties) for m, qos, properties in self.seen if m.topic == REPLY]

    return Server


@pytest.fixture
def wired(bench, listening_server):
    def make(inbox, terms=None, **options):
        it = bench(listening_server(**(terms or {})), **options)
        it.forwarder._inbox = inbox
        return it

    return make


def test_a_command_is_taken_and_answered_with_its_correlation_data(run_virtual, wired):
    inbox = ScriptedInbox()

    async def story():
        async with wired(inbox) as it:
            await it.until(lambda: it.server.subscribed)
            it.server.say(b"1", b"\x00c")
            it.server.say(b"2")
            await it.until(lambda: len(it.server.replies()) == 2)
            return it.server.subscribed, it.server.replies()

    subscribed, replies = run_virtual(story())
    assert subscribed == [("headgate/plant7/+/+/set",)]
    assert [source for source, _ in inbox.taken] == ["uplink cloud", "uplink cloud"]
    assert replies == [(b"1", 1, b"\x05\x09\x00\x02\x00c"), (b"2", 1, b"")]


def test_it_subscribes_anew_on_each_connection_and_answers_on_whichever_there_is(run_virtual, wired):
    inbox = ScriptedInbox()
    inbox.answers_at_once = False

    async def story():
        async with wired(inbox) as it:
            await it.until(lambda: it.server.subscribed)
            it.server.say(b"1")
            it.server.say(b"2")
            it.server.connections[-1].drop(SessionError("cut"))
            await it.until(lambda: it.forwarder._delivery is None)
            inbox.waiting.pop()()
            lost = {name: value for name, _, value in it.metrics}["uplink_lost_replies_total"]
            await it.until(lambda: len(it.server.subscribed) == 2)
            inbox.waiting.pop()()
            await it.until(it.server.replies)
            return lost, it.server.replies()

    lost, replies = run_virtual(story())
    assert lost == 1
    assert [payload for payload, _, _ in replies] == [b"1"]


def test_without_filters_or_an_inbox_nothing_is_subscribed_to(run_virtual, wired):
    async def story(inbox):
        async with wired(inbox) as it:
            await it.until(it.server.topics)
            return it.server.subscribed

    assert run_virtual(story(ScriptedInbox(filters=()))) == []
    assert run_virtual(story(None)) == []


def test_a_flood_of_answers_is_bounded_and_samples_go_on(run_virtual, wired, define):
    inbox = ScriptedInbox()

    async def story():
        async with wired(inbox, max_in_flight=4) as it:
            await it.until(lambda: it.server.subscribed)
            group = define("flow float64")
            for number in range(40):
                it.spool.append(Batch(group, number, [float(number)]))
            for number in range(2000):
                it.server.say(b"%d" % number)
            await it.until(lambda: it.cursor.committed == 40)
            await it.until(lambda: len(it.server.replies()) >= 256)
            lost = {name: value for name, _, value in it.metrics}["uplink_lost_replies_total"]
            return len(it.server.replies()), lost, it.server.most_flying

    replies, lost, most_flying = run_virtual(story())
    assert (replies, lost) == (256, 2000 - 256)
    assert most_flying <= 4


def test_answers_go_before_a_backlog(run_virtual, wired, define):
    inbox = ScriptedInbox()

    async def story():
        async with wired(inbox, max_in_flight=1, replay_delay_s=0.0) as it:
            await it.until(lambda: it.server.subscribed)
            group = define("flow float64")
            for number in range(200):
                it.spool.append(Batch(group, number, [float(number)]))
            await it.until(lambda: len(it.server.data()) >= 20)
            before = len(it.server.seen)
            it.server.say(b"1")
            await it.until(it.server.replies)
            topics = it.server.topics()
            return topics.index(REPLY) - before

    assert run_virtual(story()) <= 2


def test_an_answer_that_the_server_would_not_take_is_counted(run_virtual, wired):
    inbox = ScriptedInbox()

    async def story():
        async with wired(inbox, terms={"maximum_packet": 2000}) as it:
            await it.until(lambda: it.server.subscribed)
            it.server.say(b"x" * 3000)
            it.server.say(b"y")
            await it.until(it.server.replies)
            lost = {name: value for name, _, value in it.metrics}["uplink_lost_replies_total"]
            return lost, [payload for payload, _, _ in it.server.replies()]

    assert run_virtual(story()) == (1, [b"y"])


def test_what_is_answered_at_an_ordered_stop_still_goes_out(run_virtual, wired):
    inbox = ScriptedInbox()
    inbox.answers_at_once = False

    async def story():
        async with wired(inbox) as it:
            await it.until(lambda: it.server.subscribed)
            it.server.say(b"1")
            inbox.waiting.pop()()
            stop = asyncio.create_task(it.forwarder.stop(1.0))
            await stop
            return it.server.replies(), it.server.topics()[-1]

    replies, last = run_virtual(story())
    assert [payload for payload, _, _ in replies] == [b"1"]
    assert last == "headgate/plant7/status"


def test_a_server_that_hangs_up_at_a_subscription_is_left_in_peace_for_an_hour(run_virtual, wired, define, caplog):
    inbox = ScriptedInbox()

    async def story():
        async with wired(inbox) as it:
            it.server.hangs_up = True
            it.spool.append(Batch(define("flow float64"), 1, [1.0]))
            await it.until(lambda: it.cursor.committed == 1)
            before = len(it.server.subscribed)
            it.server.hangs_up = False
            await asyncio.sleep(3500)
            it.server.connections[-1].drop()
            await it.until(lambda: it.forwarder._delivery is None)
            await it.until(lambda: it.forwarder._delivery is not None)
            quiet = len(it.server.subscribed)
            await asyncio.sleep(200)
            it.server.connections[-1].drop()
            await it.until(lambda: len(it.server.subscribed) > quiet)
            it.server.say(b"1")
            await it.until(it.server.replies)
            return before, quiet

    assert run_virtual(story()) == (3, 3)
    told = [text for text in caplog.messages if "breaks whenever it subscribes to commands" in text]
    assert len(told) == 1
