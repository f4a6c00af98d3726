"""What a running gateway does for `headgate queue` over its control socket.

-> {"do": "queue purge", "shares": [{"record_class": "data", "uplink": "cloud", "last_seq": 4711,
                                     "first_time": 1795330000000, "last_time": 1795333600000}]}
<- {"ok": true, "shares": [...]}                    `last_seq` null: all there is
-> {"do": "queue forget", "uplink": "old"}
<- {"ok": true, "shares": [...]}
-> {"do": "queue replay", "uplink": "cloud", "first_ms": 1795330000000, "last_ms": 1795333600000}
-> {"do": "queue stop replay", "uplink": "cloud"}
<- {"ok": true}                                     how far it is, `status` says
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

from gateway.clock import Clock
from gateway.errors import HeadgateError
from gateway.metrics import Counter, Metrics

if TYPE_CHECKING:
    from gateway.upkeep.giving_up import Gives, Share

Handler = Callable[[Mapping[str, Any]], Mapping[str, Any]]


class Replays(Protocol):
    """An uplink, as far as it sends something once more."""

    def replay(self, first_ms: int, last_ms: int) -> None:
        """Send once more what was taken then. Raises HeadgateError where one is under way."""
        ...

    def stop_replay(self) -> None:
        """Send no more of it."""
        ...


class Upkeep:
    """Does what a person asks for with a spool that runs. `uplinks` are those that run now, by name."""

    def __init__(
        self, queues: Callable[[], Iterable[Gives]], uplinks: Mapping[str, Replays], *, clock: Clock, metrics: Metrics
    ) -> None:
        self._queues = queues
        self._uplinks = uplinks
        self._clock = clock
        self._metrics = metrics

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """By the verb of the request."""
        return {
            "queue purge": self._purge,
            "queue forget": self._forget,
            "queue replay": self._replay,
            "queue stop replay": self._stop_replay,
        }

    def _purge(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        from gateway.upkeep.giving_up import give_up  # noqa: PLC0415 - a gateway that nobody asks does not pay for it

        queues = {queue.record_class: queue for queue in self._queues()}
        gone: list[Share] = []
        try:
            wanted = [
                (
                    queues[share["record_class"]],
                    str(share["uplink"]),
                    None if share["last_seq"] is None else int(share["last_seq"]),
                    (int(share["first_time"]), int(share["last_time"])),
                )
                for share in request["shares"]
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise HeadgateError(f"not a purge: {error!r}") from error
        for queue, uplink, last_seq, times in wanted:
            share = give_up(queue, uplink, last_seq, times=times, now_ms=self._clock.wall_ms())
            if share is not None:
                gone.append(share)
        return self._told(gone)

    def _forget(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        from gateway.upkeep.giving_up import forget  # noqa: PLC0415 - likewise

        uplink = str(request.get("uplink"))
        if uplink in self._uplinks:
            raise HeadgateError(
                f"uplink '{uplink}' runs, and would begin anew. Take it out of the file and start the gateway again; or"
                f" give up what waits for it, with `headgate queue purge --uplink {uplink}`"
            )
        known = sorted({cursor.name for queue in self._queues() for cursor in queue.status().cursors})
        now_ms = self._clock.wall_ms()
        gone = [share for queue in self._queues() if (share := forget(queue, uplink, now_ms=now_ms)) is not None]
        if not gone:
            raise HeadgateError(f"the spool knows no uplink '{uplink}'; there are: {', '.join(known) or 'none'}")
        return self._told(gone)

    def _told(self, gone: list[Share]) -> Mapping[str, Any]:
        for share in gone:
            self._counter(share).value += share.count
        return {"shares": [asdict(share) for share in gone]}

    def _counter(self, share: Share) -> Counter:
        return self._metrics.counter("spool_purged_records_total", **{"class": share.record_class})

    def _replay(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            first_ms, last_ms = int(request["first_ms"]), int(request["last_ms"])
        except (KeyError, TypeError, ValueError) as error:
            raise HeadgateError(f"not a replay: {error!r}") from error
        self._uplink(request).replay(first_ms, last_ms)
        return {}

    def _stop_replay(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        self._uplink(request).stop_replay()
        return {}

    def _uplink(self, request: Mapping[str, Any]) -> Replays:
        name = str(request.get("uplink"))
        if name not in self._uplinks:
            raise HeadgateError(f"no uplink '{name}' runs; there are: {', '.join(sorted(self._uplinks)) or 'none'}")
        return self._uplinks[name]
