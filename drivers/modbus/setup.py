"""Writes that a device gets before it is first read on a connection, and when it is back after an outage.

They stand in the file as `setup`; they are checked with everything else, and never published. As long as one of them
fails the device counts as failing: what it would be read as is not what was meant.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from drivers.modbus.options import DeviceOptions, SetupWrite
from drivers.modbus.values.encode import encode_bits
from drivers.modbus.writing import Target, Writer, request_of, target_of
from gateway.errors import DeviceError, FileError, Mistake, TagError
from gateway.metrics import Metrics
from gateway.model import Device, Tag, Value


def setup_of(device: Device, options: DeviceOptions) -> list[tuple[Target, Value]]:
    """The writes of a device, in the order of the file. Raises FileError with every mistake."""
    writes: list[tuple[Target, Value]] = []
    mistakes: list[Mistake] = []
    for number, entry in enumerate(options.setup, 1):
        try:
            target = target_of(device, _tag(number, entry), options)
            _check_value(target, entry.value)
            writes.append((target, entry.value))
        except ValueError as error:
            mistakes += [Mistake(device.place, f"setup {number} ({entry.address}): {fault}") for fault in error.args]
    if mistakes:
        raise FileError(mistakes)
    return writes


def _tag(number: int, entry: SetupWrite) -> Tag:
    """A tag that is never read."""
    length = {"length": max(len(str(entry.value)), 1)} if entry.type == "string" else {}
    return Tag(name=f"setup {number}", address=entry.address, type=entry.type, order=entry.order, options=length)


def _check_value(target: Target, value: Value) -> None:
    if target.slot.field.bit is not None:
        encode_bits(target.slot.field, value)
    else:
        request_of(target, value)


class Setup:
    """Which devices of a line wait for their writes, and the writing. `pending` holds the names of those that do."""

    def __init__(self, devices: Iterable[tuple[Device, DeviceOptions]], writer: Writer, metrics: Metrics) -> None:
        self._writes = {device.name: setup_of(device, options) for device, options in devices if options.setup}
        self._busy = {name: asyncio.Lock() for name in self._writes}  # a poll and a command may both find it pending
        self._writer = writer
        self._metrics = metrics
        self.pending: set[str] = set()

    def expect(self, *names: str) -> None:
        """These devices are met anew; without names, all are."""
        self.pending.update(name for name in names or self._writes if name in self._writes)

    async def perform(self, name: str) -> None:
        """Write what the device waits for, in order. Raises DeviceError with the first that failed, or LineError."""
        async with self._busy[name]:
            if name not in self.pending:
                return
            for number, (target, value) in enumerate(self._writes[name], 1):
                self._metrics.counter("modbus_setup_writes_total", device=name).value += 1
                try:
                    await self._writer.write(target, value)
                except (TagError, DeviceError) as error:
                    self._metrics.counter("modbus_setup_failures_total", device=name).value += 1
                    raise DeviceError(f"setup {number} of {error}", cause=error.cause) from error
            self.pending.discard(name)
