"""Retained messages: one for each topic, found by filter, bounded by count and bytes, gone when they expire.

A flat dictionary holds the messages; beside it stands a tree of the topics' levels, so that `a/+/b` visits what it
may match only. A replay walks that tree a slice at a time while messages come and go.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from typing import Generic, Protocol, TypeVar

from gateway.broker.topics import LEVELS, Filter
from gateway.metrics import Metrics


class Kept(Protocol):
    """What a message must tell about itself. `expires_at`: s since 1970, None = never. `size` in bytes."""

    @property
    def topic(self) -> str:
        """Where it was published."""
        ...

    @property
    def expires_at(self) -> float | None:
        """When it is no longer worth sending."""
        ...

    @property
    def size(self) -> int:
        """How much memory it is charged for, in bytes."""
        ...


K = TypeVar("K", bound=Kept)

BRANCH_BYTES = 360
"""What a level of the tree that others hang from is charged for: an object and its dictionary."""

_WORTH_SHARING = 64
"""A level of fewer children is listed anew by each replay that comes by."""


class _Branch:
    """A level with others below it. A child from which nothing hangs is the topic itself: most topics cost one slot.

    `topic`: the retained topic that ends here, if any. `listing`: the children as wildcards see them, made once for
    all replays that walk over them and dropped with every change.
    """

    __slots__ = ("children", "listing", "topic")

    def __init__(self, topic: str | None = None) -> None:
        self.topic = topic
        self.children: dict[str, _Branch | str] = {}
        self.listing: tuple[_Branch | str, ...] | None = None

    def list(self) -> tuple[_Branch | str, ...]:
        if self.listing is not None:
            return self.listing
        listing = tuple(self.children.values())
        if len(listing) >= _WORTH_SHARING:
            self.listing = listing
        return listing


class _Late:
    """Which topics were set anew while replays go on, and when: their new messages went out live already."""

    __slots__ = ("replays", "serial", "topics")

    def __init__(self) -> None:
        self.replays = 0
        self.serial = 0
        self.topics: dict[str, int] = {}


class Replay(Generic[K]):
    """What a filter matched when it was subscribed, taken in slices while the store changes.

    A message that was set since then is left out, for the subscriber got it live; what was cleared or has expired is
    left out too. `is_done`: nothing is left. `close` one that is not taken to its end.
    """

    __slots__ = ("_late", "_levels", "_messages", "_since", "_stack", "is_done")

    def __init__(self, messages: dict[str, K], root: _Root, late: _Late, levels: tuple[str, ...]) -> None:
        self._messages = messages
        self._levels = levels
        self._late = late
        self._since = late.serial
        self._stack: list[tuple[Iterator[_Branch | str], int]] = []
        self.is_done = False
        late.replays += 1
        if levels[0] == "#":
            self._stack.append((iter(root.all_of(messages)), 0))
        elif levels[0] == "+":
            self._stack.append((iter(root.list()), 1))
        elif (child := root.children.get(levels[0])) is not None:
            self._stack.append((iter((child,)), 1))

    def __del__(self) -> None:
        self.close()  # the client went while its replay waited

    def close(self) -> None:
        """Nothing more is wanted. Idempotent."""
        if not self.is_done:
            self.is_done = True
            self._stack.clear()
            self._late.replays -= 1
            if not self._late.replays:
                self._late.topics.clear()

    def take(self, steps: int, now: float) -> list[K]:
        """The next messages, after looking at no more than `steps` places of the tree: perhaps none, see `is_done`."""
        levels, stack = self._levels, self._stack
        topics: list[str] = []
        while stack and steps > 0:
            places, depth = stack[-1]
            ends = depth == len(levels) or levels[depth] == "#"
            for place in places:
                steps -= 1
                if isinstance(place, str):
                    if ends:
                        topics.append(place)
                elif self._enter(place, depth, topics):
                    break
                if steps <= 0:
                    break
            else:
                stack.pop()
        found = self._fetch(topics, now)
        if not stack:
            self.close()
        return found

    def _enter(self, branch: _Branch, depth: int, topics: list[str]) -> bool:
        """Go into a branch whose path matches the first `depth` levels. Whether there is more to walk over."""
        levels, last = self._levels, len(self._levels)
        while depth < last:
            level = levels[depth]
            if level in ("+", "#"):
                if level == "#" and branch.topic is not None:
                    topics.append(branch.topic)
                self._stack.append((iter(branch.list()), depth + (level == "+")))
                return True
            child = branch.children.get(level)
            depth += 1
            if isinstance(child, _Branch):
                branch = child
                continue
            if child is not None and (depth == last or levels[depth] == "#"):
                topics.append(child)
            return False
        if branch.topic is not None:
            topics.append(branch.topic)
        return False

    def _fetch(self, topics: list[str], now: float) -> list[K]:
        late, since = self._late.topics, self._since
        messages = [self._messages.get(topic) for topic in topics if not late or late.get(topic, 0) <= since]
        return [message for message in messages if message is not None and not _is_over(message, now)]


def _is_over(message: Kept, now: float) -> bool:
    return message.expires_at is not None and message.expires_at <= now


class _Root(_Branch):
    """The tree's root: wildcards on the first level do not see what begins with $ [MQTT-4.7.2-1]."""

    __slots__ = ("everything",)

    def __init__(self) -> None:
        super().__init__()
        self.everything: tuple[str, ...] | None = None

    def all_of(self, topics: Iterable[str]) -> tuple[str, ...]:
        """What `#` matches, without a walk; shared by all replays until a topic comes or goes."""
        if self.everything is None:
            self.everything = tuple(topic for topic in topics if topic[:1] != "$")
        return self.everything

    def list(self) -> tuple[_Branch | str, ...]:
        if self.listing is None:
            self.listing = tuple(child for level, child in self.children.items() if level[:1] != "$")
        return self.listing


class Retained(Generic[K]):
    """The retained messages. `len()` is how many; `bytes` what they are charged for, the tree included."""

    __slots__ = (
        "_expiries",
        "_late",
        "_levels",
        "_messages",
        "_refused",
        "_root",
        "bytes",
        "max_bytes",
        "max_messages",
    )

    def __init__(self, max_messages: int, max_bytes: int, metrics: Metrics, levels: int = LEVELS) -> None:
        self._messages: dict[str, K] = {}
        self._root = _Root()
        self._late = _Late()
        self._expiries: list[tuple[float, str]] = []
        self._levels = levels
        self.max_messages = max_messages
        self.max_bytes = max_bytes
        self.bytes = 0
        self._refused = metrics.counter("broker_retained_refused_total")
        metrics.gauge("broker_retained_messages", lambda: len(self._messages))
        metrics.gauge("broker_retained_bytes", lambda: self.bytes)

    def __len__(self) -> int:
        return len(self._messages)

    def set(self, message: K) -> bool:
        """Keep a message in its topic's place. False: there is no room, what was kept stays, and it is counted."""
        topic = message.topic
        old = self._messages.get(topic)  # [MQTT-3.3.1-5] the newest replaces
        if old is None:
            room = message.size + BRANCH_BYTES * self._missing(topic)
            if len(self._messages) >= self.max_messages or self.bytes + room > self.max_bytes:
                self._refused.value += 1
                return False
            self._plant(topic)
            self.bytes += message.size
        else:
            growth = message.size - old.size
            if growth > 0 and self.bytes + growth > self.max_bytes:
                self._refused.value += 1
                return False
            self.bytes += growth
        self._messages[topic] = message
        if self._late.replays:
            self._late.topics[topic] = self._late.serial = self._late.serial + 1
        if message.expires_at is not None:
            self._note_expiry(message.expires_at, topic)
        return True

    def clear(self, topic: str) -> K | None:
        """Forget a topic's message. The one that was kept, if any."""
        message = self._messages.pop(topic, None)
        if message is not None:
            self.bytes -= message.size
            self._late.topics.pop(topic, None)
            self._uproot(topic)
        return message

    def get(self, topic: str, now: float) -> K | None:
        """The message kept for a topic, unless it has expired."""
        message = self._messages.get(topic)
        return None if message is None or _is_over(message, now) else message

    def match(self, filter_: Filter) -> Replay[K]:
        """The messages whose topic a filter matches, taken slice by slice. Its share is not looked at."""
        return Replay(self._messages, self._root, self._late, filter_.levels)

    def sweep(self, now: float, limit: int = 1_000) -> list[K]:
        """Forget messages that have expired, at most `limit` of them, and tell which."""
        gone: list[K] = []
        expiries = self._expiries
        while expiries and expiries[0][0] <= now and len(gone) < limit:
            at, topic = heapq.heappop(expiries)
            message = self._messages.get(topic)
            if message is not None and message.expires_at == at:
                self.clear(topic)
                gone.append(message)
        return gone

    def __iter__(self) -> Iterator[K]:
        return iter(self._messages.values())

    def _note_expiry(self, at: float, topic: str) -> None:
        expiries = self._expiries
        if len(expiries) > 2 * len(self._messages) + 1_000:  # most were replaced since: keep those that still hold
            expiries[:] = [(m.expires_at, t) for t, m in self._messages.items() if m.expires_at is not None]
            heapq.heapify(expiries)
        else:
            heapq.heappush(expiries, (at, topic))

    def _split(self, topic: str) -> list[str]:
        # What lies deeper than any filter reaches stays in one piece: 60,000 slashes do not make 60,000 branches.
        return topic.split("/", self._levels)

    def _missing(self, topic: str) -> int:
        """How many branches a new topic needs."""
        levels = self._split(topic)
        branch: _Branch = self._root
        for at, level in enumerate(levels[:-1]):
            child = branch.children.get(level)
            if not isinstance(child, _Branch):
                return len(levels) - 1 - at
            branch = child
        return 0

    def _plant(self, topic: str) -> None:
        levels = self._split(topic)
        self._root.everything = None
        branch: _Branch = self._root
        for level in levels[:-1]:
            child = branch.children.get(level)
            if not isinstance(child, _Branch):
                child = branch.children[level] = _Branch(child)
                branch.listing = None
                self.bytes += BRANCH_BYTES
            branch = child
        leaf = branch.children.get(levels[-1])
        if isinstance(leaf, _Branch):
            leaf.topic = topic
        else:
            branch.children[levels[-1]] = topic
            branch.listing = None

    def _uproot(self, topic: str) -> None:
        levels = self._split(topic)
        self._root.everything = None
        path: list[_Branch] = [self._root]
        for level in levels[:-1]:
            child = path[-1].children[level]
            assert isinstance(child, _Branch)  # noqa: S101 - planted with the message
            path.append(child)
        leaf = path[-1].children[levels[-1]]
        if isinstance(leaf, _Branch):
            leaf.topic = None
            return
        for at in range(len(path) - 1, -1, -1):
            branch = path[at]
            del branch.children[levels[at]]
            branch.listing = None
            if branch.children or at == 0:
                return
            self.bytes -= BRANCH_BYTES
            if branch.topic is not None:  # a leaf again
                path[at - 1].children[levels[at - 1]] = branch.topic
                path[at - 1].listing = None
                return
