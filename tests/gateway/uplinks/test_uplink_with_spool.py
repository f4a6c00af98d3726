"""The forwarder on the real spool, in real time: outages, restarts, and what the disk gives back."""

import asyncio
import secrets
import time

import orjson
import pytest

from gateway.clock import SystemClock
from gateway.metrics import Metrics
from gateway.model import GOOD, Batch, bad
from gateway.spool.limits import Limits
from gateway.spool.queue import Queue
from gateway.uplinks.forwarder import Forwarder
from gateway.uplinks.options import Options
from gateway.uplinks.session import SessionError

TS = 1795330000123


class Gateway:
    """A spool on a folder and a forwarder to a scripted server."""

    def __init__(self, folder, server, *, order="in_order", replay_delay_s=0.0, **limits):
        self.folder, self.server, self.limits = folder, server, limits
        self.options = {"order": order, "replay_delay_s": replay_delay_s}

    async def __aenter__(self):
        clock, metrics = SystemClock(), Metrics()
        self.spool = await Queue.open(self.folder, Limits(**self.limits), clock=clock, metrics=metrics)
        self.cursor = self.spool.cursor("cloud")
        self.forwarder = Forwarder(
            Options(name="cloud", gateway="plant7", servers=("mqtt://a",), **self.options),
            streams=[(self.spool, self.cursor)],
            states={},
            clock=clock,
            metrics=metrics,
            connect=self.server.connect,
        )
        self.task = asyncio.create_task(self.forwarder.run())
        return self

    async def __aexit__(self, *_):
        await self.forwarder.stop(2)
        await self.task
        await self.spool.close()
        for connection in self.server.connections:
            if connection._gone.done():
                connection._gone.exception()

    async def until(self, condition, seconds=20):
        deadline = time.monotonic() + seconds
        while not condition():
            assert not self.task.done(), self.task.exception()
            assert time.monotonic() < deadline, "waited in vain"
            await asyncio.sleep(0.01)


def values(server):
    return [orjson.loads(payload)["values"]["flow"] for payload in server.data()]


@pytest.fixture
def group(define):
    return define("flow float64")


def test_records_flow_through_the_real_spool(tmp_path, scripted, group):
    async def story():
        server = scripted()
        async with Gateway(tmp_path, server) as g:
            for i in range(2000):
                g.spool.append(Batch(group, TS + i, [float(i)]))
                if i % 50 == 0:
                    await asyncio.sleep(0)
            await g.until(lambda: g.spool.status().cursors[0].lag_records == 0)
            assert values(server) == [float(i) for i in range(2000)]

    asyncio.run(story())


def test_a_backlog_survives_a_restart_and_is_sent_first_and_marked(tmp_path, scripted, define):
    group = define("flow float32", "pump bool", site="north")

    async def outage():
        server = scripted()
        server.refusals = [SessionError("refused")] * 1000
        async with Gateway(tmp_path, server) as g:
            for i in range(300):
                quality = GOOD if i % 2 else [GOOD, bad("timeout")]
                g.spool.append(Batch(group, TS + i, [float(i), True], quality))
            await g.spool.durable()

    async def return_():
        server = scripted()
        async with Gateway(tmp_path, server) as g:
            await g.until(lambda: len(server.data()) == 300)
            g.spool.append(Batch(group, TS + 1000, [1000.0, False]))
            await g.until(lambda: g.spool.status().cursors[0].lag_records == 0)
        sent = [orjson.loads(payload) for payload in server.data()]
        assert [d["values"]["flow"] for d in sent] == [float(i) for i in range(300)] + [1000.0]
        assert [d.get("replay", False) for d in sent] == [True] * 300 + [False]
        assert len({d["epoch"] for d in sent}) == 2
        assert len({(d["epoch"], d["seq"]) for d in sent}) == 301
        assert sent[0]["quality"] == {"pump": "bad:timeout"}
        assert "quality" not in sent[1]

    asyncio.run(outage())
    asyncio.run(return_())


def test_what_was_not_acknowledged_before_a_restart_comes_again(tmp_path, scripted, group):
    async def story(answer, count, start):
        server = scripted()
        server.answer = answer
        async with Gateway(tmp_path, server) as g:
            for i in range(count):
                g.spool.append(Batch(group, TS, [float(start + i)]))
            await g.until(lambda: len(server.data()) >= 20)
            await asyncio.sleep(0.1)
        return values(server)

    first = asyncio.run(story(lambda m: None if b'"values":{"flow":10.0}' in m.payload else 0, 20, 0))
    assert first == [float(i) for i in range(20)]
    again = asyncio.run(story(lambda _: 0, 20, 20))
    assert again == [float(i) for i in range(10, 40)]


def test_what_the_spool_had_to_give_up_is_told(tmp_path, scripted, group):
    async def story():
        server = scripted()
        server.refusals = [SessionError("refused")] * 1000
        async with Gateway(tmp_path, server, ram_bytes=1 << 20, max_bytes=1 << 20, commit_interval_s=0.05) as g:
            for i in range(800):
                g.spool.append(Batch(group, TS + i, [secrets.token_hex(2000)]))  # nothing that can be compressed away
                if i % 20 == 0:
                    await g.spool.durable()
            assert g.spool.status().evicted
            server.refusals.clear()
            await g.until(lambda: g.spool.status().cursors[0].lag_records == 0, 60)
        events = [orjson.loads(p) for m in server.seen if (p := m[0].payload) and m[0].topic == "headgate/plant7/log"]
        assert sum(e["count"] for e in events) > 0
        seen = {orjson.loads(p)["seq"] for p in server.data() if b'"values"' in p}
        lost = {seq for e in events for seq in range(e["first"], e["last"] + 1)}
        assert seen | lost >= set(range(min(seen | lost), max(seen) + 1))

    asyncio.run(story())
