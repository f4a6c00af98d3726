"""Many questions in few requests: cut by what the server takes, several under way at once, halved where it refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

from drivers.opcua.faults import ServiceFault

IN_FLIGHT = 3
"""So many requests are under way at once: the server works while we take its last answer apart."""

BAD_ENCODING_LIMITS = 0x80080000
BAD_TOO_MANY = 0x80100000
TOO_MUCH = frozenset({BAD_ENCODING_LIMITS, BAD_TOO_MANY, 0x80800000, 0x80B80000, 0x80B90000})
"""Refusals of a request for its size, or for that of its answer: Bad_EncodingLimitsExceeded, Bad_TooManyOperations,
Bad_TcpMessageTooLarge, Bad_RequestTooLarge, Bad_ResponseTooLarge [Part 4 7.39]."""
BAD_UNEXPECTED = 0x80010000
BAD_DECODING = 0x80070000
MOST_SPLITS = 200
"""So often requests are taken apart at most to find those answers in them that nobody can understand."""

_Question = TypeVar("_Question")
_Answer = TypeVar("_Answer")


class Limits(Protocol):
    """How many nodes the server takes in one request; never 0."""

    @property
    def max_nodes_per_read(self) -> int:
        """Of a Read, each attribute counts."""

    @property
    def max_nodes_per_browse(self) -> int:
        """Of a Browse, and continuation points of a BrowseNext."""

    @property
    def max_nodes_per_translate(self) -> int:
        """Paths of a TranslateBrowsePathsToNodeIds."""


class Asks(Protocol):
    """What the rooms here need of a session."""

    @property
    def limits(self) -> Limits:
        """What the server takes in one request."""

    @property
    def namespaces(self) -> tuple[str, ...]:
        """The URIs of its namespaces, by their index in this session."""

    async def call(self, request: Any, *, timeout_s: float | None = None) -> Any:
        """Ask. Raises ServiceFault where the server refuses the whole request, LineError when the link is gone."""

    async def fetch(self, request: Any, *, timeout_s: float | None) -> bytes:
        """The same; the answer as it came."""


async def in_chunks(
    questions: Sequence[_Question],
    most: int,
    ask: Callable[[Sequence[_Question]], Awaitable[Sequence[_Answer]]],
    refused: Callable[[int], _Answer],
) -> list[_Answer]:
    """The answers beside the questions, asked `most` at a time. Raises LineError.

    Where the server refuses a request for its size, halves of it are asked, and no later one is larger than those.
    Where its answer cannot be understood, halves are asked too, down to the one that is to blame. Where it refuses for
    another reason, `refused` makes the answers, out of the StatusCode.
    """
    answers: list[Any] = [None] * len(questions)
    next_at = 0
    size, splits = max(1, most), MOST_SPLITS

    async def chunk(first: int, count: int) -> None:
        nonlocal size, splits
        try:
            found = await ask(questions[first : first + count])
        except ServiceFault as fault:
            is_odd = fault.code == BAD_DECODING and splits > 0
            if count > 1 and (is_odd or fault.code in TOO_MUCH):
                half = (count + 1) // 2
                splits -= is_odd
                size = size if is_odd else min(size, half)
                await chunk(first, half)
                await chunk(first + half, count - half)
                return
            found = [refused(fault.code)] * count
        if len(found) != count:
            found = [refused(BAD_UNEXPECTED)] * count
        answers[first : first + count] = found

    async def work() -> None:
        nonlocal next_at
        while next_at < len(questions):
            first, count = next_at, min(size, len(questions) - next_at)
            next_at += count
            await chunk(first, count)

    await side_by_side(work, min(IN_FLIGHT, -(-len(questions) // size)))
    return answers


async def side_by_side(work: Callable[[], Awaitable[None]], count: int) -> None:
    """Run `work` that many times at once until all are done. The first error ends the others, and is raised."""
    if count <= 1:
        if count:
            await work()
        return
    tasks = [asyncio.create_task(_run(work), name=f"opcua nodes {i}") for i in range(count)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


async def _run(work: Callable[[], Awaitable[None]]) -> None:
    await work()
