"""What a driver learns is collected from it, and given back to the next one."""

import pytest

from gateway.driver import Learns


class Memory:
    def __init__(self, known=None):
        self.known = dict(known or {})
        self.kept = []

    def recall(self, line):
        return self.known.get(line)

    def keep(self, line, lessons):
        self.kept.append((line, lessons))
        self.known[line] = lessons


def test_a_driver_gets_what_was_learned_before_its_first_connection(play):
    memory = Memory({"bus": {"holes": [7]}})

    def script(bus):
        bus.refuses = True
        return bus.line({"a": [("x", 1.0)]}, learns=True, memory=memory)

    bus, _ = play(script, 10)
    assert bus.recalled == [{"holes": [7]}]
    assert isinstance(bus.drivers[0], Learns)


def test_a_driver_without_a_memory_or_without_lessons_is_left_alone(play):
    bus, _ = play(lambda bus: bus.line({"a": [("x", 1.0)]}, learns=True), 10)
    assert bus.recalled == []
    memory = Memory({"bus": {"holes": [7]}})
    play(lambda bus: bus.line({"a": [("x", 1.0)]}, memory=memory), 10)
    assert memory.kept == []


def test_lessons_are_collected_each_ten_minutes_and_when_the_connection_ends(play):
    memory = Memory()

    def script(bus):
        bus.learned = {"n": 1}
        return bus.line({"a": [("x", 1.0)]}, learns=True, memory=memory)

    play(script, 3000)
    assert len(memory.kept) == 4 + 1
    assert set(map(str, memory.kept)) == {"('bus', {'n': 1})"}


def test_a_driver_that_chokes_on_what_it_learned_once_starts_without_it(bus, run_virtual, during, caplog):
    driver = bus.driver(learns=True)

    def recall(_self, lessons):
        raise KeyError(lessons["no such thing"])

    driver.recall = recall
    bus.driver = lambda **_: driver
    bus.learned = {"fresh": True}
    memory = Memory({"bus": {"old": 1}})
    found = bus.line({"a": [("x", 1.0)]}, memory=memory)
    run_virtual(during(found.line, 10))
    assert len(bus.drivers) == 2
    assert len(bus.of("a")) >= 9
    assert "is of no use to it" in caplog.text
    assert memory.known["bus"] == {"fresh": True}


def test_a_crash_of_the_task_costs_no_lessons(bus, run_virtual):
    memory = Memory()
    bus.learned = {"n": 7}
    driver = bus.driver(learns=True)

    async def read(_self, _group):
        raise ZeroDivisionError

    driver.read = read
    bus.driver = lambda **_: driver
    found = bus.line({"a": [("x", 1.0)]}, memory=memory)
    with pytest.raises(ZeroDivisionError):
        run_virtual(found.line.run())
    assert memory.kept == [("bus", {"n": 7})]
