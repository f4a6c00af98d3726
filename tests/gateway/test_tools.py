"""What tools ask of a running gateway, through the control socket's handlers."""

import asyncio
from contextlib import contextmanager

import pytest

from gateway.driver import Finding, Model, Patch, Survey
from gateway.errors import HeadgateError, LineError
from gateway.tools import _FORSAKEN_S, _MOST_KEPT, Tools, document, patch_of


class Device:
    """A driver that can be asked, and recorded."""

    SCHEMES = ("x",)

    def __init__(self):
        self.note = None
        self.asked = []

    async def discover(self, unit, *, patience_s=None, thorough=False):
        self.asked.append(("discover", unit, patience_s, thorough))
        if unit > 255:
            raise ValueError(f"unit {unit} is none. Units go from 0 to 255")
        return Finding(unit, "values", {"vendor": "v"}, (Model(1, "common", "holding:2", 66),)) if unit == 1 else None

    async def peek(self, unit, address, count):
        if address == "nowhere":
            raise ValueError("nowhere is no address. Use somewhere")
        return Patch(address, count, bytes(2 * count))

    async def survey(self, unit, area, *, requests):
        self.asked.append(("survey", area, requests))
        return Survey((Patch("holding:1", 1, b"\1\2"),), requests, "holding:5-9", "")

    def record(self, note):
        self.note = note
        if note is not None:
            note("# head")

    def bare(self):
        """What else a driver must have to be asked; a running gateway never asks for it."""

    settings = units = areas = decodings = rank = station = spell = bare


class Plain:
    """A driver that reads its tags and nothing else."""


@pytest.fixture
def device():
    return Device()


@pytest.fixture
def tools(device):
    lines = {"meter": device, "twin": device, "plain": Plain()}

    @contextmanager
    def borrow(name):
        if name == "gone":
            raise LineError("there is no connection now", cause="offline")
        if name not in lines:
            raise HeadgateError(f"there is no device '{name}'")
        yield lines[name]

    return Tools(borrow)


@pytest.fixture
def do(tools):
    async def ask(verb, **fields):
        return await tools.handlers[verb]({"do": verb, **fields})

    return ask


def test_a_finding_goes_over_the_socket_as_json(run_virtual, do, device):
    found = run_virtual(do("discover", device="meter", unit=1, patience_s=0.5, thorough=True))
    assert found["finding"]["models"] == ({"number": 1, "name": "common", "address": "holding:2", "length": 66},)
    assert device.asked == [("discover", 1, 0.5, True)]
    assert run_virtual(do("discover", device="meter", unit=2))["finding"] is None


def test_no_tool_makes_a_line_wait_longer_than_a_device_may(run_virtual, do, device):
    run_virtual(do("discover", device="meter", unit=1, patience_s=1e9))
    assert device.asked == [("discover", 1, 60.0, False)]


def test_patches_come_back_as_they_went(run_virtual, do):
    assert patch_of(document(Patch("holding:5", 2, b"\1\2\3\4"))) == Patch("holding:5", 2, b"\1\2\3\4")
    found = run_virtual(do("peek", device="meter", unit=1, address="holding:7", count=1))
    assert found["patch"] == {"address": "holding:7", "count": 1, "data": "0000"}
    found = run_virtual(do("survey", device="meter", unit=1, area="holding:1-9", requests=10))
    assert found["patches"] == [{"address": "holding:1", "count": 1, "data": "0102"}]
    assert (found["requests"], found["rest"], found["short"]) == (10, "holding:5-9", "")


def test_a_survey_is_never_longer_than_the_gateway_allows(run_virtual, do, device):
    run_virtual(do("survey", device="meter", unit=1, area="holding:1-9", requests=10**9))
    assert device.asked == [("survey", "holding:1-9", 2000)]


@pytest.mark.parametrize(
    ("verb", "fields", "words"),
    [
        ("discover", {"device": "meter"}, "'unit' must be a whole number"),
        ("discover", {"device": "meter", "unit": True}, "'unit' must be a whole number"),
        ("discover", {"device": "meter", "unit": 300}, "Units go from 0 to 255"),
        ("discover", {"unit": 1}, "'device' must be text"),
        ("discover", {"device": "pump", "unit": 1}, "no device 'pump'"),
        ("discover", {"device": "plain", "unit": 1}, "nothing|anything but its tags"),
        ("discover", {"device": "gone", "unit": 1}, "no connection now"),
        ("peek", {"device": "meter", "unit": 1, "address": "nowhere", "count": 1}, "Use somewhere"),
        ("record", {"device": "plain", "step": "start"}, "cannot record"),
        ("record", {"device": "meter", "step": "fetch"}, "not being recorded"),
    ],
)
def test_what_cannot_be_done_says_why(run_virtual, do, verb, fields, words):
    with pytest.raises(HeadgateError, match=words):
        run_virtual(do(verb, **fields))


def test_a_recording_is_fetched_piece_by_piece_and_stopped(run_virtual, do, device):
    async def scene():
        first = await do("record", device="meter", step="start")
        device.note("a")
        device.note("b")
        second = await do("record", device="meter", step="fetch")
        device.note("c")
        last = await do("record", device="meter", step="stop")
        return [answer["lines"] for answer in (first, second, last)]

    assert run_virtual(scene()) == [["# head"], ["a", "b"], ["c"]]
    assert device.note is None


def test_a_line_is_recorded_once_at_a_time(run_virtual, do):
    async def scene():
        await do("record", device="meter", step="start")
        for name in ("meter", "twin"):
            with pytest.raises(HeadgateError, match="being recorded already"):
                await do("record", device=name, step="start")
        await do("record", device="meter", step="stop")
        await do("record", device="twin", step="start")
        await do("record", device="twin", step="stop")

    run_virtual(scene())


def test_a_recording_that_nobody_fetches_ends_by_itself(run_virtual, do, device):
    async def scene():
        await do("record", device="meter", step="start")
        await asyncio.sleep(_FORSAKEN_S - 1)
        await do("record", device="meter", step="fetch")
        await asyncio.sleep(_FORSAKEN_S - 1)
        assert device.note is not None
        await asyncio.sleep(2)
        assert device.note is None
        await do("record", device="meter", step="start")
        await do("record", device="meter", step="stop")

    run_virtual(scene())


def test_a_recording_that_is_not_fetched_in_time_says_what_is_missing(run_virtual, do, device):
    async def scene():
        await do("record", device="meter", step="start")
        for _ in range(_MOST_KEPT // 1000 + 10):
            device.note("x" * 1000)
        return (await do("record", device="meter", step="stop"))["lines"]

    lines = run_virtual(scene())
    assert sum(map(len, lines)) < _MOST_KEPT + 200
    assert lines[-1].startswith("# ")
    assert "left out" in lines[-1]
