"""What was read together, dealt out to the parts of a device that it belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from gateway.acquisition.deadband import Report
from gateway.acquisition.scaling import Scaling
from gateway.model import Batch, Part, Quality, ScanGroup


class Outlet:
    """What stands between the values of one group, as they were read, and the world: its stages."""

    __slots__ = ("group", "report", "scaling")

    def __init__(self, group: ScanGroup) -> None:
        self.group = group
        self.scaling = Scaling(group)
        self.report = Report(group)


def outlets_of(group: ScanGroup) -> tuple[Outlet, ...]:
    """The outlets of a group: its own, or one for each part of its device that has tags in it, in their order."""
    return tuple(Outlet(part.group) for part in group.parts) or (Outlet(group),)


def deal(batch: Batch, parts: tuple[Part, ...]) -> Iterator[tuple[int, Batch]]:
    """One batch for each part that has values in this one, with the part's place among them.

    Equal raw bytes of the whole mean equal values of a part, so they go with each.
    """
    for place, part in enumerate(parts):
        if batch.index is None:
            kept = list(enumerate(part.positions))
        else:
            column = {position: k for k, position in enumerate(batch.index)}
            kept = [(i, column[position]) for i, position in enumerate(part.positions) if position in column]
        if not kept:
            continue
        quality = batch.quality
        yield (
            place,
            replace(
                batch,
                group=part.group,
                values=[batch.values[k] for _, k in kept],
                quality=quality if isinstance(quality, Quality) else [quality[k] for _, k in kept],
                index=None if batch.index is None else [i for i, _ in kept],
                times=None if batch.times is None else [batch.times[k] for _, k in kept],
                server_times=None if batch.server_times is None else [batch.server_times[k] for _, k in kept],
            ),
        )
