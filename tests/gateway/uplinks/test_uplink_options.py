"""What an uplink may be told."""

from pathlib import Path

import pytest

from gateway.uplinks.options import Options, Server, Tls, parse_server

ONE = ("mqtt://broker.example.com",)
SECURE = ("mqtts://broker.example.com",)


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("mqtt://host", Server("host", 1883, secure=False)),
        ("mqtts://host", Server("host", 8883, secure=True)),
        ("mqtts://host:443/", Server("host", 443, secure=True)),
        ("mqtt://[::1]:1884", Server("::1", 1884, secure=False)),
    ],
)
def test_a_url_names_a_server(url, server):
    assert parse_server(url) == server
    assert parse_server(str(server)) == server


@pytest.mark.parametrize(
    ("url", "cure"),
    [
        ("host:1883", "mqtt://HOST:PORT"),
        ("tcp://host", "mqtt://HOST:PORT"),
        ("mqtt://user:secret@host", "`username`"),
        ("mqtt://host/path", "nothing may follow"),
        ("mqtt://host?x=1", "nothing may follow"),
        ("mqtt://host:0", "1 to 65535"),
        ("mqtt://host:99999", "1 to 65535"),
        ("mqtt://:1883", "1 to 65535"),
    ],
)
def test_a_url_that_names_none_is_refused_with_the_cure(url, cure):
    with pytest.raises(ValueError, match=cure) as caught:
        parse_server(url)
    assert "secret" not in str(caught.value)


def test_what_is_left_out_has_a_default_that_fits_the_payload():
    options = Options(name="cloud", gateway="plant7", servers=ONE)
    assert (options.client_id, options.topic, options.retain) == ("plant7-cloud", "{prefix}/{device}", False)
    options = Options(name="cloud", gateway="plant7", servers=ONE, payload="value")
    assert (options.topic, options.retain) == ("{prefix}/{device}/{tag}", True)
    assert (options.order, options.replay_rate, options.replay_delay_s) == ("live_first", None, 30.0)


class Hidden:
    def reveal(self):
        return "x"


@pytest.mark.parametrize(
    ("wrong", "cure"),
    [
        ({"servers": ()}, "at least one server"),
        ({"servers": ("http://x",)}, "mqtt://HOST:PORT"),
        ({"tls": Tls()}, "mqtts://"),
        ({"servers": (*SECURE, *ONE), "tls": Tls()}, "mqtts://"),
        ({"servers": SECURE, "tls": Tls(key=Path("k"))}, "tls.cert"),
        ({"password": Hidden()}, "username"),
        ({"keep_alive_s": 4}, "keep_alive"),
        ({"keep_alive_s": 65536}, "keep_alive"),
        ({"max_in_flight": 0}, "max_in_flight"),
        ({"max_packet": 100}, "max_packet"),
        ({"payload": "value", "topic": "{prefix}/{device}"}, "{tag}"),
        ({"prefix": "x/{device}"}, "prefix"),
        ({"replay_rate": 0.5}, "replay_rate"),
        ({"replay_rate": 2e7}, "replay_rate"),
        ({"replay_delay_s": -1.0}, "replay_delay"),
        ({"replay_delay_s": 3601.0}, "replay_delay"),
    ],
)
def test_options_that_cannot_work_are_refused_with_the_cure(wrong, cure):
    with pytest.raises(ValueError, match=cure.replace("{", r"\{")):
        Options(**{"name": "cloud", "gateway": "plant7", "servers": ONE} | wrong)
