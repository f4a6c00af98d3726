"""What somebody wants to have once more, while all else goes on."""

import asyncio

import orjson
import pytest

from gateway.errors import HeadgateError
from gateway.model import Batch
from gateway.spool.record import Note
from gateway.uplinks.session import SessionError

TS = 1795330000000


def fill(spool, group, count, start=0):
    for i in range(start, start + count):
        spool.append(Batch(group, TS + i, [float(i)]))


def numbers(server, start=0):
    documents = [orjson.loads(m.payload) for m, _, _ in server.seen[start:] if b'"values"' in m.payload]
    return [(int(d["values"]["flow"]), d.get("replay", False)) for d in documents]


@pytest.fixture
def group(define):
    return define("flow float64")


async def caught_up(b, count):
    await b.until(lambda: b.cursor.committed == count)
    return len(b.server.seen)


def test_a_time_is_sent_once_more_marked_and_what_is_new_goes_on(run_virtual, bench, scripted, group):
    async def story():
        server = scripted()
        server.late = lambda _: 0.1
        async with bench(server, max_in_flight=4) as b:
            fill(b.spool, group, 300)
            mark = await caught_up(b, 300)
            b.spool.on_disk = 250
            commits = len(b.spool.commits)
            b.forwarder.replay(TS + 100, TS + 199)
            await asyncio.sleep(0.5)
            fill(b.spool, group, 3, 300)
            await b.until(lambda: b.forwarder.status().replay.done)
            found = numbers(server, mark)
            assert [n for n, replay in found if replay] == list(range(100, 200))
            assert [n for n, replay in found if not replay] == [300, 301, 302]
            assert found.index((300, False)) < 30
            assert set(b.spool.commits[commits:]) <= {301, 302, 303}
            assert b.cursor.committed == 303
            assert not any(message.retain for message, _, _ in server.seen[mark:])
            status = b.forwarder.status().replay
            assert (status.sent, status.position_ms, status.error) == (100, TS + 199, "")
            assert (status.first_ms, status.last_ms) == (TS + 100, TS + 199)

    run_virtual(story())


def test_the_same_keys_go_with_it_so_that_a_consumer_can_tell(run_virtual, bench, scripted, group):
    async def story():
        async with bench(scripted()) as b:
            fill(b.spool, group, 5)
            mark = await caught_up(b, 5)
            b.forwarder.replay(TS, TS + 10)
            await b.until(lambda: b.forwarder.status().replay.done)
            before = [orjson.loads(m.payload) for m, _, _ in b.server.seen[1:mark]]
            after = [orjson.loads(m.payload) for m, _, _ in b.server.seen[mark:]]
            assert [(d["epoch"], d["seq"], d["values"]) for d in before] == [
                (d["epoch"], d["seq"], d["values"]) for d in after
            ]

    run_virtual(story())


def test_it_goes_at_the_pace_of_a_backlog(run_virtual, bench, scripted, group):
    async def story():
        async with bench(scripted(), replay_rate=10.0) as b:
            fill(b.spool, group, 5)
            await caught_up(b, 5)
            await b.until(lambda: b.forwarder.status().connected)
            fill(b.spool, group, 100, 5)
            await caught_up(b, 105)
            begun = asyncio.get_running_loop().time()
            b.forwarder.replay(0, TS * 2)
            await b.until(lambda: b.forwarder.status().replay.done)
            assert 9 < asyncio.get_running_loop().time() - begun < 12

    run_virtual(story())


def test_it_goes_on_after_a_lost_connection_from_what_was_acknowledged(run_virtual, bench, scripted, group):
    async def story():
        server = scripted()
        server.late = lambda _: 0.1
        async with bench(server, max_in_flight=4) as b:
            fill(b.spool, group, 50)
            mark = await caught_up(b, 50)
            b.forwarder.replay(TS, TS + 100)
            await b.until(lambda: b.forwarder.status().replay.sent > 20)
            server.connections[-1].drop()
            await b.until(lambda: b.forwarder.status().replay.done)
            found = [n for n, _ in numbers(server, mark)]
            assert set(found) == set(range(50))
            assert len(found) <= 50 + 2, "twice only what was in flight"
            assert b.forwarder.status().replay.sent == 50

    run_virtual(story())


def test_it_can_be_asked_for_while_there_is_no_connection(run_virtual, bench, scripted, group):
    async def story():
        server = scripted()
        async with bench(server) as b:
            fill(b.spool, group, 5)
            await caught_up(b, 5)
            server.refusals = [SessionError("no")] * 5
            server.connections[-1].drop()
            await b.until(lambda: not b.forwarder.status().connected)
            mark = len(server.seen)
            b.forwarder.replay(TS, TS + 100)
            assert not b.forwarder.status().replay.done
            await b.until(lambda: b.forwarder.status().replay.done)
            assert numbers(server, mark) == [(n, True) for n in range(5)]

    run_virtual(story())


def test_one_at_a_time_and_it_can_be_stopped(run_virtual, bench, scripted, group):
    async def story():
        async with bench(scripted(), replay_rate=1.0) as b:
            b.forwarder.stop_replay()
            assert b.forwarder.status().replay is None
            await b.until(lambda: b.forwarder.status().connected)
            fill(b.spool, group, 50)
            await caught_up(b, 50)
            b.forwarder.replay(TS, TS + 100)
            with pytest.raises(HeadgateError, match="under way"):
                b.forwarder.replay(TS, TS + 100)
            await b.until(lambda: b.forwarder.status().replay.sent > 2)
            b.forwarder.stop_replay()
            status = b.forwarder.status().replay
            assert status.done
            assert status.error == "it was stopped"
            seen = len(b.server.seen)
            await asyncio.sleep(30)
            assert len(b.server.seen) <= seen
            b.forwarder.replay(TS, TS + 3)
            await b.until(lambda: b.forwarder.status().replay.done)
            assert b.forwarder.status().replay.sent == 4

    run_virtual(story())


def test_a_clean_stop_does_not_wait_for_it(run_virtual, bench, scripted, group):
    async def story():
        server = scripted()
        server.late = lambda _: 0.5
        async with bench(server, max_in_flight=2) as b:
            fill(b.spool, group, 100)
            await caught_up(b, 100)
            b.forwarder.replay(TS, TS + 100)
            await b.until(lambda: b.forwarder.status().replay.sent > 5)
            begun = asyncio.get_running_loop().time()
            await b.forwarder.stop(30)
            assert asyncio.get_running_loop().time() - begun < 2

    run_virtual(story())


def test_it_ends_where_one_of_its_records_breaks_the_connection(run_virtual, bench, scripted, group):
    async def story():
        server = scripted()
        async with bench(server) as b:
            fill(b.spool, group, 10)
            await caught_up(b, 10)
            server.answer = lambda m: SessionError("closed") if b'"replay"' in m.payload and b":4.0" in m.payload else 0
            b.forwarder.replay(TS, TS + 100)
            await b.until(lambda: b.forwarder.status().replay.done, 1000)
            status = b.forwarder.status().replay
            assert (status.sent, status.error) == (4, "the connection breaks whenever record 5 is sent")
            fill(b.spool, group, 200, 10)
            await b.until(lambda: b.cursor.committed == 210)
            assert server.most_flying > 1, "nobody else is suspected"

    run_virtual(story())


def test_events_of_that_time_go_too_and_gaps_do_not(run_virtual, bench, scripted, group):
    async def story():
        async with bench(scripted(), classes=("event", "data")) as b:
            fill(b.spool, group, 2)
            b.spool.lose(3)
            b.spools["event"].put("event", Note(TS + 1, "clock", {}))
            b.spools["event"].put("event", Note(TS + 100, "clock", {}))
            await b.until(lambda: b.cursor.committed == 5 and b.cursors["event"].committed == 2)
            mark = len(b.server.seen)
            b.forwarder.replay(TS, TS + 50)
            await b.until(lambda: b.forwarder.status().replay.done)
            documents = [orjson.loads(m.payload) for m, _, _ in b.server.seen[mark:]]
            assert sorted((d["ts"], d.get("event", ""), d["replay"]) for d in documents) == [
                (TS, "", True),
                (TS + 1, "", True),
                (TS + 1, "clock", True),
            ]

    run_virtual(story())
