"""The shared table of packets: `good_packet` and `broken_packet` run a test once for each of its rows."""

import importlib.util
import sys
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("packet_table", Path(__file__).with_name("packet_table.py"))
table = importlib.util.module_from_spec(_spec)
sys.modules["packet_table"] = table  # where dataclasses look for the module of their class
_spec.loader.exec_module(table)


def pytest_generate_tests(metafunc):
    for name, rows in (("good_packet", table.GOOD), ("broken_packet", table.BROKEN)):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, rows, ids=[row.name for row in rows])


@pytest.fixture(scope="session")
def good_packets():
    return table.GOOD


@pytest.fixture(scope="session")
def broken_packets():
    return table.BROKEN
