import asyncio
import logging
from itertools import pairwise

import pytest
from pydantic import BaseModel

from gateway.acquisition.line import Line
from gateway.errors import DeviceError, LineError
from gateway.image import Image
from gateway.metrics import Metrics
from gateway.model import GOOD, Batch, Device, ScanGroup, Tag, bad


class Plant:
    """A scripted line: what answers, how long it takes, and what was asked when."""

    def __init__(self):
        self.silent = set()
        self.partial = set()
        self.connectable = True
        self.crash = False
        self.drops = False
        self.timeout = 1.0
        self.takes = 0.0
        self.reads = []
        self.connects = 0
        self.causes = []

    def connect(self):
        if not self.connectable:
            raise LineError("connection refused", cause="offline")
        if self.causes:
            cause = self.causes.pop(0)
            raise LineError(f"cure of {cause}", cause=cause)

    def driver(self, clock):
        plant = self

        class Driver:
            DeviceOptions = TagOptions = BaseModel

            def __init__(self, devices, *, clock, metrics):
                self.devices = devices

            async def __aenter__(self):
                plant.connects += 1
                plant.connect()
                return self

            async def __aexit__(self, *_):
                pass

            async def read(self, group):
                plant.reads.append((group.device, clock.monotonic()))
                if plant.crash:
                    raise KeyError("a bug")
                if plant.drops:
                    raise LineError("connection reset", cause="offline")
                if group.device in plant.silent:
                    await asyncio.sleep(plant.timeout)
                    partial = None
                    if group.device in plant.partial:
                        partial = Batch(group, clock.wall_ms(), [1.0], GOOD)
                    raise DeviceError("no answer within 1 s", cause="timeout", partial=partial)
                await asyncio.sleep(plant.takes)
                return Batch(group, clock.wall_ms(), [1.0] * len(group.names))

        return Driver


@pytest.fixture
def plant():
    return Plant()


@pytest.fixture
def sent():
    return []


@pytest.fixture
def states():
    return []


@pytest.fixture
def line(plant, sent, states, virtual_clock):
    def build(devices, every=1.0):
        rows = []
        for name in devices:
            device = Device(name=name, driver="x", url="")
            tags = [Tag(name="t", address="", every_s=every)]
            rows.append((device, [ScanGroup.of(device, tags, types=["float32"], every_s=every, plan=None)]))
        return Line(
            "plant",
            plant.driver(virtual_clock),
            rows,
            sink=sent.append,
            image=Image(),
            on_state=states.append,
            clock=virtual_clock,
            metrics=Metrics(),
            dice=lambda: 1.0,
        )

    return build


async def during(line, seconds, *later):
    """Run the line; call each function of `later` at its second."""
    task = asyncio.create_task(line.run())
    passed = 0.0
    for at, change in later:
        await asyncio.sleep(at - passed)
        passed = at
        change()
    await asyncio.sleep(seconds - passed)
    task.cancel()
    await asyncio.wait([task])
    return task


def reads_of(plant, device):
    return [t for d, t in plant.reads if d == device]


def test_a_device_is_read_on_its_grid_and_not_more_often(plant, line, sent, run_virtual):
    run_virtual(during(line(["a"], every=0.5), 60))
    assert 119 <= len(plant.reads) <= 120
    gaps = [round(b - a, 6) for a, b in pairwise(reads_of(plant, "a"))]
    assert set(gaps) == {0.5}
    assert len(sent) == len(plant.reads)


def test_a_slow_device_is_not_asked_faster_to_make_up_for_missed_polls(plant, line, run_virtual):
    plant.takes = 2.5
    run_virtual(during(line(["a"], every=1.0), 60))
    times = reads_of(plant, "a")
    assert all(b - a >= 2.5 for a, b in pairwise(times))
    assert 23 <= len(times) <= 24


def test_an_outage_is_logged_once_and_its_end_once(plant, line, sent, states, run_virtual, caplog):
    caplog.set_level(logging.INFO, "headgate.line")
    run_virtual(
        during(line(["a"]), 600, (100, lambda: plant.silent.add("a")), (400, lambda: plant.silent.discard("a")))
    )
    texts = [r.getMessage() for r in caplog.records]
    assert len([t for t in texts if "is offline (timeout)" in t]) == 1
    assert len([t for t in texts if "is online again after" in t]) == 1
    assert [(s.online, s.cause) for s in states] == [(True, ""), (False, "timeout"), (True, "")]
    bad_batches = [b for b in sent if b.quality == bad("timeout")]
    assert len(bad_batches) == 1
    assert list(bad_batches[0].values) == [None]


def test_a_device_that_returns_is_read_again_within_half_a_minute(plant, line, sent, run_virtual):
    run_virtual(
        during(line(["a"]), 4000, (100, lambda: plant.silent.add("a")), (3700, lambda: plant.silent.discard("a")))
    )
    first_good = min(t for t in reads_of(plant, "a") if t > 1000 + 3700)
    assert first_good - 4700 <= 31


def test_a_silent_device_costs_its_line_at_most_one_timeout_per_back_off(plant, line, run_virtual):
    plant.silent.add("dead")
    run_virtual(during(line(["dead", *"abc"], every=0.5), 300))
    dead = reads_of(plant, "dead")
    assert len(dead) <= 6 + 300 / 30  # 1, 2, 4, 8, 16, then each 30 s
    for device in "abc":
        times = reads_of(plant, device)
        assert len(times) >= 600 - 3 * len(dead)
        assert max(b - a for a, b in pairwise(times)) <= plant.timeout + 0.5 + 1e-6


def test_a_device_that_answers_in_part_stays_online_and_keeps_what_it_answered(plant, line, sent, states, run_virtual):
    plant.silent.add("a")
    plant.partial.add("a")
    run_virtual(during(line(["a"]), 100))
    assert [s.online for s in states] == [True]
    assert sent
    assert all(list(b.values) == [1.0] for b in sent)
    assert len(plant.reads) < 20  # what it leaves unanswered costs time, so it rests between


def test_a_line_that_cannot_be_reached_marks_all_its_devices_and_is_tried_again(plant, line, sent, states, run_virtual):
    plant.connectable = False

    def repair():
        plant.connectable = True

    run_virtual(during(line(["a", "b"]), 200, (100, repair)))
    assert 5 <= plant.connects <= 12
    assert {(s.device, s.online, s.cause) for s in states[:2]} == {("a", False, "offline"), ("b", False, "offline")}
    assert {s.device for s in states[2:]} == {"a", "b"}
    assert all(s.online for s in states[2:])
    assert [b.quality for b in sent[:2]] == [bad("offline")] * 2


def test_each_cause_of_an_outage_is_logged_once_with_its_cure(plant, line, states, run_virtual, caplog):
    caplog.set_level(logging.INFO, "headgate.line")
    plant.causes = ["untrusted", "denied", "untrusted", *(f"other {n}" for n in range(20))]
    run_virtual(during(line(["a"]), 2000))
    assert [s.online for s in states] == [False, True]
    *told, last = [r.getMessage() for r in caplog.records]
    assert told[0] == "device 'a' is offline (untrusted) on plant: cure of untrusted; asking again until it answers"
    assert told[1] == "device 'a' is offline still, but now (denied) on plant: cure of denied"
    assert len(told) == 8, "what goes from cause to cause does not fill the log"
    assert "online again" in last


def test_a_link_that_breaks_with_every_read_is_not_hammered(plant, line, run_virtual):
    plant.drops = True
    run_virtual(during(line(["a"], every=0.1), 300))
    assert plant.connects <= 16


def test_a_bug_in_a_driver_leaves_no_good_looking_values_behind(plant, line, sent, run_virtual):
    plant.crash = True
    task = run_virtual(during(line(["a"]), 10))
    assert isinstance(task.exception(), KeyError)
    assert sent[-1].quality == bad("offline")


def test_stopping_is_not_an_outage(plant, line, sent, states, run_virtual):
    run_virtual(during(line(["a"]), 10))
    assert all(s.online for s in states)
    assert all(b.quality is GOOD for b in sent)


def test_the_image_shows_the_latest_sample_with_its_quality(plant, line, run_virtual):
    it = line(["a"])
    plant.silent.add("a")
    run_virtual(during(it, 10))
    (sample,) = it._image.samples("a")
    assert (sample.value, sample.quality) == (None, bad("timeout"))


def test_a_tag_of_the_hour_is_read_again_soon_after_its_device_returned(plant, line, run_virtual):
    plant.silent.add("a")
    run_virtual(during(line(["a"], every=3600.0), 300, (100, lambda: plant.silent.discard("a"))))
    assert any(1100 <= t <= 1131 for t in reads_of(plant, "a"))
