"""The store: what must outlive the process is noted here, a few bytes an operation, and written once a turn.

Stored is what a session with expiry needs, and what clients retain. Passwords never come here.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from concurrent.futures import Executor
from pathlib import Path
from typing import Literal

from gateway.broker import operations
from gateway.broker.message import Message
from gateway.broker.operations import (
    OF_BOTH,
    OF_MESSAGE,
    OF_PACKET,
    OF_SESSION,
    OF_TOPIC,
    RETAIN_HEAD,
    RETAINED,
    WILL_BODY,
    message_operation,
    queue_operation,
)
from gateway.broker.recovery import State, recover
from gateway.broker.writing import SNAPSHOT_AT, Writing
from gateway.journal.disk import Disk, FolderDisk
from gateway.journal.log import Log
from gateway.journal.segment import Tally
from gateway.metrics import Metrics
from gateway.mqtt.packets import Subscription

log = logging.getLogger("headgate.broker")

_of_both = OF_BOTH.pack
_of_message = OF_MESSAGE.pack
_of_packet = OF_PACKET.pack
_of_session = OF_SESSION.pack


class Store(Writing):
    """Sessions, retained messages, wills and what is in flight, on disk.

    Operations never raise. Those noted without a break (while one packet is handled, say) count together or not at all;
    a message must be queued, retained or made a will in the same breath in which it is stored, or it is forgotten.
    Sessions are named by numbers that the core draws, and never uses twice.

    `ahead_s`: by how much the wall clock is ahead of the core's time. Times are stored as the wall clock says them:
    where it was set meanwhile (a machine without a clock of its own starts somewhere in the past), the next start must
    not take what was noted today for something of long ago.
    """

    __slots__ = ("_message", "ahead_s")

    def __init__(
        self,
        logs: Log,
        executor: Executor,
        *,
        last_message: int,
        commit_interval_s: float,
        sync: Literal["interval", "always"],
        metrics: Metrics,
        snapshot_at: int,
    ) -> None:
        super().__init__(
            logs,
            executor,
            commit_interval_s=commit_interval_s,
            sync=sync,
            metrics=metrics,
            snapshot_at=snapshot_at,
        )
        self._message = last_message
        self.ahead_s = 0.0

    @classmethod
    async def open(
        cls,
        folder: Path,
        executor: Executor,
        *,
        commit_interval_s: float = 1.0,
        sync: Literal["interval", "always"] = "interval",
        metrics: Metrics,
        disk: Disk | None = None,
        snapshot_at: int = SNAPSHOT_AT,
    ) -> tuple[Store, State]:
        """Open the store of a folder, which must be this process's own, and give what it holds. Never raises OSError.

        `executor`: the one thread that writes. A folder that cannot be read is a store that has failed for this run.
        `snapshot_at`: a log of fewer bytes is never replaced by a snapshot.
        """
        tally = Tally(
            bytes_written=metrics.counter("broker_store_bytes_written_total"),
            flushes=metrics.counter("broker_store_flushes_total"),
            frames=metrics.counter("broker_store_frames_total"),
            corrupt=metrics.counter("broker_store_corrupt_total"),
        )
        logs = Log(disk or FolderDisk(folder), tally)
        state, last_message, failure = State(), 0, ""
        started = time.perf_counter()
        try:
            if disk is None:
                await asyncio.to_thread(_make, folder)
            state, last_message = await asyncio.to_thread(recover, logs)
        except OSError as error:
            failure = f"{folder}: the broker's store cannot be read ({error.strerror or error})"
        store = cls(
            logs,
            executor,
            last_message=last_message,
            commit_interval_s=commit_interval_s,
            sync=sync,
            metrics=metrics,
            snapshot_at=snapshot_at,
        )
        if failure:
            store.give_up(failure)
        else:
            took = time.perf_counter() - started
            sessions, retained = len(state.sessions), len(state.retained)
            log.info("the store holds %d sessions and %d retained messages (%.2f s)", sessions, retained, took)
            store.begin()
        return store, state

    # --- operations ---------------------------------------------------------------------------------------------------

    def session(
        self, number: int, client_id: str, username: str | None, expiry_s: int, offline_since: float | None
    ) -> None:
        """A session is there, or has changed; `offline_since` is None while it is connected, else s since 1970."""
        if offline_since is not None:
            offline_since += self.ahead_s
        self._put(operations.session_operation(number, client_id, username, expiry_s, offline_since))

    def end_session(self, number: int) -> None:
        """A session is over, with all that belongs to it."""
        self._put(_of_session(operations.END_SESSION, number))

    def subscribe(self, number: int, subscription: Subscription, identifier: int | None) -> None:
        """A session subscribes; the same filter again replaces the options."""
        self._put(operations.subscribe_operation(number, subscription, identifier))

    def unsubscribe(self, number: int, filter: str) -> None:  # noqa: A002 - the specification's word
        """A session gives a subscription up."""
        text = filter.encode()
        self._put(_of_packet(operations.UNSUBSCRIBE, number, len(text)) + text)

    def message(self, message: Message) -> None:
        """Store a message once, and give it its number; nothing where it has one."""
        if not message.number:
            self._message = message.number = self._message + 1
            self._put(message_operation(message, 0, self.ahead_s))

    def queue(self, number: int, message_number: int, qos: int, retain: bool, identifiers: tuple[int, ...]) -> None:  # noqa: FBT001 - hot
        """A message waits for a session, behind all that do."""
        self._put(queue_operation(number, message_number, qos | retain << 2, identifiers))

    def send(self, number: int, message_number: int, packet_id: int) -> None:
        """The oldest waiting copy of a message gets a packet id: before the PUBLISH leaves."""
        self._put(_of_both(operations.SEND, number, message_number, packet_id))

    def received(self, number: int, packet_id: int) -> None:
        """PUBREC came: from now on only PUBREL is sent again."""
        self._put(_of_packet(operations.RECEIVED, number, packet_id))

    def done(self, number: int, packet_id: int) -> None:
        """What had this packet id is acknowledged to its end."""
        self._put(_of_packet(operations.DONE, number, packet_id))

    def drop(self, number: int, message_number: int) -> None:
        """The oldest waiting copy of a message leaves a session's queue unsent."""
        self._put(_of_message(operations.DROP, number, message_number))

    def inbound(self, number: int, packet_id: int) -> None:
        """A QoS 2 message came from the client under this id."""
        self._put(_of_packet(operations.INBOUND, number, packet_id))

    def inbound_done(self, number: int, packet_id: int) -> None:
        """The client has released that id."""
        self._put(_of_packet(operations.INBOUND_DONE, number, packet_id))

    def retain(self, message: Message) -> None:
        """The message is its topic's retained one; it is stored where it is not yet."""
        if message.number:
            text = message.topic.encode()
            self._put(RETAIN_HEAD.pack(operations.RETAIN, message.number, len(text)) + text)
        else:
            self._message = message.number = self._message + 1
            self._put(message_operation(message, RETAINED, self.ahead_s))

    def unretain(self, topic: str) -> None:
        """The topic has no retained message any more."""
        text = topic.encode()
        self._put(OF_TOPIC.pack(operations.UNRETAIN, len(text)) + text)

    def will(self, number: int, message: Message, due: float, delay_s: int = 0) -> None:
        """A session has a will, stored with it. `due`: s since 1970; infinity while the client is connected."""
        self.message(message)
        self._put(WILL_BODY.pack(operations.WILL, number, message.number, due + self.ahead_s, delay_s))

    def will_done(self, number: int) -> None:
        """The session's will was published or is not wanted any more."""
        self._put(_of_session(operations.WILL_DONE, number))


def _make(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(mode=0o700, parents=True)
        parent = os.open(folder.parent, os.O_RDONLY)  # else a power cut could take the folder with all it holds
        try:
            os.fsync(parent)
        finally:
            os.close(parent)
