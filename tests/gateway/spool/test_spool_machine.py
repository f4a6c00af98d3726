"""A queue against a plain list, worked by a machine that thinks of anything."""

import pytest


@pytest.mark.parametrize("persist", ["on_age", "always"])
def test_a_queue_behaves_as_a_plain_list_would(work, persist):
    work(examples=60, steps=40, persist=persist)


@pytest.mark.long
@pytest.mark.parametrize("persist", ["on_age", "always"])
@pytest.mark.timeout(3000)
def test_a_queue_behaves_as_a_plain_list_would_for_a_long_time(work, persist):
    work(examples=3000, steps=60, persist=persist, is_random=True)
