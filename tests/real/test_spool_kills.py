"""kill -9 of a real process on a real file system, in a loop: nothing durable is lost, and one key has one content."""

import random
import subprocess
import sys
import time
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import pytest

WORKER = Path(__file__).with_name("spool_worker.py")
STEP = 1_000_000


class Ledger:
    """What all runs of the worker have said."""

    def __init__(self):
        self.durable = defaultdict(set)
        self.handed = defaultdict(set)
        self.acked = defaultdict(int)
        self.gaps = []
        self.keys = {}
        self.run = 0

    def take(self, text):
        """One run's lines; the last one may be cut off."""
        self.run += 1
        order = defaultdict(list)
        for line in text.split("\n")[:-1]:
            what, *rest = line.split()
            if what == "D":
                kind, n = rest
                self.durable[kind].update(range(self.run * STEP + 1, int(n) + 1))
            elif what == "K":
                name, kind, seq = rest
                self.acked[name, kind] = max(self.acked[name, kind], int(seq))
            elif what == "G":
                self.gaps.append(rest)
            elif what == "H":
                name, kind, epoch, seq, n = rest
                self.handed[name, kind].add(int(n))
                assert self.keys.setdefault((kind, epoch, int(seq)), int(n)) == int(n), "one key, two contents"
                assert self.keys.setdefault((kind, int(n)), (epoch, int(seq))) == (epoch, int(seq)), "one content, two"
                order[name, kind].append((int(seq), int(n)))
        for (name, kind), found in order.items():
            assert all(a < b for a, b in pairwise(found)), f"{name} got {kind} out of order in run {self.run}"

    def check(self):
        for kind, durable in self.durable.items():
            for name in ("cloud", "slow"):
                lost = durable - self.handed[name, kind]
                assert not lost, f"{name} never got {len(lost)} durable records of {kind}, {min(lost)} for example"


def start(folder, run, how):
    command = [sys.executable, str(WORKER), str(folder), str(run * STEP), how]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def kill_again_and_again(folder, kills):
    """Let the worker run and kill it at any moment: while it starts, commits, rolls, recycles, reads."""
    dice, ledger, began = random.Random(kills), Ledger(), time.monotonic()
    for run in range(1, kills + 1):
        process = start(folder, run, dice.choice(["on_age", "on_age", "always"]))
        if dice.random() < 0.9:
            assert process.stdout.readline() == "S\n", "a start always succeeds"
        time.sleep(dice.uniform(0.0, 1.5))
        process.kill()
        text = process.stdout.read()
        process.wait()
        process.stdout.close()
        ledger.take(text)
    process = start(folder, kills + 1, "drain")
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    ledger.take(text)
    ledger.check()
    assert not ledger.gaps, "nothing need be given up, and nothing is damaged"
    count = {kind: len(durable) for kind, durable in ledger.durable.items()}
    print(f"\n{kills} kills in {time.monotonic() - began:.0f} s, {count} durable records, none lost")
    assert min(count.values()) > kills


def test_kills_lose_nothing_durable(tmp_path):
    kill_again_and_again(tmp_path / "spool", 3)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_hundred_kills_lose_nothing_durable(tmp_path):
    kill_again_and_again(tmp_path / "spool", 100)
