"""The simulated disk, and the witness of a queue. Loaded by path: tests are no package."""

import importlib.util
import sys
from pathlib import Path

import pytest


def _load(path):
    name = f"headgate_tests_{path.stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(scope="session")
def simulated():
    """The module of the simulated disk, with the errors it may be told to raise."""
    return _load(Path(__file__).parent / "journal" / "simulated_disk.py")


@pytest.fixture(scope="session")
def make_disk(simulated):
    """`make_disk(cut_at=…)` makes a simulated disk."""
    return simulated.SimulatedDisk


@pytest.fixture(scope="session")
def proof():
    """The module of the witness: `Witness`, `Plant`, `BrokenWordError`."""
    return _load(Path(__file__).parent / "spool" / "witness.py")


@pytest.fixture(scope="session")
def scenario():
    """The module of the scenario in which everything is made to fail in turn."""
    return _load(Path(__file__).parent / "spool" / "scenario.py")


@pytest.fixture(scope="session")
def machine():
    """The module of the machine that works a queue."""
    return _load(Path(__file__).parent / "spool" / "machine.py")
