"""What the server gave, as samples of a batch: labels, qualities and times in one place for all who make batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import compress
from types import NoneType
from typing import Final

from drivers.opcua.nodes.known import Known
from drivers.opcua.plan import Plan
from drivers.opcua.values.belief import Belief
from drivers.opcua.values.columns import Columns, wall_ms, wall_times
from drivers.opcua.values.status import BAD, BAD_NO_DATA, quality_of
from gateway.model import GOOD, Batch, Quality, ScanGroup, Value, bad, uncertain

_NUMBERS: Final = {int, float, bool}
_NUMERIC: Final = ("int", "uint", "float", "bcd", "bool")
"""How the names of types begin whose good values must be numbers: C does sums on them [gateway.model.Definition]."""


class Finisher:
    """Makes batches of one group. `known` stand beside the group's tags; `belief` says which times can be."""

    def __init__(self, group: ScanGroup, known: Sequence[Known], belief: Belief) -> None:
        plan: Plan = group.plan
        self._group = group
        self._by_server = plan.options.time == "server"
        self._keeps_server = plan.options.server_times
        self._numeric = [kind.startswith(_NUMERIC) for kind in group.types]
        self._labels = {
            at: node.labels
            for at, (node, item) in enumerate(zip(known, plan.items, strict=True))
            if node.labels and item.options.enum == "name"
        }
        self._belief = belief

    def batch(
        self, columns: Columns, arrival: int, index: Sequence[int] | None = None, *, is_history: bool = False
    ) -> Batch:
        """A batch of these columns; without `index` they are the whole group's, in its order.

        `arrival`: wall time in ms when they came. A batch of history has the time of its newest value instead.
        """
        values, quality = self.judge(columns.values, columns.codes, index)
        times = self._times(columns, arrival)
        return Batch(
            self._group,
            max(times) if is_history and times else arrival,
            values,
            quality,
            index,
            times,
            server_times=wall_times(columns.server) if self._keeps_server else None,
            is_history=is_history,
        )

    def judge(
        self, values: list[Value], codes: list[int], index: Sequence[int] | None = None
    ) -> tuple[Sequence[Value], Quality | list[Quality]]:
        """Values as they are published, and how far they can be trusted. Plain good values pass as they are.

        A bad value is None, whatever the server sent with it; so is one of another kind than its tag's type.
        """
        is_good = not any(codes)
        if is_good and not self._labels and self._fit(values, index):
            return values, GOOD
        values = list(values)
        quality = [GOOD] * len(values) if is_good else list(map(quality_of, codes))
        places = range(len(values)) if index is None else index
        for k, code in enumerate(codes if not is_good else ()):
            if code >= BAD:
                values[k] = None
        if self._labels:
            for k, place in enumerate(places):
                if place in self._labels and values[k] is not None:
                    values[k], quality[k] = labelled(values[k], self._labels[place], quality[k])
        if not self._fit(values, index):
            for k, place in enumerate(places):
                values[k], quality[k] = self._fitted(values[k], quality[k], codes[k], is_number=self._numeric[place])
        return values, quality if any(q is not GOOD for q in quality) else GOOD

    def _fit(self, values: Sequence[Value], index: Sequence[int] | None) -> bool:
        """Whether every value is there, and those of numeric tags are numbers."""
        kinds = set(map(type, values))
        if kinds <= _NUMBERS:
            return True
        flags = self._numeric if index is None else map(self._numeric.__getitem__, index)
        return NoneType not in kinds and set(map(type, compress(values, flags))) <= _NUMBERS

    def _fitted(self, value: Value, quality: Quality, code: int, *, is_number: bool) -> tuple[Value, Quality]:
        if value is None:
            return None, quality if code >= BAD else quality_of(BAD_NO_DATA)
        return (None, bad("decode")) if is_number and type(value) not in _NUMBERS else (value, quality)

    def _times(self, columns: Columns, arrival: int) -> list[int] | None:
        """When each value was measured, in ms: what the options name, the other where that is missing, else `arrival`.

        None where it is `arrival` for all. A time that cannot be is not believed.
        """
        first, second = columns.source, columns.server
        if self._by_server:
            first, second = second, first
        if not first:
            return None
        lowest, highest = min(first), max(first)
        if self._belief.holds(lowest, highest, arrival):
            return [wall_ms(lowest)] * len(first) if lowest == highest else wall_times(first)
        if not highest and not any(second):
            return None
        refuses = self._belief.refuses
        believed = (one or other for one, other in zip(first, second, strict=True))
        return [arrival if refuses(ticks, arrival) else wall_ms(ticks) for ticks in believed]


def labelled(value: Value, labels: Mapping[int, str], quality: Quality = GOOD) -> tuple[Value, Quality]:
    """The names of an enumeration's numbers; digits, and at most uncertain, for a number that has none."""
    if isinstance(value, list):
        parts = [labelled(part, labels, quality) for part in value]
        return [part for part, _ in parts], next((q for _, q in parts if q is not quality), quality)
    if not isinstance(value, int):
        return None, bad("decode")
    name = labels.get(value)
    if name is not None:
        return name, quality
    return str(value), uncertain("range") if quality.level == "good" else quality
