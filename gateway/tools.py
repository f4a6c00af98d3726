"""What `probe`, `read` and `record` ask of a running gateway: the same as of a device, through its live lines.

    -> {"do": "discover", "device": "meter", "unit": 5}
    <- {"ok": true, "finding": {"unit": 5, "answer": "values", "identity": {...}, "models": [...]}}

Each request is short: whoever scans a bus asks for one unit after the other, whoever surveys a device for one area. A
recording is fetched piece by piece; when nobody fetches it for a while, it ends by itself.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from gateway.control import Handler
from gateway.driver import Driver, Patch, Peeks, Records
from gateway.errors import HeadgateError

_MOST_REQUESTS = 2000
_LONGEST_PATIENCE_S = 60.0
"""As long as any device's timeout may be: others on its line wait for it."""
_MOST_KEPT = 4 * 2**20
"""Characters of a recording that wait to be fetched."""
_FORSAKEN_S = 15.0


class Tools:
    """Answers for tools. `borrow` lends the connected driver of a device, or raises HeadgateError: there is none."""

    def __init__(self, borrow: Callable[[str], AbstractContextManager[Driver]]) -> None:
        self._borrow = borrow
        self._reels: dict[str, _Reel] = {}

    def __repr__(self) -> str:
        return f"<tools, {len(self._reels)} recordings>"

    @property
    def handlers(self) -> dict[str, Handler]:
        """By verb, for the control socket."""
        return {"discover": self._discover, "peek": self._peek, "survey": self._survey, "record": self._record}

    async def _discover(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        patience = request.get("patience_s")
        with self._peeks(request) as driver:
            finding = await driver.discover(
                _number(request, "unit"),
                patience_s=min(float(patience), _LONGEST_PATIENCE_S) if isinstance(patience, int | float) else None,
                thorough=request.get("thorough") is True,
            )
        return {"finding": None if finding is None else asdict(finding)}

    async def _peek(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        with self._peeks(request) as driver:
            patch = await driver.peek(_number(request, "unit"), _text(request, "address"), _number(request, "count"))
        return {"patch": document(patch)}

    async def _survey(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        most = min(_number(request, "requests"), _MOST_REQUESTS)
        with self._peeks(request) as driver:
            found = await driver.survey(_number(request, "unit"), _text(request, "area"), requests=most)
        patches = [document(patch) for patch in found.patches]
        return {"patches": patches, "requests": found.requests, "rest": found.rest, "short": found.short}

    async def _record(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """`step`: start, fetch or stop. The lines so far are given and forgotten."""
        device, step = _text(request, "device"), request.get("step")
        reel = self._reels.get(device)
        if step == "start":
            if reel is not None:
                raise HeadgateError(f"{device} is being recorded already. Wait until that has ended")
            with self._borrow(device) as driver:  # which stays, however often it connects
                if not isinstance(driver, Records):
                    raise HeadgateError("the driver of this line cannot record")
                if any(other.driver is driver for other in self._reels.values()):
                    raise HeadgateError(f"the line of {device} is being recorded already. Wait until that has ended")
                reel = self._reels[device] = _Reel(driver, lambda: self._reels.pop(device, None))
                reel.start()
        if reel is None:
            raise HeadgateError("this line is not being recorded: nothing was fetched for a while. Start again")
        if step == "stop":
            reel.stop()
        return {"lines": reel.fetch()}

    @contextmanager
    def _peeks(self, request: Mapping[str, Any]) -> Iterator[Peeks]:
        """The driver that is asked. What it cannot make sense of, a ValueError, is a HeadgateError to who asked."""
        with self._borrow(_text(request, "device")) as driver:
            if not isinstance(driver, Peeks):
                raise HeadgateError("the driver of this line cannot be asked for anything but its tags")
            try:
                yield driver
            except ValueError as error:
                raise HeadgateError(str(error)) from error


@dataclass(slots=True, eq=False)
class _Reel:
    """A recording that is being made: its lines until they are fetched."""

    driver: Records
    forget: Callable[[], object]
    lines: deque[str] = field(default_factory=deque)
    size: int = 0
    left_out: int = 0
    timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Record from now on."""
        self.driver.record(self._note)
        self._wait()

    def stop(self) -> None:
        """Record no more."""
        if self.timer is not None:
            self.timer.cancel()
        self.driver.record(None)
        self.forget()

    def fetch(self) -> list[str]:
        """The lines since the last time."""
        lines = list(self.lines)
        if self.left_out:
            lines.append(f"# {self.left_out} lines were left out here: they were not fetched in time")
        self.lines.clear()
        self.size = self.left_out = 0
        if self.timer is not None and not self.timer.cancelled():
            self._wait()
        return lines

    def _wait(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self.timer = asyncio.get_running_loop().call_later(_FORSAKEN_S, self.stop)

    def _note(self, line: str) -> None:
        if self.size + len(line) > _MOST_KEPT:
            self.left_out += 1
            return
        self.size += len(line)
        self.lines.append(line)


def document(patch: Patch) -> dict[str, Any]:
    """A patch as it goes over the socket."""
    return {"address": patch.address, "count": patch.count, "data": patch.data.hex()}


def patch_of(found: Mapping[str, Any]) -> Patch:
    """What `document` gave."""
    return Patch(str(found["address"]), int(found["count"]), bytes.fromhex(found["data"]))


def _number(request: Mapping[str, Any], key: str) -> int:
    value = request.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise HeadgateError(f"'{key}' must be a whole number")
    return value


def _text(request: Mapping[str, Any], key: str) -> str:
    value = request.get(key)
    if not isinstance(value, str):
        raise HeadgateError(f"'{key}' must be text")
    return value
