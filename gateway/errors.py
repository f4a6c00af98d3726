"""The exception tree on one page. Two questions decide the type: what is broken, and who acts.

A message names the thing, the place and the cure. Start-up failures say which of three they are: not ready (we retry),
refused (a person must act), wrong (the file must be mended).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.model import Batch, Place


class HeadgateError(Exception):
    """Root of everything headgate raises on purpose."""


# --- wrong: the file must be mended ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing wrong in the user's files: `place`, and `text` that says what and the cure."""

    place: Place
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}" if self.place.file else self.text


class FileError(HeadgateError):
    """The user's files cannot be run as they are. Carries every mistake, in the order of the file. Exit code 2."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = sorted(mistakes, key=lambda m: (m.place.file, m.place.line, m.place.column))
        super().__init__("\n".join(map(str, self.mistakes)))


# --- refused: a person must act -------------------------------------------------------------------------------------


class RefusedError(HeadgateError):
    """Something outside the files needs a person: a folder is not writable, a lock is held, a login is refused."""


# --- field side: not ready, we retry --------------------------------------------------------------------------------


class FieldError(HeadgateError):
    """A read or write on the field side failed. `cause` is the quality's cause (`timeout`, `offline`, …)."""

    def __init__(self, text: str, *, cause: str) -> None:
        super().__init__(text)
        self.cause = cause


class DeviceError(FieldError):
    """The unit does not answer, or not in a way that can be used. `partial` holds what it gave before, if anything."""

    def __init__(self, text: str, *, cause: str, partial: Batch | None = None) -> None:
        super().__init__(text, cause=cause)
        self.partial = partial


class TagError(FieldError):
    """What was asked of this tag alone failed: the unit answered, and said no. Nothing else is harmed."""


class ExpiredError(FieldError):
    """Nothing was sent: when its turn came it was too late for what was asked."""


class LineError(FieldError):
    """The connection or port is gone: all devices on it are out of reach. The line is left and entered anew."""


# --- uplinks --------------------------------------------------------------------------------------------------------


class UplinkError(HeadgateError):
    """The server is out of reach or the session broke: not ready, we retry."""
