import asyncio
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from gateway import app as composition
from gateway.app import App
from gateway.config import from_mapping
from gateway.control import ControlError, ask
from gateway.model import Batch, ScanGroup, Tag
from gateway.spool.spool import Spool
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
    assert {t["name"] for t in status["tasks"]} == {"watch", "lessons", "commands", f"line {DEAD}", "uplink u"}


def test_a_broker_is_told_of_with_its_figures(tmp_path):
    file = config(tmp_path, broker={"listen": "mqtt://127.0.0.1:0"})
    (status,) = inside(App(file), lambda _: ask(file.spool.path, {"do": "status"}))
    assert status["broker"]["listen"][0].startswith("mqtt://127.0.0.1:")
    assert status["broker"]["missing"] == []
    assert status["broker"]["figures"]["clients_connected"] == 0
    assert {t["name"] for t in status["tasks"]} >= {"broker listeners"}


def test_a_port_that_is_taken_costs_the_broker_and_nothing_else(tmp_path, caplog):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = f"mqtt://127.0.0.1:{other.getsockname()[1]}"
        file = config(tmp_path, broker={"listen": [taken, "mqtt://127.0.0.1:0"]})
        (status,) = inside(App(file), lambda _: ask(file.spool.path, {"do": "status"}))
    assert status["broker"]["missing"] == [taken]
    assert len(status["broker"]["listen"]) == 1
    assert [r.getMessage() for r in caplog.records if "cannot listen" in r.getMessage()]


def test_a_confined_process_that_may_not_have_more_files_runs_all_the_same(caplog, monkeypatch):
    def denied(*_):
        raise PermissionError

    monkeypatch.setattr(composition.resource, "getrlimit", lambda _: (64, 9999))
    monkeypatch.setattr(composition.resource, "setrlimit", denied)
    composition._allow_files(5000)
    assert "the system allows 64 open files, limits.connections asks for 5100" in caplog.text


def test_values_are_live_on_the_broker_and_its_status_is_retained(tmp_path):
    file = config(tmp_path, broker={"listen": "mqtt://127.0.0.1:0"})
    heard = []

    def listen(app):
        app.broker.door("ear").subscribe("headgate/g/#", lambda m: heard.append((m.topic, m.payload, m.retain)))
        app._sink(Batch(file.groups["a"][0], 1, [7]))

    async def scenario():
        async with App(file) as app:
            listen(app)

    asyncio.run(scenario())
    assert [m for m in heard if m[0] == "headgate/g/a" and b'"values":{"x":7}' in m[1]]
    assert heard[-1] == ("headgate/g/status", b'{"state":"stopped"}', True)


def test_reload_reads_users_anew_and_a_broken_file_changes_nothing(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    users = tmp_path / "users"
    users.write_text("")
    file = config(tmp_path, broker={"listen": "mqtt://127.0.0.1:0", "users": "users"})

    async def scenario():
        async with App(file) as app:
            users.write_text("nonsense:plain")
            await app.reload()
            users.write_text("")
            await app.reload()

    asyncio.run(scenario())
    told = [r.getMessage() for r in caplog.records if "read anew" in r.getMessage()]
    assert len(told) == 2
    assert told[0].startswith("not read anew")
    assert "users:1" in told[0]


def test_a_disk_that_does_not_answer_does_not_hold_up_the_stop(tmp_path, caplog):
    file = config(tmp_path, broker={"listen": "mqtt://127.0.0.1:0"})
    answer = threading.Event()

    async def scenario():
        async with asyncio.timeout(5):
            async with App(file) as app:
                app.broker._writing.submit(answer.wait)
                app.broker._broker._store.unretain("a")
                app.broker._broker._store.flush()

    try:
        asyncio.run(scenario())
    finally:
        answer.set()
    told = [text for text in caplog.messages if "the disk does not answer" in text]
    assert [text.split(" could")[0] for text in told] == ["the broker's store", "the spool"]


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
    file = config(tmp_path, uplinks={"new": {"url": "mqtt://127.0.0.1:1"}})
    (status,) = inside(App(file), lambda _: ask(file.spool.path, {"do": "status"}))
    told = [r.getMessage() for r in caplog.records if "has no such uplink" in r.getMessage()]
    assert len(told) == 1
    assert "'old'" in told[0]
    assert {c["name"]: c["retired"] for c in status["spool"]["cursors"]} == {"old": True, "new": False}


def test_an_uplink_tells_what_it_has_to_catch_up_on(tmp_path):
    file = config(tmp_path, uplinks={"u": {"url": "mqtt://127.0.0.1:1"}})
    (status,) = inside(App(file), lambda _: ask(file.spool.path, {"do": "status"}))
    (uplink,) = status["uplinks"]
    assert uplink["backlog_records"] >= 0
    assert (uplink["replay_rate"], uplink["done_at"], uplink["replay"]) == (0.0, None, None)


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


class Pupil:
    """A driver that counts its runs, and nothing else."""

    def __init__(self, devices, *, clock, metrics):
        self.runs = 0

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self.runs += 1

    async def read(self, group):
        return Batch(group, 1, [7])

    def lessons(self):
        return {"runs": self.runs}

    def recall(self, lessons):
        self.runs = lessons["runs"]


def test_what_a_driver_learned_is_there_after_a_restart(tmp_path, monkeypatch):
    monkeypatch.setattr(composition, "find", lambda _: Pupil)
    file = config(tmp_path)
    for run in (1, 2, 3):
        inside(App(file), lambda app: wait_until(lambda: app.image.states))
        stored = json.loads((file.spool.path / "learned.json").read_bytes())
        assert stored == {"version": 1, "lines": {DEAD: {"runs": run}}}


class Herald(Pupil):
    """Knows when it is connected that there are 6,000 tags, and tells of them, of an hour ago first."""

    def regroup(self, device, groups):
        tags = [Tag(name=f"x/{n}", address="") for n in range(6000)]
        return [ScanGroup.of(device, tags, types=["float64"] * 6000, every_s=1.0, plan=None, is_pushed=True)]

    async def subscribe(self, groups):
        now = round(time.time() * 1000)
        yield Batch(groups[0], now - 3_600_000, [1.0] * 6000, is_history=True)
        yield Batch(groups[0], now, [2.0] * 6000)
        await asyncio.get_running_loop().create_future()


def test_what_a_driver_tells_by_itself_is_there_and_its_history_asks_for_room(tmp_path, monkeypatch):
    asked, room = [], Spool.room

    async def counted(self):
        asked.append(self)
        await room(self)

    monkeypatch.setattr(Spool, "room", counted)
    monkeypatch.setattr(composition, "find", lambda _: Herald)
    file = config(tmp_path)

    def look(app):
        wait_until(lambda: app.image.states)
        return [ask(file.spool.path, {"do": verb}) for verb in ("status", "read")]

    ((status, read),) = inside(App(file), look)
    (device,) = status["devices"]
    assert (device["state"], device["tags"], device["bad"]) == ("online", 6000, 0)
    assert {sample["value"] for sample in read["samples"]} == {2.0}
    assert len(asked) == 1


def wait_until(claim):
    deadline = time.monotonic() + 10
    while not claim():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_status_says_of_a_dead_device_since_when_and_of_its_line_how_busy_it_is(tmp_path):
    file = config(tmp_path)

    def look(app):
        wait_until(lambda: app.image.states)
        return ask(file.spool.path, {"do": "status"})

    (status,) = inside(App(file), look)
    (device,) = status["devices"]
    assert (device["state"], device["cause"], device["resting"]) == ("offline", "offline", 0)
    assert "refused" in device["text"]
    assert device["since"] > 0
    assert device["ask_again_s"] is None  # it is the line that is gone
    (line,) = status["lines"]
    assert (line["name"], line["connected"]) == (DEAD, False)
    assert 0 <= line["sick"] <= line["busy"] <= 1


def test_a_file_with_tcp_devices_alone_imports_no_serial_line_tool_or_broker():
    """They would cost 3 MB of the memory of a small machine."""
    script = (
        "import sys, gateway.app; from drivers.modbus.driver import Driver; from gateway.model import Device;"
        "from gateway.clock import SystemClock; from gateway.metrics import Metrics;"
        "options = Driver.DeviceOptions();"
        "device = Device(name='boiler', driver='modbus', url='tcp://127.0.0.1', options=options);"
        "Driver([device], clock=SystemClock(), metrics=Metrics());"
        "needless = ('drivers.port', 'drivers.modbus.lines.bus', 'drivers.modbus.frames.rtu', 'serial', 'ctypes',"
        " 'drivers.modbus.tools.probing', 'drivers.modbus.tools.decodings', 'gateway.broker.session');"
        "print([m for m in needless if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == "[]"
