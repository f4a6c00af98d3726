"""A loop whose time is moved by hand: hours of polling in milliseconds, and every run the same."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
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
