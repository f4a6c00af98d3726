"""Many changing items of a server in another process: none missed, and what each side's processor does meanwhile.

python -m pytest -m bench tests/bench/test_opcua_live_bench.py -s
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.bench, pytest.mark.timeout(420)]

SECONDS = 30
"""What one measurement takes, without the making of the items."""
SATURATED = 0.9
"""A process that ran or waited for a processor for so much of the time has no more to give."""
LOADS = [(1000, 100), (10_000, 1000)]
BOTH = ["node-opcua", "asyncua"]


@pytest.fixture
def listen(opcua_servers, tmp_path):
    """Run a server and a listener; gives what came, with the server's share of a core."""

    def run(how, kind, items, every_ms):
        limits = {"maxMonitoredItemsPerCall": 1000, "maxNodesPerRead": 1000}
        server = opcua_servers(kind, counters=items, period=every_ms, types=False, limits=limits)
        script = Path(__file__).with_name("opcua_listener.py")
        command = [sys.executable, script, how, server.url, str(items), str(every_ms), str(SECONDS), tmp_path]
        with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as process:
            try:
                ready = process.stdout.readline()
                assert ready, f"the listener has ended: {process.wait()}"
                before = server.used_s()
                report = json.loads(process.stdout.readline() or "null")
                ran, waited = (after - was for was, after in zip(before, server.used_s(), strict=True))
            finally:
                process.kill()
        assert report is not None
        return report | {"server_cpu_s": ran, "server_waited_s": waited}

    return run


def told(report):
    """In words."""
    seconds, values = report["seconds"], report["values"]
    sides = {
        side: (report[f"{key}cpu_s"], report[f"{key}waited_s"])
        for side, key in (("gateway", ""), ("server", "server_"))
    }
    busy = [side for side, (ran, waited) in sides.items() if (ran + waited) / seconds > SATURATED]
    shares = ", ".join(f"{side} {ran / seconds:.0%} of a core" for side, (ran, _) in sides.items())
    return (
        f"{values / seconds:,.0f} values/s; {shares}; saturated: {' and '.join(busy) or 'neither'}; "
        f"gateway {report['cpu_s'] / values * 1e6:.1f} us a value, {report['rss']:.0f} MiB"
    )


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(("items", "every_ms"), LOADS)
def test_no_value_of_many_items_is_missed(listen, capsys, kind, items, every_ms):
    report = listen("line", kind, items, every_ms)
    with capsys.disabled():
        print(
            f"\n{kind}, {items:,} items each {every_ms} ms: {told(report)}; "
            f"missed {report['missed']}, the last {report['late_ms'] / 1000:.1f} s old when they came"
        )
    assert (report["missed"], report["doubled"], report["items"]) == (0, 0, items)


@pytest.mark.parametrize(("items", "every_ms"), LOADS)
def test_what_a_value_costs_from_the_socket_to_the_store(listen, capsys, items, every_ms):
    report = listen("whole", "node-opcua", items, every_ms)
    with capsys.disabled():
        print(f"\nwhole gateway, {items:,} each {every_ms} ms: {told(report)}; {report['stored_mib']:.1f} MiB stored")
    assert report["values"] > 0.9 * items * SECONDS * 1000 / every_ms
