"""Addresses as people write them."""

import pytest

from drivers.modbus.address import COIL, DISCRETE, HOLDING, INPUT, Address, parse, span_name


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("holding:0", Address(HOLDING, 0)),
        ("holding:65535", Address(HOLDING, 65535)),
        ("holding:0100", Address(HOLDING, 100)),
        ("input:0x0156", Address(INPUT, 342)),
        ("coil:5", Address(COIL, 5)),
        ("discrete:5", Address(DISCRETE, 5)),
        ("holding:100.3", Address(HOLDING, 100, 3)),
        ("input:7.15", Address(INPUT, 7, 15)),
        ("1", Address(COIL, 0)),
        ("9999", Address(COIL, 9998)),
        ("00001", Address(COIL, 0)),
        ("000001", Address(COIL, 0)),
        ("065536", Address(COIL, 65535)),
        ("10001", Address(DISCRETE, 0)),
        ("100001", Address(DISCRETE, 0)),
        ("30001", Address(INPUT, 0)),
        ("300001", Address(INPUT, 0)),
        ("300343", Address(INPUT, 342)),
        ("40001", Address(HOLDING, 0)),
        ("40101", Address(HOLDING, 100)),
        ("400101", Address(HOLDING, 100)),
        ("49999", Address(HOLDING, 9998)),
        ("410000", Address(HOLDING, 9999)),
        ("465536", Address(HOLDING, 65535)),
        ("40101.3", Address(HOLDING, 100, 3)),
    ],
)
def test_an_address_means_a_table_and_a_number_from_zero(text, address):
    assert parse(text) == address


def test_modicon_and_zero_based_numbers_mean_the_same_register():
    assert parse("40101") == parse("400101") == parse("holding:100")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "'' is no Modbus address. Use holding:, input:, coil: or discrete: and a number from 0"),
        ("holding", "'holding' is no Modbus address. Use holding:"),
        ("holding:", "'holding:' is no Modbus address"),
        ("holding:-1", "'holding:-1' is no Modbus address"),
        ("holding: 5", "'holding: 5' is no Modbus address"),
        ("Holding:5", "'Holding:5' is no Modbus address"),
        ("holding:\u0661\u0660", "is no Modbus address"),
        ("register:5", "'register' is no table of a Modbus device. Use holding:, input:, coil: or discrete:"),
        ("holding:65536", "holding:65536 is beyond the last address. holding goes from 0 to 65535"),
        ("coil:0x10000", "coil:0x10000 is beyond the last address. coil goes from 0 to 65535"),
        ("coil:5.1", "coil:5.1 names a bit of a bit. Use coil:5"),
        ("10001.1", "10001.1 names a bit of a bit. Use 10001"),
        ("holding:5.16", "holding:5.16 names bit 16, a register has the bits 0 to 15"),
        ("0", "0 is no Modicon number: they count from 1. Use coil:0 for the first one"),
        ("40000", "40000 is no Modicon number: they count from 1. Use holding:0 for the first one"),
        ("300000", "300000 is no Modicon number: they count from 1. Use input:0"),
        ("465537", "465537 is beyond the last one. Modicon numbers of that table end at 465536"),
        ("20001", "20001 begins with 2, Modicon numbers begin with 0, 1, 3 or 4. Use holding:"),
        ("4000001", "4000001 has 7 digits, Modicon numbers have 6 at most. Use holding:"),
        ("40101.16", "40101.16 names bit 16"),
        ("4e4", "'4e4' is no Modbus address"),
    ],
)
def test_a_bad_address_says_why_and_what_to_write(text, reason):
    with pytest.raises(ValueError) as caught:
        parse(text)
    assert reason in str(caught.value)


def test_addresses_and_spans_name_themselves_as_the_file_does():
    assert str(parse("40101.3")) == "holding:100.3"
    assert str(parse("00005")) == "coil:4"
    assert span_name(3, 100, 1) == "holding:100"
    assert span_name(1, 100, 16) == "coil:100..115"
