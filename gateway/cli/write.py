"""`headgate write FILE DEVICE TAG VALUE`: write one tag, by the running gateway or, where none runs, by itself.

`headgate write URL ADDRESS VALUE` writes to a device that no file describes.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.config import Config
    from gateway.driver import Driver
    from gateway.model import Value

SUMMARY = "Write one tag, within its limits, and show what it holds then."

_PATIENCE_S = 30.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    from gateway.cli import adhoc

    parser.add_argument("file", metavar="FILE|URL", help="the gateway file, or a device's url")
    parser.add_argument("device", metavar="DEVICE|ADDRESS", help="the device; of a url: the address")
    parser.add_argument(
        "tag", metavar="TAG|VALUE", help="its tag, one that may be written (write: in the file); of a url: the value"
    )
    parser.add_argument(
        "value", nargs="?", help='the value, or an object as in MQTT: \'{"value": 1, "expires": "5s"}\''
    )
    parser.add_argument("--json", action="store_true", help="print the reply as one JSON document")
    parser.add_argument("--yes", action="store_true", help="with a url: do not ask first")
    adhoc.declare(parser)


def run(options: argparse.Namespace) -> int:
    """Write and print the reply. Exit code 1 when it was refused or failed."""
    import orjson

    from gateway.cli import adhoc, desk
    from gateway.config import load
    from gateway.control import NotRunningError, ask

    if desk.is_url(options.file):
        if options.value is not None:
            raise desk.wrong("write to a url needs an address and a value: write URL holding:100 1.5 --type float32")
        return adhoc.send(options, options.device, options.tag)
    if options.value is None:
        raise desk.wrong("write needs a device, a tag and a value: write FILE DEVICE TAG VALUE")
    config = load(desk.gateway_file(options.file))
    request = {"do": "write", "device": options.device, "tag": options.tag, "payload": options.value}
    try:
        reply: dict[str, Any] = ask(config.spool.path, request, timeout_s=_PATIENCE_S)["reply"]
    except NotRunningError:
        print("no gateway runs on this file: writing to the device directly, without an audit entry", file=sys.stderr)
        reply = asyncio.run(_write(config, request))
    if options.json:
        print(orjson.dumps(reply, option=orjson.OPT_INDENT_2, default=str).decode())
    elif reply["ok"]:
        print(f"{options.device}/{options.tag} = {orjson.dumps(reply['value'], default=str).decode()}")
    else:
        print(f"{options.device}/{options.tag}: {reply['code']}: {reply['error']}")
    return 0 if reply["ok"] else 1


async def _write(config: Config, request: dict[str, Any]) -> dict[str, Any]:
    """The same rules, on a line that is opened for this one command."""
    from gateway.clock import SystemClock
    from gateway.commands.ids import Ids
    from gateway.commands.taking import Commands
    from gateway.commands.targets import Targets
    from gateway.driver import find
    from gateway.errors import LineError
    from gateway.metrics import Metrics

    clock, metrics = SystemClock(), Metrics()
    lines: dict[str, _Line] = {}
    commands = Commands(
        Targets(config.lines, config.groups, config.prefix),
        lines=lines.get,
        states={},
        audit=None,
        ids=Ids(),
        is_clock_right=lambda: clock.state() == "synced",
        clock=clock,
        metrics=metrics,
    )
    running = asyncio.create_task(commands.run(), name="commands")
    await asyncio.sleep(0)
    names = {part.name: key for key, devices in config.lines.items() for d in devices for part in (d, *d.parts)}
    key = names.get(request["device"])
    try:
        if key is None:  # which the reply says
            return dict((await commands.ask(request))["reply"])
        devices = config.lines[key]
        try:
            async with find(devices[0].driver)(devices, clock=clock, metrics=metrics) as driver:
                lines[key.port] = _Line(driver)
                return dict((await commands.ask(request))["reply"])
        except LineError as error:
            return {"ok": False, "code": "offline", "error": f"not written: {error}"}
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


class _Line:
    """A line that is not polled."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    @contextmanager
    def borrow(self) -> Iterator[Driver]:
        yield self._driver

    def hurry(self, device: str, tag: str) -> None:
        """Nothing is polled, so nothing is hurried."""

    def show(self, device: str, tag: str, raw: Value) -> None:
        """Nobody looks."""
