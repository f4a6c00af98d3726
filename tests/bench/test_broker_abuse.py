"""What misbehaving clients cost those who behave, and the broker's memory.

python -m pytest -m bench tests/bench/test_broker_abuse.py -s
"""

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
QUIET = (1, 1, 1, 64, 2_000, 100, 200)  # 200 messages a second for 10 s, QoS 1


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """`quiet(port)` starts a pair that behaves; its figures come when it ends."""
    program = tmp_path_factory.mktemp("load") / "mqtt_load"
    subprocess.run(["gcc", "-O2", "-o", str(program), str(HERE / "mqtt_load.c")], check=True)

    def begin(port):
        command = [str(program), str(port), *map(str, QUIET)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    return begin


@pytest.fixture(params=["asyncio", "uvloop"])
def hub(request, tmp_path):
    """A broker on one of the event loops: its port, and `rss()` in bytes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    file = tmp_path / "hub.yaml"
    limits = "limits: {connections: 20000, connections_per_address: 20000, connects_per_s: 100000}"
    file.write_text(
        f"gateway: g\nspool: {{path: {tmp_path}/s}}\nbroker: {{listen: 'mqtt://127.0.0.1:{port}', {limits}}}\n"
    )
    command = [sys.executable, str(HERE / "broker_process.py"), str(file), request.param]
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 15
    while not answers(port):
        assert time.monotonic() < deadline
        time.sleep(0.05)

    class Hub:
        def rss(self):
            fields = Path(f"/proc/{process.pid}/statm").read_text().split()
            return int(fields[1]) * 4096

    Hub.port, Hub.loop = port, request.param
    yield Hub()
    process.terminate()
    process.wait(10)


def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def abuse(hub):
    """`abuse("flood")` starts one and waits until it is at it."""
    running = []

    def begin(what, number=0):
        command = [sys.executable, str(HERE / "abusers.py"), what, str(hub.port), str(number)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        running.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def figures(process):
    return json.loads(process.communicate()[0])


@pytest.mark.bench
@pytest.mark.timeout(300)
def test_ten_thousand_idle_connections_take_8_kib_each_at_most(hub, abuse):
    before = hub.rss()
    abuse("idle", 10_000)
    each = (hub.rss() - before) / 10_000
    print(f"\n{hub.loop}: {each / 1024:.1f} KiB per idle connection with one subscription")
    assert each <= 8 * 1024


@pytest.mark.bench
@pytest.mark.timeout(300)
@pytest.mark.parametrize("what", ["flood", "knock", "deaf"])
def test_who_behaves_notices_little_of_who_does_not(hub, abuse, quiet, what):
    alone = figures(quiet(hub.port))
    before = hub.rss()
    abuse(what)
    said = figures(quiet(hub.port))
    grown = (hub.rss() - before) / 2**20
    print(
        f"\n{hub.loop}, {what}: p50 {said['p50_us'] / 1e3:.1f} ms, p99 {said['p99_us'] / 1e3:.1f} ms"
        f" (alone {alone['p99_us'] / 1e3:.1f} ms), memory +{grown:.1f} MiB"
    )
    assert said["delivered"] == QUIET[4]
    assert said["p99_us"] < 50_000
    assert grown < 80


@pytest.mark.bench
@pytest.mark.timeout(300)
def test_ten_thousand_retained_messages_are_replayed_without_stalling_others(hub, abuse, quiet):
    keeper = abuse("retained", 10_000)
    pair = quiet(hub.port)
    took = []
    while pair.poll() is None:
        keeper.stdin.write("again\n")
        keeper.stdin.flush()
        took.append(float(keeper.stdout.readline()))
        time.sleep(0.2)
    said = figures(pair)
    took.sort()
    print(
        f"\n{hub.loop}: 10,000 retained in {took[len(took) // 2]:.3f} s (worst of {len(took)}: {took[-1]:.3f}),"
        f" the others' p99 {said['p99_us'] / 1e3:.1f} ms"
    )
    assert took[len(took) // 2] < 0.5
    assert said["p99_us"] < 50_000


@pytest.mark.bench
@pytest.mark.timeout(300)
def test_half_packets_take_no_more_than_they_brought(hub, abuse):
    before = hub.rss()
    abuse("half", 2_000)
    each = (hub.rss() - before) / 2_000
    print(f"\n{hub.loop}: {each / 1024:.1f} KiB per connection with half a packet")
    assert each <= 12 * 1024
