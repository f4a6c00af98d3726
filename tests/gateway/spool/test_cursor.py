"""Cursors and the document they survive in."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.journal.frame import Head
from gateway.journal.slots import SLOT_SIZE
from gateway.spool.cursor import MOST_CURSORS, Cursor, Cursors, Mark, State, lose
from gateway.spool.record import Gap, gap_record

lost = st.none() | st.builds(
    lambda first, n: gap_record(Gap(first, first + n, 5, 6, n, "evicted"), "abcdef-2"),
    st.integers(1, 2**63),
    st.integers(1, 1000),
)
marks = st.builds(Mark, st.text(max_size=64), st.booleans(), st.integers(0, 2**64 - 1), lost)
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
        b'{"store":"abcdef","start":1,"ceiling":1,"cursors":[["a",true,1,["e",1]]]}',
        b'{"store":7,"start":1,"ceiling":1,"cursors":[]}',
    ],
)
def test_anything_else_is_refused(document):
    with pytest.raises(ValueError):
        State.parse(document)


def test_as_many_cursors_as_there_may_be_fit_into_a_slot_however_they_are_named():
    gap = gap_record(Gap(2**63, 2**63 + 5, 2**50, 2**50, 2**40, "overtaken"), "abcdef-4000000000")
    many = tuple(Mark(f"{n:064d}", True, 2**63, gap) for n in range(MOST_CURSORS))
    assert len(State(store=1, start=1, ceiling=2**63, marks=many).document()) < SLOT_SIZE // 2


def test_rewind_goes_back_to_what_is_acknowledged():
    cursor = Cursor("a", holds=True, committed=5)
    cursor.position = 9
    cursor.ahead.append(gap_record(Gap(1, 12, 0, 0, 1, "damaged"), "e-1"))
    cursor.rewind()
    assert cursor.position == 5
    assert not cursor.ahead
    assert repr(cursor) == "Cursor('a', holds=True, committed=5, position=5)"


def test_what_is_held_follows_from_those_who_hold():
    cursors = Cursors([Mark("a", True, 5, None), Mark("b", True, 3, None), Mark("c", False, 1, None)], 9)
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
    found = lose(None, 15, [head(1, 10), head(11, 20), head(21, 30)])
    assert found.gap == Gap(16, 30, 11, 30, 15, "evicted")
    assert found.seq == 30
    assert found.epoch == "000001-0"


def test_losses_add_up_until_they_are_acknowledged():
    first = lose(None, 15, [head(11, 20)])
    assert lose(first, 15, [head(21, 30)]).gap == Gap(16, 30, 11, 30, 15, "evicted")
    assert lose(first, 20, [head(21, 30)]).gap == Gap(21, 30, 21, 30, 10, "evicted")


def test_a_frame_that_was_written_twice_is_lost_once():
    assert lose(None, 0, [head(1, 10), head(1, 10), head(1, 20)]).gap.count == 20


def test_nothing_is_lost_that_was_acknowledged():
    assert lose(None, 30, [head(11, 20), head(21, 30)]) is None
