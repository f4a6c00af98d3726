"""All ways to read some registers side by side, and the search for where a known value lives. Pure.

The search looks at every register of what was read, with every type, order and scale, and keeps what comes near enough
to the expected value. Many of these are there by chance: a 16-bit number between 2272 and 2318 is a candidate for
229.5 at a scale of 0.1. So each is weighed by what speaks for it, in powers of ten:

    how seldom its type comes that near by chance     a float32 100 times as seldom as an int16
    how usual type, order and scale are               float32 at scale 1; integers at 1, 0.1, 0.01
    whether it is the value to the last digit         229.5 and not 229.4
    whether it stays near the value when read again   counters and noise do not
    whether its neighbours make sense read alike      three phases stand side by side
    whether another expected value is found alike     one device has one habit
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from heapq import nlargest
from typing import Any, TypeAlias, cast

from drivers.modbus.values import address as addresses
from drivers.modbus.values.decode import ORDERS, SWAPPED, swap
from drivers.modbus.values.kinds import KINDS, Kind
from gateway.driver import Candidate, Decoding, Expected, Patch
from gateway.model import Value

BEST = 10
"""How many candidates are worth showing for one expected value."""

_NUMBERS = (
    "int16", "uint16", "float16", "bcd16",
    "int32", "uint32", "float32", "bcd32",
    "int64", "uint64", "float64",
)  # fmt: skip

_RARITY = {"float16": 2.0, "float32": 4.0, "float64": 4.5}
"""How seldom any registers come within 1 % of a value by chance, as a power of ten; other types: 1.7, and 1 % more of
the tolerance makes it so much likelier."""
_USUAL_TYPE = {
    "uint16": 0.0, "int16": -0.1, "float32": 0.0, "uint32": -0.2, "int32": -0.25,
    "uint64": -1.0, "int64": -1.05, "float64": -1.0, "bcd16": -1.5, "bcd32": -1.2, "float16": -2.0,
}  # fmt: skip
_USUAL_ORDER = {"ABCD": 0.0, "CDAB": -0.3, "DCBA": -1.2, "BADC": -1.5}
_USUAL_SCALE = {
    1.0: 0.0, 0.1: 0.0, 0.01: -0.1, 0.001: -0.3, 0.0001: -0.8, 10.0: -1.0, 100.0: -1.5, 1000.0: -1.2,
}  # fmt: skip
_FLOAT_SCALE = {1.0: 0.0, 0.001: -1.2, 1000.0: -1.2}
"""Floats are seldom scaled; between W and kW they may be."""

_LARGEST_SCALE, _SMALLEST_SCALE = 2000.0, 0.00005
"""Beyond the scales above, with room for the tolerance."""

_LIKELY = 1e7
_TWO_NUMBERS = 5000.0
"""A wide integer that is so many times as large as the one beside it is two small numbers, most likely."""
_TINY = 1e-6
"""Measured values that are not 0 lie between these, mostly."""


@dataclass(frozen=True, slots=True)
class _Way:
    """One type in one order; `width` registers each."""

    kind: Kind
    order: str

    @property
    def width(self) -> int:
        return self.kind.registers

    @property
    def is_float(self) -> bool:
        return self.kind.name.startswith("float")


@cache
def _ways() -> tuple[_Way, ...]:
    """Every type of numbers in every order that makes sense for it."""
    kinds = [KINDS[name] for name in _NUMBERS if name in KINDS]
    return tuple(_Way(k, order) for k in kinds for order in (ORDERS if k.registers > 1 else ("ABCD", "BADC")))


def _values(data: bytes, way: _Way) -> list[Value]:
    """The value that begins at each register, read that way; None where the bytes are none."""
    swapped, endian = SWAPPED[way.order]
    words = swap(data) if swapped else data
    count = len(data) // 2 - way.width + 1
    values: list[Value] = [None] * count
    for phase in range(min(way.width, count)):  # each C call takes every value that begins so many registers later
        n = len(range(phase, count, way.width))
        form = f"{endian}{n}{way.kind.code}"
        values[phase :: way.width] = struct.unpack_from(form, words, phase * 2)
    if way.kind.name.startswith("bcd"):
        values = [_decimal(value, way.width * 4) for value in values]
    return values


def _decimal(raw: Any, digits: int) -> int | None:
    text = f"{raw:0{digits}x}"
    return int(text) if text.isdecimal() else None


# --- side by side ---------------------------------------------------------------------------------------------------


def decodings(patch: Patch, *, kind: str = "", order: str = "") -> list[Decoding]:
    """Every way to read the first value; with a `kind`, all values of that type, one after the other.

    Raises ValueError where there is no such type or order, or where the registers do not suffice for it.
    """
    if addresses.parse(patch.address).table.bits:
        return [Decoding("bool", "", bool(patch.data[i // 8] >> i % 8 & 1)) for i in range(patch.count)]
    if kind:
        return list(_row(patch, kind, order or "ABCD"))
    found = [
        Decoding(way.kind.name, way.order, _values(patch.data[: way.width * 2], way)[0])
        for way in _ways()
        if way.width <= patch.count
    ]
    return found + [Decoding("string", order, _text(patch.data, order)) for order in ("ABCD", "BADC")]


def _row(patch: Patch, kind: str, order: str) -> Iterator[Decoding]:
    if kind == "string":
        yield Decoding(kind, order, _text(patch.data, order))
        return
    if kind not in _NUMBERS and kind != "bits":
        raise ValueError(f"there is no type '{kind}' to show. Use one of {', '.join((*_NUMBERS, 'bits', 'string'))}")
    if order not in ORDERS:
        raise ValueError(f"there is no order '{order}'. Use one of {', '.join(ORDERS)}")
    way = _Way(KINDS[kind], order)
    if patch.count < way.width:
        raise ValueError(f"{kind} needs {way.width} registers, got {patch.count}. Say --count {way.width}")
    values = _values(patch.data, way)
    yield from (Decoding(kind, order, values[at]) for at in range(0, len(values), way.width))


def _text(data: bytes, order: str) -> Value:
    """The bytes as text, without NUL and spaces at its end; a point stands for what does not print."""
    if order == "BADC":
        data = swap(data).tobytes()
    return "".join(chr(byte) if 32 <= byte < 127 else "." for byte in data.rstrip(b"\0 "))


# --- where a value lives --------------------------------------------------------------------------------------------


def rank(
    first: Sequence[Patch], second: Sequence[Patch], expected: Sequence[Expected], *, best: int = BEST
) -> list[list[Candidate]]:
    """For each expected value but 0 where it may live, best first; `second` are some of the registers, read again."""
    later = _cells(second)
    found: list[list[Candidate]] = [[] for _ in expected]
    for patch in first:
        if addresses.parse(patch.address).table.bits:
            continue
        for way in _ways():
            if way.width <= patch.count:
                values = _numbers(patch.data, way)
                for i, wanted in enumerate(expected):
                    found[i] += _in_patch(patch, values, later, way, wanted)
    alike = _habits(found) if len(expected) > 1 else {}
    return [nlargest(best, _without_twins(_praised(candidates, alike)), key=lambda c: c.score) for candidates in found]


def _in_patch(
    patch: Patch, values: Sequence[float | None], later: Mapping[_Cell, bytes], way: _Way, wanted: Expected
) -> Iterator[Candidate]:
    """The candidates of one patch that are read one way; `values` are what it holds, read so."""
    address = addresses.parse(patch.address)
    low, high = abs(wanted.value) / _LARGEST_SCALE, abs(wanted.value) / _SMALLEST_SCALE
    for at, value in enumerate(values):
        if value is None or not low <= abs(value) <= high:  # nearly all of them
            continue
        scale = _scale_of(value, wanted, way)
        if scale is None:
            continue
        score, notes = _weigh(wanted, way, scale, value)
        for more, note in (
            _stays(wanted, scale, _again(later, address, at, way)),
            _neighbours(values, at, way, scale, wanted),
        ):
            score += more
            notes += (note,) if note else ()
        yield Candidate(
            wanted.value,
            f"{address.table.name}:{address.number + at}",
            way.kind.name,
            way.order if way.order != "ABCD" else "",
            scale,
            _scaled(value, scale),
            round(score, 2),
            notes,
        )


_Cell: TypeAlias = tuple[addresses.Table, int]


def _cells(patches: Iterable[Patch]) -> dict[_Cell, bytes]:
    """The two bytes of each register, by table and number."""
    cells: dict[_Cell, bytes] = {}
    for patch in patches:
        where = addresses.parse(patch.address)
        for i in range(0 if where.table.bits else patch.count):
            cells[where.table, where.number + i] = patch.data[2 * i : 2 * i + 2]
    return cells


def _again(later: Mapping[_Cell, bytes], address: addresses.Address, at: int, way: _Way) -> float | None:
    """The same value in the second reading; None where there is none."""
    first = address.number + at
    data = b"".join(later.get((address.table, i), b"") for i in range(first, first + way.width))
    if len(data) < way.width * 2:
        return None
    return _numbers(data, way)[0]


def _numbers(data: bytes, way: _Way) -> Sequence[float | None]:
    """The same as finite numbers; None where they are none."""
    values = cast(Sequence[float | None], _values(data, way))
    return [v if v is not None and math.isfinite(v) else None for v in values] if way.is_float else values


def _scaled(value: float | None, scale: float) -> float:
    """Value times scale, without the digits that a scale of 0.1 leaves behind."""
    return float(f"{(value or 0.0) * scale:.15g}")


def _scale_of(value: float, wanted: Expected, way: _Way) -> float | None:
    """The scale with which the value comes nearest, if that is near enough; None where none is."""
    ratio = wanted.value / value if value else 0.0
    if ratio <= 0:
        return None
    scale = 10.0 ** round(math.log10(ratio))
    scale = float(f"{scale:.6g}")
    known = _FLOAT_SCALE if way.is_float else _USUAL_SCALE
    return scale if scale in known and abs(value * scale - wanted.value) <= _room(wanted) else None


def _room(wanted: Expected) -> float:
    """How far off a candidate may be: the tolerance, and half of the last digit that was given."""
    return abs(wanted.value) * wanted.tolerance + 0.5 * 10.0**-wanted.digits


def _weigh(wanted: Expected, way: _Way, scale: float, value: float | None) -> tuple[float, tuple[str, ...]]:
    """What the value alone says: how seldom, how usual, how exact."""
    name = way.kind.name
    seldom = _RARITY.get(name, 1.7) - math.log10(max(wanted.tolerance, 1e-4) / 0.01)
    usual = _USUAL_TYPE[name] + _USUAL_ORDER[way.order] + (_FLOAT_SCALE if way.is_float else _USUAL_SCALE)[scale]
    if way.width == 1 and way.order != "ABCD":
        usual -= 1.0
    off = abs(_scaled(value, scale) - wanted.value)
    near = min(1.0, math.log10(_room(wanted) / max(off, _room(wanted) / 10)))
    if off >= 0.5 * 10.0**-wanted.digits or _is_coarse(way, scale, wanted):
        return seldom + usual + near, ()
    return seldom + usual + near + 1.0, ("exact",)


def _is_coarse(way: _Way, scale: float, wanted: Expected) -> bool:
    """Whether an integer at this scale cannot show the digits that somebody saw."""
    return not way.is_float and wanted.digits > 0 and scale > 10.0**-wanted.digits * 1.001


def _stays(wanted: Expected, scale: float, again: float | None) -> tuple[float, str]:
    """What a second reading says."""
    if again is None:
        return 0.0, ""
    off = abs(again * scale - wanted.value)
    if off <= 2 * _room(wanted):
        return 0.0, "steady"
    return (-0.5, "moving") if off <= 0.2 * abs(wanted.value) else (-2.5, "gone in the second reading")


def _neighbours(
    values: Sequence[float | None], at: int, way: _Way, scale: float, wanted: Expected
) -> tuple[float, str]:
    """What the values before and after it say, read alike."""
    around = [values[i] for i in (at - way.width, at + way.width) if 0 <= i < len(values)]
    if not around:
        return 0.0, ""
    weight = 0.4 if way.width > 1 else 0.1
    most = _LIKELY
    if way.width > 1 and not way.is_float:
        most = min(most, abs(wanted.value) * _TWO_NUMBERS)
    score = 0.0
    kin = 0
    for value in around:
        if value is None:
            score -= weight
        elif value:  # 0 says nothing: it stands in most registers
            score += weight if _TINY < abs(value * scale) < most else -weight
            kin += 0.8 <= value * scale / wanted.value <= 1.25
    return (score + 0.4 * kin, "neighbours alike") if kin else (score, "")


_Habit: TypeAlias = tuple[str, str]

_BESIDE_ONE = {"": ("", "CDAB"), "BADC": ("BADC", "DCBA")}
"""Orders of wide integers that a device may have beside integers of one register in that order."""


def _habits_of(candidate: Candidate) -> Sequence[_Habit]:
    """Type and order. Integers are one type: a device keeps voltages in one register, and energies in two or four."""
    if candidate.type.startswith(("float", "bcd")):
        return ((candidate.type, candidate.order),)
    if candidate.type.endswith("16"):
        return [("integer", order) for order in _BESIDE_ONE[candidate.order]]
    return (("integer", candidate.order),)


def _habits(found: Sequence[Sequence[Candidate]]) -> Mapping[_Habit, float]:
    """What type and order deserve for explaining several of the expected values, and explaining them well.

    A register explains one of them. That a device has an unusual order is surprising once, not with each of its values.
    """
    ways: dict[_Habit, list[tuple[float, int, str]]] = {}
    for i, candidates in enumerate(found):
        for c in candidates:
            for habit in _habits_of(c):
                ways.setdefault(habit, []).append((c.score, i, c.address))
    best: dict[_Habit, list[float]] = {habit: [] for habit in ways}
    for habit, scored in ways.items():
        explained: set[int] = set()
        taken: set[str] = set()
        for score, i, address in sorted(scored, reverse=True):
            if i not in explained and address not in taken:
                best[habit].append(max(score, 0.0))
                explained.add(i)
                taken.add(address)
    totals = {
        habit: sum(scores) - _USUAL_ORDER[habit[1] or "ABCD"] * (len(scores) - 1) for habit, scores in best.items()
    }
    most = max(totals.values(), default=0.0)
    return {
        habit: 0.8 * (len(best[habit]) - 1) - min(1.5, most - total)
        for habit, total in totals.items()
        if len(best[habit]) > 1
    }


def _praised(candidates: Iterable[Candidate], alike: Mapping[_Habit, float]) -> Iterator[Candidate]:
    for candidate in candidates:
        more = max((alike[habit] for habit in _habits_of(candidate) if habit in alike), default=None)
        if more is None:
            yield candidate
        else:
            notes = (*candidate.notes, "others found alike")
            yield replace(candidate, score=round(candidate.score + more, 2), notes=notes)


def _without_twins(candidates: Iterable[Candidate]) -> list[Candidate]:
    """One candidate for each raw number: an int16 and a uint16 that say the same are one, the better guess."""
    best: dict[tuple[str, str, float, float, str], Candidate] = {}
    for candidate in candidates:
        family = candidate.type.lstrip("u")
        key = (candidate.address, candidate.order, candidate.scale, candidate.value, family)
        if key not in best or best[key].score < candidate.score:
            best[key] = candidate
    return list(best.values())
