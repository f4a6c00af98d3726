"""Where a tag lives in a Modbus device: `holding:100`, `coil:5`, `holding:100.3`, or a Modicon number. Pure.

Four tables, each with addresses 0 to 65535 as they go over the wire:

    | table    | holds                  | read by function | Modicon digit |
    | coil     | bits, writable         | 1                | 0             |
    | discrete | bits                   | 2                | 1             |
    | input    | registers of 16 bits   | 4                | 3             |
    | holding  | registers, writable    | 3                | 4             |

Modicon numbers count from 1 and carry the table in their first digit. The number of digits decides, nothing else:

    1 to 4 digits   a coil, 1 .. 9999 (that is what YAML makes of an unquoted 00005)      5      = coil:4
    5 digits        table digit and 0001 .. 9999                                          40101  = holding:100
    6 digits        table digit and 00001 .. 65536                                        400101 = holding:100

A point and 0 .. 15 after a register names one of its bits, 0 the lowest: `holding:100.3`, `40101.3`. Zero-based numbers
may be written in hexadecimal, as many manuals do: `input:0x0156`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from drivers.modbus import pdu

LAST = 65535
"""The highest address of every table."""


@dataclass(frozen=True, slots=True)
class Table:
    """One of a device's four tables."""

    name: str
    function: int
    digit: str
    bits: bool


COIL = Table("coil", pdu.READ_COILS, "0", bits=True)
DISCRETE = Table("discrete", pdu.READ_DISCRETE_INPUTS, "1", bits=True)
INPUT = Table("input", pdu.READ_INPUT_REGISTERS, "3", bits=False)
HOLDING = Table("holding", pdu.READ_HOLDING_REGISTERS, "4", bits=False)

TABLES = {table.name: table for table in (COIL, DISCRETE, INPUT, HOLDING)}
_BY_DIGIT = {table.digit: table for table in TABLES.values()}
_BY_FUNCTION = {table.function: table for table in TABLES.values()}

_NAMED = re.compile(r"([a-z]+):(0x[0-9a-fA-F]+|[0-9]+)(?:\.([0-9]+))?")
_MODICON = re.compile(r"([0-9]+)(?:\.([0-9]+))?")
_FORMS = "Use holding:, input:, coil: or discrete: and a number from 0, or a Modicon number like 40101"


@dataclass(frozen=True, slots=True)
class Address:
    """A register or bit of a device, zero-based; `bit` picks one bit of a register."""

    table: Table
    number: int
    bit: int | None = None

    def __str__(self) -> str:
        name = f"{self.table.name}:{self.number}"
        return name if self.bit is None else f"{name}.{self.bit}"


def parse(text: str) -> Address:
    """Read an address. Raises ValueError with the reason and the cure."""
    if match := _NAMED.fullmatch(text):
        if match[1] not in TABLES:
            raise ValueError(f"'{match[1]}' is no table of a Modbus device. {_FORMS}")
        table, number = TABLES[match[1]], int(match[2], 0 if match[2].startswith("0x") else 10)
        if number > LAST:
            raise ValueError(f"{text} is beyond the last address. {table.name} goes from 0 to {LAST}")
        return Address(table, number, _bit(text, table, match[3]))
    if match := _MODICON.fullmatch(text):
        table, number = _modicon(match[1])
        return Address(table, number, _bit(text, table, match[2]))
    raise ValueError(f"'{text}' is no Modbus address. {_FORMS}")


def span_name(function: int, first: int, count: int) -> str:
    """What a request reads, for messages: `holding:100..223`."""
    table = _BY_FUNCTION[function].name
    return f"{table}:{first}" if count == 1 else f"{table}:{first}..{first + count - 1}"


def _modicon(digits: str) -> tuple[Table, int]:
    """Table and zero-based number of a Modicon number."""
    if len(digits) > 6:
        raise ValueError(f"{digits} has {len(digits)} digits, Modicon numbers have 6 at most. {_FORMS}")
    table, count = (_BY_DIGIT.get(digits[0]), digits[1:]) if len(digits) > 4 else (COIL, digits)
    if table is None:
        raise ValueError(f"{digits} begins with {digits[0]}, Modicon numbers begin with 0, 1, 3 or 4. {_FORMS}")
    number = int(count) - 1
    if number < 0:
        raise ValueError(f"{digits} is no Modicon number: they count from 1. Use {table.name}:0 for the first one")
    if number > LAST:
        raise ValueError(f"{digits} is beyond the last one. Modicon numbers of that table end at {table.digit}65536")
    return table, number


def _bit(text: str, table: Table, digits: str | None) -> int | None:
    if digits is None:
        return None
    if table.bits:
        raise ValueError(f"{text} names a bit of a bit. Use {text.partition('.')[0]}")
    if int(digits) > 15:
        raise ValueError(f"{text} names bit {digits}, a register has the bits 0 to 15")
    return int(digits)
