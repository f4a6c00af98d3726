"""Reading the history of many nodes: requests that a server can bear, followed until all is read, refusals remembered.

    ask ─▶ answer ─┬─ values, nothing left            done
                   ├─ values, continuation point      asked for the rest with it
                   ├─ as many values as were asked    asked again from the newest on: some servers leave the point out
                   ├─ too much for the server         asked again in two halves, of the nodes or of the time
                   └─ refused                         not asked again in this session

Which nodes a fault of a whole request means nobody says: it is halved too, until it is about one of them. Nothing here
ends because a server behaves: what it sends without end is given up, what it sends twice is one, what nobody asked for
is dropped; all of it is counted.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import repeat
from operator import itemgetter
from typing import Any, Final, TypeAlias

from asyncua import ua

from drivers.opcua.connecting.session import Session
from drivers.opcua.faults import ServiceFault
from drivers.opcua.nodes.asking import TOO_MUCH
from drivers.opcua.values.columns import Columns
from drivers.opcua.values.parsing import Remembered, parse_history
from drivers.opcua.values.status import is_bad, name_of
from gateway.errors import LineError
from gateway.metrics import Metrics
from gateway.model import Value

log = logging.getLogger("headgate.opcua")

Told: TypeAlias = tuple[tuple[Value, int], ...]
"""Values of one time, each with its StatusCode."""
Sample: TypeAlias = tuple[int, int, Value, int, int]
"""Source time in ticks, position in the group, value, StatusCode, server time in ticks."""

MOST_VALUES: Final = 5000
"""Of an answer: a few hundred KB, decoded in some ms."""
_MOST_OF_ONE, _LEAST_OF_ONE = 1000, 5
_LANES = 2
"""Requests at once: the next answer is made while the last one is read, and the server has time for others."""
_IDLE_PAGES = 10
"""Answers one after the other that bring a tag no further: a server may need some to find the next value."""
_MOST_SKIPS = 4
_MOST_HALVES = 64
_MOST_SILENCES = 2
_SHORTEST: Final = 10_000
"""Ticks that are not halved any more, 1 ms."""
_MOST_TWINS = 64
"""Values of one tag with the same time that are told apart."""
_DONE, _FOLLOW, _AGAIN, _ALONE = "", "follow", "again", "alone"
"""What becomes of a piece after an answer; any other word is the name of a fault."""

_NOTHING: Final = frozenset({"BadNoData", "BadNoDataAvailable", "BadBoundNotFound", "BadEntryNotFound"})
"""No data for that time, which says nothing about another time."""
_TOO_MUCH: Final = frozenset(
    {*map(name_of, TOO_MUCH), "BadNoContinuationPoints", "BadTimeout", "BadContinuationPointInvalid"}
)
_STAMPS: Final = frozenset({"BadTimestampNotSupported", "BadTimestampsToReturnInvalid"})
_NEVER: Final = frozenset(
    {
        "BadHistoryOperationUnsupported", "BadHistoryOperationInvalid", "BadServiceUnsupported", "BadNotSupported",
        "BadNotImplemented", "BadUserAccessDenied", "BadNotReadable", "BadNodeIdUnknown", "BadNodeIdInvalid",
        "BadIndexRangeInvalid", "BadAttributeIdInvalid",
    }
)  # fmt: skip
"""What is not different the next time: such a node is not asked for its history again in this session."""


@dataclass(slots=True, eq=False)
class Trail:
    """A tag's gap while it is read. `after` and `before`: ticks that are not in it.

    `found` was read and not settled yet. Of what was: `edge` is the newest tick, `twins` the values at it, `first` the
    oldest tick, `count` how many there were, `widest` the longest time between two. `handed`: the newest tick that came
    out, `spoken` its values that did; `told` are those of the first tick that came out before, when part of the gap was
    read. `late`: values thrown away, newer ones having come out before. `cause`: why no more is read, empty while more
    is; `doubt`: why something may be missing in what was.
    """

    node: Any
    part: str | None
    position: int
    after: int
    before: int
    edge: int
    told: Told = ()
    twins: list[tuple[Value, int]] = field(default_factory=list)
    first: int = 0
    count: int = 0
    widest: int = 0
    handed: int = 0
    spoken: list[tuple[Value, int]] = field(default_factory=list)
    late: int = 0
    cause: str = ""
    doubt: str = ""
    found: list[Sample] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.told:
            self.edge = self.first = self.handed = self.after + 1
            self.twins, self.spoken = list(self.told), list(self.told)

    @property
    def start(self) -> int:
        """From which tick on there may be something new."""
        return self.edge if self.told else self.edge + 1

    def hand(self, sample: Sample) -> None:
        """It goes out."""
        tick, _, value, code, _ = sample
        if tick > self.handed:
            self.handed, self.spoken = tick, []
        self.spoken.append((value, code))

    def left(self) -> tuple[int, Told]:
        """What is still to be read: what is after that tick, without values at its very beginning that went out."""
        return (self.handed - 1, tuple(self.spoken)) if self.handed else (self.after, ())

    def settle(self) -> Iterator[Sample]:
        """What is new of what was found: ascending, each once; two values of one time stay in their order."""
        found, self.found = self.found, []
        found.sort(key=itemgetter(0))
        for sample in found:
            tick, _, value, code, _ = sample
            if tick > self.edge:
                if self.count:
                    self.widest = max(self.widest, tick - self.edge)
                else:
                    self.first = tick
                self.edge, self.twins = tick, [(value, code)]
            elif tick < self.edge:
                self.late += 1
                continue
            elif not self._is_twin(value, code):
                continue
            self.count += 1
            yield sample

    def _is_twin(self, value: Value, code: int) -> bool:
        """Whether a value at the edge is another one than those known there."""
        if any(code == other[1] and (value == other[0] or repr(value) == repr(other[0])) for other in self.twins):
            return False
        if len(self.twins) >= _MOST_TWINS:
            self.doubt = "crowded"
            return False
        self.twins.append((value, code))
        return True


@dataclass(slots=True, eq=False)
class Piece:
    """What is still to be read of a trail: ticks from `start` on and before `end`, then on to `until`.

    `point` is where the server stands; `idle` counts the answers that brought it no further; `is_down`: it gives the
    newest first. At `turn` the first part of the time ends, whatever is read of it already.
    """

    trail: Trail
    start: int
    end: int
    until: int
    point: bytes | None = None
    idle: int = 0
    is_down: bool = False
    turn: int = 0

    def __post_init__(self) -> None:
        self.turn = self.end

    def halve(self) -> None:
        """Ask for the first half of the time; the other one comes when that is done, for values go on in order."""
        self.end = self.turn = (self.start + self.end) // 2

    def goes_on(self) -> bool:
        """Whether there is another half, which is what remains then."""
        if self.turn >= self.until:
            return False
        self.start, self.end, self.turn = self.turn, self.until, self.until
        return True


@dataclass(slots=True, eq=False)
class Ask:
    """One request: pieces, the time they are asked for together, and how many values of each at most."""

    pieces: list[Piece]
    start: int
    end: int
    most: int
    stamps: Any = None

    @classmethod
    def of(cls, pieces: list[Piece]) -> Ask:
        """Pieces without continuation points in one request."""
        most = max(_LEAST_OF_ONE, min(_MOST_OF_ONE, MOST_VALUES // len(pieces)))
        return cls(pieces, min(piece.start for piece in pieces), max(piece.end for piece in pieces), most)


class History:
    """Asks one server. What it refused is known until `forget`; what it was slow with, until the next `begin`.

    `patience_s`: how long an answer may take; a slow historian is no reason to give the connection up.
    """

    def __init__(self, session: Session, *, patience_s: float, metrics: Metrics) -> None:
        self._session = session
        self._patience_s = patience_s
        self._requests = metrics.counter("opcua_history_requests_total", line=session.line)
        self._dropped = metrics.counter("opcua_history_dropped_total", line=session.line)
        self.forget()
        self.begin(is_both=False)

    def forget(self) -> None:
        """The session is a new one."""
        self.refused: dict[tuple[Any, str | None], str] = {}
        self._refuses_all = ""
        self._lone: Counter[str] = Counter()
        self._has_served = False

    def begin(self, *, is_both: bool) -> None:
        """A new fill. `is_both`: server times are wanted too."""
        self._stamps = deque([ua.TimestampsToReturn.Source, ua.TimestampsToReturn.Server])
        if is_both:
            self._stamps.appendleft(ua.TimestampsToReturn.Both)
        self._halves_left, self._silences_left = _MOST_HALVES, _MOST_SILENCES
        self._held: set[Piece] = set()
        self.found = 0

    def refusal(self, node: Any, part: str | None) -> str:
        """Why a node's history is not asked for any more; empty when it is."""
        return self._refuses_all or self.refused.get((node, part), "")

    async def read(self, work: deque[Ask], enough: int) -> None:
        """Ask until `work` is done, or that many values were found: then it holds what is left. Raises LineError."""
        self.found = 0
        try:
            async with asyncio.TaskGroup() as lanes:
                for number in range(min(_LANES, len(work))):
                    lanes.create_task(self._lane(work, enough), name=f"{self._session.line}: history {number}")
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None

    async def release(self) -> None:
        """Tell the server that what it holds for us is not wanted any more; what becomes of it is its own affair."""
        pieces, self._held = list(self._held), set()
        size = self._session.limits.max_history_nodes
        with suppress(ServiceFault, LineError, TimeoutError):
            async with asyncio.timeout(1.0):
                for at in range(0, len(pieces), size):
                    ask = Ask(pieces[at : at + size], _SHORTEST, _SHORTEST, 1)
                    await self._session.fetch(self._request(ask, release=True), timeout_s=None)

    async def _lane(self, work: deque[Ask], enough: int) -> None:
        while work and self.found < enough:
            work.extendleft(reversed(await self._ask(work.popleft())))

    async def _ask(self, ask: Ask) -> list[Ask]:
        """One request. Gives what is still to be asked of it."""
        ask.pieces = [piece for piece in ask.pieces if not self._is_over(piece)]
        if not ask.pieces:
            return []
        self._requests.value += 1
        try:
            async with asyncio.timeout(self._patience_s):
                body = await self._session.fetch(self._request(ask), timeout_s=None)
                results = await self._session.structures.parsed(parse_history, body, self._session)
        except ServiceFault as fault:
            return self._on_fault(ask, fault.name)
        except TimeoutError:
            self._silences_left -= 1
            return self._on_fault(ask, "timeout")
        except ValueError:
            return self._on_fault(ask, "decode")
        if len(results) != len(ask.pieces):
            return self._on_fault(ask, "decode")
        return self._on_answer(ask, results)

    def _request(self, ask: Ask, *, release: bool = False) -> Any:
        details = ua.ReadRawModifiedDetails(
            IsReadModified=False,
            StartTime=_moment(ask.start),
            EndTime=_moment(ask.end + 9),
            NumValuesPerNode=ask.most,
            ReturnBounds=False,
        )
        request = ua.HistoryReadRequest()
        parameters = request.Parameters
        parameters.HistoryReadDetails = details
        parameters.TimestampsToReturn = ask.stamps = self._stamps[0]
        parameters.ReleaseContinuationPoints = release
        parameters.NodesToRead = [
            ua.HistoryReadValueId(NodeId=p.trail.node, IndexRange=p.trail.part, ContinuationPoint=p.point)
            for p in ask.pieces
        ]
        return request

    def _is_over(self, piece: Piece) -> bool:
        """Whether nothing more is asked for a piece: it was refused meanwhile, or the server is too slow."""
        cause = self.refusal(piece.trail.node, piece.trail.part) or ("" if self._silences_left > 0 else "timeout")
        if cause:
            self._fail(piece, cause)
        return bool(cause)

    # --- what answers mean ------------------------------------------------------------------------------------------

    def _on_answer(self, ask: Ask, results: Sequence[Remembered]) -> list[Ask]:
        """Keep the values. Gives what is still to be asked."""
        fates: dict[str, list[Piece]] = {}
        for piece, result in zip(ask.pieces, results, strict=True):
            fate = (
                self._refused(piece, name_of(result.code)) if is_bad(result.code) else self._taken(ask, piece, result)
            )
            fates.setdefault(fate, []).append(piece)
        fates.pop(_DONE, None)
        rest = []
        if follow := fates.pop(_FOLLOW, None):
            rest.append(Ask(follow, ask.start, ask.end, ask.most))
        if again := fates.pop(_AGAIN, None):
            rest.append(Ask.of(again))
        rest += (Ask.of([piece]) for piece in fates.pop(_ALONE, ()))
        for name, pieces in fates.items():
            rest += self._on_fault(Ask(pieces, ask.start, ask.end, ask.most, ask.stamps), name)
        return rest

    def _refused(self, piece: Piece, name: str) -> str:
        """What is to be done about a node that got a bad result: nothing more, or the result's name, as for a fault."""
        self._held.discard(piece)
        if name in _TOO_MUCH or (name in _STAMPS and len(self._stamps) > 1):
            return name
        if name in _NOTHING:
            return self._finished(piece)
        self._fail(piece, name)
        return _DONE

    def _taken(self, ask: Ask, piece: Piece, result: Remembered) -> str:
        """Keep the values of a node, and say what is to be done about the rest of them."""
        self._has_served = True
        has_moved = self._take(ask, piece, result.columns)
        point = result.point
        if point and point != piece.point:
            return self._followed(piece, point, has_moved=has_moved)
        if not point and len(result.columns.values) < ask.most and name_of(result.code) != "GoodMoreData":
            return self._finished(piece)
        self._drop_point(piece)
        if has_moved:
            piece.idle = 0
            return _AGAIN
        if not point and len(ask.pieces) > 1:
            return _ALONE
        return self._skipped(piece, result.columns)

    def _skipped(self, piece: Piece, columns: Columns) -> str:
        """A server gives the same values for ever, as many as it likes to: go on behind their time, 1 us to 1 ms."""
        piece.idle += 1
        if piece.idle > _MOST_SKIPS or not columns.values:
            self._fail(piece, "continuation")
            return _DONE
        if len(columns.values) > 1:
            piece.trail.doubt = "crowded"
        if piece.is_down:
            piece.end -= 10**piece.idle
        else:
            piece.start += 10**piece.idle
        return _AGAIN if piece.start < piece.end else self._finished(piece)

    def _finished(self, piece: Piece) -> str:
        self._held.discard(piece)
        piece.point, piece.idle = None, 0
        return _AGAIN if piece.goes_on() else _DONE

    def _followed(self, piece: Piece, point: bytes, *, has_moved: bool) -> str:
        piece.point = point
        piece.idle = 0 if has_moved else piece.idle + 1
        self._held.add(piece)
        if piece.idle < _IDLE_PAGES:
            return _FOLLOW
        self._fail(piece, "continuation")
        return _DONE

    def _take(self, ask: Ask, piece: Piece, columns: Columns) -> bool:
        """Keep what was asked for; True where it brought the piece further."""
        ticks = columns.source
        if 0 in ticks:
            ticks = [source or server for source, server in zip(columns.source, columns.server, strict=True)]
        if not ticks:
            return False
        start, end = piece.start, piece.end
        rows = zip(ticks, repeat(piece.trail.position), columns.values, columns.codes, columns.server, strict=False)
        kept = [row for row in rows if start <= row[0] < end]
        piece.trail.found += kept
        self.found += len(kept)
        if len(kept) < len(ticks):
            low, high = ask.start - _SHORTEST, ask.end + _SHORTEST
            self._dropped.value += sum(not low <= tick <= high for tick in ticks)
        if not kept:
            return False
        piece.is_down = ticks[0] > ticks[-1]  # the newest first, as if the times had been asked the other way round
        if piece.is_down:
            piece.end = min(row[0] for row in kept) + 1
        else:
            piece.start = max(row[0] for row in kept)
        return (piece.start, piece.end) != (start, end)

    def _on_fault(self, ask: Ask, name: str) -> list[Ask]:
        """A request failed as a whole, or these pieces of one because it was too much."""
        if name in _STAMPS and len(self._stamps) > 1:
            if ask.stamps is self._stamps[0]:  # else the other lane heard it first
                self._stamps.popleft()
            return [ask]
        is_much = name in _TOO_MUCH or name == "timeout"
        for piece in ask.pieces:
            self._drop_point(piece)
        if len(ask.pieces) > 1 and self._halves_left > 0:
            self._halves_left -= 1
            middle = len(ask.pieces) // 2
            return [Ask.of(ask.pieces[:middle]), Ask.of(ask.pieces[middle:])]
        piece = ask.pieces[0]
        if len(ask.pieces) == 1 and is_much and self._halves_left > 0 and piece.end - piece.start > _SHORTEST:
            self._halves_left -= 1
            piece.halve()
            return [Ask.of([piece])]
        self._lone[name] += len(ask.pieces) == 1
        if name in _NEVER and self._lone[name] > 1 and not self._has_served:
            self._refuses_all = name
        for piece in ask.pieces:
            self._fail(piece, name)
        return []

    def _drop_point(self, piece: Piece) -> None:
        """From now on the piece is asked for by time. The server may hold its point: that is released at the end."""
        if piece in self._held and piece.point is not None:
            self._held.discard(piece)
            self._held.add(Piece(piece.trail, piece.start, piece.end, piece.end, piece.point))
        piece.point = None

    def _fail(self, piece: Piece, cause: str) -> None:
        trail = piece.trail
        trail.cause = trail.cause or cause
        if cause in _NEVER:
            self.refused.setdefault((trail.node, trail.part), cause)


def _moment(ticks: int) -> datetime:
    """A DateTime as the library takes it, which knows microseconds: what is before them is cut off."""
    return datetime(1601, 1, 1, tzinfo=UTC) + timedelta(microseconds=ticks // 10)
