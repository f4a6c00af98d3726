from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.checkup.machine import look, status_of
from gateway.control import Control, ControlError
from gateway.errors import Mistake
from gateway.model import Place


class Clock:
    boot_id = "boot"

    def __init__(self, state):
        self._state = state

    def wall_ms(self):
        return 0

    def monotonic(self):
        return 0.0

    def state(self):
        return self._state


def lines(*arguments, clock="synced"):
    return [f"{f.state} {f.thing}: {f.text}" for f in look(*arguments, Clock(clock))]


def asked(folder, handler):
    """What `status_of` says while a gateway answers on that folder."""

    async def run():
        async with Control(folder, {"status": handler}):
            with ThreadPoolExecutor(1) as pool:
                return await asyncio.get_running_loop().run_in_executor(pool, status_of, folder)

    return asyncio.run(run())


def test_a_clock_that_nobody_sets_is_a_warning():
    assert lines([], None) == ["ok clock: synchronised", "ok gateway: does not run"]
    assert lines([], None, clock="unsynced")[0].startswith("warning clock: the clock is not synchronised")


def test_what_the_file_warns_of_is_a_warning_with_place_and_cure():
    (finding,) = [f for f in look([Mistake(Place("g.yaml", 4, 7), "a. Do b. Or c")], None) if f.thing == "file"]
    assert (finding.state, finding.place, finding.text, finding.cure) == ("warning", "g.yaml:4:7", "a", "Do b. Or c")


def test_uplinks_of_the_running_gateway_say_whether_they_are_connected():
    uplinks = [
        {"name": "a", "connected": True, "server": "mqtt://h:1883", "last_error": ""},
        {"name": "b", "connected": False, "server": "", "last_error": "not authorized (0x87)"},
    ]
    assert lines([], {"uplinks": uplinks})[1:] == [
        "ok gateway: runs",
        "ok uplink a: the running gateway is connected to mqtt://h:1883",
        "wrong uplink b: the running gateway is not connected: not authorized (0x87)",
    ]
    assert lines([], {})[1:] == ["ok gateway: runs"]


def test_whether_a_gateway_runs_is_asked_of_its_socket(tmp_path):
    def refuse(_):
        raise ControlError("not now")

    assert status_of(tmp_path / "nothing") is None
    assert status_of(tmp_path) is None
    assert asked(tmp_path, lambda _: {"uplinks": []}) == {"uplinks": []}
    assert asked(tmp_path, refuse) == {}


@pytest.mark.parametrize("text", ["one sentence", "one sentence. "])
def test_a_warning_without_a_cure_stands_alone(text):
    (finding,) = [f for f in look([Mistake(Place("g.yaml", 1, 1), text)], None) if f.thing == "file"]
    assert (finding.text, finding.cure) == ("one sentence", "")
