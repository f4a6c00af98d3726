"""A recorded line as a simulated device: each request gets the answer it got then.

A request that stands in the recording is answered as recorded, byte for byte on a bus, noise included; asked again it
gets the next recorded answer, and the last one for ever. A read that was never asked for in that shape is answered
from the registers that other answers held, as far as the replay has come. What is not in the recording is refused with
exception 2; a unit that never answered stays silent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Literal, TypeAlias, cast, get_args
from urllib.parse import urlsplit

from drivers.listening import Accept, listen_pty, listen_tcp
from drivers.modbus.frames import pdu as functions
from drivers.modbus.frames.mbap import Framer
from drivers.modbus.lines.url import Framing
from drivers.modbus.tools.serving import Asked, Cutter, answers_in, exception, frame
from drivers.recording import Entry, Recording, parse
from drivers.stream import Stream
from gateway.driver import Replay
from gateway.errors import LineError

Tell: TypeAlias = Callable[[str], None]
How: TypeAlias = Literal["exact", "image", "unknown"]

_READS = (1, 2, 3, 4)
_WRITES_REGISTERS = {functions.WRITE_REGISTER: 3, functions.WRITE_REGISTERS: 6}
"""Where the values begin in a request that writes registers."""
_IDLE_S = 0.05
_MOST_TOLD = 1000
_TCP_SCHEMES: dict[str, Framing] = {"tcp": "tcp", "rtu+tcp": "rtu", "ascii+tcp": "ascii"}
_PTY_SCHEMES: dict[str, Framing] = {"rtu": "rtu", "ascii": "ascii"}


# --- what a recording holds -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Take:
    """A request and what came of it: `answer` None is silence. `heard` are the bytes as they came, each `s` later."""

    unit: int
    asked: bytes
    sent_at: float
    answer: bytes | None = None
    delay_s: float = 0.0
    heard: list[tuple[float, bytes]] = field(default_factory=list)


def takes_of(recording: Recording) -> list[Take]:
    """The requests of a recording in order, with their answers. Raises ValueError where its framing is not known."""
    framing = framing_of(recording)
    sessions = _sessions(recording.entries)
    takes = [take for entries in sessions for take in (_tcp if framing == "tcp" else _bus)(entries, framing)]
    if takes and takes[-1].answer is None and not takes[-1].heard:
        takes.pop()  # the recording ended before its answer could come
    return takes


def framing_of(recording: Recording) -> Framing:
    """How frames are cut on the recorded line. Raises ValueError."""
    framing = recording.head.get("framing", "")
    if framing not in get_args(Framing):
        raise ValueError(f"framing '{framing}' is none of {', '.join(get_args(Framing))}. Mend the line '# framing:'")
    return cast(Framing, framing)


def _sessions(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """The bytes between two openings of the line."""
    session: list[Entry] = []
    for entry in entries:
        if entry.kind != "=":
            session.append(entry)
        elif entry.text.startswith(("opened", "closed", "lost")) and session:
            yield session
            session = []
    yield session


def _tcp(entries: Iterable[Entry], _framing: Framing) -> list[Take]:
    takes: list[Take] = []
    waiting: dict[tuple[int, int], Take] = {}
    framers = {">": Framer(), "<": Framer()}
    for entry in entries:
        for transaction, unit, pdu in framers[entry.kind].receive(entry.data):
            if entry.kind == ">" and pdu:
                take = waiting[transaction, unit] = Take(unit, pdu, entry.at)
                takes.append(take)
            elif (answered := waiting.pop((transaction, unit), None)) is not None:
                answered.answer, answered.delay_s = pdu, entry.at - answered.sent_at
    return takes


def _bus(entries: Sequence[Entry], framing: Framing) -> list[Take]:
    takes: list[Take] = []
    cutter = Cutter(framing)
    for entry in entries:
        if entry.kind == ">":
            takes += [Take(asked.unit, asked.pdu, entry.at) for asked in cutter.receive(entry.data)]
        elif takes:
            takes[-1].heard.append((entry.at - takes[-1].sent_at, entry.data))
    echo = _has_echo(takes, framing)
    for take in takes:
        _find_answer(take, framing, echo=echo)
    return takes


def _has_echo(takes: Iterable[Take], framing: Framing) -> bool:
    """Whether the line gives back what is sent: to a read that can be no answer."""
    for take in takes:
        if take.asked[0] in _READS and take.heard:
            return _joined(take).startswith(frame(framing, Asked(take.unit, take.asked), take.asked))
    return False


def _find_answer(take: Take, framing: Framing, *, echo: bool) -> None:
    own = frame(framing, Asked(take.unit, take.asked), take.asked)
    heard = _joined(take)
    start = len(own) if echo and heard.startswith(own) else 0
    kind: Literal["rtu", "ascii"] = "ascii" if framing == "ascii" else "rtu"
    for answer, end in answers_in(heard[start:], kind, take.unit, take.asked):
        take.answer, take.delay_s = answer, _when(take, start + end)
        return


def _joined(take: Take) -> bytes:
    return b"".join(data for _, data in take.heard)


def _when(take: Take, end: int) -> float:
    """When the byte before `end` was heard."""
    for at, data in take.heard:
        end -= len(data)
        if end <= 0:
            return at
    return 0.0


# --- playing --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reply:
    """What a request gets: `pdu` None is silence. `heard` are the recorded bytes where they can be sent as they are."""

    how: How
    pdu: bytes | None
    delay_s: float
    heard: Sequence[tuple[float, bytes]] = ()


class Player:
    """Gives each request its answer. It knows no framing and no time."""

    def __init__(self, takes: Sequence[Take]) -> None:
        self._takes: dict[tuple[int, bytes], list[Take]] = {}
        self._played: dict[tuple[int, bytes], int] = {}
        self._image: dict[tuple[int, int], dict[int, bytes]] = {}
        delays: dict[int, list[float]] = {}
        for take in takes:
            self._takes.setdefault((take.unit, take.asked), []).append(take)
            if take.answer is not None:
                delays.setdefault(take.unit, []).append(take.delay_s)
        self._delay_s = {unit: median(found) for unit, found in delays.items()}
        for take in reversed(takes):  # so that the earliest values stand
            self._note(take)

    def __repr__(self) -> str:
        return f"<player of {len(self._takes)} requests to units {sorted({unit for unit, _ in self._takes})}>"

    def answer(self, unit: int, asked: bytes) -> Reply:
        """What this request gets now."""
        key = unit, asked
        if key in self._takes:
            turn = self._played.get(key, 0)
            take = self._takes[key][min(turn, len(self._takes[key]) - 1)]
            self._played[key] = turn + 1
            self._note(take)
            return Reply("exact", take.answer, take.delay_s, take.heard)
        delay_s = self._delay_s.get(unit)
        if delay_s is None:
            return Reply("unknown", None, 0.0)
        values = self._from_image(unit, asked)
        if values is not None:
            return Reply("image", values, delay_s)
        return Reply("unknown", exception(asked, 2), delay_s)

    def _note(self, take: Take) -> None:
        """Take up the values of an answer, or those that were written."""
        asked, answer = take.asked, take.answer
        if answer is None or answer[0] & 0x80 or len(asked) < 5:
            return
        first = int.from_bytes(asked[1:3])
        if asked[0] in _READS:
            count = int.from_bytes(asked[3:5])
            self._image.setdefault((take.unit, asked[0]), {}).update(_cells(asked[0], first, count, answer[2:]))
        elif asked[0] in _WRITES_REGISTERS:
            values = asked[_WRITES_REGISTERS[asked[0]] :]
            page = self._image.setdefault((take.unit, functions.READ_HOLDING_REGISTERS), {})
            page.update(_cells(functions.READ_HOLDING_REGISTERS, first, len(values) // 2, values))

    def _from_image(self, unit: int, asked: bytes) -> bytes | None:
        """The answer to a read, where every value of it is known."""
        if asked[0] not in _READS or len(asked) != 5:
            return None
        page = self._image.get((unit, asked[0]), {})
        first, count = int.from_bytes(asked[1:3]), int.from_bytes(asked[3:5])
        cells = [page.get(at) for at in range(first, first + count)]
        if not cells or count > functions.MAX_BITS or None in cells:
            return None
        known = cast(list[bytes], cells)
        if asked[0] > 2:
            body = b"".join(known)
        else:
            body = sum(bit[0] << i for i, bit in enumerate(known)).to_bytes((count + 7) // 8, "little")
        return None if len(body) > 250 else bytes((asked[0], len(body))) + body


def _cells(function: int, first: int, count: int, values: bytes) -> Mapping[int, bytes]:
    """Each register's two bytes, or each bit as one byte 0 or 1, by address."""
    if function > 2:
        return {first + i: values[2 * i : 2 * i + 2] for i in range(min(count, len(values) // 2))}
    return {first + i: bytes((values[i // 8] >> i % 8 & 1,)) for i in range(min(count, len(values) * 8))}


# --- serving --------------------------------------------------------------------------------------------------------


def acceptor(
    player: Player, framing: Framing, *, recorded: Framing, speed: float, replay: Replay, tell: Tell
) -> Accept:
    """Who hears each client that comes. `speed` 2 answers in half of the recorded time, 0 at once."""
    as_heard = recorded == framing != "tcp"
    told: set[tuple[int, bytes]] = set()

    def answer(asked: Asked) -> Iterator[tuple[float, bytes]]:
        reply = player.answer(asked.unit, asked.pdu)
        setattr(replay, reply.how, getattr(replay, reply.how) + 1)
        key = asked.unit, asked.pdu
        if reply.how == "unknown" and key not in told and len(told) < _MOST_TOLD:
            told.add(key)
            tell(f"unit {asked.unit}: not in the recording: {asked.pdu.hex(' ')}")
        if as_heard and reply.heard:
            yield from reply.heard
        elif reply.pdu is not None:
            yield reply.delay_s, frame(framing, asked, reply.pdu)

    return lambda stream: _Station(stream, framing, answer, speed)


class _Station:
    """One client, or all that share a bus."""

    def __init__(
        self,
        stream: Stream,
        framing: Framing,
        answer: Callable[[Asked], Iterable[tuple[float, bytes]]],
        speed: float,
    ) -> None:
        self._stream = stream
        self._cutter = Cutter(framing)
        self._answer = answer
        self._speed = speed
        self._loop = asyncio.get_running_loop()
        self._idle: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<station of {self._stream!r}>"

    def on_data(self, data: bytes) -> None:
        """The client asks."""
        if self._idle is not None:
            self._idle.cancel()
        self._serve(self._cutter.receive(data))
        if self._cutter.is_broken:
            self._stream.close()
            return
        self._idle = self._loop.call_later(_IDLE_S, self._on_idle)

    def on_lost(self, error: LineError) -> None:  # noqa: ARG002 - whoever leaves may come again
        """The client left."""
        if self._idle is not None:
            self._idle.cancel()

    def _on_idle(self) -> None:
        self._serve(self._cutter.idle())

    def _serve(self, requests: Iterable[Asked]) -> None:
        for asked in requests:
            for delay_s, data in self._answer(asked):
                if self._speed:
                    self._loop.call_later(delay_s / self._speed, self._stream.write, data)
                else:
                    self._stream.write(data)


@asynccontextmanager
async def replay(text: str, *, listen: str, speed: float, tell: Tell) -> AsyncIterator[Replay]:
    """Serve the text of a recording at `listen`: tcp://, rtu+tcp:// or ascii+tcp:// HOST:PORT, or rtu:///PATH.

    Raises ValueError with the cure.
    """
    recording = parse(text)
    recorded = framing_of(recording)
    takes = takes_of(recording)
    if not takes:
        raise ValueError("the recording holds no request. Record again while the device is asked")
    served = Replay("")

    def opened(framing: Framing) -> Accept:
        return acceptor(Player(takes), framing, recorded=recorded, speed=speed, replay=served, tell=tell)

    async with _listen(listen, opened) as served.where:
        yield served


def _listen(url: str, opened: Callable[[Framing], Accept]) -> AbstractAsyncContextManager[str]:
    cure = "Use tcp://HOST:PORT, rtu+tcp://HOST:PORT, ascii+tcp://HOST:PORT, rtu:///PATH or ascii:///PATH"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"'{url}': {error}. {cure}") from None
    if parts.scheme in _TCP_SCHEMES and parts.hostname:
        return _on_tcp(parts.scheme, parts.hostname, port or 0, opened)
    if parts.scheme in _PTY_SCHEMES and parts.path and not parts.hostname:
        return _on_pty(parts.scheme, Path(parts.path), opened)
    raise ValueError(f"nobody can listen at '{url}'. {cure}")


@asynccontextmanager
async def _on_tcp(scheme: str, host: str, port: int, opened: Callable[[Framing], Accept]) -> AsyncIterator[str]:
    async with listen_tcp(host, port, opened(_TCP_SCHEMES[scheme])) as found:
        yield f"{scheme}://[{host}]:{found}" if ":" in host else f"{scheme}://{host}:{found}"


@asynccontextmanager
async def _on_pty(scheme: str, path: Path, opened: Callable[[Framing], Accept]) -> AsyncIterator[str]:
    async with listen_pty(path, opened(_PTY_SCHEMES[scheme])) as found:
        yield f"{scheme}://{found}"
