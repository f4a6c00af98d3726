"""Payload `value`: one topic a tag, the bare value as payload, for those who want no JSON object.

Numbers and booleans as JSON writes them, text as it is (UTF-8, no quotes), bytes as lower-case hexadecimal text, lists
and objects as JSON, `null` where there is no good value. An empty text is an empty payload: where it is retained, MQTT
takes that as the order to forget the topic.

Retained by default, so that who comes later finds the last values. A backlog is not retained; after each connect the
forwarder publishes the process image anew, or what stands retained would be as old as the last outage.

What was read from a device's history is left out. It may come behind newer values, and a bare value says nothing of its
time: who listens would take it for what is true now. Of a backlog at least the last value is the newest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import repeat
from typing import Any

from gateway.model import GOOD, Batch, Definition, Quality, bad
from gateway.uplinks.digits import Digits
from gateway.uplinks.message import NO_MARKS, Message, Room
from gateway.uplinks.payload_json import Skipped, plain, to_json
from gateway.uplinks.topics import Template

_KEEP = 1024
_UNREAD = bad("startup")
_WORDS: dict[Any, bytes] = {True: b"true", False: b"false", None: b"null"}


class ValuePayload:
    """Encodes batches. What is left to fill in `topic` is `{device}`, `{tag}` and the device's own fields."""

    def __init__(self, topic: Template, *, retain: bool, skipped: Skipped) -> None:
        self._topic = topic
        self._retain = retain
        self._skipped = skipped
        self._forms: dict[bytes, _Form] = {}

    def encode(
        self,
        batch: Batch,
        seq: int,  # noqa: ARG002 - it travels as user property: a bare value has no place for it
        epoch: str,  # noqa: ARG002 - likewise
        *,
        replay: bool,
        room: Room,
        marks: Mapping[str, Any] = NO_MARKS,  # noqa: ARG002 - likewise
    ) -> Iterator[Message]:
        """The messages of one record, made as they are asked for; none of history.

        Raises TopicError where the batch's definition gives no topic.
        """
        if batch.is_history:
            return
        form = self._forms.get(batch.group.hash) or self._form(batch.group)
        topics = form.topics if batch.index is None else [form.topics[i] for i in batch.index]
        values = form.digits.of(batch.values, batch.index)
        quality: Iterable[Quality] = repeat(batch.quality) if isinstance(batch.quality, Quality) else batch.quality
        retain = self._retain and not replay
        for topic, value, q in zip(topics, values, quality, strict=False):
            if q == _UNREAD:  # nothing is known yet: what stands retained may be better
                continue
            payload = _bare(value, q)
            if len(payload) + len(topic.encode()) > room.most:
                self._skipped(topic, f"the value has {len(payload)} bytes, topic and value may have {room.most}")
                continue
            yield Message(topic, payload, retain)

    def latest(self, batch: Batch, room: Room) -> Iterator[Message]:
        """Last values, as those of a record."""
        return self.encode(batch, 0, "", replay=False, room=room)

    def _form(self, definition: Definition) -> _Form:
        values = {**definition.fields, "device": definition.device}
        form = _Form(Digits(definition), tuple(self._topic.fill({**values, "tag": name}) for name in definition.names))
        if len(self._forms) >= _KEEP:
            del self._forms[next(iter(self._forms))]
        self._forms[definition.hash] = form
        return form


class _Form:
    """What a definition decides for all its batches."""

    __slots__ = ("digits", "topics")

    def __init__(self, digits: Digits, topics: tuple[str, ...]) -> None:
        self.digits = digits
        self.topics = topics


def _bare(value: Any, quality: Quality) -> bytes:
    if quality is not GOOD and quality.startswith("bad"):
        return b"null"
    if value is None or type(value) is bool:
        return _WORDS[value]
    if type(value) is str:
        return value.encode(errors="replace")
    if type(value) is bytes:
        return value.hex().encode()
    return to_json(plain(value, quality)[0])
