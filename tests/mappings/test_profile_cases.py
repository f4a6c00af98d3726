"""Golden cases: the registers of a device in, its values out, through the driver and the scaling of the frame."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from gateway.mapping.profiles import find_profile, profiles

CASES = Path(__file__).parents[1] / "cases" / "profiles"
NAMES = profiles()


def case_file(name):
    return CASES / f"{name.replace('/', '_')}.yaml"


def with_tags(name):
    """The tags of a profile, unread: name and address."""
    data = yaml.safe_load(find_profile(name).read_text(encoding="utf-8"))
    return [SimpleNamespace(name=tag, address=entry["address"]) for tag, entry in data["tags"].items()]


def cases_of(name):
    path = case_file(name)
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}


@pytest.mark.parametrize("name", NAMES)
def test_every_profile_has_a_golden_case(name):
    assert len(cases_of(name)) >= 2, f"write {case_file(name)}"


def test_every_golden_case_is_that_of_a_profile():
    assert {path.name for path in CASES.iterdir()} == {case_file(name).name for name in NAMES}


@pytest.mark.parametrize(("name", "label"), [(name, label) for name in NAMES for label in cases_of(name)])
def test_the_registers_give_exactly_these_values(name, label, with_profile, read_case):
    case = cases_of(name)[label]
    got = read_case(with_profile(name), case)
    wanted = case["values"]
    assert got.values.keys() == wanted.keys(), "a case names every tag"
    wrong = {
        tag: f"expected {value!r}, got {got.values[tag]!r}"
        for tag, value in wanted.items()
        if not _same(got.values[tag], value)
    }
    assert not wrong
    qualities = dict.fromkeys(wanted, "good") | case.get("quality", {})
    assert {tag: str(quality) for tag, quality in got.qualities.items()} == qualities


def _same(value, wanted):
    """Equal, numbers to the last digit of a float64 and never a boolean for a number."""
    if isinstance(wanted, float) or (isinstance(wanted, int) and not isinstance(wanted, bool)):
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return is_number and value == pytest.approx(wanted, rel=1e-15, abs=0)
    return type(value) is type(wanted) and value == wanted


@pytest.mark.parametrize("name", NAMES)
def test_the_cases_tell_tags_apart(name):
    """Two tags of one table with one value in every case could be exchanged unnoticed; labels are too few for that."""
    tables = {tag.name: tag.address.partition(":")[0] for tag in with_tags(name)}
    columns = {tag: [table] for tag, table in tables.items()}
    for label, case in cases_of(name).items():
        if label != "missing":
            for tag, value in case["values"].items():
                columns[tag].append(value)
    telling = [tuple(map(repr, values)) for values in columns.values() if not isinstance(values[1], str)]
    assert len(set(telling)) == len(telling)
