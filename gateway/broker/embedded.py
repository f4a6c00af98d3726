"""A whole broker as one part: files, store, router and listeners, started and stopped together.

A listener that cannot be opened does not stop the others: it is named, and tried again until it can.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Executor
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from gateway.broker.access import Guard
from gateway.broker.broker import Broker
from gateway.broker.door import Door
from gateway.broker.listeners import ListenError, Server
from gateway.broker.options import Address, Options
from gateway.broker.report import Report
from gateway.broker.store import Store
from gateway.clock import Clock
from gateway.metrics import Metrics

log = logging.getLogger("headgate.broker")

_OURS: Final = "broker_"
_AGAIN_S: Final = 15.0
"""Between two attempts to open a listener."""

_CLOSE_S: Final = 1.0
"""So long the store may take to end; the kernel has all but the last moment's changes anyway."""


class Embedded:
    """The broker that `options` ask for. Constructed = its files are good, else AccessError; entered = it listens.

    What works but should be mended was said when the gateway file was read, and is said again only at a reload.
    `folder`: where sessions and retained messages are kept. `writing`: the one thread that owns every durable file.
    """

    def __init__(self, options: Options, *, folder: Path, writing: Executor, clock: Clock, metrics: Metrics) -> None:
        self._options = options
        self._folder = folder
        self._writing = writing
        self._clock = clock
        self._metrics = metrics
        self._report = Report(clock, metrics)
        self._guard = Guard(options, clock=clock)
        self._missing: list[Address] = []
        self._stack = AsyncExitStack()

    def __repr__(self) -> str:
        return f"<Embedded broker on {', '.join(map(str, self._options.listen))}>"

    async def __aenter__(self) -> Self:
        options, clock, metrics = self._options, self._clock, self._metrics
        self._stack.callback(self._guard.close)
        store, state = await Store.open(
            self._folder,
            self._writing,
            metrics=metrics,
            commit_interval_s=options.commit_interval_s,
            sync=options.sync,
        )
        self._stack.push_async_callback(_close, store)
        now = clock.wall_ms() / 1000
        self._broker = Broker(
            options.limits, access=self._guard, metrics=metrics, report=self._report, store=store, now=now
        )
        self._broker.restore(state, now)
        self._server = Server(
            options,
            broker=self._broker,
            access=self._guard,
            report=self._report,
            metrics=metrics,
            clock=clock,
            store=store,
        )
        self._stack.push_async_callback(self._server.close)
        self._missing = list(options.listen)
        await self._open_missing()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def bound(self) -> tuple[Address, ...]:
        """Where it really listens."""
        return self._server.bound

    def status(self) -> dict[str, Any]:
        """Where it listens and where it cannot, and every figure of the broker, summed over its labels."""
        figures: dict[str, float] = {}
        for name, _, value in self._metrics:
            if name.startswith(_OURS):
                key = name.removeprefix(_OURS)
                figures[key] = figures.get(key, 0) + value
        listen, missing = [str(a) for a in self.bound], [str(a) for a in self._missing]
        return {"listen": listen, "missing": missing, "figures": figures}

    def door(self, name: str) -> Door:
        """The gateway's own way in."""
        return self._broker.door(name)

    async def run(self) -> None:
        """Go on trying to open the listeners that could not be opened. Ends when all are."""
        while self._missing:
            await asyncio.sleep(_AGAIN_S)
            await self._open_missing(is_first=False)

    async def reload(self) -> None:
        """Read users, ACL, keys and certificates anew. What is broken leaves what was before in force, and is logged.

        Clients whose password, user or key is gone are disconnected (0x87); the others notice nothing, but each
        delivery goes by the new rules at once.
        """
        problems = await self._server.reload()
        for problem in problems:
            log.error("not read anew: %s", problem)
        if not problems:
            for caution in self._guard.files.cautions:
                log.warning("%s", caution)
            log.info("users, acl, keys and certificates are read anew")

    async def _open_missing(self, *, is_first: bool = True) -> None:
        missing, self._missing = self._missing, []
        for address in missing:
            try:
                bound = await self._server.start(address)
            except ListenError as error:
                self._missing.append(address)
                if is_first:
                    log.error("cannot listen: %s. Trying on", error)  # noqa: TRY400 - the text says it all
            else:
                log.info("the broker listens on %s", ", ".join(map(str, bound)))


async def _close(store: Store) -> None:
    try:
        await asyncio.wait_for(store.close(), _CLOSE_S)
    except TimeoutError:
        log.error("the broker's store could not be closed within %.1f s: the disk does not answer", _CLOSE_S)  # noqa: TRY400 - no trace helps
