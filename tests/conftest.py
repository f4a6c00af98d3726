"""A loop whose time is moved by hand: hours of polling in milliseconds, and every run the same."""

from __future__ import annotations

import asyncio
import json
import selectors
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest


class _JumpingSelector(selectors.DefaultSelector):
    """Where nothing is ready, time jumps to the next timer instead of passing."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if not ready and timeout:
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on virtual time that starts at 1,000 s."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        self._jumping.now = 1000.0
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


class VirtualClock:
    """gateway.clock.Clock on virtual time; wall time is monotonic time, in ms, counted from a day in 2026."""

    boot_id = "00000000-0000-4000-8000-000000000000"

    def __init__(self) -> None:
        self.now = lambda: 1000.0

    def wall_ms(self) -> int:
        return 1_795_330_000_000 + round(self.now() * 1000)

    def monotonic(self) -> float:
        return self.now()

    def state(self) -> str:
        return "synced"


@pytest.fixture
def virtual_clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def virtual_loop() -> type[VirtualLoop]:
    """The loop itself, for a test that needs it for longer than one coroutine."""
    return VirtualLoop


@pytest.fixture
def run_virtual(virtual_clock: VirtualClock) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Run a coroutine on virtual time; `virtual_clock` shows that time."""

    def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            virtual_clock.now = runner.get_loop().time
            return runner.run(coroutine)

    return run


class SimulatedLine:
    """A serial line in a process of its own, true to the character: see tests/line/line.py for its settings."""

    def __init__(self, link: Path, settings: dict[str, Any]) -> None:
        self.link = link
        program = Path(__file__).parent / "line" / "line.py"
        self._process = subprocess.Popen(
            [sys.executable, str(program), str(link), json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._hear() == {"ready": True}

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        return dict(json.loads(self._process.stdout.readline()))

    def tell(self, **order: Any) -> dict[str, Any]:
        """Give an order; returns the report as it was before."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        return self._hear()

    def end(self) -> dict[str, Any]:
        """End it; returns its last report."""
        out, _ = self._process.communicate()
        return dict(json.loads(out.splitlines()[-1])) if out else {}


@pytest.fixture
def simulated_line(tmp_path: Path) -> Iterator[Callable[..., SimulatedLine]]:
    """`simulated_line(baud=9600, units={1: {}})` starts one; `.link` is its port, `.tell(...)` gives orders."""
    lines: list[SimulatedLine] = []

    def start(*, name: str = "tty", **settings: Any) -> SimulatedLine:
        lines.append(SimulatedLine(tmp_path / name, settings))
        return lines[-1]

    yield start
    for line in lines:
        line.end()
