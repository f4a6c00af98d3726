"""What it costs to load a file of 10,000 tags, and what stays in memory of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

pytestmark = pytest.mark.bench

TAGS = 10_000
MOST_CPU_S = 1.5
MOST_LASTING_MB = 15

PROBE = """
import gc, sys, time
from pathlib import Path
import orjson
from gateway.config import load

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

load(Path(sys.argv[1]))  # imports, and models composed with the driver
gc.collect()
before = resident()
started = time.process_time()
config = load(Path(sys.argv[2]))
cpu = time.process_time() - started
gc.collect()
print(orjson.dumps({
    "tags": sum(len(device.tags) for device in config.devices),
    "cpu_s": round(cpu, 3),
    "lasting_mb": round(resident() - before, 1),
}).decode())
"""

HEAD = "gateway: g\nuplinks: {u: {url: mqtt://127.0.0.1}}\ndevices:\n"
TAG = "address: holding:{}, type: float32, unit: m3/h, deadband: 0.1"


def one_device(folder: Path) -> str:
    tags = "".join(f"      line{i // 100}/tag_{i}: {{{TAG.format(2 * i)}}}\n" for i in range(TAGS))
    return f"{HEAD}  d:\n    driver: modbus\n    url: tcp://127.0.0.1\n    tags:\n{tags}"


def many_devices(folder: Path) -> str:
    tags = [f"      line{i // 10}/tag_{i}: {{{TAG.format(2 * i)}}}\n" for i in range(100)]
    return HEAD + "".join(
        f"  d{i}:\n    driver: modbus\n    url: tcp://127.0.0.1\n    unit: {i}\n    tags:\n{''.join(tags)}"
        for i in range(TAGS // 100)
    )


def list_of_tags(folder: Path) -> str:
    rows = "".join(f"line{i // 100}/tag_{i};holding:{2 * i};float32;m3/h;0,1\n" for i in range(TAGS))
    (folder / "tags.csv").write_text(f"tag;address;type;unit;deadband\n{rows}")
    return f'{HEAD}  d: {{driver: modbus, url: "tcp://127.0.0.1", mapping: tags.csv}}\n'


def fleet(folder: Path) -> str:
    tags = "".join(f"        tag_{i}: {{{TAG.format(2 * i)}}}\n" for i in range(50))
    rows = "".join(f"m{i},10.0.0.{i}\n" for i in range(TAGS // 50))
    (folder / "fleet.csv").write_text(f"name,host\n{rows}")
    template = (
        "templates:\n  t:\n    parameters: {host: }\n    device:\n      driver: modbus\n      url: tcp://${host}\n"
    )
    return f"{HEAD}  f: {{template: t, instances: fleet.csv}}\n{template}      tags:\n{tags}"


@pytest.mark.parametrize("shape", [one_device, many_devices, list_of_tags, fleet])
def test_ten_thousand_tags_load_in_little_time_and_memory(tmp_path, shape, capsys):
    small, large = tmp_path / "small.yaml", tmp_path / "large.yaml"
    small.write_text(HEAD + '  d: {driver: modbus, url: "tcp://h", tags: {a: coil:1}}\n')
    large.write_text(shape(tmp_path))
    done = subprocess.run([sys.executable, "-c", PROBE, small, large], check=True, capture_output=True, text=True)
    found = orjson.loads(done.stdout)
    with capsys.disabled():
        print(f"\n{shape.__name__}: {found}")
    assert found["tags"] == TAGS
    assert found["cpu_s"] < MOST_CPU_S
    assert found["lasting_mb"] < MOST_LASTING_MB
