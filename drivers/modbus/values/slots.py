"""One tag and what it takes of a device: address, type, order and keys checked, each by itself and together. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from drivers.modbus.frames.requests import MAX_FILE_REGISTERS
from drivers.modbus.options import DeviceOptions, TagOptions
from drivers.modbus.values import address as addresses
from drivers.modbus.values.address import Address
from drivers.modbus.values.decode import ORDERS, Field
from drivers.modbus.values.kinds import KINDS, Kind
from drivers.modbus.values.meaning import Date, Labels, Meaning, Moment
from drivers.modbus.values.misfits import UNIMPLEMENTED, misfit, misfits
from gateway.model import Tag

_NO_OPTIONS = TagOptions()

_MEANT = {
    meant: kind
    for kind, words in {
        "bool": "bit boolean",
        "int16": "int integer short s16 i16",
        "uint16": "uint unsigned ushort word u16",
        "int32": "dint long s32 i32",
        "uint32": "udint ulong dword u32",
        "int64": "lint s64 i64",
        "uint64": "ulint qword u64",
        "float32": "float real single f32",
        "float64": "double lreal f64",
        "int8": "sint s8 i8",
        "uint8": "usint byte u8",
        "bcd16": "bcd",
        "string": "str text ascii char",
        "datetime6": "date datetime timestamp",
    }.items()
    for meant in words.split()
}
"""What other programs call our types."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One tag and what it takes: `count` registers (or bits) from `start`. `position` is its place in the group.

    `scale` is the register with the power of ten of its value, `scale_at` the position of the hidden slot that reads
    it. A hidden slot feeds no tag of its own; it stands behind those that do.
    """

    tag: Tag
    address: Address
    field: Field
    count: int
    scale: Address | None = None
    position: int = -1
    scale_at: int = -1
    hidden: bool = False

    @property
    def kind(self) -> Kind:
        """Its type in the registers."""
        return self.field.kind

    @property
    def start(self) -> int:
        """First register or bit."""
        return self.address.number

    @property
    def end(self) -> int:
        """One past the last register or bit."""
        return self.address.number + self.count

    @property
    def is_plain(self) -> bool:
        """Whether any bytes are a good value of it, and no other slot has a part in it."""
        if self.address.table.alone or self.scale is not None:
            return False
        return self.field.meaning is None if self.field.is_bit else self.field.is_plain

    @property
    def published(self) -> str:
        """The name of the type of what is published: `string` for labels and times, `list` for arrays."""
        if self.field.count or self.address.table is addresses.FIFO:
            return "list"
        if self.field.meaning is not None:
            return "string"
        return "float64" if self.scale is not None else self.kind.name


def locate(tag: Tag, options: DeviceOptions) -> Slot:
    """What a tag takes. Raises ValueError; each of its arguments is one reason with its cure."""
    address, kind, order = _parts(tag)
    if fault := misfit(tag, address, kind, order):
        raise ValueError(fault)
    own = own_options(tag)
    if faults := [*misfits(tag, address, kind, own)]:
        raise ValueError(*faults)
    field = _field(address, kind, order, own)
    count = field.count or 1 if address.table.bits else (field.size + 1) // 2
    _check_room(tag, address, kind, count, options)
    scale = None if own.scale_register is None else addresses.parse(own.scale_register)
    return Slot(tag, address, field, count, scale)


def own_options(tag: Tag) -> TagOptions:
    """The driver's own keys of a tag."""
    return TagOptions.model_validate(tag.options) if tag.options else _NO_OPTIONS


def scale_slots(slots: Iterable[Slot]) -> list[Slot]:
    """A hidden slot for each scale register that these tags need."""
    return [_hidden(address) for address in dict.fromkeys(s.scale for s in slots) if address is not None]


def complete(blocks: Iterable[Sequence[Slot]]) -> list[list[Slot]]:
    """Blocks of one group with the scale registers that its tags need, each once, and no others."""
    wanted = dict.fromkeys(s.scale for block in blocks for s in block if s.scale is not None)
    kept = [[s for s in block if not s.hidden or s.address in wanted] for block in blocks]
    found = {s.address for block in kept for s in block if s.hidden}
    return [block for block in kept if block] + [[_hidden(address)] for address in wanted if address not in found]


def place(blocks: Sequence[Sequence[Slot]], rank: Mapping[int, int]) -> list[list[Slot]]:
    """The slots with their positions: tags as `rank` has them by the id of each, then the scale registers."""
    tags = sorted((s for block in blocks for s in block if not s.hidden), key=lambda s: rank[id(s.tag)])
    position = {id(s.tag): i for i, s in enumerate(tags)}
    hidden = (s.address for block in blocks for s in block if s.hidden)
    scale_at = {address: len(tags) + i for i, address in enumerate(hidden)}
    return [
        [
            replace(
                s,
                position=scale_at[s.address] if s.hidden else position[id(s.tag)],
                scale_at=-1 if s.scale is None else scale_at[s.scale],
            )
            for s in block
        ]
        for block in blocks
    ]


def _hidden(address: Address) -> Slot:
    tag = Tag(name=f"{address} (scale)", address=str(address), type="int16")
    field = Field(0, KINDS["int16"], "ABCD", 2, sentinels=frozenset({UNIMPLEMENTED["int16"]}))
    return Slot(tag, address, field, 1, hidden=True)


def _field(address: Address, kind: Kind, order: str, own: TagOptions) -> Field:
    """How the value stands in its registers."""
    bit, width = address.bit, address.width if address.width > 1 else 0
    if kind.octets == 1:
        bit, width = 8 if own.layout == "high" else 0, 8
    sentinels = [UNIMPLEMENTED[kind.name]] if own.sentinel == "auto" else own.sentinel
    return Field(
        0,
        kind,
        order,
        _size(kind, own),
        bit,
        own.encoding,
        width,
        own.layout,
        own.padding,
        own.count or 0,
        frozenset(sentinels),
        _meaning(kind, own),
    )


def _size(kind: Kind, own: TagOptions) -> int:
    """Bytes of the registers it is in, of all its values; a string's last register may be half used."""
    if kind.registers:
        return kind.registers * 2 * (own.count or 1)
    return (own.length or 0) * (1 if own.layout == "both" else 2)


def _meaning(kind: Kind, own: TagOptions) -> Meaning | None:
    if own.enum:
        return Labels(own.enum)
    if own.time is not None:
        return Moment(own.time)
    if kind.name.startswith("datetime"):
        return Date((2000 if kind.name == "datetime3" else 0) if own.year_from is None else own.year_from)
    return None


def _check_room(tag: Tag, address: Address, kind: Kind, count: int, options: DeviceOptions) -> None:
    """Whether it lies within its table and fits into one request."""
    if address.table.alone:
        if address.table is addresses.FILE and count > MAX_FILE_REGISTERS:
            raise ValueError(f"{kind.name} needs {count} registers, one request takes {MAX_FILE_REGISTERS} of a file")
        return
    thing = "bits" if address.table.bits else "registers"
    left = addresses.LAST + 1 - address.number
    if count > left:
        cure = f"{address.table.name}:{addresses.LAST + 1 - count} or lower"
        raise ValueError(f"{kind.name} needs {count} {thing}, {tag.address} leaves {left}. Use {cure}")
    most, key = (options.max_bits, "max_bits") if address.table.bits else (options.max_registers, "max_registers")
    if count > most:
        cure = f"length: {most * 2} or lower" if kind.name == "string" else "a narrower type"
        cure = f"count: {most // max(kind.registers, 1)} or lower" if count > kind.registers > 0 else cure
        raise ValueError(f"{kind.name} needs {count} {thing}, one request takes {most} ({key}). Use {cure}")


def _parts(tag: Tag) -> tuple[Address, Kind, str]:
    """Address, type and order of a tag, each right by itself. Raises ValueError with all that are not."""
    faults: list[str] = []
    parts: list[Any] = []
    for read, text in ((addresses.parse, tag.address), (_kind, tag.type), (_order, tag.order)):
        try:
            parts.append(read(text))
        except ValueError as error:
            faults += error.args
    if faults:
        raise ValueError(*faults)
    address, kind, order = parts
    if kind is None:
        kind = KINDS[_default(address)]
    return address, kind, order


def _default(address: Address) -> str:
    """The type of a tag that does not say it."""
    if address.table.bits or address.width == 1:
        return "bool"
    return "string" if address.table in (addresses.SERVER, addresses.IDENTITIES) else "uint16"


def _kind(name: str) -> Kind | None:
    """The type of that name; None where the address decides."""
    if not name:
        return None
    if name not in KINDS:
        cure = _MEANT.get(name.lower().strip("_ "), "one")
        raise ValueError(f"there is no type '{name}'. Use {cure} of {', '.join(KINDS)}")
    return KINDS[name]


def _order(name: str) -> str:
    order = name or "ABCD"
    if order not in ORDERS:
        raise ValueError(f"there is no order '{name}'. Use one of {', '.join(ORDERS)}")
    return order
