"""What the verbs of `headgate queue` have in common: the spool they are about, its classes, moments, and JSON."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.config import Config
    from gateway.model import RecordClass
    from gateway.spool.limits import Limits
    from gateway.upkeep.folder import Part
    from gateway.upkeep.moments import Span
    from gateway.upkeep.survey import Survey


@dataclass(frozen=True, slots=True)
class Target:
    """A spool's folder, and the file of the gateway it belongs to where that was named."""

    folder: Path
    config: Config | None

    def parts(self, record_class: RecordClass | None) -> list[Part]:
        """The folders of its classes, or of that one. Raises FileError and RefusedError."""
        from gateway.upkeep.folder import parts

        return parts(self.folder, record_class)

    def surveys(self, record_class: RecordClass | None) -> list[Survey]:
        """The same, listed and ready to be read."""
        from gateway.upkeep.survey import Survey

        return [Survey(part) for part in self.parts(record_class)]

    @property
    def limits(self) -> Mapping[RecordClass, Limits] | None:
        """What each class may take, where the gateway's file says so."""
        if self.config is None:
            return None
        used = {group.record_class for groups in self.config.groups.values() for group in groups}
        return self.config.spool.limits_of(used)

    @property
    def ground(self) -> Path:
        """The folder, or what is there of its path where no gateway was ever started: the medium is the same."""
        folder = self.folder
        while not folder.exists():
            folder = folder.parent
        return folder

    @property
    def is_running(self) -> bool:
        """Whether a gateway works on the folder right now, whether it answers or not."""
        from gateway.control import ControlError

        try:
            return running(self) is not None
        except ControlError:
            return True


def declare(parser: argparse.ArgumentParser, *, with_class: bool = True) -> None:
    """The arguments of every verb."""
    parser.add_argument("file", type=Path, metavar="FILE", help="the gateway file, or the folder of a spool")
    if with_class:
        classes = ("alarm", "event", "data", "diag")
        parser.add_argument("--class", dest="record_class", choices=classes, help="only records of this class")
    parser.add_argument("--json", action="store_true", help="print JSON")


def declare_span(parser: argparse.ArgumentParser, what: str) -> None:
    """Two moments."""
    form = "2026-11-22T06:00Z, without a zone in the machine's own; ms since 1970; -2h is two hours ago"
    parser.add_argument("--from", dest="first", metavar="TIME", help=f"{what} from then on: {form}")
    parser.add_argument("--to", dest="last", metavar="TIME", help=f"{what} up to then")


def find(options: argparse.Namespace) -> Target:
    """The spool that was named, by its folder or by the gateway's file. Raises FileError."""
    path: Path = options.file
    if path.is_dir():
        return Target(path, None)
    from gateway.config import load

    config = load(path)
    return Target(config.spool.path, config)


def running(target: Target) -> dict[str, Any] | None:
    """What the gateway that works on the folder says of itself; None where none does. Raises ControlError."""
    from gateway.control import NotRunningError, ask

    try:
        return ask(target.folder, {"do": "status"})
    except NotRunningError:
        return None


def confirm(options: argparse.Namespace, question: str) -> bool:
    """Whether the person says yes; with --yes unasked. Raises RefusedError where nobody is there to ask."""
    if options.yes:
        return True
    answer = says_yes(question)
    if answer is None:
        from gateway.errors import RefusedError

        raise RefusedError("nobody is there to be asked. Give --yes if it shall be done")
    return answer


def says_yes(question: str) -> bool | None:
    """Whether the person at the terminal says yes; None where nobody is there to ask."""
    if sys.stdin is None or not sys.stdin.isatty():
        return None
    print(f"{question}? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def moment(text: str | None) -> int | None:
    """Ms since 1970 of a moment on the command line. A zone left open is said. Raises FileError."""
    if text is None:
        return None
    from gateway.errors import FileError, Mistake
    from gateway.model import Place
    from gateway.upkeep.moments import iso, parse_moment, zone

    try:
        ms, is_local = parse_moment(text, time.time_ns() // 1_000_000)
    except ValueError as error:
        raise FileError([Mistake(Place(), str(error))]) from None
    if is_local:
        print(f"{text} is taken as local time ({zone()}): {iso(ms)}", file=sys.stderr)
    return ms


def span(options: argparse.Namespace) -> Span:
    """The two moments as a span. Raises FileError, also where they stand the wrong way round."""
    from gateway.errors import FileError, Mistake
    from gateway.model import Place
    from gateway.upkeep.moments import Span

    first, last = moment(options.first), moment(options.last)
    if first is not None and last is not None and first > last:
        raise FileError([Mistake(Place(), f"--from {options.first} is later than --to {options.last}")])
    return Span(first, last)


def seqs(text: str | None) -> tuple[int, int]:
    """Numbers of records: `5`, `5..9`, `5..`, `..9`; both ends belong to it. Raises FileError."""
    from gateway.errors import FileError, Mistake
    from gateway.model import Place

    most = (1 << 64) - 1
    if text is None:
        return 0, most
    found = re.fullmatch(r"([0-9]*)(\.\.)?([0-9]*)", text)
    if not found or not (found[1] or found[3]):
        raise FileError([Mistake(Place(), f"'{text[:40]}' are no numbers of records. Write 4711, 100..200, or 100..")])
    first = int(found[1] or 0)
    last = int(found[3] or most) if found[2] else first
    if first > last:
        raise FileError([Mistake(Place(), f"--seq {text[:40]}: the first number is larger than the last")])
    return first, last


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    import orjson

    print(orjson.dumps(document, option=orjson.OPT_INDENT_2, default=_plain).decode())


def print_list(rows: Iterable[Any]) -> None:
    """A list of documents, however long: one a line, together one JSON array."""
    import orjson

    before = "["
    for row in rows:
        print(f"{before}\n  {orjson.dumps(row, default=_plain).decode()}", end="")
        before = ","
    print("\n]" if before == "," else "[]")


def _plain(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
