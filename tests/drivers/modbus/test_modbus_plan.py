"""Planning: every tag once, limits kept, the cheapest merge, and every mistake of a file with its place and cure."""

from itertools import accumulate

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from drivers.modbus.driver import Driver
from drivers.modbus.lines.pace import REQUEST_COST
from drivers.modbus.options import DeviceOptions
from drivers.modbus.polling.block import Block
from drivers.modbus.polling.plan import MAX_REQUESTS, MAX_TAGS, merge
from drivers.modbus.values.kinds import KINDS as ALL_KINDS
from drivers.modbus.values.slots import locate
from gateway.errors import FileError
from gateway.model import Device, Place, Tag

KINDS = {"uint16": 1, "int32": 2, "float32": 2, "float64": 4, "bcd32": 2}


def compiled(*tags, **options):
    device = Device(name="boiler", driver="modbus", url="tcp://host", options=DeviceOptions(**options))
    return Driver.compile(device, tags)


def blocks(*addresses, kind="uint16", **options):
    """What is asked for when these addresses are read together."""
    tags = [Tag(name=f"t{i}", address=a, type="" if "coil" in a else kind) for i, a in enumerate(addresses)]
    groups = compiled(*tags, **options)
    return [(b.request.function, b.request.address, b.request.count) for g in groups for b in g.plan.blocks]


# --- merging ---


def test_neighbours_are_one_request_and_each_table_has_its_own():
    assert blocks("holding:100", "holding:101", "input:100", "holding:102") == [(3, 100, 3), (4, 100, 1)]


def test_each_table_is_read_by_its_function():
    assert blocks("coil:1", "holding:1", "input:1") == [(1, 1, 1), (3, 1, 1), (4, 1, 1)]
    (group,) = compiled(Tag(name="door", address="discrete:7"))
    assert group.plan.blocks[0].request.function == 2


def test_a_gap_is_read_where_that_is_cheaper_than_another_request():
    assert blocks("holding:0", f"holding:{1 + REQUEST_COST}") == [(3, 0, 2 + REQUEST_COST)]
    assert blocks("holding:0", f"holding:{2 + REQUEST_COST}") == [(3, 0, 1), (3, 2 + REQUEST_COST, 1)]
    assert blocks("coil:0", "coil:300") == [(1, 0, 301)]
    assert blocks("coil:0", "coil:400") == [(1, 0, 1), (1, 400, 1)]


@pytest.mark.parametrize(("max_gap", "requests"), [(0, 2), (2, 2), (3, 1), (None, 1)])
def test_max_gap_overrules_the_cost(max_gap, requests):
    assert len(blocks("holding:0", "holding:4", max_gap=max_gap)) == requests


def test_max_gap_may_be_larger_than_what_pays_but_reads_no_more_for_it():
    assert len(blocks("holding:0", "holding:60", max_gap=100)) == 2


def test_no_request_asks_for_more_than_the_device_takes():
    assert blocks(*[f"holding:{i}" for i in range(130)]) == [(3, 0, 125), (3, 125, 5)]
    assert blocks(*[f"holding:{i}" for i in range(20)], max_registers=16) == [(3, 0, 16), (3, 16, 4)]
    assert blocks(*[f"coil:{i}" for i in range(2100)]) == [(1, 0, 2000), (1, 2000, 100)]
    assert [b[2] for b in blocks(*[f"coil:{i}" for i in range(20)], max_bits=16)] == [16, 4]


def test_a_value_is_never_cut_in_two():
    assert blocks(*[f"holding:{2 * i}" for i in range(63)], kind="float32") == [(3, 0, 124), (3, 124, 2)]
    assert blocks("holding:0", "holding:4", "holding:8", kind="float64", max_registers=10) == [(3, 0, 8), (3, 8, 4)]


def test_where_a_limit_forces_a_cut_it_falls_into_the_gap():
    # 0..9, 15..19: 20 registers do not fit, and cutting at the gap saves reading it
    addresses = [f"holding:{i}" for i in [*range(10), *range(15, 20)]]
    assert blocks(*addresses, max_registers=16) == [(3, 0, 10), (3, 15, 5)]


def test_the_last_register_is_read_like_any_other():
    assert blocks("holding:65534", "holding:65535") == [(3, 65534, 2)]
    assert blocks("coil:65535") == [(1, 65535, 1)]


def test_two_tags_may_read_the_same_register():
    assert blocks("holding:5", "holding:5", "holding:5.3", "holding:4", kind="") == [(3, 4, 2)]


spans = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 6)), min_size=1, max_size=9).map(
    lambda found: sorted((start, start + size) for start, size in found)
)


def cost(spans, cuts, request_cost):
    total = 0
    for a, b in zip([0, *cuts], cuts, strict=False):
        total += request_cost + max(end for _, end in spans[a:b]) - spans[a][0]
    return total


@given(spans, st.integers(6, 40), st.one_of(st.none(), st.integers(0, 30)), st.integers(1, 40))
@example([(0, 6), (5, 11), (10, 16)], 6, None, 20)
def test_merging_covers_everything_keeps_limits_and_is_never_dearer_than_one_request_a_tag(
    spans, most, max_gap, request_cost
):
    cuts = merge(spans, most=most, max_gap=max_gap, request_cost=request_cost)
    assert cuts == sorted(set(cuts))
    assert cuts[-1] == len(spans)
    for a, b in zip([0, *cuts], cuts, strict=False):
        reach = list(accumulate((end for _, end in spans[a:b]), max))
        assert reach[-1] - spans[a][0] <= most
        if max_gap is not None:
            assert all(spans[a + i][0] - reach[i - 1] <= max_gap for i in range(1, b - a))
    assert cost(spans, cuts, request_cost) <= cost(spans, range(1, len(spans) + 1), request_cost)


@given(spans, st.integers(6, 40), st.integers(1, 40))
def test_merging_is_the_cheapest_of_all_ways_to_cut(spans, most, request_cost):
    apart = [s for i, s in enumerate(spans) if i == 0 or s[0] >= max(end for _, end in spans[:i])]
    best = cost(apart, merge(apart, most=most, max_gap=None, request_cost=request_cost), request_cost)
    for choice in range(1 << (len(apart) - 1)):
        cuts = [i for i in range(1, len(apart)) if choice >> (i - 1) & 1] + [len(apart)]
        fits = all(apart[b - 1][1] - apart[a][0] <= most for a, b in zip([0, *cuts], cuts, strict=False))
        assert not fits or best <= cost(apart, cuts, request_cost)


@given(spans, st.integers(1, 40))
@example([(0, 6), (1, 2), (8, 9)], 5)
def test_merging_is_the_cheapest_way_where_values_share_registers_too(spans, request_cost):
    best = cost(spans, merge(spans, most=100, max_gap=None, request_cost=request_cost), request_cost)
    for choice in range(1 << (len(spans) - 1)):
        cuts = [i for i in range(1, len(spans)) if choice >> (i - 1) & 1] + [len(spans)]
        assert best <= cost(spans, cuts, request_cost)


walls = st.lists(st.tuples(st.integers(0, 66), st.integers(0, 6)), max_size=4).map(
    lambda found: sorted((start, start + size) for start, size in found)
)


@given(spans, walls, st.integers(6, 40), st.integers(1, 40))
@example([(0, 1), (2, 3), (4, 5)], [(2, 2)], 40, 40)
@example([(0, 1), (2, 3), (4, 5)], [(1, 2)], 40, 40)
@example([(0, 1), (1, 2), (2, 3)], [(1, 2)], 40, 40)
@example([(0, 2), (4, 6)], [(1, 5)], 40, 40)
def test_no_request_covers_what_was_found_to_be_refused_together_with_what_is_not(spans, walls, most, request_cost):
    walls = [wall for i, wall in enumerate(walls) if i == 0 or wall[0] >= max(past for _, past in walls[:i])]
    apart = [s for i, s in enumerate(spans) if i == 0 or s[0] >= max(end for _, end in spans[:i])]
    cuts = merge(apart, most=most, max_gap=None, request_cost=request_cost, apart=walls)
    assert cuts[-1] == len(apart)
    for a, b in zip([0, *cuts], cuts, strict=False):
        start, past = apart[a][0], apart[b - 1][1]
        assert past - start <= most
        sick = {any(s[0] < end and first < s[1] for first, end in walls if first < end) for s in apart[a:b]}
        assert len(sick) == 1  # all of it, or nothing
        for first, end in walls:
            inside = any(s[0] < first < s[1] for s in apart[a:b])  # of one value, which is never cut
            assert sick == {True} or b - a == 1 or inside or not start < first <= end < past


@st.composite
def tag_lists(draw):
    tags = []
    for i in range(draw(st.integers(1, 40))):
        table = draw(st.sampled_from(["holding", "input", "coil", "discrete"]))
        bits = table in ("coil", "discrete")
        kind = "bool" if bits else draw(st.sampled_from(sorted(KINDS)))
        at = draw(st.integers(0, 400))
        tags.append(Tag(name=f"t{i}", address=f"{table}:{at}", type=kind, every_s=draw(st.sampled_from([1.0, 5.0]))))
    return tags


@given(tag_lists(), st.integers(4, 125), st.integers(1, 2000), st.one_of(st.none(), st.integers(0, 50)))
def test_every_tag_is_read_exactly_once_within_the_limits(tags, max_registers, max_bits, max_gap):
    groups = compiled(*tags, max_registers=max_registers, max_bits=max_bits, max_gap=max_gap)
    assert sorted(name for g in groups for name in g.names) == sorted(t.name for t in tags)
    order = {t.name: i for i, t in enumerate(tags)}
    for group in groups:
        assert all(t.every_s == group.every_s for t in group.tags)
        assert list(group.names) == sorted(group.names, key=order.__getitem__)
        found = {}
        for block in group.plan.blocks:
            request = block.request
            assert request.count <= (max_bits if request.function <= 2 else max_registers)
            assert request.address + request.count <= 65536
            for slot in block.slots:
                assert slot.position not in found
                found[slot.position] = slot.tag.name
                assert request.address <= slot.start
                assert slot.end <= request.address + request.count
        assert [found[i] for i in range(len(group.names))] == list(group.names)


# --- groups ---


def test_tags_of_one_interval_are_a_group_in_the_order_of_the_file():
    groups = compiled(
        Tag(name="b", address="holding:9", every_s=1),
        Tag(name="slow", address="holding:10", every_s=10),
        Tag(name="a", address="holding:1", every_s=1, unit="V", decimals=1),
    )
    assert [(g.device, g.names, g.every_s) for g in groups] == [("boiler", ("b", "a"), 1), ("boiler", ("slow",), 10)]
    assert groups[0].types == ("uint16", "uint16")
    assert groups[0].units == ("", "V")
    assert groups[0].decimals == (None, 1)


def test_types_left_out_are_bool_for_bits_and_uint16_for_registers():
    (group,) = compiled(*[Tag(name=a[0], address=a) for a in ("coil:1", "discrete:1", "holding:1.2", "input:1")])
    assert group.types == ("bool", "bool", "bool", "uint16")


def test_a_group_stays_small_enough_to_leave_the_line_to_others():
    groups = compiled(*[Tag(name=f"t{i}", address=f"holding:{i}") for i in range(3000)])
    assert [len(g.names) for g in groups] == [MAX_TAGS] * 3
    groups = compiled(*[Tag(name=f"t{i}", address=f"coil:{i}") for i in range(3000)])
    assert [len(g.names) for g in groups] == [2000, 1000]  # one request's bits stay together
    groups = compiled(*[Tag(name=f"t{i}", address=f"holding:{100 * i}") for i in range(100)])
    assert [len(g.plan.blocks) for g in groups] == [MAX_REQUESTS, 100 - MAX_REQUESTS]


def test_planning_ten_thousand_tags_takes_no_time_to_speak_of():
    import time

    tags = [Tag(name=f"t{i}", address=f"holding:{2 * i}", type="float32") for i in range(10_000)]
    before = time.process_time()
    assert sum(len(g.names) for g in compiled(*tags)) == 10_000
    assert time.process_time() - before < 5


# --- splitting ---


def block_of(*addresses, kind="uint16"):
    slots = [locate(Tag(name=a, address=a, type=kind), DeviceOptions()) for a in addresses]
    return Block.of(1, slots)


def halves(block):
    parts = block.split()
    return parts and [str(part) for part in parts]


def test_a_block_is_split_at_the_gap_nearest_to_its_middle():
    assert halves(block_of("holding:0", "holding:1", "holding:5", "holding:6", "holding:7", "holding:9")) == [
        "holding:0..1",
        "holding:5..9",
    ]


def test_a_block_without_gaps_is_split_in_the_middle_between_values():
    assert halves(block_of("holding:0", "holding:2", "holding:4", kind="float32")) == ["holding:0..1", "holding:2..5"]
    assert halves(block_of("holding:0", "holding:2", "holding:4", "holding:6", kind="float32"))[0] == "holding:0..3"


def test_what_lives_in_the_same_registers_is_not_split():
    assert halves(block_of("holding:0")) is None
    assert halves(block_of("holding:0", "holding:0")) is None


def test_what_shares_some_registers_is_split_when_nothing_else_can_be():
    assert halves(block_of("holding:0", "holding:1", kind="float32")) == ["holding:0..1", "holding:1..2"]
    assert halves(block_of("holding:0", "holding:0", "holding:1", kind="float32")) == ["holding:0..1", "holding:1..2"]


def test_a_block_is_not_split_inside_a_long_value_that_others_lie_in():
    slots = [
        locate(Tag(name="text", address="holding:0", type="string", options={"length": 40}), DeviceOptions()),
        locate(Tag(name="inside", address="holding:5"), DeviceOptions()),
        locate(Tag(name="too", address="holding:8"), DeviceOptions()),
        locate(Tag(name="after", address="holding:25"), DeviceOptions()),
    ]
    assert halves(Block.of(1, slots)) == ["holding:0..19", "holding:25"]


# --- mistakes ---


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"address": "holding:65535", "type": "float32"},
         "float32 needs 2 registers, holding:65535 leaves 1. Use holding:65534 or lower"),
        ({"address": "465535", "type": "uint64"},
         "uint64 needs 4 registers, 465535 leaves 2. Use holding:65532 or lower"),
        ({"address": "holding:70000"}, "holding:70000 is beyond the last address. holding goes from 0 to 65535"),
        ({"address": "holding:5", "type": "float"},
         f"there is no type 'float'. Use float32 of {', '.join(ALL_KINDS)}"),
        ({"address": "holding:5", "type": "?"}, "there is no type '?'. Use one of bool, int16"),
        ({"address": "holding:5", "order": "cdab", "type": "int32"},
         "there is no order 'cdab'. Use one of ABCD, CDAB, BADC, DCBA"),
        ({"address": "holding:5", "order": "CDAB", "type": "int16"},
         "order CDAB moves registers about, int16 is one register. Leave it out, or use BADC to swap the bytes"),
        ({"address": "holding:5.1", "order": "DCBA"},
         "order DCBA moves registers about, bool is one register. Leave it out, or use BADC"),
        ({"address": "holding:5", "order": "DCBA", "type": "string", "options": {"length": 8}},
         "order DCBA moves registers about, string is a text. Leave it out, or use BADC to swap the bytes"),
        ({"address": "coil:5", "order": "BADC"}, "coil:5 is one bit and has no order. Leave order: BADC out"),
        ({"address": "coil:5", "type": "int16"}, "coil:5 is one bit, int16 needs registers. Use type: bool, or"),
        ({"address": "coil:5", "type": "bits"}, "coil:5 is one bit, bits needs registers. Use type: bool, or"),
        ({"address": "holding:5.1", "type": "int16"},
         "holding:5.1 is one bit of a register, not int16. Use type: bool, or leave .1 out"),
        ({"address": "holding:5", "type": "bool"},
         "holding:5 has 16 bits, bool is one of them. Use holding:5.0 for the lowest one, or type: bits for all"),
        ({"address": "holding:5", "type": "string"},
         "a string needs its length. Say how many characters it has, like length: 16"),
        ({"address": "holding:5", "type": "int16", "options": {"length": 2}},
         "length is for strings, int16 has 2 bytes. Leave length out"),
        ({"address": "holding:65530", "type": "string", "options": {"length": 13}},
         "string needs 7 registers, holding:65530 leaves 6. Use holding:65529 or lower"),
    ],
)  # fmt: skip
def test_a_mistake_names_the_tag_its_place_the_reason_and_the_cure(keys, text):
    tag = Tag(name="flow", place=Place("boiler.yaml", 14, 9), **keys)
    with pytest.raises(FileError) as caught:
        compiled(tag)
    assert str(caught.value).startswith(f"boiler.yaml:14:9: tag 'flow': {text}")
    assert "\n" not in str(caught.value)


def test_a_value_larger_than_a_request_is_a_mistake_not_a_loop():
    with pytest.raises(FileError, match=r"float64 needs 4 registers, one request takes 2 \(max_registers\)"):
        compiled(Tag(name="t", address="holding:0", type="float64"), max_registers=2)
    with pytest.raises(FileError, match="Use length: 20 or lower"):
        compiled(Tag(name="t", address="holding:0", type="string", options={"length": 21}), max_registers=10)


def test_all_mistakes_of_a_device_are_told_at_once_in_the_order_of_the_file():
    with pytest.raises(FileError) as caught:
        compiled(
            Tag(name="b", address="nowhere:5", type="integer", order="?", place=Place("f.yaml", 9, 3)),
            Tag(name="fine", address="holding:1", place=Place("f.yaml", 8, 3)),
            Tag(name="a", address="40000", place=Place("f.yaml", 7, 3)),
        )
    lines = str(caught.value).splitlines()
    assert [line.split(".")[1].split("'")[1] for line in lines] == ["a", "b", "b", "b"]
    assert ["no Modicon number" in lines[0], "no table" in lines[1], "no type" in lines[2], "no order" in lines[3]] == [
        True
    ] * 4


def test_a_device_made_without_options_has_the_defaults():
    device = Device(name="boiler", driver="modbus", url="tcp://host")
    (group,) = Driver.compile(device, [Tag(name="t", address="holding:0")])
    assert group.plan.options == DeviceOptions()


def test_a_value_that_is_larger_than_the_limit_is_a_block_by_itself_and_the_others_keep_to_it():
    spans = [(0, 4), (4, 20), (5, 6), (20, 24), (24, 28), (28, 30)]
    assert merge(spans, most=8, max_gap=None, request_cost=20) == [1, 2, 3, 5, 6]
