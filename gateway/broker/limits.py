"""How much one address and one client may ask of the broker: connections, attempts, wrong passwords, messages a second.

Pure: time is an argument, in s. Every table is bounded, and forgets by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Address, ip_address

from gateway.broker.options import Limits
from gateway.mqtt.packets import Packet, Publish
from gateway.mqtt.reasons import Reason

_ADDRESSES = 16_384
"""So many addresses are remembered in each table; beyond it the one that came first is forgotten."""

_BURST_S = 2.0
"""Who was quiet may at once do what else is allowed in so many seconds."""

_POLITE = 64
"""So many connections without room are kept for a moment, to tell them so."""

_FIRST_DELAY_S = 0.25
_LONGEST_DELAY_S = 8.0
_FORGET_FAILURES_S = 600.0
_WAITING_REFUSALS = 32


def neighbourhood(address: str) -> str:
    """What counts as one address: an IPv4 address, or the /64 network of an IPv6 address, which one host may own."""
    if ":" not in address:
        return address
    whole = IPv6Address(address.partition("%")[0])
    return str(IPv6Address(int(whole) >> 64 << 64))


def plain_address(host: str) -> str:
    """An address as people write it: IPv4 that came in over an IPv6 socket is IPv4."""
    if not host.startswith("::ffff:"):
        return host
    mapped = ip_address(host)
    return str(mapped.ipv4_mapped or mapped) if isinstance(mapped, IPv6Address) else host


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach that address."""
    return ip_address(host.partition("%")[0]).is_loopback


class Gate:
    """Counts connections in and out, in total and of each address, and how fast they come.

    Speed is kept as one number an address: the time at which its next attempt would be exactly on the allowed rate.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._interval_s = 1.0 / limits.connects_per_s
        self._inside: dict[str, int] = {}
        self._next: dict[str, float] = {}
        self.connections = 0
        self._turned_away = 0

    def __repr__(self) -> str:
        return f"<Gate: {self.connections} connections of {len(self._inside)} addresses>"

    def enter(self, address: str, now: float) -> Reason | None:
        """Let a connection in, or say why not. Who was let in is given back by `leave`."""
        key = neighbourhood(address)
        due = max(self._next.get(key, 0.0), now)
        if due - now > _BURST_S:
            return Reason.CONNECTION_RATE_EXCEEDED
        self._remember(key, due + self._interval_s)
        if self.connections >= self._limits.connections:
            return Reason.SERVER_UNAVAILABLE
        inside = self._inside.get(key, 0)
        if inside >= self._limits.connections_per_address:
            return Reason.QUOTA_EXCEEDED
        self._inside[key] = inside + 1
        self.connections += 1
        return None

    def leave(self, address: str) -> None:
        """A connection that was let in has ended."""
        key = neighbourhood(address)
        self.connections -= 1
        left = self._inside[key] - 1
        if left:
            self._inside[key] = left
        else:
            del self._inside[key]

    def keep(self) -> bool:
        """Whether a connection that was refused may stay a moment, to be told why. Given back by `release`."""
        if self._turned_away >= _POLITE:
            return False
        self._turned_away += 1
        return True

    def release(self) -> None:
        """One that was kept for being told has ended."""
        self._turned_away -= 1

    def tick(self, now: float) -> None:
        """Forget the addresses that have been quiet long enough."""
        for key in [key for key, due in self._next.items() if due <= now]:
            del self._next[key]

    def _remember(self, key: str, due: float) -> None:
        if key not in self._next and len(self._next) >= _ADDRESSES:
            del self._next[next(iter(self._next))]
        self._next[key] = due


class Failures:
    """Failed logins of each address: the more there were, the later the next refusal is said.

    Only refusals wait. Whoever shows the right password is let in at once, also from an address (a NAT, a container
    host) behind which somebody else keeps trying a wrong one.
    """

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, float]] = {}
        self._waiting: dict[str, int] = {}

    def is_blocked(self, address: str) -> bool:
        """Whether so many refusals wait for this address that its next login is not even looked at."""
        return self._waiting.get(neighbourhood(address), 0) >= _WAITING_REFUSALS

    def failed(self, address: str, now: float) -> float:
        """Note a failed login. The seconds to wait before saying so; call `told` after that."""
        key = neighbourhood(address)
        count, last = self._seen.pop(key, (0, 0.0))
        count = count + 1 if now - last < _FORGET_FAILURES_S else 1
        if len(self._seen) >= _ADDRESSES:
            del self._seen[next(iter(self._seen))]
        self._seen[key] = (count, now)
        self._waiting[key] = self._waiting.get(key, 0) + 1
        return float(min(_FIRST_DELAY_S * 2 ** min(count - 1, 16), _LONGEST_DELAY_S))

    def told(self, address: str) -> None:
        """A refusal has been said, or nobody is there any more to hear it."""
        key = neighbourhood(address)
        left = self._waiting[key] - 1
        if left:
            self._waiting[key] = left
        else:
            del self._waiting[key]

    def tick(self, now: float) -> None:
        """Forget old failures. Those that failed last stand at the end of the table."""
        for key, (_, last) in list(self._seen.items()):
            if now - last < _FORGET_FAILURES_S:
                return
            del self._seen[key]


class Meter:
    """One client's messages and bytes against its rate. It never drops: it says how long to read nothing.

    None of it exists where no rate is set.
    """

    __slots__ = ("_byte_s", "_due", "_due_bytes", "_message_s")

    def __init__(self, limits: Limits) -> None:
        self._message_s = 1.0 / limits.publish_per_s if limits.publish_per_s else 0.0
        self._byte_s = 1.0 / limits.publish_bytes_per_s if limits.publish_bytes_per_s else 0.0
        self._due = 0.0
        self._due_bytes = 0.0

    @staticmethod
    def needed(limits: Limits) -> bool:
        """Whether there is a rate to be kept."""
        return limits.publish_per_s is not None or limits.publish_bytes_per_s is not None

    def count(self, packets: Iterator[Packet], now: float) -> Iterator[Packet]:
        """The packets, one by one, as long as none has used up what is allowed."""
        if self.wait_s(now) > 0.0:
            return
        for packet in packets:
            if type(packet) is Publish:
                size = len(packet.payload) + len(packet.topic)
                self._due = max(self._due, now) + self._message_s
                self._due_bytes = max(self._due_bytes, now) + size * self._byte_s
            yield packet
            if self.wait_s(now) > 0.0:
                return

    def wait_s(self, now: float) -> float:
        """So long no packet may be taken; 0 or less = go on. One second's worth is free in a burst."""
        return max(self._due, self._due_bytes) - now - 1.0
