"""The embedded broker beside mosquitto in alternating runs, under a load generator in C that is not the bottleneck.

python -m pytest -m bench tests/bench/test_broker_bench.py -s
"""

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import pytest

RUNS = 5
HERE = Path(__file__).parent

# name: (publishers, subscribers, QoS, payload, messages, window, rate, least deliveries/s, least ratio to mosquitto)
DENSE = {
    "10 to 1, QoS 0": (10, 1, 0, 64, 400_000, 5_000, 0, 200_000, 1.2),
    "10 to 1, QoS 1": (10, 1, 1, 64, 200_000, 100, 0, 100_000, 1.2),
    "10 to 1, QoS 2": (10, 1, 2, 64, 60_000, 20, 0, 50_000, 1.2),
    "1 to 100, QoS 0": (1, 100, 0, 64, 10_000, 500, 0, 500_000, 1.2),
}
SPARSE = (50, 1, 1, 64, 60_000, 1, 0)
CALM = (1, 1, 0, 64, 5_000, 100, 1_000)


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """`load(port, *numbers)` runs the generator and gives its figures."""
    program = tmp_path_factory.mktemp("load") / "mqtt_load"
    subprocess.run(["gcc", "-O2", "-o", str(program), str(HERE / "mqtt_load.c")], check=True)

    def run(port, *numbers):
        command = [str(program), str(port), *map(str, numbers)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


class Server:
    """One broker in a process of its own."""

    def __init__(self, name, command, port):
        self.name, self.port = name, port
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.05)
        raise TimeoutError(name)

    def cpu_s(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(10)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture
def servers(tmp_path):
    """`servers("mosquitto", "asyncio", "uvloop")`: those brokers, running."""
    running = []

    def start(*names):
        for name in names:
            port = free_port()
            if name == "mosquitto":
                program = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin")
                assert program, "mosquitto is not installed"
                file = tmp_path / "mosquitto.conf"
                lines = ["allow_anonymous true", "set_tcp_nodelay true", "max_queued_messages 0"]
                file.write_text("\n".join([f"listener {port} 127.0.0.1", *lines]) + "\n")
                command = [program, "-c", str(file)]
            else:
                file = tmp_path / f"{name}.yaml"
                limits = "limits: {queue_messages: 1000000, queue_bytes: 1GiB, total_queue_bytes: 1GiB}"
                file.write_text(
                    f"gateway: g\nspool: {{path: {tmp_path}/{name}}}\n"
                    f"broker: {{listen: 'mqtt://127.0.0.1:{port}', {limits}}}\n"
                )
                command = [sys.executable, str(HERE / "broker_process.py"), str(file), name]
            running.append(Server(name, command, port))
        return running

    yield start
    for server in running:
        server.stop()


def compare(load, servers, numbers):
    """Runs in turn; per server the medians of deliveries/s and of CPU s per million deliveries."""
    rows = {server.name: [] for server in servers}
    for server in servers:
        load(server.port, *numbers[:4], *[64, max(100, numbers[4] // 20)], *numbers[5:7])
    for _ in range(RUNS):
        for server in servers:
            before = server.cpu_s()
            said = load(server.port, *numbers[:7])
            assert said["delivered"] == numbers[4] * numbers[1], said
            cpu = (server.cpu_s() - before) / said["delivered"] * 1e6
            rows[server.name].append((said["delivered"] / said["seconds"], cpu, said["p50_us"], said["p99_us"]))
    found = {name: tuple(median(column) for column in zip(*row, strict=True)) for name, row in rows.items()}
    ratios = {
        name: median(a[0] / b[0] for a, b in zip(row, rows["mosquitto"], strict=True)) for name, row in rows.items()
    }
    for name, (rate, cpu, p50, p99) in found.items():
        print(
            f"  {name:10} {rate:10,.0f}/s  {ratios[name]:5.2f} x mosquitto  {cpu:6.2f} CPU s/million"
            f"  p50 {p50:.0f} us  p99 {p99:.0f} us"
        )
    return found, ratios


@pytest.mark.bench
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", DENSE)
def test_dense_traffic_is_faster_than_through_mosquitto(load, servers, name):
    *numbers, least, factor = DENSE[name]
    print(f"\n{name}")
    found, ratios = compare(load, servers("mosquitto", "asyncio", "uvloop"), numbers)
    assert found["asyncio"][0] >= least
    assert ratios["asyncio"] >= factor


@pytest.mark.bench
@pytest.mark.timeout(900)
def test_sparse_traffic_stays_near_mosquitto(load, servers):
    print("\n50 to 1, QoS 1, one message in flight each")
    _, ratios = compare(load, servers("mosquitto", "asyncio", "uvloop"), SPARSE)
    assert ratios["asyncio"] >= 0.25
    assert ratios["uvloop"] >= 0.6


@pytest.mark.bench
@pytest.mark.timeout(900)
@pytest.mark.parametrize("qos", [0, 1])
def test_a_lone_message_is_passed_on_within_150_us(load, servers, qos):
    print(f"\n1,000 messages a second, QoS {qos}")
    numbers = (*CALM[:2], qos, *CALM[3:])
    found, _ = compare(load, servers("mosquitto", "asyncio", "uvloop"), numbers)
    assert min(found["asyncio"][2], found["uvloop"][2]) <= 150
