"""Parts of a device: devices of the file that are read together with the one that holds them."""

import pytest

from gateway import config
from gateway.errors import FileError

CABINET = {
    "driver": "modbus",
    "url": "tcp://h",
    "unit": 3,
    "every": "5s",
    "tags": {"door": "discrete:0", "t": "holding:0"},
}


def load(tmp_path, **devices):
    return config.from_mapping({"gateway": "g", "broker": None, "devices": devices}, base=tmp_path)


def test_the_tags_of_a_part_are_read_with_those_of_the_whole_and_published_as_its_own(tmp_path):
    pump = {"part_of": "cabinet", "every": "5s", "fields": {"site": "east"}, "tags": {"t": "holding:1"}}
    file = load(tmp_path, pump=pump, cabinet=CABINET)
    assert [(d.name, len(d.tags), d.options.unit) for d in file.devices] == [("cabinet", 2, 3), ("pump", 1, 3)]
    assert file.groups["pump"] == ()
    (group,) = file.groups["cabinet"]
    assert group.requests == 2
    assert [(p.group.device, p.group.names, dict(p.group.fields)) for p in group.parts] == [
        ("cabinet", ("door", "t"), {}),
        ("pump", ("t",), {"site": "east"}),
    ]
    ((whole,),) = file.lines.values()
    assert [part.name for part in whole.parts] == ["pump"]


def test_a_mapping_of_a_part_says_its_tags_and_defaults(tmp_path):
    (tmp_path / "pump.yaml").write_text("every: 20s\ntags: {t: 'holding:1'}\n")
    file = load(tmp_path, cabinet=CABINET, pump={"part_of": "cabinet", "mapping": "pump.yaml"})
    assert [tag.every_s for tag in file.devices[1].tags] == [20]


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"part_of": "cabinot", "tags": {"t": "holding:1"}}, "there is no device 'cabinot'"),
        ({"part_of": "pump", "tags": {"t": "holding:1"}}, "no part of itself"),
        ({"part_of": "fan", "tags": {"t": "holding:1"}}, "'fan' is itself a part. Name the device that holds both"),
        ({"part_of": "cabinet"}, "there are no tags"),
        ({"part_of": "cabinet", "url": "tcp://x", "tags": {"t": "holding:1"}}, "unknown key 'url'"),
        ({"part_of": "cabinet", "tags": {"t": "coil:x"}}, "no Modbus address"),
        ({"part_of": 3, "tags": {"t": "holding:1"}}, "there is no device '3'"),
    ],
    ids=["unknown", "itself", "of_a_part", "no_tags", "url", "address", "number"],
)
def test_a_wrong_part_is_told_with_its_cure(tmp_path, part, said):
    fan = {"part_of": "cabinet", "tags": {"speed": "holding:9"}}
    with pytest.raises(FileError) as caught:
        load(tmp_path, cabinet=CABINET, fan=fan, pump=part)
    assert said in str(caught.value)
    assert "device 'pump'" in str(caught.value) or "tag 't'" in str(caught.value)
