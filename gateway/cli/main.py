"""The command `headgate`: picks one command, imports that one only, and turns errors into messages and exit codes.

Exit codes: 0 well, 1 it failed, 2 wrong use or wrong file, 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import re
import sys
from collections.abc import Sequence
from errno import ENOSPC
from typing import Any

from gateway import __version__

COMMANDS = (
    "run", "check", "demo", "init", "schema", "profiles", "probe", "browse", "read", "write", "record", "replay",
    "status", "passwd", "certificate", "trust", "doctor", "bench", "queue",
)  # fmt: skip

_INTERRUPTED = 130


class _Command(argparse.ArgumentParser):
    """One command's arguments: options may stand between the others, `passwd FILE --delete USER`.

    What begins with a minus and a digit is a value: `--from -2h`.
    """

    _is_inside = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """What the list of commands calls for the one that is wanted; it comes back here for each half."""
        if self._is_inside or self._subparsers is not None:  # `queue VERB …`: each verb is a command of its own
            return super().parse_known_args(args, namespace)
        args = _joined(args)
        self._is_inside = True
        return self.parse_known_intermixed_args(args, namespace)


def _joined(args: Sequence[str]) -> list[str]:
    """The arguments, with `--option -2h` as `--option=-2h`: else the value would be taken for an option."""
    joined: list[str] = []
    for text in args:
        if re.match("-[0-9]", text) and joined and re.fullmatch("--[a-z-]+", joined[-1]):
            joined[-1] += f"={text}"
        else:
            joined.append(text)
    return joined


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal of another alphabet must not end a command
            stream.reconfigure(errors="backslashreplace")
    args = list(sys.argv[1:] if argv is None else argv)
    if args[:1] == ["--version"]:
        print(f"headgate {__version__}")
        return 0
    try:
        return _run(args)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:  # `headgate schema | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser(names: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="headgate",
        description="Edge gateway from industrial field devices to MQTT.",
        epilog="Exit codes: 0 well, 1 it failed, 2 wrong use or wrong file.",
    )
    parser.add_argument("--version", action="version", version=f"headgate {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Command)
    for name in names:
        module: Any = importlib.import_module(f"gateway.cli.{name}")
        sub = commands.add_parser(name, help=module.SUMMARY, description=module.SUMMARY)
        module.configure(sub)
        sub.set_defaults(work=module.run)
    return parser


def _run(args: list[str]) -> int:
    from gateway.errors import FileError, HeadgateError

    wanted = args[0] if args and args[0] in COMMANDS else None
    options = _parser([wanted] if wanted else COMMANDS).parse_args(args)
    try:
        code = int(options.work(options))
        if sys.stdout is not None:
            sys.stdout.flush()
    except FileError as error:
        _complain(str(error))
        return 2
    except HeadgateError as error:
        _complain(f"headgate: {error}")
        return 1
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno != ENOSPC:
            raise
        _complain(f"headgate: the output cannot be written: {error.strerror}")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def _complain(text: str) -> None:
    """Say it on standard error; as an error where the journal reads it."""
    prefix = "<3>" if os.environ.get("JOURNAL_STREAM") else ""
    print("\n".join(prefix + line for line in text.splitlines()), file=sys.stderr)
