"""Keys of a tag that do not go together: each says why and what to write instead."""

import pytest

from drivers.modbus.driver import Driver
from drivers.modbus.values.slots import locate
from gateway.errors import FileError
from gateway.model import Deadband, Tag


@pytest.mark.parametrize(
    ("address", "keys", "reason"),
    [
        # address and type
        ("holding:1.4-7", {"type": "uint32"}, "holding:1.4-7 is a field of 4 bits. Use type: uint16, or int16"),
        ("holding:1.4-7", {"type": "bool"}, "holding:1.4-7 is a field of 4 bits"),
        ("holding:1.4", {"type": "uint8"}, "holding:1.4 is one bit of a register, not uint8"),
        ("status", {"type": "float32"}, "status is a number of 16 bits, float32 is not. Use type: uint16, or leave"),
        ("counter", {"type": "uint8"}, "counter is a number of 16 bits, uint8 is not"),
        ("diagnostic:11", {"type": "string", "length": 2}, "diagnostic:11 is a number of 16 bits, string is not"),
        ("fifo:1", {"type": "uint32"}, "fifo:1 is a list of registers. Use type: uint16 or int16"),
        ("server", {"type": "uint16"}, "server is a text. Use type: string, or leave type out"),
        ("identity:vendor", {"order": "BADC"}, "identity:vendor has no order. Leave order: BADC out"),
        ("status", {"order": "BADC"}, "status has no order"),
        ("fifo:1", {"order": "BADC"}, "fifo:1 has no order"),
        ("holding:1", {"type": "datetime6", "order": "CDAB"}, "datetime6 is a date. Leave it out, or use BADC"),
        ("holding:1", {"type": "uint8", "order": "DCBA"}, "uint8 is one register. Leave it out, or use BADC"),
        ("file:1:1", {"type": "uint16", "count": 122}, "uint16 needs 122 registers, one request takes 121 of a file"),
        ("holding:1", {"count": 126}, r"uint16 needs 126 registers, one request takes 125 (max_registers). Use count"),
        ("holding:1", {"type": "float64", "count": 32}, "one request takes 125 (max_registers). Use count: 31"),
        ("holding:65530", {"count": 10}, "uint16 needs 10 registers, holding:65530 leaves 6. Use holding:65526"),
        ("coil:65530", {"count": 10}, "bool needs 10 bits, coil:65530 leaves 6. Use coil:65526 or lower"),
        # shape
        ("holding:1", {"type": "string", "length": 126, "layout": "low"}, "one request takes 125 (max_registers)"),
        ("holding:1", {"type": "string"}, "a string needs its length. Say how many characters it has, like length: 16"),
        ("holding:1", {"length": 4}, "length is for strings, uint16 has 2 bytes. Leave length out"),
        ("identity:vendor", {"length": 4}, "length is for strings, the answer says its own. Leave length out"),
        ("holding:1", {"layout": "low"}, "layout is for strings and 8-bit numbers, type is uint16"),
        ("holding:1", {"padding": "space"}, "padding is for strings, type is uint16"),
        ("holding:1", {"type": "string", "length": 4, "count": 2}, "count makes a list of numbers, coils or discrete"),
        ("holding:1", {"type": "bits", "count": 2}, "count makes a list of numbers"),
        ("holding:1", {"type": "uint8", "count": 2}, "count makes a list of numbers"),
        ("holding:1.4-7", {"count": 2}, "count makes a list of numbers"),
        ("holding:1.4", {"count": 2}, "count makes a list of numbers"),
        ("fifo:1", {"count": 2}, "count makes a list of numbers"),
        ("status", {"count": 2}, "count makes a list of numbers"),
        # sentinels
        ("holding:1", {"sentinel": [0x10000]}, "sentinel 0x10000 has more than the 16 bits of uint16"),
        ("holding:1.4-7", {"sentinel": [16]}, "sentinel 0x10 has more than the 4 bits of uint16"),
        ("coil:1", {"sentinel": [1]}, "sentinel is for numbers and texts, type is bool. Leave sentinel out"),
        ("holding:1", {"type": "datetime3", "sentinel": [1]}, "sentinel is for numbers and texts"),
        ("holding:1", {"type": "string", "length": 2, "sentinel": [0]}, "Use sentinel: auto, which is a text of NULs"),
        ("holding:1", {"type": "bcd16", "sentinel": "auto"}, "sentinel: auto knows int16, uint16"),
        ("holding:1.4-7", {"sentinel": "auto"}, "sentinel: auto knows int16, uint16"),
        # meanings
        ("holding:1", {"type": "float32", "enum": {0: "off"}}, "an enum needs whole numbers or bool, type is float32"),
        ("fifo:1", {"enum": {0: "off"}}, "an enum needs whole numbers or bool"),
        ("holding:1", {"type": "float32", "time": "s"}, "time needs a whole number and nothing else that changes it"),
        ("holding:1", {"enum": {0: "off"}, "time": "s"}, "time needs a whole number and nothing else"),
        ("coil:1", {"time": "s"}, "time needs a whole number"),
        ("fifo:1", {"time": "s"}, "time needs a whole number"),
        ("holding:1", {"year_from": 2000}, "year_from is for datetime3 and datetime6, type is uint16. Leave it out"),
        # scale registers
        ("holding:1", {"scale_register": "coil:1"}, "scale_register: coil:1 is no register"),
        ("holding:1", {"scale_register": "holding:1.3"}, "scale_register: holding:1.3 is no register"),
        ("holding:1", {"scale_register": "status"}, "scale_register: status is no register"),
        ("holding:1", {"scale_register": "there"}, "scale_register: 'there' is no Modbus address"),
        ("coil:1", {"scale_register": "holding:1"}, "scale_register needs a number in holding or input registers"),
        ("holding:1.4-7", {"scale_register": "holding:2"}, "scale_register needs a number in holding or input"),
        ("file:1:1", {"scale_register": "holding:2"}, "scale_register needs a number in holding or input"),
        ("holding:1", {"enum": {0: "off"}, "scale_register": "holding:2"}, "scale_register needs a number in holding"),
        ("holding:1", {"type": "bits", "scale_register": "holding:2"}, "scale_register needs a number in holding"),
        # writing
        ("holding:1", {"write_address": "there"}, "write_address: 'there' is no Modbus address"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_says_why_and_what_to_write(make, address, keys, reason):
    with pytest.raises(FileError) as caught:
        Driver.compile(make.device(), [make.tag(address, name="t", **keys)])
    assert reason in str(caught.value)


NUMBERS = {"scale": 0.1, "offset": 5, "deadband": Deadband(1), "min": 0, "max": 5, "decimals": 2}


@pytest.mark.parametrize("key", NUMBERS)
@pytest.mark.parametrize(
    ("address", "keys", "reason"),
    [
        ("holding:1", {"enum": {0: "off"}}, "the tag is a text by its enum"),
        ("holding:1", {"type": "uint32", "time": "s"}, "the tag is a text by its time"),
        ("holding:1", {"count": 3}, "the tag is a list"),
        ("fifo:1", {}, "the tag is a list"),
        ("coil:1", {}, "bool"),
        ("holding:1", {"type": "datetime6"}, "datetime6"),
        ("identity:vendor", {}, "string"),
    ],
    ids=["enum", "time", "list", "queue", "coil", "date", "identity"],
)
def test_keys_that_need_a_number_do_not_stand_with_what_is_none(make, key, address, keys, reason):
    tag = make.tag(address, name="t", **keys)
    with pytest.raises(FileError) as caught:
        Driver.compile(
            make.device(),
            [Tag(name="t", address=address, type=tag.type, options=tag.options, **{key: NUMBERS[key]})],
        )
    text = str(caught.value)
    assert reason in text
    assert "Take" in text


def test_several_faults_of_one_tag_are_all_said(make):
    with pytest.raises(ValueError) as caught:
        locate(
            make.tag("holding:1", length=4, year_from=5, write_address="x", enum={0: "off"}, scale=0.1),
            make.device().options,
        )
    assert len(caught.value.args) == 4
