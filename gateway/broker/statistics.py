"""What the broker knows of itself, as figures: gathered where they stand, said below `$SYS` by `sys_topics`."""

from __future__ import annotations

from gateway import __version__
from gateway.broker.client import Identity
from gateway.broker.connecting import Connecting
from gateway.broker.message import Message
from gateway.broker.queues import Queues
from gateway.broker.retained import Retained
from gateway.broker.routing import Subscriptions
from gateway.broker.sessions import Sessions
from gateway.broker.sys_topics import Figures, SysTopics
from gateway.metrics import Counter, Metrics

_DROPS = ("queue_full", "expired", "too_large")


class Statistics:
    """Gathers the figures. Counters are read from `metrics`, whoever counts them."""

    def __init__(
        self,
        metrics: Metrics,
        *,
        subscriptions: Subscriptions,
        retained: Retained[Message],
        queues: Queues,
        sessions: Sessions,
        connecting: Connecting,
        now: float,
    ) -> None:
        self._subscriptions = subscriptions
        self._retained = retained
        self._queues = queues
        self._sessions = sessions
        self._connecting = connecting
        self._sys = SysTopics(__version__, now)
        self._itself = Identity("", is_admin=True, is_gateway=True)
        self._counters: dict[str, Counter] = {
            "bytes_received": metrics.counter("broker_bytes_received_total"),
            "bytes_sent": metrics.counter("broker_bytes_sent_total"),
            "messages_received": metrics.counter("broker_packets_received_total"),
            "messages_sent": metrics.counter("broker_packets_sent_total"),
            "publish_received": metrics.counter("broker_messages_received_total"),
            "publish_sent": metrics.counter("broker_messages_sent_total"),
            "publish_bytes_received": metrics.counter("broker_payload_bytes_received_total"),
            "publish_bytes_sent": metrics.counter("broker_payload_bytes_sent_total"),
            "connections": metrics.counter("broker_connects_total"),
            "sockets": metrics.counter("broker_connections_total"),
            "clients_expired": metrics.counter("broker_sessions_expired_total"),
        }
        self._drops = [metrics.counter("broker_messages_dropped_total", cause=cause) for cause in _DROPS]

    def messages(self, now: float) -> list[Message]:
        """What is new to say below `$SYS`, to be published by the broker itself."""
        said = self._sys.say(self._figures(), now)
        return [Message(topic, payload, 0, True, origin=self._itself) for topic, payload in said]

    def _figures(self) -> Figures:
        online = self._connecting.online
        return Figures(
            **{name: counter.value for name, counter in self._counters.items()},
            publish_dropped=sum(counter.value for counter in self._drops),
            clients_connected=online,
            clients_disconnected=len(self._sessions) - online,
            clients_maximum=self._connecting.most_online,
            subscriptions=self._subscriptions.count,
            shared_subscriptions=self._subscriptions.shared_count,
            retained=len(self._retained),
            in_flight=sum(len(session.in_flight) for session in self._sessions),
            stored=len(self._retained) + sum(session.waiting_count for session in self._queues.backlog),
            stored_bytes=self._retained.bytes + self._queues.total_bytes,
        )
