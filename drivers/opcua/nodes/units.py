"""Engineering units: what a server says of the unit of a variable, as people write it."""

from __future__ import annotations

from typing import Any

CEFACT = "http://www.opcfoundation.org/UA/units/un/cefact"
"""The namespace of units that are numbered by their UNECE code: its letters, one a byte [Part 8 5.6.3]."""

_SYMBOLS = {
    "CEL": "°C", "FAH": "°F", "KEL": "K", "P1": "%", "C62": "1", "MTR": "m", "CMT": "cm", "MMT": "mm", "KMT": "km",
    "4H": "µm", "INH": "in", "FOT": "ft", "MTK": "m²", "MTQ": "m³", "LTR": "L", "MLT": "mL", "HLT": "hL", "KGM": "kg",
    "GRM": "g", "MGM": "mg", "TNE": "t", "LBR": "lb", "SEC": "s", "C26": "ms", "B98": "µs", "MIN": "min", "HUR": "h",
    "DAY": "d", "HTZ": "Hz", "KHZ": "kHz", "MHZ": "MHz", "RPM": "rpm", "AMP": "A", "4K": "mA", "B84": "µA", "VLT": "V",
    "2Z": "mV", "KVT": "kV", "OHM": "Ω", "B49": "kΩ", "B75": "MΩ", "WTT": "W", "KWT": "kW", "MAW": "MW", "D46": "VA",
    "KVA": "kVA", "MVA": "MVA", "D44": "var", "KVR": "kvar", "WHR": "Wh", "KWH": "kWh", "MWH": "MWh", "JOU": "J",
    "KJO": "kJ", "3B": "MJ", "GV": "GJ", "PAL": "Pa", "KPA": "kPa", "MPA": "MPa", "A97": "hPa", "BAR": "bar",
    "MBR": "mbar", "PS": "psi", "NEW": "N", "B47": "kN", "NU": "N·m", "MTS": "m/s", "KMH": "km/h", "2X": "m/min",
    "MSK": "m/s²", "MQH": "m³/h", "MQS": "m³/s", "G51": "L/s", "L2": "L/min", "E32": "L/h", "KGS": "kg/s",
    "E93": "kg/h", "KMQ": "kg/m³", "GL": "g/L", "M1": "mg/L", "59": "ppm", "61": "ppb", "Q30": "pH", "C81": "rad",
    "DD": "°", "LUX": "lx", "CDL": "cd", "2N": "dB", "D10": "S/m", "AMH": "Ah", "FAR": "F", "4O": "µF", "81": "H",
    "WB": "Wb", "D33": "T", "AD": "B", "A99": "bit", "D54": "W/m²", "K3": "kvarh",
}  # fmt: skip
"""Common codes of UN/ECE Recommendation 20, in the spelling that the other mappings have."""
_LONGEST = 64


def code_of(number: int) -> str:
    """The UNECE code that a unit id spells, empty where it spells none: 4408652 is CEL [Part 8 5.6.3]."""
    if not 0 < number < 1 << 32:
        return ""
    letters = number.to_bytes(4, "big").lstrip(b"\0")
    return letters.decode("ascii") if letters.isalnum() and letters.isascii() else ""


def symbol_of(unit: Any) -> str:
    """The symbol of an EUInformation, from its code, else as the server shows it; empty where it says neither."""
    if unit.NamespaceUri == CEFACT and (symbol := _SYMBOLS.get(code_of(unit.UnitId))):
        return symbol
    shown = (unit.DisplayName.Text or "").strip() if unit.DisplayName is not None else ""
    return shown if len(shown) <= _LONGEST and shown.isprintable() else ""
