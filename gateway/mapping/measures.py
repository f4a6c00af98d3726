"""What can be measured, and in which units: the quantities of Home Assistant. Pure.

A quantity is a device class of Home Assistant's sensors, and its units are those that Home Assistant takes for that
class; with another unit it would drop the class or the sensor. Source: home-assistant/core,
homeassistant/components/sensor/const.py (`SensorDeviceClass`, `DEVICE_CLASS_UNITS`) and homeassistant/const.py (the
units themselves). Sparkplug takes any text for a unit (Sparkplug 3.0, property engUnit), so these serve it too.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.mapping.mistakes import nearest


def _units(text: str) -> frozenset[str]:
    return frozenset("" if unit == "-" else unit for unit in text.split())


_ENERGY = _units("mWh Wh kWh MWh GWh TWh J kJ MJ GJ cal kcal Mcal Gcal")
_CONCENTRATION = _units("µg/m³")
_PRESSURE = _units("mPa Pa hPa kPa mbar cbar bar mmHg inHg inH₂O psi")
_VOLUME = _units("mL L m³ ft³ CCF MCF gal")
_SPEED = _units("mm/s m/s m/min km/h in/s ft/s mph kn Beaufort")
_TEMPERATURE = _units("°C °F K")

QUANTITIES: Mapping[str, frozenset[str]] = {
    "absolute_humidity": _units("g/m³ mg/m³"),
    "apparent_power": _units("mVA VA kVA"),
    "aqi": _units("-"),
    "area": _units("mm² cm² m² km² ha in² ft² yd² mi² ac"),
    "atmospheric_pressure": _PRESSURE,
    "battery": _units("%"),
    "carbon_dioxide": _units("ppm"),
    "carbon_monoxide": _units("ppm ppb mg/m³ µg/m³"),
    "conductivity": _units("S/cm mS/cm µS/cm"),
    "current": _units("A mA"),
    "data_rate": _units("bit/s kbit/s Mbit/s Gbit/s B/s kB/s MB/s GB/s KiB/s MiB/s GiB/s"),
    "data_size": _units("bit kbit Mbit Gbit B kB MB GB TB PB KiB MiB GiB TiB PiB"),
    "date": _units("-"),
    "distance": _units("mm cm m km in ft yd mi nmi"),
    "duration": _units("µs ms s min h d"),
    "energy": _ENERGY,
    "energy_distance": _units("kWh/100km Wh/km mi/kWh km/kWh"),
    "energy_storage": _ENERGY,
    "enum": _units("-"),
    "frequency": _units("mHz Hz kHz MHz GHz"),
    "gas": _units("L m³ ft³ CCF MCF"),
    "humidity": _units("%"),
    "illuminance": _units("lx"),
    "irradiance": _units("W/m² BTU/(h⋅ft²)"),
    "moisture": _units("%"),
    "nitrogen_dioxide": _CONCENTRATION | _units("ppm ppb"),
    "nitrogen_monoxide": _CONCENTRATION | _units("ppb"),
    "nitrous_oxide": _CONCENTRATION,
    "ozone": _CONCENTRATION | _units("ppm ppb"),
    "ph": _units("-"),
    "pm1": _CONCENTRATION,
    "pm10": _CONCENTRATION,
    "pm25": _CONCENTRATION,
    "pm4": _CONCENTRATION,
    "power": _units("mW W kW MW GW TW"),
    "power_factor": _units("% -"),
    "precipitation": _units("mm cm in"),
    "precipitation_intensity": _units("mm/h mm/d in/h in/d"),
    "pressure": _PRESSURE,
    "reactive_energy": _units("varh kvarh"),
    "reactive_power": _units("mvar var kvar"),
    "signal_strength": _units("dB dBm"),
    "sound_pressure": _units("dB dBA"),
    "speed": _SPEED | _units("mm/h mm/d in/h in/d"),
    "sulphur_dioxide": _CONCENTRATION | _units("ppb"),
    "temperature": _TEMPERATURE,
    "temperature_delta": _TEMPERATURE,
    "timestamp": _units("-"),
    "volatile_organic_compounds": _CONCENTRATION | _units("mg/m³"),
    "volatile_organic_compounds_parts": _units("ppm ppb"),
    "voltage": _units("µV mV V kV MV"),
    "volume": _VOLUME,
    "volume_flow_rate": _units("mL/s L/s L/min L/h m³/s m³/min m³/h ft³/min gal/min gal/h gal/d"),
    "volume_storage": _VOLUME,
    "water": _units("L m³ ft³ CCF MCF gal"),
    "weight": _units("µg mg g kg oz lb st"),
    "wind_direction": _units("°"),
    "wind_speed": _SPEED,
}
"""The units of each quantity; the empty unit is a number without one."""

_MEANT = {
    "frequency": "hertz",
    "power": "active_power real_power watt",
    "reactive_energy": "reactive_work",
    "energy": "active_energy work",
    "battery": "soc state_of_charge",
    "power_factor": "cosphi cos_phi pf",
    "volume_flow_rate": "flow",
}
_WORDS = {word: quantity for quantity, words in _MEANT.items() for word in words.split()}
"""What people call a quantity that has another name here."""


def misfit(quantity: str, unit: str) -> tuple[str, str] | None:
    """What is wrong with a quantity and a unit, as (key, text with the cure); None when nothing is, or it is empty."""
    if not quantity:
        return None
    if quantity not in QUANTITIES:
        meant = _WORDS.get(quantity.lower())
        cure = f". Did you mean '{meant}'?" if meant else nearest(quantity, QUANTITIES)
        return "quantity", f"there is no quantity '{quantity}'{cure}"
    units = QUANTITIES[quantity]
    if unit in units:
        return None
    if units == {""}:
        return "unit", f"{quantity} has no unit, got '{unit}'. Take the unit or the quantity out"
    listed = ", ".join(sorted(units - {""}, key=lambda known: (known.lower(), known)))
    if not unit:
        return "quantity", f"{quantity} needs a unit. Write one of {listed} as unit"
    close = [known for known in sorted(units) if known.lower() == unit.lower()]
    meant = f"Did you mean '{close[0]}'?" if close else f"Use one of {listed}, with a scale that fits"
    return "unit", f"'{unit}' is no unit of {quantity}. {meant}, or take the quantity out"
