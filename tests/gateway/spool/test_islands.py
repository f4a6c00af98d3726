"""Ranges acknowledged out of order, against a plain set of numbers."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.spool.cursor import Cursor
from gateway.spool.islands import absorb, add, beyond, count, largest, outside

MOST = 40
ranges = st.tuples(st.integers(1, MOST), st.integers(0, 8)).map(lambda r: (r[0], min(MOST, r[0] + r[1])))
numbers = st.integers(0, MOST)


def members(islands):
    return {n for first, last in islands for n in range(first, last + 1)}


def build(parts):
    islands = []
    for first, last in parts:
        add(islands, first, last)
    return islands


@given(st.lists(ranges, max_size=12))
def test_islands_hold_what_was_put_in_apart_from_one_another_and_in_order(parts):
    islands = build(parts)
    assert members(islands) == members(parts)
    assert islands == sorted(islands)
    assert all(a[1] + 1 < b[0] for a, b in pairwise(islands))
    assert count(islands) == len(members(parts))


@given(st.lists(ranges, max_size=12), numbers)
def test_what_is_committed_absorbs_the_islands_it_meets(parts, committed):
    islands = build(parts)
    known = members(islands) | set(range(1, committed + 1))
    found = absorb(islands, committed)
    expected = committed
    while expected + 1 in known:
        expected += 1
    assert found == expected
    assert members(islands) == {n for n in known if n > found}


@given(st.lists(ranges, max_size=12), numbers)
def test_beyond_an_island_begins_behind_its_last_number(parts, seq):
    islands = build(parts)
    expected = seq
    while expected + 1 in members(islands):
        expected += 1
    assert beyond(islands, seq) == expected


@given(st.lists(ranges, max_size=8), numbers, numbers)
def test_outside_of_all_islands_is_the_rest(parts, first, last):
    assert members(outside(parts, first, last)) == set(range(first, last + 1)) - members(parts)


@given(st.lists(ranges, max_size=12), st.integers(1, 4))
def test_the_largest_are_kept_with_the_newest_and_in_order(parts, most):
    islands = build(parts)
    kept = largest(islands, most)
    assert len(kept) == min(most, len(islands))
    assert list(kept) == sorted(kept)
    if islands:
        assert kept[-1] == islands[-1]
    given_up = [island for island in islands if island not in kept]
    sizes = [b - a for a, b in kept[:-1]]
    assert all(b - a <= size for a, b in given_up for size in sizes)


moves = st.lists(st.tuples(st.sampled_from(["backlog", "live", "connect"]), st.integers(1, 6)), max_size=60)


@settings(deadline=None)
@given(moves)
def test_a_cursor_acknowledges_what_its_two_heads_did_and_steps_over_it(story):
    """A backlog lane and a live lane commit in turns; a new connection makes backlog of what is not acknowledged."""
    cursor = Cursor("cloud", holds=True, committed=0)
    head, done = 10, set()
    cursor.rewind(until=head)
    live = cursor.branch(head)
    for what, n in story:
        if what == "connect":
            head += n
            cursor.rewind(until=head)
            live = cursor.branch(head)
        elif what == "live":
            head += n
            live.position = min(head, live.position + n)
            done |= set(range(live.after + 1, live.position + 1))
            cursor.acknowledge(live.after, live.position)
        elif cursor.position < cursor.until:
            while cursor.position >= cursor.stop and cursor.position < cursor.until:
                cursor.step()
            end = min(cursor.position + n, cursor.stop)
            assert not done & set(range(cursor.position + 1, end + 1)), "nothing twice"
            cursor.position = end
            done |= set(range(1, end + 1))
            if end > cursor.committed:
                cursor.acknowledge(0, end)
        known = set(range(1, cursor.committed + 1)) | members(cursor.islands)
        assert known == done
        assert cursor.committed + 1 not in done


def test_of_very_many_islands_the_smallest_are_forgotten_and_few_are_stored():
    cursor = Cursor("cloud", holds=True, committed=0)
    for n in range(1, 101):
        cursor.acknowledge(1000 * n, 1000 * n + n)
    assert len(cursor.islands) == 64
    assert cursor.islands[-1] == (100_001, 100_100)
    assert cursor.islands[0] == (37_001, 37_037)
    stored = cursor.mark().islands
    assert [last - first + 1 for first, last in stored] == list(range(93, 101))
