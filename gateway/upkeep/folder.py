"""Which folders make up a spool, and whether a folder is one at all."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import FileError, Mistake, RefusedError
from gateway.journal.disk import FolderDisk
from gateway.journal.segment import number_of
from gateway.journal.slots import NAME as SLOTS
from gateway.model import CLASSES, Place, RecordClass

_SPARE = re.compile(r"spare-[0-9]+")


@dataclass(frozen=True, slots=True)
class Part:
    """One class's folder of a spool."""

    record_class: RecordClass
    folder: Path

    @property
    def disk(self) -> FolderDisk:
        """The folder, for reading only."""
        return FolderDisk(self.folder, writable=False)


def parts(folder: Path, record_class: RecordClass | None = None) -> list[Part]:
    """The folders of the classes that are there, the most important first; with `record_class` that one alone.

    Raises FileError where the folder is none of a spool, or has no such class; RefusedError where it cannot be read.
    """
    below = {name: folder if name == "data" else folder / name for name in CLASSES}
    found = [Part(name, place) for name, place in below.items() if _is_store(place)]
    if not found:
        raise FileError([Mistake(Place(str(folder)), _what_else(folder))])
    if record_class is None:
        return found
    chosen = [part for part in found if part.record_class == record_class]
    if not chosen:
        there = ", ".join(part.record_class for part in found)
        raise FileError([Mistake(Place(str(folder)), f"there is no class '{record_class}' here; there are: {there}")])
    return chosen


def _is_own(name: str) -> bool:
    """Whether a file of that name is a spool's own."""
    return name in (SLOTS, "lock") or number_of(name) is not None or _SPARE.fullmatch(name) is not None


def _is_store(folder: Path) -> bool:
    try:
        names = os.listdir(folder)  # noqa: PTH208 - plain names are what we want
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise RefusedError(f"{folder}: cannot be read ({error.strerror}). Run the command as who may") from error
    return any(map(_is_own, names))


def _what_else(folder: Path) -> str:
    """What the folder is instead, and where a spool may be."""
    if not folder.is_dir():
        return "there is no such folder. Name a gateway file, or the folder of its spool"
    for guess in (folder / "spool", folder / "headgate-data" / "spool"):
        if guess.is_dir() and _is_store(guess):
            return f"this is no spool's folder, but {guess} is. Name that"
    if not any(folder.iterdir()):
        return "this folder is empty: no spool was ever opened here. Name a gateway file, or the folder of its spool"
    return (
        "this is no spool's folder: it has neither segments nor slots. Name a gateway file, or the folder of its spool"
    )
