"""Status, states and losses, byte for byte."""

from gateway.model import DeviceState
from gateway.spool.record import Gap
from gateway.uplinks.message import Message
from gateway.uplinks.notices import Notices

NOTICES = Notices("headgate/plant7")


def test_the_gateway_says_online_offline_and_stopped_retained():
    topic = "headgate/plant7/status"
    assert NOTICES.online() == Message(topic, b'{"state":"online"}', retain=True)
    assert NOTICES.offline() == Message(topic, b'{"state":"offline"}', retain=True)
    assert NOTICES.stopped() == Message(topic, b'{"state":"stopped"}', retain=True)


def test_a_device_says_why_and_since_when_it_is_offline():
    topic = "headgate/plant7/boiler/status"
    assert NOTICES.device(DeviceState("boiler", online=True, cause="", since=7)) == Message(
        topic, b'{"state":"online"}', retain=True
    )
    assert NOTICES.device(DeviceState("boiler", online=False, cause="timeout", since=1795330000123)) == Message(
        topic, b'{"state":"offline","cause":"timeout","since":1795330000123}', retain=True
    )


def test_a_loss_is_told_with_numbers_times_and_cause():
    assert NOTICES.gap(9, "9f31c2-3", Gap(5, 9, 1000, 2000, 4, "evicted")) == Message(
        "headgate/plant7/log",
        b'{"event":"gap","seq":9,"epoch":"9f31c2-3","first":5,"last":9,"count":4,"cause":"evicted","from":1000,"to":2000}',
        retain=False,
    )


def test_times_that_are_not_known_are_left_out():
    assert NOTICES.gap(9, "e", Gap(5, 9, 0, 0, 4, "damaged")).payload.endswith(b'"count":4,"cause":"damaged"}')
