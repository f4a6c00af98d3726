from __future__ import annotations

import datetime as dt
import socket

import pytest

from gateway.broker.options import Address, Options, Tls
from gateway.checkup.broker import CLIENT_ID, look
from gateway.mqtt.reasons import Reason

STRONG = "anna:$7$210000$c2FsdHNhbHRzYWx0$" + "A" * 86 + "==\n"
WEAK = "bert:$7$101$c2FsdHNhbHRzYWx0$" + "A" * 86 + "==\n"


@pytest.fixture
def issued(live_authority):
    return live_authority.issue(names=("plant7", "127.0.0.1"), now=dt.datetime.now(dt.UTC))


@pytest.fixture
def put(tmp_path):
    def write(name, data, mode=0o600):
        path = tmp_path / name
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        path.chmod(mode)
        return path

    return write


def at(port, scheme="mqtt", host="127.0.0.1"):
    return Address(scheme, host, port)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def looked(*, is_running=True, **options):
    return look(Options(**options), is_running=is_running)


def states(findings):
    return {finding.state for finding in findings}


# --- listeners


def test_a_listener_that_answers_is_well(serve, mqtt, shown):
    heard = []
    found = looked(listen=(at(serve(mqtt(heard=heard))),))
    assert shown(found) == ["ok: answers, and accepts a client"]
    assert heard[0].client_id == CLIENT_ID


def test_a_listener_that_does_not_answer_while_the_gateway_runs_is_wrong(shown):
    found = looked(listen=(at(free_port()),))
    assert shown(found) == ["wrong: the gateway runs, but here: the machine answers, but nothing listens on this port"]


def test_a_free_port_is_well_while_the_gateway_does_not_run(shown):
    found = looked(listen=(at(free_port()),), is_running=False)
    assert states(found) == {"ok"}
    assert "port is free" in found[0].text


def test_a_port_that_another_program_holds_is_wrong(serve, mqtt, shown):
    found = looked(listen=(at(serve(mqtt())),), is_running=False)
    assert shown(found) == ["wrong: the gateway does not run, and could not listen here: address already in use"]


def test_an_address_that_this_machine_does_not_have_is_wrong():
    (finding,) = looked(listen=(at(free_port(), host="192.0.2.1"),), is_running=False)
    assert (finding.state, "ip address" in finding.cure) == ("wrong", True)


def test_a_port_bound_but_not_listened_on_is_wrong():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        (finding,) = looked(listen=(at(s.getsockname()[1]),), is_running=False)
    assert (finding.state, "ss -ltnp" in finding.cure) == ("wrong", True)


def test_a_listener_on_all_addresses_is_called_over_loopback(serve, mqtt):
    found = looked(listen=(at(serve(mqtt()), host="0.0.0.0"),))
    assert found[0].text == "answers, and accepts a client"


def test_any_free_port_is_not_looked_for(shown):
    assert states(looked(listen=(at(0),))) == {"ok"}


def test_a_login_asked_for_is_well_and_one_not_asked_for_is_wrong(serve, mqtt, put, shown):
    users = put("users", STRONG)
    for code in (Reason.NOT_AUTHORIZED, Reason.BAD_USER_NAME_OR_PASSWORD):
        assert "ok: answers, and asks for a login" in shown(looked(listen=(at(serve(mqtt(code))),), users=users))
    found = looked(listen=(at(serve(mqtt())),), users=users)
    assert any("without a login is let in" in f.text for f in found if f.state == "wrong")


def test_a_refusal_for_another_reason_is_wrong(serve, mqtt, put):
    found = looked(listen=(at(serve(mqtt(Reason.SERVER_BUSY))),), users=put("users", STRONG))
    assert any("0x89" in f.text for f in found if f.state == "wrong")
    assert "wrong" in states(looked(listen=(at(serve(mqtt(Reason.NOT_AUTHORIZED))),)))


def test_what_is_no_broker_is_wrong(serve):
    found = looked(listen=(at(serve(lambda sock: sock.recv(99))),))
    assert states(found) == {"wrong"}


# --- TLS


def test_a_listener_with_the_certificate_of_the_file_is_well(serve, mqtt, tls, issued, put):
    options = Tls(cert=put("c.pem", issued.cert), key=put("k.pem", issued.key()))
    found = looked(listen=(at(serve(mqtt(), tls(issued)), "mqtts"),), tls=options)
    assert states(found) == {"ok"}
    assert any("clients may call it plant7, 127.0.0.1" in f.text for f in found)


def test_an_older_certificate_in_the_running_gateway_is_a_warning(serve, mqtt, tls, issued, live_authority, put):
    newer = live_authority.issue(names=("127.0.0.1",), now=dt.datetime.now(dt.UTC))
    options = Tls(cert=put("c.pem", newer.cert), key=put("k.pem", newer.key()))
    found = looked(listen=(at(serve(mqtt(), tls(issued)), "mqtts"),), tls=options)
    assert [f.state for f in found if f.state != "ok"] == ["warning"]
    assert any("another certificate" in f.text for f in found)


def test_names_that_do_not_fit_the_address_are_told(live_authority, put):
    now = dt.datetime.now(dt.UTC)
    elsewhere, nameless = live_authority.issue(names=("else",), now=now), live_authority.issue(names=(), now=now)
    for issued, host, state in (
        (elsewhere, "127.0.0.1", "warning"),
        (elsewhere, "0.0.0.0", "ok"),
        (nameless, "127.0.0.1", "wrong"),
        (nameless, "0.0.0.0", "wrong"),
    ):
        options = Tls(cert=put("c.pem", issued.cert), key=put("k.pem", issued.key()))
        found = looked(listen=(at(0, "mqtts", host),), tls=options)
        assert (states(found) - {"ok"} or {"ok"}) == {state}


def test_a_client_certificate_asked_for_is_well(serve, mqtt, tls, issued, live_authority, put, shown):
    options = Tls(cert=put("c.pem", issued.cert), key=put("k.pem", issued.key()), ca=put("ca.pem", live_authority.cert))
    found = looked(listen=(at(serve(mqtt(), tls(issued, live_authority)), "mqtts"),), tls=options)
    assert "ok: answers, and asks for a client certificate" in shown(found)
    assert states(found) == {"ok"}


def test_no_client_certificate_asked_for_where_the_file_wants_one_is_wrong(
    serve, mqtt, tls, issued, live_authority, put
):
    options = Tls(cert=put("c.pem", issued.cert), key=put("k.pem", issued.key()), ca=put("ca.pem", live_authority.cert))
    found = looked(listen=(at(serve(mqtt(), tls(issued)), "mqtts"),), tls=options)
    assert any("let in" in f.text for f in found if f.state == "wrong")


def test_a_listener_that_speaks_no_tls_is_wrong(serve, mqtt, issued, put):
    options = Tls(cert=put("c.pem", issued.cert), key=put("k.pem", issued.key()))
    assert "wrong" in states(looked(listen=(at(serve(mqtt()), "mqtts"),), tls=options))


def test_files_of_tls_are_looked_at_also_while_the_gateway_does_not_run(authority, now, put, shown):
    old = authority.issue(days=(-9, -1), now=dt.datetime.now(dt.UTC))
    options = Tls(
        cert=put("c.pem", old.cert),
        key=put("k.pem", authority.issue().key()),
        ca=put("ca.pem", b"nothing"),
        crl=put("crl.pem", authority.crl(dt.datetime(2026, 9, 20, tzinfo=dt.UTC))),
    )
    wrong = shown(looked(listen=(at(0, "mqtts"),), tls=options, is_running=False), "wrong")
    assert [any(word in line for line in wrong) for word in ("expired", "does not belong", "no certificate")] == [
        True
    ] * 3


# --- users and ACL


def test_weak_hashes_are_told_and_strong_ones_counted(put, shown):
    found = looked(listen=(at(0),), users=put("users", STRONG))
    assert "ok: 1 user, all hashes strong" in shown(found)
    found = looked(listen=(at(0),), users=put("users", STRONG + WEAK))
    assert any("1 of 2" in f.text for f in found if f.state == "warning")


def test_a_password_file_with_a_mistake_is_wrong_and_does_not_quote_it(put):
    found = looked(listen=(at(0),), users=put("users", "anna:topsecret\n"))
    (wrong,) = [f for f in found if f.state == "wrong"]
    assert "users:1" in wrong.text
    assert "topsecret" not in wrong.text + wrong.cure


@pytest.mark.parametrize(
    ("mode", "state"), [(0o600, "ok"), (0o640, "ok"), (0o644, "warning"), (0o660, "wrong"), (0o602, "wrong")]
)
def test_an_acl_that_others_can_change_is_wrong_one_they_can_read_a_warning(put, mode, state):
    found = looked(listen=(at(0),), acl=put("acl", "topic read a/#\n", mode))
    assert states(found) - {"ok"} == {state} - {"ok"}


def test_files_that_are_not_there_or_wrong_are_told(tmp_path, put):
    found = looked(listen=(at(0),), users=tmp_path / "no-users", acl=tmp_path / "no-acl")
    assert [f.text for f in found if f.state == "wrong"] == ["no such file or directory"] * 2
    found = looked(listen=(at(0),), acl=put("acl", "topic read a/#/b\nhello\n"))
    assert len([f for f in found if f.state == "wrong"]) == 2
