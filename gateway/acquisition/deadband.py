"""Report by exception: which samples of a batch are worth sending.

A tag with `on: always` is sent after every poll. A tag with `on: change` is sent when its value left the deadband
around the last sent value, when its quality changed, or when `max_silence` has passed. When a whole read fails, that is
sent once for every tag, and again only as heartbeat: an outage of a day is not a day of nulls.

What is polled comes again by itself, and `max_silence` is looked at then. Of a group that is pushed somebody must ask
what was silent for too long, and say it again: `next_beat` tells when, `overdue` what.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from gateway.model import GOOD, Batch, Quality, ScanGroup, Value, bad

_NEVER = float("inf")
_NEVER_SENT = bad("startup")

_EARLY = 0.1
"""Tags that are pushed are said again up to a tenth of `max_silence` early: so that those of a group go together, and
those of all groups not at once."""


class Report:
    """The filter of one group. Call it with each batch, in order; it gives the batch to send, or None.

    It keeps per tag what was sent last. `now` is monotonic time in seconds, used for heartbeats only.
    """

    def __init__(self, group: ScanGroup) -> None:
        n = len(group.tags)
        self._n = n
        self._always = [t.on == "always" for t in group.tags]
        self._has_beats = any(t.max_silence_s is not None for t in group.tags)
        self._is_dense = all(self._always) and not (group.is_pushed and self._has_beats)
        self._has_always = any(self._always)
        self._is_numeric = group.is_numeric
        self._bands = [t.deadband for t in group.tags]
        lead = _EARLY * group.hash[0] / 255 if group.is_pushed else 0.0
        self._silence = [_NEVER if t.max_silence_s is None else t.max_silence_s * (1 - lead) for t in group.tags]
        self._sent: list[Value] = [None] * n
        self._grade: list[Quality] = [_NEVER_SENT] * n
        self._width = [0.0] * n
        self._beat_at = [_NEVER] * n
        self.next_beat = _NEVER  # monotonic time at which the first tag has been silent for too long
        self._is_plain = False  # whether every tag is a number and was last sent as good
        self._raw: bytes | None = None
        self._outage: Quality | None = None

    def __call__(self, batch: Batch, now: float) -> Batch | None:
        """The part of `batch` to send: itself, a sparse batch, or None."""
        quality = batch.quality
        if quality is not GOOD and isinstance(quality, Quality) and batch.index is None and quality.level == "bad":
            return self._on_failure(batch, quality, now)
        self._outage = None
        if self._is_dense:
            return batch
        is_quiet = not self._has_always and now < self.next_beat
        if is_quiet and batch.raw is not None and batch.raw == self._raw:
            return None
        self._raw = batch.raw if quality is GOOD else None
        positions: Sequence[int] = range(self._n) if batch.index is None else batch.index
        grades = [quality] * len(positions) if isinstance(quality, Quality) else quality
        if is_quiet and self._is_plain and quality is GOOD and batch.index is None:
            chosen = self._outside(batch.values)
        else:
            chosen = [
                k
                for k, i in enumerate(positions)
                if self._always[i] or now >= self._beat_at[i] or self._is_news(i, batch.values[k], grades[k])
            ]
        self._note(chosen, positions, batch.values, grades, now)
        return self._part(batch, positions, grades, chosen)

    def overdue(self, now: float) -> list[int]:
        """Positions of the tags to say again now, ascending; each for once in a tenth of its `max_silence` at most."""
        rows = zip(self._beat_at, self._silence, strict=True)
        return [i for i, (at, silence) in enumerate(rows) if at != _NEVER and at - _EARLY * silence <= now]

    def note(self, batch: Batch, now: float) -> None:
        """Remember a sparse batch that is sent without having been asked for."""
        positions = batch.index or ()
        grades = [batch.quality] * len(positions) if isinstance(batch.quality, Quality) else batch.quality
        self._note(range(len(positions)), positions, batch.values, grades, now)

    def _outside(self, values: Sequence[Any]) -> list[int]:
        """Positions of the numbers that left their band: one pass for a group of good numbers, sent good before."""
        rows = zip(values, self._sent, self._width, strict=True)
        try:
            return [k for k, (v, last, width) in enumerate(rows) if not -width <= v - last <= width]
        except TypeError:  # a device that says by itself what it holds may say otherwise than the mapping
            return [k for k, value in enumerate(values) if self._is_news(k, value, GOOD)]

    def _on_failure(self, batch: Batch, quality: Quality, now: float) -> Batch | None:
        first = quality != self._outage
        self._outage = quality
        self._raw = None
        chosen = [i for i in range(self._n) if first or now >= self._beat_at[i]]
        grades = [quality] * self._n
        self._note(chosen, range(self._n), batch.values, grades, now)
        return self._part(batch, range(self._n), grades, chosen)

    def _is_news(self, i: int, value: Value, grade: Quality) -> bool:
        if grade != self._grade[i]:
            return True
        last = self._sent[i]
        if self._bands[i] is not None and isinstance(value, (int, float)) and isinstance(last, (int, float)):
            return abs(value - last) > self._width[i]
        return value != last or type(value) is not type(last)

    def _note(
        self,
        chosen: Sequence[int],
        positions: Sequence[int],
        values: Sequence[Value],
        grades: Sequence[Quality],
        now: float,
    ) -> None:
        """Remember what is being sent."""
        if not chosen:
            return
        for k in chosen:
            i, value = positions[k], values[k]
            self._sent[i] = value
            self._grade[i] = grades[k]
            band = self._bands[i]
            if band is not None and isinstance(value, (int, float)):
                self._width[i] = abs(value) * band.width / 100 if band.percent else band.width
            self._beat_at[i] = now + self._silence[i]
        if self._has_beats:
            self.next_beat = min(self._beat_at)
        self._is_plain = self._is_numeric and all(grade is GOOD for grade in self._grade)

    def _part(
        self, batch: Batch, positions: Sequence[int], grades: Sequence[Quality], chosen: list[int]
    ) -> Batch | None:
        if not chosen:
            return None
        if len(chosen) == len(positions):
            return batch
        picked = [grades[k] for k in chosen]
        return replace(
            batch,
            values=[batch.values[k] for k in chosen],
            quality=GOOD if all(q is GOOD for q in picked) else picked,
            index=[positions[k] for k in chosen],
            times=None if batch.times is None else [batch.times[k] for k in chosen],
            server_times=None if batch.server_times is None else [batch.server_times[k] for k in chosen],
            raw=None,
        )
