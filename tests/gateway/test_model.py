import orjson
import pytest

from gateway.model import GOOD, Batch, Definition, Device, Place, Quality, ScanGroup, Tag, bad, uncertain


def definition(**changes):
    content = {
        "device": "boiler",
        "names": ("flow", "pump"),
        "types": ("float32", "bool"),
        "units": ("m3/h", ""),
        "decimals": (None, 2),
        "fields": {"area": "north"},
    }
    return Definition(**(content | changes))


def test_a_quality_is_the_text_that_goes_over_the_wire():
    assert orjson.dumps([GOOD, bad("exception:2"), uncertain("nan")]) == b'["good","bad:exception:2","uncertain:nan"]'
    assert (bad("exception:2").level, bad("exception:2").cause) == ("bad", "exception:2")
    assert (GOOD.level, GOOD.cause) == ("good", "")
    assert Quality("bad:timeout") == bad("timeout")


def test_equal_causes_give_the_same_object():
    assert bad("timeout") is bad("timeout")


def test_a_definition_reads_back_from_its_document():
    first = definition()
    second = Definition.from_document(first.document())
    assert second.hash == first.hash
    assert (second.names, second.units, dict(second.fields)) == (first.names, first.units, dict(first.fields))
    assert second.decimals == (None, 2)


@pytest.mark.parametrize(
    "change",
    [
        {"device": "b"},
        {"names": ("flow", "pumps")},
        {"types": ("float64", "bool")},
        {"units": ("l/h", "")},
        {"decimals": (1, 2)},
        {"fields": {}},
    ],
)
def test_every_part_of_a_definition_is_under_its_hash(change):
    assert definition(**change).hash != definition().hash


def test_a_scan_group_carries_the_definition_of_its_tags():
    device = Device(name="boiler", driver="x", url="", fields={"area": "north"})
    tags = [Tag(name="flow", address="a", unit="m3/h"), Tag(name="pump", address="b", decimals=2)]
    group = ScanGroup.of(device, tags, types=["float32", "bool"], every_s=1.0, plan=None)
    assert group.hash == definition().hash
    assert group.is_numeric


@pytest.mark.parametrize("document", [b"", b"[]", b"{}", b'{"device":1}', b'{"device":"a","names":[1],"types":3}'])
def test_a_damaged_definition_is_refused(document):
    with pytest.raises((ValueError, KeyError, TypeError)):
        Definition.from_document(document)


def test_nouns_cannot_be_changed():
    batch = Batch(definition(), 0, [1.0, True])
    for noun, field in ((batch, "time"), (definition(), "device"), (Tag(name="a", address="b"), "name")):
        with pytest.raises(AttributeError):
            setattr(noun, field, 1)


def test_a_place_reads_as_compilers_write_it():
    assert str(Place("boiler.yaml", 14, 9)) == "boiler.yaml:14:9"
    assert str(Place("boiler.yaml", 14)) == "boiler.yaml:14"
    assert str(Place("boiler.yaml")) == "boiler.yaml"
