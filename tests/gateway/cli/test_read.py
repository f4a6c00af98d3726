"""`headgate read FILE` where no gateway runs: what is polled and what comes by itself, each tag once."""

import argparse
import asyncio
import json
from types import SimpleNamespace

import pytest
from pydantic import BaseModel

from gateway.cli import read
from gateway.driver import LineKey
from gateway.errors import LineError, RefusedError
from gateway.model import GOOD, Batch, Device, Quality, ScanGroup, Tag, bad

WALL = 1_795_330_000_000
PLC = Device(name="plc", driver="fake", url="x", tags=(Tag(name="flow", address="a"), Tag(name="pumps", address="*")))


def group(*names, pushed=True):
    tags = [Tag(name=name, address="") for name in names]
    types = ["float64"] * len(tags)
    return ScanGroup.of(PLC, tags, types=types, every_s=0.01, plan=None, is_pushed=pushed)


FLOW, PUMPS, GROWN = group("flow", pushed=False), group("pumps"), group("pumps/1/on", "pumps/2/on")


class Driver:
    """Polls `flow`; tells of the pumps, one after the other, after some news that is none."""

    DeviceOptions = TagOptions = BaseModel
    quality = GOOD
    is_there = True
    is_complete = True

    def __init__(self, devices, *, clock, metrics):
        pass

    async def __aenter__(self):
        if not self.is_there:
            raise LineError("connection refused", cause="offline")
        return self

    async def __aexit__(self, *_):
        pass

    async def read(self, group):
        return Batch(group, WALL, [1.5])

    def regroup(self, device, groups):
        return [GROWN if group is PUMPS else group for group in groups]

    async def subscribe(self, groups):
        yield Batch(GROWN, WALL - 9, [9.0, 9.0], is_history=True)
        yield Batch(GROWN, WALL, [1.0], self.quality, [0])
        await asyncio.sleep(0.02)
        if self.is_complete:
            yield Batch(GROWN, WALL, [2.0], GOOD, [1])
        await asyncio.get_running_loop().create_future()


@pytest.fixture
def driver(monkeypatch):
    kind = type("Driver", (Driver,), {})
    monkeypatch.setattr(read, "find", lambda _name: kind)
    return kind


@pytest.fixture
def ask(monkeypatch, tmp_path, capsys, driver):
    config = SimpleNamespace(
        lines={LineKey("x"): (PLC,)},
        groups={"plc": (FLOW, PUMPS)},
        devices=(PLC,),
        spool=SimpleNamespace(path=tmp_path),
    )
    monkeypatch.setattr(read, "load", lambda _path: config)

    def run(*words):
        parser = argparse.ArgumentParser()
        read.configure(parser)
        code = read.run(parser.parse_args(["gateway.yaml", *words, "--json"]))
        out, run.said = capsys.readouterr()
        return code, {row["tag"]: (row["value"], row["quality"]) for row in json.loads(out)}

    return run


def test_what_comes_by_itself_is_waited_for_and_shown_as_it_is_called_by_now(ask):
    code, found = ask()
    assert found == {"flow": (1.5, "good"), "pumps/1/on": (1.0, "good"), "pumps/2/on": (2.0, "good")}
    assert code == 0


@pytest.mark.parametrize(
    ("tag", "found"),
    [
        ("flow", {"flow"}),
        ("pumps", {"pumps/1/on", "pumps/2/on"}),
        ("pumps/2", {"pumps/2/on"}),
        ("pumps/1/on", {"pumps/1/on"}),
    ],
)
def test_a_tag_that_became_many_is_read_with_all_of_them_or_by_each_name(ask, tag, found):
    assert set(ask("plc", tag)[1]) == found


@pytest.mark.parametrize(("tag", "known"), [("pump", "flow, pumps"), ("pumps/3", "flow, pumps/1/on, pumps/2/on")])
def test_a_tag_that_is_not_there_is_refused_with_those_that_are(ask, tag, known):
    with pytest.raises(RefusedError, match=f"has no tag '{tag}'; it has: {known}"):
        ask("plc", tag)


def test_what_does_not_come_is_not_waited_for_for_ever(ask, driver, monkeypatch):
    monkeypatch.setattr(read, "_PATIENCE_S", 0.3)
    driver.is_complete = False
    code, found = ask()
    assert code == 1
    assert found["pumps/2/on"] == (None, bad("startup"))
    assert found["pumps/1/on"] == (1.0, "good")


def test_a_good_value_with_a_status_of_its_own_is_good(ask, driver):
    driver.quality = Quality("good:GoodClamped")
    code, found = ask()
    assert found["pumps/1/on"] == (1.0, "good:GoodClamped")
    assert code == 0


def test_a_device_that_cannot_be_reached_is_told_at_once(ask, driver):
    driver.is_there = False
    assert ask() == (1, {"flow": (None, "bad:offline"), "pumps": (None, "bad:offline")})
    assert ask.said == "connection refused\n", "why, and the cure, once"
