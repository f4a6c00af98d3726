"""A world whose broker has the real store in a folder, with the writer thread worked by hand, and killed at will.

What a kill leaves is what is in the folder at that moment: it is copied, and another broker is made from the copy.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import deque
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

from gateway.broker.options import Limits
from gateway.broker.store import Store
from gateway.metrics import Metrics


class Writer(Executor):
    """The writer thread's place: nothing is written before `work`."""

    def __init__(self) -> None:
        self.jobs: deque[Any] = deque()

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        job: Future[Any] = Future()
        self.jobs.append((job, fn, args, kwargs))
        return job

    def work(self) -> None:
        """Do one job."""
        job, fn, args, kwargs = self.jobs.popleft()
        job.set_result(fn(*args, **kwargs))


class MemoryDisk:
    """`gateway.journal.disk.Disk` in memory: what was written is there, and a copy costs nothing."""

    def __init__(self, files: dict[str, bytearray] | None = None) -> None:
        self.files = {name: bytearray(data) for name, data in (files or {}).items()}
        self.handles: dict[int, str] = {}

    def names(self) -> list[str]:
        return list(self.files)

    def _have(self, name: str) -> bytearray:
        if name not in self.files:
            raise FileNotFoundError(name)
        return self.files[name]

    def size(self, name: str) -> int:
        return len(self._have(name))

    def open(self, name: str, *, create: bool = False) -> int:
        if create:
            assert name not in self.files
            self.files[name] = bytearray()
        self._have(name)
        handle = len(self.handles) + 1
        self.handles[handle] = name
        return handle

    def close(self, file: int) -> None:
        self.handles[file] = ""

    def pread(self, file: int, size: int, offset: int) -> bytes:
        return bytes(self.files[self.handles[file]][offset : offset + size])

    def pwrite(self, file: int, data: bytes, offset: int) -> None:
        held = self.files[self.handles[file]]
        held.extend(bytes(max(0, offset - len(held))))
        held[offset : offset + len(data)] = data

    def fdatasync(self, file: int) -> None:
        pass

    def sync_folder(self) -> None:
        pass

    def rename(self, old: str, new: str) -> None:
        self.files[new] = self._have(old)
        del self.files[old]

    def unlink(self, name: str) -> None:
        self._have(name)
        del self.files[name]

    def free_bytes(self) -> int:
        return 1 << 30


class House:
    """Makes durable worlds, one after the other. `harness` is that module, loaded."""

    def __init__(self, notation: Any, harness: Any, folder: Path) -> None:
        self.notation = notation
        self.harness = harness
        self.folder = folder
        self.loop = asyncio.new_event_loop()
        self.stores: list[tuple[Store, Writer]] = []
        self.count = 0
        self.last: Any = None

        class DurableWorld(harness.World):  # type: ignore[misc, name-defined]
            """A world that writes at the end of each turn, unless `does_write` is off."""

            house = self
            does_write = True

            def turn(self) -> None:
                super().turn()
                if self.does_write and self.writer.jobs:
                    self.write()

            def write(self, jobs: int = 1_000_000) -> None:
                """Have the writer do its jobs, or so many of them."""
                while self.writer.jobs and jobs:
                    self.writer.work()
                    self.house.pump()
                    jobs -= 1
                self.written()

            def kill(self, later: float = 0.0, **limits: Any) -> Any:
                """The process dies here; another one starts so many seconds later."""
                assert self.house.last is self, "this world is dead already"
                place = self.place
                if isinstance(place, MemoryDisk):
                    place = MemoryDisk(place.files)
                else:
                    place = shutil.copytree(place, self.house.new_folder())
                return self.house.open(place, now=self.now + later, **{**self.named, **limits})

        self._make = DurableWorld

    def open_in_memory(self, **limits: Any) -> Any:
        """A new world whose store is on a disk in memory."""
        return self.open(MemoryDisk(), **limits)

    def pump(self) -> None:
        """Let the loop hear what the writer has done."""
        self.loop.run_until_complete(asyncio.sleep(0))

    def new_folder(self) -> Path:
        """A path in the test's folder, where nothing is yet."""
        self.count += 1
        return self.folder / str(self.count)

    def open(self, place: Any = None, *, now: float | None = None, **limits: Any) -> Any:
        """A world from what is in the place: a folder, a new one where none is given, or a MemoryDisk."""
        place = place or self.new_folder()
        metrics, writer = Metrics(), Writer()
        disk = place if isinstance(place, MemoryDisk) else None
        folder = self.folder / "memory" if disk is not None else place
        opening = Store.open(folder, writer, metrics=metrics, commit_interval_s=1e9, disk=disk)
        store, state = self.loop.run_until_complete(opening)
        self.stores.append((store, writer))
        self.last = world = self._make(
            self.notation,
            limits=Limits(**limits),
            store=store,
            metrics=metrics,
            now=self.harness.START if now is None else now,
        )
        world.place = place
        world.writer = writer
        world.named = limits
        world.state = state
        world.broker.restore(state, world.now)
        world.turn()
        return world

    def close(self) -> None:
        """Give back files and threads."""
        for store, writer in self.stores:
            self.loop.run_until_complete(self._end(store, writer))
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()

    @staticmethod
    async def _end(store: Store, writer: Writer) -> None:
        closing = asyncio.ensure_future(store.close())
        while not closing.done():
            while writer.jobs:
                writer.work()
            await asyncio.sleep(0)
        await closing
