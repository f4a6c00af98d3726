"""Plain counters and gauges. A room counts into the object it is handed; status, and later http, render them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

Labels = tuple[tuple[str, str], ...]


class Counter:
    """A number that only grows. Add to `value` directly: it is one attribute store on the hot path."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class Metrics:
    """The process's counters and gauges by name and labels.

    Names follow the Prometheus convention `subsystem_what_unit[_total]`, without the product's prefix.
    """

    def __init__(self) -> None:
        self._counters: dict[tuple[str, Labels], Counter] = {}
        self._gauges: dict[tuple[str, Labels], Callable[[], float]] = {}

    def counter(self, name: str, **labels: str) -> Counter:
        """The counter of that name and those labels, made on first use: keep it, do not look it up on the hot path."""
        key = (name, tuple(sorted(labels.items())))
        return self._counters.setdefault(key, Counter())

    def gauge(self, name: str, read: Callable[[], float], **labels: str) -> None:
        """Register a gauge that is read when somebody looks; a second registration replaces the first."""
        self._gauges[name, tuple(sorted(labels.items()))] = read

    def __iter__(self) -> Iterator[tuple[str, Mapping[str, str], float]]:
        """Every metric as (name, labels, value), sorted by name."""
        rows: list[tuple[str, Labels, float]] = [(n, ls, c.value) for (n, ls), c in self._counters.items()]
        rows += [(n, ls, read()) for (n, ls), read in self._gauges.items()]
        for name, labels, value in sorted(rows, key=lambda row: row[:2]):
            yield name, dict(labels), value
