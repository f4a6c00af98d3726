"""Notifications cut into batches of groups."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.opcua.listening.assembling import Layout
from drivers.opcua.values.columns import Columns


def _columns(handles):
    """Each value says its handle and its place in the message."""
    count = len(handles)
    return Columns(
        list(handles),
        [(h, k) for k, h in enumerate(handles)],
        [k % 3 for k in range(count)],
        [1000 + k for k in range(count)],
        [2000 + k for k in range(count)],
    )


def _shown(layout, handles):
    cuts, aliens = layout.cut(_columns(handles))
    return [(cut.group, cut.index, [value[1] for value in cut.columns.values]) for cut in cuts], aliens


@pytest.mark.parametrize(
    ("sizes", "handles", "expected"),
    [
        ([3], [0, 1, 2], [(0, None, [0, 1, 2])]),
        ([3, 2], [0, 1, 2, 3, 4], [(0, None, [0, 1, 2]), (1, None, [3, 4])]),
        ([3, 2], [3, 4], [(1, None, [0, 1])]),
        ([3, 2], [1, 4], [(0, [1], [0]), (1, [1], [1])]),
        ([3, 2], [2, 1, 0], [(0, None, [2, 1, 0])]),
        ([3, 2], [4, 0, 3], [(0, [0], [1]), (1, None, [2, 0])]),
        ([3], [1, 1, 1], [(0, [1], [0]), (0, [1], [1]), (0, [1], [2])]),
        ([2], [0, 1, 0, 1], [(0, None, [0, 1]), (0, None, [2, 3])]),
        ([2, 2], [0, 3, 0, 1, 3], [(0, None, [0, 3]), (1, [1], [1]), (0, [0], [2]), (1, [1], [4])]),
        ([2], [], []),
        ([1, 0, 1], [0, 1], [(0, None, [0]), (2, None, [1])]),
    ],
)
def test_what_comes_of_a_message(sizes, handles, expected):
    assert _shown(Layout(sizes), handles) == (expected, 0)


def test_values_of_handles_that_nobody_gave_out_are_left_out_and_counted():
    assert _shown(Layout([2, 1]), [7, 0, 3, 2]) == ([(0, [0], [1]), (1, None, [3])], 2)
    assert _shown(Layout([2]), [9]) == ([], 1)
    assert _shown(Layout([0]), [0]) == ([], 1)


def test_each_handle_belongs_to_its_group():
    layout = Layout([3, 0, 2])
    assert [layout.group_of(handle) for handle in range(5)] == [0, 0, 0, 2, 2]


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.lists(st.integers(0, 25), max_size=60))
def test_every_value_comes_once_in_its_place_and_a_tags_values_keep_their_order(sizes, handles):
    layout = Layout(sizes)
    cuts, aliens = layout.cut(_columns(handles))
    seen = []
    for cut in cuts:
        columns, size = cut.columns, sizes[cut.group]
        index = list(range(size)) if cut.index is None else cut.index
        assert index == sorted(set(index))
        assert cut.index is None or len(index) < size
        for place, (handle, at), code, source, server in zip(
            index, columns.values, columns.codes, columns.source, columns.server, strict=True
        ):
            assert layout.starts[cut.group] + place == handle
            assert (code, source, server) == (at % 3, 1000 + at, 2000 + at)
            seen.append((handle, at))
    expected = [(h, k) for k, h in enumerate(handles) if h < layout.total]
    assert sorted(seen) == sorted(expected)
    assert aliens == len(handles) - len(expected)
    for handle in set(handles):
        places = [at for h, at in seen if h == handle]
        assert places == sorted(places)
