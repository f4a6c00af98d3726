"""History read from servers of two makers, through a session as the gateway has it: every value of a gap, once."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from drivers.opcua.connecting.session import Session
from drivers.opcua.listening.gaps import Gaps, Span
from drivers.opcua.nodes.catalogue import Catalogue
from drivers.opcua.nodes.known import HISTORY_READ
from drivers.opcua.values.columns import ticks_of
from gateway import config
from gateway.clock import SystemClock
from gateway.metrics import Metrics

BOTH = ["node-opcua", "asyncua"]
PLANT = "urn:headgate:tests:plant"
TEN_MINUTES = 600_000


class Desk:
    """A session, the groups of a device, and what fills their gaps."""

    def __init__(self, file, url, metrics):
        (self.device,) = next(iter(file.lines.values()))
        options, clock = self.device.options, SystemClock()
        self.metrics = metrics
        self.session = Session(url, options, clock=clock, metrics=metrics)
        self.catalogue = Catalogue([self.device])
        self.gaps = Gaps(self.session, options, clock=clock, metrics=metrics)
        self._compiled = file.groups[self.device.name]

    async def learn(self):
        await self.catalogue.learn(self.session, is_resumed=False)
        self.groups = self.catalogue.regroup(self.device, self._compiled)

    def spans(self, after, before):
        """The same gap of every tag, between two times in ms."""
        return [
            Span(group, position, known, ticks_of(after), ticks_of(before))
            for group in self.groups
            for position, known in enumerate(self.catalogue.known(group))
        ]

    async def fill(self, spans):
        """(ms, value) of each tag, in the order in which they came."""
        found = {}
        async for batch in self.gaps.fill(spans):
            assert batch.is_history
            index = range(len(batch.values)) if batch.index is None else batch.index
            for i, time, value in zip(index, batch.times, batch.values, strict=True):
                found.setdefault(batch.group.names[i], []).append((time, value))
        return found

    def count(self, name, **labels):
        return sum(v for n, found, v in self.metrics if n == name and labels.items() <= found.items())


@pytest.fixture
def desk(tmp_path):
    @asynccontextmanager
    async def sit(server, tags, **options):
        addresses = {name: f"nsu={PLANT};s={name}" for name in tags}
        device = {"driver": "opcua", "url": server.url, "security": "none", "tags": addresses, **options}
        made = Desk(
            config.from_mapping({"gateway": "g", "devices": {"plc": device}}, base=tmp_path), server.url, Metrics()
        )
        await made.session.open()
        try:
            await made.learn()
            yield made
        finally:
            await made.session.close()

    return sit


def counted(server, least, wait_for):
    """Wait until the counters are there; gives the time of their zero."""
    wait_for(lambda: server.tell("state")["count"] >= least, "the counters", 30)
    return server.tell("state")["started"]


@pytest.mark.parametrize("kind", BOTH)
def test_a_gap_comes_whole_and_exact_within_the_limits_and_who_refuses_is_asked_once(
    opcua_servers, desk, wait_for, kind, caplog
):
    limits = {"maxNodesPerHistoryReadData": 7}
    server = opcua_servers(kind, counters=60, history=58, period=20, types=False, limits=limits)
    started = counted(server, 60, wait_for)

    async def main():
        async with desk(server, [f"counter.{i}" for i in range(60)]) as own:
            assert own.session.limits.max_history_nodes == 7
            expected = [(started + 20 * k, k) for k in range(11, 50)]
            spans = own.spans(started + 200, started + 1000)
            assert await own.fill(spans) == {f"counter.{i}": expected for i in range(58)}
            assert own.count("opcua_history_values_total") == 58 * 39
            assert own.count("opcua_history_requests_total") >= 9
            assert own.count("opcua_history_unfilled_total") == 0
            spans[59] = _remembering(spans[59])
            for _ in range(2):
                assert await own.fill(spans) == {f"counter.{i}": expected for i in range(58)}
            return own.count("opcua_history_unfilled_total")

    refused = asyncio.run(main())
    said = [record for record in caplog.records if "not filled from history" in record.getMessage()]
    assert refused == (2 if kind == "node-opcua" else 0)  # asyncua has no data of any node, and that is no refusal
    assert len(said) == bool(refused)


def _remembering(span):
    """The span of a node that says it has a history, whatever is true."""
    known = span.known
    return replace(span, known=replace(known, access=known.access | HISTORY_READ))


@pytest.mark.parametrize("kind", BOTH)
def test_ten_minutes_of_ten_values_a_second_come_whole_through_small_windows(
    opcua_servers, desk, wait_for, monkeypatch, kind
):
    monkeypatch.setattr("drivers.opcua.listening.gaps._LEAST_WINDOW", 2000)
    since = SystemClock().wall_ms() - TEN_MINUTES
    server = opcua_servers(kind, counters=3, history=3, since=since, types=False)
    started = counted(server, 5990, wait_for)
    assert started == since

    async def main():
        async with desk(server, [f"counter.{i}" for i in range(3)], every="100ms") as own:
            found = await own.fill(own.spans(started, started + 595_000))
            expected = [(started + 100 * k, k) for k in range(1, 5950)]
            assert found == {f"counter.{i}": expected for i in range(3)}

    asyncio.run(main())


@pytest.mark.parametrize("kind", BOTH)
def test_what_lies_after_the_last_value_is_waited_for(opcua_servers, desk, wait_for, kind):
    server = opcua_servers(kind, counters=2, history=2, types=False)
    started = counted(server, 5, wait_for)

    async def main():
        async with desk(server, ["counter.0", "counter.1"], every="100ms") as own:
            last = server.tell("state")["count"] + 8
            found = await own.fill(own.spans(started, started + 100 * last))
            expected = [(started + 100 * k, k) for k in range(1, last)]
            assert found == {"counter.0": expected, "counter.1": expected}

    asyncio.run(main())
