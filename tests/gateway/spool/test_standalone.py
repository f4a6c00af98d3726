"""The reader that needs nothing but Python sees what we see, on golden stores, random ones and broken ones."""

import asyncio
import base64
import csv
import importlib.util
import io
import json
import math
import os
import random
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.journal import compression, frame
from gateway.journal.frame import Body, Head
from gateway.model import GOOD, Batch, Definition, bad
from gateway.spool import standalone
from gateway.spool.payload import Payload
from gateway.spool.record import Gap, Message, Note, Record, gap_record

CASES = Path(__file__).parents[2] / "cases" / "spool"
_spec = importlib.util.spec_from_file_location("make_golden", CASES / "make_golden.py")
golden = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(golden)

TIME = 1_795_330_000_000


@pytest.fixture
def run(tmp_path):
    """Run a copy of the file, alone, without site packages and without our paths: exit code, output, errors."""
    copy = tmp_path / "copied.py"
    shutil.copy(standalone.__file__, copy)

    def run(folder, *options):
        done = subprocess.run(
            [sys.executable, "-I", "-S", copy, folder, *options],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env={"PATH": os.environ["PATH"], "PYTHONIOENCODING": "utf-8"},
        )
        return done.returncode, done.stdout, done.stderr

    return run


def unpacked(folder, name):
    with zipfile.ZipFile(CASES / f"{name}.zip") as archive:
        archive.extractall(folder)
    return json.loads((CASES / f"{name}.json").read_text())["stored"]


def seen_by_it(folder):
    """All entries as the golden JSON tells them."""
    card = standalone.Card(folder)
    found = []
    for entry in card.entries():
        row = {key: entry[key] for key in ("seq", "epoch", "kind")}
        if entry["kind"] == "batch":
            samples = entry["samples"]
            row |= {"device": entry["device"], "time": entry["time"], "tags": [s[0] for s in samples]}
            row |= {"values": [golden.exact(s[2]) for s in samples], "qualities": [s[3] for s in samples]}
            row["times"] = [s[4] for s in samples]
            row |= {"history": True} if "history" in entry else {}
            row |= {"server_times": [s[5] for s in samples]} if any(s[5] for s in samples) else {}
        elif entry["kind"] == "gap":
            names = ("first_seq", "last_seq", "count", "cause", "first_time", "last_time")
            row |= {key: entry[key] for key in names}
        elif entry["kind"] == "message":
            row |= {key: entry[key] for key in ("time", "topic", "qos", "retain")}
            row |= {key: golden.exact(entry[key]) for key in ("payload", "properties")}
        else:
            row |= {"time": entry["time"], "name": entry["name"], "fields": golden.exact(entry["fields"])}
        found.append(row)
    return card, found


def as_samples(stored):
    """What our own decoder told, with each value beside its tag."""
    found = []
    for row in map(dict, stored):
        if row["kind"] == "batch":
            names, index, quality, times = (row.pop(key) for key in ("names", "index", "quality", "times"))
            many = len(row["values"])
            row["tags"] = [names[at] for at in (range(many) if index is None else index)]
            row["qualities"] = [quality] * many if isinstance(quality, str) else quality
            row["times"] = [row["time"]] * many if times is None else times
        found.append(row)
    return found


@pytest.mark.parametrize("name", sorted(path.stem for path in CASES.glob("*.zip")))
def test_it_reads_golden_stores_of_every_format_value_for_value(tmp_path, name):
    stored = unpacked(tmp_path / "spool", name)
    card, found = seen_by_it(tmp_path / "spool")
    assert found == as_samples(stored)
    assert not card.complaints


def test_it_tells_of_history_and_of_the_times_of_servers(tmp_path, run):
    stored = unpacked(tmp_path / "spool", "history")
    told = list(map(json.loads, run(tmp_path / "spool", "--json")[1].splitlines()))
    assert [t.get("history", False) for t in told] == ["history" in s for s in stored]
    row = next(t for t in told if "history" in t and t["device"] == "pump")
    assert row["times"] == {"state": row["time"] - 40}
    assert row["server_times"] == {"flow": row["time"] + 3}, "0 is no time"
    table = list(csv.DictReader(io.StringIO(run(tmp_path / "spool", "--csv")[1])))
    mine = [r for r in table if r["seq"] == str(row["seq"]) and r["epoch"] == row["epoch"]]
    assert [(r["tag"], r["server_ms"], r["history"]) for r in mine] == [
        ("flow", str(row["time"] + 3), "true"),
        ("state", "", "true"),
    ]
    assert {r["history"] for r in table if r["kind"] != "batch"} == {""}


@pytest.mark.parametrize("name", ["format-1", "format-2"])
def test_alone_it_tells_all_of_a_golden_store(tmp_path, run, name):
    stored = unpacked(tmp_path / "spool", name)
    code, out, errors = run(tmp_path / "spool", "--json")
    assert (code, errors) == (0, "")
    told = list(map(json.loads, out.splitlines()))
    assert [(t["epoch"], t["seq"], t["kind"], t["class"]) for t in told] == [
        (s["epoch"], s["seq"], s["kind"], "data") for s in stored
    ]
    assert told[1]["values"] == {
        f"line/v{n}": struct.unpack(">d", bytes.fromhex(v["float"]))[0] for n, v in enumerate(stored[1]["values"])
    }
    assert {t["clock"] for t in told if t["epoch"] == "9f31c2-1"} == {"unsynced"}
    assert {t["boot"] for t in told if "boot" in t} == {golden.Clock.boot_id.replace("-", "")}
    code, out, errors = run(tmp_path / "spool", "--csv")
    assert (code, errors) == (0, "")
    assert sum(1 for _ in csv.reader(io.StringIO(out))) == 1 + sum(len(s.get("values", [0])) for s in stored)
    code, out, errors = run(tmp_path / "spool")
    seqs = [s["seq"] for s in stored if (s["epoch"], s["kind"]) == ("9f31c2-2", "batch")]
    span = f"37, {seqs[0]} to {seqs[-1]}, 2026-11-22T06:46:41.000Z to 2026-11-22T06:46:52.002Z, synced"
    assert f"data 9f31c2-2 batch: {span}" in out
    assert "data: uplink cloud has acknowledged all up to 7" in out


def test_a_part_is_told_by_time_and_by_tag(tmp_path, run):
    stored = unpacked(tmp_path / "spool", "format-2")
    folder = tmp_path / "spool"
    told = [json.loads(line) for line in run(folder, "--json", "--tag", "pump/*t*")[1].splitlines()]
    assert {tag for t in told for tag in t.get("values", ())} == {"state", "total", "offset"}
    assert [t["kind"] for t in told if t["kind"] != "batch"] == ["gap"]
    start = "2026-11-22T06:46:45Z"
    for first in (start, "2026-11-22T06:46:45", "1795330005000"):
        told = [
            json.loads(line) for line in run(folder, "--json", "--from", first, "--to", "1795330007000")[1].splitlines()
        ]
        assert [t["time"] for t in told if t["clock"] == "synced"] == [
            s["time"] for s in stored if s["epoch"] == "9f31c2-2" and 1795330005000 <= s["time"] < 1795330007000
        ]
        assert sum(t["clock"] == "unsynced" for t in told) == sum(s["epoch"] == "9f31c2-1" for s in stored)


class Store:
    """Writes frames into a folder, as a store would."""

    def __init__(self, folder):
        self.folder = folder
        self.ordinal = 0

    def write(self, name, *frames, size=256 * 1024):
        """A file with these frames, each made by `sealed`."""
        data = b""
        for make in frames:
            data += make(int(name.removesuffix(".seg").removesuffix(".bad"), 16), len(data))
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.ljust(size, b"\0"))
        return path

    @staticmethod
    def sealed(*records, entries=True, **fields):
        payload = Payload(records[0].seq)
        for record in records:
            payload.add(record, 5, 1 << 30)
        known = payload.entries if entries else {}

        def make(segment, offset):
            head = Head(store=0xABCDEF, start=3, segment=segment, offset=offset, count=payload.count, clock=2)
            head = frame.replace(head, first_seq=payload.first_seq, last_seq=payload.last_seq, **fields)
            return frame.seal(head, Body(known, b"", payload.sealed()))

        return make


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "spool")


GROUP = Definition("pump", ("a", "b"), ("float64", "uint16"), ("m", ""), (None, None))
OTHER = Definition("valve", ("x",), ("string",), ("",), (None,))


def batch(seq, *values, group=GROUP, **fields):
    return Record(seq, "abcdef-3", Batch(group, TIME + seq, list(values), **fields))


def numbers(found):
    return [(row["seq"], row.get("values")) for row in found]


def test_other_kinds_and_the_other_classes_are_told(store, run):
    message = Message("a/b", b"\x00\xff", 1, retain=True, time=TIME, properties=b"\x01\x01")
    store.write(
        "0000000000000001.seg",
        store.sealed(
            batch(1, 1.5, 2),
            Record(2, "abcdef-3", None, "message", message),
            Record(3, "abcdef-3", None, "event", Note(TIME, "start", {"after_s": math.inf})),
            Record(4, "abcdef-3", None, "audit", Note(TIME, "write", {"tag": "a"})),
            gap_record(Gap(5, 9, 0, TIME, 5, "memory"), "abcdef-3"),
            Record(10, "abcdef-3", batch(10, 2.5, 3).batch, is_thinned=True),
        ),
    )
    (store.folder / "alarm").mkdir()
    Store(store.folder / "alarm").write("0000000000000001.seg", store.sealed(batch(1, "on", group=OTHER)))
    code, out, errors = run(store.folder, "--json")
    assert (code, errors) == (0, "")
    told = list(map(json.loads, out.splitlines()))
    assert [(t["class"], t["seq"], t["kind"]) for t in told] == [
        ("data", 1, "batch"),
        ("data", 2, "message"),
        ("data", 3, "event"),
        ("data", 4, "audit"),
        ("data", 9, "gap"),
        ("data", 10, "batch"),
        ("alarm", 1, "batch"),
    ]
    assert (told[1]["topic"], told[1]["retain"], told[1]["qos"]) == ("a/b", True, 1)
    assert base64.b64decode(told[1]["payload"]) == b"\x00\xff"
    assert (told[2]["name"], told[2]["fields"]) == ("start", {"after_s": "inf"})
    assert (told[4]["first_seq"], told[4]["cause"]) == (5, "memory")
    assert told[5]["thinned"]
    assert told[6]["values"] == {"x": "on"}
    assert [row[4] for row in csv.reader(io.StringIO(run(store.folder, "--csv")[1]))][1:3] == ["1.5", "2"]


def test_what_is_damaged_is_skipped_and_told_and_the_rest_is_read(store, run):
    path = store.write(
        "0000000000000001.seg", *(store.sealed(batch(n, n + 0.5, n), batch(n + 1, 0.5, n)) for n in (1, 3, 5, 7))
    )
    data = bytearray(path.read_bytes())
    data[4096 + 200] ^= 1  # the body of records 3 and 4
    data[8192 + 20] ^= 1  # the head of records 5 and 6
    path.write_bytes(bytes(data))
    card, found = seen_by_it(store.folder)
    assert [row["seq"] for row in found] == [1, 2, 7, 8]
    code, out, errors = run(store.folder)
    assert code == 1
    assert "the frame at byte 4096 is skipped, with 2 records (abcdef-3, 3 to 4): its checksum is wrong" in errors
    assert "a frame at byte 8192 is damaged and is skipped" in errors
    assert len(errors.splitlines()) == 2 == len(card.complaints)
    assert "data abcdef-3 batch: 4, 1 to 8" in out


def test_a_definition_is_found_in_another_segment_or_the_values_are_told_without_names(store, run):
    store.write("0000000000000001.bad", store.sealed(batch(1, 1.5, 2)))
    store.write("0000000000000002.seg", store.sealed(batch(2, 2.5, 3), batch(3, "x", group=OTHER), entries=False))
    told = list(map(json.loads, run(store.folder, "--json")[1].splitlines()))
    assert [t["values"] for t in told] == [{"a": 1.5, "b": 2}, {"a": 2.5, "b": 3}, {"#0": "x"}]
    assert told[2]["device"] == f"unknown-{OTHER.hash.hex()}"


def test_an_earlier_life_of_a_file_and_what_was_written_twice_are_not_told(store):
    one, two = store.sealed(batch(1, 1.5, 2)), store.sealed(batch(2, 2.5, 3))
    store.write("0000000000000001.seg", one)
    store.write("0000000000000002.seg", one, two, lambda segment, offset: store.sealed(batch(9, 1.5, 1))(1, offset))
    (store.folder / "spare-1").write_bytes(store.sealed(batch(7, 1.5, 1))(1, 0))
    assert [row["seq"] for row in seen_by_it(store.folder)[1]] == [1, 2]


def test_a_later_version_and_a_missing_zstd_are_told_by_name(store, run):
    path = store.write("0000000000000001.seg", *(store.sealed(batch(n, n + 0.5, n)) for n in (1, 2, 3)))
    data = bytearray(path.read_bytes())
    data[4] = 3
    data[4096 + 5] = 3
    for at in (0, 4096):
        data[at + 132 : at + 136] = struct.pack("<I", zlib.crc32(data[at : at + 132]))
    path.write_bytes(bytes(data))
    code, out, errors = run(store.folder, "--json")
    assert code == 1
    assert "format version 3; take the reader of a newer headgate" in errors
    if compression.zstd() is None:
        assert "compressed with zstd: use Python 3.14, or install zstandard" in errors
    assert [json.loads(line)["seq"] for line in out.splitlines()] == [3]


@pytest.mark.parametrize("name", ["missing", "empty", "foreign"])
def test_a_folder_that_is_no_spool_is_told(tmp_path, run, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "letter.txt").write_text("hello")
    code, out, err = run(tmp_path / name)
    assert (code, out) == (2, "")
    assert "is no spool's folder" in err


def test_it_changes_nothing(tmp_path, run):
    unpacked(tmp_path / "spool", "format-2")
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in (tmp_path / "spool").iterdir()}
    for option in ("--json", "--csv"):
        assert run(tmp_path / "spool", option)[0] == 0
    assert {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in (tmp_path / "spool").iterdir()} == before


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    unpacked(tmp_path / "spool", "format-2")
    command = f"{sys.executable} -I -S {standalone.__file__} {tmp_path / 'spool'} --json | head -1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["seq"] == 1
    assert done.stderr == ""


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_a_payload_that_only_looks_right_is_read_otherwise_or_refused_in_no_time(data):
    payload = Payload(1)
    for record in (batch(1, 1.5, 2), batch(2, 2.5, None), batch(3, "x", group=OTHER), batch(4, 1.5, index=[0])):
        payload.add(record, 0, 1 << 20)
    touched = bytearray(payload.sealed())
    for _ in range(data.draw(st.integers(1, 6))):
        touched[data.draw(st.integers(0, len(touched) - 1))] = data.draw(st.integers(0, 255))
    try:
        rows = list(standalone.rows_in_columns(standalone.head_of(store_head()), bytes(touched)))
    except (ValueError, KeyError, TypeError, IndexError, OverflowError, RuntimeError, struct.error):
        return
    assert sum(len(row.values) for row in rows) <= len(touched)


def store_head():
    return frame.seal(Head(), Body({}, b"", b""))


def random_batches(draw):
    groups = [GROUP, OTHER, Definition("wide", tuple(map(str, range(9))), ("float32",) * 9, ("",) * 9, (None,) * 9)]
    pool = [
        1.5,
        math.nan,
        -0.0,
        0.1,
        3,
        2**64 - 1,
        2**70,
        -5,
        True,
        None,
        "x",
        "\ud800",
        b"\xff",
        [1, [None]],
        {"a": 2.5},
    ]
    for n in range(draw.randrange(1, 60)):
        group = draw.choice(groups)
        many = len(group.names)
        index = sorted(draw.sample(range(many), draw.randrange(many + 1))) if draw.random() < 0.4 else None
        many = many if index is None else len(index)
        usual = draw.random() < 0.6
        values = [draw.choice(pool[:1] if usual else pool) for _ in range(many)]
        quality = GOOD if draw.random() < 0.7 else [draw.choice([GOOD, bad("stale")]) for _ in range(many)]
        times = None if draw.random() < 0.8 else [TIME + draw.randrange(-99, 99) for _ in range(many)]
        yield Batch(group, TIME + n, values, quality, index, times)


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32))
def test_it_sees_in_random_stores_what_we_see(tmp_path, seed):
    folder = tmp_path / str(seed)

    async def fill():
        draw = random.Random(seed)
        for start in (0, 1):
            queue = await golden.opened(folder, start)
            queue.cursor("cloud")
            for batch in random_batches(draw):
                queue.append(batch)
                if draw.random() < 0.2:
                    await queue.durable()
            await queue.close()

    asyncio.run(fill())
    card, found = seen_by_it(folder)
    assert found == as_samples(golden.stored(folder))
    assert not card.complaints
    shutil.rmtree(folder)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_damage_costs_what_it_hit_and_never_the_reader(tmp_path, data):
    folder = tmp_path / "broken"
    shutil.rmtree(folder, ignore_errors=True)
    stored = as_samples(unpacked(folder, data.draw(st.sampled_from(["format-1", "format-2", "history"]))))
    for _ in range(data.draw(st.integers(1, 5))):
        path = data.draw(st.sampled_from(sorted(folder.iterdir())))
        content = bytearray(path.read_bytes())
        at = data.draw(st.integers(0, len(content) - 1))
        change = data.draw(st.sampled_from(["flip", "zero", "cut", "swap"]))
        if change == "flip":
            content[at] ^= 1 << data.draw(st.integers(0, 7))
        elif change == "zero":
            content[at : at + 4096] = bytes(len(content[at : at + 4096]))
        elif change == "cut":
            del content[at:]
        else:
            at -= at % 4096
            content[at : at + 4096], content[:4096] = content[:4096], content[at : at + 4096]
        path.write_bytes(bytes(content) or b"\0")
    rows = [json.dumps(row, sort_keys=True) for row in stored]
    seen = [
        json.dumps(row, sort_keys=True)
        for row in seen_by_it(folder)[1]
        if not row.get("device", "").startswith("unknown")
    ]
    assert [row for row in rows if row in set(seen)] == seen, "in order, and nothing that was not stored"
