"""20,000 commands as fast as a client sends them, while 100 tags are polled each 100 ms: polls go on, memory stays."""

import json
import socket
import sys
import time
from pathlib import Path

import pytest

from gateway.control import ControlError, ask

COUNT = 20_000


def rss_kib(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def publishes():
    """20,000 PUBLISH packets of QoS 0, each with an id of its own."""
    topic = b"headgate/g/plc/t0/set"
    for number in range(COUNT):
        body = len(topic).to_bytes(2) + topic + b'{"value":%d,"id":%d}' % (number % 1000, number)
        yield bytes([0x30, len(body)]) + body


@pytest.mark.timeout(120)
def test_a_flood_of_commands_costs_few_polls_and_little_memory(libmodbus, start, wait_for, free_port, tmp_path):
    server, port = libmodbus(), free_port()
    tags = {f"t{n}": {"address": f"holding:{n}", "type": "uint16"} for n in range(100)}
    tags["t0"]["write"] = True
    device = {"driver": "modbus", "url": f"tcp://127.0.0.1:{server.port}", "every": "100ms", "tags": tags}
    sections = {"broker": {"listen": f"mqtt://127.0.0.1:{port}"}, "devices": {"plc": device}}
    file = tmp_path / "gateway.yaml"
    file.write_text(json.dumps({"gateway": "g", **sections}))
    process = start(sys.executable, "-m", "gateway", "run", str(file), name="headgate")
    spool = tmp_path / "headgate-data" / "spool"

    def metric(name):
        return sum(m["value"] for m in ask(spool, {"do": "status"})["metrics"] if m["name"] == name)

    def is_ready():
        try:
            return metric("line_polls_total") > 20
        except ControlError:
            return False

    wait_for(is_ready, "the gateway", 60)
    missed, polled = metric("line_missed_polls_total"), metric("line_polls_total")
    before, began = rss_kib(process.pid), time.monotonic()
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        client.sendall(b"\x10\x0f\0\4MQTT\4\2\0\x3c\0\3hmi")
        assert client.recv(4) == b" \2\0\0"
        client.sendall(b"".join(publishes()))
        wait_for(lambda: metric("commands_total") >= COUNT, "all to be answered", 90)
    took_s = time.monotonic() - began
    missed, polled = metric("line_missed_polls_total") - missed, metric("line_polls_total") - polled
    grown = rss_kib(process.pid) - before
    done = metric("command_seconds_count")
    print(f"{took_s:.1f} s, {done:.0f} done; {polled:.0f} polls, {missed:.0f} missed; RSS +{grown} KiB")
    assert metric("commands_waiting") == 0
    assert done >= 64
    assert missed <= 5 + took_s  # of ten a second
    assert grown < 32 * 1024
    assert (spool / "commands.json").stat().st_size < 64 * 1024
