"""Quantities and their units, in the words of Home Assistant."""

from __future__ import annotations

import pytest

from gateway.errors import FileError
from gateway.mapping.measures import QUANTITIES, misfit
from gateway.mapping.tags import Defaults, TagReader
from gateway.model import Place


@pytest.mark.parametrize(("quantity", "unit"), [(q, u) for q, units in QUANTITIES.items() for u in sorted(units)])
def test_every_unit_of_a_quantity_fits(quantity, unit):
    assert misfit(quantity, unit) is None


@pytest.mark.parametrize(
    ("quantity", "unit", "key", "text"),
    [
        ("voltge", "V", "quantity", "there is no quantity 'voltge'. Did you mean 'voltage'?"),
        ("active_power", "W", "quantity", "there is no quantity 'active_power'. Did you mean 'power'?"),
        ("SoC", "%", "quantity", "there is no quantity 'SoC'. Did you mean 'battery'?"),
        ("reactive_power", "kVAr", "unit", "'kVAr' is no unit of reactive_power. Did you mean 'kvar'?"),
        ("temperature", "C", "unit", "'C' is no unit of temperature. Use one of K, °C, °F"),
        ("frequency", "", "quantity", "frequency needs a unit. Write one of GHz, Hz, kHz, MHz, mHz as unit"),
        ("enum", "V", "unit", "enum has no unit, got 'V'. Take the unit or the quantity out"),
    ],
)
def test_what_does_not_fit_is_told_with_its_cure(quantity, unit, key, text):
    wrong = misfit(quantity, unit)
    assert wrong is not None
    assert wrong[0] == key
    assert wrong[1].startswith(text)


@pytest.mark.parametrize("unit", ["", "V", "furlong"])
def test_without_a_quantity_any_unit_will_do(unit):
    assert misfit("", unit) is None


def test_the_file_is_checked_and_the_mistake_stands_at_its_key(fake, reading, write):
    path = write("m.yaml", "u: {address: word:1, unit: V, quantity: current}\nw: {address: word:2, quantity: powr}\n")
    entries = reading.yaml(path)
    assert TagReader("fake", fake, reading).read(entries, Defaults()) == ()
    with pytest.raises(FileError) as raised:
        reading.mistakes.check()
    first, second = raised.value.mistakes
    assert first.place == Place(str(path), 1, 28)
    assert "tag 'u': 'V' is no unit of current" in first.text
    assert second.place == Place(str(path), 2, 32)
    assert "there is no quantity 'powr'. Did you mean 'power'?" in second.text
