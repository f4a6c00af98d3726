from gateway.backoff import Backoff


def test_waits_double_up_to_the_longest():
    backoff = Backoff(1.0, 30.0, dice=lambda: 1.0)
    assert [backoff.next_s() for _ in range(8)] == [1, 2, 4, 8, 16, 30, 30, 30]


def test_a_wait_is_drawn_between_half_and_all_of_it():
    assert Backoff(8.0, 60.0, dice=lambda: 0.0).next_s() == 4.0
    assert len({Backoff(8.0, 60.0).next_s() for _ in range(20)}) > 10


def test_after_a_success_it_starts_from_the_beginning():
    backoff = Backoff(1.0, 30.0, dice=lambda: 1.0)
    for _ in range(2000):
        backoff.next_s()
    assert backoff.failures == 2000
    backoff.reset()
    assert backoff.next_s() == 1.0
