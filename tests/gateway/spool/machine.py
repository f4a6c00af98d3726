"""A machine that does to a queue whatever may be done to one: appending, reading, faults, cuts, restarts."""

import itertools

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

LIMITS = {"commit_interval_s": 1.0, "max_bytes": 4 * 32 * 1024 + 128 * 1024, "ram_bytes": 40_000}
NAMES = ("one", "two", "guest")


class Machine(RuleBasedStateMachine):
    """What may be done to a queue from outside. The plant's witness keeps the list and compares."""

    def __init__(self, make_plant, runner, persist):
        super().__init__()
        self.runner = runner
        self.make_plant = make_plant
        self.persist = persist
        self.seeds = itertools.count()

    def do(self, coroutine):
        return self.runner.run(coroutine)

    @initialize()
    def begin(self):
        self.plant = self.make_plant(persist=self.persist, **LIMITS)
        self.plant.bench.segment_size = 32 * 1024
        self.do(self.plant.open())
        self.is_broken = False

    @rule(count=st.integers(1, 6), size=st.sampled_from([0, 0, 600, 4000]))
    def append(self, count, size):
        for _ in range(count):
            self.plant.append(size)

    @rule(rounds=st.integers(1, 8))
    def append_for_a_while(self, rounds):
        """As much as the disk takes, so that it fills up."""
        for _ in range(rounds):
            for _ in range(4):
                self.plant.append(4000)
            self.do(self.plant.sleep(1.1))

    @rule(name=st.sampled_from(NAMES))
    def ask_for_a_cursor(self, name):
        if name not in self.plant.cursors:
            self.plant.cursor(name, holds=name != "guest")

    @rule(name=st.sampled_from(NAMES), count=st.integers(1, 9))
    def read(self, name, count):
        if name in self.plant.cursors:
            self.do(self.plant.read(name, count))

    @rule(name=st.sampled_from(NAMES), behind=st.sampled_from([0, 0, 1, 5]))
    def read_and_acknowledge(self, name, behind):
        if name in self.plant.cursors:
            self.do(self.plant.read_and_ack(name, behind=behind))

    @rule(name=st.sampled_from(NAMES))
    def rewind(self, name):
        if name in self.plant.cursors:
            self.plant.rewind(name)

    @rule(name=st.sampled_from(NAMES))
    def part_into_lanes(self, name):
        if name in self.plant.cursors:
            self.plant.part(name)

    @rule(name=st.sampled_from(NAMES), behind=st.sampled_from([0, 0, 2]))
    def read_and_acknowledge_on_the_lane(self, name, behind):
        if name in self.plant.lanes:
            self.do(self.plant.read_and_ack_ahead(name, behind=behind))

    @rule()
    def retire(self):
        self.plant.retire()

    @rule(seconds=st.sampled_from([0.3, 0.9, 1.1, 11.0, 61.0]))
    def wait(self, seconds):
        self.do(self.plant.sleep(seconds))

    @rule()
    def ask_for_durability(self):
        done = self.do(self.plant.durable(70.0))
        assert done or self.is_broken

    @precondition(lambda self: not self.is_broken)
    @rule(delay=st.integers(1, 12), for_good=st.booleans(), torn=st.booleans())
    def break_the_disk(self, delay, for_good, torn):
        disk = self.plant.disk
        disk.break_at(
            disk.operations + delay, self.plant.torn if torn else self.plant.refused, times=1 << 60 if for_good else 1
        )
        self.is_broken = for_good

    @precondition(lambda self: self.is_broken)
    @rule()
    def repair_the_disk(self):
        self.plant.disk.repair()
        self.is_broken = False

    @rule()
    def stop_and_start(self):
        self.do(self.plant.close())
        self.do(self.plant.open())

    @rule()
    def kill_and_start(self):
        self.plant.kill()
        self.do(self.plant.open())

    @rule(delay=st.integers(0, 9))
    def cut_the_power_and_start(self, delay):
        """At once, or in the middle of an operation to come."""
        if delay:
            self.plant.disk.cut_at = self.plant.disk.operations + delay
            self.do(self.plant.sleep(11.0))
        self.plant.cut(next(self.seeds))
        self.is_broken = False
        self.do(self.plant.open())

    @rule(name=st.sampled_from(NAMES))
    def forget(self, name):
        self.plant.forget(name)

    @invariant()
    def never_asks_a_file_again_that_has_failed(self):
        assert not self.plant.disk.asked_again

    @invariant()
    def keeps_within_its_bounds(self):
        if self.plant.queue is not None:
            status = self.plant.queue.status()
            assert status.ram_bytes <= LIMITS["ram_bytes"] + 8000, "one record may be on top"
            assert status.allocated_bytes <= LIMITS["max_bytes"] + 128 * 1024

    def teardown(self):
        """At the end a disk that works: whoever holds gets what is owed to him, before and after a restart."""
        if not hasattr(self, "plant"):
            return
        try:
            self.plant.disk.repair()
            for _ in range(2):
                for name in [name for name, view in self.plant.witness.views.items() if view.holds]:
                    if name not in self.plant.cursors:
                        self.plant.cursor(name)
                    self.do(self.plant.read(name))
                self.do(self.plant.close())
                self.do(self.plant.open())
        finally:
            if self.plant.queue is not None:
                self.plant.bench.abandon(self.plant.queue)
