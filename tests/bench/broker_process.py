"""A gateway that is a broker alone, on the event loop that is asked for: broker_process.py FILE asyncio|uvloop."""

import asyncio
import gc
import sys
from pathlib import Path

from gateway.app import App
from gateway.config import load


async def main(file):
    async with App(load(Path(file))):
        gc.collect()
        gc.freeze()
        await asyncio.Event().wait()


if sys.argv[2] == "uvloop":
    import uvloop

    factory = uvloop.new_event_loop
else:
    factory = asyncio.new_event_loop
with asyncio.Runner(loop_factory=factory) as runner:
    runner.run(main(sys.argv[1]))
