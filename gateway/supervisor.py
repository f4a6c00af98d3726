"""Named tasks: started, restarted with back-off after a crash, stopped in order. The one room that catches Exception.

A crash is contained: the task's siblings go on. It is logged once with its traceback; the same crash again only counts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gateway.backoff import Backoff
from gateway.clock import Clock
from gateway.metrics import Metrics

log = logging.getLogger("headgate.supervisor")

TaskState = Literal["running", "waiting", "ended"]
Work = Callable[[], Coroutine[Any, Any, None]]

_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 60.0
_STABLE_AFTER_S = 60.0
"""A task that ran that long starts its back-off anew."""


@dataclass(slots=True, eq=False)
class Health:
    """How one task fares: its state, crashes so far, and the last error in words."""

    name: str
    state: TaskState = "running"
    crashes: int = 0
    last_error: str = ""


class Supervisor:
    """Owns every long-lived task of the process. Nothing else starts one."""

    def __init__(self, *, clock: Clock, metrics: Metrics) -> None:
        self._clock = clock
        self._metrics = metrics
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._health: dict[str, Health] = {}

    def __repr__(self) -> str:
        return f"<Supervisor of {', '.join(f'{h.name}: {h.state}' for h in self._health.values()) or 'nothing'}>"

    @property
    def health(self) -> Mapping[str, Health]:
        """Every task by name."""
        return self._health

    def start(self, name: str, work: Work) -> None:
        """Run `work()` under that name until it returns or is stopped. Raises ValueError where the name is taken."""
        running = self._tasks.get(name)
        if running is not None and not running.done():
            raise ValueError(f"task '{name}' is running already")
        self._health[name] = Health(name)
        self._tasks[name] = asyncio.create_task(self._keep(name, work), name=name)

    async def stop(self, name: str, *, timeout_s: float) -> bool:
        """Cancel the task and wait for its end. False when it did not end in time; it is then left behind, logged."""
        task = self._tasks.pop(name)
        task.cancel()
        _, late = await asyncio.wait([task], timeout=timeout_s)
        if late:
            log.error("task '%s' did not stop within %.1f s and is left behind", name, timeout_s)
        return not late

    async def stop_all(self, names: list[str], *, timeout_s: float) -> None:
        """Stop several at once."""
        await asyncio.gather(*(self.stop(name, timeout_s=timeout_s) for name in names if name in self._tasks))

    async def _keep(self, name: str, work: Work) -> None:
        health = self._health[name]
        crashes = self._metrics.counter("task_crashes_total", task=name)
        backoff = Backoff(_FIRST_WAIT_S, _LONGEST_WAIT_S)
        while True:
            started = self._clock.monotonic()
            try:
                health.state = "running"
                await work()
            except Exception as error:  # noqa: BLE001 - this is the room for it
                if self._clock.monotonic() - started >= _STABLE_AFTER_S:
                    backoff.reset()
                wait_s = backoff.next_s()
                self._report(health, error, wait_s)
                crashes.value += 1
            else:
                health.state = "ended"
                return
            health.state = "waiting"
            await asyncio.sleep(wait_s)

    @staticmethod
    def _report(health: Health, error: Exception, wait_s: float) -> None:
        text = f"{type(error).__name__}: {error}"
        if text != health.last_error:
            log.error(
                "task '%s' crashed (%s); starting it again in about %.0f s. This is a bug: please report it",
                health.name,
                text,
                wait_s,
                exc_info=error,
            )
        health.crashes += 1
        health.last_error = text


async def contained(name: str, call: Callable[[], Awaitable[None]]) -> bool:
    """Await `call()` during an ordered stop: what it raises is logged, and the stop goes on. True when it worked."""
    try:
        await call()
    except Exception:
        log.exception("'%s' failed while stopping", name)
        return False
    return True
