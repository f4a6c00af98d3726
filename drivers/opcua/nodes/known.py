"""What is known of a tag's node in this session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

HISTORY_READ = 0x04
"""Bit of an access level: the node has a history that may be read [Part 3 8.57]."""
WRITE = 0x02


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """`node` is the library's NodeId, None where there is none: then `code` says why, a StatusCode.

    `type` is the type in our words (float32, int16, bool, string …), empty for what is no scalar of those. `builtin` is
    the number of the built-in type of its values (1 to 25 [Part 6 5.1.2]), 0 where unknown; `rank` its value rank, -1
    for a scalar; `data_type` the NodeId of its data type. `labels` are the names of an enumeration. `access` are the
    bits of its user access level.
    """

    node: Any
    code: int = 0
    type: str = ""
    builtin: int = 0
    rank: int = -1
    data_type: Any = None
    labels: Mapping[int, str] | None = None
    access: int = 0

    @property
    def has_history(self) -> bool:
        """Whether the server remembers its values, and lets them be read."""
        return bool(self.access & HISTORY_READ)
