"""Where a tag lives in a Modbus device: `holding:100`, `coil:5`, `holding:100.4-7`, or a Modicon number. Pure.

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

A point and 0 .. 15 after a register names one of its bits, 0 the lowest: `holding:100.3`, `40101.3`; two such numbers
name a field of bits side by side that is read as one number: `holding:100.4-7`. Zero-based numbers may be written in
hexadecimal, as many manuals do: `input:0x0156`.

What other function codes read has names of its own; each is a request by itself (sections of V1.1b3):

    | written           | is                                                              | function | section |
    | status, status.3  | the eight exception status outputs, or one of them              | 7        | 6.7     |
    | diagnostic:11     | a counter of the serial line: 11 to 18; 2 the device's register | 8        | 6.8     |
    | counter           | how many requests the device has completed                      | 11       | 6.9     |
    | server            | what the device says of itself, as text                         | 17       | 6.13    |
    | file:4:7          | registers of file 4 from record 7 on                            | 20       | 6.14    |
    | fifo:1243         | the queue of registers that begins at 1243, as a list           | 24       | 6.18    |
    | identity:vendor   | its identity: vendor, product, version, url, name, model,       | 43/14    | 6.21    |
    |                   | application, or the number of an object, identity:128           |          |         |
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from drivers.modbus.frames import pdu
from drivers.modbus.frames.requests import COUNTERS, IDENTITY

LAST = 65535
"""The highest address of every table."""
LAST_RECORD = 9999
"""The highest record of a file [V1.1b3 6.14]."""
LAST_OBJECT = 255
"""The highest object of an identity [V1.1b3 6.21]."""


@dataclass(frozen=True, slots=True)
class Table:
    """One of a device's four tables, or what another function reads: then each address is `alone` in its request."""

    name: str
    function: int
    digit: str = ""
    bits: bool = False
    alone: bool = False


COIL = Table("coil", pdu.READ_COILS, "0", bits=True)
DISCRETE = Table("discrete", pdu.READ_DISCRETE_INPUTS, "1", bits=True)
INPUT = Table("input", pdu.READ_INPUT_REGISTERS, "3", bits=False)
HOLDING = Table("holding", pdu.READ_HOLDING_REGISTERS, "4", bits=False)

STATUS = Table("status", pdu.READ_EXCEPTION_STATUS, alone=True)
DIAGNOSTIC = Table("diagnostic", pdu.DIAGNOSTICS, alone=True)
COUNTER = Table("counter", pdu.GET_EVENT_COUNTER, alone=True)
SERVER = Table("server", pdu.REPORT_SERVER_ID, alone=True)
FILE = Table("file", pdu.READ_FILE, alone=True)
FIFO = Table("fifo", pdu.READ_FIFO, alone=True)
IDENTITIES = Table("identity", pdu.READ_IDENTITY, alone=True)

TABLES = {table.name: table for table in (COIL, DISCRETE, INPUT, HOLDING)}
ALONE = {table.name: table for table in (STATUS, DIAGNOSTIC, COUNTER, SERVER, FILE, FIFO, IDENTITIES)}
_BY_DIGIT = {table.digit: table for table in TABLES.values()}
_BY_FUNCTION = {table.function: table for table in TABLES.values()}

_NUMBER = r"(0x[0-9a-fA-F]+|[0-9]+)"
_BITS = r"(?:\.([0-9]+)(?:-([0-9]+))?)?"
_NAMED = re.compile(rf"([a-z]+):{_NUMBER}{_BITS}")
_MODICON = re.compile(rf"([0-9]+){_BITS}")
_BARE = re.compile(rf"(status|counter|server){_BITS}")
_IN_FILE = re.compile(rf"file:{_NUMBER}:{_NUMBER}{_BITS}")
_FORMS = "Use holding:, input:, coil: or discrete: and a number from 0, or a Modicon number like 40101"


@dataclass(frozen=True, slots=True)
class Address:
    """A register or bit of a device, zero-based. `bit` to `last` pick bits of a register; one bit has no `last`.

    For what other functions read, `number` is the counter, record, register or object, and `file` the file.
    """

    table: Table
    number: int
    bit: int | None = None
    last: int | None = None
    file: int = 0

    @property
    def width(self) -> int:
        """How many bits of the register it picks, 0 for all of them."""
        if self.bit is None:
            return 0
        return 1 if self.last is None else self.last - self.bit + 1

    def __str__(self) -> str:
        if self.table is IDENTITIES:
            return f"identity:{next((name for name, n in IDENTITY.items() if n == self.number), self.number)}"
        if self.table in (STATUS, COUNTER, SERVER):
            name = self.table.name
        else:
            name = f"{self.table.name}:{f'{self.file}:' if self.table is FILE else ''}{self.number}"
        if self.bit is None:
            return name
        return f"{name}.{self.bit}" if self.last is None else f"{name}.{self.bit}-{self.last}"


def parse(text: str) -> Address:
    """Read an address. Raises ValueError with the reason and the cure."""
    name = re.split(r"[:.]", text, maxsplit=1)[0]
    if name in ALONE:
        return _alone(ALONE[name], text)
    if match := _NAMED.fullmatch(text):
        if match[1] not in TABLES:
            raise ValueError(f"'{match[1]}' is no table of a Modbus device. {_FORMS}")
        table, number = TABLES[match[1]], _number(match[2])
        if number > LAST:
            raise ValueError(f"{text} is beyond the last address. {table.name} goes from 0 to {LAST}")
        return Address(table, number, *_bits(text, table, match[3], match[4]))
    if match := _MODICON.fullmatch(text):
        table, number = _modicon(match[1])
        return Address(table, number, *_bits(text, table, match[2], match[3]))
    raise ValueError(f"'{text}' is no Modbus address. {_FORMS}")


def _alone(table: Table, text: str) -> Address:
    """An address of what other functions than the four reads read."""
    if table in (STATUS, COUNTER, SERVER):
        if match := _BARE.fullmatch(text):
            return Address(table, 0, *_bits(text, table, match[2], match[3]))
        raise ValueError(f"'{text}' is no Modbus address: there is one {table.name} a device. Use {table.name}")
    if table is FILE:
        if match := _IN_FILE.fullmatch(text):
            file, record = _number(match[1]), _number(match[2])
            if not 1 <= file <= LAST or record > LAST_RECORD:
                raise ValueError(f"{text} is beyond the last record. Files go from 1 to {LAST}, records from 0 to 9999")
            return Address(table, record, *_bits(text, table, match[3], match[4]), file=file)
        raise ValueError(f"'{text}' is no record of a file. Use file:, its number, and the record: file:4:7")
    if table is IDENTITIES and (known := IDENTITY.get(text.partition(":")[2])) is not None:
        return Address(table, known)
    if (match := _NAMED.fullmatch(text)) is None or (table is not DIAGNOSTIC and match[3]):
        forms = {DIAGNOSTIC: "diagnostic:11", FIFO: "fifo:1243", IDENTITIES: "identity:vendor or identity:128"}
        raise ValueError(f"'{text}' is no Modbus address. Write it like {forms[table]}")
    number = _number(match[2])
    if table is DIAGNOSTIC and number not in COUNTERS:
        known_ones = ", ".join(map(str, COUNTERS))
        raise ValueError(f"{text} is no counter, or reading it would change the device. Use one of {known_ones}")
    if number > (highest := LAST_OBJECT if table is IDENTITIES else LAST):
        raise ValueError(f"{text} is beyond the last one. {table.name} goes from 0 to {highest}")
    return Address(table, number, *_bits(text, table, match[3], match[4]))


def _number(digits: str) -> int:
    return int(digits, 0 if digits.startswith("0x") else 10)


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


def _bits(text: str, table: Table, first: str | None, last: str | None) -> tuple[int | None, int | None]:
    """First and last bit; (None, None) where the address picks none."""
    if first is None:
        return None, None
    if table.bits:
        raise ValueError(f"{text} names a bit of a bit. Use {text.partition('.')[0]}")
    highest = 7 if table is STATUS else 15
    for digits in (first, last or "0"):
        if int(digits) > highest:
            what = "the status has the bits 0 to 7" if table is STATUS else "a register has the bits 0 to 15"
            raise ValueError(f"{text} names bit {digits}, {what}")
    if last is None or last == first:
        return int(first), None
    if int(last) < int(first):
        raise ValueError(f"{text} names its bits from the highest down. Use {text.partition('.')[0]}.{last}-{first}")
    return int(first), int(last)
