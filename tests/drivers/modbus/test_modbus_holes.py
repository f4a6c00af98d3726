"""What a survey remembers of blocks that fail, step by step; time is an argument."""

import pytest

from drivers.modbus.frames.pdu import Failure, refusal
from drivers.modbus.options import DeviceOptions
from drivers.modbus.polling.block import Block
from drivers.modbus.polling.holes import FIRST_PAUSE_S, LAST_PAUSE_S, STRIKES, Survey
from drivers.modbus.values.slots import locate
from gateway.model import Tag

REFUSED = refusal(2)
BUSY = refusal(6)
SILENT = Failure("timeout", "no answer", "unit")


def block(first, count):
    tags = [Tag(name=f"t{i}", address=f"holding:{i}") for i in range(first, first + count)]
    return Block.of(1, [locate(tag, DeviceOptions()) for tag in tags])


@pytest.fixture
def survey():
    """Blocks 0..3 and 100..103."""
    return Survey([block(0, 4), block(100, 4)])


def names(nodes):
    return [str(node.block) for node in nodes]


def begin(survey, now=0.0, doubts=99):
    return tuple(map(names, survey.begin(now, doubts)))


def test_a_new_survey_asks_for_everything_and_is_clear(survey):
    assert begin(survey) == (["holding:0..3", "holding:100..103"], [])
    assert survey.is_clear


def test_what_is_refused_is_cut_until_a_hole_is_left(survey):
    root = survey.roots[0]
    low, high = survey.note_failure(root, REFUSED, 0)
    survey.note_answer(low)
    one, two = survey.note_failure(high, REFUSED, 0)
    survey.note_answer(one)
    assert survey.note_failure(two, REFUSED, 0) == []
    assert begin(survey) == (["holding:0..1", "holding:2", "holding:100..103"], ["holding:3"])
    assert names(root.holes()) == ["holding:3"]
    assert not survey.is_clear
    assert "cut" in repr(root)
    assert "hole" in repr(two)
    assert "well" in repr(one)


def test_parts_are_in_doubt_until_they_were_asked_for_and_only_so_many_are_asked_for(survey):
    survey.note_failure(survey.roots[0], REFUSED, 0)
    survey.note_failure(survey.roots[1], REFUSED, 0)
    assert "doubted" in repr(survey.roots[0].parts[0])
    assert begin(survey, doubts=3) == (["holding:0..1", "holding:2..3", "holding:100..101"], ["holding:102..103"])
    for node in survey.begin(0, 3)[0]:
        survey.note_answer(node)
    assert begin(survey, doubts=1) == (
        ["holding:0..1", "holding:2..3", "holding:100..101", "holding:102..103"],
        [],
    )


def test_one_trial_a_read_even_when_all_pauses_are_over(survey):
    for root in survey.roots:
        for part in survey.note_failure(root, REFUSED, 0):
            survey.note_answer(part)
    asked, _ = begin(survey, FIRST_PAUSE_S)
    assert asked == ["holding:0..3", "holding:100..101", "holding:102..103"]
    survey.note_answer(survey.roots[0])
    asked, _ = begin(survey, FIRST_PAUSE_S)
    assert asked == ["holding:0..3", "holding:100..103"]


def test_pauses_double_up_to_their_limit_and_start_anew_after_an_answer(survey):
    root, now, pauses = survey.roots[0], 0.0, []
    for _ in range(9):
        survey.note_failure(root, REFUSED, now)
        pauses.append(root.retry_at - now)
        now = root.retry_at
    assert pauses == [10, 20, 40, 80, 160, 320, LAST_PAUSE_S, LAST_PAUSE_S, LAST_PAUSE_S]
    survey.note_answer(root)
    survey.note_failure(root, REFUSED, now)
    assert root.retry_at - now == FIRST_PAUSE_S


def test_a_hole_that_is_asked_for_before_its_time_does_not_wait_longer_for_that():
    survey = Survey([block(0, 1)])
    for now in range(9):
        assert begin(survey, now) == (["holding:0"], [])  # there is nothing else to ask for
        survey.note_failure(survey.roots[0], REFUSED, now)
    assert survey.roots[0].retry_at == FIRST_PAUSE_S


def test_silence_puts_a_block_last_and_an_answer_or_a_refusal_back_into_its_place(survey):
    first, second = survey.roots
    survey.note_silence(first, SILENT, 0, others_answered=True)
    assert begin(survey) == (["holding:100..103", "holding:0..3"], [])
    survey.note_silence(second, SILENT, 0, others_answered=True)
    assert begin(survey) == (["holding:0..3", "holding:100..103"], [])
    assert not survey.is_clear
    survey.note_answer(first)
    assert survey.note_failure(second, BUSY, 0) == []
    assert begin(survey) == (["holding:0..3", "holding:100..103"], [])
    assert survey.is_clear


def test_only_silence_while_others_answer_counts_as_a_strike_and_only_in_a_row(survey):
    root = survey.roots[0]
    for _ in range(99):
        survey.note_silence(root, SILENT, 0, others_answered=False)
    for _ in range(STRIKES - 1):
        survey.note_silence(root, SILENT, 0, others_answered=True)
    survey.note_failure(root, BUSY, 0)
    for _ in range(STRIKES - 1):
        survey.note_silence(root, SILENT, 0, others_answered=True)
    assert root.failure is None
    assert survey.note_silence(root, SILENT, 0, others_answered=True) == []  # the read ends here
    assert root.failure == SILENT


def test_the_parts_of_a_silent_block_go_last_and_need_no_second_warning(survey):
    root = survey.roots[0]
    for _ in range(STRIKES):
        survey.note_silence(root, SILENT, 0, others_answered=True)
    assert begin(survey) == (["holding:100..103", "holding:0..1", "holding:2..3"], [])
    low, _ = root.parts
    survey.note_silence(low, SILENT, 0, others_answered=True)
    assert low.failure == SILENT
    assert begin(survey)[0] == ["holding:100..103", "holding:2..3", "holding:0", "holding:1"]


def test_a_trial_that_is_silent_hands_out_its_parts_for_the_same_read(survey):
    root = survey.roots[0]
    for _ in range(STRIKES):
        survey.note_silence(root, SILENT, 0, others_answered=True)
    for part in root.parts:
        survey.note_answer(part)
    asked, _ = survey.begin(FIRST_PAUSE_S, 9)
    assert asked[-1] is root
    assert names(survey.note_silence(root, SILENT, FIRST_PAUSE_S, others_answered=True)) == [
        "holding:0..1",
        "holding:2..3",
    ]


def test_a_region_that_is_left_out_is_tried_whole_and_by_the_piece_and_never_searched(survey):
    root = survey.roots[0]
    survey.leave_out(root, REFUSED, FIRST_PAUSE_S, 100)
    pieces = ["holding:0", "holding:1", "holding:2", "holding:3"]
    assert begin(survey, 99) == (["holding:100..103"], pieces)
    assert begin(survey, 100) == (["holding:0..3", "holding:100..103"], [])
    assert survey.note_failure(root, REFUSED, 100) == []
    assert begin(survey, 100) == (["holding:0", "holding:100..103"], pieces[1:])


def test_a_region_whose_pieces_all_came_back_is_cut_in_two_where_it_is_still_refused_in_one_piece(survey):
    root = survey.roots[0]
    survey.leave_out(root, REFUSED, FIRST_PAUSE_S, 100)
    for piece in root.parts:
        survey.note_answer(piece)
    assert names(survey.note_failure(root, REFUSED, 100)) == ["holding:0..1", "holding:2..3"]


def test_what_has_waited_longest_is_tried_first(survey):
    for root, since in zip(survey.roots, (5, 3), strict=True):
        survey.note_failure(root, refusal(1), since)
    asked, _ = begin(survey, 100)
    assert asked == ["holding:100..103"]
