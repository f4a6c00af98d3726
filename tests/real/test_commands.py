"""The commands as a person types them, against simulated devices and a real broker."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

HEADGATE = [sys.executable, "-m", "gateway"]


def headgate(*arguments, **options):
    return subprocess.run(
        [*HEADGATE, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60, **options
    )


def test_the_demo_shows_moving_values_within_five_seconds_and_leaves_nothing(tmp_path):
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    done = headgate("demo", "--seconds", "4.5", env=environ, cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr == ""
    tables = done.stdout.split("DEVICE")[1:]
    flows = {line.split()[2] for t in tables for line in t.splitlines() if line.startswith("boiler") and "good" in line}
    assert len(flows) >= 2
    assert any(line.startswith("conveyor") and "good" in line for line in tables[-1].splitlines()), "an OPC UA server"
    assert list(tmp_path.iterdir()) == []


def test_the_demo_says_how_to_listen_and_that_works(need, start, wait_for, tmp_path):
    need("mosquitto_sub")
    start(*HEADGATE, "demo", name="demo")
    log = tmp_path / "demo.log"
    wait_for(lambda: "mosquitto_sub" in log.read_text(), "the command to type", 10)
    line = next(line for line in log.read_text().splitlines() if "mosquitto_sub" in line)
    command = shlex.split(line[line.index("mosquitto_sub") :])
    done = subprocess.run([*command, "-C", "15", "-W", "20"], capture_output=True, text=True, check=True)
    heard = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert json.loads(heard["headgate/demo/status"]) == {"state": "online"}
    assert float(heard["headgate/demo/boiler/flow"]) > 0
    assert json.loads(heard["headgate/demo/boiler/status"]) == {"state": "online"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_ends_in_order_when_told_to(start, wait_for, tmp_path, number):
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    process = start(*HEADGATE, "demo", name="demo", env=environ)
    wait_for(lambda: "good" in (tmp_path / "demo.log").read_text(), "values", 10)
    process.send_signal(number)
    assert process.wait(5) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["demo.log"]


@pytest.fixture
def broker(need, start, free_port, listening, wait_for, tmp_path):
    need("mosquitto", "mosquitto_sub")
    port = free_port()
    file = tmp_path / "mosquitto.conf"
    file.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    start("/usr/sbin/mosquitto", "-c", str(file), name="mosquitto")
    wait_for(lambda: listening(port), "mosquitto to listen")
    return port


def test_the_demo_publishes_to_a_broker_that_is_named(start, broker):
    process = start(*HEADGATE, "demo", "--uplink", f"mqtt://127.0.0.1:{broker}", name="demo")
    done = subprocess.run(
        ["mosquitto_sub", "-p", str(broker), "-t", "headgate/demo/#", "-v", "-C", "8", "-W", "20"],
        capture_output=True,
        text=True,
        check=True,
    )
    topics = {line.split(" ", 1)[0]: json.loads(line.split(" ", 1)[1]) for line in done.stdout.splitlines()}
    assert {"headgate/demo/boiler", "headgate/demo/status", "headgate/demo/boiler/status"} <= set(topics)
    assert topics["headgate/demo/status"] == {"state": "online"}
    assert topics["headgate/demo/boiler"]["values"]["flow"] is not None
    process.send_signal(signal.SIGINT)
    assert process.wait(5) == 0


@pytest.fixture
def plant(start, wait_for, tmp_path):
    """A gateway file that reads two simulated devices of three tags."""
    start(sys.executable, "-m", "gateway.cli.plant", "2", "3", "200ms", name="plant", stdin=subprocess.PIPE)
    log = tmp_path / "plant.log"
    wait_for(lambda: log.read_text().endswith("\n"), "the simulated devices", 60)
    file = tmp_path / "plant.yaml"
    file.write_text(f"gateway: plant\ndevices: {log.read_text()}")
    return file


def test_read_asks_the_devices_where_no_gateway_runs(plant):
    done = headgate("read", "--json", plant)
    assert done.returncode == 0, done.stderr
    samples = json.loads(done.stdout)
    assert [(s["device"], s["tag"]) for s in samples] == [(f"d00{d}", f"t00{t}") for d in range(2) for t in range(3)]
    assert all(s["quality"] == "good" and isinstance(s["value"], float) for s in samples)
    assert not (plant.parent / "headgate-data").exists()


def test_read_asks_the_gateway_where_one_runs(plant, start, wait_for):
    process = start(*HEADGATE, "run", str(plant), name="headgate")
    wait_for(lambda: headgate("status", plant).returncode == 0, "the gateway", 60)
    wait_for(lambda: headgate("read", plant).returncode == 0, "good values", 20)
    one = headgate("read", "--json", plant, "d001", "t002")
    assert [(s["device"], s["tag"]) for s in json.loads(one.stdout)] == [("d001", "t002")]
    table = headgate("read", plant, "d000").stdout
    assert table.count("good") == 3
    status = headgate("status", plant).stdout
    assert "device d000: online, 3 tags, 0 bad" in status
    assert "spool: ok" in status
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert headgate("status", plant).returncode == 1


def test_read_says_what_is_not_there(plant):
    assert "there is no device 'x'; the file has: d000, d001" in headgate("read", plant, "x").stderr
    assert "device 'd000' has no tag 'x'; it has: t000, t001, t002" in headgate("read", plant, "d000", "x").stderr


def test_read_of_a_dead_device_says_why_and_exits_with_1(tmp_path, free_port):
    file = tmp_path / "plant.yaml"
    url = f"tcp://127.0.0.1:{free_port()}"
    file.write_text(f"gateway: p\ndevices: {{a: {{driver: modbus, url: '{url}', tags: {{x: holding:1}}}}}}\n")
    done = headgate("read", file)
    assert done.returncode == 1
    assert "bad:offline" in done.stdout


def test_the_bench_measures_the_whole_chain(need):
    need("mosquitto")
    done = headgate("bench", "--devices", "5", "--tags", "10", "--seconds", "2", "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert 400 < figures["values_per_s"] < 600
    assert figures["messages_received"] > 80
    assert 0 < figures["cpu_s_per_million_values"] < 1000
    assert figures["peak_bytes"] > figures["resident_bytes"] * 0.9 > 10e6


def test_the_service_unit_is_sound_and_well_confined(need):
    need("systemd-analyze")
    unit = Path(__file__).parents[2] / "systemd" / "headgate.service"
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-300:]
    verify = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    complaints = [line for line in verify.stderr.splitlines() if "is not executable" not in line]
    assert complaints == []


def test_the_service_tells_its_manager_all_it_wants_to_hear(plant, start, wait_for, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        environ = {
            **os.environ,
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "WATCHDOG_USEC": "1500000",
            "JOURNAL_STREAM": "8:1",
        }
        process = start(*HEADGATE, "run", str(plant), name="headgate", env=environ)
        heard = []
        while b"STATUS=2 of 2 devices online" not in heard or heard.count(b"WATCHDOG=1") < 3:
            heard.append(manager.recv(1000))
        before = time.monotonic()
        process.send_signal(signal.SIGTERM)
        while heard[-1] != b"STOPPING=1":
            heard.append(manager.recv(1000))
        assert process.wait(10) == 0
        assert time.monotonic() - before < 5
    assert b"READY=1" in heard
    log = (tmp_path / "headgate.log").read_text()
    assert all(line.startswith("<") for line in log.splitlines())
    assert "<6>headgate.line: device 'd000' is online" in log


def test_a_reload_asked_for_while_the_gateway_starts_does_not_end_it(start, wait_for, tmp_path):
    file = tmp_path / "gateway.yaml"
    file.write_text(f"gateway: hub\nspool: {{path: {tmp_path}/spool}}\nbroker: {{listen: 'mqtt://127.0.0.1:0'}}\n")
    process = start(*HEADGATE, "run", str(file), name="gateway")
    log = tmp_path / "gateway.log"
    of_process = Path(f"/proc/{process.pid}/status")

    def is_deaf():
        ignored = next(line for line in of_process.read_text().splitlines() if line.startswith("SigIgn"))
        return int(ignored.split()[1], 16) & 1 << signal.SIGHUP - 1

    while (
        not is_deaf()
    ):  # before it reads its file; a gateway that runs listens, and one that begins must not die of it
        assert log.read_text() == ""
    process.send_signal(signal.SIGHUP)
    wait_for(lambda: "runs 'hub'" in log.read_text() or process.poll() is not None, "the start")
    for _ in range(100):
        process.send_signal(signal.SIGHUP)
    wait_for(lambda: "read anew" in log.read_text() or process.poll() is not None, "the reload")
    process.terminate()
    assert process.wait(5) == 0
