"""`headgate check FILE`."""

from __future__ import annotations

import argparse
from pathlib import Path

import orjson
import pytest

from gateway.cli import check
from gateway.config import load

EXAMPLES = Path(__file__).parents[3] / "mappings" / "examples"


@pytest.fixture
def run(capsys):
    """`run("boiler.yaml", "--json")` gives (exit code, standard output, standard error)."""

    def call(*arguments):
        parser = argparse.ArgumentParser()
        check.configure(parser)
        code = check.run(parser.parse_args([str(a) for a in arguments]))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def wrong(tmp_path):
    path = tmp_path / "gw.yaml"
    path.write_text('gateway: g\nspol: 1\ndevices:\n  d: {driver: modbus, url: "tcp://h", tags: {a: nowhere:1}}\n')
    return path


def test_a_clean_file_says_what_it_says(run):
    code, out, err = run(EXAMPLES / "boiler.yaml")
    assert code == 0
    assert "gateway plant7: 1 device on 1 line, 5 tags, 4.1 values/s" in out
    assert "  boiler: modbus tcp://127.0.0.1:502, 5 tags in 3 requests, 4.1 values/s" in out
    assert "uplink local: mqtt://127.0.0.1:1883, json to headgate/plant7/{device}, qos 1" in out
    assert "no mistakes" in err


def test_mistakes_come_one_a_line_with_exit_code_2(run, wrong):
    code, out, err = run(wrong)
    assert code == 2
    first, second = out.splitlines()
    assert first == f"{wrong}:2:1: unknown key 'spol'. Did you mean 'spool'?"
    assert second.startswith(f"{wrong}:4:46: tag 'a': ")
    assert err == f"{wrong}: 2 mistakes\n"


def test_json_lists_the_mistakes(run, wrong):
    code, out, err = run(wrong, "--json")
    document = orjson.loads(out)
    assert code == 2
    assert document["ok"] is False
    assert document["mistakes"][0] == {
        "file": str(wrong), "line": 2, "column": 1, "text": "unknown key 'spol'. Did you mean 'spool'?",
    }  # fmt: skip
    assert err == ""


def test_json_tells_the_facts_of_a_clean_file(run):
    code, out, _ = run(EXAMPLES / "fleet.yaml", "--json")
    document = orjson.loads(out)
    assert code == 0
    assert (document["ok"], document["mistakes"], document["gateway"]) == (True, [], "building4")
    assert (document["lines"], document["tags"], len(document["devices"])) == (3, 20, 5)
    assert document["devices"][0] == {
        "name": "kitchen", "driver": "modbus", "url": "tcp://10.0.4.10:502", "part_of": None, "tags": 4,
        "groups": 2, "requests": 3, "values_per_s": 0.617,
    }  # fmt: skip


def test_a_missing_file_is_a_wrong_file(run, tmp_path):
    code, out, _ = run(tmp_path / "no.yaml")
    assert code == 2
    assert "no such file or directory" in out


def test_warnings_are_told_and_stop_nothing(run, tmp_path):
    path = tmp_path / "gw.yaml"
    path.write_text('gateway: g\ndevices:\n  d: {driver: modbus, url: "tcp://h", tags: {a: coil:1}}\n')
    code, out, _ = run(path)
    assert code == 0
    assert out.startswith(f"{path}:1:1: warning: there are no uplinks")
    code, out, _ = run(path, "--json")
    assert orjson.loads(out)["warnings"][0]["line"] == 1


def test_a_large_plant_is_summed_up(run, tmp_path):
    path = tmp_path / "gw.yaml"
    devices = "".join(f'  d{i}: {{driver: modbus, url: "tcp://h{i}", tags: {{a: coil:1}}}}\n' for i in range(50))
    path.write_text("gateway: g\nuplinks: {u: {url: mqtt://h}}\ndevices:\n" + devices)
    _, out, _ = run(path)
    assert "50 devices on 50 lines" in out
    assert "  … and 30 more" in out
    assert len(out.splitlines()) < 30


SERIAL = """
gateway: g
uplinks: {{u: {{url: mqtt://h}}}}
devices:
  meter:
    driver: modbus
    url: rtu:///dev/ttyX?baud=9600&parity=E
    every: {every}
    tags:
      a: {{address: holding:0, type: float32}}
      b: {{address: holding:200, type: float32, every: 10s}}
  other: {{driver: modbus, url: "tcp://h", tags: {{a: coil:1}}}}
"""


@pytest.fixture
def serial(tmp_path):
    """`serial("1s")` is a file with a meter on a serial line, polled at that interval."""

    def write(every):
        path = tmp_path / "gw.yaml"
        path.write_text(SERIAL.format(every=every))
        return path

    return write


def test_what_a_serial_line_is_kept_busy_with_is_told(run, serial):
    code, out, _ = run(serial("1s"))
    assert code == 0
    assert "\nline /dev/ttyX: needs 37 ms of every 1,000 ms\n" in out
    assert "warning" not in out
    assert "tcp://h:502: needs" not in out


def test_a_line_that_cannot_do_it_is_a_warning_with_what_to_slow_down(run, serial):
    path = serial("20ms")
    code, out, _ = run(path)
    assert code == 0
    text = "line /dev/ttyX: needs 1,678 ms of every 1,000 ms; the first tags to slow down are meter/a: every 100ms"
    assert out.splitlines()[0] == f"{path}:5:3: warning: {text}"
    code, out, _ = run(path, "--json")
    document = orjson.loads(out)
    assert code == 0
    assert document["warnings"] == [{"file": str(path), "line": 5, "column": 3, "text": text}]
    first, second = document["budgets"]
    assert first == {"line": "/dev/ttyX", "busy": 1.6778, "slow": ["meter/a: every 100ms"]}
    assert second == {"line": "tcp://h:502", "busy": None, "slow": []}


def test_the_plan_lists_each_request_as_it_will_be_asked(run, serial):
    path = serial("1s")
    wanted = [
        "meter: every 1s: holding:0..1, 2 registers, 1 tag, 33.5 ms",
        "meter: every 10s: holding:200..201, 2 registers, 1 tag, 33.5 ms",
    ]
    code, out, _ = run(path, "--plan")
    assert code == 0
    asked = [line for line in out.splitlines() if ": every " in line]
    assert asked == [
        *(f"/dev/ttyX: {line}" for line in wanted),
        "tcp://h:502: other: every 1s: coil:1, 1 bit, 1 tag",
    ]
    _, out, _ = run(path, "--plan", "--json")
    assert orjson.loads(out)["budgets"][0]["plan"] == wanted


def test_check_makes_no_files_and_no_folders(run, tmp_path):
    path = tmp_path / "gw.yaml"
    path.write_text((EXAMPLES / "boiler.yaml").read_text())
    run(path)
    assert list(tmp_path.iterdir()) == [path]


def test_the_tags_are_exported_as_a_list_that_reads_back(run, tmp_path):
    out = tmp_path / "tags.csv"
    code, _, err = run(EXAMPLES / "fleet.yaml", "--export-csv", out)
    assert code == 0
    assert err == f"{out}: 20 tags\n"
    again = tmp_path / "gw.yaml"
    before = load(EXAMPLES / "fleet.yaml").devices
    again.write_text(
        "gateway: g\nuplinks: {u: {url: mqtt://h}}\ndevices:\n"
        + "".join(f"  {d.name}: {{driver: modbus, url: '{d.url}', mapping: tags.csv}}\n" for d in before)
    )
    assert [device.tags for device in load(again).devices] == [device.tags for device in before]


def test_the_list_goes_to_standard_output_too(run):
    code, out, _ = run(EXAMPLES / "boiler.yaml", "--export-csv", "-")
    assert code == 0
    assert out.splitlines()[1].startswith("boiler,flow,holding:100,float32,,,,m3/h,0.1,,1s")


def test_a_list_that_cannot_be_written_is_a_failure(run, tmp_path):
    code, _, err = run(EXAMPLES / "boiler.yaml", "--export-csv", tmp_path / "no" / "tags.csv")
    assert code == 1
    assert "no such file or directory" in err


def test_a_part_is_shown_with_the_values_that_are_its_own(run, tmp_path):
    path = tmp_path / "gw.yaml"
    path.write_text(
        "gateway: g\nbroker:\ndevices:\n"
        '  panel: {driver: modbus, url: "tcp://h", tags: {a: holding:1, b: holding:2}}\n'
        "  fan: {part_of: panel, every: 2s, tags: {speed: holding:3}}\n"
    )
    code, out, _ = run(path)
    assert code == 0
    assert "gateway g: 2 devices on 1 line, 3 tags, 2.5 values/s" in out
    assert "  panel: modbus tcp://h, 2 tags in 2 requests, 2 values/s" in out
    assert "  fan: part of panel, 1 tag, 0.5 values/s" in out
