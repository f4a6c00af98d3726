"""Addresses as people write them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.modbus.values.address import (
    COIL,
    COUNTER,
    DIAGNOSTIC,
    DISCRETE,
    FIFO,
    FILE,
    HOLDING,
    IDENTITIES,
    INPUT,
    SERVER,
    STATUS,
    Address,
    parse,
    span_name,
)


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
        ("holding:100.4-7", Address(HOLDING, 100, 4, 7)),
        ("40101.0-15", Address(HOLDING, 100, 0, 15)),
        ("input:7.3-3", Address(INPUT, 7, 3)),
        ("status", Address(STATUS, 0)),
        ("status.7", Address(STATUS, 0, 7)),
        ("status.2-3", Address(STATUS, 0, 2, 3)),
        ("counter", Address(COUNTER, 0)),
        ("server", Address(SERVER, 0)),
        ("diagnostic:11", Address(DIAGNOSTIC, 11)),
        ("diagnostic:0x12", Address(DIAGNOSTIC, 18)),
        ("diagnostic:2.4", Address(DIAGNOSTIC, 2, 4)),
        ("file:4:7", Address(FILE, 7, file=4)),
        ("file:65535:9999", Address(FILE, 9999, file=65535)),
        ("file:4:7.3-5", Address(FILE, 7, 3, 5, file=4)),
        ("fifo:1243", Address(FIFO, 1243)),
        ("identity:vendor", Address(IDENTITIES, 0)),
        ("identity:application", Address(IDENTITIES, 6)),
        ("identity:1", Address(IDENTITIES, 1)),
        ("identity:0x80", Address(IDENTITIES, 128)),
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
        ("holding:5.7-4", "holding:5.7-4 names its bits from the highest down. Use holding:5.4-7"),
        ("holding:5.4-16", "holding:5.4-16 names bit 16, a register has the bits 0 to 15"),
        ("holding:5.4-", "'holding:5.4-' is no Modbus address"),
        ("coil:5.1-2", "coil:5.1-2 names a bit of a bit. Use coil:5"),
        ("status.8", "status.8 names bit 8, the status has the bits 0 to 7"),
        ("status:1", "'status:1' is no Modbus address: there is one status a device. Use status"),
        ("counter:1", "there is one counter a device. Use counter"),
        ("diagnostic", "'diagnostic' is no Modbus address. Write it like diagnostic:11"),
        ("diagnostic:1", "diagnostic:1 is no counter, or reading it would change the device. Use one of 2, 11, 12,"),
        ("file:4", "'file:4' is no record of a file. Use file:, its number, and the record: file:4:7"),
        ("file:0:7", "file:0:7 is beyond the last record. Files go from 1 to 65535, records from 0 to 9999"),
        ("file:4:10000", "file:4:10000 is beyond the last record"),
        ("fifo:65536", "fifo:65536 is beyond the last one. fifo goes from 0 to 65535"),
        ("fifo:5.1", "'fifo:5.1' is no Modbus address. Write it like fifo:1243"),
        ("identity:serial", "'identity:serial' is no Modbus address. Write it like identity:vendor or identity:128"),
        ("identity:256", "identity:256 is beyond the last one. identity goes from 0 to 255"),
    ],
)
def test_a_bad_address_says_why_and_what_to_write(text, reason):
    with pytest.raises(ValueError) as caught:
        parse(text)
    assert reason in str(caught.value)


def test_addresses_and_spans_name_themselves_as_the_file_does():
    assert str(parse("40101.3")) == "holding:100.3"
    assert str(parse("00005")) == "coil:4"
    for text in ("holding:5.4-7", "status", "status.3", "counter", "server", "diagnostic:11", "file:4:7", "file:4:7.3",
                 "fifo:1243", "identity:vendor", "identity:128"):  # fmt: skip
        assert str(parse(text)) == text
    assert str(parse("identity:0")) == "identity:vendor"


@settings(deadline=None)
@given(st.text(alphabet="holdingcustaefyrvp:.-0123456789x", max_size=20))
def test_any_text_is_an_address_or_says_why_not(text):
    try:
        address = parse(text)
    except ValueError as error:
        assert str(error)  # noqa: PT017 - either of the two is right
    else:
        assert parse(str(address)) == address


def test_spans_of_registers_name_themselves_too():
    assert span_name(3, 100, 1) == "holding:100"
    assert span_name(1, 100, 16) == "coil:100..115"
