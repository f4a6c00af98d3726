"""Fixtures that start real programs on free ports and wait on conditions."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

STRICT = "HEADGATE_TESTS_STRICT"
"""Set by `.ci/run`: a missing program is then a failure, not a skip."""


@pytest.fixture
def need() -> Callable[..., None]:
    """`need("mosquitto")` skips the test, naming the program, where it is not installed; in CI it fails."""

    def check(*programs: str) -> None:
        path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
        for program in programs:
            if shutil.which(program, path=path):
                continue
            if os.environ.get(STRICT):
                pytest.fail(f"{program} is not installed and {STRICT} is set")
            pytest.skip(f"{program} is not installed")

    return check


@pytest.fixture
def free_port() -> Callable[[], int]:
    """A TCP port on 127.0.0.1 that nobody listens on right now."""

    def pick() -> int:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            return int(s.getsockname()[1])

    return pick


@pytest.fixture
def wait_for() -> Callable[..., None]:
    """`wait_for(condition, "what", 10)` polls a condition until it holds, or fails the test by name."""

    def wait(condition: Callable[[], object], what: str, seconds: float = 10) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"waited {seconds} s in vain for: {what}")
            time.sleep(0.02)

    return wait


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start a program; its output goes to `<name>.log` in tmp_path; it is stopped after the test."""
    running: list[subprocess.Popen[bytes]] = []

    def run(*command: str, name: str = "program", **options: object) -> subprocess.Popen[bytes]:
        log = (tmp_path / f"{name}.log").open("ab")
        with log:
            process = subprocess.Popen(list(command), stdout=log, stderr=log, **options)  # type: ignore[call-overload]
        running.append(process)
        return process

    yield run
    for process in running:
        if process.stdin is not None:
            process.stdin.close()
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def listening() -> Callable[[int], bool]:
    """Whether somebody accepts connections on that port of 127.0.0.1."""

    def check(port: int) -> bool:
        with socket.socket() as s:
            s.settimeout(0.2)
            return s.connect_ex(("127.0.0.1", port)) == 0

    return check
