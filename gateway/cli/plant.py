"""The simulated devices of `headgate bench`, as a process: `python -m gateway.cli.plant DEVICES TAGS EVERY`.

It finds a driver that can carry such a load through the entry points, prints the `devices` section of a gateway file as
one line of JSON, and serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import orjson

from gateway.cli.run import loop_factory
from gateway.driver import SimulatesLoad, find, installed


def main(devices: int, tags: int, every: str) -> int:
    """Serve until standard input ends."""
    for name in installed():
        driver: Any = find(name)
        if isinstance(driver, SimulatesLoad):
            with asyncio.Runner(loop_factory=loop_factory()) as runner:
                runner.run(_serve(driver, devices, tags, every))
            return 0
    print("no installed driver can simulate a load", file=sys.stderr)
    return 1


async def _serve(driver: SimulatesLoad, devices: int, tags: int, every: str) -> None:
    async with driver.simulate_load(devices, tags, every) as section:
        sys.stdout.write(orjson.dumps(section).decode() + "\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
