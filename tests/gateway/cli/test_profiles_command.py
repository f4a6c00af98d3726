"""`headgate profiles`."""

from __future__ import annotations

import argparse

import orjson
import pytest

from gateway.cli import profiles as command
from gateway.mapping import profiles as shelf


@pytest.fixture
def run(capsys):
    """`run("sdm", "--json")` gives (exit code, what was printed)."""

    def call(*arguments):
        parser = argparse.ArgumentParser()
        command.configure(parser)
        code = command.run(parser.parse_args(arguments))
        return code, capsys.readouterr().out

    return call


def test_without_words_all_profiles_are_listed(run):
    code, out = run()
    assert code == 0
    lines = out.splitlines()
    assert len(lines) == len(shelf.profiles()) + 1
    assert any(line.startswith("eastron/sdm630 ") and "Eastron: SDM630 three phase meter" in line for line in lines)
    assert lines[-1] == f"{len(lines) - 1} profiles; headgate profiles NAME shows one with its tags and sources"


def test_words_are_searched_in_makers_models_and_tags(run):
    assert [s["name"] for s in orjson.loads(run("CARLO", "ethernet", "--json")[1])] == ["carlo-gavazzi/em24-e1"]
    assert {s["maker"] for s in orjson.loads(run("battery/soc", "--json")[1])} == {"Victron Energy", "Growatt"}


def test_a_search_in_vain_says_so_with_exit_code_1(run):
    code, out = run("teapot", "brown")
    assert code == 1
    assert out == "no profile has teapot and brown. Write headgate profiles for all of them\n"


def test_one_profile_is_shown_with_its_tags_and_sources(run):
    code, out = run("abb/b23")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "abb/b23: A and B series three phase meter"
    assert lines[2] == "  use: {driver: modbus, url: …, profile: abb/b23}"
    (row,) = [line.split() for line in lines if line.startswith("  energy/import ")]
    assert row == ["energy/import", "holding:0x5000", "uint64", "kWh", "1m", "mbmd:45"]
    assert any(line.startswith("  source mbmd: github.com/volkszaehler/mbmd") for line in lines)


def test_one_profile_as_json_holds_everything(run):
    document = orjson.loads(run("Huawei/SUN2000", "--json")[1])
    assert document["name"] == "huawei/sun2000"
    assert document["identify"]["values"] == ["SUN2000.*"]
    assert document["connect_delay"] == "2s"
    assert document["tags"]["power/total"]["source"].startswith("lib:")
    assert set(document["sources"]) == {"lib"}


def test_the_list_is_short_where_one_profile_has_the_name_of_a_maker(run):
    names = [s["name"] for s in orjson.loads(run("janitza", "--json")[1])]
    assert names == ["janitza/umg"]


@pytest.mark.parametrize("words", [["eastron/sdm631"], ["Eastron", "SDM631"]], ids=" ".join)
def test_a_profile_that_is_nearly_there_is_named(run, words):
    code, out = run(*words)[:2]
    assert code == 1
    assert "Did you mean eastron/sdm630?" in out
