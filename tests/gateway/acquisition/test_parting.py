"""What is read together is dealt out to the parts of a device, each value once and to the right one."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.acquisition.parting import deal
from gateway.model import GOOD, Batch, Device, ScanGroup, Tag, bad

PUMP = Device(name="pump", driver="fake", url="x", part_of="cabinet", fields={"site": "east"})
FAN = Device(name="fan", driver="fake", url="x", part_of="cabinet")
CABINET = Device(name="cabinet", driver="fake", url="x", parts=(PUMP, FAN), fields={"site": "west"})


def group(*owners):
    tags = [Tag(name=f"t{i}", address=str(i), part=owner) for i, owner in enumerate(owners)]
    return ScanGroup.of(CABINET, tags, types=["float64"] * len(tags), every_s=1, plan=None)


def test_each_part_has_a_group_of_its_own_with_its_own_name_and_fields():
    parts = group("pump", "", "pump", "fan").parts
    assert [(p.group.device, p.group.names, p.positions) for p in parts] == [
        ("cabinet", ("t1",), (1,)),
        ("pump", ("t0", "t2"), (0, 2)),
        ("fan", ("t3",), (3,)),
    ]
    assert [p.group.fields for p in parts] == [{"site": "west"}, {"site": "east"}, {}]


def test_a_device_without_parts_has_none():
    device = Device(name="boiler", driver="fake", url="x")
    assert ScanGroup.of(device, [Tag(name="a", address="1")], types=["int16"], every_s=1, plan=None).parts == ()


owners = st.lists(st.sampled_from(["", "pump", "fan"]), min_size=1, max_size=12)


@given(st.data(), owners)
def test_every_value_comes_out_once_and_at_its_own_part(data, names):
    whole = group(*names)
    index = data.draw(st.none() | st.sets(st.sampled_from(range(len(names))), min_size=1).map(sorted))
    chosen = range(len(names)) if index is None else index
    values = [f"v{i}" for i in chosen]
    quality = data.draw(st.sampled_from([GOOD, bad("timeout"), [bad(f"exception:{i}") for i in chosen]]))
    times = data.draw(st.sampled_from([None, [1000 + i for i in chosen]]))
    served = data.draw(st.sampled_from([None, [2000 + i for i in chosen]]))
    batch = Batch(whole, 7, values, quality, index, times, b"raw", served, is_history=served is not None)
    found = {}
    for place, part in deal(batch, whole.parts):
        assert part.group is whole.parts[place].group
        assert part.time == 7
        assert part.is_history is (served is not None)
        for k, value in enumerate(part.values):
            position = k if part.index is None else part.index[k]
            grade = part.quality if isinstance(part.quality, str) else part.quality[k]
            time = None if part.times is None else part.times[k]
            at_server = None if part.server_times is None else part.server_times[k]
            found[part.group.names[position]] = (part.group.device, value, grade, time, at_server)
    assert found == {
        f"t{i}": (
            names[i] or "cabinet",
            f"v{i}",
            quality if isinstance(quality, str) else quality[k],
            None if times is None else times[k],
            None if served is None else served[k],
        )
        for k, i in enumerate(chosen)
    }
