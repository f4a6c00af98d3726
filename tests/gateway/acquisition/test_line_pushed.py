"""Groups that come by themselves: listened to beside the polls, in one connection, without ever being asked for."""

import asyncio
import logging
from itertools import pairwise
from types import SimpleNamespace

import pytest
from pydantic import BaseModel

from gateway.acquisition import news
from gateway.acquisition.line import Line
from gateway.clock import SystemClock
from gateway.errors import DeviceError, LineError
from gateway.image import Image
from gateway.metrics import Metrics
from gateway.model import GOOD, Batch, Deadband, Device, ScanGroup, Tag, bad

START = 1000.0
WALL = 1_795_330_000_000
GONE = LineError("connection reset", cause="offline")


class Server:
    """What a subscribing driver talks to: `push` reaches who listens; `reads`, `order` and `connects` tell the rest."""

    def __init__(self, clock):
        self.clock = clock
        self.news = None
        self.groups = []
        self.reads = []
        self.order = []
        self.connects = 0
        self.reachable = True
        self.silent = False
        self.hangs = False
        self.greeting = lambda groups: [Batch(g, clock.wall_ms(), [1.0] * len(g.names)) for g in groups]
        self.regroup = None

    def push(self, *news):
        for item in news:
            self.news.put_nowait(item)

    async def enter(self):
        self.connects += 1
        if not self.reachable:
            raise GONE
        self.order.append("entered")

    async def read(self, group):
        self.reads.append((group.names[0], self.clock.monotonic()))
        if self.hangs:
            await asyncio.get_running_loop().create_future()
        if self.silent is True or (self.silent and group.names[0] in self.silent):
            await asyncio.sleep(1.0)
            raise DeviceError("no answer", cause="timeout")
        return Batch(group, self.clock.wall_ms(), [2.0] * len(group.names))

    async def tell(self, groups):
        self.groups = list(groups)
        self.news = asyncio.Queue()
        self.push(*self.greeting(groups))
        try:
            while (item := await self.news.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.order.append("closed")

    def driver(self):
        server = self

        class Driver:
            DeviceOptions = TagOptions = BaseModel

            def __init__(self, devices, *, clock, metrics):
                pass

            async def __aenter__(self):
                await server.enter()
                return self

            async def __aexit__(self, *_):
                server.order.append("left")

            async def read(self, group):
                return await server.read(group)

            def subscribe(self, groups):
                return server.tell(groups)

        if self.regroup is not None:
            Driver.regroup = lambda _self, device, groups: server.regroup(device, groups)
        return Driver


def group(device, *names, every=1.0, pushed=True, types=(), **keys):
    tags = [Tag(name=name, address="", every_s=every, **keys) for name in names]
    types = types or ["float64"] * len(tags)
    return ScanGroup.of(device, tags, types=types, every_s=every, plan=None, is_pushed=pushed)


A = Device(name="a", driver="x", url="")
B = Device(name="b", driver="x", url="")
C = Device(name="c", driver="x", url="")


@pytest.fixture
def server(virtual_clock):
    return Server(virtual_clock)


@pytest.fixture
def build(server, virtual_clock):
    def made(*rows, **more):
        found = SimpleNamespace(sent=[], states=[], metrics=Metrics(), image=Image())
        usual = {"sink": found.sent.append, "clock": virtual_clock, "dice": lambda: 1.0}
        found.line = Line(
            "plc",
            server.driver(),
            rows,
            **{"image": found.image, "on_state": found.states.append, "metrics": found.metrics, **usual, **more},
        )
        found.values = lambda: {f"{s.device}/{s.tag}": s.value for s in found.image.samples()}
        found.told = lambda: [(s.device, s.online, s.cause) for s in found.states]
        return found

    return made


def live(group, value, clock=None, *, time=WALL, **keys):
    return Batch(group, time, [value] * len(group.names), **keys)


# --- being told -----------------------------------------------------------------------------------------------------


def test_the_first_batch_makes_a_device_online_and_nothing_is_ever_polled(server, build, run_virtual, during):
    own = group(A, "t", "u")
    found = build((A, [own]))
    run_virtual(during(found.line, 7200, (10, lambda: server.push(live(own, 5.0)))))
    assert server.reads == []
    assert found.told() == [("a", True, "")]
    assert [list(batch.values) for batch in found.sent] == [[1.0, 1.0], [5.0, 5.0]]
    assert found.values() == {"a/t": 5.0, "a/u": 5.0}
    assert found.line.status().missed == 0
    assert server.connects == 1


def test_a_device_is_not_online_before_anything_of_it_came(server, build, run_virtual, during):
    of_a, of_b = group(A, "t"), group(B, "t")
    server.greeting = lambda groups: [live(of_a, 1.0)]
    found = build((A, [of_a]), (B, [of_b]))
    run_virtual(during(found.line, 100, (50, lambda: server.push(live(of_b, 2.0)))))
    assert found.told() == [("a", True, ""), ("b", True, "")]
    assert found.states[1].since - found.states[0].since == 50_000


def test_all_pushed_groups_of_a_line_are_subscribed_to_at_once(server, build, run_virtual, during):
    groups = [group(A, "t"), group(A, "u"), group(B, "t")]
    found = build((A, groups[:2]), (B, groups[2:]))
    run_virtual(during(found.line, 5))
    assert server.groups == groups


def test_polls_keep_their_grid_beside_what_is_told(server, build, run_virtual, during):
    told, asked = group(A, "t"), group(B, "p", pushed=False)
    found = build((A, [told]), (B, [asked]))
    pushes = [(2 + n * 0.7, lambda: server.push(live(told, 7.0))) for n in range(60)]
    run_virtual(during(found.line, 60, *pushes))
    times = [at for name, at in server.reads if name == "p"]
    assert {name for name, _ in server.reads} == {"p"}
    assert len(times) >= 60
    assert {round(b - a, 6) for a, b in pairwise(times)} == {1.0}
    assert found.line.status().missed == 0


def test_what_is_told_is_scaled_and_filtered_like_what_is_polled(server, build, run_virtual, during):
    own = group(A, "t", scale=0.1, on="change", deadband=Deadband(0.5))
    found = build((A, [own]))
    server.greeting = lambda groups: [live(own, 10)]
    pushes = [(n, lambda v=v: server.push(live(own, v))) for n, v in enumerate([12, 14, 16, 18, 20], 1)]
    run_virtual(during(found.line, 20, *pushes))
    assert [batch.values[0] for batch in found.sent] == [1.0, 1.6]
    assert found.values() == {"a/t": 2.0}, "the image knows the newest"


def test_somebody_in_a_hurry_for_a_tag_that_is_pushed_has_nothing_polled(server, build, run_virtual, during):
    found = build((A, [group(A, "t")]), (B, [group(B, "p", pushed=False, every=600.0)]))
    run_virtual(during(found.line, 100, (50, lambda: found.line.hurry("a", "t"))))
    assert [name for name, _ in server.reads] == ["p"]


def test_what_was_read_after_a_write_stands_in_the_image_until_the_tag_is_told_anew(server, build, run_virtual, during):
    own, asked = group(A, "t", "u", every=600.0, scale=0.5), group(B, "p", pushed=False, every=600.0)
    found = build((A, [own]), (B, [asked]))
    seen = []

    def write():
        for device, tag in (("a", "u"), ("a", "none"), ("b", "p")):
            found.line.show(device, tag, 8)
        seen.append(found.values())

    run_virtual(during(found.line, 100, (50, write), (60, lambda: server.push(live(own, 7.0)))))
    assert seen == [{"a/t": 0.5, "a/u": 4.0, "b/p": 2.0}], "what is polled is polled"
    assert [list(batch.values) for batch in found.sent if batch.group is own] == [[0.5, 0.5], [3.5, 3.5]], "it is shown"
    assert found.values()["a/u"] == 3.5


def test_what_was_read_does_not_make_good_what_is_lost(server, build, run_virtual, during):
    found = build((A, [group(A, "t")]))

    def lose():
        server.reachable = False
        server.push(GONE)

    seen = []

    def show():
        found.line.show("a", "t", 8)
        seen.append(found.values())

    run_virtual(during(found.line, 100, (50, lose), (60, show)))
    assert seen == [{"a/t": None}]


# --- how a connection ends ------------------------------------------------------------------------------------------


def test_a_line_that_is_lost_while_listening_ends_the_polls_and_is_entered_again(server, build, run_virtual, during):
    told, asked = group(A, "t"), group(B, "p", pushed=False)
    found = build((A, [told]), (B, [asked]))
    run_virtual(during(found.line, 30, (10.25, lambda: server.push(GONE))))
    assert server.order == ["entered", "closed", "left", "entered", "closed", "left"]
    told_of = found.told()
    assert [{*told_of[n : n + 2]} for n in (0, 2, 4)] == [
        {("a", True, ""), ("b", True, "")},
        {("a", False, "offline"), ("b", False, "offline")},
        {("a", True, ""), ("b", True, "")},
    ]
    assert len(told_of) == 6
    assert [b.group.device for b in found.sent if b.quality == bad("offline")] == ["a", "b"]
    gap = [at - START for _, at in server.reads if 9 < at - START < 13]
    assert all(at < 10.25 or at >= 11.25 for at in gap), "nobody is asked while there is no connection"


def test_a_line_that_is_lost_while_polling_ends_the_listening_before_it_is_left(server, build, run_virtual, during):
    told, asked = group(A, "t"), group(A, "p", pushed=False)
    found = build((A, [told, asked]))
    driver = found.line._driver
    usual = driver.read

    async def read(self, group):
        if len(server.reads) == 5:
            server.reads.append(("lost", 0))
            raise GONE
        return await usual(self, group)

    driver.read = read
    run_virtual(during(found.line, 30))
    assert server.order == ["entered", "closed", "left", "entered", "closed", "left"]
    assert found.told() == [("a", True, ""), ("a", False, "offline"), ("a", True, "")]


def test_after_a_loss_it_is_online_again_with_news_and_not_with_the_connection(server, build, run_virtual, during):
    own = group(A, "t")
    found = build((A, [own]))

    def lose():
        server.greeting = lambda groups: []
        server.push(GONE)

    run_virtual(during(found.line, 200, (10, lose), (100, lambda: server.push(live(own, 3.0)))))
    assert found.told() == [("a", True, ""), ("a", False, "offline"), ("a", True, "")]
    assert found.states[-1].since == WALL + 1_100_000


def test_a_line_that_only_breaks_is_not_hammered(server, build, run_virtual, during):
    own = group(A, "t")
    server.greeting = lambda groups: [GONE]
    found = build((A, [own]))
    run_virtual(during(found.line, 300))
    assert 5 <= server.connects <= 16


def test_a_line_that_told_something_is_entered_again_at_once_whenever_it_breaks(server, build, run_virtual, during):
    found = build((A, [group(A, "t")]))
    breaks = [(100 * n, lambda: server.push(GONE)) for n in range(1, 9)]
    run_virtual(during(found.line, 900, *breaks))
    gone = [state.since for state in found.states if not state.online]
    back = [state.since for state in found.states if state.online][1:]
    assert [b - a for a, b in zip(gone, back, strict=True)] == [1000] * 8


def test_stopping_closes_what_was_listened_to_and_is_no_outage(server, build, run_virtual, during):
    found = build((A, [group(A, "t"), group(A, "p", pushed=False)]))
    task = run_virtual(during(found.line, 10))
    assert task.cancelled()
    assert server.order == ["entered", "closed", "left"]
    assert found.told() == [("a", True, "")]
    assert all(batch.quality is GOOD for batch in found.sent)


def test_what_ends_without_a_word_is_a_lost_line(server, build, run_virtual, during):
    found = build((A, [group(A, "t")]))
    run_virtual(during(found.line, 30, (10, lambda: server.push(None))))
    assert server.connects == 2
    assert found.told() == [("a", True, ""), ("a", False, "offline"), ("a", True, "")]


def test_a_bug_in_what_is_told_goes_through_and_leaves_no_good_looking_values(server, build, run_virtual, during):
    found = build((A, [group(A, "t"), group(A, "p", pushed=False)]))
    task = run_virtual(during(found.line, 30, (10, lambda: server.push(KeyError("a bug")))))
    assert isinstance(task.exception(), KeyError)
    assert found.values() == {"a/t": None, "a/p": None}
    assert server.order == ["entered", "closed", "left"]


def test_news_of_a_group_that_nobody_asked_for_names_the_bug(server, build, run_virtual, during):
    found = build((A, [group(A, "t")]))
    stranger = group(B, *(f"n{n}" for n in range(1000)))
    task = run_virtual(during(found.line, 30, (10, lambda: server.push(live(stranger, 5.0)))))
    text = "the driver told of a group of device 'b' that it was not asked for: n0, n1, n2, n3, n4 and 995 more"
    assert str(task.exception()) == text
    assert found.values() == {"a/t": None}
    assert server.order == ["entered", "closed", "left"]


def test_an_iterator_that_cannot_be_closed_is_listened_to_as_well(server, build, run_virtual, during):
    own = group(A, "t")

    class Once:
        def __init__(self):
            self.left = [live(own, 4.0)]

        def __aiter__(self):
            return self

        async def __anext__(self):
            if not self.left:
                await asyncio.get_running_loop().create_future()
            return self.left.pop()

    found = build((A, [own]))
    found.line._driver.subscribe = lambda _self, _groups: Once()
    run_virtual(during(found.line, 30))
    assert found.values() == {"a/t": 4.0}


# --- the watchdog ---------------------------------------------------------------------------------------------------


def test_who_only_waits_for_news_does_not_hang(server, build, run_virtual, during, caplog):
    found = build((A, [group(A, "t")]))
    run_virtual(during(found.line, 100_000))
    assert server.connects == 1
    assert caplog.records == []
    assert found.line.status().busy == 0.0


def test_a_read_that_hangs_beside_the_listening_is_noticed_and_both_end(server, build, run_virtual, during, caplog):
    told, asked = group(A, "t"), group(A, "p", pushed=False)
    found = build((A, [told, asked]))
    run_virtual(
        during(
            found.line,
            400,
            (100, lambda: setattr(server, "hangs", True)),
            (150, lambda: setattr(server, "hangs", False)),
            (152, lambda: server.push(live(told, 9.0))),
        )
    )
    told_of = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert len(told_of) == 1
    assert "has not returned for" in told_of[0]
    assert server.connects == 2
    assert server.order == ["entered", "closed", "left", "entered", "closed", "left"]
    assert found.told() == [("a", True, ""), ("a", False, "timeout"), ("a", True, "")]
    assert any(batch.values[0] == 9.0 for batch in found.sent), "news came through while the read hung"


def test_a_driver_that_swallows_its_end_is_told_again_and_goes(server, build, run_virtual, during):
    told, asked = group(A, "t"), group(A, "p", pushed=False)
    found = build((A, [told, asked]))
    swallowed = []

    async def read(_self, group):
        try:
            await asyncio.sleep(5.0)
        except asyncio.CancelledError:
            swallowed.append(1)
            if len(swallowed) < 3:
                raise DeviceError("never mind", cause="timeout") from None
            raise
        return live(group, 1.0)

    found.line._driver.read = read
    task = run_virtual(during(found.line, 200, (12, lambda: server.push(GONE))))
    assert len(swallowed) >= 1
    assert server.connects == 2, "nothing of the first connection went on"
    assert task.cancelled()


def test_a_stop_while_the_rest_of_a_connection_ends_is_a_stop(server, build, run_virtual):
    told, asked = group(A, "t"), group(A, "p", pushed=False)
    found = build((A, [told, asked]))

    async def read(_self, group):
        try:
            await asyncio.sleep(5.0)
        except asyncio.CancelledError:
            await asyncio.sleep(3.0)
            raise
        return live(group, 1.0)

    found.line._driver.read = read

    async def scenario():
        task = asyncio.create_task(found.line.run())
        await asyncio.sleep(12)
        server.push(GONE)
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait([task])
        return task

    task = run_virtual(scenario())
    assert task.cancelled()
    assert server.order == ["entered", "closed", "left"]
    assert server.connects == 1


# --- devices that are told of and polled ----------------------------------------------------------------------------


def test_a_group_that_is_silent_does_not_take_with_it_what_is_told(server, build, run_virtual, during, caplog):
    caplog.set_level(logging.INFO, "headgate.line")
    told, asked = group(A, "t"), group(A, "p", pushed=False)
    found = build((A, [told, asked]))
    run_virtual(
        during(
            found.line,
            300,
            (50, lambda: setattr(server, "silent", True)),
            (100, lambda: server.push(live(told, 8.0))),
            (200, lambda: setattr(server, "silent", False)),
        )
    )
    assert found.told() == [("a", True, "")]
    assert [b.group.names for b in found.sent if b.quality == bad("timeout")] == [("p",)]
    assert found.values() == {"a/t": 8.0, "a/p": 2.0}
    text = "\n".join(r.getMessage() for r in caplog.records)
    assert text.count("does not answer for p") == 1
    assert text.count("answers again for p") == 1


def test_a_device_that_was_silent_when_asked_is_well_when_it_tells_something(server, build, run_virtual, during):
    told, asked = group(A, "t"), group(A, "p", pushed=False)
    server.greeting = lambda groups: []
    server.silent = True
    found = build((A, [told, asked]))

    def come():
        server.silent = False
        server.push(live(told, 6.0))

    run_virtual(during(found.line, 100, (25.5, come)))
    assert found.told() == [("a", False, "timeout"), ("a", True, "")]
    assert found.values() == {"a/t": 6.0, "a/p": 2.0}
    again = [at - START for _, at in server.reads if at - START > 25.4]
    assert again[0] == pytest.approx(25.5, abs=0.02), "all of it is asked again at once"


def test_a_probe_that_fails_when_the_device_has_told_something_meanwhile_takes_nothing_back(
    server, build, run_virtual, during, monkeypatch
):
    told, asked = group(A, "t"), group(A, "p", pushed=False)
    server.greeting = lambda groups: []
    server.silent = True
    found = build((A, [told, asked]))
    driver = found.line._driver
    began = []

    async def probe(_self, _device):
        began.append(server.clock.monotonic())
        if len(began) == 3:  # on its way while the news comes
            server.push(live(told, 6.0))
        await asyncio.sleep(1.0)
        raise DeviceError("no answer", cause="timeout")

    monkeypatch.setattr(driver, "probe", probe, raising=False)
    run_virtual(during(found.line, 100))
    assert len(began) == 3, "who tells something is not probed"
    assert found.told() == [("a", False, "timeout"), ("a", True, "")]
    assert found.values() == {"a/t": 6.0, "a/p": None}
    assert found.line.health()[0].cause == ""


def test_after_a_loss_a_device_that_is_silent_is_silent_until_it_tells_something(server, build, run_virtual, during):
    told, asked = group(A, "t"), group(A, "p", pushed=False)
    found = build((A, [told, asked]))

    def lose():
        server.greeting, server.silent = lambda groups: [], True
        server.push(GONE)

    run_virtual(during(found.line, 100, (50, lose)))
    assert found.line.health()[0].cause == "timeout"


# --- history --------------------------------------------------------------------------------------------------------


def test_history_goes_out_scaled_and_touches_nothing_else(server, build, run_virtual, during):
    own = group(A, "t", "u", scale=0.1, on="change")
    old = Batch(own, WALL - 5000, [50], GOOD, [1], [WALL - 5000], None, [WALL - 4000], is_history=True)
    server.greeting = lambda groups: [live(own, 10)]
    found = build((A, [own]))
    run_virtual(during(found.line, 30, (10, lambda: server.push(old, old)), (20, lambda: server.push(live(own, 10)))))
    assert [batch.is_history for batch in found.sent] == [False, True, True], "and what is as it was is no news"
    past = found.sent[1]
    assert (list(past.values), past.index, past.times, past.server_times) == ([5.0], [1], [WALL - 5000], [WALL - 4000])
    assert past.time == WALL - 5000
    assert found.values() == {"a/t": 1.0, "a/u": 1.0}


def test_history_alone_makes_nobody_online(server, build, run_virtual, during):
    own = group(A, "t")
    server.greeting = lambda groups: [live(own, 1.0, is_history=True)]
    found = build((A, [own]))
    run_virtual(during(found.line, 30, (20, lambda: server.push(live(own, 2.0)))))
    assert [batch.is_history for batch in found.sent] == [True, False]
    assert found.states[0].since == WALL + 1_020_000


def test_history_of_a_device_in_parts_is_dealt_with_all_it_has(server, build, run_virtual, during):
    pump = Device(name="pump", driver="x", url="", part_of="cabinet")
    cabinet = Device(name="cabinet", driver="x", url="", parts=(pump,))
    tags = [Tag(name="t", address="", part="pump", scale=2.0), Tag(name="t", address="")]
    own = ScanGroup.of(cabinet, tags, types=["float64"] * 2, every_s=1.0, plan=None, is_pushed=True)
    old = Batch(own, WALL, [1.0, 2.0], GOOD, None, [1, 2], None, [3, 4], is_history=True)
    server.greeting = lambda groups: [old]
    found = build((cabinet, [own]))
    run_virtual(during(found.line, 5))
    rows = [(b.group.device, *b.values, *b.times, *b.server_times, b.is_history) for b in found.sent]
    assert rows == [("cabinet", 2.0, 2, 4, True), ("pump", 2.0, 1, 3, True)]


def test_a_flood_of_history_lets_the_polls_have_their_turn(server, build, monkeypatch):
    """In real time: the driver hands out batches without ever waiting."""
    monkeypatch.setattr(news, "_BREATH_S", 0.0)
    told, asked = group(A, "t"), group(B, "p", pushed=False, every=0.01)
    server.clock = SystemClock()
    found = build((A, [told]), (B, [asked]), clock=server.clock, sink=lambda _batch: None)
    polled = asyncio.Event()

    async def read(_self, group):
        server.reads.append(group)
        if len(server.reads) == 5:
            polled.set()
        return live(group, 1.0)

    async def subscribe(_self, _groups):
        give_up_at = server.clock.monotonic() + 10
        while not polled.is_set() and server.clock.monotonic() < give_up_at:
            yield live(told, 1.0, is_history=True)
        await asyncio.get_running_loop().create_future()

    found.line._driver.read, found.line._driver.subscribe = read, subscribe

    async def scenario():
        task = asyncio.create_task(found.line.run())
        await asyncio.wait_for(polled.wait(), 5)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(scenario())


def test_history_waits_until_there_is_room_and_what_is_true_now_comes_behind_it(server, build, run_virtual, during):
    own = group(A, *(f"t{n}" for n in range(6000)))
    old, little = live(own, 1.0, is_history=True), Batch(own, WALL, [1.0], GOOD, [0], is_history=True)
    asked = []

    async def room():
        asked.append(len(found.sent))
        await asyncio.sleep(4.0)

    found = build((A, [own]), room=room)
    run_virtual(during(found.line, 30, (10, lambda: server.push(old, little, old, little, live(own, 2.0)))))
    assert asked == [2, 4], "what is little, or no history, asks for nothing"
    assert [batch.is_history for batch in found.sent] == [False, True, True, True, True, False]


def test_who_stops_while_history_waits_closes_what_was_listened_to_first(server, build, run_virtual, during):
    own = group(A, *(f"t{n}" for n in range(6000)))

    async def room():
        await asyncio.sleep(8.0)

    found = build((A, [own]), room=room)
    run_virtual(during(found.line, 15, (10, lambda: server.push(live(own, 1.0, is_history=True)))))
    assert server.order == ["entered", "closed", "left"]


def test_history_does_not_wait_for_ever_for_room(server, build, run_virtual, during):
    own = group(A, *(f"t{n}" for n in range(6000)))

    async def room():
        await asyncio.get_running_loop().create_future()

    found = build((A, [own]), room=room)
    run_virtual(during(found.line, 30, (10, lambda: server.push(live(own, 1.0, is_history=True), live(own, 2.0)))))
    assert found.values()["a/t0"] == 2.0


def test_where_there_is_no_room_at_all_what_is_true_now_waits_once_and_not_for_each_portion(
    server, build, run_virtual, during
):
    own = group(A, *(f"t{n}" for n in range(6000)))
    came = []

    async def room():
        if server.clock.monotonic() - START < 60:
            await asyncio.get_running_loop().create_future()
        await asyncio.sleep(4.0)

    found = build((A, [own]), room=room, sink=lambda batch: came.append((server.clock.monotonic() - START, batch)))
    old = live(own, 1.0, is_history=True)
    later = (90, lambda: server.push(*[old] * 3, live(own, 3.0)))
    run_virtual(during(found.line, 120, (10, lambda: server.push(*[old] * 30, live(own, 2.0))), later))
    at = {batch.values[0]: at for at, batch in came if not batch.is_history}
    assert 20 <= at[2.0] < 24
    assert at[3.0] > 101.9, "short waits in vain are not the end of all waiting"


# --- what was silent for too long -----------------------------------------------------------------------------------


def test_a_tag_that_is_silent_is_said_again_as_it_was(server, build, run_virtual, during):
    own = group(A, "t", "u", max_silence_s=60.0)
    first = Batch(own, WALL, [1.0, None], [GOOD, bad("BadSensorFailure")], None, [WALL - 7, WALL - 8], None, [5, 6])
    server.greeting = lambda groups: [first]
    found = build((A, [own]))
    run_virtual(during(found.line, 600))
    again = found.sent[1:]
    assert 10 <= len(again) <= 11, "each minute, up to a tenth early, and both tags together"
    for batch in again:
        assert (list(batch.index), list(batch.values)) == ([0, 1], [1.0, None])
        assert list(batch.quality) == [GOOD, bad("BadSensorFailure")]
        assert list(batch.times) == [WALL - 7, WALL - 8]
        assert list(batch.server_times) == [5, 6]
        assert not batch.is_history
    at = [WALL + 1_000_000, *(batch.time for batch in again)]
    assert all(54_000 <= b - a <= 60_000 for a, b in pairwise(at))
    assert found.told() == [("a", True, "")]


def test_only_what_was_silent_is_said_again(server, build, run_virtual, during):
    own = group(A, "t", "u", max_silence_s=60.0)
    found = build((A, [own]))
    pushes = [(5.0 * n, lambda: server.push(Batch(own, WALL, [3.0], GOOD, [0]))) for n in range(1, 60)]
    run_virtual(during(found.line, 300, *pushes))
    again = [batch for batch in found.sent[1:] if batch.index == [1]]
    assert 5 <= len(again) <= 6
    assert len(found.sent) == 1 + 59 + len(again)


def test_within_a_deadband_the_newest_value_is_said_again(server, build, run_virtual, during):
    own = group(A, "t", on="change", deadband=Deadband(10.0), max_silence_s=60.0)
    found = build((A, [own]))
    pushes = [
        (30, lambda: server.push(live(own, 4.0))),
        (70, lambda: server.push(live(own, 9.0))),
        (75, lambda: server.push(live(own, 11.5))),
    ]
    run_virtual(during(found.line, 100, *pushes))
    assert [batch.values[0] for batch in found.sent] == [1.0, 4.0], "11.5 is less than 10 away from 4"


def test_tags_that_were_silent_for_nearly_as_long_go_together(server, build, run_virtual, during):
    own = group(A, "t", "u", max_silence_s=60.0)
    found = build((A, [own]))
    run_virtual(during(found.line, 100, (3, lambda: server.push(Batch(own, WALL, [2.0], GOOD, [1])))))
    assert [batch.index for batch in found.sent] == [None, [1], [0, 1]]


def test_who_was_heard_of_meanwhile_is_not_said_again(server, build, run_virtual, during):
    own = group(A, "t", max_silence_s=60.0)
    found = build((A, [own]))
    run_virtual(during(found.line, 110, (40, lambda: server.push(live(own, 2.0)))))
    assert [list(batch.values) for batch in found.sent] == [[1.0], [2.0], [2.0]]
    assert 94_000 <= found.sent[2].time - WALL - 1_000_000 <= 100_000


def test_a_tag_without_max_silence_is_never_said_again(server, build, run_virtual, during):
    tags = [Tag(name="t", address=""), Tag(name="u", address="", max_silence_s=60.0)]
    own = ScanGroup.of(A, tags, types=["float64"] * 2, every_s=1.0, plan=None, is_pushed=True)
    found = build((A, [own]), (B, [group(B, "t")]))
    run_virtual(during(found.line, 1000))
    assert {(batch.group.device, tuple(batch.index or ())) for batch in found.sent[2:]} == {("a", (1,))}


def test_many_silent_groups_are_said_again_apart_and_the_polls_are_in_time(server, build, run_virtual, during):
    groups = [group(A, *(f"g{n}/t{i}" for i in range(20)), max_silence_s=60.0) for n in range(30)]
    found = build((A, [*groups, group(A, "p", pushed=False, every=0.5)]))
    run_virtual(during(found.line, 600))
    again = [batch for batch in found.sent if batch.index is not None]
    assert all(len(batch.index) == 20 for batch in again), "the tags of a group go together"
    assert 30 * 10 <= len(again) <= 30 * 11
    first = sorted(batch.time for batch in again)[:30]
    assert first[-1] - first[0] > 3000, "and the groups do not go all at once"
    assert found.line.status().missed == 0


def test_while_the_line_is_gone_what_is_lost_is_said_again_as_lost(server, build, run_virtual, during):
    own = group(A, "t", max_silence_s=60.0)
    found = build((A, [own]))

    def lose():
        server.reachable = False
        server.push(GONE)

    run_virtual(during(found.line, 600, (10, lose)))
    lost = [batch for batch in found.sent if batch.quality == bad("offline") or bad("offline") in batch.quality]
    assert 6 <= len(lost) <= 12
    assert found.told() == [("a", True, ""), ("a", False, "offline")]


# --- groups that are known only when there is a connection ----------------------------------------------------------


def test_groups_are_replaced_where_the_driver_knows_better(server, build, run_virtual, during):
    compiled, kept = group(A, "pumps"), group(B, "t")
    grown = group(A, "pumps/1", "pumps/2", types=["int16", "int16"])
    server.regroup = lambda device, groups: [grown] if device is A else groups
    found = build((A, [compiled]), (B, [kept]))
    assert set(found.values()) == {"a/pumps", "b/t"}
    run_virtual(during(found.line, 20))
    assert server.groups == [grown, kept]
    assert list(found.values().items()) == [("a/pumps/1", 1.0), ("a/pumps/2", 1.0), ("b/t", 1.0)], "in their places"
    assert found.told() == [("a", True, ""), ("b", True, "")]
    assert found.image.count("a") == 2


def test_tags_that_vanish_go_and_nobody_is_told_offline_for_it(server, build, run_virtual, during):
    compiled = group(A, "pumps", on="change")
    two, one = group(A, "pumps/1", "pumps/2", on="change"), group(A, "pumps/1", on="change")
    stays = group(A, "t", on="change")
    known = [two]
    server.regroup = lambda _device, _groups: [known[0], stays]
    found = build((A, [compiled, stays]))

    def lose():
        known[0] = one
        server.push(GONE)

    run_virtual(during(found.line, 60, (20, lose)))
    assert found.values() == {"a/pumps/1": 1.0, "a/t": 1.0}
    assert found.told() == [("a", True, ""), ("a", False, "offline"), ("a", True, "")]
    assert [s.group for s in found.line._roster.pushed] == [one, stays]


def test_who_rests_goes_on_resting_whatever_comes_and_goes_beside_it(server, build, run_virtual, during):
    """`p` is silent alone, for its device tells of itself; all of `b` is silent; `q` becomes `q2` after a loss."""
    told, rests = group(A, "t"), group(A, "p", pushed=False)
    sick, fine = group(B, "s", pushed=False), group(C, "q", pushed=False)
    new_fine, new_sick = group(C, "q2", pushed=False), group(B, "s2", pushed=False)
    beside = group(A, "n"), group(A, "n2")
    now = {"a": [told, rests, beside[0]], "b": [sick], "c": [fine]}
    server.regroup = lambda device, _groups: now[device.name]
    server.silent = {"p", "s", "s2"}
    found = build((A, now["a"]), (B, [sick]), (C, [fine]))

    def lose():
        now.update(a=[told, rests, beside[1]], b=[sick, new_sick], c=[new_fine])
        server.push(GONE)

    run_virtual(during(found.line, 400, (200.2, lose)))
    again = [(name, at - START) for name, at in server.reads if at - START > 201]
    for names in ({"p"}, {"s", "s2"}):
        times = [at for name, at in again if name in names]
        assert times[0] > 203, "not before its turn, and what is new of who is sick rests with it"
        assert 4 <= len(times) <= 8
    times = [at for name, at in again if name == "q2"]
    assert len(times) > 150
    assert {*found.told()[-2:]} == {("a", True, ""), ("c", True, "")}


def test_a_group_that_rested_and_is_there_no_more_is_never_asked_again(server, build, run_virtual, during):
    told, rests = group(A, "t"), group(A, "p", pushed=False)
    now = [told, rests]
    server.regroup = lambda _device, _groups: now
    server.silent = {"p"}
    found = build((A, [told, rests]))

    def lose():
        now[1] = group(A, "p2", pushed=False)
        server.push(GONE)

    run_virtual(during(found.line, 300, (100.2, lose)))
    assert {name for name, at in server.reads if at - START > 101} == {"p2"}
    assert found.line.health()[0].resting == 0


def test_the_watchdog_has_patience_with_what_groups_that_came_later_may_take(server, build, run_virtual, during):
    slow = Device(name="a", driver="x", url="", options=SimpleNamespace(timeout=60.0))
    tags = [Tag(name="p", address="")]
    one, many = (ScanGroup.of(slow, tags, types=["float64"], every_s=1.0, plan=None, requests=n) for n in (1, 10))
    server.regroup = lambda _device, _groups: [many]
    found = build((slow, [one]))

    async def read(_self, group):
        await asyncio.sleep(1500)
        return live(group, 1.0)

    found.line._driver.read = read
    run_virtual(during(found.line, 4000))
    assert server.connects == 1


def test_what_was_missed_is_counted_on_when_groups_change(server, build, run_virtual, during):
    one, other = group(A, "p", pushed=False), group(A, "q", pushed=False)
    now = [one]
    server.regroup = lambda _device, _groups: now
    found = build((A, [one]))
    driver = found.line._driver

    async def read(_self, group):
        if group is one and server.clock.monotonic() - START > 30:
            now[0] = other
            raise GONE
        await asyncio.sleep(3.0)
        return live(group, 1.0)

    driver.read = read
    counts = []
    run_virtual(
        during(
            found.line,
            100,
            (29, lambda: counts.append(found.line.status().missed)),
            (40, lambda: counts.append(found.line.status().missed)),
        )
    )
    counts.append(found.line.status().missed)
    assert 10 < counts[0] <= counts[1] < counts[2]
    by_device = sum(v for n, _, v in found.metrics if n == "device_missed_polls_total")
    assert by_device == counts[2]


def test_a_device_in_which_there_is_nothing_is_there_with_its_line(server, build, run_virtual, during):
    server.regroup = lambda device, groups: () if device is A else groups
    found = build((A, [group(A, "pumps")]), (B, [group(B, "t")]))
    run_virtual(during(found.line, 20))
    assert found.told() == [("a", True, ""), ("b", True, "")]
    assert found.values() == {"b/t": 1.0}


def test_a_device_that_was_sick_and_in_which_there_is_nothing_now_is_not_asked(server, build, run_virtual, during):
    asked, own = group(A, "pumps", pushed=False), group(B, "t")
    known = [[asked]]
    server.regroup = lambda device, groups: known[0] if device is A else groups
    server.silent = {"pumps"}
    found = build((A, [asked]), (B, [own]))

    def lose():
        known[0] = []
        server.push(GONE)

    task = run_virtual(during(found.line, 200, (50, lose)))
    assert task.cancelled(), "nothing went wrong"
    assert found.told()[-1][:2] == ("b", True)
    assert ("a", True, "") in found.told()
    assert found.line.health()[0].ask_again_s is None
    assert not [at for name, at in server.reads if at - START > 51]


def test_other_groups_are_told_once_and_the_same_not_at_all(server, build, run_virtual, during):
    grown, heard = group(A, "pumps/1"), []
    server.regroup = lambda device, groups: [grown] if device is A else groups
    found = build((A, [group(A, "pumps")]), (B, [group(B, "t")]), on_groups=heard.append)
    run_virtual(during(found.line, 60, (20, lambda: server.push(LineError("gone", cause="offline")))))
    assert heard == [[grown]]


def test_who_is_started_again_begins_with_the_groups_of_the_file(server, build, run_virtual):
    compiled = group(A, "pumps")
    asked = []

    def regroup(_device, groups):
        asked.append(list(groups))
        return [group(A, f"pumps/{len(asked)}")]

    server.regroup = regroup
    found = build((A, [compiled]))

    async def scenario():
        for _ in range(2):
            task = asyncio.create_task(found.line.run())
            await asyncio.sleep(5)
            server.push(KeyError("a bug"))
            await asyncio.wait([task])
            assert isinstance(task.exception(), KeyError)

    run_virtual(scenario())
    assert asked == [[compiled], [compiled]]
    assert set(found.values()) == {"a/pumps/2"}
