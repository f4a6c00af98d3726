"""What a text of the file says about itself: whether a file can be read, whether an address is this machine's own."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Any


def many(value: Any) -> Any:
    """A list of one where one text stands for it."""
    return [value] if isinstance(value, str) else value


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach, or be, that host."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def wrong_file(path: Path) -> str:
    """Why a file cannot be read, with the cure; empty when it can."""
    try:
        with path.open("rb"):
            return ""
    except OSError as error:
        return f"{path}: {(error.strerror or str(error)).lower()}. Check the path and its permissions"
