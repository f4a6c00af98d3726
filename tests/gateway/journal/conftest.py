"""The simulated disk, as a fixture: `make_disk(...)` makes one."""

import importlib.util
import sys
from pathlib import Path

import pytest

_PATH = Path(__file__).with_name("simulated_disk.py")


def _load():
    name = "headgate_tests_simulated_disk"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, _PATH)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(scope="session")
def make_disk():
    """`make_disk(cut_at=…)` makes a simulated disk."""
    return _load().SimulatedDisk
