"""The table holds exactly what was appended, and nothing twice."""

import asyncio
import csv
import io
import json
import math
from dataclasses import replace

from gateway.clock import SystemClock
from gateway.metrics import Metrics
from gateway.model import Batch, Definition, Quality, bad
from gateway.spool.limits import Limits
from gateway.spool.queue import Queue
from gateway.spool.record import Note
from gateway.upkeep.export import COLUMNS, Table, header
from gateway.upkeep.moments import Span
from gateway.upkeep.records import Wanted


def rows(yard, form="csv", below="", **wanted):
    table = Table(form, Wanted(**wanted))
    text = (header(form) + b"".join(table.pieces(yard.survey(below)))).decode("utf-8", "surrogatepass")
    if form == "jsonl":
        return [json.loads(line) for line in text.splitlines()], table.count
    return list(csv.DictReader(io.StringIO(text))), table.count


def store(yard, batches, **limits):
    async def main():
        async with yard.opened(**limits) as queue:
            queue.cursor("cloud")
            seqs = [queue.append(batch) for batch in batches]
            await queue.durable()
            return seqs, queue.epoch

    return asyncio.run(main())


def test_every_value_comes_back_as_it_was_appended_over_several_starts(yard):
    first = [yard.fill(1 + 30 * n, 30 + 30 * n) for n in range(3)]
    found, count = rows(yard, "jsonl")
    assert count.samples == len(found) == 3 * 90
    seqs = [start + n for start in first for n in range(30)]
    for n, seq in enumerate(seqs, 1):
        meant = yard.batch(n)
        mine = [row for row in found if row["seq"] == seq]
        assert [(r["tag"], r["value"], r["unit"]) for r in mine] == list(
            zip(meant.group.names, meant.values, meant.group.units, strict=True)
        )
        assert {r["ts_ms"] for r in mine} == {meant.time}
    assert len({row["epoch"] for row in found}) == 3
    assert {row["quality"] for row in found} == {"good"}
    assert {row["class"] for row in found} == {"data"}


def test_csv_and_json_lines_say_the_same(yard):
    yard.fill(1, 12)
    table, _ = rows(yard, "csv")
    lines, _ = rows(yard, "jsonl")
    assert list(table[0]) == list(COLUMNS) == [*lines[0], "server_ms", "history"]
    assert [r["tag"] for r in table] == [r["tag"] for r in lines]
    assert [float(r["value"]) for r in table if r["tag"] == "flow"] == [r["value"] for r in lines if r["tag"] == "flow"]
    assert table[0]["ts"] == lines[0]["ts"] == "2026-11-22T06:46:41.000Z"


def test_history_and_the_times_of_servers_are_told(yard):
    past = Batch(yard.pump, yard.t0, [1.5, 7], index=[0, 1], times=[yard.t0 - 9, yard.t0], server_times=[yard.t0, 0])
    store(
        yard, [replace(past, is_history=True), Batch(yard.pump, yard.t0, [2.5], index=[0], server_times=[yard.t0 + 1])]
    )
    table, _ = rows(yard, "csv")
    assert [(r["ts_ms"], r["server_ms"], r["history"]) for r in table] == [
        (str(yard.t0 - 9), str(yard.t0), "true"),
        (str(yard.t0), "", "true"),
        (str(yard.t0), str(yard.t0 + 1), ""),
    ]
    lines, _ = rows(yard, "jsonl")
    assert [(r.get("server_ms"), r.get("history")) for r in lines] == [
        (yard.t0, True),
        (None, True),
        (yard.t0 + 1, None),
    ]


def test_a_span_finds_history_by_the_time_of_each_value(yard):
    old = [yard.t0 - 7_000_000 + 1000 * n for n in range(3)]
    store(yard, [yard.batch(1), Batch(yard.pump, old[2], [1.0, 2, ""], times=old, is_history=True), yard.batch(2)])
    found, _ = rows(yard, "jsonl", span=Span(old[0], old[1]))
    assert [(r["tag"], r["ts_ms"]) for r in found] == [("flow", old[0]), ("state", old[1])]


def test_strange_values_keep_their_meaning(yard):
    names = tuple("abcdefghij")
    group = Definition("dev, ice", names, ("",) * 10, ('"',) * 10, (None,) * 10)
    values = [math.nan, math.inf, None, True, b"\x00\xff", [1, "x"], {"k": None}, 1 << 70, 'a,"b"\nc', -0.0]
    store(yard, [Batch(group, yard.t0, values)])
    table, _ = rows(yard, "csv")
    assert [r["value"] for r in table] == [
        "nan", "inf", "", "true", "00ff", '[1, "x"]', '{"k": null}', str(1 << 70), 'a,"b"\nc', "-0.0",
    ]  # fmt: skip
    lines, _ = rows(yard, "jsonl")
    assert [r["value"] for r in lines] == [
        None, None, None, True, "00ff", [1, "x"], {"k": None}, 1 << 70, 'a,"b"\nc', -0.0,
    ]  # fmt: skip
    assert [r["quality"] for r in lines][:3] == ["uncertain:nan", "uncertain:nan", "good"]


def test_sparse_batches_qualities_and_source_times_stand_in_their_rows(yard):
    quality = [Quality("good"), bad("timeout")]
    sparse = Batch(yard.pump, yard.t0, [1.5, None], quality, [0, 2], [yard.t0 - 5000, yard.t0])
    store(yard, [sparse])
    table, _ = rows(yard)
    assert [(r["tag"], r["value"], r["quality"], int(r["ts_ms"]) - yard.t0) for r in table] == [
        ("flow", "1.5", "good", -5000),
        ("note", "", "bad:timeout", 0),
    ]
    table, _ = rows(yard, span=Span(yard.t0 - 100, None))
    assert [r["tag"] for r in table] == ["note"]


def test_a_time_range_and_a_tag_filter_choose_rows(yard):
    yard.fill(1, 40)
    table, count = rows(yard, span=Span(yard.t0 + 10_000, yard.t0 + 19_999), tag="fl*")
    assert {r["tag"] for r in table} == {"flow"}
    assert [int(r["ts_ms"]) for r in table] == [yard.t0 + 1000 * n for n in range(10, 20)]
    assert count.records == 10
    assert rows(yard, tag="flux")[0] == []
    assert rows(yard, device="pump")[1].samples == 120
    assert rows(yard, device="other")[1].samples == 0


def test_damage_costs_its_rows_only(yard):
    start = yard.fill(1, 40)
    yard.flip(yard.heads()[3], 400)
    table, _ = rows(yard)
    lost = set(range(start + 12, start + 16))
    assert {int(r["seq"]) for r in table} == set(range(start, start + 40)) - lost


def test_records_written_twice_stand_in_the_table_once(yard):
    yard.fill(1, 40)
    files = yard.survey().files
    first = yard.folder / files[0].name
    from gateway.journal import frame

    data, again = first.read_bytes(), b""
    for head in [h for h in yard.heads() if h.segment == files[0].number][-2:]:
        piece = data[head.offset : head.offset + head.extent]
        again += frame.moved(piece, segment=files[-1].number + 1, offset=len(again))
    (yard.folder / f"{files[-1].number + 1:016x}.seg").write_bytes(again)
    table, _ = rows(yard)
    assert len(table) == len({(r["seq"], r["tag"]) for r in table}) == 120


def test_what_is_no_sample_is_counted_and_not_forgotten(yard):
    async def main():
        async with yard.opened() as queue:
            queue.cursor("cloud")
            queue.add(Note(yard.t0, "door", {"open": True}), "event")
            queue.append(yard.batch(1))
            await queue.durable()

    asyncio.run(main())
    table, count = rows(yard)
    assert len(table) == 3
    assert count.others == 1


def test_memory_stays_bounded_by_a_frame(yard):
    import tracemalloc

    yard.fill(1, 1200, per_frame=4)
    table = Table("csv", Wanted())
    survey = yard.survey()
    tracemalloc.start()
    size = sum(len(piece) for piece in table.pieces(survey))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size > 2_500_000
    assert peak < 4_000_000


def test_times_taken_by_a_clock_that_was_wrong_are_mended_where_the_store_knows_how(yard):
    class Clock(SystemClock):
        """A clock that begins in 1970 and is set right later."""

        def __init__(self):
            super().__init__()
            self.ahead = 0
            self.is_synced = False

        def wall_ms(self):
            return self.ahead + round(self.monotonic() * 1000)

        def state(self):
            return "synced" if self.is_synced else "unsynced"

    clock = Clock()

    async def main():
        queue = await Queue.open(yard.folder, Limits(min_free_bytes=0), clock=clock, metrics=Metrics())
        queue.cursor("cloud")
        for n in range(5):
            queue.append(Batch(yard.pump, clock.wall_ms(), [1.0, n, "early"]))
        await queue.durable()
        before = clock.monotonic()
        clock.ahead, clock.is_synced = yard.t0 - round(before * 1000), True
        queue.append(Batch(yard.pump, clock.wall_ms(), [1.0, 99, "late"]))
        await queue.durable()
        await queue.close()

    asyncio.run(main())
    table, _ = rows(yard, tag="state")
    assert {row["clock"] for row in table[:5]} == {"mended"}
    assert table[5]["clock"] == "synced"
    assert all(abs(int(row["ts_ms"]) - yard.t0) < 60_000 for row in table)
    chosen, _ = rows(yard, tag="state", span=Span(yard.t0 - 60_000, None))
    assert len(chosen) == 6
