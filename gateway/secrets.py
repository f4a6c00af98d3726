"""Secrets by reference: `${env:NAME}`, `${file:/path}`, `${credential:NAME}`. A secret never prints itself."""

from __future__ import annotations

import hmac
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

MASK = "********"
BASE = "base"
"""Key of pydantic's validation context: the folder (Path) that relative files are relative to."""

_REFERENCE = re.compile(r"\$\{(env|file|credential):([^{}]+)\}")
_PATTERN = r"^\$\{(env|file|credential):[^{}]+\}$"
_CREDENTIALS = "CREDENTIALS_DIRECTORY"
_LARGEST = 64 * 1024


class Secret:
    """A text that is shown to nobody by accident: `repr`, `str`, `format`, JSON and pickle do not give it away.

    `source` is the reference it came from, which may be shown. `caution` says what is wrong with the way it is kept,
    with the cure; empty when nothing is.
    """

    __slots__ = ("_text", "caution", "source")

    def __init__(self, text: str, *, source: str = "", caution: str = "") -> None:
        self._text = text
        self.source = source
        self.caution = caution

    def reveal(self) -> str:
        """The text itself. Call it where it is sent, and keep no copy."""
        return self._text

    def __repr__(self) -> str:
        return f"Secret({self.source or MASK})"

    def __str__(self) -> str:
        return MASK

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled or copied to disk")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(
            _secret, serialization=core_schema.plain_serializer_function_ser_schema(str, when_used="json")
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "pattern": _PATTERN}


@dataclass(frozen=True, slots=True)
class Referable:
    """Makes a pydantic text field read either plain text or a reference; see `Text`."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(_text)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string"}


Text = Annotated[str, Referable()]
"""A pydantic field of text that may also come by reference, a user name for example."""


def is_reference(text: str) -> bool:
    """Whether the text is, or was meant to be, a reference."""
    return text.startswith("${")


def resolve(reference: str, base: Path) -> Secret:
    """Look up one reference; a relative file is relative to `base`.

    Raises ValueError, which says what is missing and the cure, and never quotes a secret.
    """
    found = _REFERENCE.fullmatch(reference)
    if not found:
        raise ValueError(
            "a reference is written ${env:NAME}, ${file:/path} or ${credential:NAME}, and nothing around it"
        )
    kind, name = found[1], found[2].strip()
    if kind == "env":
        text = os.environ.get(name, "")
        if not text:
            raise ValueError(
                f"the environment variable {name} is not set, or empty. Set it for the service, and for check"
            )
        return Secret(text, source=reference)
    if kind == "file":
        return _read(base / Path(name).expanduser(), reference)
    folder = os.environ.get(_CREDENTIALS)
    if not folder:
        raise ValueError(
            f"credentials exist only under systemd, which sets ${_CREDENTIALS}. "
            f"Name it in the unit (LoadCredential={name}:/path); for a check by hand, set the variable to their folder"
        )
    if "/" in name:
        raise ValueError(f"'{name}' is not the name of a credential. A path goes into ${{file:…}}")
    return _read(Path(folder) / name, reference)


def _read(path: Path, reference: str) -> Secret:
    """The text of a file without its last line end, with a caution when strangers can read or change it."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # before opening: a FIFO would keep us waiting
            raise ValueError(f"{path} is not a file. Name a file that holds the secret and nothing else")
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ValueError(f"{path}: {reason}. Make the file, readable for headgate") from error
    if len(data) > _LARGEST:
        raise ValueError(f"{path} is larger than {_LARGEST // 1024} KiB. That is no secret, name another file")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text. Save it as UTF-8") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise ValueError(f"{path} is empty. Write the secret into it")
    return Secret(text, source=reference, caution=caution(path))


def caution(path: Path) -> str:
    """What is wrong with the permissions of a file that holds a secret, with the cure; empty when nothing is.

    Raises OSError when there is no such file.
    """
    mode = path.stat().st_mode
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"{path} can be changed by others on this machine: chmod go-w,o= {path}"
    if mode & stat.S_IRWXO:
        return f"{path} can be read by everybody on this machine: chmod o= {path}"
    return ""


def _base(info: core_schema.ValidationInfo) -> Path:
    """The folder that relative files are relative to."""
    return Path(info.context[BASE]) if info.context else Path()


def _secret(value: Any, info: core_schema.ValidationInfo) -> Secret:
    """Read a pydantic field of type Secret. Plain text is refused, and not quoted."""
    if isinstance(value, Secret):
        return value
    if not isinstance(value, str) or not is_reference(value):
        raise ValueError(
            "a secret in plain text: whoever sees this file has it. Write it into a file of its own "
            "(chmod 600) and put ${file:/path} here, or ${env:NAME}, or ${credential:NAME}"
        )
    return resolve(value, _base(info))


def _text(value: Any, info: core_schema.ValidationInfo) -> str:
    """Read a pydantic field of type Text."""
    if not isinstance(value, str):
        raise ValueError("expected text. Put it in quotes")  # noqa: TRY004 - pydantic wants ValueError
    return resolve(value, _base(info)).reveal() if is_reference(value) else value
