"""StatusCodes as qualities. Pure, and without the library.

    bits 30-31  severity: 0 good, 1 uncertain, 2 and 3 bad        bits 10-11  1: what is below is of a data value
    bits 16-27  what it is; both together have a name             bits 8-9    limit: 1 low, 2 high, 3 constant
    bit 15      the structure of the value changed                bit 7       overflow: values before this one were lost
    bit 14      its meaning changed (EURange, unit, names)        bits 0-4    where in history it comes from

[Part 4 7.39.1]. Only severity and name make a quality: the rest tells of the way, not of the value.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from drivers.opcua.values.codes import NAMES
from gateway.model import GOOD, Quality

BAD: Final = 0x8000_0000
BAD_DECODING_ERROR: Final = 0x8007_0000
BAD_NO_DATA: Final = 0x809B_0000
_NAMED: Final = 0xFFFF_0000


def is_bad(code: int) -> bool:
    """Whether there is no value that may be used. Reserved severities count as bad [Part 4 7.39.1]."""
    return code >= BAD


def name_of(code: int) -> str:
    """What the standard calls a code, BadNodeIdUnknown for example; 0x80AB0000 where it has no name for it."""
    return NAMES.get(code >> 16) or f"0x{code & _NAMED:08X}"


def quality_of(code: int) -> Quality:
    """The quality that a StatusCode means: `good`, `good:GoodClamped`, `uncertain:NAME`, `bad:NAME`.

    Equal codes give the same object.
    """
    return _quality(code & _NAMED) if code & _NAMED else GOOD


@lru_cache(maxsize=1024)
def _quality(code: int) -> Quality:
    level = "good" if code < 0x4000_0000 else "uncertain" if code < BAD else "bad"
    return Quality(f"{level}:{name_of(code)}")
