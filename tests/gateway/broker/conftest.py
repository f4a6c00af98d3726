"""A world to test the broker in: `world` for most tests, `make_world(...)` for one with limits, an access or a store.

What lies beside this file is loaded by path, because tests are no package.
"""

import importlib.util
import sys
from pathlib import Path

import pytest


def _load(name):
    known = f"headgate_tests_broker_{name}"
    if known not in sys.modules:
        spec = importlib.util.spec_from_file_location(known, Path(__file__).with_name(f"{name}.py"))
        module = importlib.util.module_from_spec(spec)
        sys.modules[known] = module
        spec.loader.exec_module(module)
    return sys.modules[known]


@pytest.fixture(scope="session")
def notation():
    """`raw(text)`, `packet(first, *parts)`, `string`, `varint`, `split`, `read`."""
    return _load("notation")


@pytest.fixture
def make_world(notation):
    """`make_world(limits=…, access=…, store=…)`; `**limits` of a kind: `make_world(queue_messages=5)`."""
    from gateway.broker.options import Limits

    harness = _load("harness")

    worlds = []

    def make(*, access=None, store=None, now=harness.START, **limits):
        worlds.append(harness.World(notation, limits=Limits(**limits), access=access, store=store, now=now))
        return worlds[-1]

    yield make
    for made in worlds:  # whatever a test did not look at is checked too
        for peer in list(made.peers):
            peer.look()


@pytest.fixture
def world(make_world):
    """A broker with default limits, without a store, where everybody may do everything."""
    return make_world()


@pytest.fixture
def serve(notation):
    """`serve(talk, schemes=("mqtt",), **limits)` runs `talk(served)` beside a server on 127.0.0.1, on virtual time."""
    served = _load("served")

    def run(talk, **options):
        served.run(notation, talk, **options)

    return run


@pytest.fixture(scope="session")
def network():
    """The open side: `Rig` and `Pipe` on virtual time, `serving` and `Caller` on real sockets."""
    return _load("network")


@pytest.fixture
def house(notation, tmp_path):
    """`house.open(**limits)`: a world with the real store; `world.kill()`: the next one, from what is left of it."""
    made = _load("durable").House(notation, _load("harness"), tmp_path)
    yield made
    made.close()
    if made.last is not None:
        for peer in list(made.last.peers):
            peer.look()
