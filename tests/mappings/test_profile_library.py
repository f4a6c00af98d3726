"""The rules of the library: every profile cites where its facts come from, and speaks of measures as others do."""

from __future__ import annotations

import re
from copy import deepcopy

import pytest
import yaml

from gateway.driver import find
from gateway.mapping.identify import signs
from gateway.mapping.measures import QUANTITIES, misfit
from gateway.mapping.profiles import find_profile, profiles
from gateway.quantities import parse_duration

NAMES = profiles()
WITHOUT_QUANTITY = {"%", "°", "Ah", "kVAh", "MΩ"}
"""Units that Home Assistant has no device class for, or more than one that means something else."""
COUNTERS = {"energy", "reactive_energy"}
TAG = re.compile(r"[a-z0-9_]+(/[a-z0-9_]+)*")
ADDRESS = re.compile(r"(holding|input|coil|discrete):(0x[0-9A-F]{4}|[0-9]{1,5})")
FAMILIES = {
    "abb", "carlo-gavazzi", "eastron", "growatt", "huawei", "janitza", "moxa", "schneider", "sunspec", "victron",
    "wago", "waveshare",
}  # fmt: skip


def read(name):
    return yaml.safe_load(find_profile(name).read_text(encoding="utf-8"))


def faults(profile):
    """What breaks the rules of the library, one text each."""
    for key in ("description", "maker", "model", "driver", "sources"):
        if not profile.get(key):
            yield f"'{key}' is missing"
    sources = profile.get("sources") or {}
    cited = [entry for entry in (profile.get("identify"),) if entry] + list(profile["tags"].values())
    used = set()
    for entry in cited:
        short, _, where = str(entry.get("source", "")).partition(":")
        used.add(short)
        if short not in sources or not where.strip():
            yield f"source of {entry.get('address')}: '{entry.get('source', '')}' does not cite one of {list(sources)}"
    yield from (f"source '{short}' is cited by nothing" for short in sources.keys() - used)
    yield from (f"source '{short}' does not say where" for short, text in sources.items() if len(text) < 20)
    for tag, entry in profile["tags"].items():
        yield from (f"{tag}: {text}" for text in _faults_of(tag, entry, profile))
    places = [(entry["address"], entry.get("type")) for entry in profile["tags"].values()]
    yield from (f"{place} is read twice" for place in set(places) if places.count(place) > 1)


def _faults_of(tag, entry, profile):
    if not TAG.fullmatch(tag):
        yield "a name has small letters, digits and _"
    if not ADDRESS.fullmatch(entry["address"]):
        yield f"{entry['address']} is not zero-based with its table"
    unit, quantity = entry.get("unit", ""), entry.get("quantity", "")
    if unit and not quantity and unit not in WITHOUT_QUANTITY:
        yield f"{unit} measures something: quantity is missing"
    if wrong := misfit(quantity, unit):
        yield wrong[1]
    if entry.get("enum") and quantity != "enum":
        yield "labels are of quantity enum"
    every_s = parse_duration(entry.get("every", profile.get("every", "1s")))
    if every_s < (10 if quantity in COUNTERS else 1):
        yield f"{every_s} s is too often"


def test_all_families_are_there():
    assert {name.partition("/")[0] for name in NAMES} == FAMILIES
    assert len(NAMES) >= 37


@pytest.mark.parametrize("name", NAMES)
def test_a_profile_keeps_the_rules(name):
    assert not list(faults(read(name)))


@pytest.mark.parametrize("name", NAMES)
def test_a_profile_loads_without_mistake_or_warning_and_is_planned(name, with_profile):
    config = with_profile(name)
    assert not config.warnings
    tags = [tag for group in config.groups["d"] for tag in group.names]
    assert sorted(tags) == sorted(read(name)["tags"])


@pytest.mark.parametrize("name", NAMES)
def test_what_identifies_a_device_can_be_read(name, with_profile):
    """The address and type of `identify` are such as the driver plans: as a tag of their own."""
    sign = read(name).get("identify", {})
    if "address" not in sign:
        assert sign.get("texts") or sign.get("models") or "identify" not in read(name)
        return
    (device,) = with_profile(name).devices
    options = find("modbus").TagOptions.model_validate({"length": sign["length"]} if "length" in sign else {})
    tag = device.tags[0].__class__(
        name="sign", address=sign["address"], type=sign["type"], options=options.model_dump()
    )
    (group,) = find("modbus").compile(device, [tag])
    assert group.names == ("sign",)
    assert sign["values"]


def test_probe_knows_every_profile_that_says_how_it_is_told():
    assert [sign.profile for sign in signs()] == [name for name in NAMES if "identify" in read(name)]


def drop(profile, *path):
    *parents, last = path
    for key in parents:
        profile = profile[key]
    del profile[last]


def put(profile, value, *path):
    *parents, last = path
    for key in parents:
        profile = profile[key]
    profile[last] = value


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda p: drop(p, "sources"), "'sources' is missing"),
        (lambda p: drop(p, "maker"), "'maker' is missing"),
        (lambda p: drop(p, "tags", "voltage", "source"), "'' does not cite"),
        (lambda p: put(p, "mbmd:", "tags", "voltage", "source"), "'mbmd:' does not cite"),
        (lambda p: put(p, "hearsay:3", "tags", "voltage", "source"), "'hearsay:3' does not cite"),
        (lambda p: put(p, "the manual, page 3", "sources", "manual"), "'manual' is cited by nothing"),
        (lambda p: put(p, "a manual", "sources", "mbmd"), "'mbmd' does not say where"),
        (lambda p: drop(p, "tags", "voltage", "quantity"), "quantity is missing"),
        (lambda p: put(p, "kVAr", "tags", "reactive_power", "unit"), "Did you mean 'kvar'?"),
        (lambda p: put(p, "30001", "tags", "voltage", "address"), "30001 is not zero-based"),
        (lambda p: put(p, "input:0x0000", "tags", "current", "address"), "is read twice"),
        (lambda p: put(p, "1s", "tags", "energy/import", "every"), "1.0 s is too often"),
        (lambda p: put(p, dict(p["tags"]["voltage"]), "tags", "Voltage"), "small letters"),
    ],
)
def test_a_profile_that_breaks_a_rule_is_found_out(change, fault):
    profile = deepcopy(read("eastron/sdm120"))
    change(profile)
    assert fault in "\n".join(faults(profile))


def test_every_quantity_of_the_table_has_its_units():
    assert all(units for units in QUANTITIES.values())
    assert not [unit for units in QUANTITIES.values() for unit in units if unit != unit.strip()]
