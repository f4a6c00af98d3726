"""What is learned of a unit: one with arbitrary holes, walls and limit is read in full, cheaply, and for good."""

import asyncio
import contextlib
import json
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from drivers.modbus.driver import Driver
from drivers.modbus.frames.pdu import Failure, refusal
from drivers.modbus.lines.pace import Pace
from drivers.modbus.options import DeviceOptions
from drivers.modbus.polling.block import Block
from drivers.modbus.polling.course import Inquiry
from drivers.modbus.polling.holes import FIRST_PAUSE_S, Node
from drivers.modbus.polling.learning import MAX_AGE_MS, MAX_SPANS, Learned, Limit, Wall, inquire
from drivers.modbus.polling.plan import MAX_TAGS, Terms, plan_blocks
from drivers.modbus.values.slots import locate
from gateway.errors import DeviceError, FieldError, LineError
from gateway.model import GOOD, Device, Tag

NOW_MS = 1_795_330_000_000
SILENT = Failure("timeout", "no answer", "unit")


def device(name="boiler", **options):
    return Device(name=name, driver="modbus", url="tcp://host", options=DeviceOptions(**options))


def registers(numbers, kind="uint16", **keys):
    return [Tag(name=f"holding:{n}", address=f"holding:{n}", type=kind, **keys) for n in numbers]


def block(numbers, kind="uint16"):
    return Block.of(1, [locate(tag, DeviceOptions()) for tag in registers(numbers, kind)])


def settle(questions, is_answered):
    """Answer an inquiry; the finding and what was asked."""
    asked = []
    answer = None
    try:
        while True:
            span = questions.send(answer)
            asked.append(span)
            answer = is_answered(*span)
    except StopIteration as end:
        return end.value, asked


class Plant:
    """A driver, a fake unit, and a clock that is moved by hand; `read()` tells {tag: value or bad quality}."""

    def __init__(self, kit, tags, *, holes=(), limit=125, walls=(), code=2, lessons=None, silent=False):
        self.kit, self.tags = kit, tags
        self.holes, self.limit, self.walls, self.code, self.silent = set(holes), limit, tuple(walls), code, silent
        self.lessons = lessons
        self.clock = kit.VirtualClock()
        self.metrics = kit.Metrics()
        self.peer = kit.Peer()
        self.peer.script = self.obey
        if lessons is not None:
            self.clock.skip(24 * 3600)  # a restart takes place after what came before
        self.device = device(timeout="100ms")
        self.requests = []  # for each read how many

    def obey(self, asked):
        first, past = asked.address, asked.address + asked.count
        crossed = any(first < wall < past for wall in self.walls)
        if asked.count > self.limit or crossed or self.holes.intersection(range(first, past)):
            return [] if self.silent else [self.peer.refusal(asked, self.code)]
        return [self.peer.good(asked)]

    def play(self, script):
        async def main():
            groups = Driver.compile(self.device, self.tags)
            driver = Driver([self.device], clock=self.clock, metrics=self.metrics, endpoint=self.peer.endpoint)
            if self.lessons is not None:
                driver.recall(self.lessons)
            async with driver:
                self.driver, self.groups = driver, groups
                return await script(self)

        with asyncio.Runner(loop_factory=self.kit.VirtualLoop) as virtual:
            return virtual.run(main())

    async def read(self):
        told = {}
        self.peer.asked.clear()
        for group in self.groups:
            try:
                batch = await self.driver.read(group)
            except DeviceError as error:
                batch = error.partial
            if batch is None:
                continue
            quality = batch.quality if isinstance(batch.quality, list) else [batch.quality] * len(batch.values)
            assert batch.group is group
            for name, value, grade in zip(group.names, batch.values, quality, strict=True):
                told[name] = value if grade is GOOD else str(grade)
        self.requests.append(len(self.peer.asked))
        return told

    async def read_for(self, times, every_s=11.0):
        for _ in range(times):
            values = await self.read()
            self.clock.skip(every_s)
        return values

    def wanted(self):
        bad = "bad:timeout" if self.silent else f"bad:exception:{self.code}"
        wanted = {}
        for tag in self.tags:
            slot = locate(tag, DeviceOptions())
            value = int.from_bytes(b"".join(i.to_bytes(2) for i in range(slot.start, slot.end)))
            wanted[tag.name] = bad if self.holes.intersection(range(slot.start, slot.end)) else value
        return wanted

    def best(self):
        """How many requests it takes who knows everything."""
        holes = {(at, at + 1) for at in self.holes} | {(wall, wall) for wall in self.walls}
        apart = sorted((a, b) for a, b in holes if a < b or not {a - 1, a} & self.holes)
        terms = Terms(most_registers=self.limit, apart={3: apart})
        blocks = plan_blocks([locate(tag, DeviceOptions()) for tag in self.tags], terms)
        return sum(not all(slot.start in self.holes for slot in slots) for slots in blocks)

    @property
    def learned(self):
        return self.driver._learned[1]

    def asked(self):
        return [(a.address, a.count) for a in self.peer.asked]


# --- one question at a time ---


@given(st.integers(3, 125), st.data())
def test_a_limit_is_found_exactly_and_with_few_questions(count, data):
    limit = data.draw(st.integers(max(2, (count + 1) // 2), count - 1))
    middle = count // 2
    finding, asked = settle(inquire(block(range(count)), (middle, middle), 0), lambda a, b: b - a <= limit)
    assert finding == Limit(limit)
    assert len(asked) <= 9
    assert all(0 <= first < past <= count for first, past in asked)


def test_a_gap_that_is_refused_is_a_wall():
    finding, asked = settle(inquire(block([0, 1, 8, 9]), (2, 8), 0), lambda a, b: not a <= 5 < b)
    assert finding == Wall((2, 8))
    assert asked == [(1, 9)]


def test_a_place_that_no_request_may_cross_is_a_wall_and_no_limit():
    finding, asked = settle(inquire(block(range(60)), (30, 30), 0), lambda a, b: not a < 30 < b)
    assert finding == Wall((30, 30))
    assert asked == [(29, 31)]


def test_what_is_no_larger_than_an_answer_was_is_not_refused_for_its_size():
    finding, asked = settle(inquire(block(range(60)), (30, 30), 70), lambda a, b: b - a <= 30)
    assert (finding, asked) == (Wall((30, 30)), [])


def test_two_values_alone_are_kept_apart_rather_than_taken_for_a_limit():
    finding, asked = settle(inquire(block([0, 2], "float32"), (2, 2), 0), lambda a, b: b - a <= 2)
    assert (finding, asked) == (Wall((2, 2)), [])


def test_the_limit_is_the_largest_request_that_was_answered_on_the_way():
    finding, asked = settle(inquire(block([75, 76, 79]), (77, 79), 0), lambda a, b: b - a <= 4)
    assert (finding, asked) == (Limit(4), [(76, 80)])


def test_no_question_cuts_a_value_in_two():
    _, asked = settle(inquire(block(range(0, 80, 2), "float32"), (40, 40), 0), lambda a, b: b - a <= 61)
    assert asked
    assert all(first % 2 == 0 and past % 2 == 0 for first, past in asked)


def inquiry(failure):
    node = Node(block(range(40)))
    node.failure = failure
    node.parts = tuple(Node(half) for half in node.block.split())
    return Inquiry(node, Learned())


def test_a_silence_answers_a_question_only_when_silence_was_the_trouble_and_only_the_second_time():
    silent = inquiry(SILENT)
    assert silent.request.address == 19
    silent.take(SILENT)
    assert (silent.request.address, silent.finding) == (19, None)
    silent.take(SILENT)
    assert (silent.request, silent.finding) == (None, Wall((20, 20)))
    refused = inquiry(refusal(2))
    refused.take(SILENT)
    refused.take(refusal(6))
    assert refused.request is not None
    refused.take(SILENT)
    assert (refused.request, refused.finding) == (None, None)


def test_an_answer_or_a_refusal_settles_a_question_at_once():
    asked = inquiry(refusal(3))
    asked.take(SILENT)
    asked.take(bytes(4))
    assert asked.request.count == 30
    asked.take(refusal(3))
    asked.take(SILENT)
    asked.take(SILENT)
    assert asked.request.count == 25


# --- whole units ---

spots = st.sets(st.integers(0, 90), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(
    spots,
    st.lists(st.tuples(st.integers(0, 90), st.integers(1, 8)), max_size=4),
    st.integers(4, 125),
    st.lists(st.integers(1, 90), max_size=2),
    st.sampled_from([2, 3, 4]),
)
@example(set(range(40)), [], 20, [], 3)
@example(set(range(0, 40, 2)), [(1, 1), (7, 1)], 125, [16], 2)
@example(set(range(80)), [(10, 30)], 12, [], 2)
@example({46, 47, 50, 55, 57, 73, 75, 76, 79}, [], 4, [], 2)
def test_everything_readable_is_read_and_in_the_end_with_as_few_requests_as_the_unit_allows(
    kit, numbers, holes, limit, walls, code
):
    missing = {at for first, count in holes for at in range(first, first + count)}
    plant = Plant(kit, registers(sorted(numbers)), holes=missing, limit=limit, walls=walls, code=code)

    async def script(plant):
        wanted = plant.wanted()
        await plant.read_for(40)  # 7 min
        readable = {name: value for name, value in wanted.items() if not isinstance(value, str)}
        values = await plant.read_for(120)
        assert {name: values[name] for name in readable} == readable
        if readable:
            assert values == wanted
        for _ in range(3):
            assert await plant.read() == values
        return readable

    plant.play(script)
    steady, best = plant.requests[-1], plant.best()
    assert steady <= max(1, best) + 1  # and one trial
    assert sum(plant.requests) - max(1, best) * len(plant.requests) <= 24 * len(numbers) + 80


@settings(max_examples=30, deadline=None)
@given(st.integers(20, 120), st.integers(4, 119), st.sampled_from([2, 3, 4]))
@example(120, 50, 2)
@example(20, 19, 4)
def test_the_learned_limit_is_the_units_and_all_groups_are_planned_by_it(kit, count, limit, code):
    tags = registers(range(count)) + registers(range(200, 200 + count), every_s=5.0)
    plant = Plant(kit, tags, limit=limit, code=code)

    async def script(plant):
        wanted = plant.wanted()
        for _ in range(3):  # a read spends so much on finding out and no more
            await plant.read()
        for _ in range(40):
            assert await plant.read() == wanted
            plant.clock.skip(11)
        if limit < count:
            assert plant.learned.most == {False: limit}
        assert all(asked <= limit for _, asked in plant.asked())
        assert len(plant.asked()) == 2 * -(-count // limit)
        assert all(course.survey is None for course in plant.driver._courses.values())

    plant.play(script)


@settings(max_examples=30, deadline=None)
@given(spots, st.lists(st.tuples(st.integers(0, 90), st.integers(1, 8)), max_size=3), st.integers(8, 125))
def test_after_a_restart_nothing_is_searched_for_again(kit, numbers, holes, limit):
    missing = {at for first, count in holes for at in range(first, first + count)}
    before = Plant(kit, registers(sorted(numbers)), holes=missing, limit=limit)

    async def learn(plant):
        values = await plant.read_for(120)
        return values, json.loads(json.dumps(plant.driver.lessons()))

    values, lessons = before.play(learn)
    assume(any(isinstance(value, int) for value in values.values()))  # a unit that answers nothing teaches nothing
    after = Plant(kit, registers(sorted(numbers)), holes=missing, limit=limit, lessons=lessons)

    async def read_once(plant):
        return await plant.read()

    assert after.play(read_once) == values
    assert after.requests == [min(before.requests[-20:])]


def test_a_recalled_hole_is_tried_again_and_read_when_it_answers(kit):
    lessons = {"units": {"1": {"since": NOW_MS, "most": {}, "holes": {"3": [[7, 8, "exception:2"]]}}}}
    plant = Plant(kit, registers(range(16)), lessons=lessons)
    plant.clock.wall_ms = lambda: NOW_MS + 5000

    async def script(plant):
        assert (await plant.read())["holding:7"] == "bad:exception:2"
        assert plant.asked() == [(0, 7), (8, 8)]
        plant.clock.skip(FIRST_PAUSE_S)
        assert await plant.read() == plant.wanted()
        await plant.read()
        assert plant.asked() == [(0, 16)]
        assert plant.driver.lessons()["units"]["1"]["holes"] == {}

    plant.play(script)


def test_a_part_of_a_region_that_comes_back_is_found_too(kit):
    plant = Plant(kit, registers(range(30)), holes=range(10, 20))

    async def script(plant):
        await plant.read_for(60)
        assert plant.learned.spans == {3: [(10, 20, "exception:2")]}
        plant.requests.clear()
        await plant.read_for(80, 30)
        assert max(plant.requests) == 3  # one trial a read, never a new search
        plant.holes.remove(14)
        await plant.read_for(80, 30)
        assert await plant.read_for(30) == plant.wanted()
        assert plant.learned.spans == {3: [(10, 14, "exception:2"), (15, 20, "exception:2")]}
        plant.holes.clear()
        await plant.read_for(80, 30)
        assert await plant.read() == plant.wanted()
        assert plant.asked() == [(0, 30)]

    plant.play(script)


def test_registers_a_unit_is_silent_about_are_learned_too_and_cost_no_timeout_after_a_restart(kit):
    plant = Plant(kit, registers([0, *range(100, 108)]), holes={103}, silent=True)

    async def script(plant):
        await plant.read_for(12)
        assert await plant.read_for(20) == plant.wanted()
        return plant.driver.lessons()

    lessons = plant.play(script)
    assert lessons["units"]["1"]["holes"] == {"3": [[103, 104, "timeout"]]}
    again = Plant(kit, registers([0, *range(100, 108)]), holes={103}, silent=True, lessons=lessons)

    async def first(plant):
        before = asyncio.get_running_loop().time()
        assert await plant.read() == plant.wanted()
        assert asyncio.get_running_loop().time() == before

    again.play(first)


def test_a_limit_met_with_silence_is_learned_from_two_silences_each(kit):
    plant = Plant(kit, registers([*range(40), 200]), limit=30, silent=True)

    async def script(plant):
        await plant.read_for(60)
        assert plant.learned.most == {False: 30}
        assert await plant.read() == plant.wanted()
        assert plant.asked() == [(0, 30), (30, 10), (200, 1)] or plant.asked() == [(0, 20), (20, 20), (200, 1)]

    plant.play(script)


def test_a_device_that_is_silent_for_its_only_block_but_answers_probes_is_read_in_parts(kit):
    plant = Plant(kit, registers(range(40)), limit=15, silent=True)

    async def script(plant):
        for _ in range(20):
            with contextlib.suppress(DeviceError):
                await plant.driver.probe(plant.device)
            await plant.read()
            plant.clock.skip(5)
        assert await plant.read() == plant.wanted()

    plant.device = replace(plant.device, tags=tuple(plant.tags))
    plant.play(script)


def test_without_a_probe_that_was_answered_a_silent_device_is_not_searched(kit):
    plant = Plant(kit, registers(range(40)), limit=0, silent=True)

    async def script(plant):
        for _ in range(10):
            for ask in (plant.driver.probe(plant.device), plant.driver.read(plant.groups[0])):
                with pytest.raises(FieldError) as caught:
                    await ask
                if caught.type is LineError:  # as the line does
                    await plant.driver.__aenter__()
        plant.limit = 125
        assert await plant.read() == plant.wanted()
        assert plant.asked() == [(0, 40)]

    plant.device = replace(plant.device, tags=tuple(plant.tags))
    plant.play(script)


def test_a_hole_keeps_its_own_cause_when_the_larger_block_is_refused_for_another(kit):
    plant = Plant(kit, registers(range(60)), holes={30})

    async def script(plant):
        refuse = plant.obey
        plant.peer.script = lambda asked: [plant.peer.refusal(asked, 3)] if asked.count > 25 else refuse(asked)
        for _ in range(40):
            assert (await plant.read())["holding:30"] == "bad:exception:2"
            plant.clock.skip(11)

    plant.play(script)


def test_a_limit_is_never_below_what_was_answered():
    learned = Learned()
    learned.note_well([block(range(50))])
    assert learned.limit(3, 48, NOW_MS) == 50
    assert learned.most == {False: 50}


def test_tags_that_share_registers_and_are_refused_together_are_read_apart_and_nothing_is_asked_about_it(kit):
    plant = Plant(kit, registers([0, 1], "uint32"), limit=2)
    assert plant.play(lambda plant: plant.read_for(20)) == plant.wanted()
    assert plant.learned.spans == {}


def test_a_tag_that_is_larger_than_the_learned_limit_does_not_raise_it_for_the_others(kit):
    tags = [Tag(name="text", address="holding:0", type="string", options={"length": 40}), *registers(range(100, 140))]
    plant = Plant(kit, tags, limit=10, code=3)

    async def script(plant):
        await plant.read_for(40, 60.0)
        told = await plant.read()
        assert told.pop("text") == "bad:exception:3"
        assert not any(isinstance(value, str) for value in told.values())
        return [plant.requests[-1] for _ in range(30) if await plant.read_for(1)]

    requests = plant.play(script)
    assert plant.learned.most == {False: 10}
    assert max(requests) <= 4 + 1  # and one trial


def test_a_device_that_refuses_for_a_while_teaches_nothing(kit):
    plant = Plant(kit, registers(range(60)), limit=0, code=4)

    async def script(plant):
        await plant.read_for(8)
        plant.limit = 125
        await plant.read_for(80)
        assert await plant.read() == plant.wanted()
        assert plant.asked() == [(0, 60)]
        assert plant.driver.lessons() == {"units": {}}

    plant.play(script)


def test_a_single_refusal_teaches_nothing(kit):
    plant = Plant(kit, registers(range(60)))

    async def script(plant):
        plant.limit = 40
        await plant.read()
        plant.limit = 125
        plant.clock.skip(FIRST_PAUSE_S)
        assert await plant.read() == plant.wanted()
        await plant.read()
        assert plant.asked() == [(0, 60)]
        assert plant.driver.lessons() == {"units": {}}

    plant.play(script)


def test_what_is_learned_is_told_once(kit, caplog):
    caplog.set_level("INFO", logger="headgate.modbus")
    plant = Plant(kit, registers([*range(60), 80]), limit=25, holes={70})
    plant.play(lambda plant: plant.read_for(60))
    told = [record.getMessage() for record in caplog.records]
    assert sum("takes 25 at once" in text for text in told) == 1
    plant = Plant(kit, registers([0, 1, 8, 9]), holes={5})
    plant.play(lambda plant: plant.read_for(60))
    told = [record.getMessage() for record in caplog.records]
    assert sum("not read across 2 from now on" in text for text in told) == 1


def test_what_is_left_out_of_a_part_is_told_with_its_name(kit, caplog):
    plant = Plant(kit, [*registers(range(3)), *registers([9], part="pump")], holes=[1, 9])
    with caplog.at_level("INFO"):
        plant.play(lambda plant: plant.read_for(2))
    assert "): holding:1, pump/holding:9" in caplog.text


def test_two_devices_of_the_file_that_are_one_unit_learn_together(kit, run, peer, clock, metrics):
    peer.script = lambda asked: peer.obey(asked) if asked.count <= 30 else [peer.refusal(asked, 3)]

    async def main():
        one, two = device("one", unit=7), device("two", unit=7)
        (first,) = Driver.compile(one, registers(range(50)))
        (second,) = Driver.compile(two, registers(range(100, 150)))
        async with Driver([one, two], clock=clock, metrics=metrics, endpoint=peer.endpoint) as driver:
            for _ in range(20):
                await driver.read(first)
                clock.skip(11)
            peer.asked.clear()
            batch = await driver.read(second)
            assert batch.quality is GOOD
            assert [(a.address, a.count) for a in peer.asked] == [(100, 30), (130, 20)]

    run(main())


# --- across restarts ---

junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["timeout", "3"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["units", "1", "3", "since", "most", "holes", "registers", "bits", "turnaround_ms", "x"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(junk)
@example({"units": {"1": {"since": 0, "most": {"registers": 0}, "holes": {"3": [[5, 2, ""]]}}}})
@example({"units": {"1": {"since": 1_700_000_000_000, "most": {"registers": True}, "holes": {"3": [[True, 2, ""]]}}}})
@example({"units": {"1": {"since": 1_700_000_000_000, "holes": {"3": [[5, 9, ""], [1, 2, ""]], "4": [[1, 2, "x"]]}}}})
def test_whatever_a_document_holds_only_sound_facts_are_taken_up(kit, document):
    async def main():
        clock = kit.VirtualClock()
        driver = Driver([device()], clock=clock, metrics=kit.Metrics(), endpoint=kit.Peer().endpoint)
        driver.recall(document if isinstance(document, dict) else {"units": document})
        return driver._learned[1]

    with asyncio.Runner(loop_factory=kit.VirtualLoop) as virtual:
        learned = virtual.run(main())
    terms = learned.terms(DeviceOptions(), Pace(0.001))
    assert 1 <= terms.most_registers <= 125
    assert 1 <= terms.most_bits <= 2000
    assert terms.registers >= 1
    for spans in terms.apart.values():
        assert all(0 <= a <= b <= 65536 for a, b in spans)
        assert all(a[1] <= b[0] for a, b in pairwise(spans))
        assert not any(isinstance(n, bool) for span in spans for n in span)


spans = st.lists(
    st.tuples(st.integers(0, 200), st.integers(0, 20), st.sampled_from(["", "timeout", "exception:2"])), max_size=30
)


@given(spans, spans)
def test_facts_come_back_as_they_were_told(refused, answered):
    learned = Learned()
    for first, count, cause in refused:
        learned.refuse(3, (first, first + count), cause, NOW_MS)
    for first, count, _ in answered:
        learned.answer(3, (first, first + count))
    known = learned.spans.get(3, [])
    assert all(a[1] <= b[0] for a, b in pairwise(known))
    missing = {at for first, count, _ in refused for at in range(first, first + count)}
    missing -= {at for first, count, _ in answered for at in range(first, first + count)}
    assert {at for first, past, _ in known for at in range(first, past)} == missing
    again = Learned()
    again.recall(json.loads(json.dumps(learned.document(0.025))), NOW_MS + 1000)
    if learned.version:
        assert again.spans.get(3, []) == known
    assert again.turnaround_s == 0.025


def test_facts_are_forgotten_after_a_month_and_when_the_clock_cannot_be_right():
    learned = Learned()
    learned.limit(3, 60, NOW_MS)
    document = learned.document(None)
    for now_ms, most in (
        (NOW_MS, {False: 60}),
        (NOW_MS + MAX_AGE_MS, {False: 60}),
        (NOW_MS + MAX_AGE_MS + 1, {}),
        (NOW_MS - 1, {}),
    ):
        again = Learned()
        again.recall(document, now_ms)
        assert again.most == most


def test_what_a_bad_day_taught_is_forgotten_after_a_month_without_a_restart(kit):
    """A hole that comes and goes each day, and is tried again and again by itself, does not renew it."""
    plant = Plant(kit, registers(range(60)), limit=9)

    async def script(plant):
        await plant.read_for(40)
        assert plant.learned.most == {False: 9}
        plant.limit = 125
        for _ in range(31):
            plant.driver.lessons()
            plant.holes = {7}
            await plant.read_for(100, 432.0)
            plant.holes = set()
            await plant.read_for(100, 432.0)
        plant.driver.lessons()
        await plant.read_for(10)
        return plant.requests[-1]

    assert plant.play(script) == 1
    assert plant.learned.most == {}


def test_tags_that_are_answered_in_one_piece_with_what_seemed_to_be_refused_teach_that_it_is_not(kit):
    """They share registers, so that they cannot be asked for apart."""
    plant = Plant(kit, registers([0, 1, 2], "uint32"))

    async def script(plant):
        learned = plant.learned
        learned.refuse(3, (0, 2), "exception:2", NOW_MS)
        await plant.read()
        return learned.spans[3]

    assert plant.play(script) == []


def test_there_are_never_more_spans_than_agreed():
    learned = Learned()
    for i in range(3 * MAX_SPANS):
        learned.refuse(3, (10 * i, 10 * i + 1), "exception:2", NOW_MS)
    assert len(learned.spans[3]) == MAX_SPANS
    assert not learned.refuse(3, (5000, 5001), "", NOW_MS)
    assert learned.refuse(3, (1, 2), "exception:2", NOW_MS)  # beside one that is known
    for i in range(MAX_SPANS):
        learned.answer(3, (10 * i, 10 * i + 1))
    assert len(learned.spans[3]) <= MAX_SPANS


# --- turnaround ---


def test_merging_follows_the_measured_turnaround(kit):
    pace = Pace(11 / 9600)
    learned = Learned()
    before = learned.terms(DeviceOptions(), pace)
    assert not learned.note_turnaround(0.011, pace)
    assert learned.note_turnaround(0.1, pace)
    after = learned.terms(DeviceOptions(), pace)
    assert (before.registers, after.registers) == (13, 52)
    assert after.bits == pytest.approx(after.registers * 16, abs=16)


def test_a_group_is_planned_anew_when_its_unit_turns_out_to_be_slow_and_stays_the_same_group(run, peer, clock, metrics):
    peer.script = lambda asked: peer.later(0.1, peer.good(asked)) or []

    async def main():
        one = Device(name="meter", driver="modbus", url="rtu:///dev/ttyX?baud=9600", options=DeviceOptions())
        (group,) = Driver.compile(one, registers([0, 40]))
        assert group.requests == 2
        async with Driver([device()], clock=clock, metrics=metrics, endpoint=peer.endpoint) as driver:
            driver._prepare([one], Pace(11 / 9600))
            hashed = group.hash
            for _ in range(20):
                batch = await driver.read(group)
                assert list(batch.values) == [0, 40]
                assert batch.group is group
            assert group.hash == hashed
            assert [a.what for a in peer.asked[-1:]] == [(3, 0, 41)]
            assert driver.lessons()["units"]["1"]["turnaround_ms"] == pytest.approx(100, rel=0.05)

    run(main())


# --- probing ---


def test_a_probe_is_the_smallest_request_that_was_ever_answered(run, peer, clock, metrics):
    peer.holes = {500: 2}

    async def main():
        one = device(unit=4)
        groups = Driver.compile(one, registers([*range(10), 100, 101, 500]))
        async with Driver([one], clock=clock, metrics=metrics, endpoint=peer.endpoint) as driver:
            for group in groups:
                await driver.read(group)
            peer.asked.clear()
            await driver.probe(one)
            assert [(a.unit, *a.what) for a in peer.asked] == [(4, 3, 100, 2)]
            peer.script = lambda _: []
            with pytest.raises(DeviceError, match=r"boiler \(unit 4\): probed .*no answer") as caught:
                await driver.probe(one)
            assert caught.value.cause == "timeout"

    run(main())


def test_before_anything_was_answered_a_probe_is_the_smallest_tag(run, peer, clock, metrics):
    async def main():
        tags = (*registers([10], "float64"), *registers([20]))
        one = Device(name="boiler", driver="modbus", url="tcp://host", options=DeviceOptions(), tags=tags)
        async with Driver([one], clock=clock, metrics=metrics, endpoint=peer.endpoint) as driver:
            await driver.probe(one)
            assert [a.what for a in peer.asked] == [(3, 20, 1)]

    run(main())


@pytest.mark.parametrize(("code", "is_there"), [(2, True), (1, True), (6, False), (11, False), (99, True)])
def test_a_refusal_is_a_sign_of_life_and_a_gateways_word_is_none(run, peer, clock, metrics, code, is_there):
    async def main():
        tags = tuple(registers([20]))
        one = Device(name="boiler", driver="modbus", url="tcp://host", options=DeviceOptions(), tags=tags)
        peer.script = lambda asked: [peer.refusal(asked, code)]
        async with Driver([one], clock=clock, metrics=metrics, endpoint=peer.endpoint) as driver:
            if is_there:
                await driver.probe(one)
            else:
                with pytest.raises(DeviceError):
                    await driver.probe(one)

    run(main())


def test_the_state_of_a_group_is_bounded_by_the_group(kit):
    assert MAX_TAGS >= 125
    plant = Plant(kit, registers(range(125)), holes=range(0, 125, 2))
    plant.play(lambda plant: plant.read_for(200))
    assert len(plant.learned.spans[3]) <= MAX_SPANS
    assert len(plant.driver._courses) == len(plant.groups)
