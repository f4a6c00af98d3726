"""SunSpec: how a device says that it follows it, and which models it has. Pure.

The registers of a SunSpec device begin with a marker and go on as a chain of models, each with its number and length
(SunSpec Device Information Model Specification 1.2, sections 5 and 6):

    | "SunS" (2 registers) | id (1) | length (1) | length registers | id (1) | length (1) | … | 0xFFFF (1) |

The marker stands at holding register 40000, 50000 or 0. The first model is number 1, the common one: maker and model
as 16 registers of text each, options and version as 8 each, serial number as 16.

Worked example: 53 75 6E 53  00 01 00 42 … is the marker and a common model of 66 registers; the next model begins
66 registers after them.
"""

from __future__ import annotations

from gateway.driver import Model

BASES = (40000, 50000, 0)
"""Where the marker may stand, in holding registers."""
MARKER = b"SunS"
HEAD = 2
"""Registers before a model's content: its number and its length."""
MOST_MODELS = 64
"""A chain is followed no further: real ones have a dozen."""
COMMON = 1
COMMON_REGISTERS = 64
"""As far as its texts reach; the unit's address and a pad register follow."""

_END = 0xFFFF
_LAST = 65535
_TEXTS = (("vendor", 0, 16), ("product", 16, 16), ("options", 32, 8), ("version", 40, 8), ("serial", 48, 16))

MODELS = {
    1: "common",
    101: "inverter, single phase, integers",
    102: "inverter, split phase, integers",
    103: "inverter, three phase, integers",
    111: "inverter, single phase, floats",
    112: "inverter, split phase, floats",
    113: "inverter, three phase, floats",
    120: "inverter nameplate ratings",
    121: "inverter basic settings",
    122: "inverter measurements and status",
    123: "inverter immediate controls",
    124: "storage controls",
    160: "MPPT extension",
    201: "meter, single phase, integers",
    202: "meter, split phase, integers",
    203: "meter, three phase wye, integers",
    204: "meter, three phase delta, integers",
    211: "meter, single phase, floats",
    212: "meter, split phase, floats",
    213: "meter, three phase wye, floats",
    214: "meter, three phase delta, floats",
    302: "irradiance",
    303: "back of module temperature",
    304: "inclinometer",
    305: "location",
    307: "base meteorology",
    308: "small meteorology",
    701: "DER AC measurements",
    702: "DER capacity",
    703: "DER enter service",
    704: "DER AC controls",
    713: "DER storage capacity",
    714: "DER DC measurements",
    802: "battery",
    803: "lithium-ion battery bank",
    804: "lithium-ion battery string",
}
"""The models met most often, by number (names after github.com/sunspec/models, Apache-2.0)."""


def model_at(address: int, head: bytes) -> Model | None:
    """The model whose number and length (4 bytes) stand at that holding register; None at the end of the chain.

    None as well where they cannot be one: number 0, or a length that reaches beyond the last register.
    """
    number, length = int.from_bytes(head[:2]), int.from_bytes(head[2:4])
    if number in (0, _END) or address + HEAD + length > _LAST:
        return None
    return Model(number, MODELS.get(number, ""), f"holding:{address}", length)


def identity(content: bytes) -> dict[str, str]:
    """What the common model says of its device; `content` are its registers, as many as came. Empty texts are left out.

    Bytes that are no Latin-1 text cannot be: every byte is one; what does not print is left out.
    """
    said: dict[str, str] = {}
    for name, first, count in _TEXTS:
        raw = content[first * 2 : (first + count) * 2].partition(b"\0")[0].decode("latin-1")
        if text := "".join(c for c in raw if c.isprintable()).strip():
            said[name] = text
    return said
