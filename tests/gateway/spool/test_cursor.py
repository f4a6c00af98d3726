"""Cursors and the document they survive in."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.journal.frame import Head
from gateway.journal.slots import SLOT_SIZE
from gateway.spool.cursor import MOST_CURSORS, Cursor, Cursors, Loss, Mark, State, lose, lose_tail
from gateway.spool.record import Gap, gap_record

losses = st.lists(
    st.builds(
        lambda first, n: Loss("abcdef-2", Gap(first, first + n, 5, 6, n, "evicted")),
        st.integers(1, 2**63),
        st.integers(1, 1000),
    ),
    max_size=3,
).map(tuple)
marks = st.builds(Mark, st.text(max_size=64), st.booleans(), st.integers(0, 2**64 - 1), losses)
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
    many = tuple(Mark(f"{n:064d}", True, 2**63, (loss,) * 4) for n in range(MOST_CURSORS))
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
    cursors.changed(9)
    assert (cursors.acked, cursors.low) == (3, 1)
    cursors.by_name["b"].committed = 9
    cursors.settle(9)
    assert (cursors.acked, cursors.low) == (5, 1)
    del cursors.by_name["a"], cursors.by_name["b"]
    cursors.changed(9)
    assert not cursors.is_held
    assert cursors.acked > 2**63, "where nobody holds, nothing waits to be written"


def head(first, last, count=None):
    return Head(first_seq=first, last_seq=last, count=count or last - first + 1, min_time=first, max_time=last, store=1)


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
