"""`headgate run FILE`: the gateway in the foreground, as a person or a service manager starts it."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

from gateway.app import App
from gateway.config import Config, load
from gateway.systemd import Notifier, log_formatter

SUMMARY = "Run a gateway file in the foreground, as a service does."

log = logging.getLogger("headgate.run")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("file", type=Path, help="the gateway file")
    parser.add_argument(
        "--log-level",
        choices=["debug", "info", "warning", "error"],
        default="info",
        help="least important messages to log, on standard error (default: info)",
    )


def run(options: argparse.Namespace) -> int:
    """Run until SIGTERM or SIGINT; then stop in order within 5 s."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # who asks for a reload this early must not end what only begins
    start_log(options.log_level)
    config = load(options.file)
    for mistake in config.warnings:
        log.warning("%s", mistake)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_run(config))
        if any(not t.daemon for t in threading.enumerate() if t is not threading.main_thread()):
            # All is said and written. A thread that connects or waits for a name or a disk would hold up the end.
            logging.shutdown()
            os._exit(0)
    return 0


def start_log(level: str) -> None:
    """Log to standard error; with priorities where the journal reads it."""
    handler = logging.StreamHandler()
    handler.setFormatter(log_formatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("headgate").setLevel(level.upper())


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Give uvloop where it is installed (64-bit Linux); everything runs without."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


async def _run(config: Config) -> None:
    stop, reload = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reload.set)
    async with App(config, notifier=Notifier()) as app, asyncio.TaskGroup() as tasks:
        reloading = tasks.create_task(_reload(app, reload), name="reload")
        # What is there now stays: tags, plans, modules. Looking through it again and again would hold up the loop.
        gc.collect()
        gc.freeze()
        await stop.wait()
        reloading.cancel()


async def _reload(app: App, asked: asyncio.Event) -> None:
    """Read anew whenever it is asked for; once for all that ask while the files are read."""
    while True:
        await asked.wait()
        asked.clear()
        await app.reload()
