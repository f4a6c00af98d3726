"""What is published of each kind of record, and what else is said of a batch."""

import logging

import orjson
import pytest

from gateway.model import Batch
from gateway.mqtt.properties import NONE, Place, Properties, decode_properties, encode_properties
from gateway.spool.record import Message, Note, Record, Regime

TS = 1795330000123


def said(server):
    """(topic, payload, retain, qos) of all that is no status."""
    return [(m.topic, m.payload, m.retain, qos) for m, qos, _ in server.seen if not m.topic.endswith("/status")]


def properties(packed):
    return decode_properties(packed, 0, Place.PUBLISH)[0]


@pytest.fixture
def group(define):
    return define("flow float64")


async def connected(b):
    await b.until(lambda: b.forwarder.status().connected)


# --- messages ---------------------------------------------------------------------------------------------------------


def test_a_message_is_published_as_it_came_retained_only_when_it_is_new(run_virtual, bench, scripted):
    async def story():
        async with bench(scripted()) as b:
            b.spool.put("message", Message("a/b", b"\x00\xff", 1, True, TS))
            await connected(b)
            b.spool.put("message", Message("a/b", b"new", 1, True, TS))
            b.spool.put("message", Message("a/c", b"", 1, False, TS))
            await b.until(lambda: b.cursor.committed == 3)
            assert sorted(said(b.server)) == [
                ("a/b", b"\x00\xff", False, 1),
                ("a/b", b"new", True, 1),
                ("a/c", b"", False, 1),
            ]

    run_virtual(story())


@pytest.mark.parametrize(
    ("own", "uplink", "server", "qos"), [(0, 1, 2, 0), (1, 1, 2, 1), (2, 1, 2, 1), (2, 2, 2, 2), (2, 2, 1, 1)]
)
def test_its_quality_of_service_is_the_lowest_of_three(run_virtual, bench, scripted, own, uplink, server, qos):
    async def story():
        async with bench(scripted(maximum_qos=server), qos=uplink) as b:
            b.spool.put("message", Message("a/b", b"x", own, False, TS))
            await b.until(lambda: b.cursor.committed == 1)
            assert said(b.server)[0][3] == qos

    run_virtual(story())


def test_its_own_properties_go_with_it_and_ours_behind_them(run_virtual, bench, scripted):
    async def story():
        own = Properties(
            content_type="text/plain",
            response_topic="r",
            correlation_data=b"7",
            topic_alias=3,
            subscription_identifiers=(5, 6),
            user=(("a", "b"), ("a", "c")),
        )
        stored = encode_properties(own, Place.PUBLISH)[1:]
        async with bench(scripted()) as b:
            b.spool.put("message", Message("a/b", b"x", 1, False, TS, stored))
            b.spool.put("message", Message("a/b", b"y", 1, False, TS))
            b.spool.put("message", Message("a/b", b"z", 1, False, TS, b"\xff\xff"))
            await b.until(lambda: b.cursor.committed == 3)
            with_own, without, broken = (properties(p) for m, _, p in b.server.seen if m.topic == "a/b")
            ours = (("gateway", "plant7"), ("epoch", "9f31c2-3"))
            assert with_own == Properties(
                content_type="text/plain",
                response_topic="r",
                correlation_data=b"7",
                user=(("a", "b"), ("a", "c"), *ours, ("seq", "1")),
            ), "but for what concerned the connection it came by"
            assert without.user == (*ours, ("seq", "2"))
            assert broken.user == (*ours, ("seq", "3"))
            assert properties(encode_properties(NONE, Place.PUBLISH)) == NONE

    run_virtual(story())


def test_a_message_that_cannot_be_published_is_left_out_and_the_queue_goes_on(run_virtual, bench, scripted, caplog):
    async def story():
        async with bench(scripted(maximum_packet=300)) as b:
            b.spool.put("message", Message("a/#", b"x", 1, False, TS))
            b.spool.put("message", Message("a/b", b"x" * 300, 1, False, TS))
            b.spool.put("message", Message("a/c", b"x", 1, False, TS))
            await b.until(lambda: b.cursor.committed == 3)
            assert [topic for topic, *_ in said(b.server)] == ["a/c"]
            assert b.forwarder.status().skipped == 2

    run_virtual(story())


# --- events and audit entries -----------------------------------------------------------------------------------------


def test_events_and_audit_entries_are_told_on_the_log_topic(run_virtual, bench, scripted):
    async def story():
        async with bench(scripted()) as b:
            b.spool.put("event", Note(TS, "clock", {"offset_ms": -5, "boot_id": "ab"}))
            await connected(b)
            b.spool.put("audit", Note(TS + 1, "write", {"tag": "pump", "seq": "mine", "value": b"\x01"}))
            await b.until(lambda: b.cursor.committed == 2)
            found = sorted(said(b.server))
            assert [(topic, retain, qos) for topic, _, retain, qos in found] == [("headgate/plant7/log", False, 1)] * 2
            assert [payload for _, payload, _, _ in found] == [
                b'{"audit":"write","ts":1795330000124,"seq":2,"epoch":"9f31c2-3","tag":"pump","value":"01"}',
                (
                    b'{"event":"clock","ts":1795330000123,"seq":1,"epoch":"9f31c2-3","replay":true,"offset_ms":-5,'
                    b'"boot_id":"ab"}'
                ),
            ]

    run_virtual(story())


# --- what else is said of a batch -------------------------------------------------------------------------------------


def put(b, group, **fields):
    b.spool.head += 1
    b.spool._put(Record(b.spool.head, "9f31c2-3", Batch(group, TS, [1.0]), **fields))


def test_a_batch_that_was_denser_says_so_and_so_does_one_with_a_time_that_cannot_be_right(
    run_virtual, bench, scripted, group
):
    async def story():
        async with bench(scripted()) as b:
            await connected(b)
            put(b, group)
            put(b, group, is_thinned=True)
            put(b, group, regime=Regime(bytes(15) + b"\7", 0, is_plausible=False))
            put(b, group, is_thinned=True, regime=Regime(bytes(15) + b"\7", 0, is_plausible=False))
            await b.until(lambda: b.cursor.committed == 4)
            documents = [orjson.loads(payload) for _, payload, _, _ in said(b.server)]
            assert [set(d) - {"ts", "seq", "epoch", "values"} for d in documents] == [
                set(),
                {"thinned"},
                {"clock", "boot"},
                {"thinned", "clock", "boot"},
            ]
            assert documents[3]["thinned"] is True
            assert (documents[3]["clock"], documents[3]["boot"]) == ("unsynced", "00000000-0000-0000-0000-000000000007")
            assert [d["ts"] for d in documents] == [TS] * 4

    run_virtual(story())


def test_a_time_that_is_known_by_now_is_mended(run_virtual, bench, scripted, group):
    async def story():
        async with bench(scripted()) as b:
            put(b, group, regime=Regime(bytes(15) + b"\7", 0, is_plausible=True))
            await b.until(lambda: b.cursor.committed == 1)
            assert said(b.server)[0][1] == (
                b'{"ts":1795333600123,"seq":1,"epoch":"9f31c2-3","values":{"flow":1.0},"replay":true}'
            )

    run_virtual(story())


def test_bare_values_of_any_record_go_out_all_the_same(run_virtual, bench, scripted, group):
    async def story():
        async with bench(scripted(), payload="value") as b:
            put(b, group, is_thinned=True, regime=Regime(bytes(15) + b"\7", 0, is_plausible=False))
            b.spool.put("message", Message("a/b", b"x", 1, False, TS))
            await b.until(lambda: b.cursor.committed == 2)
            assert {(topic, payload) for topic, payload, _, _ in said(b.server)} == {
                ("headgate/plant7/boiler/flow", b"1.0"),
                ("a/b", b"x"),
            }

    run_virtual(story())


def test_what_is_left_out_is_named_in_the_log(run_virtual, bench, scripted, caplog):
    async def story():
        async with bench(scripted(maximum_packet=200)) as b:
            b.spool.put("event", Note(TS, "long", {"text": "x" * 500}))
            await b.until(lambda: b.cursor.committed == 1)
            assert said(b.server) == []
        assert [r.levelno for r in caplog.records if "left out of 'headgate/plant7/log'" in r.getMessage()] == [
            logging.ERROR
        ]

    run_virtual(story())
