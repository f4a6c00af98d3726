"""Cursors and the document they survive in."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.journal.frame import Head
from gateway.journal.slots import SLOT_SIZE
from gateway.spool.cursor import MOST_CURSORS, Cursor, Cursors, Mark, State
from gateway.spool.losses import Loss, lose, lose_tail
from gateway.spool.record import Gap, gap_record

losses = st.lists(
    st.builds(
        lambda first, n: Loss("abcdef-2", Gap(first, first + n, 5, 6, n, "evicted")),
        st.integers(1, 2**63),
        st.integers(1, 1000),
    ),
    max_size=3,
).map(tuple)
islands = st.lists(st.tuples(st.integers(1, 2**63), st.integers(1, 2**63)), max_size=8).map(tuple)
marks = st.builds(
    Mark,
    st.text(max_size=64),
    st.booleans(),
    st.integers(0, 2**64 - 1),
    losses,
    islands,
    st.none() | st.integers(0, 2**63),
)
states = st.builds(
    State,
    store=st.integers(0, 2**24 - 1),
    start=st.integers(0, 2**32 - 1),
    ceiling=st.integers(0, 2**64 - 1),
    marks=st.lists(marks, max_size=5).map(tuple),
)


@settings(deadline=None)
@given(states)
def test_the_state_reads_back_as_it_was_written(state):
    try:
        document = state.document()
    except TypeError:  # a lone surrogate in a name: names of uplinks are of a smaller alphabet
        return
    assert State.parse(document) == state


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"null",
        b"{}",
        b"[1]",
        b'{"store":"xyz","start":1,"ceiling":1,"cursors":[]}',
        b'{"store":"abcdef","start":1,"ceiling":1,"cursors":[[1]]}',
        b'{"store":"abcdef","start":1,"ceiling":1,"cursors":[["a",true,1,[["e",1]]]]}',
        b'{"store":7,"start":1,"ceiling":1,"cursors":[]}',
    ],
)
def test_anything_else_is_refused(document):
    with pytest.raises(ValueError):
        State.parse(document)


def test_as_many_cursors_as_there_may_be_fit_into_a_slot_however_they_are_named():
    loss = Loss("abcdef-4000000000", Gap(2**63, 2**63 + 5, 2**50, 2**50, 2**40, "overtaken"))
    sea = ((2**63, 2**63 + 1),) * 8
    many = tuple(Mark(f"{n:064d}", True, 2**63, (loss,) * 4, sea, 2**63) for n in range(MOST_CURSORS))
    assert len(State(store=1, start=1, ceiling=2**63, marks=many).document()) < SLOT_SIZE - 4096


def test_rewind_goes_back_to_what_is_acknowledged():
    cursor = Cursor("a", holds=True, committed=5)
    cursor.position = 9
    cursor.ahead.append(gap_record(Gap(1, 12, 0, 0, 1, "damaged"), "e-1"))
    cursor.rewind()
    assert cursor.position == 5
    assert not cursor.ahead
    assert repr(cursor) == "Cursor('a', holds=True, committed=5, position=5)"


def test_what_is_held_follows_from_those_who_hold():
    cursors = Cursors([Mark("a", True, 5), Mark("b", True, 3), Mark("c", False, 1)], 9)
    assert (cursors.is_held, cursors.acked, cursors.low) == (True, 3, 3), "nobody reads for c yet"
    cursors.by_name["c"].is_claimed = True
    cursors.changed(9, 0)
    assert (cursors.acked, cursors.low) == (3, 1)
    cursors.by_name["b"].committed = 9
    cursors.settle(9, 0)
    assert (cursors.acked, cursors.low) == (5, 1)
    del cursors.by_name["a"], cursors.by_name["b"]
    cursors.changed(9, 0)
    assert not cursors.is_held
    assert cursors.acked > 2**63, "where nobody holds, nothing waits to be written"


def test_what_all_who_hold_have_acknowledged_out_of_order_need_not_be_written():
    cursors = Cursors([Mark("a", True, 5, islands=((11, 20),)), Mark("b", True, 18)], 30)
    cursors.settle(30, 8)
    assert (cursors.acked, cursors.floor, cursors.low) == (8, 5, 5), "a lacks 9 and 10"
    cursors.settle(30, 10)
    assert (cursors.acked, cursors.floor) == (18, 5), "b lacks 19"
    cursors.by_name["b"].committed = 30
    cursors.settle(30, 12)
    assert cursors.acked == 20
    cursors.settle(30, 25)
    assert cursors.acked == 25


def test_a_cursor_without_an_uplink_holds_what_it_had_and_nothing_new():
    cursors = Cursors([Mark("a", True, 5, holds_until=10), Mark("b", True, 30)], 30)
    assert (cursors.acked, cursors.floor, cursors.low) == (30, 5, 30)
    assert cursors.is_held
    assert cursors.is_read
    del cursors.by_name["b"]
    cursors.changed(30, 12)
    assert not cursors.is_held
    assert not cursors.is_read
    assert cursors.floor == 5
    assert cursors.acked > 2**63, "nobody wants anything that is new"
    cursors.by_name["a"].committed = 10
    cursors.settle(30, 12)
    assert cursors.floor > 2**63


def test_what_came_while_a_name_was_away_is_told_in_its_place_when_it_is_back():
    cursor = Cursor("a", holds=True, committed=5)
    cursor.holds_until = 10
    cursor.claim(30, "e-2", 777)
    assert cursor.losses == (Loss("e-2", Gap(11, 30, 0, 777, 20, "overtaken")),)
    cursor.rewind()
    assert (cursor.position, cursor.stop) == (5, 10)
    cursor.position = 10
    assert cursor.step() == cursor.losses[0]
    assert cursor.position == 30
    assert cursor.stop > 2**63
    cursor.acknowledge(0, 30)
    assert cursor.losses == ()


def test_a_name_that_comes_back_to_nothing_new_has_lost_nothing():
    cursor = Cursor("a", holds=True, committed=5)
    cursor.holds_until = 10
    cursor.claim(10, "e-2", 777)
    assert cursor.losses == ()
    cursor.holds_until = 10
    cursor.acknowledge(0, 10)
    cursor.claim(12, "e-3", 778)
    assert [loss.gap.first_seq for loss in cursor.losses] == [11]


def test_a_name_that_comes_and_goes_for_ever_has_few_losses_that_cover_all_it_missed():
    cursor = Cursor("a", holds=True, committed=5)
    for n in range(1, 20):
        cursor.holds_until = 100 * n
        cursor.claim(100 * n + 50, "e-2", n)
    assert len(cursor.losses) == 4
    assert [loss.gap.cause for loss in cursor.losses] == ["overtaken"] * 4
    assert (cursor.losses[3].gap.first_seq, cursor.losses[3].gap.last_seq) == (401, 1950)


def test_a_loss_of_what_is_acknowledged_out_of_order_is_none():
    assert lose((), 5, [head(1, 20)], [(8, 12), (15, 30)]) == (
        Loss("000001-0", Gap(6, 14, 1, 20, 2 + 2, "evicted")),
    ), "two before the island, two behind it"
    assert lose((), 5, [head(16, 20)], [(15, 30)]) == ()


def test_a_time_away_is_not_made_one_with_other_losses():
    away = (Loss("e-1", Gap(11, 20, 0, 9, 10, "overtaken")),)
    found = lose(away, 5, [head(1, 15), head(16, 30)])
    assert [(loss.gap.cause, loss.gap.first_seq, loss.gap.last_seq) for loss in found] == [
        ("evicted", 6, 30),
        ("overtaken", 11, 20),
    ]
    assert found[0].gap.count == 5 + 10, "what it was told of already counts once"


def head(first, last, count=None):
    count = count or last - first + 1
    return Head(first_seq=first, last_seq=last, covers_from=first, count=count, min_time=first, max_time=last, store=1)


def test_a_cursor_loses_what_it_had_not_acknowledged_of_evicted_frames():
    found = lose((), 15, [head(1, 10), head(11, 20), head(21, 30)])
    assert found == (Loss("000001-0", Gap(16, 30, 11, 30, 15, "evicted")),)


def test_losses_add_up_until_they_are_acknowledged():
    first = lose((), 15, [head(11, 20)])
    assert [loss.gap for loss in lose(first, 15, [head(21, 30)])] == [Gap(16, 30, 11, 30, 15, "evicted")]
    assert [loss.gap for loss in lose(first, 20, [head(21, 30)])] == [Gap(21, 30, 21, 30, 10, "evicted")]


def test_a_frame_that_was_written_twice_is_lost_once():
    assert lose((), 0, [head(1, 10), head(1, 10), head(1, 20)])[0].gap.count == 20


def test_nothing_is_lost_that_was_acknowledged():
    assert lose((), 30, [head(11, 20), head(21, 30)]) == ()


def test_a_lost_tail_stands_alone_until_what_is_before_and_behind_it_is_evicted_too():
    tail = lose_tail((), 5, Gap(11, 20, 11, 20, 10, "memory"), "000001-0")
    assert tail == (Loss("000001-0", Gap(11, 20, 11, 20, 10, "memory")),)
    both = lose(tail, 5, [head(1, 8)])
    assert [(loss.gap.cause, loss.gap.first_seq, loss.gap.last_seq) for loss in both] == [
        ("evicted", 6, 8),
        ("memory", 11, 20),
    ]
    (all_of_it,) = lose(both, 5, [head(9, 10), head(101, 104)])
    assert all_of_it.gap == Gap(6, 104, 1, 104, 3 + 2 + 10 + 4, "evicted")


def test_lost_tails_are_told_as_one_where_nothing_is_between_them_and_there_is_a_limit_to_them():
    first = lose_tail((), 0, Gap(11, 20, 1, 2, 10, "memory"), "e-1")
    assert [loss.gap.last_seq for loss in lose_tail(first, 0, Gap(21, 30, 3, 4, 10, "memory"), "e-1")] == [30]
    assert len(lose_tail(first, 0, Gap(21, 30, 3, 4, 10, "memory"), "e-2")) == 2
    assert lose_tail(first, 40, Gap(21, 30, 3, 4, 10, "memory"), "e-2") == first
    for n in range(2, 20):
        first = lose_tail(first, 0, Gap(100 * n, 100 * n + 5, 3, 4, 6, "memory"), f"e-{n}")
    assert len(first) == 4
    assert (first[0].gap.first_seq, first[-1].gap.last_seq) == (11, 1905), "none of them is forgotten"
    assert sum(loss.gap.count for loss in first) == 10 + 18 * 6


def test_with_a_frame_that_is_evicted_the_gap_it_begins_with_is_not_forgotten():
    head = Head(start=1, count=51, first_seq=44, last_seq=94, covers_from=1)
    (loss,) = lose((), 0, [head])
    assert (loss.gap.first_seq, loss.gap.last_seq, loss.gap.cause) == (1, 94, "evicted")
    (loss,) = lose((), 0, [head], [(1, 43)])
    assert loss.gap.first_seq == 44
