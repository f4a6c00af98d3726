"""A device in parts on a line: read once, scaled and sent to each part by itself, gone and back with the whole."""

from types import SimpleNamespace

from gateway.acquisition.line import Line
from gateway.image import Image
from gateway.metrics import Metrics
from gateway.model import Deadband, Device, ScanGroup, Tag, bad

PUMP = Device(name="pump", driver="x", url="", part_of="cabinet")
CABINET = Device(name="cabinet", driver="x", url="", parts=(PUMP,))
TAGS = (
    Tag(name="flow", address="", scale=2.0, part="pump", on="change", deadband=Deadband(0.5)),
    Tag(name="flow", address="", scale=10.0),
)


def cabinet(bus):
    """The line of a cabinet whose pump is a device to everybody else."""
    group = ScanGroup.of(CABINET, TAGS, types=["float32", "float32"], every_s=1.0, plan=None)
    found = SimpleNamespace(sent=[], states=[], image=Image(), metrics=Metrics())
    found.line = Line(
        "bus",
        bus.driver(),
        [(CABINET, [group])],
        sink=found.sent.append,
        image=found.image,
        on_state=found.states.append,
        clock=bus.clock,
        metrics=found.metrics,
        dice=lambda: 1.0,
    )
    return found


def test_one_read_feeds_the_whole_and_its_part_each_with_its_own_stages(play):
    bus, found = play(cabinet, 10.5)
    sent = [(batch.group.device, list(batch.values)) for batch in found.sent]
    assert sent.count(("cabinet", [10.0])) == len(bus.asked)
    assert sent.count(("pump", [2.0])) == 1, "the deadband of the part is its own"
    assert {(s.device, s.tag, s.value) for s in found.image.samples()} == {
        ("cabinet", "flow", 10.0),
        ("pump", "flow", 2.0),
    }


def test_a_part_goes_and_comes_back_with_its_whole(play):
    def script(bus):
        bus.silent = lambda _device, _group, now: 1005 <= now < 1020
        return cabinet(bus)

    _, found = play(script, 90)
    assert [(s.device, s.online) for s in found.states] == [
        ("cabinet", True),
        ("pump", True),
        ("cabinet", False),
        ("pump", False),
        ("cabinet", True),
        ("pump", True),
    ]
    lost = [batch for batch in found.sent if batch.quality == bad("timeout")]
    assert {batch.group.device for batch in lost} == {"cabinet", "pump"}


def test_the_group_of_a_part_can_be_hurried(play):
    lines = []

    def keep(bus):
        lines.append(cabinet(bus))
        return lines[-1]

    bus, _ = play(keep, 9.9, (5.3, lambda: lines[0].line.hurry("pump", "flow")))
    assert [a for a in bus.asked if 1005.3 <= a.start < 1005.5], "it did not wait for its turn"


def test_a_group_of_parts_that_rests_is_told_with_their_names(play, caplog):
    def script(bus):
        found = cabinet(bus)
        other = ScanGroup.of(CABINET, [Tag(name="level", address="")], types=["float32"], every_s=1.0, plan=None)
        bus.silent = lambda _device, group, now: group == "flow" and now >= 1005
        found.line = Line(
            "bus",
            bus.driver(),
            [(CABINET, [ScanGroup.of(CABINET, TAGS, types=["float32"] * 2, every_s=1.0, plan=None), other])],
            sink=found.sent.append,
            image=found.image,
            on_state=found.states.append,
            clock=bus.clock,
            metrics=found.metrics,
            dice=lambda: 1.0,
        )
        return found

    with caplog.at_level("INFO"):
        play(script, 60)
    assert "does not answer for pump/flow, flow (timeout)" in caplog.text
