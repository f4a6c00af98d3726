"""`headgate demo`: simulated devices, a live table of their values, and on request a publish to a broker."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from gateway import config, demo
from gateway.app import App

SUMMARY = "Show simulated devices at work; no file needed, nothing is left behind."

_REFRESH_S = 0.5
_CLEAR = "\033[H\033[J"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--uplink", metavar="URL", help="publish to this broker too, such as mqtt://127.0.0.1:1883")
    parser.add_argument("--seconds", type=float, metavar="N", help="end after N seconds instead of at Ctrl-C")


def run(options: argparse.Namespace) -> int:
    """Run until Ctrl-C, SIGTERM or the end of --seconds."""
    # The table owns the terminal: states are shown in it, and only what a person must know is logged.
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    with tempfile.TemporaryDirectory(prefix="headgate-demo-") as folder:
        asyncio.run(_show(options, Path(folder)))
    return 0


async def _show(options: argparse.Namespace, folder: Path) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with demo.simulated() as devices:
        file = config.from_mapping(demo.document(devices, demo.listener(), options.uplink), base=folder)
        async with App(file) as app:
            ends = None if options.seconds is None else loop.time() + options.seconds
            while not stop.is_set() and (ends is None or loop.time() < ends):
                _print(app, options.uplink)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), _REFRESH_S)


def _print(app: App, uplink: str | None) -> None:
    text = demo.table(app.image.samples(), app.image.states, app.clock.wall_ms())
    foot = f"{_how_to_listen(app)}\nCtrl-C ends the demo."
    if uplink is not None:
        foot = f"{app.summary()}.\n{foot}"
    clear = _CLEAR if sys.stdout.isatty() and os.environ.get("TERM") != "dumb" else ""
    print(f"{clear}{text}\n\n{foot}\n", flush=True)


def _how_to_listen(app: App) -> str:
    bound = () if app.broker is None else app.broker.bound
    if not bound:
        return "The demo's broker could not listen."
    port = "" if bound[0].port == demo.PORT else f" -p {bound[0].port}"
    install = "" if shutil.which("mosquitto_sub") else "  (apt install mosquitto-clients)"
    return f"The same values live: mosquitto_sub -h 127.0.0.1{port} -t 'headgate/{demo.NAME}/#' -v{install}"
