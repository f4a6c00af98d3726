"""Tasks that end together: when one of them ends, so do the others, and nothing goes on behind anybody's back."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any, TypeVar

_AGAIN_S = 10.0
"""A task that took no notice of its end is told again after so long."""

_Result = TypeVar("_Result")


async def first_of(tasks: Collection[asyncio.Task[_Result]]) -> asyncio.Task[_Result]:
    """Wait for the first of these tasks that ends."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    return next(task for task in tasks if task in done)


async def end(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel these tasks until all have ended. Who is cancelled meanwhile waits all the same, and raises that then."""
    cancelled: asyncio.CancelledError | None = None
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        try:
            await asyncio.wait(pending, timeout=_AGAIN_S)
        except asyncio.CancelledError as error:
            cancelled = error
    for task in tasks:
        if not task.cancelled():
            task.exception()  # that it had one is known by the first of them
    if cancelled is not None:
        raise cancelled
