"""The driver's keys in a CSV tag list: what is written there is read back, lists and labels too."""

import io
from pathlib import Path

import drivers.modbus
from gateway.config import load
from gateway.driver import find
from gateway.mapping.tags_csv import write_tags

SAMPLE = Path(drivers.modbus.__file__).parent / "sample.yaml"


def test_the_tags_of_the_sample_are_the_same_from_a_csv_list(tmp_path):
    sample = load(SAMPLE)
    out = io.StringIO()
    write_tags(sample.devices, find, out)
    (tmp_path / "tags.csv").write_text(out.getvalue())
    lines = [f"  {d.name}: {{driver: modbus, url: '{d.url}', mapping: tags.csv}}" for d in sample.devices]
    (tmp_path / "plant.yaml").write_text("\n".join(["gateway: plant7", "devices:", *lines]))
    again = load(tmp_path / "plant.yaml")
    assert [d.tags for d in again.devices] == [d.tags for d in sample.devices]
