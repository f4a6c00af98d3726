"""The data that the spool's bench stores: ten groups of a hundred tags, 600 s at 1 s, the same in every run.

Three quarters are noisy analogs, as float64 with all the bits of their mantissa: a sensor's noise on a slow swing,
nothing that any codec could guess. The others are counters that grow, and states that rarely change.
"""

import math
import random

from gateway.model import Batch, Definition

GROUPS = 10
TAGS = 100
SECONDS = 600
SAMPLES = GROUPS * TAGS * SECONDS
START_MS = 1_795_330_000_000

_ANALOGS, _COUNTERS = 75, 13
_TYPES = ("float64",) * _ANALOGS + ("uint32",) * _COUNTERS + ("uint16",) * (TAGS - _ANALOGS - _COUNTERS)


def definitions():
    """The ten groups: line0 … line9."""
    names = tuple(f"area/tag_{n}" for n in range(TAGS))
    return [Definition(f"line{n}", names, _TYPES, ("",) * TAGS, (None,) * TAGS) for n in range(GROUPS)]


def seconds(groups=None, count=SECONDS):
    """For each second the batches of all groups."""
    draw = random.Random(4)
    groups = groups or definitions()
    plants = [_Plant(draw, group) for group in groups]
    for second in range(count):
        yield [plant.batch(second) for plant in plants]


class _Plant:
    """What stands behind the tags of one group."""

    def __init__(self, draw, group):
        self._draw = draw
        self._group = group
        self._analogs = [
            (draw.uniform(10, 1000), draw.uniform(0.5, 20), draw.uniform(60, 3600)) for _ in range(_ANALOGS)
        ]
        self._counters = [draw.randrange(2**32 - 10**7) for _ in range(_COUNTERS)]
        self._states = [draw.randrange(4) for _ in range(TAGS - _ANALOGS - _COUNTERS)]

    def batch(self, second):
        draw = self._draw
        analogs = [
            mean + swing * math.sin(second / period) + draw.gauss(0, swing / 10)
            for mean, swing, period in self._analogs
        ]
        self._counters = [count + draw.randrange(200) for count in self._counters]
        self._states = [draw.randrange(4) if draw.random() < 0.01 else state for state in self._states]
        time = START_MS + 1000 * second + draw.randrange(50)
        return Batch(self._group, time, [*analogs, *self._counters, *self._states])
