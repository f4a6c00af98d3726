"""StatusCodes as qualities, and their names beside those of the library."""

import subprocess
import sys

import pytest
from asyncua.ua.status_codes import StatusCodes
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.opcua.faults import ServiceFault
from drivers.opcua.nodes.asking import TOO_MUCH
from drivers.opcua.values.codes import NAMES
from drivers.opcua.values.status import is_bad, name_of, quality_of
from gateway.model import GOOD, Quality


def test_every_name_of_the_standard_is_the_librarys():
    known = {code: name for name, code in vars(StatusCodes).items() if not name.startswith("_") and type(code) is int}
    assert len(NAMES) > 270
    for code, name in known.items():
        assert vars(StatusCodes)[name_of(code)] == code, name
    assert {high << 16 for high in NAMES} == set(known)


@pytest.mark.parametrize(
    ("code", "quality"),
    [
        (0, "good"),
        (0x480, "good"),
        (0x0000FFFF, "good"),
        (0x00300000, "good:GoodClamped"),
        (0x40900000, "uncertain:UncertainLastUsableValue"),
        (0x40900780, "uncertain:UncertainLastUsableValue"),
        (0x40000000, "uncertain:Uncertain"),
        (0x80000000, "bad:Bad"),
        (0x808C0000, "bad:BadSensorFailure"),
        (0x808C0480, "bad:BadSensorFailure"),
        (0x8FAB0000, "bad:0x8FAB0000"),
        (0x8FAB0480, "bad:0x8FAB0000"),
        (0xC0AB1234, "bad:0xC0AB0000"),
        (0x7FFF0000, "uncertain:0x7FFF0000"),
        (0x3FFF0000, "good:0x3FFF0000"),
    ],
)
def test_severity_and_name_make_the_quality(code, quality):
    assert quality_of(code) == quality
    assert isinstance(quality_of(code), Quality)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_any_code_has_a_quality_of_its_severity_and_equal_ones_are_one_object(code):
    quality = quality_of(code)
    assert quality.level == ("good", "uncertain", "bad", "bad")[code >> 30]
    assert quality_of(code) is quality
    assert is_bad(code) is (quality.level == "bad")
    assert len(quality) < 70


def test_a_refusal_is_known_whatever_info_bits_it_has():
    assert ServiceFault(0x80100480, "BadTooManyOperations", "Read").code in TOO_MUCH


def test_a_code_without_a_name_is_its_number_without_info_bits():
    assert name_of(0x8FAB0480) == "0x8FAB0000"
    assert name_of(0x808C0480) == "BadSensorFailure"


def test_what_only_tells_of_the_way_leaves_a_value_as_good_as_any():
    assert quality_of(0x480) is GOOD


def test_names_and_columns_do_not_load_the_library():
    script = "import sys, drivers.opcua.values.status, drivers.opcua.values.columns; print('asyncua' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
