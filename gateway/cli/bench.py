"""`headgate bench`: what this machine can do, measured on the whole chain with real processes.

Simulated devices run in a process of their own, the gateway in another, mosquitto (if installed) in a third; a
subscriber in this one notes how old samples are when they arrive. Age counts from the moment the last answer of a read
arrived.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import orjson

from gateway.cli.subscriber import Subscriber
from gateway.control import ControlError, ask
from gateway.errors import RefusedError
from gateway.quantities import parse_duration

SUMMARY = "Measure values/s, CPU, memory, age and bytes written on simulated devices and a local mosquitto."

_NAME = "bench"
_WARM_UP_S = 3.0
_START_S = 20.0
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--devices", type=_between(1, 2000), default=100, metavar="N", help="simulated devices (default: 100)"
    )
    parser.add_argument(
        "--tags", type=_between(1, 2000), default=100, metavar="N", help="float32 tags of each (default: 100)"
    )
    parser.add_argument(
        "--every", type=_period, default="100ms", metavar="TIME", help="poll each device so often (default: 100ms)"
    )
    parser.add_argument(
        "--seconds", type=_between(1, 86400), default=20, metavar="N", help="measure so long (default: 20)"
    )
    parser.add_argument("--qos", type=int, choices=[0, 1, 2], default=1, help="of the uplink (default: 1)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(options: argparse.Namespace) -> int:
    """Start everything, measure, print. Nothing is left behind, also when told to end."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="headgate-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        devices = stack.enter_context(plant(options.devices, options.tags, options.every))
        port = stack.enter_context(mosquitto(folder))
        figures = measure(devices, port, folder, qos=options.qos, seconds=options.seconds)
    if options.json:
        print(orjson.dumps(figures, option=orjson.OPT_INDENT_2).decode())
    else:
        print("\n".join(f"{label:<34} {text}" for label, text in _rows(figures)))
    return 0


def _between(low: int, high: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from {low} to {high}")
        return int(text)

    return number


def _period(text: str) -> str:
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not 0.01 <= seconds <= 60:
        raise argparse.ArgumentTypeError(f"'{text}' is outside 10ms … 1m")
    return text


@contextmanager
def plant(devices: int, tags: int, every: str) -> Iterator[dict[str, Any]]:
    """Simulated devices in a process of their own; gives the `devices` section that reads them."""
    command = [sys.executable, "-m", "gateway.cli.plant", str(devices), str(tags), every]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:  # noqa: S603 - our own
        assert process.stdin is not None  # noqa: S101 - both were asked for
        assert process.stdout is not None  # noqa: S101
        line = process.stdout.readline()
        if not line:
            raise RefusedError("the simulated devices could not be started; see above")
        try:
            yield orjson.loads(line)
        finally:
            process.stdin.close()  # which ends it


@contextmanager
def mosquitto(folder: Path) -> Iterator[int | None]:
    """A local broker on a free port; None where mosquitto is not installed."""
    program = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if program is None:
        yield None
        return
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    file = folder / "mosquitto.conf"
    file.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\nmax_queued_messages 0\n")
    with _process([program, "-c", str(file)], folder / "mosquitto.log"):
        _wait(lambda: _accepts(port), "mosquitto to listen")
        yield port


def measure(devices: dict[str, Any], port: int | None, folder: Path, *, qos: int, seconds: float) -> dict[str, Any]:
    """Run the gateway on these devices and say what it took. Times in s, sizes in bytes, ages in ms."""
    document: dict[str, Any] = {"gateway": _NAME, "devices": devices}
    if port is not None:
        document["uplinks"] = {"broker": {"url": f"mqtt://127.0.0.1:{port}", "qos": qos}}
    file, spool = folder / "gateway.yaml", folder / "headgate-data" / "spool"
    file.write_bytes(orjson.dumps(document))
    command = [sys.executable, "-m", "gateway", "run", str(file), "--log-level", "warning"]
    with ExitStack() as stack:
        subscriber = stack.enter_context(Subscriber(port, f"headgate/{_NAME}/+")) if port is not None else None
        process = stack.enter_context(_process(command, folder / "headgate.log"))
        _wait(lambda: _all_online(spool, len(devices)), "all devices to be online")
        time.sleep(_WARM_UP_S)
        before, cpu = ask(spool, {"do": "status"}), cpu_s(process.pid)
        if subscriber is not None:
            subscriber.begin()
        started = time.monotonic()
        residents = []
        while (left := started + seconds - time.monotonic()) > 0:
            time.sleep(min(left, 1.0))
            residents.append(resident_bytes(process.pid))
        cpu = cpu_s(process.pid) - cpu
        passed = time.monotonic() - started
        ages = [] if subscriber is None else subscriber.end()
        after = ask(spool, {"do": "status"})
        peak = peak_bytes(process.pid)
    values = _metric(after, "line_values_total") - _metric(before, "line_values_total")
    return {
        "values_per_s": values / passed,
        "cpu_s_per_million_values": cpu / values * 1e6,
        "cpu_share": cpu / passed,
        "missed_polls": _metric(after, "line_missed_polls_total") - _metric(before, "line_missed_polls_total"),
        "resident_bytes": sorted(residents)[len(residents) // 2],
        "peak_bytes": peak,
        "age_p50_ms": _percentile(ages, 50),
        "age_p99_ms": _percentile(ages, 99),
        "messages_received": len(ages),
        "spool_bytes_written": after["spool"]["bytes_written"] - before["spool"]["bytes_written"],
        "spool_flushes": after["spool"]["flushes"] - before["spool"]["flushes"],
        "seconds": passed,
        "uplink": "mosquitto" if port is not None else "none: mosquitto is not installed",
    }


def cpu_s(pid: int) -> float:
    """User and system time of a process so far, proc_pid_stat(5) fields 14 and 15."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident_bytes(pid: int) -> int:
    """Resident memory now, proc_pid_statm(5) field 2."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


def peak_bytes(pid: int) -> int:
    """The most memory that was ever resident, VmHWM of proc_pid_status(5)."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) * 1024


def _rows(f: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        ("values/s", f"{f['values_per_s']:,.0f}"),
        ("CPU s per million values", f"{f['cpu_s_per_million_values']:.2f}"),
        ("share of one core", f"{f['cpu_share']:.0%}"),
        ("missed polls", f"{f['missed_polls']:.0f}"),
        (
            "resident memory, steady and peak",
            f"{f['resident_bytes'] / 2**20:.1f} and {f['peak_bytes'] / 2**20:.1f} MiB",
        ),
        ("age at the subscriber, p50 and p99", f"{f['age_p50_ms']} and {f['age_p99_ms']} ms"),
        ("spool: bytes and flushes written", f"{f['spool_bytes_written']:,} and {f['spool_flushes']}"),
        ("measured for", f"{f['seconds']:.1f} s; uplink: {f['uplink']}"),
    ]


def _percentile(ages: list[int], percent: int) -> int | None:
    return sorted(ages)[len(ages) * percent // 100] if ages else None


def _metric(status: dict[str, Any], name: str) -> float:
    return float(sum(m["value"] for m in status["metrics"] if m["name"] == name))


def _all_online(spool: Path, devices: int) -> bool:
    try:
        status = ask(spool, {"do": "status"})
    except ControlError:
        return False
    return len([d for d in status["devices"] if d["state"] == "online"]) == devices


def _accepts(port: int) -> bool:
    with socket.socket() as s:
        s.settimeout(0.5)
        return s.connect_ex(("127.0.0.1", port)) == 0


def _wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _START_S
    while not condition():
        if time.monotonic() > deadline:
            raise RefusedError(f"waited {_START_S:.0f} s in vain for {what}")
        time.sleep(0.05)


@contextmanager
def _process(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:  # noqa: S603 - our own
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
    complaints = log.read_text(errors="replace")
    if process.returncode and complaints:
        sys.stderr.write(complaints)
