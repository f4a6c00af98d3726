from __future__ import annotations

import datetime as dt

import pytest

from gateway.checkup.findings import Chart
from gateway.checkup.uplinks import judge_limits, judge_path, look
from gateway.mqtt.packets import Connect
from gateway.mqtt.properties import Properties
from gateway.mqtt.reasons import Reason
from gateway.secrets import Secret
from gateway.uplinks.options import Options, Tls


def options(port, *, secure=False, host="localhost", **more):
    url = f"mqtt{'s' if secure else ''}://{host}:{port}"
    return Options(**{"name": "cloud", "gateway": "plant7", "servers": (url,), "connect_timeout_s": 2.0} | more)


@pytest.fixture
def issued(live_authority):
    return live_authority.issue(now=dt.datetime.now(dt.UTC))


@pytest.fixture
def ca(live_authority, tmp_path):
    path = tmp_path / "ca.pem"
    path.write_bytes(live_authority.cert)
    return path


def states(findings):
    return {finding.state for finding in findings}


# --- a connection as the uplink makes it


def test_a_server_that_accepts_is_well_and_its_limits_are_told(serve, mqtt, shown):
    granted = Properties(receive_maximum=50, maximum_packet_size=100_000, topic_alias_maximum=10)
    found = look(options(serve(mqtt(properties=granted))), is_running=False)
    assert shown(found)[1:] == [
        "ok: MQTT 5.0: accepted",
        "ok: it announces: receive maximum 50, maximum packet size 100000, topic aliases 10",
    ]
    assert "TCP connects" in found[0].text


def test_the_login_of_the_file_is_used_and_nothing_is_left_behind(serve, mqtt):
    heard = []
    given = options(serve(mqtt(heard=heard)), username="u", password=Secret("p"), keep_alive_s=30)
    look(given, is_running=False)
    connect = heard[0]
    assert isinstance(connect, Connect)
    assert (connect.client_id, connect.username, connect.password) == ("plant7-cloud", "u", b"p")
    assert (connect.clean_start, connect.will, connect.keep_alive) == (True, None, 30)
    assert connect.properties.session_expiry == 0


def test_a_running_gateway_is_not_thrown_out_by_its_own_client_id(serve, mqtt):
    heard = []
    look(options(serve(mqtt(heard=heard))), is_running=True)
    assert heard[0].client_id == "plant7-cloud-doctor"


@pytest.mark.parametrize("code", [Reason.BAD_USER_NAME_OR_PASSWORD, Reason.NOT_AUTHORIZED, Reason.BANNED])
def test_a_refusal_is_wrong_with_the_servers_words(serve, mqtt, code):
    port = serve(mqtt(code, Properties(reason_string="ask Kim")))
    (wrong,) = [f for f in look(options(port), is_running=False) if f.state == "wrong"]
    assert f"0x{code:02X}" in wrong.text
    assert wrong.text.endswith("ask Kim")
    assert wrong.cure


def test_a_refusal_of_the_other_client_id_is_no_proof_while_the_gateway_runs(serve, mqtt):
    port = serve(mqtt(Reason.CLIENT_IDENTIFIER_NOT_VALID))
    assert "wrong" not in states(look(options(port), is_running=True))
    assert "wrong" in states(look(options(port), is_running=False))


def test_a_server_of_the_older_version_is_found_out(serve, mqtt, shown):
    found = look(options(serve(mqtt(levels=(4,)))), is_running=False)
    assert "ok: MQTT 3.1.1: accepted" in shown(found)
    assert any("does not speak MQTT 5" in f.text for f in found if f.state == "warning")


def test_a_server_that_refuses_the_version_is_asked_again(serve, mqtt, shown):
    def handler(sock):
        first = sock.recv(999, 2)  # MSG_PEEK
        if first[8] == 5:
            sock.recv(999)
            sock.sendall(b"\x20\x02\x00\x01")  # as a server of 3.1.1 refuses
        else:
            mqtt()(sock)

    assert "ok: MQTT 3.1.1: accepted" in shown(look(options(serve(handler)), is_running=False))


def test_a_server_that_refuses_both_versions_is_wrong(serve, mqtt):
    found = look(options(serve(mqtt(Reason.UNSUPPORTED_PROTOCOL_VERSION))), is_running=False)
    assert [f.state for f in found[1:]] == ["wrong"]


def test_each_server_is_looked_at_once(serve, mqtt):
    good, bad = serve(mqtt()), serve(lambda sock: None)
    urls = (f"mqtt://127.0.0.1:{good}", f"mqtt://127.0.0.1:{bad}", f"mqtt://127.0.0.1:{good}")
    found = look(options(0, servers=urls), is_running=False)
    assert [f.place for f in found if f.state == "wrong"] == [urls[1]]
    assert [f.place for f in found if "accepted" in f.text] == [urls[0]]


# --- TLS


def test_a_certificate_that_is_trusted_is_well(serve, mqtt, tls, issued, ca, shown):
    found = look(options(serve(mqtt(), tls(issued)), secure=True, tls=Tls(ca=ca)), is_running=False)
    assert states(found) == {"ok"}
    assert any("TLSv1.3" in line for line in shown(found))


def test_an_unknown_authority_is_wrong_and_the_cure_is_ca(serve, mqtt, tls, issued):
    found = look(options(serve(mqtt(), tls(issued)), secure=True), is_running=False)
    (wrong,) = [f for f in found if f.state == "wrong"]
    assert "not trusted" in wrong.text
    assert "ca" in wrong.cure


def test_a_certificate_for_another_host_is_wrong_and_says_for_which(serve, mqtt, tls, live_authority, ca):
    issued = live_authority.issue(names=("mqtt.example.com",), now=dt.datetime.now(dt.UTC))
    port = serve(mqtt(), tls(issued))
    found = look(options(port, secure=True, tls=Tls(ca=ca)), is_running=False)
    texts = [f.text + f.cure for f in found if f.state == "wrong"]
    assert any("for mqtt.example.com, not for localhost" in text for text in texts)
    assert any("server_name: mqtt.example.com" in text for text in texts)
    assert any("not trusted" in text and "server_name" in text for text in texts)
    assert states(
        look(options(port, secure=True, tls=Tls(ca=ca, server_name="mqtt.example.com")), is_running=False)
    ) == {"ok"}


def test_an_expired_certificate_is_wrong_with_its_date(serve, mqtt, tls, live_authority, ca):
    yesterday = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    issued = live_authority.issue(now=yesterday, days=(-9, 0))
    found = look(options(serve(mqtt(), tls(issued)), secure=True, tls=Tls(ca=ca)), is_running=False)
    assert any(f"expired on {yesterday:%Y-%m-%d}" in f.text for f in found if f.state == "wrong")


def test_a_certificate_that_expires_soon_is_a_warning(serve, mqtt, tls, live_authority, ca):
    issued = live_authority.issue(now=dt.datetime.now(dt.UTC), days=(-1, 10))
    found = look(options(serve(mqtt(), tls(issued)), secure=True, tls=Tls(ca=ca)), is_running=False)
    assert states(found) == {"ok", "warning"}
    assert any("expires on" in f.text for f in found)


def test_a_server_that_wants_a_certificate_gets_the_one_of_the_file(
    serve, mqtt, tls, issued, live_authority, ca, tmp_path
):
    port = serve(mqtt(), tls(issued, live_authority))
    assert "wrong" in states(look(options(port, secure=True, tls=Tls(ca=ca)), is_running=False))
    mine = live_authority.issue("gateway", now=dt.datetime.now(dt.UTC))
    (tmp_path / "c.pem").write_bytes(mine.cert)
    (tmp_path / "k.pem").write_bytes(mine.key())
    found = look(
        options(port, secure=True, tls=Tls(ca=ca, cert=tmp_path / "c.pem", key=tmp_path / "k.pem")), is_running=False
    )
    assert states(found) == {"ok"}


def test_a_locked_key_is_told(serve, mqtt, tls, issued, live_authority, ca, tmp_path):
    mine = live_authority.issue("gateway", now=dt.datetime.now(dt.UTC))
    (tmp_path / "c.pem").write_bytes(mine.cert)
    (tmp_path / "k.pem").write_bytes(mine.key(b"secret"))
    given = Tls(ca=ca, cert=tmp_path / "c.pem", key=tmp_path / "k.pem")
    found = look(options(serve(mqtt(), tls(issued)), secure=True, tls=given), is_running=False)
    assert any("encrypted" in f.text for f in found if f.state == "wrong")


def test_trust_in_anybody_is_a_warning(serve, mqtt, tls, issued):
    found = look(options(serve(mqtt(), tls(issued)), secure=True, tls=Tls(verify=False)), is_running=False)
    assert [f.place for f in found if f.state == "warning"] == ["tls.verify"]


# --- limits and the path


@pytest.mark.parametrize(
    ("granted", "wanted", "words"),
    [
        (Properties(server_keep_alive=60), {"keep_alive_s": 15}, "hangs up after 90 s"),
        (Properties(server_keep_alive=0), {"keep_alive_s": 15}, "hangs up never"),
        (Properties(maximum_qos=0), {"qos": 1}, "QoS 0 at most, the file asks for 1"),
        (Properties(maximum_qos=1), {"qos": 2}, "QoS 1 at most, the file asks for 2"),
        (Properties(retain_available=0), {"retain": True}, "keeps no retained"),
        (Properties(maximum_packet_size=4_096), {}, "4096 bytes at most"),
        (Properties(receive_maximum=5), {}, "5 publishes in flight"),
    ],
)
def test_limits_below_what_the_file_asks_for_are_warnings(granted, wanted, words, shown):
    chart = Chart("uplink cloud", "")
    judge_limits(granted, options(1, **wanted), chart)
    (warning,) = shown(chart.findings, "warning", "wrong")
    assert words in warning


@pytest.mark.parametrize(
    ("granted", "wanted"),
    [
        (Properties(), {}),
        (Properties(server_keep_alive=10), {"keep_alive_s": 15}),
        (Properties(server_keep_alive=30), {"keep_alive_s": 15}),
        (Properties(maximum_qos=1), {"qos": 1}),
        (Properties(retain_available=0), {"retain": False}),
        (Properties(maximum_packet_size=65_536, receive_maximum=20), {}),
        (Properties(receive_maximum=5), {"max_in_flight": 5}),
    ],
)
def test_limits_that_do_not_bind_are_well(granted, wanted):
    chart = Chart("uplink cloud", "")
    judge_limits(granted, options(1, **wanted), chart)
    assert states(chart.findings) <= {"ok"}


@pytest.mark.parametrize(
    ("mtu", "segment", "is_v6", "state", "words"),
    [
        (1500, 1448, False, "ok", "path MTU is 1500"),
        (1500, 1428, True, "ok", "path MTU is 1500"),
        (1492, 1440, False, "ok", "1492 bytes, less than"),
        (1500, 1300, False, "ok", "1352 bytes, less than"),
        (1500, 1000, False, "warning", "1052 bytes at most"),
        (1279, None, True, "warning", "1279 bytes at most"),
        (None, 1228, False, "ok", "1280 bytes, less than"),
    ],
)
def test_a_narrow_path_is_told(mtu, segment, is_v6, state, words):
    chart = Chart("uplink cloud", "")
    judge_path(mtu, segment, is_v6=is_v6, chart=chart)
    (finding,) = chart.findings
    assert finding.state == state
    assert words in finding.text


def test_a_path_of_which_nothing_is_known_is_not_mentioned():
    chart = Chart("uplink cloud", "")
    judge_path(None, None, is_v6=False, chart=chart)
    assert chart.findings == []
