"""What the broker says of itself below `$SYS/broker`: the names and texts are those dashboards know from mosquitto.

Pure: figures come in, topics and payloads go out. Who may read them is the ACL's business, how often the core's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

ROOT = "$SYS/broker/"


@dataclass(slots=True, kw_only=True)
class Figures:
    """The broker's figures at one moment. Those in the first block only grow, and count from the start of the broker.

    `messages_...` are packets of any kind, `publish_...` PUBLISH packets, `publish_bytes_...` their payloads.
    `connections`: CONNECT packets; `sockets`: connections opened. `stored_...`: messages held, retained or waiting.
    """

    bytes_received: int = 0
    bytes_sent: int = 0
    messages_received: int = 0
    messages_sent: int = 0
    publish_received: int = 0
    publish_sent: int = 0
    publish_dropped: int = 0
    publish_bytes_received: int = 0
    publish_bytes_sent: int = 0
    connections: int = 0
    sockets: int = 0
    clients_expired: int = 0

    clients_connected: int = 0
    clients_disconnected: int = 0
    clients_maximum: int = 0
    subscriptions: int = 0
    shared_subscriptions: int = 0
    retained: int = 0
    in_flight: int = 0
    stored: int = 0
    stored_bytes: int = 0


_PLAIN = {
    "bytes_received": ("bytes/received",),
    "bytes_sent": ("bytes/sent",),
    "messages_received": ("messages/received",),
    "messages_sent": ("messages/sent",),
    "publish_received": ("publish/messages/received",),
    "publish_sent": ("publish/messages/sent",),
    "publish_dropped": ("publish/messages/dropped",),
    "publish_bytes_received": ("publish/bytes/received",),
    "publish_bytes_sent": ("publish/bytes/sent",),
    "clients_expired": ("clients/expired",),
    "clients_connected": ("clients/connected", "clients/active"),
    "clients_disconnected": ("clients/disconnected", "clients/inactive"),
    "clients_maximum": ("clients/maximum",),
    "subscriptions": ("subscriptions/count",),
    "shared_subscriptions": ("shared_subscriptions/count",),
    "retained": ("retained messages/count",),
    "in_flight": ("messages/inflight",),
    "stored": ("store/messages/count", "messages/stored"),
    "stored_bytes": ("store/messages/bytes",),
}
"""Figure -> topics. The second ones are deprecated by their inventor, and still looked at."""

_LOADS = {
    "messages_received": "load/messages/received",
    "messages_sent": "load/messages/sent",
    "publish_dropped": "load/publish/dropped",
    "publish_received": "load/publish/received",
    "publish_sent": "load/publish/sent",
    "bytes_received": "load/bytes/received",
    "bytes_sent": "load/bytes/sent",
    "sockets": "load/sockets",
    "connections": "load/connections",
}
"""Figure -> topic of its growth a minute, as moving averages."""

_SPANS = (("1min", 60.0), ("5min", 300.0), ("15min", 900.0))


class SysTopics:
    """Remembers what it said, so that only what changed is said again; and the averages."""

    def __init__(self, version: str, now: float) -> None:
        self._version = version
        self._started = self._last_at = now
        self._last = Figures()
        self._loads = {(figure, name): 0.0 for figure in _LOADS for name, _ in _SPANS}
        self._said: dict[str, str] = {}

    def say(self, figures: Figures, now: float) -> list[tuple[str, bytes]]:
        """The topics and payloads that are new since last time: to be published, retained. `now` in s."""
        self._average(figures, now - self._last_at)
        self._last, self._last_at = figures, now
        texts = {"version": f"headgate version {self._version}", "uptime": f"{int(now - self._started)} seconds"}
        for figure, topics in _PLAIN.items():
            texts.update(dict.fromkeys(topics, str(getattr(figures, figure))))
        texts["clients/total"] = str(figures.clients_connected + figures.clients_disconnected)
        for (figure, name), load in self._loads.items():
            texts[f"{_LOADS[figure]}/{name}"] = f"{load:.2f}"
        news = [(ROOT + topic, text.encode()) for topic, text in texts.items() if self._said.get(topic) != text]
        self._said = texts
        return news

    def _average(self, figures: Figures, elapsed_s: float) -> None:
        """Exponentially weighted: after one span without traffic a load has fallen to 37 %."""
        if elapsed_s <= 0:
            return
        for name, span_s in _SPANS:
            keeps = math.exp(-elapsed_s / span_s)
            for figure in _LOADS:
                a_minute = (getattr(figures, figure) - getattr(self._last, figure)) * 60.0 / elapsed_s
                self._loads[figure, name] = keeps * self._loads[figure, name] + (1.0 - keeps) * a_minute
