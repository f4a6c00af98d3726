"""Engineering units: what a server says of the unit of a variable, as people write it."""

from __future__ import annotations

from typing import Any

CEFACT = "http://www.opcfoundation.org/UA/units/un/cefact"
"""The namespace of units that are numbered by their UNECE code: its letters, one a byte [Part 8 5.6.3]."""

_SYMBOLS = {
    "BAR": "bar", "A97": "hPa", "MBR": "mbar", "PAL": "Pa", "KPA": "kPa", "MPA": "MPa", "74": "mPa", "D5": "kg/cm²",
    "B98": "µs", "C26": "ms", "SEC": "s", "MIN": "min", "MMT": "mm", "CMT": "cm", "MTR": "m", "CMQ": "cm³",
    "MTQ": "m³", "CEL": "°C", "FAH": "°F", "KEL": "K", "GRM": "g", "KGM": "kg", "MTS": "m/s", "KMH": "km/h",
    "MSK": "m/s²", "HTZ": "Hz", "KHZ": "kHz", "MHZ": "MHz", "RPM": "r/min", "RPS": "r/s", "NEW": "N", "B37": "kgf",
    "WTT": "W", "KWT": "kW", "MAW": "MW", "2J": "cm³/s", "MQH": "m³/h", "G53": "m³/min", "DD": "°", "AMP": "A",
    "VLT": "V", "FAR": "F", "JOU": "J", "KGS": "kg/s", "P1": "%", "59": "ppm",
}  # fmt: skip
"""Common codes of UN/ECE Recommendation 20, revision 17, with their symbols: what of them EUInformation.js of
node-opcua-data-access 2.182 has, and no other."""
_LONGEST = 64


def code_of(number: int) -> str:
    """The UNECE code that a unit id spells, empty where it spells none: 4408652 is CEL [Part 8 5.6.3]."""
    if not 0 < number < 1 << 32:
        return ""
    letters = number.to_bytes(4, "big").lstrip(b"\0")
    return letters.decode("ascii") if letters.isalnum() and letters.isascii() else ""


def symbol_of(unit: Any) -> str:
    """An EUInformation as the server shows it, else the symbol of its code; empty where it says neither."""
    shown = (unit.DisplayName.Text or "").strip() if unit.DisplayName is not None else ""
    if shown and len(shown) <= _LONGEST and shown.isprintable():
        return shown
    return _SYMBOLS.get(code_of(unit.UnitId), "") if unit.NamespaceUri == CEFACT else ""
