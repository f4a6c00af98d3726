"""The window of publishes in flight: what may be sent."""

import pytest

from gateway.uplinks.window import Window


class Traveller:
    def __init__(self, *, yields=False):
        self.unacked = self.size = 0
        self.yields = yields


@pytest.fixture
def window():
    return Window(limit=3, limit_bytes=100)


def send(window, *tokens, size=1, yields=False):
    traveller = Traveller(yields=yields)
    for token in tokens:
        window.sent(token, traveller, "t", size)
    return traveller


def test_room_ends_with_the_number_and_with_the_bytes_in_flight(window):
    send(window, 1, 2, 3)
    assert not window.has_room
    window.acknowledged(2)
    assert window.has_room
    send(window, 4, size=99)
    window.acknowledged(1)
    assert not window.has_room
    window.acknowledged(4)
    assert window.has_room


def test_one_publish_larger_than_the_bound_goes_alone(window):
    send(window, 1, size=5000)
    assert not window.has_room
    window.acknowledged(1)
    assert window.has_room


def test_what_yields_gets_half_of_the_number_and_half_of_the_bytes():
    window = Window(limit=10, limit_bytes=100)
    send(window, 1, 2, 3, 4, yields=True)
    assert window.has_room_to_yield
    send(window, 5, yields=True)
    assert not window.has_room_to_yield
    assert window.has_room
    window.acknowledged(3)
    assert window.has_room_to_yield
    send(window, 6, size=60, yields=True)
    window.acknowledged(1)
    assert not window.has_room_to_yield, "of the bytes"
    assert window.has_room
    send(window, 7, 8, 9, 10)
    window.acknowledged(6)
    assert window.has_room_to_yield, "what does not yield takes nothing from that half"


def test_of_a_window_of_one_what_yields_may_have_all():
    window = Window(limit=1, limit_bytes=100)
    assert window.has_room_to_yield
    send(window, 1, yields=True)
    assert not window.has_room_to_yield


def test_a_traveller_knows_what_of_it_is_under_way(window):
    one = send(window, 1, 2, size=7)
    assert (one.unacked, one.size) == (2, 7)
    assert window.acknowledged(1) == (one, "t")
    assert one.unacked == 1


def test_a_token_that_is_not_known_is_nobody_s(window):
    assert window.acknowledged(77) is None


def test_what_is_not_a_record_takes_room_and_nothing_else(window):
    window.sent(1, None, "status", 1)
    assert window.in_flight == 1
    assert list(window.travellers()) == []
    assert window.acknowledged(1) == (None, "status")


def test_the_oldest_is_the_same_object_until_it_is_acknowledged(window):
    assert window.oldest is None
    send(window, 1)
    oldest = window.oldest
    send(window, 2)
    assert window.oldest is oldest
    window.acknowledged(1)
    send(window, 1)  # a token used again
    assert window.oldest is not oldest


def test_travellers_come_in_the_order_of_sending(window):
    first, second = send(window, 1, 3), send(window, 2)
    assert list(window.travellers()) == [first, first, second]
    window.acknowledged(1)
    window.acknowledged(3)
    assert list(window.travellers()) == [second]
