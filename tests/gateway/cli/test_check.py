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
        "name": "kitchen", "driver": "modbus", "url": "tcp://10.0.4.10:502", "tags": 4, "groups": 2, "requests": 3,
        "values_per_s": 0.617,
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
