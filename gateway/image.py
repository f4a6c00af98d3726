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
    """Latest values of one group, as parallel lists in the group's order. A dense batch replaces whole lists.

    `is_own`: the lists are the page's own, and nobody else has seen them: they may be changed.
    """

    __slots__ = ("group", "is_own", "quality", "server_times", "time", "times", "values")

    def __init__(self, group: Definition) -> None:
        n = len(group.names)
        self.group = group
        self.values: Sequence[Value] = [None] * n
        self.quality: Quality | Sequence[Quality] = bad("startup")
        self.time = 0
        self.times: Sequence[int] | None = None
        self.server_times: Sequence[int] | None = None
        self.is_own = False

    def whole(self, batch: Batch) -> None:
        """Take a dense batch, as it is."""
        self.values, self.quality, self.time, self.times = batch.values, batch.quality, batch.time, batch.times
        self.server_times, self.is_own = batch.server_times, False

    def some(self, batch: Batch, index: Sequence[int]) -> None:
        """Take a sparse batch."""
        values, quality, times = self._owned()
        for k, i in enumerate(index):
            values[i] = batch.values[k]
            quality[i] = batch.quality if isinstance(batch.quality, Quality) else batch.quality[k]
            times[i] = batch.time if batch.times is None else batch.times[k]
        if batch.server_times is not None:
            known = [0] * len(values) if self.server_times is None else list(self.server_times)
            for k, i in enumerate(index):
                known[i] = batch.server_times[k]
            self.server_times = known
        self.time = batch.time

    def _owned(self) -> tuple[list[Value], list[Quality], list[int]]:
        """The lists, to be changed."""
        values, quality, times = self.values, self.quality, self.times
        if self.is_own and isinstance(values, list) and isinstance(quality, list) and isinstance(times, list):
            return values, quality, times
        n = len(values)
        own = list(values)
        grades = [quality] * n if isinstance(quality, Quality) else list(quality)
        stamps = [self.time] * n if times is None else list(times)
        self.values, self.quality, self.times, self.is_own = own, grades, stamps, True
        return own, grades, stamps


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

    def replace(self, old: Sequence[Definition], new: Sequence[Definition]) -> None:
        """Have these groups in the place of those; what is known of groups that are among both stays."""
        gone = set(old)
        pages: dict[Definition, _Page] = {}
        for group, page in self._pages.items():
            if group not in gone:
                pages[group] = page
            elif group is old[0]:
                pages |= {come: self._pages.get(come) or _Page(come) for come in new}
        if not old:
            pages |= {come: _Page(come) for come in new}
        self._pages = pages

    def note(self, batch: Batch) -> None:
        """Take a batch of a group that was added."""
        page = self._pages[batch.group]
        if batch.index is None:
            page.whole(batch)
        else:
            page.some(batch, batch.index)

    def samples(self, device: str | None = None) -> Iterator[Sample]:
        """Every tag's latest sample, or those of one device, in the order of the file."""
        for group, page in list(self._pages.items()):
            if device is not None and group.device != device:
                continue
            for i, name in enumerate(group.names):
                quality = page.quality if isinstance(page.quality, Quality) else page.quality[i]
                time = page.time if page.times is None else page.times[i]
                yield Sample(group.device, name, page.values[i], quality, time, group.units[i])

    def batches(self) -> Iterator[Batch]:
        """The same as `samples`, a dense batch for each group."""
        for group, page in list(self._pages.items()):
            page.is_own = False
            yield Batch(group, page.time, page.values, page.quality, times=page.times, server_times=page.server_times)

    def part(self, group: Definition, positions: Sequence[int], time: int) -> Batch:
        """The latest samples of some tags of a group as a batch of `time`; each keeps its own time as source time."""
        page = self._pages[group]
        quality, times, served = page.quality, page.times, page.server_times
        picked = quality if isinstance(quality, Quality) else [quality[i] for i in positions]
        return Batch(
            group,
            time,
            [page.values[i] for i in positions],
            picked if isinstance(picked, Quality) or any(q is not GOOD for q in picked) else GOOD,
            positions,
            [page.time] * len(positions) if times is None else [times[i] for i in positions],
            server_times=None if served is None else [served[i] for i in positions],
        )

    def count(self, device: str) -> int:
        """How many tags a device has."""
        return sum(len(group.names) for group in self._pages if group.device == device)

    def count_bad(self, device: str) -> int:
        """How many tags of a device are not good right now."""
        return sum(s.quality.level != "good" for s in self.samples(device))
