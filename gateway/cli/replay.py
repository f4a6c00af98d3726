"""`headgate replay RECORDING`: a recorded line as a simulated device, on a TCP port or a pseudo terminal."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import signal
import sys
from pathlib import Path
from typing import Any

from gateway.cli.desk import wrong
from gateway.driver import Replays, find
from gateway.errors import RefusedError

SUMMARY = "Serve a recording as a simulated device."

_DRIVER = re.compile(r"^# driver: (.+)$", re.MULTILINE)
_SERIAL = re.compile(r"^# framing: ascii$", re.MULTILINE)
_LARGEST = 256 * 2**20


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("recording", type=Path, help="what `headgate record` wrote")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--listen",
        default="tcp://127.0.0.1:5020",
        help="tcp://, rtu+tcp:// or ascii+tcp:// and HOST:PORT; default tcp://127.0.0.1:5020; port 0 takes a free one",
    )
    where.add_argument("--pty", type=Path, help="in place of that: make this path a serial port")
    parser.add_argument("--speed", type=float, default=1.0, help="2 answers in half the time, 0 at once; default 1")
    parser.add_argument("--seconds", type=float, help="how long to serve; default: until it is stopped")


def run(options: argparse.Namespace) -> int:
    """Serve until stopped, then tell how it went."""
    try:
        if options.recording.stat().st_size > _LARGEST:
            raise RefusedError(f"{options.recording}: larger than {_LARGEST // 2**20} MiB, it is not read")
        text = options.recording.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise RefusedError(f"{options.recording}: {(error.strerror or str(error)).lower()}") from error
    if not 0 <= options.speed < float("inf"):
        raise wrong(f"--speed {options.speed:g}: expected 0 or more")
    if options.seconds is not None and not options.seconds > 0:
        raise wrong(f"--seconds {options.seconds:g}: expected more than 0")
    listen = options.listen
    if options.pty is not None:
        listen = f"{'ascii' if _SERIAL.search(text) else 'rtu'}://{options.pty.absolute()}"
    return asyncio.run(_serve(_driver(text), text, listen, options))


def _driver(text: str) -> type[Replays]:
    """The driver that made the recording. Raises FileError, UnknownDriverError and RefusedError."""
    found = _DRIVER.search(text[:4096])
    if found is None:
        raise wrong("this is no recording: it does not say '# driver:'")
    driver: Any = find(found[1].strip())
    if not isinstance(driver, Replays):
        raise RefusedError(f"the driver '{found[1]}' cannot replay")
    kind: Any = driver
    return kind  # type: ignore[no-any-return]


async def _serve(driver: type[Replays], text: str, listen: str, options: argparse.Namespace) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        serving = driver.replay(text, listen=listen, speed=options.speed, tell=_tell)
        async with serving as replay:
            print(f"serving {options.recording} at {replay.where}", flush=True)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), options.seconds)
    except ValueError as error:
        raise wrong(f"{options.recording}: {error}") from None
    print(f"{replay.exact} requests answered as recorded, {replay.image} from registers, {replay.unknown} not recorded")
    return 0


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
