"""`headgate queue` as a person types it, on folders: whole, damaged, copied, read-only, foreign, of several starts."""

import asyncio
import csv
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.cli.main import main
from gateway.cli.queue import VERBS
from gateway.model import Batch

_SPEC = importlib.util.spec_from_file_location(
    "headgate_tests_yard", Path(__file__).parents[1] / "upkeep" / "conftest.py"
)
_YARD = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_YARD)


@pytest.fixture
def yard(tmp_path):
    return _YARD.Yard(tmp_path / "spool")


@pytest.fixture
def queue(capsys):
    """Run a verb: exit code, standard output, standard error."""

    def run(*args):
        try:
            code = main(["queue", *map(str, args)])
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(queue, verb):
    code, out, _ = queue(verb, "--help")
    assert code == 0
    assert "FILE" in out


@pytest.mark.parametrize("verb", ["status", "inspect", "export", "verify", "audit", "repair"])
@pytest.mark.parametrize("place", ["missing", "empty", "foreign"])
def test_what_is_no_spool_is_wrong_use_and_says_what_to_name(queue, tmp_path, verb, place):
    folder = tmp_path / place
    if place != "missing":
        folder.mkdir()
    if place == "foreign":
        (folder / "holiday.jpg").write_bytes(b"x")
    code, out, err = queue(verb, folder)
    assert code == 2
    assert out == ""
    assert str(folder) in err
    assert list(folder.iterdir()) == [] or place == "foreign" if folder.exists() else True


def test_export_gives_back_what_was_appended_value_for_value(queue, yard):
    yard.fill(1, 30)
    yard.fill(31, 50)
    code, out, err = queue("export", yard.folder)
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert "150 samples of 50 records" in err
    for n in range(1, 51):
        flow, state, note = rows[3 * n - 3 : 3 * n]
        meant = yard.batch(n)
        assert float(flow["value"]) == meant.values[0]
        assert int(state["value"]) == meant.values[1]
        assert note["value"] == meant.values[2]
        assert {int(r["ts_ms"]) for r in (flow, state, note)} == {meant.time}


def test_export_to_a_file_is_whole_or_not_there(queue, yard, tmp_path):
    yard.fill(1, 12)
    out = tmp_path / "table.jsonl"
    assert queue("export", yard.folder, "--json", "--tag", "flow", "--out", out)[0] == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["value"] for row in rows] == [n / 7 for n in range(1, 13)]
    code, _, err = queue("export", yard.folder, "--out", tmp_path / "no" / "table.csv")
    assert (code, "cannot be written" in err) == (1, True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["spool", "table.jsonl"]


def test_export_to_a_full_disk_says_so_and_leaves_nothing(queue, yard, tmp_path, monkeypatch):
    yard.fill(1, 12)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gateway.upkeep.whole.os.write", full)
    code, _, err = queue("export", yard.folder, "--out", tmp_path / "table.csv")
    assert code == 1
    assert "No space left" in err
    assert [p.name for p in tmp_path.iterdir()] == ["spool"]


def test_times_may_be_iso_ms_or_relative_and_a_zone_left_open_is_said(queue, yard):
    yard.fill(1, 20)
    by_ms = queue("export", yard.folder, "--from", yard.t0 + 5000, "--to", yard.t0 + 9000)
    by_iso = queue("export", yard.folder, "--from", "2026-11-22T06:46:45Z", "--to", "2026-11-22T07:46:49+01:00")
    assert by_ms[1] == by_iso[1]
    assert len(by_ms[1].splitlines()) == 1 + 15
    assert queue("export", yard.folder, "--from", "-2h", "--to", "now")[0] == 0
    local = queue("export", yard.folder, "--from", "2026-11-22T06:00")
    assert "taken as local time" in local[2]
    for bad in (("--from", "yesterday"), ("--from", "now", "--to", "-1h")):
        code, _, err = queue("export", yard.folder, *bad)
        assert code == 2
        assert bad[1] in err


def test_inspect_shows_records_by_number_and_tag(queue, yard):
    start = yard.fill(1, 20)
    code, out, _ = queue("inspect", yard.folder, "--seq", f"{start + 2}..{start + 4}", "--json")
    assert code == 0
    rows = json.loads(out)
    assert [row["seq"] for row in rows] == [start + 2, start + 3, start + 4]
    assert rows[0]["values"][0]["value"] == 3 / 7
    _, out, _ = queue("inspect", yard.folder, "--tag", "fl*")
    assert out.count("flow=") == 20
    assert "state=" not in out
    assert queue("inspect", yard.folder, "--seq", "x")[0] == 2


def test_inspect_says_what_is_history_and_when_a_server_had_it(queue, yard):
    async def main():
        async with yard.opened() as store:
            store.cursor("cloud")
            store.append(Batch(yard.pump, yard.t0, [1.5], index=[0], server_times=[yard.t0 + 4], is_history=True))
            await store.durable()

    asyncio.run(main())
    (row,) = json.loads(queue("inspect", yard.folder, "--json")[1])
    assert (row["history"], row["values"][0]["server_time"]) == (True, yard.t0 + 4)
    assert "pump history: flow=1.5" in queue("inspect", yard.folder)[1]


def test_inspect_shows_frames_damaged_ones_too_also_of_files_set_aside(queue, yard):
    yard.fill(1, 60)
    yard.flip(yard.heads()[2], 300)
    second = yard.survey().files[1].name
    (yard.folder / second).rename(yard.folder / second.replace(".seg", ".bad"))
    code, out, _ = queue("inspect", yard.folder, "--frames", "--json")
    assert code == 0
    rows = json.loads(out)
    assert len(rows) == 15
    assert [row["state"] for row in rows].count("damaged") == 1
    assert {row["file"][-4:] for row in rows} == {".seg", ".bad"}
    assert {"version", "codec", "covers_from", "boot", "clock", "count"} <= set(rows[0])
    assert "DAMAGED" in queue("inspect", yard.folder, "--frames")[1]


def test_verify_and_audit_exit_with_1_where_something_is_missing(queue, yard):
    start = yard.fill(1, 40)
    assert queue("verify", yard.folder)[0] == 0
    assert queue("audit", yard.folder)[0] == 0
    yard.flip(yard.heads()[3], 300)
    code, out, _ = queue("verify", yard.folder, "--json")
    assert code == 1
    report = json.loads(out)
    assert (report["ok"], report["damage"][0]["first_seq"], report["damage"][0]["count"]) == (False, start + 12, 4)
    code, out, _ = queue("verify", yard.folder)
    assert f"records {start + 12} to {start + 15}" in out
    code, out, _ = queue("audit", yard.folder)
    assert code == 1
    assert "lost (damaged)" in out
    assert queue("audit", yard.folder, "--to", yard.t0 + 5000)[0] == 0
    assert queue("audit", yard.folder, "--uplink", "nobody")[2].count("there are: cloud") == 1


def test_status_of_a_stopped_store_says_what_waits(queue, yard):
    yard.fill(1, 40, uplinks=("cloud", "plant"), acknowledge=8)
    code, out, _ = queue("status", yard.folder, "--json")
    assert code == 0
    (found,) = json.loads(out)["queues"]
    assert found["records"] == 40
    assert {c["name"]: c["lag_records"] for c in found["cursors"]} == {"cloud": 32, "plant": 40}
    assert found["bytes_total"] > 40 * 1000
    text = queue("status", yard.folder)[1]
    assert "uplink cloud: 32 records wait" in text
    assert "no gateway runs here" in text


def test_a_class_can_be_picked(queue, yard):
    yard.fill(1, 8)
    yard.fill(1, 4, below="alarm")
    assert len(queue("export", yard.folder)[1].splitlines()) == 1 + 3 * 12
    assert len(queue("export", yard.folder, "--class", "alarm")[1].splitlines()) == 1 + 3 * 4
    code, _, err = queue("export", yard.folder, "--class", "event")
    assert code == 2
    assert "no class 'event' here; there are: alarm, data" in err


def test_what_only_looks_changes_no_byte(queue, yard):
    yard.fill(1, 40)
    yard.flip(yard.heads()[3], 300)
    before = yard.bytes()
    for verb in ("status", "inspect", "export", "verify", "audit"):
        queue(verb, yard.folder)
    queue("inspect", yard.folder, "--frames")
    queue("repair", yard.folder, "--out", yard.folder.parent / "copy")
    assert yard.bytes() == before


def test_repair_mends_and_says_what(queue, yard):
    start = yard.fill(1, 60)
    yard.flip(yard.heads()[3], 300)
    code, out, _ = queue("repair", yard.folder)
    assert code == 0
    assert f"a gap stands for records {start + 12} to {start + 15}" in out
    assert queue("verify", yard.folder)[0] == 0
    assert "nothing is damaged" in queue("repair", yard.folder)[1]


def test_repair_writes_a_mended_copy_of_all_classes_to_a_new_folder(queue, yard, tmp_path):
    yard.fill(1, 60)
    alarm = tmp_path / "alarm"
    shutil.copytree(yard.folder, alarm)
    alarm.rename(yard.folder / "alarm")
    yard.flip(yard.heads()[3], 300)
    copy = tmp_path / "copy"
    code, out, err = queue("repair", yard.folder, "--out", copy)
    assert (code, "a gap stands for records" in out) == (0, True), err
    assert queue("verify", copy)[0] == 0
    assert {q["record_class"] for q in json.loads(queue("status", copy, "--json")[1])["queues"]} == {"alarm", "data"}
    code, _, err = queue("repair", yard.folder, "--out", copy)
    assert (code, "is not empty" in err) == (2, True)


def test_purge_says_what_goes_does_it_and_leaves_a_trace(queue, yard):
    start = yard.fill(1, 40, uplinks=("cloud", "plant"))
    code, _, err = queue("purge", yard.folder, "--before", yard.t0 + 11_000)
    assert code == 1
    assert "Give --yes" in err
    assert f"uplink cloud: 10 records ({start} to {start + 9}), of 2026-11-22T06:46:41.000Z" in err
    code, out, _ = queue("purge", yard.folder, "--before", yard.t0 + 11_000, "--uplink", "cloud", "--yes", "--json")
    assert code == 0
    (gone,) = json.loads(out)["given_up"]
    assert (gone["uplink"], gone["last_seq"], gone["count"]) == ("cloud", start + 9, 10)
    assert "nothing waits" in queue("purge", yard.folder, "--before", yard.t0 + 11_000, "--uplink", "cloud", "--yes")[2]
    _, out, _ = queue("purge", yard.folder, "--before", yard.t0 + 14_000, "--uplink", "cloud", "--yes", "--json")
    assert json.loads(out)["given_up"][0]["count"] == 3
    lags = {m.name: m.committed - start + 1 for m in yard.survey().state().marks}
    assert lags == {"cloud": 13, "plant": 0}
    code, out, _ = queue("audit", yard.folder, "--json")
    accounts = {a["name"]: a for a in json.loads(out)["accounts"]}
    assert {"fate": "given up", "cause": "purged", "count": 13} in accounts["cloud"]["totals"]
    assert not [t for t in accounts["plant"]["totals"] if t["fate"] == "given up"]


def test_purge_of_all_leaves_nothing_waiting(queue, yard):
    yard.fill(1, 40, uplinks=("cloud", "plant"))
    yard.fill(1, 8, below="alarm")
    assert queue("purge", yard.folder, "--all", "--yes")[0] == 0
    _, out, _ = queue("status", yard.folder, "--json")
    waiting = {c["lag_records"] for q in json.loads(out)["queues"] for c in q["cursors"]}
    assert waiting <= {0, 1, 2}  # the entries for the audit
    assert "nothing waits" in queue("purge", yard.folder, "--before", yard.t0, "--yes")[2]


def test_purge_wants_to_know_what(queue, yard):
    yard.fill(1, 4)
    assert queue("purge", yard.folder)[0] == 2
    assert queue("purge", yard.folder, "--all", "--uplink", "cloud")[0] == 2


def test_forget_removes_the_uplink_and_only_that(queue, yard):
    yard.fill(1, 40, uplinks=("cloud", "old"))
    code, _, err = queue("forget", yard.folder, "oldd", "--yes")
    assert code == 1
    assert "knows no uplink 'oldd'; there are: cloud, old" in err
    code, _, err = queue("forget", yard.folder, "old", "--yes")
    assert code == 0
    assert "40 records" in err
    assert [m.name for m in yard.survey().state().marks] == ["cloud"]


def test_forget_refuses_what_the_file_has(queue, yard, tmp_path):
    yard.fill(1, 8)
    file = tmp_path / "gateway.yaml"
    file.write_text(
        f"gateway: g\nspool: {{path: {yard.folder}}}\nuplinks: {{cloud: {{url: 'mqtt://127.0.0.1:1'}}}}\n"
        "devices: {a: {driver: modbus, url: 'tcp://127.0.0.1:1', tags: {x: holding:1}}}\n"
    )
    code, _, err = queue("forget", file, "cloud", "--yes")
    assert code == 1
    assert "has the uplink 'cloud'" in err
    assert queue("forget", file, "cloud", "--yes", "--force")[0] == 0


def test_the_gateway_file_may_be_named_instead_and_gives_the_limit(queue, yard, tmp_path):
    yard.fill(1, 8)
    file = tmp_path / "gateway.yaml"
    file.write_text(
        f"gateway: g\nspool: {{path: {yard.folder}, max_bytes: 64MiB}}\n"
        "uplinks: {cloud: {url: 'mqtt://127.0.0.1:1'}}\n"
        "devices: {a: {driver: modbus, url: 'tcp://127.0.0.1:1', tags: {x: holding:1}}}\n"
    )
    _, out, _ = queue("status", file, "--json")
    (found,) = json.loads(out)["queues"]
    assert found["max_bytes"] == 64 << 20
    file.write_text("gateway: [")
    assert queue("status", file)[0] == 2


def test_a_store_that_is_open_elsewhere_is_not_changed(queue, yard):
    async def main_():
        async with yard.opened() as store:
            store.cursor("cloud")
            store.append(yard.batch(1))
            await store.durable()
            for args in (("repair",), ("purge", "--all", "--yes"), ("forget", "cloud", "--yes")):
                done = await asyncio.to_thread(
                    subprocess.run,
                    [sys.executable, "-m", "gateway", "queue", args[0], str(yard.folder), *args[1:]],
                    capture_output=True,
                    text=True,
                    check=False,
                )
                assert done.returncode == 1
                assert "uses this spool; stop it" in done.stderr

    asyncio.run(main_())


def test_on_a_read_only_medium_all_that_looks_works_and_the_rest_is_refused(queue, yard, tmp_path):
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root may mount")
    yard.fill(1, 40)
    yard.flip(yard.heads()[3], 300)
    card = tmp_path / "card"
    card.mkdir()
    if subprocess.run(["mount", "--bind", str(yard.folder), str(card)], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(card)], check=True)
        assert queue("status", card)[0] == 0
        assert queue("inspect", card)[0] == 0
        assert queue("inspect", card, "--frames")[0] == 0
        assert len(queue("export", card)[1].splitlines()) == 1 + 3 * 36
        assert queue("verify", card)[0] == 1
        assert queue("audit", card)[0] == 1
        code, _, err = queue("repair", card)
        assert (code, "cannot be written" in err) == (1, True)
        assert queue("purge", card, "--all", "--yes")[0] == 1
        assert queue("bench", card, "--seconds", "1")[0] == 1
        assert queue("repair", card, "--out", tmp_path / "mended")[0] == 0
        assert queue("verify", tmp_path / "mended")[0] == 0
    finally:
        subprocess.run(["umount", str(card)], check=True)


def test_bench_measures_leaves_nothing_and_gives_advice(queue, yard):
    yard.fill(1, 4)
    before = set(yard.bytes())
    code, out, _ = queue("bench", yard.folder, "--seconds", "1", "--json")
    found = json.loads(out)
    assert code == int(found["suspicion"] is not None)
    assert found["flushes_per_s"] > 1
    assert 0 < found["p50_s"] <= found["p99_s"] <= found["longest_s"]
    assert found["commit_interval_s"] >= 1
    assert set(yard.bytes()) == before
    assert queue("bench", yard.folder, "--seconds", "0")[0] == 2


def test_the_selftest_kills_damages_and_leaves_nothing(queue, yard, tmp_path):
    yard.fill(1, 4)
    before = yard.bytes()
    code, out, _ = queue("selftest", yard.folder, "--rounds", "2", "--seed", "3", "--json")
    report = json.loads(out)
    assert (code, report["ok"]) == (0, True), out
    assert len(report["checks"]) == 2 + 9
    assert "called durable, 0 of them lost" in report["checks"][0]["seen"]
    assert yard.bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["spool"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("answer", "code", "left"), [("y\n", 0, 0), ("\n", 1, 40), ("no\n", 1, 40), ("", 1, 40)])
def test_on_a_terminal_a_person_is_asked_and_silence_is_no(queue, yard, monkeypatch, answer, code, left):
    start = yard.fill(1, 40)
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    done, _, err = queue("purge", yard.folder, "--uplink", "cloud")
    assert done == code
    assert "Give these records up, for good? [y/N]" in err
    (mark,) = yard.survey().state().marks
    assert start + 39 - mark.committed == left


def test_long_work_shows_its_progress_on_a_terminal_only(yard, monkeypatch):
    yard.fill(1, 60)
    for stream, shows in ((Terminal(), True), (io.StringIO(), False)):
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stderr", stream)
            patched.setattr("gateway.cli.queue_progress._EVERY_S", 0.0)
            assert main(["queue", "verify", str(yard.folder)]) == 0
        assert ("verify" in stream.getvalue()) is shows
        assert ("100% [" in stream.getvalue()) is shows
        assert ("/s" in stream.getvalue()) is shows


def test_numbers_the_wrong_way_round_are_told(queue, yard):
    yard.fill(1, 12)
    code, out, err = queue("inspect", yard.folder, "--seq", "9..3")
    assert (code, out) == (2, "")
    assert "--seq 9..3: the first number is larger than the last" in err


def test_a_file_that_is_not_there_is_named_once(queue, tmp_path):
    _, _, err = queue("status", tmp_path / "nothing.yaml")
    assert err.count("nothing.yaml") == 1
