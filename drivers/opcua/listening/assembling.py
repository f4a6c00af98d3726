"""Cuts a notification into what its groups get: values of one group, in its order, no tag twice. Pure.

Client handles count through the groups of a subscription, so that a handle says at once where its value belongs:

    group      G0             G1                 starts = [0, 3, 7]
    handles    0  1  2        3  4  5  6

Servers send items in the order of their handles mostly, and then all of a group or some of it. What comes otherwise is
sorted; the k-th value of an item goes into the k-th batch, where they keep the order in which they came.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from operator import itemgetter, lt

from drivers.opcua.values.columns import Columns


@dataclass(frozen=True, slots=True)
class Cut:
    """Values for one group: `index` are the positions in it, ascending, None where they are all of them."""

    group: int
    index: list[int] | None
    columns: Columns


class Layout:
    """Where the handles of each group begin; `total` is how many there are."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.starts = [0, *accumulate(sizes)]
        self.total = self.starts[-1]
        self._handles = list(range(self.total))

    def group_of(self, handle: int) -> int:
        """The number of the group that a handle belongs to."""
        return bisect_right(self.starts, handle) - 1

    def cut(self, columns: Columns) -> tuple[list[Cut], int]:
        """The values of each group, older ones first, and how many had a handle that nobody gave out."""
        handles = columns.handles
        if not handles:
            return [], 0
        if handles == self._handles:
            return list(self._by_group(columns)), 0
        aliens = 0
        if max(handles) >= self.total:
            columns = picked(columns, [at for at, handle in enumerate(handles) if handle < self.total])
            aliens, handles = len(handles) - len(columns.handles), columns.handles
        if all(map(lt, handles, islice(handles, 1, None))):
            return list(self._by_group(columns)), aliens
        return [cut for layer in _layers(columns) for cut in self._by_group(layer)], aliens

    def _by_group(self, columns: Columns) -> Iterator[Cut]:
        """The cuts of columns whose handles ascend, each once."""
        handles, starts = columns.handles, self.starts
        at, count = 0, len(handles)
        while at < count:
            group = bisect_right(starts, handles[at]) - 1
            start, end = starts[group], starts[group + 1]
            stop = bisect_left(handles, end, at)
            part = columns if stop - at == count else _sliced(columns, at, stop)
            index = None if stop - at == end - start else [handle - start for handle in part.handles]
            yield Cut(group, index, part)
            at = stop


def _layers(columns: Columns) -> Iterator[Columns]:
    """The first values of all items, by handle, then their second ones, and so on."""
    handles = columns.handles
    order = sorted(range(len(handles)), key=handles.__getitem__)  # stable: an item's values stay in their order
    layers: list[list[int]] = []
    former, nth = -1, 0
    for at in order:
        handle = handles[at]
        nth = nth + 1 if handle == former else 0
        former = handle
        if nth == len(layers):
            layers.append([])
        layers[nth].append(at)
    for layer in layers:
        yield picked(columns, layer)


def _sliced(columns: Columns, at: int, stop: int) -> Columns:
    return Columns(
        columns.handles[at:stop],
        columns.values[at:stop],
        columns.codes[at:stop],
        columns.source[at:stop],
        columns.server[at:stop],
    )


def picked(columns: Columns, order: Sequence[int]) -> Columns:
    """The columns of these rows, in that order."""
    if len(order) < 2:
        return _sliced(columns, order[0], order[0] + 1) if order else Columns()
    pick = itemgetter(*order)
    return Columns(
        list(pick(columns.handles)),
        list(pick(columns.values)),
        list(pick(columns.codes)),
        list(pick(columns.source)),
        list(pick(columns.server)),
    )
