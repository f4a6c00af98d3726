import asyncio
import logging
import time

import pytest

from gateway.app import App
from gateway.config import from_mapping
from gateway.control import ControlError, ask
from gateway.model import Batch
from gateway.systemd import Notifier

DEAD = "tcp://127.0.0.1:1"


def config(tmp_path, **sections):
    devices = {"a": {"driver": "modbus", "url": DEAD, "tags": {"x": "holding:1"}}}
    return from_mapping({"gateway": "g", "devices": devices, **sections}, base=tmp_path)


def inside(app, *calls):
    """Run each call in a thread while the app runs; gives their results."""

    async def scenario():
        async with app:
            return [await asyncio.to_thread(call, app) for call in calls]

    return asyncio.run(scenario())


def test_status_tells_of_devices_uplinks_spool_and_tasks(tmp_path):
    file = config(tmp_path, uplinks={"u": {"url": "mqtt://127.0.0.1:1"}})
    (status,) = inside(App(file), lambda _: ask(file.spool.path, {"do": "status"}))
    assert [d["name"] for d in status["devices"]] == ["a"]
    assert [u["name"] for u in status["uplinks"]] == ["u"]
    assert [c["name"] for c in status["spool"]["cursors"]] == ["u"]
    assert {t["name"] for t in status["tasks"]} == {"watch", f"line {DEAD}", "uplink u"}


def test_integers_beyond_64_bits_can_be_read(tmp_path):
    file = config(tmp_path)

    def read(app):
        while "a" not in app.image.states:  # the device is found to be dead once, and then left alone for a while
            time.sleep(0.001)
        app.image.note(Batch(file.groups["a"][0], 1, [2**70]))
        return ask(file.spool.path, {"do": "read"})["samples"][0]["value"]

    assert inside(App(file), read) == [2**70]


@pytest.mark.parametrize("device", ["b", 7, [], {}])
def test_a_device_that_is_not_there_is_named(tmp_path, device):
    file = config(tmp_path)
    with pytest.raises(ControlError, match="there is no device"):
        inside(App(file), lambda _: ask(file.spool.path, {"do": "read", "device": device}))


def test_a_renamed_uplink_is_told_at_the_start(tmp_path, caplog):
    inside(App(config(tmp_path, uplinks={"old": {"url": "mqtt://127.0.0.1:1"}})))
    caplog.clear()
    inside(App(config(tmp_path, uplinks={"new": {"url": "mqtt://127.0.0.1:1"}})))
    told = [r.getMessage() for r in caplog.records if "has no such uplink" in r.getMessage()]
    assert len(told) == 1
    assert "'old'" in told[0]


def test_a_crash_in_one_line_is_contained(tmp_path, caplog, monkeypatch):
    from drivers.modbus.driver import Driver

    async def broken(_self, group):
        raise KeyError(group.device)

    async def connected(self):
        return self

    monkeypatch.setattr(Driver, "read", broken)
    monkeypatch.setattr(Driver, "__aenter__", connected)
    caplog.set_level(logging.INFO)
    file = config(tmp_path)

    def wait(app):
        while not any(health.crashes for health in app.supervisor.health.values()):
            time.sleep(0.001)

    async def scenario():
        async with App(file) as app:
            await asyncio.wait_for(asyncio.to_thread(wait, app), 10)
            return app.summary(), await asyncio.to_thread(ask, file.spool.path, {"do": "status"})

    summary, status = asyncio.run(scenario())
    assert summary == "0 of 1 devices online"
    assert [t["last_error"] for t in status["tasks"] if t["crashes"]] == ["KeyError: 'a'"]
    assert len([r for r in caplog.records if "crashed" in r.getMessage()]) == 1


def test_a_service_manager_hears_ready_once_all_stands(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(Notifier, "_send", lambda _self, message: said.append(message))
    inside(App(config(tmp_path), notifier=Notifier({})))
    assert said.index("READY=1") < said.index("STOPPING=1")
