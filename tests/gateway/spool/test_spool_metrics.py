"""What the spool tells of itself: how full, for how long, how worn, how fast, and what was lost when."""

import asyncio
import errno
import logging
import random
from dataclasses import asdict

import orjson
import pytest

from gateway.clock import RELEASED_MS
from gateway.journal.frame import BLOCK
from gateway.journal.segment import Tally
from gateway.spool.cursor import Anchor, Mark, State, Wear
from gateway.spool.document import fitted
from gateway.spool.drops import Drops
from gateway.spool.losses import Loss
from gateway.spool.pace import Latency, Pace, WearMeter
from gateway.spool.record import Gap
from gateway.spool.status import summed

SLOTS = 131072
DAY_MS = 86_400_000


# --- pace -------------------------------------------------------------------------------------------------------------


def test_hours_left_follow_the_rate_of_the_last_ten_minutes_of_storing():
    pace = Pace()
    for second in range(1200):
        rate = 100 if second < 600 else 50
        pace.note(float(second), second * rate if second < 600 else 60_000 + (second - 600) * 50, second * rate)
    assert pace.hours_left(1200.0, 50 * 3600) == pytest.approx(1.0, rel=0.02)
    assert pace.hours_left(1200.0 + 400, 50 * 3600) is None, "nothing is stored any more"
    pace.note(5000.0, 90_000, 90_000)
    assert pace.hours_left(5001.0, 1) is None, "one commit is no rate"


def test_no_hours_are_told_while_what_is_stored_is_acknowledged_too():
    pace = Pace()
    for second in range(600):
        pace.note(float(second), second * 1000, 5000 + second % 10)
    assert pace.hours_left(600.0, 1 << 30) is None


def test_it_warns_at_70_and_90_percent_once_and_again_after_an_hour_of_calm(caplog):
    pace = Pace()
    for now, fill in enumerate((0.1, 0.69, 0.7, 0.75, 0.69, 0.71, 0.95, 0.85, 0.92, 0.5, 0.75)):
        pace.warn(float(now), fill, 12.34 if fill < 0.9 else None)
    assert [r.message for r in caplog.records] == [
        "the spool is 70 % full, which at the present rate lasts for 12.3 hours more",
        "the spool is 95 % full",
    ]
    pace.warn(5000.0, 0.1, None)
    pace.warn(5001.0, 0.8, None)
    assert len(caplog.records) == 3


def test_latency_is_a_bounded_sample():
    latency = Latency()
    assert latency.share(0.5) == 0
    for n in range(2000):
        latency.note(n / 1000)
    assert latency.longest == 1.999
    assert latency.share(0.5) == pytest.approx(1.744, abs=0.01)
    assert latency.share(0.99) == pytest.approx(1.994, abs=0.01)
    assert len(latency._recent) < 1000


class HandClock:
    boot_id = "x"

    def __init__(self, wall, state):
        self.wall, self.worth = wall, state

    def wall_ms(self):
        return self.wall

    def monotonic(self):
        return 0.0

    def state(self):
        return self.worth


def test_wear_adds_up_over_starts_and_days():
    tally, day = Tally(), RELEASED_MS // DAY_MS + 10
    clock = HandClock(day * DAY_MS + 5, "synced")
    meter = WearMeter(Wear(1000, 10, day - 1, 500, 5), tally, clock)
    tally.bytes_written.value, tally.flushes.value = 100, 2
    assert meter.read() == Wear(1100, 12, day, 100, 2)
    tally.bytes_written.value, tally.flushes.value = 150, 3
    assert meter.read() == Wear(1150, 13, day, 150, 3)
    clock.wall += DAY_MS
    assert meter.read() == Wear(1150, 13, day + 1, 0, 0)
    again = WearMeter(meter.read(), Tally(), clock)
    assert again.read() == meter.read()


def test_a_day_does_not_end_by_a_clock_that_shows_what_has_been():
    day = RELEASED_MS // DAY_MS + 10
    clock, tally = HandClock(5, "unsynced"), Tally()
    meter = WearMeter(Wear(0, 0, day, 7, 1), tally, clock)
    assert meter.read().day_bytes == 7, "1970"
    clock.wall = (day - 1) * DAY_MS
    assert meter.read().day == day
    clock.wall = (day + 1) * DAY_MS
    assert meter.read() == Wear(0, 0, day + 1, 0, 0), "plausible"
    clock.wall, clock.worth = day * DAY_MS, "synced"
    assert meter.read().day == day, "who is synchronised is right"


# --- drops ------------------------------------------------------------------------------------------------------------


def test_an_episode_is_one_line_at_the_start_one_in_ten_minutes_and_one_at_the_end(bench, caplog):
    now = [0.0]
    drops = Drops(bench.metrics, "alarm", lambda: now[0])
    for n in range(1, 1501):
        now[0] = float(n)
        drops.note(Gap(n, n, 1000 * n, 1000 * n, 1, "evicted"))
    drops.over("evicted")
    drops.over("evicted")
    drops.note(Gap(2000, 2000, 0, 0, 1, "evicted"))
    messages = [r.message for r in caplog.records]
    assert len(messages) == 5
    assert "1 record of class alarm, 1 to 1, from 1970-01-01T00:00:01Z" in messages[0]
    assert messages[1].startswith("evicted until now: 601 records of class alarm, 1 to 601")
    assert messages[3].startswith("evicted in all: 1500 records of class alarm, 1 to 1500")
    assert messages[4].endswith("given up before all uplinks had them")
    assert drops.counts["evicted"] == 1501
    assert drops.last == {"evicted": Gap(2000, 2000, 0, 0, 1, "evicted")}
    values = {name: value for name, labels, value in bench.metrics if labels == {"class": "alarm"}}
    assert values["spool_evicted_records_total"] == 1501


def test_times_that_no_calendar_has_do_no_harm(bench, caplog):
    Drops(bench.metrics, "data", lambda: 0.0).note(Gap(1, 1, -(1 << 62), 1 << 62, 1, "memory"))
    assert "4611686018427387904 ms" in caplog.text


# --- the document -----------------------------------------------------------------------------------------------------


def name(n):
    return (f"uplink-{n}-" + "".join(chr(97 + (n * k * 7919 + k * k) % 26) for k in range(1, 60)))[:64]


def state_of(cursors, *, islands=8, losses=4):
    marks, chance = [], random.Random(1)
    for n in range(cursors):
        gaps = tuple(
            Loss(
                f"abcdef-{k}",
                Gap(10**9 * k + n * 977, 10**9 * k + n * 977 + 5 * k, 10**12 + n * k, 10**12, 5, "memory"),
            )
            for k in range(1, losses + 1)
        )
        ranges = tuple((10**10 * (k + 1) + chance.randrange(10**9), 10**10 * (k + 2)) for k in range(islands))
        marks.append(Mark(name(n), holds=True, committed=n * 7919 + 10**6, losses=gaps, islands=ranges))
    anchors = tuple(Anchor(bytes(range(k, k + 16)), 10**12 + k) for k in range(32))
    return State(store=1, start=2, ceiling=3, marks=tuple(marks), anchors=anchors, wear=Wear(1, 2, 3, 4, 5))


def test_a_state_of_the_usual_size_is_stored_as_it_is():
    state = state_of(3)
    assert State.parse(fitted(state)) == state


def test_of_a_state_that_is_too_large_the_islands_go_first_and_then_losses_are_told_as_one():
    state = state_of(36, losses=1)
    found = State.parse(fitted(state))
    assert [m.islands for m in found.marks] == [()] * 36
    assert [m.losses for m in found.marks] == [m.losses for m in state.marks]
    state = state_of(64)
    found = State.parse(fitted(state))
    assert [len(m.losses) for m in found.marks] == [1] * 64
    for mark, old in zip(found.marks, state.marks, strict=True):
        gap = mark.losses[0].gap
        assert (mark.name, mark.committed) == (old.name, old.committed)
        assert (gap.first_seq, gap.last_seq) == (old.losses[0].gap.first_seq, old.losses[-1].gap.last_seq)
        assert gap.count == sum(loss.gap.count for loss in old.losses)
    assert found.anchors == state.anchors
    assert found.wear == state.wear


def test_times_away_are_never_made_one_with_what_was_lost():
    away = Loss("e", Gap(50, 60, 0, 0, 11, "overtaken"))
    lost = (Loss("e", Gap(1, 2, 0, 0, 2, "evicted")), Loss("e", Gap(80, 90, 0, 0, 11, "memory")))
    marks = [Mark(name(n), holds=True, committed=0, losses=(lost[0], away, lost[1])) for n in range(64)]
    state = State(store=1, start=1, ceiling=1, marks=tuple(marks))
    found = State.parse(fitted(state))
    assert {tuple(loss.gap.cause for loss in m.losses) for m in found.marks} <= {
        ("evicted", "overtaken"),
        ("evicted", "overtaken", "memory"),
    }
    assert all(away in m.losses for m in found.marks)


def test_a_state_of_64_cursors_with_everything_starts_and_saves(virtual_bench, run_virtual, make_disk):
    async def main():
        disk = make_disk()
        async with virtual_bench.opened(disk) as spool:
            for n in range(64):
                cursor = spool.cursor(name(n))
                cursor.losses = state_of(1).marks[0].losses
                cursor.islands[:] = [(10**6 + 10 * k, 10**6 + 10 * k + 5) for k in range(8)]
            for n in range(1, 51):
                spool.append(virtual_bench.batch(n))
                await asyncio.sleep(1)
            assert spool.status().state == "ok"
            await spool.durable()
        async with virtual_bench.opened(disk) as spool:
            assert len(spool.status().cursors) == 64
            assert spool.status().state == "ok"

    run_virtual(main())


# --- the status of a running spool ------------------------------------------------------------------------------------


def test_a_link_that_is_down_is_told_in_hours_bytes_and_flushes(virtual_bench, run_virtual, make_disk):
    bench = virtual_bench

    async def main():
        disk = make_disk()
        async with bench.opened(disk, max_bytes=80 * bench.segment_size + SLOTS, commit_interval_s=1.0) as spool:
            cursor = spool.cursor("cloud")
            assert spool.status().hours_left is None
            for n in range(1, 601):
                spool.append(bench.batch(n, size=1500))
                await asyncio.sleep(1.0)
            status = spool.status()
            per_second = BLOCK  # one frame a second
            left = 80 * bench.segment_size - 600 * per_second
            assert status.hours_left == pytest.approx(left / per_second / 3600, rel=0.1)
            assert status.fill == pytest.approx(600 * per_second / (80 * bench.segment_size), rel=0.05)
            (uplink,) = status.cursors
            assert uplink.lag_bytes == pytest.approx(600 * per_second, rel=0.02)
            assert uplink.sent == 0
            assert 500 < status.frames < 610
            assert status.bytes_today == status.bytes_total == status.bytes_written - _at_the_start(status)
            assert 600 < status.flushes_today <= status.flushes
            assert 4 < status.amplification < 10, "a block for each small commit, and zeros once for each segment"
            assert 0 <= status.commit_p50_s <= status.commit_p99_s <= status.commit_max_s < 1
            assert (status.acked, status.durable) == (0, status.durable)
            await bench.drain(spool, cursor, commit=False)
            (uplink,) = spool.status().cursors
            assert uplink.sent == 600
            assert uplink.lag_s > 0
            spool.commit(cursor, 300)
            (uplink,) = spool.status().cursors
            assert uplink.lag_bytes == pytest.approx(300 * per_second, rel=0.1)
            spool.commit(cursor, 600)
            assert spool.status().fill < 0.02
            assert spool.status().cursors[0].lag_bytes == 0
            orjson.dumps(asdict(summed([spool.status(), spool.status()])))
        total = status.bytes_total
        async with bench.opened(disk, max_bytes=80 * bench.segment_size + SLOTS) as spool:
            again = spool.status()
            assert again.bytes_total >= total
            assert again.bytes_total == again.bytes_today

    run_virtual(main())


def _at_the_start(status):
    """What opening writes before anybody counts: the slots, made anew."""
    return status.bytes_written - status.bytes_total


def test_hours_left_are_not_told_while_the_link_is_up(virtual_bench, run_virtual, make_disk):
    bench = virtual_bench

    async def main():
        async with bench.opened(make_disk(), commit_interval_s=1.0, persist="always") as spool:
            cursor = spool.cursor("cloud")
            for n in range(1, 301):
                spool.append(bench.batch(n, size=1500))
                await bench.drain(spool, cursor)
                await asyncio.sleep(1.0)
            assert spool.status().hours_left is None
            assert spool.status().frames > 250

    run_virtual(main())


def test_it_warns_when_it_fills(virtual_bench, run_virtual, make_disk, caplog):
    bench = virtual_bench

    async def main():
        limit = 20 * bench.segment_size + SLOTS
        async with bench.opened(make_disk(), max_bytes=limit, commit_interval_s=1.0) as spool:
            spool.cursor("cloud")
            for n in range(1, 400):
                spool.append(bench.batch(n, size=1500))
                await asyncio.sleep(1.0)

    caplog.set_level(logging.WARNING)
    run_virtual(main())
    warnings = [r.message for r in caplog.records if "% full" in r.message]
    assert [message.split(" %")[0] for message in warnings] == ["the spool is 70", "the spool is 90"]
    assert all("hours more" in message for message in warnings)


def test_a_disk_that_takes_no_writes_is_told_apart(virtual_bench, run_virtual, make_disk):
    bench = virtual_bench

    async def main():
        disk = make_disk()
        async with bench.opened(disk) as spool:
            spool.cursor("cloud")
            disk.fault = lambda what, name: OSError(errno.EROFS, "read-only") if what in ("pwrite", "create") else None
            spool.append(bench.batch(1))
            await asyncio.sleep(5)
            assert spool.status().state == "readonly"
            assert summed([spool.status()]).state == "readonly"
            disk.fault = lambda what, name: None
            await spool.durable()
            assert spool.status().state == "ok"

    run_virtual(main())


def test_damage_that_the_scrub_finds_in_what_nobody_has_read_is_told(virtual_bench, run_virtual, make_disk, caplog):
    bench = virtual_bench

    async def main():
        disk = make_disk()
        async with bench.opened(disk, ram_bytes=40_000) as spool:
            cursor = spool.cursor("cloud")
            for n in range(1, 201):
                spool.append(bench.batch(n, size=1500))
                await asyncio.sleep(0.1)
            await spool.durable()
            segments = spool._store.writer.segments
            for segment in segments[:2]:
                disk.names_now[segment.name].cache[200] ^= 1
            cut = segments[1].first.first_seq
            spool.commit(cursor, cut - 1)
            await bench.until(lambda: _pass_on(spool), "a pass of the scrub")
            status = spool.status()
            assert status.scrub.passes == 1
            assert status.corrupt == 2
            assert status.scrub_damaged == 2 * segments[0].first.count
            (lost,) = status.lost
            assert (lost.cause, lost.first_seq) == ("damaged", cut)
            found = bench.numbers(await bench.drain(spool, cursor))
            assert found[0][:2] == ("damaged", cut)

    run_virtual(main())
    assert len([r for r in caplog.records if "not all uplinks have them" in r.message]) == 1


def _pass_on(spool):
    """Let the scrub take its next step, without the minutes in between."""
    scrubber = spool._scrubber
    if scrubber._job is None and not spool.status().scrub.passes:
        scrubber._timer.cancel()
        scrubber._start()
    return spool.status().scrub.passes and scrubber._job is None
