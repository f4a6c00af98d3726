"""The process image: the latest sample of each tag and the latest state of each device, updated in place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gateway.model import GOOD, Batch, Definition, DeviceState, Quality, Value, bad


@dataclass(frozen=True, slots=True)
class Sample:
    """One value with quality and time (ms since 1970): what a reader of the image gets."""

    device: str
    tag: str
    value: Value
    quality: Quality
    time: int
    unit: str


class _Page:
    """Latest values of one group, as parallel lists in the group's order. A dense batch replaces whole lists."""

    __slots__ = ("group", "quality", "time", "times", "values")

    def __init__(self, group: Definition) -> None:
        n = len(group.names)
        self.group = group
        self.values: Sequence[Value] = [None] * n
        self.quality: Quality | Sequence[Quality] = bad("startup")
        self.time = 0
        self.times: Sequence[int] | None = None


class Image:
    """Latest sample of each tag. `note` is O(1) for a dense batch: it keeps the batch's own lists."""

    def __init__(self) -> None:
        self._pages: dict[Definition, _Page] = {}
        self.states: dict[str, DeviceState] = {}

    def add(self, group: Definition) -> None:
        """Make room for a group; its tags read `bad:startup` until the first batch."""
        self._pages[group] = _Page(group)

    def remove(self, device: str) -> None:
        """Forget a device and all its groups."""
        for group in [g for g in self._pages if g.device == device]:
            del self._pages[group]
        self.states.pop(device, None)

    def note(self, batch: Batch) -> None:
        """Take a batch of a group that was added."""
        page = self._pages[batch.group]
        if batch.index is None:
            page.values, page.quality, page.time, page.times = batch.values, batch.quality, batch.time, batch.times
            return
        n = len(page.values)
        values = list(page.values)
        quality = [page.quality] * n if isinstance(page.quality, Quality) else list(page.quality)
        times = [page.time] * n if page.times is None else list(page.times)
        for k, i in enumerate(batch.index):
            values[i] = batch.values[k]
            quality[i] = batch.quality if isinstance(batch.quality, Quality) else batch.quality[k]
            times[i] = batch.time if batch.times is None else batch.times[k]
        page.values, page.quality, page.time, page.times = values, quality, batch.time, times

    def samples(self, device: str | None = None) -> Iterator[Sample]:
        """Every tag's latest sample, or those of one device, in the order of the file."""
        for group, page in self._pages.items():
            if device is not None and group.device != device:
                continue
            for i, name in enumerate(group.names):
                quality = page.quality if isinstance(page.quality, Quality) else page.quality[i]
                time = page.time if page.times is None else page.times[i]
                yield Sample(group.device, name, page.values[i], quality, time, group.units[i])

    def batches(self) -> Iterator[Batch]:
        """The same as `samples`, a dense batch for each group."""
        for group, page in self._pages.items():
            yield Batch(group, page.time, page.values, page.quality, times=page.times)

    def count_bad(self, device: str) -> int:
        """How many tags of a device are not good right now."""
        return sum(s.quality != GOOD for s in self.samples(device))
