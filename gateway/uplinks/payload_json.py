"""Payload `json`: one record, one JSON object, `{"ts":…,"seq":…,"epoch":…,"values":{…}}`.

In this order, each where it has something to say: `ts` (ms), `seq`, `epoch`, `values`, `quality` (only of values that
are not simply good), `times` (source times in ms, only where they differ from `ts`), `server_times` (when the server
that handed a value on had it, only where that differs from its source time), `history`, `replay`, `thinned`, `clock`,
`part`.

`"history":true` marks what was read later from what the device remembers: it is older than what was sent before, and
`ts` is the time of the newest value in it. It is never retained.

Last values, sent after a connect, are no record: they have no `seq` and no `epoch`, but `"latest":true`.

A bad value is null. An uncertain one keeps what is known of it, and so does a good one with a status of its own
(`good:GoodClamped`); NaN and infinities are null and `uncertain:nan`: of an array or a structure only that element is
null. Bytes are lower-case hexadecimal text. Integers of any size are exact. What JSON cannot say is null and
`bad:decode`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from math import isfinite
from typing import Any, TypeAlias

import orjson

from gateway.floats import holds_nan
from gateway.model import GOOD, Batch, Definition, Quality, Value, bad, uncertain
from gateway.uplinks.digits import Digits
from gateway.uplinks.message import NO_MARKS, Message, Room
from gateway.uplinks.topics import Template

log = logging.getLogger("headgate.uplinks")

Skipped: TypeAlias = Callable[[str, str], None]
"""Told the topic and the reason of each value or record that cannot be sent."""

_Columns: TypeAlias = dict[str, dict[str, Any]]
"""`values`, and `quality`, `times` and `server_times` where they say something, each by tag."""

_KEEP = 1024
_PART_SIZE = len(b',"part":[99999,99999]')


class JsonPayload:
    """Encodes batches. What is left to fill in `topic` is `{device}` and the device's own fields."""

    def __init__(self, topic: Template, *, retain: bool, skipped: Skipped) -> None:
        self._topic = topic
        self._retain = retain
        self._skipped = skipped
        self._forms: dict[bytes, _Form] = {}

    def encode(
        self, batch: Batch, seq: int, epoch: str, *, replay: bool, room: Room, marks: Mapping[str, Any] = NO_MARKS
    ) -> Iterator[Message]:
        """The messages of one record. Raises TopicError where the batch's definition gives no topic."""
        head = {"ts": batch.time, "seq": seq, "epoch": epoch}
        tail = {"replay": True, **marks} if replay else marks
        if batch.is_history:
            tail = {"history": True, **tail}
        return self._encode(batch, head, tail, room, retain=self._retain and not replay and not batch.is_history)

    def latest(self, batch: Batch, room: Room) -> Iterator[Message]:
        """Last values; none of a group that was never read. Raises TopicError."""
        if not batch.time:
            return iter(())
        return self._encode(batch, {"ts": batch.time}, {"latest": True}, room, retain=self._retain)

    def _encode(
        self, batch: Batch, head: dict[str, Any], tail: Mapping[str, Any], room: Room, *, retain: bool
    ) -> Iterator[Message]:
        form = self._forms.get(batch.group.hash) or self._form(batch.group)
        names = form.names if batch.index is None else [form.names[i] for i in batch.index]
        values = form.digits.of(batch.values, batch.index)
        if batch.times is None and batch.server_times is None and batch.quality == GOOD:
            columns: _Columns = {"values": dict(zip(names, values, strict=True))}
        else:
            columns = _described(names, values, batch.quality, batch)
        try:
            payload = to_json({**head, **columns, **tail})
            strange = b"null" in payload and _holds_nan(values, payload)
        except TypeError:  # orjson's JSONEncodeError is one: beyond 64 bits, no UTF-8, a type JSON has no word for
            strange = True
        if strange:
            columns = _described(names, *_plain(values, batch.quality), batch)
            payload = to_json({**head, **columns, **tail})
        if len(payload) + form.topic_size <= room.aim:
            return iter((Message(form.topic, payload, retain),))
        frame = {**head, "values": {}, "quality": {}, "times": {}, "server_times": {}, **tail}
        parts = self._parts(form.topic, columns, room.less(form.topic_size + len(to_json(frame)) + _PART_SIZE))
        return (
            Message(form.topic, to_json({**head, **part, **tail, "part": (number, len(parts))}), retain)
            for number, part in enumerate(parts, 1)
        )

    def _form(self, definition: Definition) -> _Form:
        values = {**definition.fields, "device": definition.device}
        form = _Form(definition, self._topic.fill(values))
        missing = sorted(name for name in self._topic.names if not values.get(name))
        if missing:
            log.warning("device '%s' has no %s: '_' stands for it in '%s'", definition.device, missing, form.topic)
        if len(self._forms) >= _KEEP:
            del self._forms[next(iter(self._forms))]
        self._forms[definition.hash] = form
        return form

    def _parts(self, topic: str, columns: _Columns, room: Room) -> list[_Columns]:
        """The columns in parts that fit, in the order of the values. What fits nowhere is told to `skipped`."""
        parts: list[list[str]] = []
        left = 0
        for name in columns["values"]:
            size = sum(len(to_json({name: column[name]})) for column in columns.values() if name in column)
            if size > room.most:
                self._skipped(topic, f"'{name}' alone has {size} bytes, {max(room.most, 0)} are left for it")
                continue
            if size > left or not parts:
                parts.append([])
                left = max(room.aim, size)
            parts[-1].append(name)
            left -= size
        return [_chosen(columns, part) for part in parts]


class _Form:
    """What a definition decides for all its batches."""

    __slots__ = ("digits", "names", "topic", "topic_size")

    def __init__(self, definition: Definition, topic: str) -> None:
        self.topic = topic
        self.topic_size = len(topic.encode())
        self.names = definition.names
        self.digits = Digits(definition)


def _described(
    names: Sequence[str], values: Sequence[Value], quality: Quality | Sequence[Quality], batch: Batch
) -> _Columns:
    """The columns of a batch that is not good throughout, or has times of its own."""
    known = dict(zip(names, values, strict=True))
    if isinstance(quality, Quality):
        poor = {} if quality == GOOD else dict.fromkeys(names, quality)
    else:
        poor = {name: q for name, q in zip(names, quality, strict=True) if q is not GOOD and q != GOOD}
    for name, q in poor.items():
        if q.startswith("bad"):
            known[name] = None
    columns: _Columns = {"values": known}
    if poor:
        columns["quality"] = poor
    times = {} if batch.times is None else {n: t for n, t in zip(names, batch.times, strict=True) if t != batch.time}
    if times:
        columns["times"] = times
    if batch.server_times is not None:
        served = zip(names, batch.server_times, strict=True)
        found = {name: t for name, t in served if t and t != times.get(name, batch.time)}
        columns |= {"server_times": found} if found else {}
    return columns


def _chosen(columns: _Columns, part: list[str]) -> _Columns:
    chosen = {key: {name: column[name] for name in part if name in column} for key, column in columns.items()}
    return {key: column for key, column in chosen.items() if column}


def to_json(value: object) -> bytes:
    """JSON of a value or document; bytes as hexadecimal text. Raises TypeError where JSON has no word for it."""
    return orjson.dumps(value, default=_foreign)


def _foreign(value: object) -> str:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return value.hex()
    raise TypeError


def _holds_nan(values: Sequence[Any], payload: bytes) -> bool:
    """Whether a NaN or an infinity became null; counting the nulls answers nearly always."""
    # No sum tells of arrays: one that holds a null has it behind a bracket or a comma.
    return (payload.count(b":null") != values.count(None) or b"[null" in payload or b",null" in payload) and any(
        not isfinite(value) if type(value) is float else holds_nan(value) for value in values
    )


def _plain(values: Sequence[Any], quality: Quality | Sequence[Quality]) -> tuple[list[Any], list[Quality]]:
    qualities: Iterable[Quality] = repeat(quality, len(values)) if isinstance(quality, Quality) else quality
    pairs = [plain(value, q) for value, q in zip(values, qualities, strict=True)]
    return [value for value, _ in pairs], [q for _, q in pairs]


def plain(value: Any, quality: Quality) -> tuple[Any, Quality]:
    """One value as something `to_json` can write, and its quality; the head of this file says how."""
    if type(value) is float and not isfinite(value):
        return None, uncertain("nan") if quality == GOOD else quality
    if quality == GOOD and holds_nan(value):
        quality = uncertain("nan")
    try:
        if type(value) is int:  # orjson stops at 64 bits
            return orjson.Fragment(str(value)), quality
        return orjson.Fragment(to_json(value)), quality
    except (TypeError, ValueError):  # ValueError: an integer of more than 4300 digits
        return None, bad("decode")
