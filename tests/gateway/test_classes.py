"""The class of a tag: from the file to scan groups, and from there to the spool's queues."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

import pytest

from gateway.cli.schema import gateway_file, mapping_file
from gateway.clock import SystemClock
from gateway.config import load
from gateway.driver import find
from gateway.errors import FileError, Mistake
from gateway.metrics import Metrics
from gateway.model import CLASSES, Batch, Definition, Place, ScanGroup
from gateway.spool.limits import Limits
from gateway.spool.record import Note
from gateway.spool.spool import Spool

Modbus = find("modbus")


class Blunt(Modbus):
    """A driver that never heard of classes: it makes its groups itself, and refuses what it does not like."""

    @classmethod
    def compile(cls, device, tags):
        wrong = [Mistake(tag.place, f"tag '{tag.name}': no") for tag in tags if tag.address == "holding:99"]
        if device.name == "odd":
            wrong.append(Mistake(device.place, "too odd"))
        if wrong:
            raise FileError(wrong)
        return [
            ScanGroup(
                device=device.name,
                names=tuple(tag.name for tag in tags),
                types=("uint16",) * len(tags),
                units=("",) * len(tags),
                decimals=(None,) * len(tags),
                tags=tuple(tags),
                every_s=1.0,
            )
        ]


@pytest.fixture
def read(tmp_path):
    """`read(text)` gives what a gateway file says; `driver` takes Modbus' place."""

    def read(text, driver=Modbus, **files):
        for name, content in files.items():
            (tmp_path / name.replace("_", ".")).write_text(dedent(content).lstrip("\n"))
        path = tmp_path / "gw.yaml"
        path.write_text("gateway: g\n" + dedent(text).lstrip("\n"))
        return load(path, drivers=lambda _: driver)

    return read


def classes_of(config, device):
    return {tag.name: tag.record_class for d in config.devices if d.name == device for tag in d.tags}


FILE = """
    devices:
      boiler:
        driver: modbus
        url: tcp://h
        tags:
          flow: holding:1
          fire: {address: coil:1, class: alarm}
          door: {address: coil:2, class: event}
          level: holding:2
          trips: {address: holding:3, class: alarm}
          noise: {address: holding:4, class: diag}
    """


def test_tags_of_different_classes_never_share_a_group(read):
    groups = read(FILE).groups["boiler"]
    assert [(g.record_class, sorted(g.names)) for g in groups] == [
        ("alarm", ["fire", "trips"]),
        ("event", ["door"]),
        ("data", ["flow", "level"]),
        ("diag", ["noise"]),
    ]


def test_a_file_without_classes_is_compiled_as_ever(read):
    calls = []

    class Counting(Modbus):
        @classmethod
        def compile(cls, device, tags):
            calls.append(len(tags))
            return super().compile(device, tags)

    config = read("devices: {d: {driver: modbus, url: 'tcp://h', tags: {a: holding:1, b: holding:2}}}", Counting)
    assert calls == [2]
    assert [g.record_class for g in config.groups["d"]] == ["data"]


def test_a_driver_need_not_know_of_classes(read):
    groups = read(FILE, Blunt).groups["boiler"]
    assert [(g.record_class, g.names) for g in groups] == [
        ("alarm", ("fire", "trips")),
        ("event", ("door",)),
        ("data", ("flow", "level")),
        ("diag", ("noise",)),
    ]
    assert all(g.hash == replace(g).hash and b'"class"' in g.document() for g in groups if g.record_class != "data")


def test_mistakes_of_all_classes_are_told_and_those_of_the_device_once(read):
    with pytest.raises(FileError) as raised:
        read(
            """
            devices:
              odd:
                driver: modbus
                url: tcp://h
                tags: {a: holding:99, b: {address: "holding:99", class: alarm}, c: {address: "holding:1", class: diag}}
            """,
            Blunt,
        )
    said = [m.text for m in raised.value.mistakes]
    assert sorted(said) == ["device 'odd': too odd", "tag 'a': no", "tag 'b': no"]


def test_the_device_says_it_for_its_tags_and_each_tag_may_say_otherwise(read):
    config = read("""
        devices:
          d:
            driver: modbus
            url: tcp://h
            class: event
            tags: {a: holding:1, b: {address: "holding:2", class: data}}
        """)
    assert classes_of(config, "d") == {"a": "event", "b": "data"}


def test_a_mapping_says_it_for_its_devices_and_a_device_wins(read):
    config = read(
        """
        devices:
          one: {driver: modbus, url: "tcp://h", mapping: m.yaml}
          two: {driver: modbus, url: "tcp://i", mapping: m.yaml, class: data}
        """,
        m_yaml="""
        class: diag
        tags: {a: holding:1, b: {address: "holding:2", class: alarm}}
        """,
    )
    assert classes_of(config, "one") == {"a": "diag", "b": "alarm"}
    assert classes_of(config, "two") == {"a": "data", "b": "alarm"}


def test_a_list_has_a_column_for_it(read):
    config = read(
        "devices: {d: {driver: modbus, url: 'tcp://h', class: event, mapping: t.csv}}",
        t_csv="""
        tag,address,class
        a,holding:1,alarm
        b,holding:2,
        """,
    )
    assert classes_of(config, "d") == {"a": "alarm", "b": "event"}


def test_a_class_that_does_not_exist_is_refused_with_its_place_and_the_cure(read, tmp_path):
    with pytest.raises(FileError) as raised:
        read("""
            devices:
              d:
                driver: modbus
                url: tcp://h
                tags: {a: {address: "holding:1", class: alarms}}
            """)
    (mistake,) = raised.value.mistakes
    assert mistake.place == Place(str(tmp_path / "gw.yaml"), 6, 45)
    assert mistake.text == "tag 'a': class: 'alarms' is none of alarm, event, data, diag. Did you mean alarm?"


def test_the_schema_offers_the_classes():
    for document in (gateway_file({"modbus": Modbus}), mapping_file({"modbus": Modbus})):
        tag = document["$defs"]["tag"]["properties"]["class"]
        assert sorted(CLASSES) == sorted(next(one["enum"] for one in tag["anyOf"] if "enum" in one))


# --- and in the spool -----------------------------------------------------------------------------------------------


def group(record_class="data", device="d"):
    return Definition(device, ("a",), ("uint16",), ("",), (None,), record_class=record_class)


LIMITS = {name: Limits(commit_interval_s=0.0 if name == "alarm" else 60.0, max_bytes=16 << 20) for name in CLASSES}


def opening(folder: Path, *classes, **options):
    defaults = {"clock": SystemClock(), "metrics": Metrics(), "classes": classes}
    return Spool.open(folder, LIMITS, **(defaults | options))


async def until(condition):
    deadline = asyncio.get_running_loop().time() + 10
    while not condition():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.001)


def batch(n, record_class="data"):
    return Batch(group(record_class), SystemClock().wall_ms(), [n])


def test_alarms_are_on_the_disk_at_once_and_data_in_its_time(tmp_path):
    async def run():
        spool = await opening(tmp_path, "alarm")
        for queue in spool.queues.values():
            queue.cursor("cloud")
        spool.queue_of(group("data")).append(batch(1))
        spool.queue_of(group("alarm")).append(batch(2, "alarm"))
        alarm, data = spool.queues["alarm"], spool.queues["data"]
        await until(lambda: alarm.status().durable == alarm.head)
        assert data.status().durable < data.head
        await spool.close()

    asyncio.run(run())


def test_both_queues_come_back_after_a_restart_each_in_its_order(tmp_path):
    async def run():
        spool = await opening(tmp_path, "alarm", "data")
        for queue in spool.queues.values():
            queue.cursor("cloud")
        for n in range(50):
            name = "alarm" if n % 3 == 0 else "data"
            spool.queue_of(group(name)).append(batch(n, name))
        await spool.durable()
        await spool.close()

        spool = await opening(tmp_path, "alarm", "data")
        found = {}
        for name, queue in spool.queues.items():
            cursor = queue.cursor("cloud")
            records = []
            while len(records) < len([n for n in range(50) if (n % 3 == 0) == (name == "alarm")]):
                records += await queue.read(cursor, 100)
            found[name] = [record.batch.values[0] for record in records]
            assert {record.batch.group.record_class for record in records} == {name}
        assert found == {"alarm": list(range(0, 50, 3)), "data": [n for n in range(50) if n % 3]}
        await spool.close()

    asyncio.run(run())


def test_room_for_alarms_is_made_when_the_spool_opens(tmp_path):
    async def run():
        spool = await opening(tmp_path, "alarm")
        sizes = [path.stat().st_size for path in (tmp_path / "alarm").iterdir() if path.name.startswith("spare")]
        assert sizes == [1 << 20, 1 << 20]
        assert not [path for path in tmp_path.iterdir() if path.name.startswith("spare")]
        await spool.close()

    asyncio.run(run())


def test_a_class_that_nobody_uses_any_more_is_kept_as_long_as_somebody_is_owed_something(tmp_path):
    async def run():
        spool = await opening(tmp_path, "event")
        events = spool.queues["event"]
        events.cursor("cloud")
        events.append(batch(1, "event"))
        await spool.close()

        spool = await opening(tmp_path)
        assert list(spool.queues) == ["event", "data"]
        events = spool.queues["event"]
        cursor = events.cursor("cloud")
        records = await events.read(cursor, 10)
        events.commit(cursor, records[-1].seq)
        await spool.close()

        spool = await opening(tmp_path)
        assert list(spool.queues) == ["data"]
        await spool.close()

    asyncio.run(run())


def test_an_empty_folder_of_a_class_opens_no_queue(tmp_path):
    async def run():
        (tmp_path / "diag").mkdir()
        spool = await opening(tmp_path)
        assert list(spool.queues) == ["data"]
        assert not list((tmp_path / "diag").iterdir())
        await spool.close()

    asyncio.run(run())


def test_a_batch_of_a_class_without_queue_goes_with_the_data_and_is_told_once(tmp_path, caplog):
    async def run():
        spool = await opening(tmp_path)
        assert spool.queue_of(group("alarm")) is spool.queues["data"]
        assert spool.queue_of(group("alarm")) is spool.queues["data"]
        await spool.close()

    asyncio.run(run())
    told = [r.getMessage() for r in caplog.records if "no such queue" in r.getMessage()]
    assert told == ["device 'd' has tags of class alarm, but there is no such queue: they go with the data"]


def test_all_queues_read_in_one_thread_and_write_in_another(tmp_path):
    async def run():
        spool = await opening(tmp_path, *CLASSES)
        stores = [queue._store for queue in spool.queues.values()]
        assert len({id(store.reading) for store in stores}) == 1
        assert len({id(store.writing) for store in stores}) == 1
        await spool.close()

    asyncio.run(run())


@pytest.mark.parametrize(("classes", "where"), [(("event",), "event"), ((), "data")])
def test_an_event_of_the_gateway_goes_to_the_events_where_there_are_any(tmp_path, classes, where):
    async def run():
        spool = await opening(tmp_path, *classes)
        queue = spool.queues[where]
        cursor = queue.cursor("cloud")
        seq = spool.note("started", {"by": "hand"})
        (record,) = await queue.read(cursor, 10)
        assert (record.seq, record.kind) == (seq, "event")
        assert isinstance(record.other, Note)
        assert (record.other.name, record.other.fields) == ("started", {"by": "hand"})
        await spool.close()

    asyncio.run(run())
