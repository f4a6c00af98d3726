"""The window of publishes in flight: what may be sent, and what may be committed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.uplinks.window import Window


@pytest.fixture
def window():
    return Window(limit=3, limit_bytes=100)


def whole(window, seq, *tokens, size=1):
    entry = window.open(seq, f"record {seq}", replay=False)
    for token in tokens:
        window.sent(token, entry, "t", size)
    entry.whole = True
    return entry


def test_records_are_committed_in_order_however_they_are_acknowledged(window):
    for seq in (1, 2, 3):
        whole(window, seq, seq + 10)
    window.acknowledged(13)
    assert window.advance() is None
    window.acknowledged(11)
    assert window.advance() == (1, 1)
    window.acknowledged(12)
    assert window.advance() == (3, 2)
    assert window.advance() is None


def test_a_record_in_parts_is_done_when_the_last_part_is(window):
    entry = window.open(1, "record", replay=False)
    window.sent(1, entry, "t", 1)
    window.acknowledged(1)
    assert window.advance() is None  # not whole: another part may follow
    window.sent(2, entry, "t", 1)
    entry.whole = True
    assert window.advance() is None
    window.acknowledged(2)
    assert window.advance() == (1, 1)


def test_a_refused_record_is_settled_but_not_done(window):
    entry = whole(window, 1, 1)
    entry.code = 0x87
    window.acknowledged(1)
    assert entry.is_settled
    assert window.advance() is None
    entry.again()
    assert not entry.is_settled
    assert entry.replay


def test_room_ends_with_the_number_and_with_the_bytes_in_flight(window):
    whole(window, 1, 1, 2, 3)
    assert not window.has_room
    window.acknowledged(2)
    assert window.has_room
    whole(window, 2, 4, size=99)
    window.acknowledged(1)
    assert not window.has_room
    window.acknowledged(4)
    assert window.has_room


def test_one_publish_larger_than_the_bound_goes_alone(window):
    whole(window, 1, 1, size=5000)
    assert not window.has_room
    window.acknowledged(1)
    assert window.has_room


def test_a_token_that_is_not_known_is_nobody_s(window):
    assert window.acknowledged(77) is None


def test_what_is_not_a_record_takes_room_and_nothing_else(window):
    window.sent(1, None, "status", 1)
    assert window.in_flight == 1
    assert window.acknowledged(1) == (None, "status")
    assert window.advance() is None


def test_records_pile_up_behind_a_missing_acknowledgement_only_to_a_bound(window):
    for seq in range(1, 13):
        assert window.has_span
        whole(window, seq, seq)
        if seq > 1:
            window.acknowledged(seq)
    assert not window.has_span


def test_the_oldest_is_the_same_object_until_it_is_acknowledged(window):
    assert window.oldest is None
    whole(window, 1, 1)
    oldest = window.oldest
    whole(window, 2, 2)
    assert window.oldest is oldest
    window.acknowledged(1)
    whole(window, 3, 1)  # a token used again
    assert window.oldest is not oldest


def test_suspects_are_the_first_record_under_way_and_the_last_number(window):
    assert window.suspects is None
    first = whole(window, 5, 1)
    whole(window, 6, 2)
    whole(window, 7, 3)
    window.acknowledged(3)
    assert window.suspects == (first, 6)
    window.acknowledged(1)
    assert window.suspects is None  # the head is done, whoever hung up did not mean it


@given(st.data())
def test_a_commit_never_passes_a_record_that_is_not_acknowledged(data):
    window = Window(limit=8, limit_bytes=1 << 20)
    unacknowledged = {}
    flying = []
    seq = token = committed = 0
    for _ in range(data.draw(st.integers(0, 60))):
        if data.draw(st.booleans()) and window.has_room and window.has_span:
            seq += data.draw(st.integers(1, 3))
            parts = data.draw(st.integers(0, 3))
            entry = window.open(seq, None, replay=False)
            unacknowledged[seq] = parts
            for _ in range(parts):
                token += 1
                window.sent(token, entry, "t", 1)
                flying.append((token, entry))
            entry.whole = True
        elif flying:
            acked, entry = flying.pop(data.draw(st.integers(0, len(flying) - 1)))
            window.acknowledged(acked)
            if data.draw(st.integers(0, 9)):
                unacknowledged[entry.seq] -= 1
            else:
                entry.code = 0x87  # refused: never done in this story
        advanced = window.advance()
        if advanced is not None:
            assert advanced[0] > committed
            committed = advanced[0]
        assert not [s for s, parts in unacknowledged.items() if s <= committed and parts]
