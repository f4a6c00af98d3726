"""A session's packet identifiers, window and what it takes up from the connection before."""

from collections import deque
from types import SimpleNamespace

import pytest

from gateway.broker.client import Identity
from gateway.broker.message import Message
from gateway.broker.session import NO_SIZE, Session

WHO = Identity("c")


def client(receive_maximum=65_535, size=None, aliases=0, level=5):
    connection = SimpleNamespace(
        level=level,
        client_receive_maximum=receive_maximum,
        client_maximum_packet_size=size,
        client_topic_alias_maximum=aliases,
    )
    return SimpleNamespace(connection=connection, identity=WHO)


def sending(n=1):
    return (Message("t", b"%d" % n, 1, False), 1, False, (), 0)


def test_identifiers_go_round_and_skip_those_in_flight():
    session = Session("c", WHO, 0)
    assert [session.draw_id() for _ in range(3)] == [1, 2, 3]
    session.last_id = 65_534
    session.in_flight = {1: sending(), 2: None}
    assert [session.draw_id() for _ in range(2)] == [65_535, 3]


def test_the_last_free_identifier_is_found():
    session = Session("c", WHO, 0)
    session.in_flight = dict.fromkeys(range(1, 65_536))
    del session.in_flight[40_000]
    assert session.draw_id() == 40_000


@pytest.mark.parametrize(("asked", "ours", "window"), [(65_535, 1_000, 1_000), (10, 1_000, 10), (1, 1, 1)])
def test_the_window_is_the_smaller_of_both(asked, ours, window):
    session = Session("c", WHO, 0)
    session.attach(client(asked), ours)
    assert session.window == window


def test_a_buffer_for_all_suits_only_who_has_neither_aliases_nor_a_size():
    session = Session("c", WHO, 0)
    for who, is_plain in ((client(), True), (client(aliases=1), False), (client(size=100), False)):
        session.attach(who, 10)
        assert session.is_plain is is_plain
    assert session.max_size == 100
    session.attach(client(), 10)
    assert session.max_size == NO_SIZE


def test_a_new_connection_has_everything_in_flight_to_send_again_in_order():
    session = Session("c", WHO, 100)
    session.in_flight = {7: sending(1), 3: None, 65_535: sending(2)}
    session.waiting = deque([sending(3), sending(4)])
    session.attach(client(), 10)
    assert list(session.unsent) == [7, 3, 65_535]
    assert session.unchecked == 2
    assert session.has_more
    session.detach(5.0)
    assert (session.client, session.offline_since, session.unsent) == (None, 5.0, None)


def test_a_session_says_how_it_stands():
    session = Session("c", WHO, 0)
    session.waiting = deque([sending()])
    session.in_flight = {1: sending()}
    assert repr(session) == "<Session 'c' offline in_flight=1 waiting=1>"
    session.attach(client(), 10)
    assert "online" in repr(session)
