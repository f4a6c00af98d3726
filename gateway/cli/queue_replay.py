"""`headgate queue replay`: have a running gateway send a stretch of time once more."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

from gateway.cli import queue_target

SUMMARY = "Have the running gateway send what was taken in a time once more, marked as replay, beside all else."

_LOOK_EVERY_S = 0.5


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    queue_target.declare(parser, with_class=False)
    queue_target.declare_span(parser, "records taken")
    parser.add_argument("--uplink", metavar="NAME", required=True, help="the uplink that sends")
    parser.add_argument("--stop", action="store_true", help="stop the replay that is under way instead")
    parser.add_argument("--no-wait", action="store_true", help="begin it and do not wait for its end")
    parser.set_defaults(complain=parser.error)


def run(options: argparse.Namespace) -> int:
    """Begin, and show how far it is until it is through. Ctrl-C ends the showing only; --stop ends the replay."""
    if options.stop == (options.first is not None) or (options.stop and options.last is not None):
        options.complain("say from when: --from TIME; or --stop")
    from gateway.control import ask

    span = queue_target.span(options)
    folder = queue_target.find(options).folder
    if options.stop:
        ask(folder, {"do": "queue stop replay", "uplink": options.uplink})
        return _told(_replay(ask(folder, {"do": "status"}), options.uplink), options)
    last_ms = span.last if span.last is not None else time.time_ns() // 1_000_000
    request = {"do": "queue replay", "uplink": options.uplink, "first_ms": span.first, "last_ms": last_ms}
    ask(folder, request)
    if not next(u["connected"] for u in ask(folder, {"do": "status"})["uplinks"] if u["name"] == options.uplink):
        print(f"uplink {options.uplink} is not connected: it is sent when it is", file=sys.stderr)
    if options.no_wait:
        return _told(_replay(ask(folder, {"do": "status"}), options.uplink), options)
    try:
        return _told(_watched(lambda: ask(folder, {"do": "status"}), options.uplink), options)
    except KeyboardInterrupt:
        print(f"\nit goes on; `headgate queue replay --stop --uplink {options.uplink}` ends it", file=sys.stderr)
        raise


def _watched(look: Callable[[], dict[str, Any]], uplink: str) -> dict[str, Any]:
    """Wait for the end, and show the way there."""
    from gateway.cli.queue_progress import Progress

    state = _replay(look(), uplink)
    with Progress("replay", max(1, state["last_ms"] - state["first_ms"]), unit="ms") as progress:
        done = state["first_ms"]
        while not state["done"]:
            time.sleep(_LOOK_EVERY_S)
            state = _replay(look(), uplink)
            position = state["position_ms"] or done
            progress.advance(max(0, position - done))
            done = max(done, position)
    return state


def _replay(status: dict[str, Any], uplink: str) -> dict[str, Any]:
    """The uplink's latest replay. Raises RefusedError where there was none."""
    from gateway.errors import RefusedError

    found = next((u["replay"] for u in status["uplinks"] if u["name"] == uplink), None)
    if found is None:
        raise RefusedError(f"uplink '{uplink}' has no replay")
    state: dict[str, Any] = found
    return state


def _told(state: dict[str, Any], options: argparse.Namespace) -> int:
    """Exit code 1 when it ended before its end."""
    if options.json:
        queue_target.print_json(state)
    else:
        how = f"ended early: {state['error']}" if state["error"] else "done" if state["done"] else "goes on"
        print(f"replay to uplink {options.uplink}: {state['sent']} records acknowledged, {how}")
    return int(bool(state["error"]) and not options.stop)
